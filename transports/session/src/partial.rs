//! A message in the making: its pieces, put together once.

use bytes::{BufMut, Bytes, BytesMut};

/// A piece of less is copied behind the one before it: kept by itself it would take more than its bytes.
const SMALL: usize = 4 * 1024;

/// The pieces of a message that have come.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    pieces: Vec<Bytes>,
    /// Small pieces behind them.
    tail: BytesMut,
    len: usize,
}

impl Partial {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < SMALL {
            self.tail.extend_from_slice(&piece);
            return;
        }
        self.settle();
        self.pieces.push(piece);
    }

    fn settle(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    /// The whole message, in one piece.
    pub(crate) fn join(mut self) -> Bytes {
        self.settle();
        match &mut self.pieces[..] {
            [only] => std::mem::take(only),
            pieces => {
                let mut whole = BytesMut::with_capacity(self.len);
                pieces.iter().for_each(|piece| whole.put_slice(piece));
                whole.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_message() {
        for sizes in
            [&[][..], &[1], &[SMALL], &[1, 2, 3], &[SMALL, 1], &[1, SMALL, 2, 0, SMALL - 1, SMALL + 1, 5]]
        {
            let (mut partial, mut whole) = (Partial::default(), Vec::new());
            for (at, size) in sizes.iter().enumerate() {
                let piece = vec![at as u8; *size];
                whole.extend_from_slice(&piece);
                partial.push(piece.into());
                assert_eq!(partial.len(), whole.len());
            }
            assert_eq!(partial.join(), whole, "{sizes:?}");
        }
    }

    #[test]
    fn small_pieces_share_memory() {
        let mut partial = Partial::default();
        (0..100_000).for_each(|_| partial.push(Bytes::from_static(b"x")));
        assert!(partial.pieces.is_empty() && partial.tail.capacity() < 300_000);
    }
}
