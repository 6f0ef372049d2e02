//! One lane, outwards: a bounded queue of messages that is cut into chunks as credit allows, and kept until the peer
//! has them.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use wire::{Lane, Message};

use crate::{
    Config, HEADER_LEN, MAX_MESSAGE, ProtocolError, config::INITIAL_WINDOW, frame::frame_cost, pace,
    ring::Ring, stats::LaneStats,
};

/// A lane, outwards.
#[derive(Debug)]
pub(crate) struct Tx {
    queue: VecDeque<Outgoing>,
    /// The cost of what is in the queue, bytes.
    queued: usize,
    capacity: usize,
    may_lose: bool,
    /// The offset of the next frame.
    next: u64,
    /// The offset up to which the peer's application has accepted.
    acked: u64,
    /// The offset up to which the peer has received all.
    received: u64,
    /// The offset up to which the peer lets us send.
    limit: u64,
    /// What was sent and is not known to have been received, if the session can go on over another link.
    ring: Option<Ring>,
    /// What the ring may hold, bytes, whatever credit the peer gives.
    ring_bound: u64,
    /// Whether each frame arrives once and in order over the link of the moment.
    strict: bool,
}

/// What is left of a message.
#[derive(Debug)]
struct Outgoing {
    head: Bytes,
    body: Bytes,
    begun: bool,
    /// When it was queued, if that is known.
    since: Option<Duration>,
}

impl Outgoing {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What it takes in the queue; the header stands for our own bookkeeping, so that short messages count, too.
    fn cost(&self) -> usize {
        self.len() + HEADER_LEN
    }
}

/// The next piece of a message.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) seq: u64,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

impl Chunk {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What it adds to the offset of its lane.
    pub(crate) fn cost(&self) -> u64 {
        frame_cost(self.len())
    }

    /// The offset where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.seq + self.cost()
    }
}

impl Tx {
    pub(crate) fn new(lane: Lane, config: &Config, keeps: bool) -> Self {
        let (bounds, may_lose) = (config.lane(lane), lane.may_lose());
        // A peer that gives credit and never acknowledges would make us keep everything. An honest one, with a window
        // like ours, is never in flight with more than the window and the message in the making.
        let frames = MAX_MESSAGE / pace::least_chunk(config.chunk()) + 2;
        let ring_bound = (bounds.window + MAX_MESSAGE + frames * HEADER_LEN) as u64;
        Self {
            queue: VecDeque::new(),
            queued: 0,
            capacity: bounds.queue,
            may_lose,
            next: 0,
            acked: 0,
            received: 0,
            limit: if may_lose { u64::MAX } else { INITIAL_WINDOW as u64 },
            ring: (keeps && !may_lose).then(Ring::default),
            ring_bound,
            strict: true,
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes kept until the peer has them.
    pub(crate) fn kept(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::cost)
    }

    /// Whether nothing more has to go over the link of the moment.
    pub(crate) fn is_empty(&self) -> bool {
        let arrived = self.strict || self.received == self.next;
        self.queue.is_empty() && arrived && !self.resends()
    }

    /// Bytes handed to the link, headers included, that the peer's application has not accepted.
    pub(crate) fn unaccepted(&self) -> u64 {
        self.next - self.acked
    }

    /// The offset from which everything can be sent again.
    pub(crate) fn base(&self) -> u64 {
        self.received.max(self.acked)
    }

    /// The offset of the next frame.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    fn check(&self, lane: Lane, found: u64) -> Result<(), ProtocolError> {
        if found > self.next { Err(ProtocolError::Ack { lane, found, sent: self.next }) } else { Ok(()) }
    }

    /// The longest message that would be taken now; an empty queue takes any.
    pub(crate) fn room(&self) -> usize {
        if self.queue.is_empty() {
            self.capacity.max(MAX_MESSAGE)
        } else {
            self.capacity.saturating_sub(self.queued + HEADER_LEN)
        }
    }

    /// Queues a message; on a lane that may lose the oldest make room for it.
    pub(crate) fn push(
        &mut self,
        message: Message,
        since: Option<Duration>,
        stats: &mut LaneStats,
    ) -> Result<(), Message> {
        while message.len().max(1) > self.room() {
            let Some(oldest) = self.queue.front().filter(|_| self.may_lose) else { return Err(message) };
            self.queued -= oldest.cost();
            self.queue.pop_front();
            stats.dropped_messages += 1;
        }
        let outgoing = Outgoing { head: message.head, body: message.body, begun: false, since };
        self.queued += outgoing.cost();
        self.queue.push_back(outgoing);
        Ok(())
    }

    /// Drops what was queued before this time and has not begun to go.
    pub(crate) fn expire(&mut self, before: Duration, stats: &mut LaneStats) {
        let late = |message: &&Outgoing| !message.begun && message.since.is_some_and(|since| since < before);
        while let Some(oldest) = self.queue.front().filter(late) {
            self.queued -= oldest.cost();
            self.queue.pop_front();
            stats.dropped_messages += 1;
        }
    }

    /// The session goes on over another link, and the peer has everything up to `received`.
    pub(crate) fn attach(&mut self, received: u64, strict: bool, stats: &mut LaneStats) {
        self.strict = strict;
        if self.may_lose {
            // What waited for the link is late by now.
            stats.dropped_messages += self.queue.len() as u64;
            self.queue.clear();
            self.queued = 0;
        }
        self.received = self.received.max(received);
        let base = self.base();
        if let Some(ring) = &mut self.ring {
            ring.forget(base);
            ring.rewind();
        }
    }

    /// Whether there is a chunk and credit for all of it.
    pub(crate) fn ready(&self, max_chunk: usize) -> bool {
        self.resends()
            || self.queue.front().is_some_and(|message| {
                let end = self.next.saturating_add(frame_cost(message.len().min(max_chunk)));
                let bound =
                    self.ring.as_ref().map_or(u64::MAX, |_| self.acked.saturating_add(self.ring_bound));
                end <= self.limit.min(bound)
            })
    }

    /// Bytes handed to the link of the moment, headers included, that the peer is not known to have received.
    pub(crate) fn in_flight(&self) -> u64 {
        let unsent = self.ring.as_ref().and_then(Ring::unsent);
        unsent.map_or(self.next, |chunk| chunk.seq).saturating_sub(self.base())
    }

    /// What the next chunk adds to [`Self::in_flight`]; nothing if it is one that was lost.
    pub(crate) fn next_cost(&self, max_chunk: usize) -> u64 {
        match &self.ring {
            Some(ring) if ring.repairs() => 0,
            ring => match ring.as_ref().and_then(Ring::unsent) {
                Some(chunk) => chunk.cost(),
                None => self.queue.front().map_or(0, |message| frame_cost(message.len().min(max_chunk))),
            },
        }
    }

    fn resends(&self) -> bool {
        self.ring.as_ref().is_some_and(Ring::ready)
    }

    /// The next chunk: one to be sent again, or one of at most `max_chunk` bytes. To be asked when [`Self::ready`].
    /// It is sent again if it is not acknowledged within `patience`, where frames may be lost.
    pub(crate) fn pop(
        &mut self,
        now: Duration,
        patience: Duration,
        max_chunk: usize,
        stats: &mut LaneStats,
    ) -> Option<Chunk> {
        if let Some(ring) = self.ring.as_mut().filter(|ring| ring.ready()) {
            stats.retransmitted_frames += 1;
            return ring.pop(now, patience);
        }
        let message = self.queue.front_mut()?;
        let head = message.head.split_to(message.head.len().min(max_chunk));
        let body = message.body.split_to(message.body.len().min(max_chunk - head.len()));
        let chunk = Chunk { first: !message.begun, last: message.len() == 0, seq: self.next, head, body };
        message.begun = true;
        self.queued -= chunk.len();
        if chunk.last {
            self.queued -= message.cost();
            self.queue.pop_front();
            stats.sent_messages += 1;
        }
        self.next = chunk.end();
        stats.sent_frames += 1;
        stats.sent_bytes += chunk.len() as u64;
        if let Some(ring) = &mut self.ring {
            ring.push(chunk.clone(), now, patience);
        }
        Some(chunk)
    }

    /// Takes what the peer says of this lane. What came late and says less is ignored.
    pub(crate) fn acknowledge(&mut self, lane: Lane, ack: u64, limit: u64) -> Result<(), ProtocolError> {
        self.check(lane, ack)?;
        self.acked = self.acked.max(ack);
        self.limit = self.limit.max(limit);
        self.forget();
        Ok(())
    }

    /// The peer has received all up to this offset.
    pub(crate) fn arrived(&mut self, lane: Lane, received: u64) -> Result<(), ProtocolError> {
        self.check(lane, received)?;
        self.received = self.received.max(received);
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        let base = self.base();
        if let Some(ring) = &mut self.ring {
            ring.forget(base);
        }
    }

    /// When something will be given up for lost.
    pub(crate) fn next_loss(&self) -> Option<Duration> {
        self.ring.as_ref().filter(|_| !self.strict)?.look_at()
    }

    /// Gives up for lost what was not acknowledged in time.
    pub(crate) fn on_timeout(&mut self, now: Duration, patience: Duration) {
        if let Some(ring) = self.ring.as_mut().filter(|_| !self.strict) {
            ring.on_timeout(now, patience);
        }
    }
}
