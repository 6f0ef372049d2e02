//! What a port tells: ends of requests, in batches, lane by lane, when there is room for them.

use actix::prelude::*;
use functions::Function;
use tokio::sync::mpsc::{OwnedPermit, error::TrySendError};
use wire::{
    Lane,
    usb::{Completion, Failure, Moved, RequestId},
};

use super::{BATCH_BYTES, BATCH_ENDS, Ended, UsbPort, place};

impl<F: Function + Unpin + 'static> UsbPort<F> {
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        loop {
            self.pass_on(ctx);
            // A follower that began may have ended already, on a lane that was passed before it did.
            if !std::mem::take(&mut self.again) {
                break;
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

    fn pass_on(&mut self, ctx: &mut Context<Self>) {
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
            completions.extend(self.resets.drain(..).map(|(id, result)| done(id, result)));
        }
        while completions.len() < BATCH_ENDS && bytes < BATCH_BYTES {
            let polled = self.guarded(|function| function.poll(now, lane)).flatten();
            let Some(end) = polled.or_else(|| self.flight.orphan(lane)) else { break };
            self.flight.ended(end.id);
            self.end_followers(end.id, end.result.is_ok());
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
}

fn done(id: RequestId, result: Result<(), Failure>) -> Completion {
    Completion { id, result, moved: Moved::Out(0), packets: Vec::new(), lane: Lane::Ctl }
}
