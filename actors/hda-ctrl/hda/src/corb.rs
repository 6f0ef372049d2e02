//! The Command Outbound Ring Buffer: commands from memory. HDA 1.0a §3.3.18 to §3.3.24, §4.4.1.

use pci::Dma;

use crate::registers::{CorbControl, CorbReadPointer, CorbStatus};

/// The ring of 256 commands of 4 bytes, and its registers.
#[derive(Debug)]
pub(crate) struct Corb {
    pub(crate) base: u64,
    /// The last command that software has written.
    pub(crate) write: u8,
    pub(crate) read: CorbReadPointer,
    pub(crate) control: CorbControl,
    pub(crate) status: CorbStatus,
}

impl Default for Corb {
    fn default() -> Self {
        Self {
            base: 0,
            write: 0,
            read: CorbReadPointer::DEFAULT,
            control: CorbControl::DEFAULT,
            status: CorbStatus::DEFAULT,
        }
    }
}

impl Corb {
    /// Writes CORBRP. Its reset bit stays until software clears it: drivers wait for both. HDA 1.0a §4.4.1.3.
    pub(crate) fn set_read(&mut self, value: CorbReadPointer) {
        let index = if value.reset() { 0 } else { self.read.index() };
        self.read = CorbReadPointer::DEFAULT.with_index(index).with_reset(value.reset());
    }

    /// Fetches the next command, if there is one. Memory that is not there stops the ring (CMEI).
    pub(crate) fn fetch(&mut self, dma: &dyn Dma) -> Option<u32> {
        let idle = !self.control.run() || self.read.reset() || self.read.index() == self.write;
        if idle || self.status.memory_error() {
            return None;
        }
        let index = self.read.index().wrapping_add(1);
        match dma.observe(self.base.wrapping_add(4 * u64::from(index))) {
            Ok(command) => {
                self.read = self.read.with_index(index);
                Some(command)
            }
            Err(error) => {
                tracing::debug!(%error, "CORB cannot be read");
                self.status = self.status.with_memory_error(true);
                None
            }
        }
    }

    /// Whether an interrupt is asked for.
    pub(crate) fn interrupting(&self) -> bool {
        self.control.error_interrupt() && self.status.memory_error()
    }
}
