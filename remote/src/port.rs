//! UsbPort: one lent device. It carries requests out on a thread where waiting for a slow device hurts nobody else.
//!
//! ```text
//!   Remote ──Do, with its credit──► UsbPort ── F: Function
//!          ◄──Ended, a bounded channel for each lane── (polled only when there is room)
//! ```
//! What waits here is bounded: by the session's credit until it was taken, by the function after that. A panic of the
//! function ends here, too: the device counts as gone until the Remote renews it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use actix::prelude::*;
use anyhow::Result;
use functions::Function;
use tokio::{
    sync::mpsc::{self, OwnedPermit, error::TrySendError},
    time::Instant,
};
use wire::{
    Lane,
    usb::{Completion, Endpoint, Failure, Moved, Payload, Request, RequestId},
};

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
}

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
    /// Which device of those that are lent.
    pub(crate) port: usize,
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

/// What a port is made of.
pub(crate) struct Parts<F> {
    /// Which device of those that are lent.
    pub(crate) port: usize,
    /// Makes the device, at first and after a panic.
    pub(crate) make: Box<dyn FnMut() -> Result<F> + Send>,
    /// Looks at the function after everything that happened to it.
    pub(crate) watch: Box<dyn FnMut(&F) + Send>,
    pub(crate) ends: Ends<mpsc::Sender<Ended>>,
}

/// The actor.
pub(crate) struct UsbPort<F: Function> {
    parts: Parts<F>,
    /// None while the device is gone.
    function: Option<F>,
    session: u64,
    start: Instant,
    /// Resets that are done and not yet told.
    resets: Vec<RequestId>,
    taken: Ends<usize>,
    gone: bool,
    waiting: Ends<bool>,
    timer: Option<(Duration, SpawnHandle)>,
}

impl<F: Function + Unpin + 'static> UsbPort<F> {
    /// A port whose device is `function`, as [`Parts::make`] made it.
    pub(crate) fn new(function: F, parts: Parts<F>) -> Self {
        Self {
            parts,
            function: Some(function),
            session: 0,
            start: Instant::now(),
            resets: Vec::new(),
            taken: Ends::default(),
            gone: false,
            waiting: Ends::default(),
            timer: None,
        }
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
            tracing::error!(port = self.parts.port, "a lent device panicked");
            self.function = None;
            self.gone = true;
        }
        result.ok()
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
            let Some(Some(end)) = self.guarded(|function| function.poll(now, lane)) else { break };
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
    fn renew(&mut self, session: u64) {
        self.session = session;
        self.resets.clear();
        self.taken = Ends::default();
        if self.guarded(F::replug).is_none() {
            let made = catch_unwind(AssertUnwindSafe(&mut self.parts.make));
            self.function = match made {
                Ok(Ok(function)) => Some(function),
                Ok(Err(error)) => {
                    tracing::error!(port = self.parts.port, "a lent device does not come back: {error:#}");
                    None
                }
                Err(_) => None,
            };
        }
        self.gone = self.function.is_none();
    }
}

impl<F: Function + Unpin + 'static> Actor for UsbPort<F> {
    type Context = Context<Self>;
}

impl<F: Function + Unpin + 'static> Handler<Do> for UsbPort<F> {
    type Result = ();

    fn handle(&mut self, Do { what, credit: (lane, bytes) }: Do, ctx: &mut Self::Context) {
        self.taken[place(lane)] += bytes;
        match what {
            What::Submit(request) => drop(self.guarded(|function| function.submit(request))),
            What::Cancel { endpoint, through } => drop(self.guarded(|f| f.cancel(endpoint, through))),
            What::Reset { id } => {
                let reset = self.guarded(|function| function.reset(id));
                self.resets.extend(reset.map(|()| id));
            }
            What::Streams { id, endpoints, count } => {
                let _ = self.guarded(|function| function.streams(id, &endpoints, count));
            }
            What::Renew { session } => self.renew(session),
        }
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

/// The end of a request for a device that is not lent.
pub(crate) fn nobody(lane: Lane, id: RequestId, payload: Option<&Payload>) -> Completion {
    let moved = match payload {
        Some(Payload::In { .. }) => Moved::In(bytes::Bytes::new()),
        Some(Payload::Out(_)) | None => Moved::Out(0),
    };
    Completion { id, result: Err(Failure::Disconnected), moved, packets: Vec::new(), lane }
}
