//! The VmSession actor: one VM, one remote at a time. It supervises both controllers and carries messages between
//! them and the link of the moment.
//!
//! ```text
//!   UsbCtrl ──Submit──►┐                            ┌──► outbound (bounded) ──► link::drive ──► remote
//!   HdaCtrl ──Play────►├── VmSession ── Session ────┤        (I/O runtime)
//!   UsbCtrl ◄─stream───┤                            └──◄ inbound (bounded) ◄───
//!   HdaCtrl ◄─stream───┘
//! ```
//!
//! Everything but the link's I/O runs on the arbiter this actor was started on. What must survive a child (the
//! port map, the bus, the session) belongs here; a child that ends is noticed by its [`Tether`] and started again
//! within limits. A lost link is not a crash: it is a state. The session goes on over the next link, and the guest sees
//! nothing of it but that its requests take longer and its sound is silent; only what has no link for longer than
//! [`HoldTimes`] is unplugged cleanly, and plugged again when a remote returns.
#![forbid(unsafe_code)]

mod carried;
mod children;
mod descriptors;
mod hang_up;
mod hold;
mod keys;
mod links;
mod live;
mod ports;
mod send_away;
mod session_io;
mod shared;
mod sound;
mod tether;
mod track;

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use capture::Tap;
use hda_ctrl::Play;
pub use hda_ctrl::Wish;
use link::{Link, PeerKey};
use pci::Bus;
use session::LinkId;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use usb_ctrl::{Plugged, Submit};
use wire::ToRemote;

pub use carried::{Carried, LaneCarried};
pub use children::Child;
use children::{HdaSeat, UsbSeat};
pub use hang_up::HangUp;
pub use hold::HoldTimes;
use links::Newcomer;
use live::Live;
use ports::Ports;
pub use ports::{LentDevice, MAX_LENT};
pub use send_away::SendAway;
pub use tether::{Ended, Tether};
pub use track::OpusPacket;

/// A remote's authenticated link for this VM.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LinkUp {
    /// The link. What it first says decides: it begins a session, which ends the one of before, or goes on with it.
    pub link: Box<dyn Link>,
    /// Where the guest's sound goes as Opus while the session is on this link, in place of the AUDIO lane; if anywhere.
    pub track: Option<mpsc::Sender<OpusPacket>>,
}

/// The remote, if there is one, is sent away and nothing runs any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// What happens to a VM, told to whoever runs it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Event {
    /// A remote is there.
    Linked {
        /// Its authenticated key.
        remote: PeerKey,
        /// The kind of its link.
        transport: &'static str,
    },
    /// The remote's link is gone. It may come back; until then what it lends is held.
    Detached {
        /// Why, for people.
        reason: String,
    },
    /// The session goes on over another link.
    Resumed {
        /// The kind of the link.
        transport: &'static str,
        /// How long there was none; none if it moved from one to the other.
        after: Option<Duration>,
    },
    /// The remote is gone, and with it what it lent.
    LinkLost {
        /// Why, for people.
        reason: String,
    },
    /// A device is lent.
    Attached {
        /// Its name, for people.
        name: String,
        /// `idVendor` and `idProduct`.
        id: (u16, u16),
    },
    /// What is lent, within a second of its change; nothing is after [`Self::LinkLost`].
    Lent(Vec<LentDevice>),
    /// Counters, once a second while they move.
    Counted(Box<Counters>),
    /// A child ended too often; the device it stood for is lost until the worker is started anew.
    GaveUp {
        /// Which.
        child: Child,
    },
}

/// What went to the remote since the start, and how it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of sound sent.
    pub frames: u64,
    /// USB requests sent.
    pub requests: u64,
    /// Links that came up.
    pub links: u64,
    /// Devices that are lent at the moment.
    pub devices: u64,
    /// What the session of the moment has carried.
    pub carried: Carried,
}

/// What a VmSession is made of.
pub struct Parts {
    /// The VM's name, for logs.
    pub name: String,
    /// The bus of the USB controller.
    pub usb: Bus,
    /// The USB controller's configuration space.
    pub usb_config: fn() -> pci::ConfigSpace,
    /// The USB controller's own settings; its first request is chosen here.
    pub xhci: xhci::Config,
    /// The bus of the HD Audio controller.
    pub hda: Bus,
    /// The HD Audio controller's configuration space.
    pub hda_config: fn() -> pci::ConfigSpace,
    /// The HD Audio controller's own settings.
    pub hda_settings: hda::Config,
    /// How what the guest plays is sent.
    pub codec: Wish,
    /// How long devices stay plugged in without a link.
    pub hold: HoldTimes,
    /// Whether a remote with another key may end the session that there is.
    pub takeover: bool,
    /// The runtime for the link's I/O and encryption.
    pub io: Handle,
    /// Records what goes to the remote's devices, and what comes of it.
    pub tap: Option<Tap>,
    /// Who is told what happens.
    pub events: Recipient<Event>,
}

/// The actor.
pub struct VmSession {
    name: String,
    usb: UsbSeat,
    hda: HdaSeat,
    hold: HoldTimes,
    takeover: bool,
    io: Handle,
    tap: Option<Tap>,
    events: Recipient<Event>,
    start: Instant,
    ports: Ports,
    live: Option<Live>,
    sessions: u32,
    newcomers: BTreeMap<LinkId, Newcomer>,
    last_link: u64,
    counters: Counters,
    counted: Counters,
    /// What is lent as it was told last.
    told: Vec<LentDevice>,
    timer: Option<(Duration, SpawnHandle)>,
}

impl VmSession {
    /// A session without a remote; its controllers start with it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            name: parts.name,
            usb: UsbSeat::new(parts.usb, parts.usb_config, parts.xhci),
            hda: HdaSeat::new(parts.hda, parts.hda_config, parts.hda_settings, parts.codec),
            hold: parts.hold,
            takeover: parts.takeover,
            io: parts.io,
            tap: parts.tap,
            events: parts.events,
            start: Instant::now(),
            ports: Ports::default(),
            live: None,
            sessions: 0,
            newcomers: BTreeMap::new(),
            last_link: 0,
            counters: Counters::default(),
            counted: Counters::default(),
            told: Vec::new(),
            timer: None,
        }
    }

    fn tell(&self, event: Event) {
        self.events.do_send(event);
    }

    fn count(&mut self) {
        let session = self.live.as_ref().map(|live| &live.session);
        self.hda.sound.set_round_trip(session.and_then(|session| session.stats().round_trip));
        let lent = self.ports.told();
        self.counters.devices = lent.len() as u64;
        self.counters.carried = self.live.as_ref().map(Carried::by).unwrap_or_default();
        if lent != self.told {
            self.told.clone_from(&lent);
            self.tell(Event::Lent(lent));
        }
        if self.counters != self.counted {
            self.counted = self.counters;
            self.tell(Event::Counted(Box::new(self.counters)));
        }
    }
}

impl Actor for VmSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_child(Child::Usb, ctx);
        self.start_child(Child::Hda, ctx);
        ctx.run_interval(Duration::from_secs(1), |act, _| act.count());
    }
}

impl Handler<Submit> for VmSession {
    type Result = ();

    fn handle(&mut self, Submit(messages): Submit, ctx: &mut Self::Context) {
        let known = self.for_remote(messages);
        self.hand_over(ctx);
        self.record(&known);
        let known: Vec<_> = known.into_iter().map(ToRemote::Usb).collect();
        self.counters.requests += known.len() as u64;
        self.send(known, ctx);
    }
}

impl Handler<Plugged> for VmSession {
    type Result = ();

    fn handle(&mut self, plugged: Plugged, _: &mut Self::Context) {
        self.ports.plugged(plugged);
    }
}

impl Handler<Play> for VmSession {
    type Result = ();

    fn handle(&mut self, Play(messages): Play, ctx: &mut Self::Context) {
        self.counters.frames += self.hda.sound.note(&messages);
        let mut track = self.track();
        let lane = |message| match &mut track {
            Some(track) => track.take(message),
            None => Some(message),
        };
        let messages: Vec<_> = messages.into_iter().filter_map(lane).collect();
        self.send(messages.into_iter().map(ToRemote::Audio).collect(), ctx);
    }
}

impl Handler<Ended> for VmSession {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        self.child_ended(ended, ctx);
    }
}

impl Handler<Stop> for VmSession {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.say_goodbye(ctx);
        self.count();
        ctx.stop();
    }
}
