//! Cutting an access of any size into accesses that a register file understands.

use crate::Width;

/// The naturally aligned pieces of `length` bytes at `offset`, widest possible, in rising order.
pub(super) fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, Width)> {
    let mut at = offset;
    let mut left = length;
    core::iter::from_fn(move || {
        let width = [Width::Qword, Width::Dword, Width::Word, Width::Byte]
            .into_iter()
            .find(|width| width.bytes() <= left && at.is_multiple_of(width.bytes() as u64))?;
        let piece = (at, width);
        at = at.checked_add(width.bytes() as u64).unwrap_or_else(|| {
            left = width.bytes();
            at
        });
        left -= width.bytes();
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(offset: u64, length: usize) -> Vec<(u64, usize)> {
        pieces(offset, length).map(|(at, width)| (at, width.bytes())).collect()
    }

    #[test]
    fn pieces_are_naturally_aligned_and_as_wide_as_can_be() {
        assert_eq!(list(0, 0), []);
        assert_eq!(list(8, 8), [(8, 8)]);
        assert_eq!(list(4, 8), [(4, 4), (8, 4)]);
        assert_eq!(list(1, 7), [(1, 1), (2, 2), (4, 4)]);
        assert_eq!(list(3, 14), [(3, 1), (4, 4), (8, 8), (16, 1)]);
        assert_eq!(list(u64::MAX, 4), [(u64::MAX, 1)], "nothing wraps");
    }
}
