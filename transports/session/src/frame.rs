//! The header in front of every frame.

use wire::Lane;

use crate::{ProtocolError, config::Role};

/// The length of the header of a frame, bytes.
pub const HEADER_LEN: usize = 32;

/// What a frame with a chunk of `len` bytes adds to the offset of its lane.
pub(crate) fn frame_cost(len: usize) -> u64 {
    (HEADER_LEN + len) as u64
}

const FIRST: u8 = 1 << 0;
const LAST: u8 = 1 << 1;
const FROM_HOST: u8 = 1 << 2;
const ASKS: u8 = 1 << 3;

/// What a frame is. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A chunk of a message. `seq` is its offset.
    Data = 1,
    /// `ack` and `limit` only. `seq` is zero.
    Status = 2,
    /// Asks for a pong with the same `seq`. CTL only.
    Ping = 3,
    /// Answers a ping. CTL only.
    Pong = 4,
    /// The session ends; the bytes are a reason for people. CTL only.
    Close = 5,
    /// As a status, where frames may be lost or overtake each other, or who sends has asked: `seq` is the offset up to
    /// which all have come.
    Received = 6,
    /// The remote wants a new session; the bytes are the versions it speaks. The first frame of a link, CTL only.
    Hello = 16,
    /// Answers a hello; the bytes are the version, and the session's id and secret. CTL only.
    Welcome = 17,
    /// The session goes on here in this epoch; the bytes are a [`crate::claim::Claim`]. The first frame of a link,
    /// CTL only.
    Attach = 18,
    /// Answers an attach, with the same epoch and bytes of the same form. CTL only.
    Attached = 19,
    /// Answers a hello or an attach: there is no such session, for the reason in the one byte. CTL only.
    Reset = 20,
    /// The session goes on elsewhere: nothing more comes here. CTL only.
    Detach = 21,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Data,
        Self::Status,
        Self::Ping,
        Self::Pong,
        Self::Close,
        Self::Received,
        Self::Hello,
        Self::Welcome,
        Self::Attach,
        Self::Attached,
        Self::Reset,
        Self::Detach,
    ];

    /// Whether it gets a session onto a link, or off it.
    pub(crate) fn moves(self) -> bool {
        self as u8 >= Self::Hello as u8
    }

    fn from_wire(kind: u8) -> Result<Self, ProtocolError> {
        Self::ALL.into_iter().find(|known| *known as u8 == kind).ok_or(ProtocolError::Kind(kind))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// Asks for a [`Kind::Received`] at once. Chunks of reliable lanes only.
    pub(crate) asks: bool,
    pub(crate) from: Role,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    pub(crate) ack: u64,
    pub(crate) limit: u64,
}

impl Header {
    /// The header of a frame that says nothing but its kind.
    pub(crate) fn bare(kind: Kind, from: Role, epoch: u32) -> Self {
        Self { kind, first: false, last: false, asks: false, from, epoch, seq: 0, ack: 0, limit: 0 }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(self.first, FIRST)
            | flag(self.last, LAST)
            | flag(self.from == Role::Host, FROM_HOST)
            | flag(self.asks, ASKS);
        let mut bytes = [0; HEADER_LEN];
        let (words, rest) = bytes.split_at_mut(8);
        words.copy_from_slice(
            &(u64::from(self.epoch) << 32 | u64::from(flags) << 8 | self.kind as u64).to_le_bytes(),
        );
        for (place, value) in rest.chunks_exact_mut(8).zip([self.seq, self.ack, self.limit]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads the header in front of `frame`, which came on `lane` to the end with the role `own`.
    pub(crate) fn decode(frame: &[u8], lane: Lane, own: Role) -> Result<Self, ProtocolError> {
        let (words, rest) = frame.as_chunks::<8>();
        let &[word, seq, ack, limit, ..] = words else {
            return Err(ProtocolError::Short(words.len() * 8 + rest.len()));
        };
        let [kind, flags, zero0, zero1, epoch @ ..] = word;
        let header = Self {
            kind: Kind::from_wire(kind)?,
            first: flags & FIRST != 0,
            last: flags & LAST != 0,
            asks: flags & ASKS != 0,
            from: if flags & FROM_HOST != 0 { Role::Host } else { Role::Remote },
            epoch: u32::from_le_bytes(epoch),
            seq: u64::from_le_bytes(seq),
            ack: u64::from_le_bytes(ack),
            limit: u64::from_le_bytes(limit),
        };
        if header.from == own {
            return Err(ProtocolError::Mirrored);
        }
        let plain = !header.first && !header.last && !header.asks;
        let bare = header.ack == 0 && header.limit == 0;
        let empty = frame.len() == HEADER_LEN;
        let sound = match header.kind {
            Kind::Data => bare && !header.asks || !lane.may_lose(),
            Kind::Status => plain && empty && header.seq == 0,
            Kind::Received => plain && empty,
            Kind::Ping | Kind::Pong => plain && bare && empty,
            Kind::Detach => plain && bare && empty && header.seq == 0,
            Kind::Close | Kind::Hello | Kind::Welcome | Kind::Attach | Kind::Attached | Kind::Reset => {
                plain && bare && header.seq == 0
            }
        };
        if !sound || flags & !(FIRST | LAST | FROM_HOST | ASKS) != 0 || (zero0, zero1) != (0, 0) {
            return Err(ProtocolError::Header(kind));
        }
        let at_home = match header.kind {
            Kind::Data => true,
            Kind::Status | Kind::Received => !lane.may_lose(),
            _ => lane == Lane::Ctl,
        };
        if at_home { Ok(header) } else { Err(ProtocolError::Lane { kind, lane }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_chunk() {
        let header = Header {
            kind: Kind::Data,
            first: true,
            last: false,
            asks: false,
            from: Role::Host,
            epoch: 0x0a0b_0c0d,
            seq: 0x0102_0304_0506_0708,
            ack: 0x11,
            limit: 0x2200,
        };
        let golden = [
            1, 0b101, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 8, 7, 6, 5, 4, 3, 2, 1, 0x11, 0, 0, 0, 0, 0, 0, 0, 0,
            0x22, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(header.encode(), golden);
        assert_eq!(Header::decode(&golden, Lane::Bulk, Role::Remote), Ok(header));
    }

    #[test]
    fn every_byte_of_a_status_that_must_be_zero_is_checked() {
        let status = Header {
            kind: Kind::Status,
            first: false,
            last: false,
            asks: false,
            from: Role::Remote,
            epoch: 0,
            seq: 0,
            ack: 7,
            limit: 9,
        };
        for at in (2..4).chain(8..16) {
            let mut bytes = status.encode();
            bytes[at] = 1;
            assert_eq!(
                Header::decode(&bytes, Lane::Bulk, Role::Host),
                Err(ProtocolError::Header(2)),
                "byte {at}"
            );
        }
        for bit in 0..8 {
            let mut bytes = status.encode();
            bytes[1] ^= 1 << bit;
            assert!(Header::decode(&bytes, Lane::Bulk, Role::Host).is_err(), "flag {bit}");
        }
        for len in 0..HEADER_LEN {
            let bytes = status.encode();
            assert_eq!(Header::decode(&bytes[..len], Lane::Bulk, Role::Host), Err(ProtocolError::Short(len)));
        }
    }

    #[test]
    fn a_kind_on_a_foreign_lane_is_refused() {
        for (kind, lane) in [
            (Kind::Ping, Lane::Bulk),
            (Kind::Pong, Lane::Int),
            (Kind::Close, Lane::Audio),
            (Kind::Status, Lane::Audio),
            (Kind::Status, Lane::Iso),
        ] {
            let header = Header {
                kind,
                first: false,
                last: false,
                asks: false,
                from: Role::Remote,
                epoch: 0,
                seq: 0,
                ack: 0,
                limit: 0,
            };
            let refused = Header::decode(&header.encode(), lane, Role::Host);
            assert_eq!(refused, Err(ProtocolError::Lane { kind: kind as u8, lane }));
        }
    }
}
