//! The register space behind BAR 0: addresses become names here, once. xHCI 1.2 §5.
//!
//! ```text
//!   0x0000  capability     0x0800  extended capabilities   0x2000  doorbells
//!   0x0040  operational    0x1000  runtime                 0x3000  MSI-X table, 0x3800 pending bits (the bus's)
//!   0x0440  ports
//! ```
//!
//! Doorbells have a 4 KiB page of their own, so that they can be given to an ioeventfd one day. All registers are
//! dwords here; wider and narrower accesses are put together by [`crate::Xhci`].

pub(crate) mod capability;
pub(crate) mod operational;
pub(crate) mod port;
pub(crate) mod runtime;

use pci::Width;

use self::{operational::Operational, port::PortRegister, runtime::Runtime};

/// The size of BAR 0, bytes.
pub(crate) const BAR_BYTES: u64 = 0x1_0000;
/// Where the operational registers start (CAPLENGTH).
pub(crate) const OPERATIONAL: u64 = 0x40;
/// Where the port register sets start.
pub(crate) const PORTS: u64 = OPERATIONAL + 0x400;
/// Where the extended capabilities start (xECP).
pub(crate) const EXTENDED: u64 = 0x800;
/// Where the runtime registers start (RTSOFF).
pub(crate) const RUNTIME: u64 = 0x1000;
/// Where the doorbells start (DBOFF).
pub(crate) const DOORBELLS: u64 = 0x2000;
/// Where the MSI-X table starts, in its own page.
pub(crate) const MSIX_TABLE: u32 = 0x3000;
/// Where the MSI-X pending bits start.
pub(crate) const MSIX_PENDING: u32 = 0x3800;

/// A dword register by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// Capability registers and extended capabilities: constants.
    Constant(u32),
    /// Operational registers.
    Operational(Operational),
    /// A port's registers; the index counts from 0.
    Port(u8, PortRegister),
    /// Runtime registers.
    Runtime(Runtime),
    /// The doorbell of a slot, 0 for the command ring.
    Doorbell(u8),
}

impl Register {
    /// The register at a dword aligned offset into BAR 0, if there is one.
    pub(crate) fn at(offset: u64, shape: &capability::Shape) -> Option<Self> {
        match offset {
            0..OPERATIONAL => shape.capability(offset).map(Self::Constant),
            OPERATIONAL..PORTS => Operational::at(offset - OPERATIONAL).map(Self::Operational),
            PORTS..EXTENDED => {
                let index = u8::try_from((offset - PORTS) / 0x10).ok().filter(|i| *i < shape.ports())?;
                PortRegister::at((offset - PORTS) % 0x10).map(|register| Self::Port(index, register))
            }
            EXTENDED..RUNTIME => shape.extended(offset - EXTENDED).map(Self::Constant),
            RUNTIME..DOORBELLS => Runtime::at(offset - RUNTIME, shape.interrupters).map(Self::Runtime),
            _ => {
                let index = u8::try_from((offset - DOORBELLS) / 4).ok()?;
                (index <= shape.slots).then_some(Self::Doorbell(index))
            }
        }
    }
}

/// What a guest may do to the bits of one dword register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The value after a reset.
    pub(crate) reset: u32,
    /// Bits that keep what is written.
    pub(crate) rw: u32,
    /// Bits that writing 1 clears.
    pub(crate) rw1c: u32,
}

impl Row {
    /// The new value of plain storage and change bits; bits with effects of their own are not in a row.
    pub(crate) fn apply(self, old: u32, write: Write) -> u32 {
        let stored = self.rw & write.mask;
        let cleared = self.rw1c & write.bits();
        ((old & !stored) | (write.value & stored)) & !cleared
    }
}

/// A write to a dword register of which only some bytes may be enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    /// The value.
    pub(crate) value: u32,
    /// The bits that are written at all.
    pub(crate) mask: u32,
}

impl Write {
    /// The bits written as 1.
    pub(crate) fn bits(self) -> u32 {
        self.value & self.mask
    }

    /// The half of a 64-bit register after this write.
    pub(crate) fn into_low(self, old: u64) -> u64 {
        let low = (old as u32 & !self.mask) | self.bits();
        (old & !0xffff_ffff) | u64::from(low)
    }

    /// The same for the upper half.
    pub(crate) fn into_high(self, old: u64) -> u64 {
        (u64::from(((old >> 32) as u32 & !self.mask) | self.bits()) << 32) | (old & 0xffff_ffff)
    }
}

/// The dwords that an aligned access of this width touches: offset of the dword, shift of the access's bits in it.
pub(crate) fn dwords(offset: u64, width: Width) -> impl Iterator<Item = (u64, u32)> {
    let first = offset & !3;
    let count = if width == Width::Qword { 2 } else { 1 };
    (0..count).map(move |i| (first + 4 * i, if i == 0 { (offset & 3) as u32 * 8 } else { 0 }))
}

/// Reads an aligned access of any width out of dwords.
pub(crate) fn read(offset: u64, width: Width, dword: impl Fn(u64) -> u32) -> u64 {
    let value = dwords(offset, width)
        .enumerate()
        .fold(0, |value, (i, (offset, shift))| value | (u64::from(dword(offset)) << (32 * i) >> shift));
    value & width.mask()
}

/// The dword writes that an aligned access of any width is made of, lower first.
pub(crate) fn writes(offset: u64, width: Width, value: u64) -> impl Iterator<Item = (u64, Write)> {
    let (value, mask) = (value & width.mask(), width.mask());
    dwords(offset, width).enumerate().map(move |(i, (offset, shift))| {
        let dword = |bits: u64| (bits >> (32 * i) << shift) as u32;
        (offset, Write { value: dword(value), mask: dword(mask) })
    })
}

/// What a controller without a model answers: the registers are there, and it has failed.
pub(crate) fn failed(offset: u64) -> u32 {
    let status = operational::UsbSts::DEFAULT.with_controller_error(true);
    match offset {
        0 => capability::VERSION << 16 | OPERATIONAL as u32,
        _ if offset == OPERATIONAL + 4 => status.raw_value(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
