//! The Response Inbound Ring Buffer: answers into memory. HDA 1.0a §3.3.25 to §3.3.31, §4.4.2.

use pci::Dma;

use crate::registers::{RirbControl, RirbStatus, RirbWritePointer};

/// The ring of 256 responses of 8 bytes, and its registers.
#[derive(Debug)]
pub(crate) struct Rirb {
    pub(crate) base: u64,
    pub(crate) write: u8,
    /// Responses per interrupt (RINTCNT); 0 means 256.
    pub(crate) interrupt_every: u8,
    pub(crate) control: RirbControl,
    pub(crate) status: RirbStatus,
    /// Responses since the last interrupt.
    untold: u16,
}

/// A codec's answer, or what it says of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) codec: u8,
    pub(crate) value: u32,
    /// It answers a command.
    pub(crate) solicited: bool,
}

impl Default for Rirb {
    fn default() -> Self {
        Self {
            base: 0,
            write: 0,
            interrupt_every: 0,
            control: RirbControl::DEFAULT,
            status: RirbStatus::DEFAULT,
            untold: 0,
        }
    }
}

impl Rirb {
    /// Writes RIRBWP: only its reset bit does anything, and it is never read as set.
    pub(crate) fn set_write(&mut self, value: RirbWritePointer) {
        if value.reset() {
            (self.write, self.untold) = (0, 0);
        }
    }

    /// Stores a response: the entry first, then the pointer (HDA 1.0a §3.6.2). What cannot be stored is dropped (RIRBOIS).
    pub(crate) fn store(&mut self, dma: &dyn Dma, response: Response) {
        let Response { codec, value, solicited } = response;
        let index = self.write.wrapping_add(1);
        let address = self.base.wrapping_add(8 * u64::from(index));
        let extended = u64::from(codec) | u64::from(!solicited) << 4;
        let entry = extended << 32 | u64::from(value);
        if !self.control.run() || dma.write(address, &entry.to_le_bytes()).is_err() {
            self.status = self.status.with_overrun(true);
            return;
        }
        self.write = index;
        self.untold += 1;
        let every = if self.interrupt_every == 0 { 256 } else { u16::from(self.interrupt_every) };
        if self.untold >= every {
            self.tell();
        }
    }

    /// No more commands wait: what was answered is told. HDA 1.0a §4.4.2.3.
    pub(crate) fn drained(&mut self) {
        if self.untold > 0 {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.untold = 0;
        self.status = self.status.with_response(true);
    }

    /// Whether an interrupt is asked for.
    pub(crate) fn interrupting(&self) -> bool {
        let Self { control, status, .. } = self;
        (control.response_interrupt() && status.response())
            || (control.overrun_interrupt() && status.overrun())
    }
}
