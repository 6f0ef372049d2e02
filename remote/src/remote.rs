//! The Remote actor: connects, comes back, and carries messages between the session and what is lent.
//!
//! ```text
//!              connected          link lost ► Detached ─ attempts side by side
//!   Waiting ───────────────► Linked ◄──── resumed ─┘  └─ the host's patience is over, or the host leaves ► Waiting
//!      │ refused for good, or asked to end   │ asked to end, or sent away for good           (back-off)
//!      └────────────────────────────────────►└─► ended: goodbye said, sound finished, an exit code
//! ```
//! A session outlives its links; what is lent does not notice them. In a new session every device is attached anew. The
//! functions themselves (a disk's content, a keyboard's keys that wait) outlive that, too.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use actix::prelude::*;
use futures_util::future::{join, join_all};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::{
    Lane, ToHost, ToRemote, audio,
    control::{self, Refusal},
};

use crate::{
    backoff::Backoff,
    events::{Event, Events, Totals},
    lent::Lent,
    links::Attempts,
    live::Live,
    port::{Do, Ended, Ends, PortId, What},
    quality::Quality,
    sound::{End, Heard, Report},
    ways::{Connector, Way, Wish},
};

/// The exit code for a host that refuses for good.
pub(crate) const REFUSED: u8 = 3;
/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long devices may take to be given back to this computer.
pub(crate) const GIVING_BACK: Duration = Duration::from_secs(5);

/// What a Remote is made of.
pub(crate) struct Parts {
    pub(crate) connector: Connector,
    /// Which links are tried.
    pub(crate) wish: Wish,
    pub(crate) events: Events,
    pub(crate) seed: u64,
    /// Records the USB traffic.
    pub(crate) tap: Option<capture::Tap>,
    /// Told once, with the exit code.
    pub(crate) ended: oneshot::Sender<ExitCode>,
}

/// The actor.
pub(crate) struct Remote {
    pub(crate) connector: Connector,
    pub(crate) wish: Wish,
    /// The kind of link that the session prefers.
    pub(crate) way: Way,
    pub(crate) attempts: Attempts,
    pub(crate) quality: Quality,
    pub(crate) events: Events,
    backoff: Backoff,
    /// None when it is ending.
    ended: Option<oneshot::Sender<ExitCode>>,
    pub(crate) farewell: Option<oneshot::Sender<()>>,
    pub(crate) totals: Totals,
    pub(crate) start: Instant,
    /// The VM of the session.
    pub(crate) vm: Option<String>,
    /// In the order of their lending.
    pub(crate) lent: BTreeMap<PortId, Lent>,
    pub(crate) last_device: u32,
    /// Where ports say what ended, by lane; none while somebody listens there.
    pub(crate) ends: Ends<Option<mpsc::Receiver<Ended>>>,
    sound: Option<Sound>,
    pub(crate) live: Option<Live>,
    /// A new one of each session's own.
    pub(crate) tap: Option<capture::Tap>,
    /// Counts sessions; what comes from an older one is not for this one.
    pub(crate) session: u64,
}

/// The sound, as the Remote knows it.
#[derive(Clone)]
pub(crate) struct Sound {
    /// Its mailbox is bounded: sound that finds it full is late, and lost.
    pub(crate) heard: Recipient<Heard>,
    pub(crate) end: Recipient<End>,
}

/// Everything is ready, and what is lent from the beginning: time to connect.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Begin {
    pub(crate) lent: Vec<Lent>,
    pub(crate) ends: Ends<mpsc::Receiver<Ended>>,
    pub(crate) sound: Sound,
}

/// The user wants to end.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

impl Remote {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { connector, wish, events, seed, tap, ended } = parts;
        Self {
            connector,
            wish,
            way: wish.first(),
            attempts: Attempts::new(seed),
            quality: Quality::default(),
            events,
            backoff: Backoff::new(seed),
            ended: Some(ended),
            farewell: None,
            totals: Totals::default(),
            start: Instant::now(),
            vm: None,
            lent: BTreeMap::new(),
            last_device: 0,
            ends: Ends::default(),
            sound: None,
            live: None,
            tap,
            session: 0,
        }
    }

    pub(crate) fn ending(&self) -> bool {
        self.ended.is_none()
    }

    /// A session has begun: everything is lent in it.
    pub(crate) fn welcomed(&mut self, ctx: &mut Context<Self>) {
        self.hear(Heard::Linked);
        for port in self.lent.keys().copied().collect::<Vec<_>>() {
            self.attach(port, ctx);
        }
    }

    pub(crate) fn refused(&mut self, reason: Refusal, text: String, ctx: &mut Context<Self>) {
        let again = matches!(reason, Refusal::Busy | Refusal::Unavailable);
        if again && (self.live.is_some() || self.attempts.running()) {
            return tracing::debug!(text, "no link");
        }
        self.events.say(&Event::Refused { reason: format!("{reason:?}"), text: text.clone(), again });
        if again {
            return self.try_again(format!("refused: {text}"), Duration::ZERO, ctx);
        }
        tracing::error!("the host refuses this remote: {text}");
        self.finish(ExitCode::from(REFUSED), ctx);
    }

    pub(crate) fn try_again(&mut self, reason: String, lasted: Duration, ctx: &mut Context<Self>) {
        if self.ending() {
            return;
        }
        let after = self.backoff.after(lasted);
        let again_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.events.say(&Event::Disconnected { reason, again_in_ms });
        let next = ctx.run_later(after, |act, ctx| {
            if !act.ending() && act.live.is_none() {
                act.try_to_begin(ctx);
            }
        });
        self.attempts.next_is(next, ctx);
    }

    /// Takes the session down; how long it lasted.
    fn hang_up(&mut self, ctx: &mut Context<Self>) -> Option<Duration> {
        let live = self.live.take()?;
        let lasted = self.start.elapsed().saturating_sub(live.since);
        if self.ending() {
            live.let_go(ctx)
        } else {
            live.cancel(ctx)
        }
        self.stop_trying(None, ctx);
        self.vm = None;
        self.lent.values_mut().for_each(|lent| lent.attached = false);
        self.hear(Heard::Silence);
        self.listen(ctx);
        Some(lasted)
    }

    /// The session is gone, for whatever reason.
    pub(crate) fn session_lost(&mut self, reason: String, ctx: &mut Context<Self>) {
        if let Some(lasted) = self.hang_up(ctx) {
            self.try_again(reason, lasted, ctx);
        }
    }

    fn hear(&self, what: Heard) {
        let Some(sound) = &self.sound else { return };
        match what {
            Heard::Linked | Heard::Silence | Heard::RoundTrip(_) => sound.heard.do_send(what),
            // What is dropped here shows as a gap there.
            Heard::Audio(_) => drop(sound.heard.try_send(what)),
        }
    }

    /// How long a message to the host and its answer take, if that is known.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.live.as_ref().and_then(Live::round_trip)
    }

    /// The sound repairs, and chooses its codec, by the way to the host.
    fn tell_round_trip(&self) {
        self.round_trip().into_iter().for_each(|round_trip| self.hear(Heard::RoundTrip(round_trip)));
    }

    fn hear_surely(&self, message: audio::ToRemote, (lane, length): (Lane, usize), ctx: &mut Context<Self>) {
        let Some(sound) = &self.sound else { return };
        let session = self.session;
        let heard = sound.heard.send(Heard::Audio(message)).into_actor(self);
        ctx.spawn(heard.map(move |_, act, ctx| {
            if let Some(live) = act.live.as_mut().filter(|_| session == act.session) {
                live.consumed(lane, length);
                act.transmit(ctx);
            }
        }));
    }

    /// Carries out what the host said.
    pub(crate) fn route(&mut self, message: ToRemote, lane: Lane, length: usize, ctx: &mut Context<Self>) {
        match message {
            // Credited when the port has taken it.
            ToRemote::Usb(message) => return self.route_usb(message, (lane, length), ctx),
            // Whether a microphone is open must not be lost; credited when it has been heard.
            ToRemote::Audio(message) if !lane.may_lose() => {
                return self.hear_surely(message, (lane, length), ctx);
            }
            ToRemote::Audio(message) => {
                if matches!(message, audio::ToRemote::Reception(_)) {
                    self.tell_round_trip();
                }
                self.hear(Heard::Audio(message));
            }
            ToRemote::Control(control::ToRemote::Unplugged { device }) => self.lend_again(device, ctx),
            ToRemote::Control(control::ToRemote::Bye { text, retry: true }) => {
                return self.session_lost(text, ctx);
            }
            ToRemote::Control(control::ToRemote::Bye { text, retry: false }) => {
                self.events.say(&Event::Refused { reason: "Bye".to_owned(), text, again: false });
                return self.finish(ExitCode::from(REFUSED), ctx);
            }
        }
        if let Some(live) = &mut self.live {
            live.consumed(lane, length);
        }
    }

    /// Ends: says goodbye, lets the sound finish, then tells the exit code.
    fn finish(&mut self, code: ExitCode, ctx: &mut Context<Self>) {
        let Some(ended) = self.ended.take() else { return };
        self.stop_trying(None, ctx);
        let (said, goodbye) = oneshot::channel();
        if let Some(live) = &mut self.live {
            live.close("the remote ends");
            self.farewell = Some(said);
            self.transmit(ctx);
            self.hang_up_when_said(ctx);
        }
        let sound = self.sound.take();
        let ports: Vec<_> = self.lent.values().map(|lent| lent.port.clone()).collect();
        let finished = async move {
            // A goodbye that takes too long is not said.
            let _ = tokio::time::timeout(FAREWELL, goodbye).await;
            let unplug = |port: &Recipient<Do>| port.send(Do { what: What::Unplug, credit: (Lane::Ctl, 0) });
            let closed = tokio::time::timeout(GIVING_BACK, join_all(ports.iter().map(unplug)));
            let heard = async {
                match sound {
                    Some(sound) => {
                        let end = tokio::time::timeout(GIVING_BACK, sound.end.send(End)).await;
                        end.unwrap_or(Ok(Totals::default())).unwrap_or_default()
                    }
                    None => Totals::default(),
                }
            };
            let (closed, heard) = join(closed, heard).await;
            if closed.is_err() {
                tracing::warn!("a lent device is not given back: its driver does not answer");
            }
            heard
        };
        ctx.spawn(finished.into_actor(self).map(move |heard, act, ctx| {
            let totals = Totals { sessions: act.totals.sessions, requests: act.totals.requests, ..heard };
            act.events.say(&Event::Ended(totals));
            // Nobody waits any more: the process is ending already.
            let _ = ended.send(code);
            ctx.stop();
        }));
    }

    /// The goodbye is on its way: what is left is to close the link after it.
    pub(crate) fn hang_up_when_said(&mut self, ctx: &mut Context<Self>) {
        if self.ending() && self.live.as_ref().is_some_and(Live::closed) {
            self.hang_up(ctx);
        }
    }
}

impl Actor for Remote {
    type Context = Context<Self>;
}

impl Handler<Begin> for Remote {
    type Result = ();

    fn handle(&mut self, Begin { lent, ends, sound }: Begin, ctx: &mut Self::Context) {
        (self.ends, self.sound) = (ends.map(Some), Some(sound));
        self.lent.extend(lent.into_iter().map(|lent| (lent.id, lent)));
        self.listen(ctx);
        self.try_to_begin(ctx);
        self.watch_quality(ctx);
    }
}

impl Handler<Report> for Remote {
    type Result = ();

    fn handle(&mut self, Report(report): Report, ctx: &mut Self::Context) {
        if matches!(report, audio::ToHost::Reception(_)) {
            self.tell_round_trip();
        }
        self.send(ToHost::Audio(report), ctx);
    }
}

impl Handler<Leave> for Remote {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        self.finish(ExitCode::SUCCESS, ctx);
    }
}
