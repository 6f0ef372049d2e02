//! Where an endpoint goes on after a stop, or a soft retry. xHCI 1.2 §4.6.8.1, §4.6.9.

use crate::transfer::{
    retire::moved_before,
    td::{Position, Td},
};

/// Where a TD goes on that has moved bytes before it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    /// The TRB it stands in.
    pub(crate) at: u64,
    /// That TRB's length.
    pub(crate) length: u32,
    /// Bytes moved in it.
    pub(crate) offset: u32,
    /// Bytes moved in the TRBs before it, since the last Event Data TRB.
    pub(crate) before: u32,
}

impl Resume {
    /// The place where this TD stands; none if it would start over anyway.
    pub(crate) fn at(td: &Td, position: Position) -> Option<Self> {
        let before = moved_before(td, position.index);
        let element = td.elements.get(position.index)?;
        let length = element.piece()?.length;
        let moved = position.offset > 0 || before > 0;
        (moved && td.setup.is_none()).then_some(Self {
            at: element.at.at,
            length,
            offset: position.offset,
            before,
        })
    }
}
