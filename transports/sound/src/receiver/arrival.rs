//! What becomes of a packet when it comes: it waits, or is too late; and what its place says of the others.

use core::time::Duration;

use wire::audio::{Block, Codec};

use super::{LONGEST_BLOCK, LONGEST_ROW, LOSSY, Receiver, State, WINDOW, playout::Held};
use crate::{
    frames_in,
    jitter::{Arrival, CAP, STALL},
    time_of,
};

impl Receiver {
    pub(super) fn arrive(&mut self, now: Duration, block: &Block, fresh: bool) {
        let (position, frames) = (block.position, u64::from(block.frames));
        if self.drained {
            self.resume(position);
        }
        if self.stalled() {
            self.catching_up = Some(now + STALL);
        }
        let repeated = fresh && self.meter.repeated(position);
        let arrival = match self.ahead(now, block) {
            // It was played from a copy, or comes a second time.
            Arrival::Late(_) if !self.holes.fill(position, position + frames) => Arrival::Duplicate,
            arrival => arrival,
        };
        let refused = matches!(arrival, Arrival::Refused | Arrival::Ahead(_));
        self.counters.refused += u64::from(refused);
        self.counters.duplicate += u64::from(repeated && !refused);
        if refused || repeated || !fresh {
            return;
        }
        self.packet = frames;
        let in_time = !matches!(arrival, Arrival::Late(_));
        if let Some((first, lost)) = self.meter.order(position, frames, in_time) {
            self.lack(now, first, lost);
        }
        if self.catching_up.is_some_and(|until| now < until) {
            return;
        }
        if self.catching_up.take().is_some() {
            self.meter.forget_line();
        }
        if self.meter.delay(now, position, frames) {
            self.target.undo(now);
            (self.slowest, self.looked) = (Duration::ZERO, None);
        }
        match arrival {
            Arrival::Late(by) => {
                self.counters.late += 1;
                self.grow(now, by);
            }
            _ if self.state != State::Waiting => {
                self.meter.level(now, position.saturating_add(frames + self.reserve))
            }
            _ => {}
        }
    }

    /// Stores a block; one that is too far ahead ends what was before it.
    fn ahead(&mut self, now: Duration, block: &Block) -> Arrival {
        let arrival = self.store(block);
        let Arrival::Ahead(by) = arrival else { return arrival };
        self.counters.cut += by.min(self.queued());
        self.counters.lost += by.saturating_sub(self.queued());
        self.decoded.clear();
        if by < frames_in(WINDOW, self.format.rate) {
            self.queue.skip(by);
        } else {
            self.queue.restart(block.position);
            self.meter.restart();
        }
        self.state = State::Waiting;
        self.catching_up = Some(now + STALL);
        self.store(block)
    }

    /// Nothing has come for so long that it was no jitter: more than may ever wait. What has gathered since is not to be
    /// played, and how late it is says nothing.
    fn stalled(&mut self) -> bool {
        let starved = if let State::Starved(frames) = self.state { frames } else { 0 };
        let starved = time_of(starved, self.format.rate);
        let beyond = starved > Duration::ZERO && starved + self.target.get() > CAP;
        core::mem::take(&mut self.stalled) || (beyond && self.catching_up.is_none())
    }

    pub(super) fn store(&mut self, block: &Block) -> Arrival {
        let (frame, longest) =
            (self.format.frame_bytes() as usize, frames_in(LONGEST_BLOCK, self.format.rate));
        if u64::from(block.frames) > longest {
            return Arrival::Refused;
        }
        if block.codec == Codec::Pcm && block.payload.len() != usize::from(block.frames) * frame {
            return Arrival::Refused;
        }
        // A slice would keep the whole message, of which a peer could make it the smallest part.
        let payload = bytes::Bytes::copy_from_slice(&block.payload);
        let weight = payload.len();
        self.queue.insert(block.position, block.frames.into(), Held { codec: block.codec, payload }, weight)
    }

    /// The sender goes on after a pause.
    fn resume(&mut self, position: u64) {
        self.drained = false;
        self.meter.forget_line();
        if self.idle() && self.queue.head() <= position {
            self.state = State::Waiting;
        }
    }

    /// Packets were jumped over.
    fn lack(&mut self, now: Duration, first: u64, frames: u64) {
        self.lossy_until = now + LOSSY;
        let packet = self.packet.max(1);
        self.row = self.row.max(frames.min(LONGEST_ROW * packet));
        let pieces = (0..frames.div_ceil(packet)).take(wire::audio::MAX_GAPS);
        for piece in pieces.filter(|_| self.round_trip.is_some()) {
            self.asker.lacks(first + piece * packet, packet.min(frames - piece * packet));
        }
    }

    /// A packet was too late by so many frames: more has to wait from now on.
    fn grow(&mut self, now: Duration, by: u64) {
        let (before, by) = (self.target.get(), time_of(by, self.format.rate));
        // For what comes later than anything may wait, there is no use in waiting.
        if by <= CAP {
            self.target.late(now, by);
            self.owe(before);
        }
    }

    pub(super) fn owe(&mut self, before: Duration) {
        let grown = self.target.get().saturating_sub(before);
        self.owed += frames_in(grown, self.format.rate);
    }
}
