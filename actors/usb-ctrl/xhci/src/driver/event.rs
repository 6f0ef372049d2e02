//! The event ring as the driver reads it.

use super::Host;

/// An event. xHCI 1.2 §6.4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its TRB type: 32 transfer, 33 command completion, 34 port status change, 37 host controller, 39 wrap.
    pub kind: u8,
    /// The TRB it is about, or the value of an Event Data TRB, or its first eight bytes.
    pub pointer: u64,
    /// The completion code.
    pub code: u8,
    /// Transfer events: bytes that did not move; with `event_data`, bytes that did.
    pub length: u32,
    /// The slot.
    pub slot: u8,
    /// The device context index of the endpoint.
    pub endpoint: u8,
    /// The pointer is the value of an Event Data TRB.
    pub event_data: bool,
}

impl Event {
    fn from_bytes(bytes: [u8; 16]) -> Self {
        let word = u128::from_le_bytes(bytes);
        let status = (word >> 64) as u32;
        let control = (word >> 96) as u32;
        Self {
            kind: (control >> 10 & 0x3f) as u8,
            pointer: word as u64,
            code: (status >> 24) as u8,
            length: status & 0xff_ffff,
            slot: (control >> 24) as u8,
            endpoint: (control >> 16 & 0x1f) as u8,
            event_data: control & 4 != 0,
        }
    }

    /// Whether it is a Transfer Event.
    #[must_use]
    pub fn is_transfer(&self) -> bool {
        self.kind == 32
    }

    /// Whether it is a Command Completion Event.
    #[must_use]
    pub fn is_command(&self) -> bool {
        self.kind == 33
    }

    /// The port of a Port Status Change Event, counted from 1.
    #[must_use]
    pub fn port(&self) -> Option<u8> {
        (self.kind == 34).then_some((self.pointer >> 24) as u8)
    }
}

/// A consumer of an event ring of one segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventReader {
    base: u64,
    trbs: u16,
    index: u16,
    cycle: bool,
}

impl EventReader {
    pub(super) fn new(base: u64, trbs: u16) -> Self {
        Self { base, trbs, index: 0, cycle: true }
    }

    pub(super) fn dequeue(&self) -> u64 {
        self.base + 16 * u64::from(self.index)
    }

    pub(super) fn next(&mut self, host: &mut impl Host) -> Option<Event> {
        let mut bytes = [0; 16];
        host.load(self.dequeue(), &mut bytes);
        let cycle = u128::from_le_bytes(bytes) >> 96 & 1 != 0;
        if cycle != self.cycle {
            return None;
        }
        self.index += 1;
        if self.index == self.trbs {
            self.index = 0;
            self.cycle = !self.cycle;
        }
        Some(Event::from_bytes(bytes))
    }
}
