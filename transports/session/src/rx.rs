//! One lane, inwards: chunks become messages, and what the application accepts becomes credit.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::Lane;

use crate::{
    MAX_MESSAGE, ProtocolError,
    config::INITIAL_WINDOW,
    frame::{Header, frame_cost},
    partial::Partial,
    reorder::{Piece, Reorder},
    stats::LaneStats,
};

/// So many frames may come over a link that may lose them before the peer is told that they have.
const UNTOLD_FRAMES: u32 = 32;

/// A lane, inwards.
#[derive(Debug)]
pub(crate) struct Rx {
    lane: Lane,
    window: u64,
    /// The offset of the next frame.
    next: u64,
    /// The message whose last chunk has not come.
    partial: Option<Partial>,
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
    /// It may not have heard it.
    tell_again: bool,
    /// It has asked what has come.
    asked: bool,
    /// Whether each frame comes once and in order over the link of the moment.
    strict: bool,
    /// Frames in front of this offset may come again: they were sent before the peer knew that we have them, or over
    /// another link.
    again_until: u64,
    reorder: Reorder,
    /// Frames that came since the peer was told which have come.
    untold_frames: u32,
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
            tell_again: false,
            asked: false,
            strict: true,
            again_until: 0,
            reorder: Reorder::default(),
            untold_frames: 0,
        }
    }

    /// Everything up to here has come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The session goes on over another link: the peer sends again what it does not know to have come.
    pub(crate) fn attach(&mut self, strict: bool, stats: &mut LaneStats) {
        self.strict = strict;
        self.again_until = self.next;
        self.reorder.clear();
        self.untold_frames = 0;
        self.asked = false;
        self.tell_again = !self.lane.may_lose();
        if self.lane.may_lose() {
            self.forget_partial(stats);
        }
    }

    /// Takes a chunk that came over the link of the moment.
    pub(crate) fn receive(
        &mut self,
        header: &Header,
        chunk: Bytes,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        self.receive_by(self.strict, header, chunk, stats)
    }

    /// Takes a chunk that comes late over a link that was left: it may come again over the new one, or have come.
    pub(crate) fn receive_late(
        &mut self,
        header: &Header,
        chunk: Bytes,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        let end = header.seq.saturating_add(frame_cost(chunk.len()));
        self.receive_by(false, header, chunk, stats)?;
        self.again_until = self.again_until.max(end);
        Ok(())
    }

    /// Takes a chunk; a strict link brings each once and in order, but for what was sent over another one before.
    fn receive_by(
        &mut self,
        strict: bool,
        header: &Header,
        chunk: Bytes,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        let lane = self.lane;
        let found = header.seq;
        self.asked |= header.asks;
        // No offset ends at the last number, so `next` never overflows.
        let limit = if lane.may_lose() { u64::MAX - 1 } else { self.told.limit };
        let end = found.saturating_add(frame_cost(chunk.len()));
        if end > limit {
            return Err(ProtocolError::Window { lane, end, limit });
        }
        let piece = Piece { first: header.first, last: header.last, chunk };
        if lane.may_lose() {
            if found < self.next {
                stats.discarded_frames += 1;
                return Ok(());
            }
            if found > self.next {
                stats.missing_frames += 1;
                self.forget_partial(stats);
            }
            return self.take(end, piece, stats);
        }
        if found < self.next {
            return self.receive_again(strict, found, end, stats);
        }
        self.untold_frames = self.untold_frames.saturating_add(1);
        if found > self.next {
            if strict {
                return Err(ProtocolError::Sequence { lane, expected: self.next, found });
            }
            if !self.reorder.insert(lane, found, piece)? {
                stats.duplicate_frames += 1;
            }
            return Ok(());
        }
        self.take(end, piece, stats)?;
        while let Some(piece) = self.reorder.pop(lane, self.next)? {
            self.take(self.next + piece.cost(), piece, stats)?;
        }
        Ok(())
    }

    /// A frame that has come before: the peer does not know it yet.
    fn receive_again(
        &mut self,
        strict: bool,
        found: u64,
        end: u64,
        stats: &mut LaneStats,
    ) -> Result<(), ProtocolError> {
        let expected = !strict || found < self.again_until;
        if !expected || end > self.next {
            return Err(ProtocolError::Sequence { lane: self.lane, expected: self.next, found });
        }
        stats.duplicate_frames += 1;
        self.tell_again |= !self.strict;
        Ok(())
    }

    /// Takes the chunk whose turn it is; it ends at this offset.
    fn take(&mut self, end: u64, piece: Piece, stats: &mut LaneStats) -> Result<(), ProtocolError> {
        self.next = end;
        stats.received_frames += 1;
        stats.received_bytes += piece.chunk.len() as u64;
        self.assemble(piece, stats)
    }

    fn assemble(&mut self, piece: Piece, stats: &mut LaneStats) -> Result<(), ProtocolError> {
        let (lane, cost) = (self.lane, piece.cost());
        let Piece { first, last, chunk } = piece;
        if first && self.partial.is_some() {
            if !lane.may_lose() {
                return Err(ProtocolError::Fragments(lane));
            }
            self.forget_partial(stats);
        }
        if !last && chunk.is_empty() {
            return Err(ProtocolError::Fragments(lane));
        }
        let so_far = self.partial.as_ref().map_or(0, Partial::len);
        if so_far + chunk.len() > MAX_MESSAGE {
            return Err(ProtocolError::TooLong(lane));
        }
        match (self.partial.take(), first, last) {
            (None, true, true) => self.deliver(chunk, cost, stats),
            (None, true, false) => {
                self.partial.insert(Partial::default()).push(chunk);
                self.partial_cost = cost;
            }
            (None, false, _) if lane.may_lose() => stats.discarded_frames += 1,
            (None, false, _) => return Err(ProtocolError::Fragments(lane)),
            (Some(mut message), _, false) => {
                message.push(chunk);
                self.partial = Some(message);
                self.partial_cost += cost;
            }
            (Some(mut message), _, true) => {
                message.push(chunk);
                let cost = self.partial_cost + cost;
                self.partial_cost = 0;
                self.deliver(message.join(), cost, stats);
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
        self.news() != self.told || self.tell_again || self.asked || !self.strict && self.untold_frames > 0
    }

    /// Whether the peer should be told at once: it runs out of credit, or sends again what has come.
    pub(crate) fn has_urgent_news(&self) -> bool {
        self.news().limit - self.told.limit >= self.window / 2
            || self.tell_again
            || self.asked
            || !self.strict && self.untold_frames >= UNTOLD_FRAMES
    }

    /// What the peer is told now: the offset up to which was accepted, and the one up to which it may send.
    pub(crate) fn tell(&mut self) -> (u64, u64) {
        self.told = self.news();
        (self.told.ack, self.told.limit)
    }

    /// The peer is told by a frame that says nothing else: over a link that may lose, or if it has asked, also what has come.
    pub(crate) fn tell_all(&mut self) -> Option<u64> {
        (self.tell_again, self.untold_frames) = (false, 0);
        let asked = std::mem::take(&mut self.asked);
        (asked || !self.strict).then_some(self.next)
    }

    /// What was told may have been lost.
    pub(crate) fn doubt(&mut self) {
        self.tell_again |= !self.strict;
    }
}
