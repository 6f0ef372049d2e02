//! The session of the moment: how it begins, what becomes of it without a link, and how it ends.
//!
//! ```text
//!           HELLO                link lost                      no link for as long as anything is held
//!   none ──────────► attached ─────────────► detached ─────────────────────────────────────────────────► none
//!                     ▲    │                   │  └─ a device's time is over: that device is unplugged
//!                     │    └───────────────────┼──── the remote leaves, breaks the protocol, or is replaced ──► none
//!                     └──────── ATTACH ────────┘
//! ```
//! While it is detached the guest sees nothing of it: its requests wait, its sound plays into silence. When it is over
//! everything is unplugged cleanly.

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use capture::Tap;
use hda_ctrl::{RemoteCame, SendAs, Wish};
use link::{Filled, PeerKey};
use session::{Identity, LinkId, Secret, Session, SessionId};
use usb_ctrl::Detach;
use wire::{
    ToRemote, control,
    usb::{self, DeviceId},
};

use crate::{
    Event, VmSession,
    hold::Holds,
    keys::Keys,
    links::{Line, hang_up},
    session_io::Backlog,
    track::Track,
};

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A session, and the links that it has.
pub(crate) struct Live {
    pub(crate) session: Session,
    /// Whose it is.
    pub(crate) peer: PeerKey,
    /// Counts the sessions of this VM.
    pub(crate) number: u32,
    pub(crate) backlog: Backlog,
    pub(crate) holds: Holds,
    pub(crate) keys: Keys,
    pub(crate) lines: BTreeMap<LinkId, Line>,
    /// Why the last link was lost.
    pub(crate) lost: String,
}

impl Live {
    /// Whether a remote with this key may go on with the session of this id.
    pub(crate) fn owns(&self, peer: PeerKey, id: SessionId) -> bool {
        self.peer == peer && self.session.id() == Some(id)
    }

    /// Lets go of all links; of the one that it is on when what waits has been handed to it: a goodbye may be there.
    fn bow_out(mut self, now: Duration, ctx: &mut Context<VmSession>) {
        let current = self.session.link().and_then(|link| Some((link, self.lines.remove(&link)?)));
        std::mem::take(&mut self.lines).into_values().for_each(|line| hang_up(line, ctx));
        let Some((link, line)) = current else { return };
        if !line.waiting {
            return hang_up(line, ctx);
        }
        let outbound = line.outbound.clone();
        let said = async move {
            let mut filled = Filled::Full;
            while filled == Filled::Full {
                outbound.clone().room().await;
                filled = outbound.fill(|| {
                    self.fill(now);
                    self.session.poll_transmit_on(now, link)
                });
            }
        };
        // Who takes nothing for so long does not hear it.
        let said = fut::wrap_future::<_, VmSession>(tokio::time::timeout(FAREWELL, said));
        ctx.spawn(said.map(move |_, _, ctx| hang_up(line, ctx)));
    }

    /// When keys that are down are to be released.
    fn keys_due(&self) -> Option<Duration> {
        self.holds.since().and_then(|since| self.keys.due(since))
    }
}

impl VmSession {
    /// A new session with this remote; one that there is already ends.
    pub(crate) fn begin(&mut self, peer: PeerKey, ctx: &mut Context<Self>) {
        if self.live.is_some() {
            self.say_goodbye(ctx);
            self.end("another remote took the VM over", ctx);
        }
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        if let Err(error) = getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)) {
            return tracing::error!(vm = %self.name, %error, "no session without randomness");
        }
        let identity = Identity { id: SessionId(id), secret: Secret::new(secret) };
        let config = session::Config { expire_after: self.hold.longest(), ..session::Config::default() };
        self.sessions += 1;
        self.live = Some(Live {
            session: Session::host(identity, config),
            peer,
            number: self.sessions,
            backlog: Backlog::default(),
            holds: Holds::new(self.hold),
            keys: Keys::default(),
            lines: BTreeMap::new(),
            lost: String::new(),
        });
        self.tap.iter_mut().for_each(Tap::renew);
    }

    /// The session is over: a clean unplug of everything that was lent, and of what is in the jacks.
    pub(crate) fn end(&mut self, reason: &str, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = self.live.take() else { return };
        live.bow_out(now, ctx);
        for device in self.ports.detach_all() {
            self.to_usb(Detach { device });
        }
        self.hda.sound.unplug();
        self.set_timer(None, ctx);
        self.told.clear();
        self.tell(Event::LinkLost { reason: reason.to_owned() });
    }

    /// The session is on a link that it was not on before.
    pub(crate) fn attached(&mut self, link: LinkId, resumed: bool) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let Some(line) = live.lines.get(&link) else { return };
        self.counters.links += 1;
        let (transport, remote) = (line.name, live.peer);
        let after = live.holds.attached(now);
        let wish = self.wish();
        if let Some(hda) = &self.hda.addr {
            hda.do_send(SendAs(wish));
        }
        if resumed {
            return self.tell(Event::Resumed { transport, after });
        }
        self.tell(Event::Linked { remote, transport });
        if let Some(hda) = &self.hda.addr {
            hda.do_send(RemoteCame);
        }
    }

    /// The track of the link of the moment.
    pub(crate) fn track(&mut self) -> Option<&mut Track> {
        let live = self.live.as_mut()?;
        let link = live.session.link()?;
        live.lines.get_mut(&link)?.track.as_mut()
    }

    /// How sound is sent: a track takes nothing but Opus.
    pub(crate) fn wish(&mut self) -> Wish {
        if self.track().is_some() { Wish::Opus } else { self.hda.codec }
    }

    /// The session is on no link: the guest is not to notice, for as long as each device is held.
    pub(crate) fn detached(&mut self) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        live.holds.detached(now);
        let reason = live.lost.clone();
        self.tell(Event::Detached { reason });
    }

    /// Releases keys and unplugs devices that have been held for long enough. The remote hears of it when it is back.
    pub(crate) fn release(&mut self) {
        let now = self.start.elapsed();
        if let Some(live) = &mut self.live
            && live.keys_due().is_some_and(|at| at <= now)
        {
            let released = live.keys.release();
            live.backlog.make_up(released);
        }
        let Some(live) = &self.live else { return };
        let over = |device, class| live.holds.until(device, class).is_some_and(|at| at <= now);
        let over: Vec<_> = self.ports.classes().filter(|(d, c)| over(*d, *c)).map(|(d, _)| d).collect();
        for device in over {
            let Some(theirs) = self.unplug(device) else { continue };
            tracing::info!(vm = %self.name, device = device.0, "no link for too long: a device is unplugged");
            let unplugged = control::ToRemote::Unplugged { device: theirs };
            self.queue(vec![ToRemote::Control(unplugged)]);
        }
    }

    fn unplug(&mut self, device: DeviceId) -> Option<DeviceId> {
        let theirs = self.ports.give_up(device)?;
        self.forget(device);
        Some(theirs)
    }

    /// The controller sees this device no more.
    pub(crate) fn forget(&mut self, device: DeviceId) {
        if let Some(live) = &mut self.live {
            live.holds.forget(device);
            live.keys.forget(device);
        }
        self.to_usb(Detach { device });
    }

    /// What of this goes to the remote, by its own ids. What ends here is with the completions.
    pub(crate) fn for_remote(&mut self, messages: Vec<usb::ToRemote>) -> Vec<usb::ToRemote> {
        let now = self.start.elapsed();
        let mut ends = Vec::new();
        let lent = |message: usb::ToRemote| {
            let Some(live) = self.live.as_mut().filter(|_| self.ports.lends(message.device())) else {
                return Some(message);
            };
            live.holds.asked(now, &message);
            live.keys.outwards(message, &mut ends)
        };
        let lent: Vec<_> = messages.into_iter().filter_map(lent).collect();
        if let Some(live) = &mut self.live {
            live.backlog.make_up(ends);
        }
        lent.into_iter().filter_map(|message| self.ports.address(message)).collect()
    }

    /// When something becomes due by itself.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let live = self.live.as_ref()?;
        let held = self.ports.classes().filter_map(|(device, class)| live.holds.until(device, class));
        held.chain(live.session.poll_timeout()).chain(live.keys_due()).min()
    }

    /// Tells the remote that the session ends, as far as there is room to say it.
    pub(crate) fn say_goodbye(&mut self, ctx: &mut Context<Self>) {
        let text = "the host ends this session".to_owned();
        self.send(vec![ToRemote::Control(control::ToRemote::Bye { text, retry: false })], ctx);
    }
}
