//! Event rings: segments, the producer's place, and what happens when there is no room. xHCI 1.2 §4.9.4.

use pci::{Dma, DmaError};

use crate::{
    registers::capability::MAX_EVENT_SEGMENTS,
    trb::{TRB_BYTES, event::Event},
};

/// The sizes a segment may have, TRBs. xHCI 1.2 §6.5.
const SEGMENT_TRBS: core::ops::RangeInclusive<u32> = 16..=4096;

/// One event ring as its producer sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventRing {
    /// ERSTSZ: entries of the segment table, 0 for a ring that is not in use.
    size: u16,
    /// ERSTBA.
    table: u64,
    /// ERDP without its low four bits: up to where the guest has read.
    dequeue: u64,
    /// The producer's place; none before the first event since the table was set.
    enqueue: Option<Place>,
    /// Where the producer was when the driver had the state saved.
    saved: Option<Place>,
    /// Whether the guest was told that the ring is full, since it last had room for everything.
    told_full: bool,
}

/// A place in the ring, and the cycle bit to write there.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u16,
    base: u64,
    trbs: u32,
    index: u32,
    cycle: bool,
}

impl Place {
    fn address(&self) -> u64 {
        self.base.wrapping_add(u64::from(self.index) * TRB_BYTES)
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It is in the ring.
    Written,
    /// There is no room for it; the guest was told so just now.
    NoRoomTold,
    /// There is no room for it.
    NoRoom,
}

/// Why an event ring cannot be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingError {
    /// Its memory is not there: a Host System Error.
    Memory,
    /// A segment's size is not allowed: a Host Controller Error.
    Segment,
}

impl From<DmaError> for RingError {
    fn from(_: DmaError) -> Self {
        Self::Memory
    }
}

impl EventRing {
    /// ERSTSZ was written.
    pub(crate) fn resize(&mut self, size: u16) {
        self.size = size;
    }

    /// ERSTBA was written: the ring starts at its first segment, with cycle state 1. xHCI 1.2 §4.9.4.
    pub(crate) fn arm(&mut self, table: u64) {
        self.table = table;
        self.enqueue = None;
        self.told_full = false;
    }

    /// The state is saved.
    pub(crate) fn save(&mut self) {
        self.saved = self.enqueue;
    }

    /// The state is restored, although ERSTBA was written since.
    pub(crate) fn restore(&mut self) {
        self.enqueue = self.saved.take();
    }

    /// ERDP was written.
    pub(crate) fn consumed_to(&mut self, dequeue: u64) {
        self.dequeue = dequeue;
    }

    /// Everything that was waiting has found room.
    pub(crate) fn all_posted(&mut self) {
        self.told_full = false;
    }

    /// ERSTSZ.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// ERSTBA.
    pub(crate) fn table(&self) -> u64 {
        self.table
    }

    /// Whether a guest has given it memory.
    pub(crate) fn armed(&self) -> bool {
        self.size != 0
    }

    /// Whether the guest has not read everything.
    pub(crate) fn has_unread(&self) -> bool {
        self.enqueue.is_some_and(|place| place.address() != self.dequeue)
    }

    /// Writes the event, or says why not. The last free place tells the guest that the ring is full, once.
    pub(crate) fn post(&mut self, dma: &dyn Dma, event: Event) -> Result<Posted, RingError> {
        if !self.armed() {
            return Ok(Posted::NoRoom);
        }
        let place = match self.enqueue {
            Some(place) => place,
            None => self.segment(dma, 0, true)?,
        };
        self.enqueue = Some(place);
        let next = self.next(dma, place)?;
        if next.address() == self.dequeue {
            return Ok(Posted::NoRoom);
        }
        let is_last = self.next(dma, next)?.address() == self.dequeue;
        let tell = is_last && !self.told_full;
        write(dma, place, if tell { Event::RingFull } else { event })?;
        self.enqueue = Some(next);
        self.told_full |= tell;
        Ok(if tell { Posted::NoRoomTold } else { Posted::Written })
    }

    fn next(&self, dma: &dyn Dma, place: Place) -> Result<Place, RingError> {
        let index = place.index + 1;
        if index < place.trbs {
            return Ok(Place { index, ..place });
        }
        let segment = place.segment + 1;
        let (segment, wraps) =
            if segment < self.size.min(MAX_EVENT_SEGMENTS) { (segment, false) } else { (0, true) };
        self.segment(dma, segment, place.cycle != wraps)
    }

    /// The start of a segment, as its table entry says now. xHCI 1.2 §6.5.
    fn segment(&self, dma: &dyn Dma, segment: u16, cycle: bool) -> Result<Place, RingError> {
        let mut entry = [0; 12];
        dma.read(self.table.wrapping_add(u64::from(segment) * 16), &mut entry)?;
        let [b0, b1, b2, b3, b4, b5, b6, b7, s0, s1, ..] = entry;
        let base = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]) & !0x3f;
        let trbs = u32::from(u16::from_le_bytes([s0, s1]));
        if !SEGMENT_TRBS.contains(&trbs) {
            return Err(RingError::Segment);
        }
        Ok(Place { segment, base, trbs, index: 0, cycle })
    }
}

fn write(dma: &dyn Dma, place: Place, event: Event) -> Result<(), DmaError> {
    let raw = event.encode(place.cycle);
    dma.write(place.address(), &raw.body())?;
    dma.publish(place.address().wrapping_add(12), raw.control)
}
