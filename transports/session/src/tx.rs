//! One lane, outwards: a bounded queue of messages that is cut into chunks as credit allows.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::{Lane, Message};

use crate::{
    HEADER_LEN, MAX_MESSAGE, ProtocolError, config::INITIAL_WINDOW, frame::frame_cost, stats::LaneStats,
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
    /// The offset up to which the peer lets us send.
    limit: u64,
}

/// What is left of a message.
#[derive(Debug)]
struct Outgoing {
    head: Bytes,
    body: Bytes,
    begun: bool,
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
#[derive(Debug)]
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
}

impl Tx {
    pub(crate) fn new(capacity: usize, may_lose: bool) -> Self {
        let limit = if may_lose { u64::MAX } else { INITIAL_WINDOW as u64 };
        Self { queue: VecDeque::new(), queued: 0, capacity, may_lose, next: 0, acked: 0, limit }
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes handed to the link, headers included, that the peer's application has not accepted.
    pub(crate) fn unaccepted(&self) -> u64 {
        self.next - self.acked
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
    pub(crate) fn push(&mut self, message: Message, stats: &mut LaneStats) -> Result<(), Message> {
        while message.len().max(1) > self.room() {
            let Some(oldest) = self.queue.front().filter(|_| self.may_lose) else { return Err(message) };
            self.queued -= oldest.cost();
            self.queue.pop_front();
            stats.dropped_messages += 1;
        }
        let outgoing = Outgoing { head: message.head, body: message.body, begun: false };
        self.queued += outgoing.cost();
        self.queue.push_back(outgoing);
        Ok(())
    }

    /// Whether there is a chunk and credit for all of it.
    pub(crate) fn ready(&self, max_chunk: usize) -> bool {
        self.queue.front().is_some_and(|message| {
            let end = self.next.saturating_add(frame_cost(message.len().min(max_chunk)));
            end <= self.limit
        })
    }

    /// The next chunk, of at most `max_chunk` bytes. To be asked when [`Self::ready`].
    pub(crate) fn pop(&mut self, max_chunk: usize, stats: &mut LaneStats) -> Option<Chunk> {
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
        self.next += frame_cost(chunk.len());
        stats.sent_frames += 1;
        stats.sent_bytes += chunk.len() as u64;
        Some(chunk)
    }

    /// Takes what the peer says of this lane. What came late and says less is ignored.
    pub(crate) fn acknowledge(&mut self, lane: Lane, ack: u64, limit: u64) -> Result<(), ProtocolError> {
        if ack > self.next {
            return Err(ProtocolError::Ack { lane, found: ack, sent: self.next });
        }
        self.acked = self.acked.max(ack);
        self.limit = self.limit.max(limit);
        Ok(())
    }
}
