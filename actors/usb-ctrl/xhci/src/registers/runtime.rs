//! Runtime registers. xHCI 1.2 §5.5.
#![expect(unreachable_pub, reason = "what bitfield writes is pub inside crate-private types")]

use bitbybit::bitfield;

use super::Row;

/// The runtime registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Microframe Index. xHCI 1.2 §5.5.1.
    MfIndex,
    /// A register of this interrupter.
    Interrupter(u8, InterrupterRegister),
}

/// The registers of one interrupter. xHCI 1.2 §5.5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InterrupterRegister {
    /// Interrupter Management. xHCI 1.2 §5.5.2.1.
    Iman,
    /// Interrupter Moderation. xHCI 1.2 §5.5.2.2.
    Imod,
    /// Event Ring Segment Table Size. xHCI 1.2 §5.5.2.3.1.
    ErstSz,
    /// Event Ring Segment Table Base Address, lower half. xHCI 1.2 §5.5.2.3.2.
    ErstBaLow,
    /// Event Ring Segment Table Base Address, upper half.
    ErstBaHigh,
    /// Event Ring Dequeue Pointer, lower half. xHCI 1.2 §5.5.2.3.3.
    ErdpLow,
    /// Event Ring Dequeue Pointer, upper half.
    ErdpHigh,
}

impl Runtime {
    /// The register at this offset from the runtime base.
    pub(crate) fn at(offset: u64, interrupters: u8) -> Option<Self> {
        if offset == 0 {
            return Some(Self::MfIndex);
        }
        let offset = offset.checked_sub(0x20)?;
        let index = u8::try_from(offset / 0x20).ok().filter(|i| *i < interrupters)?;
        let register = match offset % 0x20 {
            0x00 => InterrupterRegister::Iman,
            0x04 => InterrupterRegister::Imod,
            0x08 => InterrupterRegister::ErstSz,
            0x10 => InterrupterRegister::ErstBaLow,
            0x14 => InterrupterRegister::ErstBaHigh,
            0x18 => InterrupterRegister::ErdpLow,
            0x1c => InterrupterRegister::ErdpHigh,
            _ => return None,
        };
        Some(Self::Interrupter(index, register))
    }
}

impl InterrupterRegister {
    /// What a guest may do to its bits; the moderation counter counts and is not in the row.
    pub(crate) fn row(self) -> Row {
        match self {
            Self::Iman => Row { reset: 0, rw: 2, rw1c: 1 },
            Self::Imod => Row { reset: 4000, rw: 0xffff, rw1c: 0 },
            Self::ErstSz => Row { reset: 0, rw: 0xffff, rw1c: 0 },
            Self::ErstBaLow => Row { reset: 0, rw: !0x3f, rw1c: 0 },
            Self::ErdpLow => Row { reset: 0, rw: !0x08, rw1c: 0x08 },
            Self::ErstBaHigh | Self::ErdpHigh => Row { reset: 0, rw: !0, rw1c: 0 },
        }
    }
}

/// Interrupter Management (IMAN). xHCI 1.2 §5.5.2.1.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Iman {
    /// Interrupt Pending (IP); cleared by itself when the message is sent.
    #[bit(0, rw)]
    pending: bool,
    /// Interrupt Enable (IE).
    #[bit(1, rw)]
    enable: bool,
}
