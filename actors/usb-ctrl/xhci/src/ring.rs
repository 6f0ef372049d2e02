//! Walking transfer and command rings. xHCI 1.2 §4.9.2, §4.9.3, §4.11.5.1.

use pci::{Dma, DmaError};

use crate::{
    budget::Budget,
    trb::{RawTrb, TRB_BYTES, TrbType},
};

/// Link TRBs in a row, with nothing between them, that make a ring a trap.
const MAX_LINKS: u32 = 32;

/// A place on a ring, and the cycle bit that a valid TRB has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RingPointer {
    /// The guest address of a TRB.
    pub(crate) at: u64,
    /// The consumer cycle state.
    pub(crate) cycle: bool,
}

impl RingPointer {
    /// The pointer in the encoding of contexts and commands: cycle state in bit 0. xHCI 1.2 §6.2.3.
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self { at: raw & !0xf, cycle: raw & 1 != 0 }
    }

    /// The same encoding.
    pub(crate) fn to_raw(self) -> u64 {
        self.at & !0xf | u64::from(self.cycle)
    }

    /// The TRB behind this one in the same segment.
    pub(crate) fn next(self) -> Self {
        Self { at: self.at.wrapping_add(TRB_BYTES), ..self }
    }
}

/// What was found on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// A valid TRB that is not a Link, and where it is.
    Trb(RingPointer, RawTrb),
    /// A Link without the chain bit was followed, and the caller wanted to know.
    ChainEnd,
    /// Nothing more yet.
    Empty,
    /// Too much for one call.
    OutOfBudget,
    /// Links that lead nowhere, from this one on.
    Endless(RingPointer),
    /// There is no memory at this TRB.
    Fault(RingPointer),
}

/// Takes the next TRB off a ring and moves the pointer behind it; Links are followed on the way.
///
/// With `in_chain`, a Link whose chain bit is 0 ends the TD before it: [`Fetched::ChainEnd`].
/// The budget pays for every TRB, Links too.
pub(crate) fn fetch(
    pointer: &mut RingPointer,
    dma: &dyn Dma,
    budget: &mut Budget,
    in_chain: bool,
) -> Fetched {
    let first = *pointer;
    for _ in 0..=MAX_LINKS {
        if !budget.take_trb() {
            return Fetched::OutOfBudget;
        }
        let here = *pointer;
        let raw = match observe(here, dma) {
            Ok(Some(raw)) => raw,
            Ok(None) => return Fetched::Empty,
            Err(_) => return Fetched::Fault(here),
        };
        if raw.kind() != Ok(TrbType::Link) {
            *pointer = here.next();
            return Fetched::Trb(here, raw);
        }
        let control = raw.fields();
        *pointer = RingPointer { at: raw.parameter & !0xf, cycle: here.cycle != control.toggle_cycle() };
        if in_chain && !control.chain() {
            return Fetched::ChainEnd;
        }
    }
    Fetched::Endless(first)
}

/// Copies the TRB if its cycle bit says that it is the consumer's.
fn observe(pointer: RingPointer, dma: &dyn Dma) -> Result<Option<RawTrb>, DmaError> {
    let control = dma.observe(pointer.at.wrapping_add(12))?;
    if (control & 1 != 0) != pointer.cycle {
        return Ok(None);
    }
    let mut body = [0; 12];
    dma.read(pointer.at, &mut body)?;
    Ok(Some(RawTrb::from_parts(body, control)))
}
