//! One row of a table of registers, and how an access falls apart into registers.

use pci::Width;

/// A register: where it lies, and what reading and writing do to its bits. Bits in no mask are read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<R> {
    /// Which one.
    pub(crate) register: R,
    /// Its first byte.
    pub(crate) offset: u16,
    /// Its size in bytes, 1 to 4.
    pub(crate) bytes: u16,
    /// Its value after a reset.
    pub(crate) reset: u32,
    /// Bits that keep what is written.
    pub(crate) writable: u32,
    /// Bits that writing 1 clears.
    pub(crate) clears: u32,
}

impl<R: Copy> Row<R> {
    pub(crate) const fn new(
        register: R,
        offset: u16,
        bytes: u16,
        reset: u32,
        writable: u32,
        clears: u32,
    ) -> Self {
        Self { register, offset, bytes, reset, writable, clears }
    }

    pub(crate) fn covers(&self, offset: u16) -> bool {
        (self.offset..self.offset + self.bytes).contains(&offset)
    }

    /// The same rules for another name.
    pub(crate) fn map<S: Copy>(self, name: impl FnOnce(R) -> S) -> Row<S> {
        let Self { register, offset, bytes, reset, writable, clears } = self;
        Row { register: name(register), offset, bytes, reset, writable, clears }
    }

    /// The same register further up.
    pub(crate) fn moved(self, by: u16) -> Self {
        Self { offset: self.offset + by, ..self }
    }

    /// What a write of `value` in the byte lanes `lanes` makes of `old`.
    pub(crate) fn written(&self, old: u32, value: u32, lanes: u32) -> u32 {
        let stored = (old & !(self.writable & lanes)) | (value & self.writable & lanes);
        stored & !(value & self.clears & lanes)
    }
}

/// The part of an access that falls into one register.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<R> {
    /// The register.
    pub(crate) row: Row<R>,
    /// Where the register's bit 0 lies in the access: negative if the access begins inside the register.
    shift: i32,
    /// The register's bits that the access covers.
    pub(crate) lanes: u32,
}

impl<R: Copy> Piece<R> {
    /// A register's value at its place in the access.
    pub(crate) fn placed(&self, value: u32) -> u64 {
        let value = u64::from(value & self.lanes);
        if self.shift < 0 { value >> -self.shift } else { value << self.shift }
    }

    /// The register's part of an access's value.
    pub(crate) fn taken(&self, value: u64) -> u32 {
        let value = if self.shift < 0 { value << -self.shift } else { value >> self.shift };
        value as u32 & self.lanes
    }
}

/// Cuts an access into the registers that it touches, in the order of their offsets.
pub(crate) fn pieces<R: Copy>(
    offset: u64,
    width: Width,
    at: impl Fn(u64) -> Option<Row<R>>,
) -> impl Iterator<Item = Piece<R>> {
    let end = offset.saturating_add(width.bytes() as u64);
    let mut next = offset;
    core::iter::from_fn(move || {
        while next < end {
            let Some(row) = at(next) else {
                next += 1;
                continue;
            };
            let start = u64::from(row.offset);
            let stop = (start + u64::from(row.bytes)).min(end);
            let (from, to) = (8 * (next - start), 8 * (stop - start));
            let lanes = ((1u64 << to) - (1u64 << from)) as u32;
            // Both lie within an access of 8 bytes around the register.
            let shift = 8 * (start as i32 - offset as i32);
            next = stop;
            return Some(Piece { row, shift, lanes });
        }
        None
    })
}
