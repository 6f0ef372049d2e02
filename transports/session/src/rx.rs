//! One lane, inwards: chunks become messages, and what the application accepts becomes credit.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use wire::Lane;

use crate::{
    MAX_MESSAGE, ProtocolError,
    config::INITIAL_WINDOW,
    frame::{Header, frame_cost},
    stats::LaneStats,
};

/// A lane, inwards.
#[derive(Debug)]
pub(crate) struct Rx {
    lane: Lane,
    window: u64,
    /// The offset of the next frame.
    next: u64,
    /// The message whose last chunk has not come.
    partial: Option<BytesMut>,
    /// What the frames of `partial` cost.
    partial_cost: u64,
    /// Messages that the application has not asked for, and their bytes.
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    /// Messages that the application has not accepted, whether it asked for them or not; reliable lanes only.
    unaccepted: VecDeque<Unaccepted>,
    unaccepted_cost: u64,
    /// Bytes accepted of the first of them.
    accepted: usize,
    /// What the peer was told last.
    told: Told,
}

/// A message that waits to be accepted.
#[derive(Debug)]
struct Unaccepted {
    len: usize,
    cost: u64,
}

/// What the peer was told of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    ack: u64,
    limit: u64,
}

impl Rx {
    pub(crate) fn new(lane: Lane, window: usize) -> Self {
        Self {
            lane,
            window: window as u64,
            next: 0,
            partial: None,
            partial_cost: 0,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            unaccepted: VecDeque::new(),
            unaccepted_cost: 0,
            accepted: 0,
            told: Told { ack: 0, limit: INITIAL_WINDOW as u64 },
        }
    }

    /// Takes a chunk.
    pub(crate) fn receive(
        &mut self,
        header: &Header,
        chunk: Bytes,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        let (lane, cost) = (self.lane, frame_cost(chunk.len()));
        let found = header.seq;
        // No offset ends at the last number, so `next` never overflows.
        let limit = if lane.may_lose() { u64::MAX - 1 } else { self.told.limit };
        let end = found.saturating_add(cost);
        if end > limit {
            return Err(ProtocolError::Window { lane, end, limit });
        }
        if found != self.next {
            if !lane.may_lose() {
                return Err(ProtocolError::Sequence { lane, expected: self.next, found });
            }
            if found < self.next {
                stats.discarded_frames += 1;
                return Ok(());
            }
            self.forget_partial(stats);
        }
        self.next = end;
        stats.received_frames += 1;
        stats.received_bytes += chunk.len() as u64;
        self.assemble(header, chunk, cost, stats)
    }

    fn assemble(
        &mut self,
        header: &Header,
        chunk: Bytes,
        cost: u64,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        let lane = self.lane;
        if header.first && self.partial.is_some() {
            if !lane.may_lose() {
                return Err(ProtocolError::Fragments(lane));
            }
            self.forget_partial(stats);
        }
        if !header.last && chunk.is_empty() {
            return Err(ProtocolError::Fragments(lane));
        }
        let so_far = self.partial.as_ref().map_or(0, BytesMut::len);
        if so_far + chunk.len() > MAX_MESSAGE {
            return Err(ProtocolError::TooLong(lane));
        }
        match (self.partial.take(), header.first, header.last) {
            (None, true, true) => self.deliver(chunk, cost, stats),
            (None, true, false) => {
                self.partial = Some(BytesMut::from(chunk));
                self.partial_cost = cost;
            }
            (None, false, _) if lane.may_lose() => stats.discarded_frames += 1,
            (None, false, _) => return Err(ProtocolError::Fragments(lane)),
            (Some(mut message), _, false) => {
                message.extend_from_slice(&chunk);
                self.partial = Some(message);
                self.partial_cost += cost;
            }
            (Some(mut message), _, true) => {
                message.extend_from_slice(&chunk);
                let cost = self.partial_cost + cost;
                self.partial_cost = 0;
                self.deliver(message.freeze(), cost, stats);
            }
        }
        Ok(())
    }

    fn deliver(&mut self, message: Bytes, cost: u64, stats: &mut LaneStats) {
        stats.received_messages += 1;
        if self.lane.may_lose() {
            while !self.inbox.is_empty() && self.inbox_bytes as u64 + cost > self.window {
                self.pop();
                stats.dropped_messages += 1;
            }
        } else {
            self.unaccepted.push_back(Unaccepted { len: message.len(), cost });
            self.unaccepted_cost += cost;
        }
        self.inbox_bytes += message.len();
        self.inbox.push_back(message);
    }

    fn forget_partial(&mut self, stats: &mut LaneStats) {
        if self.partial.take().is_some() {
            stats.discarded_frames += 1;
            self.partial_cost = 0;
        }
    }

    /// The next message for the application.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let message = self.inbox.pop_front()?;
        self.inbox_bytes -= message.len();
        Some(message)
    }

    /// The application has accepted so many bytes of messages, in order.
    pub(crate) fn consumed(&mut self, bytes: usize) {
        self.accepted += bytes;
        while let Some(&Unaccepted { len, cost }) = self.unaccepted.front() {
            if len > self.accepted {
                return;
            }
            self.accepted -= len;
            self.unaccepted_cost -= cost;
            self.unaccepted.pop_front();
        }
        self.accepted = 0;
    }

    /// What the peer could be told. A message in the making always gets the credit that completes it.
    fn news(&self) -> Told {
        let settled = self.next - self.unaccepted_cost;
        Told { ack: settled - self.partial_cost, limit: self.told.limit.max(settled + self.window) }
    }

    /// Whether the peer could be told anything new.
    pub(crate) fn has_news(&self) -> bool {
        self.news() != self.told
    }

    /// Whether the peer should be told at once, before it runs out of credit.
    pub(crate) fn has_urgent_news(&self) -> bool {
        self.news().limit - self.told.limit >= self.window / 2
    }

    /// What the peer is told now: the offset up to which was accepted, and the one up to which it may send.
    pub(crate) fn tell(&mut self) -> (u64, u64) {
        self.told = self.news();
        (self.told.ack, self.told.limit)
    }
}
