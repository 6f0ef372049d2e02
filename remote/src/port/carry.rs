//! What a port carries out: requests, cancels, resets, in the order of the session.

use actix::prelude::*;
use functions::Function;
use wire::usb::{Endpoint, Failure, Request, RequestId};

use super::{Ends, UsbPort};
use crate::follow::{Followers, Turn};

impl<F: Function + Unpin + 'static> UsbPort<F> {
    /// What the old session asked for ends here, and nobody hears of it.
    pub(super) fn renew(&mut self, session: u64, ctx: &Context<Self>) {
        self.session = session;
        self.resets.clear();
        self.flight.forget();
        self.followers = Followers::default();
        self.taken = Ends::default();
        if self.guarded(F::replug).is_none()
            && let Err(error) = self.make(ctx)
        {
            tracing::error!(port = self.parts.port.0, "a lent device does not come back: {error:#}");
        }
        self.gone = self.function.is_none();
    }

    pub(super) fn submit(&mut self, request: Request) {
        self.flight.submitted(&request);
        self.carried_out(|function| function.submit(request));
    }

    pub(super) fn add_follower(&mut self, after: RequestId, request: Request) {
        self.flight.submitted(&request);
        match self.followers.add(after, &request, self.flight.has(after)) {
            Turn::Later => {}
            Turn::Now => self.follow(request, true),
            Turn::Never => self.follow(request, false),
            Turn::NoRoom => self.flight.refuse(&request, Failure::Fault),
        }
    }

    pub(super) fn end_followers(&mut self, before: RequestId, well: bool) {
        for request in self.followers.ended(before, well) {
            self.follow(request, well);
        }
    }

    /// The one before it has ended: a follower begins, or is cancelled.
    fn follow(&mut self, request: Request, well: bool) {
        // Whoever waits for it may be on a lane that has been passed in this turn.
        self.again = true;
        if well {
            self.carried_out(|function| function.submit(request));
        } else {
            self.flight.refuse(&request, Failure::Cancelled);
        }
    }

    pub(super) fn cancel(&mut self, endpoint: Endpoint, through: RequestId) {
        for request in self.followers.cancel(endpoint, through) {
            self.flight.refuse(&request, Failure::Cancelled);
        }
        self.guarded(|function| function.cancel(endpoint, through));
    }

    pub(super) fn reset(&mut self, id: RequestId) {
        for request in self.followers.take_all() {
            self.flight.refuse(&request, Failure::Cancelled);
        }
        self.flight.asked(id);
        if let Some(result) = self.carried_out(|function| function.reset(id)) {
            self.flight.ended(id);
            self.resets.push((id, result));
            self.end_followers(id, result.is_ok());
        }
    }

    pub(super) fn streams(&mut self, id: RequestId, endpoints: &[Endpoint], count: u16) {
        self.flight.asked(id);
        self.carried_out(|function| function.streams(id, endpoints, count));
    }

    /// Without a device, what was asked for has ended already.
    fn carried_out<R>(&mut self, step: impl FnOnce(&mut F) -> R) -> Option<R> {
        let done = self.guarded(step);
        if done.is_none() {
            self.flight.abandon();
        }
        done
    }

    pub(super) fn unplug(&mut self) {
        self.close();
        self.unplugged = true;
    }
}
