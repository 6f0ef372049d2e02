//! UsbPort: one lent device. It carries requests out on a thread where waiting for a slow device hurts nobody else.

use std::time::Duration;

use actix::prelude::*;
use functions::Function;
use tokio::time::Instant;
use wire::usb::{Completion, Endpoint, Moved, Payload, Request, RequestId};

/// A message for a lent device, in the order of its session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Do {
    /// Carry this out.
    Submit(Request),
    /// Cancel requests of an endpoint.
    Cancel { endpoint: Endpoint, through: RequestId },
    /// Reset the port, and complete this request.
    Reset { id: RequestId },
    /// A new session begins: nothing of the one before is known any more.
    Renew { session: u64 },
}

/// Ends of requests, for the session they belong to.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Completed {
    pub(crate) session: u64,
    pub(crate) completions: Vec<Completion>,
}

/// The actor.
pub(crate) struct UsbPort<F: Function> {
    function: F,
    remote: Recipient<Completed>,
    session: u64,
    start: Instant,
    timer: Option<(Duration, SpawnHandle)>,
}

impl<F: Function + Unpin + 'static> UsbPort<F> {
    pub(crate) fn new(function: F, remote: Recipient<Completed>) -> Self {
        Self { function, remote, session: 0, start: Instant::now(), timer: None }
    }

    /// Changes the function, then passes on what ended.
    pub(crate) fn turn(&mut self, ctx: &mut Context<Self>, step: impl FnOnce(&mut F)) {
        let mut completions = Vec::new();
        let now = self.start.elapsed();
        step(&mut self.function);
        for lane in wire::Lane::ALL {
            completions.extend(std::iter::from_fn(|| self.function.poll(now, lane)));
        }
        if !completions.is_empty() {
            self.remote.do_send(Completed { session: self.session, completions });
        }
        self.set_timer(ctx, now);
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>, now: Duration) {
        let deadline = self.function.deadline();
        if deadline == self.timer.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let ring = |act: &mut Self, ctx: &mut Context<Self>| {
            act.timer = None;
            act.turn(ctx, |_| ());
        };
        self.timer = deadline.map(|at| (at, ctx.run_later(at.saturating_sub(now), ring)));
    }

    fn renew(&mut self, ctx: &mut Context<Self>, session: u64) {
        // What the old session asked for ends here, and nobody hears of it.
        self.function.replug();
        self.session = session;
        self.set_timer(ctx, self.start.elapsed());
    }
}

impl<F: Function + Unpin + 'static> Actor for UsbPort<F> {
    type Context = Context<Self>;
}

impl<F: Function + Unpin + 'static> Handler<Do> for UsbPort<F> {
    type Result = ();

    fn handle(&mut self, message: Do, ctx: &mut Self::Context) {
        match message {
            Do::Submit(request) => self.turn(ctx, |function| function.submit(request)),
            Do::Cancel { endpoint, through } => {
                self.turn(ctx, |function| function.cancel(endpoint, through));
            }
            Do::Reset { id } => {
                self.turn(ctx, |function| function.reset(id));
                self.remote.do_send(Completed { session: self.session, completions: vec![done(id)] });
            }
            Do::Renew { session } => self.renew(ctx, session),
        }
    }
}

fn done(id: RequestId) -> Completion {
    Completion { id, result: Ok(()), moved: Moved::Out(0), lane: wire::Lane::Ctl }
}

/// The end of a request for a device that is not lent.
pub(crate) fn nobody(request: &Request) -> Completion {
    let moved = match request.payload {
        Payload::Out(_) => Moved::Out(0),
        Payload::In { .. } => Moved::In(bytes::Bytes::new()),
    };
    let lane = wire::usb::ToRemote::Submit(request.clone()).lane();
    Completion { id: request.id, result: Err(wire::usb::Failure::Disconnected), moved, lane }
}
