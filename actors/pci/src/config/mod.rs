//! Configuration space: bytes, and for each byte which bits a guest may change. PCI 3.0 §6.

mod builder;
mod registers;

pub use builder::{Builder, Identity, MsixPlace};
pub use registers::{Command, MsiControl, MsixControl, PowerControl, PowerState, Status};

use crate::Layout;

/// The bytes of a function's configuration space, PCIe's extended space included.
pub const CONFIG_BYTES: usize = 4096;

/// A function's configuration space: plain storage under a write mask, as drivers and firmware expect to find it.
///
/// Nothing happens here by itself. BAR sizing works because the address bits below a BAR's size cannot be written
/// (PCI 3.0 §6.2.5.1); MSI enable, the power state and interrupt line are stored for whoever asks.
///
/// Not done: expansion ROM, IO BARs, D1 and D2, vital product data. The power state does not gate anything.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: Vec<Byte>,
    layout: Layout,
    msi: Option<u8>,
    msix: Option<(u8, MsixPlace)>,
}

/// One byte and its rules.
#[derive(Debug, Clone, Copy, Default)]
struct Byte {
    value: u8,
    reset: u8,
    writable: u8,
    write_1_to_clear: u8,
}

impl ConfigSpace {
    /// Starts a configuration space with a type 0 header, no BARs and no capabilities.
    #[must_use]
    pub fn builder(identity: Identity) -> Builder {
        Builder::new(identity)
    }

    /// Reads bytes; what lies outside reads 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(bytes) = usize::try_from(offset).ok().and_then(|start| self.bytes.get(start..)) else {
            return;
        };
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from.value;
        }
    }

    /// Writes bytes under their masks; what lies outside is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(bytes) = usize::try_from(offset).ok().and_then(|start| self.bytes.get_mut(start..)) else {
            return;
        };
        for (to, from) in bytes.iter_mut().zip(data) {
            let kept = to.value & !to.writable & !(from & to.write_1_to_clear);
            to.value = kept | (from & to.writable);
        }
    }

    /// Everything to its default.
    pub fn reset(&mut self) {
        for byte in &mut self.bytes {
            byte.value = byte.reset;
        }
    }

    /// What a bus must know in advance.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The Command register. PCI 3.0 §6.2.2.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new_with_raw_value(self.word(Command::OFFSET))
    }

    /// Whether the function may master the bus (Command.BME).
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command().bus_master()
    }

    /// How many MSI vectors the guest has granted, 0 while MSI is disabled. A function folds its vectors into
    /// these. PCI 3.0 §6.8.1.3.
    #[must_use]
    pub fn msi_vectors(&self) -> u16 {
        let Some(at) = self.msi else { return 0 };
        let control = MsiControl::new_with_raw_value(self.word(at + 2));
        if !control.enable() {
            return 0;
        }
        (1 << control.multiple_message_enable().value().min(5)).min(self.layout.msi)
    }

    /// Whether MSI-X is enabled and not masked as a whole. PCI 3.0 §6.8.2.3.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        let Some((at, _)) = self.msix else { return false };
        let control = MsixControl::new_with_raw_value(self.word(at + 2));
        control.enable() && !control.function_mask()
    }

    /// Something is pending that interrupts by the pin, or nothing is; whether the pin may be driven with it: not while
    /// Command forbids it or messages are enabled. PCI 3.0 §6.2.2, §6.2.3, §6.8.1.3.
    pub(crate) fn interrupt_pin(&mut self, pending: bool) -> bool {
        let pending = pending && self.layout.intx;
        let status = Status::new_with_raw_value(self.word(Status::OFFSET)).with_interrupt_status(pending);
        if let [low, ..] = status.raw_value().to_le_bytes()
            && let Some(byte) = self.bytes.get_mut(usize::from(Status::OFFSET))
        {
            byte.value = low;
        }
        let messages = self.msi_vectors() > 0 || self.msix_enabled();
        pending && !self.command().interrupt_disable() && !messages
    }

    /// Where the MSI-X table and pending bits lie, if there are any.
    pub(crate) fn msix_place(&self) -> Option<MsixPlace> {
        self.msix.map(|(_, place)| place)
    }

    fn word(&self, at: u8) -> u16 {
        let mut word = [0; 2];
        self.read(at.into(), &mut word);
        u16::from_le_bytes(word)
    }
}

#[cfg(test)]
mod tests;
