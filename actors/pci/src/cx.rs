//! What a model is given: time, guest memory, and a place for its effects.

use core::time::Duration;

use crate::Dma;

/// The whole world of a model for the length of one call. Nothing else can be reached.
pub struct Cx<'a, O> {
    /// Now: time since an arbitrary start, never going back.
    pub now: Duration,
    /// Guest memory. Fails while Command.BME is 0.
    pub dma: &'a dyn Dma,
    /// Where effects go, in order.
    pub out: &'a mut Vec<O>,
}

impl<O> Cx<'_, O> {
    /// Adds an effect.
    pub fn emit(&mut self, output: O) {
        self.out.push(output);
    }
}

/// The width of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes.
    Qword = 8,
}

impl Width {
    /// The width of this many bytes, if it is one.
    #[must_use]
    pub fn from_bytes(bytes: usize) -> Option<Self> {
        Some(match bytes {
            1 => Self::Byte,
            2 => Self::Word,
            4 => Self::Dword,
            8 => Self::Qword,
            _ => return None,
        })
    }

    /// The number of bytes, 1 to 8.
    #[must_use]
    pub fn bytes(self) -> usize {
        self as usize
    }

    /// The mask of the bits that an access of this width moves.
    #[must_use]
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes() as u32)
    }
}

/// A PCI function's registers behind BAR 0 and everything behind them.
///
/// Accesses are naturally aligned and inside the BAR; the caller ([`crate::Device`]) splits what is not.
/// No call may panic on anything a guest does, loop without bound, or wait. (If one does panic all the same,
/// [`crate::Device`] catches it and answers with [`Model::read_failed`] until the model is rebuilt.)
pub trait Model {
    /// The effects that the model asks its owner to carry out.
    type Output;

    /// Reads a register. Unknown offsets read 0.
    fn read(&mut self, cx: &mut Cx<'_, Self::Output>, offset: u64, width: Width) -> u64;

    /// Writes a register. Unknown offsets are ignored.
    fn write(&mut self, cx: &mut Cx<'_, Self::Output>, offset: u64, width: Width, value: u64);

    /// The function is reset (PCI reset, VM reset, new client): everything to its defaults.
    fn reset(&mut self, cx: &mut Cx<'_, Self::Output>);

    /// Time has come: called at or after [`Self::deadline`], also for work put off by a budget. Calling it early or
    /// twice does no harm.
    fn tick(&mut self, cx: &mut Cx<'_, Self::Output>);

    /// When [`Self::tick`] wants to be called, if at all. A time that has passed means at once.
    fn deadline(&self) -> Option<Duration>;

    /// Whether anything is pending that interrupts by the pin, if the function has one. PCI 3.0 §2.2.6.
    fn interrupt_line(&self) -> bool {
        false
    }

    /// What a register reads as while there is no working model: the answer of a failed device
    /// (xHCI: USBSTS with HCE and HCHalted; HDA: in reset).
    fn read_failed(offset: u64, width: Width) -> u64;
}
