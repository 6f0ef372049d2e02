//! Frames that overtook others, until those come.

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::Lane;

use crate::{ProtocolError, frame::frame_cost};

/// The most frames that wait; more are dropped, and come again.
const MAX_FRAMES: usize = 1024;

/// A chunk as it came.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) chunk: Bytes,
}

impl Piece {
    pub(crate) fn cost(&self) -> u64 {
        frame_cost(self.chunk.len())
    }
}

/// What came of one lane before its turn, by offset. What waits does not overlap, so that it fits the window.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    waiting: BTreeMap<u64, Piece>,
}

impl Reorder {
    /// Takes a frame. False if it was dropped: it is there, or there are too many.
    pub(crate) fn insert(&mut self, lane: Lane, seq: u64, piece: Piece) -> Result<bool, ProtocolError> {
        if self.waiting.contains_key(&seq) || self.waiting.len() >= MAX_FRAMES {
            return Ok(false);
        }
        let end = seq.saturating_add(piece.cost());
        let before = self.waiting.range(..seq).next_back().map_or(0, |(at, piece)| at + piece.cost());
        if before > seq {
            return Err(ProtocolError::Sequence { lane, expected: before, found: seq });
        }
        if let Some((after, _)) = self.waiting.range(seq..end).next() {
            return Err(ProtocolError::Sequence { lane, expected: *after, found: end });
        }
        self.waiting.insert(seq, piece);
        Ok(true)
    }

    /// The frame at this offset.
    pub(crate) fn pop(&mut self, lane: Lane, next: u64) -> Result<Option<Piece>, ProtocolError> {
        let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= next) else {
            return Ok(None);
        };
        match *first.key() {
            seq if seq == next => Ok(Some(first.remove())),
            found => Err(ProtocolError::Sequence { lane, expected: next, found }),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}
