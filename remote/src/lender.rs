//! The Lender actor: which of this computer's devices the Remote has to lend.
//!
//! ```text
//!                 asked for                opened
//!   Kept ──────────────────────► Opening ─────────► Lent
//!    ▲ returned by the user          │ cannot be opened, after a few tries
//!    └─────────────────────────      ▼
//!      (from anywhere)            Failed ── until it is plugged again, or lent by name
//! ```
//! A device that is plugged in and asked for is lent; what the user took back stays, wherever it is plugged in again,
//! until it is lent again.

mod answers;

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use anyhow::Result;
use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::sync::oneshot;

use crate::{
    control::Outcome,
    events::{Event, Events, Gone},
    lent::Lent,
    port::PortId,
    ports::{Lend, Unlend, Whom},
    remote::Remote,
    sound::Ask,
    usb::{
        bus::Seen,
        trouble::Trouble,
        which::{Decision, Device, Selector, decide},
    },
};

/// The first wait before a device is tried again; it doubles.
const AGAIN: Duration = Duration::from_millis(100);
/// So often it is tried again.
const TRIES: u32 = 5;

/// Opens a device: a lent one, or why not.
pub(crate) type Opener<H> = Box<dyn Fn(&Device, H) -> LocalBoxFuture<'static, Result<Lent>>>;

/// What a Lender is made of.
pub(crate) struct Parts<H> {
    /// What the user asks for from the beginning.
    pub(crate) asked: Vec<Selector>,
    pub(crate) open: Opener<H>,
    pub(crate) remote: Addr<Remote>,
    pub(crate) sound: Recipient<Ask>,
    pub(crate) events: Events,
}

/// The actor.
pub(crate) struct Lender<H> {
    parts: Parts<H>,
    /// What is plugged in, by where.
    here: BTreeMap<String, Here<H>>,
    /// What the user took back.
    returned: Vec<Device>,
    attempts: u64,
    /// Devices that are being opened, or closed again because nobody wants them any more.
    busy: usize,
    /// Nothing is opened any more; who waits for the last that was.
    stopping: Option<Vec<oneshot::Sender<()>>>,
}

/// No more is lent. The answer comes when what is just being opened is given back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// A device that is plugged in.
struct Here<H> {
    device: Device,
    handle: H,
    state: State,
    /// Who waits for what becomes of it.
    waiting: Vec<oneshot::Sender<Outcome>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Kept,
    Opening { attempt: u64 },
    Lent { port: PortId },
    Failed { why: String },
}

impl<H: Clone + Unpin + 'static> Lender<H> {
    pub(crate) fn new(parts: Parts<H>) -> Self {
        let (here, returned) = (BTreeMap::new(), Vec::new());
        Self { parts, here, returned, attempts: 0, busy: 0, stopping: None }
    }

    fn arrived(&mut self, device: Device, handle: H, ctx: &mut Context<Self>) {
        let place = device.bus_port();
        let wanted = !self.took_back(&device) && lends(&self.parts.asked, &device).is_ok();
        self.left(&place);
        self.here.insert(place.clone(), Here { device, handle, state: State::Kept, waiting: Vec::new() });
        if wanted {
            self.open(&place, 0, ctx);
        }
    }

    fn left(&mut self, place: &str) {
        let Some(mut here) = self.here.remove(place) else { return };
        if let State::Lent { port } = here.state {
            self.parts.remote.do_send(Unlend { whom: Whom::Port(port), because: Gone::Unplugged });
        }
        here.say(false, "it was unplugged");
    }

    fn took_back(&self, device: &Device) -> bool {
        self.returned.iter().any(|returned| same(returned, device))
    }

    fn open(&mut self, place: &str, tries: u32, ctx: &mut Context<Self>) {
        let Some(here) = self.here.get_mut(place).filter(|_| self.stopping.is_none()) else { return };
        self.attempts += 1;
        self.busy += 1;
        let (attempt, place) = (self.attempts, place.to_owned());
        here.state = State::Opening { attempt };
        let opening = (self.parts.open)(&here.device, here.handle.clone());
        ctx.spawn(opening.into_actor(self).map(move |opened, act, ctx| match opened {
            Ok(lent) => act.opened(&place, attempt, lent, ctx),
            Err(error) => {
                act.not_opened(&place, attempt, tries, &error, ctx);
                act.less_busy();
            }
        }));
    }

    fn less_busy(&mut self) {
        self.busy -= 1;
        if self.busy == 0 {
            for stopped in self.stopping.iter_mut().flat_map(std::mem::take) {
                // Whoever waited may have lost patience.
                let _ = stopped.send(());
            }
        }
    }

    /// The device of this attempt, unless it was pulled or taken back meanwhile.
    fn awaited(&mut self, place: &str, attempt: u64) -> Option<&mut Here<H>> {
        self.here.get_mut(place).filter(|here| here.state == State::Opening { attempt })
    }

    fn opened(&mut self, place: &str, attempt: u64, mut lent: Lent, ctx: &mut Context<Self>) {
        let Some(here) = self.awaited(place, attempt) else {
            ctx.spawn(lent.unplug().into_actor(self).map(|_, act, _| act.less_busy()));
            return;
        };
        here.state = State::Lent { port: lent.id };
        lent.bus_port = Some(place.to_owned());
        here.say(true, "lent");
        self.parts.remote.do_send(Lend(lent));
        self.less_busy();
    }

    fn not_opened(
        &mut self,
        place: &str,
        attempt: u64,
        tries: u32,
        error: &anyhow::Error,
        ctx: &mut Context<Self>,
    ) {
        let Some(here) = self.awaited(place, attempt) else { return };
        let trouble = Trouble::new(error, &here.device);
        if trouble.may_pass && tries < TRIES {
            let place = place.to_owned();
            ctx.run_later(AGAIN * (1 << tries), move |act, ctx| {
                if act.awaited(&place, attempt).is_some() {
                    act.open(&place, tries + 1, ctx);
                }
            });
            return;
        }
        let Trouble { reason, next, .. } = trouble;
        let why = format!("{reason}; {next}");
        here.say(false, &why);
        here.state = State::Failed { why };
        let Device { vendor, product, .. } = here.device;
        let (bus_port, name) = (place.to_owned(), here.device.title());
        self.parts.events.say(&Event::LendFailed { bus_port, vendor, product, name, reason, next });
    }

    /// Lends what this names, now and when it is plugged in later.
    fn lend(&mut self, selector: Selector, ctx: &mut Context<Self>) -> Vec<oneshot::Receiver<Outcome>> {
        self.returned.retain(|device| !selector.matches(device));
        let asked = [selector];
        let matching = self.here.iter().filter(|(_, here)| asked[0].matches(&here.device));
        let places: Vec<String> = matching.map(|(place, _)| place.clone()).collect();
        let outcomes = places.iter().map(|place| self.lend_one(place, &asked, ctx)).collect();
        let [selector] = asked;
        if !self.parts.asked.contains(&selector) {
            self.parts.asked.push(selector);
        }
        outcomes
    }

    fn lend_one(
        &mut self,
        place: &str,
        asked: &[Selector],
        ctx: &mut Context<Self>,
    ) -> oneshot::Receiver<Outcome> {
        let (say, outcome) = oneshot::channel();
        let Some(here) = self.here.get_mut(place) else { return outcome };
        let (now, opens) = match (&here.state, lends(asked, &here.device)) {
            (State::Lent { .. }, _) => (Some(here.outcome(true, "lent already")), false),
            // Others, who asked otherwise, may wait for it.
            (_, Err(why)) => (Some(here.outcome(false, &why)), false),
            (State::Opening { .. }, Ok(())) => (None, false),
            (State::Kept | State::Failed { .. }, Ok(())) => (None, true),
        };
        match now {
            // Who asks listens.
            Some(now) => drop(say.send(now)),
            None => here.waiting.push(say),
        }
        if opens {
            self.open(place, 0, ctx);
        }
        outcome
    }

    /// Takes back what this names: what is lent, or about to be.
    fn take_back(&mut self, selector: &Selector) -> Vec<Outcome> {
        let lent = |here: &Here<H>| matches!(here.state, State::Lent { .. } | State::Opening { .. });
        let mut outcomes = Vec::new();
        for here in self.here.values_mut().filter(|here| lent(here) && selector.matches(&here.device)) {
            if let State::Lent { port } = here.state {
                self.parts.remote.do_send(Unlend { whom: Whom::Port(port), because: Gone::Returned });
            }
            here.state = State::Kept;
            here.say(false, "it was taken back");
            self.returned.push(here.device.clone());
            outcomes.push(here.outcome(false, "returned"));
        }
        outcomes
    }

    /// The Remote has taken back what this port carries out; if that is a real device, it stays here.
    fn taken_back(&mut self, port: PortId) {
        let lent = self.here.values_mut().find(|here| here.state == State::Lent { port });
        if let Some(here) = lent {
            here.state = State::Kept;
            self.returned.push(here.device.clone());
        }
    }

    /// What is here and not lent, and why.
    fn kept(&self) -> Vec<Outcome> {
        let devices = self.here.values().filter(|here| !here.device.is_hub());
        let kept = devices.filter_map(|here| match &here.state {
            State::Lent { .. } => None,
            State::Opening { .. } => Some(here.outcome(false, "being opened")),
            State::Failed { why } => Some(here.outcome(false, why)),
            State::Kept if self.took_back(&here.device) => Some(here.outcome(
                false,
                &format!("taken back; `farbus-remote lend {}` lends it again", here.device.bus_port()),
            )),
            State::Kept => {
                Some(here.outcome(false, &lends(&self.parts.asked, &here.device).err().unwrap_or_default()))
            }
        });
        kept.collect()
    }
}

impl<H> Here<H> {
    fn outcome(&self, lent: bool, reason: &str) -> Outcome {
        let (bus_port, id, name) = (self.device.bus_port(), self.device.id(), self.device.title());
        Outcome { bus_port: Some(bus_port), id: Some(id), name, lent, reason: reason.to_owned() }
    }

    /// Tells whoever waits.
    fn say(&mut self, lent: bool, reason: &str) {
        for waiting in std::mem::take(&mut self.waiting) {
            // Whoever has hung up does not want to know.
            let _ = waiting.send(self.outcome(lent, reason));
        }
    }
}

/// Whether a device is lent to who asks for this, or why not.
fn lends(asked: &[Selector], device: &Device) -> Result<(), String> {
    match decide(asked, device) {
        Decision::Lend { .. } => Ok(()),
        Decision::Keep { why } => Err(why),
    }
}

/// Whether these are one device: by serial number, or by place if it has none.
fn same(a: &Device, b: &Device) -> bool {
    let place = |device: &Device| (device.bus, device.ports.clone());
    (a.vendor, a.product, &a.serial) == (b.vendor, b.product, &b.serial)
        && (a.serial.is_some() || place(a) == place(b))
}

impl<H: Clone + Unpin + 'static> Actor for Lender<H> {
    type Context = Context<Self>;
}

impl<H> Message for Seen<H> {
    type Result = ();
}

impl<H: Clone + Unpin + 'static> Handler<Seen<H>> for Lender<H> {
    type Result = ();

    fn handle(&mut self, seen: Seen<H>, ctx: &mut Self::Context) {
        match seen {
            Seen::Arrived(device, handle) => self.arrived(device, handle, ctx),
            Seen::Left(place) => self.left(&place),
            Seen::NoBus(reason) if self.parts.asked.is_empty() => tracing::debug!(reason, "no USB bus"),
            Seen::NoBus(reason) => self.parts.events.say(&Event::NoUsb { reason }),
        }
    }
}

impl<H: Clone + Unpin + 'static> Handler<Stop> for Lender<H> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, _: &mut Self::Context) -> Self::Result {
        let (say, stopped) = oneshot::channel();
        self.stopping.get_or_insert_default().push(say);
        for here in self.here.values_mut().filter(|here| matches!(here.state, State::Opening { .. })) {
            here.state = State::Kept;
            here.say(false, "the remote is ending");
        }
        self.busy += 1;
        self.less_busy();
        Box::pin(stopped.map(drop))
    }
}
