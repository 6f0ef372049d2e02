//! Requests whose TD was taken away: by a stop, or by an error in front of them. xHCI 1.2 §4.6.9.
//!
//! Hardware decides in nanoseconds what has moved when it stops; a remote needs a round trip, and a guest may not be
//! kept waiting that long. So a stop is answered with what is known, and the requests whose end is not known yet, or
//! whose success could not be reported, go on as orphans:
//!
//! - What a device sent is a stream of packets: bytes that nobody was told of are *late*, and the next TDs get them,
//!   whichever TDs these are.
//! - What was sent to a device, or asked of its control endpoint, is *adopted* by the TD that the guest runs again in
//!   the same place with the same bytes: its result counts, and nothing is sent twice.
//! - Behind a stall, and after CLEAR_HALT, SET_INTERFACE, SET_CONFIGURATION and resets, all that is void.
//!
//! While a cancelled request is not completed, nothing new is submitted on its endpoint, so that order holds.

use pci::Dma;
use wire::usb::RequestId;

use super::{
    retire::moved_before,
    submit::Late,
    td::{Pending, Position, Progress, Sent, Td},
};
use crate::{endpoint::Endpoint, redacted::Redacted, trb::event::CompletionCode};

/// A TD that has left the queue before its result was told.
#[derive(Debug, Clone)]
pub(crate) struct Orphan {
    /// The TD, as it was gathered.
    pub(crate) td: Td,
    /// Where a second run would start, and what has moved before that.
    start: Position,
    fate: Fate,
}

/// What may become of an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It counts: a TD may adopt it, or get its data.
    Open,
    /// It counts for nothing.
    Void,
}

impl Endpoint {
    /// All TDs leave the queue; what they have in flight, or have done without anybody knowing, stays as orphans.
    /// The requests have been cancelled already. The guest was told that the first one stands still here; it would run the
    /// others from their starts.
    pub(crate) fn orphan_all(&mut self, fate: Fate, first: Position) {
        self.submitted = 0;
        self.queued_bytes = 0;
        self.queued_trbs = 0;
        self.partial = None;
        let starts = core::iter::once(first).chain(core::iter::repeat(Position::START));
        let orphans = self.tds.drain(..).zip(starts).map(|(td, start)| Orphan { td, start, fate }).collect();
        // Late data that no TD has got is younger than what they have; so is what was asked for ahead, and what the ring
        // has behind them.
        let (younger, late) =
            (core::mem::replace(&mut self.orphans, orphans), core::mem::take(&mut self.stash));
        self.sort_orphans();
        self.stash.extend(late);
        self.orphans.extend(younger);
        self.sort_orphans();
    }

    /// The orphan that waits for this request.
    pub(crate) fn orphan_mut(&mut self, id: RequestId) -> Option<&mut Orphan> {
        self.orphans.iter_mut().find(|orphan| orphan.td.sent().is_some_and(|sent| sent.id == id))
    }

    /// A TD that is run again takes over what its first run did.
    pub(crate) fn adopt(&mut self, td: &mut Td, dma: &dyn Dma) {
        if self.orphans.is_empty() {
            return;
        }
        let found = self.orphans.iter().position(|orphan| orphan.was(td, dma));
        // Orphans are in ring order: nobody will come for those in front.
        let passed = found.unwrap_or(self.orphans.len());
        for orphan in self.orphans.iter_mut().take(passed).filter(|orphan| !orphan.is_received()) {
            orphan.fate = Fate::Void;
        }
        if let Some(orphan) = found.and_then(|index| self.orphans.remove(index)) {
            orphan.hand_over(td);
        }
        self.sort_orphans();
    }

    /// Late data, and orphans that might bring some, count for nothing any more.
    pub(crate) fn void_late_data(&mut self) {
        self.stash.clear();
        for orphan in &mut self.orphans {
            orphan.fate = Fate::Void;
        }
        self.sort_orphans();
    }

    /// Orphans that are done and that nobody will adopt leave, their data in order to the stash.
    pub(crate) fn sort_orphans(&mut self) {
        let packet = self.max_packet;
        while let Some(orphan) = self.orphans.front_mut() {
            match orphan.fate {
                _ if orphan.td.sent().is_some() => return,
                Fate::Open if orphan.is_received() => self.stash.extend(orphan.late_data(packet)),
                Fate::Open if orphan.has_news() => return,
                Fate::Open | Fate::Void => {}
            }
            self.orphans.pop_front();
        }
    }
}

impl Orphan {
    /// One that never had a TD: its bytes are for the next ones.
    pub(crate) fn unborn(td: Td) -> Self {
        Self { td, start: Position::START, fate: Fate::Open }
    }

    /// Its request in flight.
    pub(crate) fn sent(&self) -> Option<&Sent> {
        self.td.sent()
    }

    /// Whether its data, if any, came from the device on a pipe that is a stream of packets.
    fn is_received(&self) -> bool {
        self.td.inward && self.td.setup.is_none()
    }

    /// Whether anything has happened that a second run must know.
    fn has_news(&self) -> bool {
        match self.td.progress {
            Progress::Waiting => {
                self.td.pending.is_some() || self.td.done > self.start.before + self.start.offset
            }
            Progress::Sent(_) => true,
            Progress::Finished(code) => code != CompletionCode::TrbError && self.td.is_transfer(),
        }
    }

    /// Whether this TD is the same one again: same place, same length, same request, same bytes to send.
    fn was(&self, td: &Td, dma: &dyn Dma) -> bool {
        let at = self.td.elements.get(self.start.index).map(|element| element.at);
        let same = self.fate == Fate::Open
            && !self.is_received()
            && at == Some(td.start())
            && self.td.length.saturating_sub(self.start.before) == td.length
            && (self.td.setup, self.td.inward) == (td.setup, td.inward);
        same && self.td.sent_out.as_ref().is_none_or(|(offset, sent)| {
            let offset = offset.saturating_sub(self.start.before);
            u32::try_from(sent.len())
                .is_ok_and(|length| td.copy_out(dma, offset, length).is_ok_and(|now| now == **sent))
        })
    }

    fn hand_over(self, td: &mut Td) {
        let before = self.start.before;
        td.done = self.td.done.saturating_sub(before);
        td.moved_before = moved_before(&self.td, self.start.index);
        // Its buffers may be others.
        td.pending = self
            .td
            .pending
            .map(|Pending { offset, data, .. }| Pending::new(offset.saturating_sub(before), data.0));
        td.sent_out = self.td.sent_out.map(|(offset, data)| (offset.saturating_sub(before), data));
        td.progress = self.td.progress;
    }

    /// What the device has sent and nobody has read, in packets of at most so many bytes: a shorter one ends it, even where
    /// it was asked for no more.
    fn late_data(&mut self, packet: u16) -> Option<Late> {
        let short = self.td.done < self.td.length || !self.td.done.is_multiple_of(packet.max(1).into());
        let ended = self.td.finished() == Some(CompletionCode::Success) && short;
        let data = self.td.pending.take().map_or_else(Redacted::default, |pending| pending.data);
        // Without bytes a zero-length packet is still an end.
        (ended || !data.is_empty()).then_some(Late { data, ended })
    }
}
