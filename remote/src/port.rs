//! UsbPort: one lent device. It carries requests out on a thread where waiting for a slow device hurts nobody else.
//!
//! ```text
//!   Remote ──Do, with its credit──► UsbPort ── F: Function
//!          ◄──Ended, a bounded channel for each lane── (polled only when there is room)
//! ```
//! What waits here is bounded: by the session's credit until it was taken, by the function after that. A panic of the
//! function ends here, too: the device counts as gone until the Remote renews it. What a device that is gone leaves
//! behind ends as disconnected; a port that was unplugged says so, and ends with its thread.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use anyhow::{Result, anyhow};
use functions::Function;
use tokio::{
    sync::mpsc::{self, OwnedPermit, error::TrySendError},
    time::Instant,
};
use wire::{
    Lane,
    control::{Attachment, MAX_TEXT},
    usb::{Completion, DeviceId, Endpoint, Moved, Request, RequestId},
};

use crate::flight::Flight;

/// The lanes of USB, most urgent first: ends have no room in common, so that bulk never holds up a key.
pub(crate) const LANES: [Lane; 4] = [Lane::Ctl, Lane::Int, Lane::Iso, Lane::Bulk];
/// Batches of ends that wait for the session, for each lane.
const BATCHES: usize = 4;
/// A batch has at most so many ends, and at most one more than these bytes.
const BATCH_ENDS: usize = 32;
const BATCH_BYTES: usize = 64 * 1024;

/// What a lent device is asked to do.
#[derive(Debug)]
pub(crate) enum What {
    /// Carry this out.
    Submit(Request),
    /// Cancel requests of an endpoint.
    Cancel { endpoint: Endpoint, through: RequestId },
    /// Reset the port, and complete this request.
    Reset { id: RequestId },
    /// Give endpoints streams, or take them away.
    Streams { id: RequestId, endpoints: Vec<Endpoint>, count: u16 },
    /// A new session begins: nothing of the one before is known any more.
    Renew { session: u64 },
    /// The device is not lent any more: it is closed, which gives it back to this computer. The last message.
    Unplug,
}

/// Which port: never used again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortId(pub(crate) u64);

/// A message for a lent device, in the order of its session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Do {
    pub(crate) what: What,
    /// The lane it came by, and the bytes of that lane's credit that it holds until it is taken.
    pub(crate) credit: (Lane, usize),
}

/// What happened to requests of one lane, for the session they belong to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) session: u64,
    /// Whose they are.
    pub(crate) port: PortId,
    /// In order.
    pub(crate) completions: Vec<Completion>,
    /// Bytes of messages that the port has taken since it last said so.
    pub(crate) taken: usize,
    /// The device is gone: it panicked, or could not be made again. It comes back when it is renewed.
    pub(crate) gone: bool,
}

/// Where ends go: by lane, in the order of [`LANES`].
pub(crate) type Ends<T> = [T; LANES.len()];

/// The channels of ends, for all ports together.
pub(crate) fn ends() -> (Ends<mpsc::Sender<Ended>>, Ends<mpsc::Receiver<Ended>>) {
    let [(a, w), (b, x), (c, y), (d, z)] = LANES.map(|_| mpsc::channel(BATCHES));
    ([a, b, c, d], [w, x, y, z])
}

/// Told by a device, on any thread, that there is something to poll.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;
/// Makes a device, at first and after a panic.
pub(crate) type Make<F> = Box<dyn FnMut(Wake) -> Result<F> + Send>;

/// What a port is made of.
pub(crate) struct Parts<F> {
    pub(crate) port: PortId,
    pub(crate) make: Make<F>,
    /// Looks at the function after everything that happened to it.
    pub(crate) watch: Box<dyn FnMut(&F) + Send>,
    pub(crate) ends: Ends<mpsc::Sender<Ended>>,
    /// The port's own thread, which ends with it.
    pub(crate) thread: Option<ArbiterHandle>,
}

/// Makes the device for the first time; how it is presented, under this name.
#[derive(Debug, Message)]
#[rtype(result = "Result<Attachment>")]
pub(crate) struct Open {
    pub(crate) name: String,
}

/// The device has something to poll.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Awake;

/// The actor.
pub(crate) struct UsbPort<F: Function> {
    parts: Parts<F>,
    /// None before it was opened, and while the device is gone.
    function: Option<F>,
    session: u64,
    start: Instant,
    /// Resets that are done and not yet told.
    resets: Vec<RequestId>,
    flight: Flight,
    taken: Ends<usize>,
    gone: bool,
    /// It ends when everything is said.
    unplugged: bool,
    waiting: Ends<bool>,
    timer: Option<(Duration, SpawnHandle)>,
    /// Somebody has woken it already.
    woken: Arc<AtomicBool>,
}

impl<F: Function + Unpin + 'static> UsbPort<F> {
    /// A port whose device is yet to be opened.
    pub(crate) fn new(parts: Parts<F>) -> Self {
        Self {
            parts,
            function: None,
            session: 0,
            start: Instant::now(),
            resets: Vec::new(),
            flight: Flight::default(),
            taken: Ends::default(),
            gone: false,
            unplugged: false,
            waiting: Ends::default(),
            timer: None,
            woken: Arc::default(),
        }
    }

    /// A port on this thread, or on its own.
    pub(crate) fn launch(parts: Parts<F>) -> Addr<Self> {
        match parts.thread.clone() {
            Some(thread) => Self::start_in_arbiter(&thread, move |_| Self::new(parts)),
            None => Self::new(parts).start(),
        }
    }

    fn make(&mut self, ctx: &Context<Self>) -> Result<()> {
        let (port, woken) = (ctx.address().downgrade(), Arc::clone(&self.woken));
        // Many calls before the port gets to run are one message.
        let wake = move || {
            if !woken.swap(true, Ordering::AcqRel)
                && let Some(port) = port.upgrade()
            {
                port.do_send(Awake);
            }
        };
        let made = catch_unwind(AssertUnwindSafe(|| (self.parts.make)(Box::new(wake))));
        self.function = Some(made.map_err(|_| anyhow!("opening the device panicked"))??);
        Ok(())
    }

    fn open(&mut self, mut name: String, ctx: &Context<Self>) -> Result<Attachment> {
        self.make(ctx)?;
        // A host refuses longer ones, and devices choose their names.
        name.truncate(name.floor_char_boundary(MAX_TEXT));
        let present = |function: &mut F| {
            let (vendor, product) = function.id();
            let (speed, profile) = (function.speed(), function.profile());
            Attachment { device: DeviceId(0), speed, vendor, product, name, profile }
        };
        self.guarded(present).ok_or_else(|| anyhow!("describing the device panicked"))
    }

    /// Changes the function, then passes on what ended. None if the device is gone, or goes by this.
    pub(crate) fn turn<R>(&mut self, ctx: &mut Context<Self>, step: impl FnOnce(&mut F) -> R) -> Option<R> {
        let result = self.guarded(step);
        self.pump(ctx);
        result
    }

    /// A panic in the function is the end of the device, not of the port.
    fn guarded<R>(&mut self, step: impl FnOnce(&mut F) -> R) -> Option<R> {
        let function = self.function.as_mut()?;
        let result = catch_unwind(AssertUnwindSafe(|| step(function)));
        if result.is_err() {
            tracing::error!(port = self.parts.port.0, "a lent device panicked");
            self.close();
            self.gone = true;
        }
        result.ok()
    }

    /// The device is gone from here.
    fn close(&mut self) {
        let function = self.function.take();
        if catch_unwind(AssertUnwindSafe(|| drop(function))).is_err() {
            tracing::error!(port = self.parts.port.0, "closing a lent device panicked");
        }
        self.flight.abandon();
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        // Control messages last: they say that the device is gone, which any of the others may show.
        for lane in [Lane::Int, Lane::Iso, Lane::Bulk, Lane::Ctl] {
            let at = place(lane);
            while !self.waiting[at] {
                match self.parts.ends[at].clone().try_reserve_owned() {
                    Ok(room) => match self.batch(at, lane) {
                        Some(batch) => drop(room.send(batch)),
                        None => break,
                    },
                    Err(TrySendError::Full(sender)) => {
                        self.waiting[at] = true;
                        let room = sender.reserve_owned().into_actor(self);
                        ctx.spawn(room.map(move |room, act, ctx| act.has_room(at, room.ok(), ctx)));
                    }
                    Err(TrySendError::Closed(_)) => break,
                }
            }
        }
        if let Some(function) = &self.function {
            (self.parts.watch)(function);
        }
        self.set_timer(ctx);
        if self.unplugged && !self.waiting.contains(&true) {
            ctx.stop();
        }
    }

    fn has_room(&mut self, at: usize, room: Option<OwnedPermit<Ended>>, ctx: &mut Context<Self>) {
        drop(room);
        self.waiting[at] = false;
        self.pump(ctx);
    }

    /// What there is to say about a lane.
    fn batch(&mut self, at: usize, lane: Lane) -> Option<Ended> {
        let now = self.start.elapsed();
        let (mut completions, mut bytes) = (Vec::new(), 0);
        if lane == Lane::Ctl {
            completions.extend(self.resets.drain(..).map(done));
        }
        while completions.len() < BATCH_ENDS && bytes < BATCH_BYTES {
            let polled = self.guarded(|function| function.poll(now, lane)).flatten();
            let Some(end) = polled.or_else(|| self.flight.orphan(lane)) else { break };
            self.flight.ended(end.id);
            bytes += end.moved.len() as usize;
            completions.push(end);
        }
        let taken = std::mem::take(&mut self.taken[at]);
        let gone = lane == Lane::Ctl && std::mem::take(&mut self.gone);
        let something = !completions.is_empty() || taken > 0 || gone;
        something.then(|| Ended { session: self.session, port: self.parts.port, completions, taken, gone })
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        // What is due and has no room goes when there is room.
        let stuck = self.waiting.contains(&true);
        let deadline = self.function.as_ref().and_then(F::deadline).filter(|at| !stuck || *at > now);
        if deadline == self.timer.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let ring = |act: &mut Self, ctx: &mut Context<Self>| {
            act.timer = None;
            act.pump(ctx);
        };
        self.timer = deadline.map(|at| (at, ctx.run_later(at.saturating_sub(now), ring)));
    }

    /// What the old session asked for ends here, and nobody hears of it.
    fn renew(&mut self, session: u64, ctx: &Context<Self>) {
        self.session = session;
        self.resets.clear();
        self.flight.forget();
        self.taken = Ends::default();
        if self.guarded(F::replug).is_none()
            && let Err(error) = self.make(ctx)
        {
            tracing::error!(port = self.parts.port.0, "a lent device does not come back: {error:#}");
        }
        self.gone = self.function.is_none();
    }

    fn submit(&mut self, request: Request) {
        self.flight.submitted(&request);
        self.carried_out(|function| function.submit(request));
    }

    fn reset(&mut self, id: RequestId) {
        self.flight.asked(id);
        if self.carried_out(|function| function.reset(id)) {
            self.flight.ended(id);
            self.resets.push(id);
        }
    }

    fn streams(&mut self, id: RequestId, endpoints: &[Endpoint], count: u16) {
        self.flight.asked(id);
        self.carried_out(|function| function.streams(id, endpoints, count));
    }

    /// Without a device, what was asked for has ended already.
    fn carried_out(&mut self, step: impl FnOnce(&mut F)) -> bool {
        let done = self.guarded(step).is_some();
        if !done {
            self.flight.abandon();
        }
        done
    }

    fn unplug(&mut self) {
        self.close();
        self.unplugged = true;
    }
}

impl<F: Function + Unpin + 'static> Actor for UsbPort<F> {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        // The thread may have ended already, with everything on it.
        self.parts.thread.take().map(|thread| thread.stop());
    }
}

impl<F: Function + Unpin + 'static> Handler<Do> for UsbPort<F> {
    type Result = ();

    fn handle(&mut self, Do { what, credit: (lane, bytes) }: Do, ctx: &mut Self::Context) {
        self.taken[place(lane)] += bytes;
        match what {
            What::Submit(request) => self.submit(request),
            What::Cancel { endpoint, through } => drop(self.guarded(|f| f.cancel(endpoint, through))),
            What::Reset { id } => self.reset(id),
            What::Streams { id, endpoints, count } => self.streams(id, &endpoints, count),
            What::Renew { session } => self.renew(session, ctx),
            What::Unplug => self.unplug(),
        }
        self.pump(ctx);
    }
}

impl<F: Function + Unpin + 'static> Handler<Open> for UsbPort<F> {
    type Result = Result<Attachment>;

    fn handle(&mut self, Open { name }: Open, ctx: &mut Self::Context) -> Self::Result {
        self.open(name, ctx)
    }
}

impl<F: Function + Unpin + 'static> Handler<Awake> for UsbPort<F> {
    type Result = ();

    fn handle(&mut self, _: Awake, ctx: &mut Self::Context) {
        self.woken.store(false, Ordering::Release);
        self.pump(ctx);
    }
}

/// The place of a lane in [`LANES`]; the lanes of sound carry no USB.
pub(crate) fn place(lane: Lane) -> usize {
    LANES.iter().position(|known| *known == lane).unwrap_or(0)
}

fn done(id: RequestId) -> Completion {
    Completion { id, result: Ok(()), moved: Moved::Out(0), packets: Vec::new(), lane: Lane::Ctl }
}
