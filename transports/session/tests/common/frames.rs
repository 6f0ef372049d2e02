//! Chance that is the same for the same seed, and messages that tell where they belong.

use bytes::{Bytes, BytesMut};
use wire::{Lane, Message};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A message that tells who sent it, on which lane, as the how many-th; `size` bytes with a head of up to 40.
pub(crate) fn message(lane: Lane, number: u32, size: usize) -> Message {
    let mut bytes: Vec<u8> =
        (0..size).map(|i| (i as u32).wrapping_mul(number.wrapping_add(7)) as u8).collect();
    for (place, byte) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *place = byte;
    }
    let bytes = Bytes::from(bytes);
    let head = size.min(number as usize % 41);
    Message { lane, head: bytes.slice(..head), body: bytes.slice(head..) }
}

pub(crate) fn whole(message: &Message) -> Bytes {
    joined(message.clone())
}

/// A frame as the other end of a link gets it.
pub(crate) fn joined(frame: Message) -> Bytes {
    let mut bytes = BytesMut::from(&frame.head[..]);
    bytes.extend_from_slice(&frame.body);
    bytes.freeze()
}
