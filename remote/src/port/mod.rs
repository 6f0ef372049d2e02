//! UsbPort: one lent device. It carries requests out on a thread where waiting for a slow device hurts nobody else.
//!
//! ```text
//!   Remote ──Do, with its credit──► UsbPort ── F: Function
//!          ◄──Ended, a bounded channel for each lane── (polled only when there is room)
//! ```
//! What waits here is bounded: by the session's credit until it was taken, by the function after that. A panic of the
//! function ends here, too: the device counts as gone until the Remote renews it. What a device that is gone leaves
//! behind ends as disconnected; a port that was unplugged says so, and ends with its thread.

mod carry;
mod tell;

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
use tokio::{sync::mpsc, time::Instant};
use wire::{
    Lane,
    control::{Attachment, MAX_TEXT},
    usb::{Completion, DeviceId, Endpoint, Failure, Request, RequestId},
};

use crate::{flight::Flight, follow::Followers};

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
    /// Carry this out when the one before it has ended well.
    Follow { after: RequestId, request: Request },
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
    /// Resets that have ended, and how, and are not yet told.
    resets: Vec<(RequestId, Result<(), Failure>)>,
    flight: Flight,
    followers: Followers,
    /// A follower has begun, or was refused, since the lanes were passed on.
    again: bool,
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
            followers: Followers::default(),
            again: false,
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
        self.followers = Followers::default();
        self.flight.abandon();
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
            What::Follow { after, request } => self.add_follower(after, request),
            What::Cancel { endpoint, through } => self.cancel(endpoint, through),
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
