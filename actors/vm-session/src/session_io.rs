//! Messages in and out of the session: queued by lane, written when the link has room, credited when accepted.

use std::{collections::VecDeque, time::Duration};

use actix::prelude::*;
use session::Event as SessionEvent;
use tokio::sync::mpsc::{OwnedPermit, error::TrySendError};
use usb_ctrl::Detach;
use wire::{
    Lane, Message, ToHost, ToRemote, control,
    usb::{self, Completion},
};

use crate::{Event, VmSession, link_of_the_moment::Inbound};

/// Bytes of completions that the controller copies at a stretch: a guest's register access waits that long.
const BATCH_BYTES: u32 = 64 << 10;

/// Messages that the session has no room for yet. What USB may have in flight is bounded by the controller's credit,
/// sound drops its oldest inside the session: so this is bounded, too.
#[derive(Default)]
pub(crate) struct Backlog {
    lanes: [VecDeque<Message>; Lane::ALL.len()],
    /// Completions for which the controller's stream had no room, and the bytes to credit with them.
    completions: Vec<Completion>,
    credit: Vec<(Lane, usize)>,
    waiting: bool,
}

impl VmSession {
    /// Records requests that go to the remote.
    pub(crate) fn record(&mut self, messages: &[usb::ToRemote]) {
        let Some(tap) = self.tap.as_mut().filter(|_| self.link.is_some()) else { return };
        for message in messages {
            if let Some(request) = message.request() {
                tap.submitted(&request);
            }
        }
    }

    /// Sends messages to the remote; without one they are dropped: nothing is lent then, and sound plays into silence.
    pub(crate) fn send(&mut self, messages: Vec<ToRemote>, ctx: &mut Context<Self>) {
        if self.link.is_none() {
            return;
        }
        for message in messages {
            let message = message.encode();
            if message.lane.may_lose() {
                // Late is lost, never queued: the session drops what it cannot send in time.
                self.give(message);
            } else {
                self.backlog.lanes[message.lane as usize].push_back(message);
            }
        }
        self.transmit(ctx);
    }

    /// Moves messages into the session and frames out of it, until one of them has no more.
    pub(crate) fn transmit(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        self.fill_session();
        let ready = self.link.as_ref().filter(|link| !link.waiting);
        let outbound = ready.map(|link| link.outbound.clone());
        while let Some(outbound) = &outbound {
            match outbound.try_reserve() {
                Ok(permit) => match self.session.poll_transmit(now) {
                    Some(frame) => permit.send(frame),
                    None => break,
                },
                Err(TrySendError::Full(())) => {
                    self.wait_for_room(ctx);
                    break;
                }
                Err(TrySendError::Closed(())) => break,
            }
            self.fill_session();
        }
        self.set_timer(self.session.poll_timeout(), ctx);
    }

    fn fill_session(&mut self) {
        for lane in Lane::ALL {
            let room = |act: &Self, message: &Message| act.session.room(lane) >= message.len();
            while self.backlog.lanes[lane as usize].front().is_some_and(|message| room(self, message)) {
                let Some(message) = self.backlog.lanes[lane as usize].pop_front() else { break };
                self.give(message);
            }
        }
    }

    fn give(&mut self, message: Message) {
        if let Err(error) = self.session.send_at(self.start.elapsed(), message) {
            tracing::error!(%error, "the session refused a message that it had room for");
        }
    }

    /// Goes on when the link has taken a frame.
    fn wait_for_room(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else { return };
        link.waiting = true;
        let (generation, outbound) = (link.generation, link.outbound.clone());
        let room = async move { drop(outbound.reserve().await) };
        ctx.spawn(room.into_actor(self).map(move |(), act, ctx| {
            if let Some(link) = act.link.as_mut().filter(|link| link.generation == generation) {
                link.waiting = false;
                act.transmit(ctx);
            }
        }));
    }

    /// Takes frames from the link. A remote that breaks the protocol loses the link.
    pub(crate) fn receive(&mut self, Inbound { generation, frames }: Inbound, ctx: &mut Context<Self>) {
        if self.link.as_ref().is_none_or(|link| link.generation != generation) {
            return;
        }
        let now = self.start.elapsed();
        let taken = frames.into_iter().try_for_each(|(lane, frame)| self.session.receive(now, lane, frame));
        let end = match taken {
            Ok(()) => self.route_events().err(),
            Err(error) => Some(format!("the remote broke the protocol: {error}")),
        };
        self.hand_over(ctx);
        match end {
            Some(reason) => self.link_lost(&reason, ctx),
            None => self.transmit(ctx),
        }
    }

    fn route_events(&mut self) -> Result<(), String> {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Message(lane, bytes) => {
                    let size = bytes.len();
                    let message =
                        ToHost::decode(lane, bytes).map_err(|e| format!("the remote sent nonsense: {e}"))?;
                    self.route(lane, size, message);
                }
                SessionEvent::PeerSilent => return Err("the remote has fallen silent".to_owned()),
                SessionEvent::PeerClosed(reason) => return Err(format!("the remote left: {reason}")),
                // A session that ends with its link has no more to tell of links.
                SessionEvent::Attached { .. }
                | SessionEvent::Detached
                | SessionEvent::Retired(_)
                | SessionEvent::Expired
                | SessionEvent::Reset(_) => {}
            }
        }
        Ok(())
    }

    fn route(&mut self, lane: Lane, size: usize, message: ToHost) {
        match message {
            // Credited when the controller has accepted it.
            ToHost::Completed(completion) => {
                if let Some(tap) = &mut self.tap {
                    tap.ended(&completion);
                }
                self.backlog.completions.push(completion);
                return self.backlog.credit.push((lane, size));
            }
            ToHost::Audio(report) => self.hda.sound.hear(report),
            ToHost::Control(control::ToHost::Attached(attachment)) => self.attach(attachment),
            ToHost::Control(control::ToHost::Detached { device }) => {
                if let Some(device) = self.ports.detach(device) {
                    self.to_usb(Detach { device });
                }
            }
        }
        self.session.consumed(lane, size);
    }

    fn attach(&mut self, attachment: control::Attachment) {
        let Some(attach) = self.ports.attach(&attachment) else {
            return tracing::warn!(vm = %self.name, device = attachment.device.0, "one device too many, or lent twice");
        };
        self.to_usb(attach);
        let id = (attachment.vendor, attachment.product);
        self.tell(Event::Attached { name: attachment.name, id });
    }

    /// Hands completions to the controller's stream, now or when it has room; with them goes their credit.
    fn hand_over(&mut self, ctx: &mut Context<Self>) {
        while !self.backlog.completions.is_empty() && !self.backlog.waiting {
            self.hand_over_batch(ctx);
        }
    }

    fn hand_over_batch(&mut self, ctx: &mut Context<Self>) {
        let Some(stream) = self.usb.completions.clone() else { return self.accept_completions(None) };
        match stream.clone().try_reserve_owned() {
            Ok(permit) => self.accept_completions(Some(permit)),
            Err(TrySendError::Closed(_)) => self.accept_completions(None),
            Err(TrySendError::Full(_)) => {
                let generation = self.generation;
                self.backlog.waiting = true;
                let room = async move { drop(stream.reserve_owned().await) };
                ctx.spawn(room.into_actor(self).map(move |(), act, ctx| {
                    if act.generation == generation {
                        act.backlog.waiting = false;
                        act.hand_over(ctx);
                        act.transmit(ctx);
                    }
                }));
            }
        }
    }

    /// The completions are the controller's, or nobody's if there is none; either way their room is free again.
    fn accept_completions(&mut self, permit: Option<OwnedPermit<Vec<Completion>>>) {
        let mut bytes = 0u32;
        let mut fits = |completion: &Completion| {
            bytes = completion.moved.len().saturating_add(bytes);
            bytes <= BATCH_BYTES
        };
        // At least one, however long it is.
        let count = self.backlog.completions.iter().take_while(|completion| fits(completion)).count().max(1);
        let count = count.min(self.backlog.completions.len());
        let completions = self.backlog.completions.drain(..count).collect();
        if let Some(permit) = permit {
            permit.send(completions);
        }
        for (lane, size) in self.backlog.credit.drain(..count) {
            self.session.consumed(lane, size);
        }
    }

    pub(crate) fn set_timer(&mut self, at: Option<Duration>, ctx: &mut Context<Self>) {
        let at = at.filter(|_| self.link.is_some());
        // A timer that rings too early does no harm, and a new one for every frame would cost more.
        let rings_in_time = |at| self.timer.is_some_and(|(armed, _)| armed <= at);
        if at.map_or(self.timer.is_none(), rings_in_time) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.start.elapsed();
        let arm = |at: Duration| (at, ctx.run_later(at.saturating_sub(now), Self::timeout));
        self.timer = at.map(arm);
    }

    fn timeout(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        self.session.on_timeout(self.start.elapsed());
        match self.route_events() {
            Ok(()) => self.transmit(ctx),
            Err(reason) => self.link_lost(&reason, ctx),
        }
    }
}
