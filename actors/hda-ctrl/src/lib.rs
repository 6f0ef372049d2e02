//! The HdaCtrl actor: an [`hda`] model on a bus, between one VM and one session.
//!
//! ```text
//!   bus ──Transaction──►┐                     ┌─► playback: senders ──► Play ──► session
//!   session ─jacks─────►├─► turn(model, cx) ──┼─► Interrupts::raise
//!   session ─RemoteCame►│          ▲          └─► alarm := model's deadline
//!   alarm ─────────────►┘          │
//!   session ─reports───► capture: receivers · follow: the sample clock · playback: how it is sent
//! ```
//!
//! Every item is one *turn*: the model changes, what it asks for is carried out, the alarm is set anew. Sound
//! advances with host time whether or not anyone listens. A late tick loses nothing, and register reads advance the model
//! too; but a guest takes the end of a period for a wrong one if it hears of it half a period late, which may be 1.3 ms.
//! Transactions, alarms, reports and jacks are streams, so none of them starves another, whatever a remote says and how
//! often: of reports the oldest are lost when too many wait, of jacks the last word counts. If the model panics, [`pci::Device`] answers as a controller in reset until it is
//! rebuilt.
//!
//! The sample clock follows the sound card of the remote that listens, by what its reports say; of streams on another card
//! the remote hears that it has to resample them (`follow.rs`).
#![forbid(unsafe_code)]

mod capture;
mod follow;
mod playback;

use std::{io, sync::Arc, time::Duration};

use actix::prelude::*;
use alarm::{Alarm, Rang};
use capture::Capture;
use follow::Follow;
use futures_util::stream::{self, Stream};
use hda::{Hda, Output};
use pci::{Bus, Device, Transaction, Turn};
use playback::Playback;
pub use sound::choice::Wish;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    time::Instant,
};
use wire::audio::{Coded, Jack, ToHost, ToRemote};

/// Sound messages for the remote, in order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Play(pub Vec<ToRemote>);

/// What is plugged in at the remote; nothing without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Jacks {
    /// Headphones.
    pub headphone: bool,
    /// A microphone.
    pub microphone: bool,
}

impl Jacks {
    /// The jack's state from now on; whether that is news.
    pub fn set(&mut self, jack: Jack, present: bool) -> bool {
        let state = match jack {
            Jack::Headphone => &mut self.headphone,
            Jack::Microphone => &mut self.microphone,
        };
        std::mem::replace(state, present) != present
    }

    fn each(self) -> [(Jack, bool); 2] {
        [(Jack::Headphone, self.headphone), (Jack::Microphone, self.microphone)]
    }
}

/// A remote has come that knows of nothing yet: it is asked for what the guest listens to, and told how loud that is.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RemoteCame;

/// How playback is sent from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SendAs(pub Wish);

/// Numbers of runs that a model has for itself: the one that is built after it begins behind them.
const RUNS: u32 = 1 << 16;

/// What an HdaCtrl is made of.
pub struct Parts {
    /// The bus that the guest is on.
    pub bus: Bus,
    /// The PCI function's configuration space.
    pub config: pci::ConfigSpace,
    /// The controller's own settings.
    pub hda: hda::Config,
    /// What the remote says of its sink and its microphone; when too many wait, the oldest are lost.
    pub reports: broadcast::Receiver<ToHost>,
    /// What is plugged in, now and later.
    pub jacks: watch::Receiver<Jacks>,
    /// How long a message to the remote and its answer take, if that is known.
    pub round_trip: watch::Receiver<Option<Duration>>,
    /// How playback is sent.
    pub codec: Wish,
    /// Where sound goes.
    pub session: Recipient<Play>,
    /// Dropped with the actor, however it ends: the parent's way to notice.
    pub tether: Box<dyn Send>,
}

/// The actor.
pub struct HdaCtrl {
    device: Device<Hda>,
    bus: Bus,
    session: Recipient<Play>,
    start: Instant,
    alarm: Alarm,
    alarm_at: Option<Duration>,
    out: Vec<Output>,
    reports: Option<broadcast::Receiver<ToHost>>,
    /// What is plugged in: a model that is made anew does not know.
    jacks: watch::Receiver<Jacks>,
    round_trip: watch::Receiver<Option<Duration>>,
    playback: Playback,
    /// What the remote records: a model that is made anew does not know that, either.
    capture: Capture,
    follow: Follow,
    /// What the model was told last.
    drift: i32,
    _tether: Box<dyn Send>,
}

impl HdaCtrl {
    /// A controller with nothing running yet.
    ///
    /// # Errors
    /// The system has no descriptors left for the alarm.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let mut next = parts.hda;
        let build = move || {
            let this = next;
            next.runs_before = next.runs_before.wrapping_add(RUNS);
            Hda::new(this)
        };
        let playback = Playback::new(parts.codec, say_to(parts.session.clone()));
        Ok(Self {
            device: Device::new(parts.config, build),
            bus: parts.bus,
            session: parts.session,
            start: Instant::now(),
            alarm: Alarm::new()?,
            alarm_at: None,
            out: Vec::new(),
            reports: Some(parts.reports),
            jacks: parts.jacks,
            round_trip: parts.round_trip,
            playback,
            capture: Capture::default(),
            follow: Follow::new(),
            drift: 0,
            _tether: parts.tether,
        })
    }

    /// One turn: `step` changes the controller, then its effects are carried out.
    fn turn(&mut self, step: impl FnOnce(&mut Turn<'_, Hda>)) {
        let now = self.start.elapsed();
        self.feed(now);
        step(&mut self.device.turn(now, &*self.bus.dma, &mut self.out));
        self.carry_out(now);
    }

    fn tick(&mut self) {
        self.alarm_at = None;
        let now = self.start.elapsed();
        self.feed(now);
        if self.device.tick(now, &*self.bus.dma, &mut self.out).rebuilt {
            metrics::counter!("farbus_hda_rebuilds").increment(1);
            self.begin_anew(now);
        }
        self.steer(now);
        self.count();
        self.carry_out(now);
    }

    fn count(&self) {
        let Some(counters) = self.device.model().map(Hda::counters) else { return };
        let slipped = u64::try_from(counters.slipped.as_micros()).unwrap_or(u64::MAX);
        metrics::counter!("farbus_hda_slip_us").absolute(slipped);
        metrics::counter!("farbus_hda_unknown_verbs").absolute(counters.unknown_verbs);
        metrics::counter!("farbus_hda_missing_frames").absolute(counters.missing_frames);
        metrics::counter!("farbus_hda_skipped_frames").absolute(counters.skipped_frames);
    }

    /// The model is a new one: nobody listens any more, and it has to hear what is plugged in.
    fn begin_anew(&mut self, now: Duration) {
        let stop = |(stream, run)| Output::Audio(ToRemote::StopRecord { stream, run });
        self.out.extend(self.capture.end_all().into_iter().map(stop));
        self.drift = 0;
        self.plug(now);
    }

    /// The sample clock's pace for the time to come.
    fn steer(&mut self, now: Duration) {
        let ppb = self.follow.ppb(now);
        if std::mem::replace(&mut self.drift, ppb) != ppb {
            metrics::gauge!("farbus_hda_drift_ppb").set(ppb);
            let mut turn = self.device.turn(now, &*self.bus.dma, &mut self.out);
            let _ = turn.with(|hda, cx| hda.set_drift(cx, ppb));
        }
    }

    fn plug(&mut self, now: Duration) {
        let jacks = *self.jacks.borrow();
        let mut turn = self.device.turn(now, &*self.bus.dma, &mut self.out);
        let _ = turn.with(|hda, cx| jacks.each().map(|(jack, present)| hda.set_jack(cx, jack, present)));
    }

    /// Gives the model what the guest is about to hear of the microphone.
    fn feed(&mut self, now: Duration) {
        if !self.capture.is_due(now) {
            return;
        }
        let mut said = Vec::new();
        let waiting = |stream| self.device.model().and_then(|hda| hda.waiting(stream));
        let packets = self.capture.pull(now, waiting, &mut said);
        let mut turn = self.device.turn(now, &*self.bus.dma, &mut self.out);
        let _ = turn.with(|hda, _| packets.iter().for_each(|packet| hda.captured(packet)));
        self.say(said);
    }

    /// Takes a packet of the microphone.
    fn record(&mut self, coded: &Coded) {
        let mut said = Vec::new();
        self.capture.set_round_trip(*self.round_trip.borrow());
        self.capture.push(self.start.elapsed(), coded, &mut said);
        self.say(said);
    }

    /// Takes what the remote says of what it plays.
    fn hear(&mut self, report: ToHost) {
        let (now, mut said) = (self.start.elapsed(), Vec::new());
        match report {
            ToHost::Reception(reception) => {
                self.playback.set_round_trip(*self.round_trip.borrow());
                let drift = (!self.follow.is_apart(&reception)).then_some(self.drift);
                if self.playback.observe(now, &reception, drift) {
                    said.extend(self.follow.observe(now, &reception));
                    self.steer(now);
                }
            }
            ToHost::Missing(missing) => self.playback.answer(missing, &mut said),
            _ => {}
        }
        self.say(said);
    }

    fn note(&mut self, now: Duration, message: &ToRemote) {
        match *message {
            ToRemote::Pause { stream, .. } => self.follow.ended(now, stream),
            ToRemote::Record { stream, run, format } => self.capture.begin(now, stream, run, format),
            ToRemote::StopRecord { stream, .. } => self.capture.end(stream),
            _ => {}
        }
    }

    fn say(&self, messages: Vec<ToRemote>) {
        if !messages.is_empty() {
            self.session.do_send(Play(messages));
        }
    }

    fn carry_out(&mut self, now: Duration) {
        let mut messages = Vec::new();
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Audio(message) => {
                    self.note(now, &message);
                    self.playback.send(now, message, &mut messages);
                }
                Output::Play(packet) => self.playback.play(now, packet, &mut messages),
                Output::Interrupt(vector) => self.bus.interrupts.raise(vector),
            }
        }
        self.bus.interrupts.drive(self.device.interrupt_line());
        self.say(messages);
        let deadline = self.device.deadline();
        if deadline != self.alarm_at {
            self.alarm.set(deadline.map(|at| at.saturating_sub(now)));
            self.alarm_at = deadline;
        }
    }
}

/// The way to the session from another thread.
fn say_to(session: Recipient<Play>) -> playback::Session {
    Arc::new(move |messages| session.do_send(Play(messages)))
}

/// Reports in order; how many were lost is only counted.
fn reports(reports: broadcast::Receiver<ToHost>) -> impl Stream<Item = ToHost> {
    stream::unfold(reports, async |mut reports| {
        loop {
            match reports.recv().await {
                Ok(report) => return Some((report, reports)),
                Err(RecvError::Lagged(lost)) => metrics::counter!("farbus_hda_late_reports").increment(lost),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// The jacks have changed.
struct Plugged;

fn changes(jacks: watch::Receiver<Jacks>) -> impl Stream<Item = Plugged> {
    stream::unfold(jacks, async |mut jacks| jacks.changed().await.is_ok().then_some((Plugged, jacks)))
}

impl Actor for HdaCtrl {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.add_stream(std::mem::replace(&mut self.bus.transactions, Box::pin(stream::empty())));
        ctx.add_stream(self.alarm.clone());
        self.reports.take().map(|waiting| ctx.add_stream(reports(waiting)));
        ctx.add_stream(changes(self.jacks.clone()));
        <Self as StreamHandler<Plugged>>::handle(self, Plugged, ctx);
    }
}

impl StreamHandler<Box<dyn Transaction>> for HdaCtrl {
    fn handle(&mut self, transaction: Box<dyn Transaction>, _: &mut Self::Context) {
        self.turn(|turn| transaction.perform(turn));
    }
}

impl StreamHandler<Rang> for HdaCtrl {
    fn handle(&mut self, _: Rang, _: &mut Self::Context) {
        self.tick();
    }
}

impl StreamHandler<ToHost> for HdaCtrl {
    fn handle(&mut self, report: ToHost, _: &mut Self::Context) {
        match report {
            ToHost::RecordedCoded(coded) => self.record(&coded),
            report => self.hear(report),
        }
    }

    /// The session is gone; the guest is not.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Plugged> for HdaCtrl {
    fn handle(&mut self, _: Plugged, _: &mut Self::Context) {
        let now = self.start.elapsed();
        self.plug(now);
        self.carry_out(now);
    }

    /// The session is gone; the guest is not.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<SendAs> for HdaCtrl {
    type Result = ();

    fn handle(&mut self, SendAs(wish): SendAs, _: &mut Self::Context) {
        self.playback.set_wish(wish);
    }
}

impl Handler<RemoteCame> for HdaCtrl {
    type Result = ();

    fn handle(&mut self, _: RemoteCame, _: &mut Self::Context) {
        self.follow.forget(self.start.elapsed());
        let told = self.playback.begin_anew();
        self.say(told);
        self.turn(|turn| {
            let _ = turn.with(|hda, cx| hda.remote_came(cx));
        });
    }
}
