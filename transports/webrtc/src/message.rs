//! What a message of a channel is: `kind u8 | bytes`.
//!
//! Frames on the channels of the lanes; everything else on the channel of the link.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use link::{Frame, cut_reason};

/// The longest frame, bytes: a message with its kind is what every implementation takes.
pub(crate) const MAX_FRAME: usize = crate::sdp::MAX_MESSAGE - 1;
/// The longest message on BULK, bytes: a chunk of a session on a link that is not fast. Nothing overtakes a message
/// that SCTP has begun.
pub(crate) const PIECE: usize = 16 * 1024 + 256;

const FRAME: u8 = 0;
const MORE: u8 = 1;
const READY: u8 = 2;
const HEARD: u8 = 3;
const HANDSHAKE: u8 = 4;
const CLOSE: u8 = 5;
const CLOSED: u8 = 6;
/// On ISO only: nothing, sent so that SCTP notices what was lost before it.
pub(crate) const NUDGE: u8 = 7;

/// A message, as it is to be sent.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    Frame(Frame),
    /// Our channels are open.
    Ready,
    /// The peer's ready was heard, so our channels are open.
    Heard,
    Handshake(Bytes),
    /// No frames come any more; so many were sent on the reliable lanes.
    Close {
        frames: u64,
        reason: String,
    },
    /// All frames that a close speaks of have come.
    Closed,
}

impl Outgoing {
    /// The length of a frame, bytes.
    pub(crate) fn frame_len(&self) -> Option<usize> {
        match self {
            Self::Frame(frame) => Some(frame.len()),
            _ => None,
        }
    }

    /// The messages, each of at most `max` bytes where it is a frame.
    pub(crate) fn messages(self, max: usize) -> impl Iterator<Item = BytesMut> {
        let (kind, mut bytes) = match self {
            Self::Frame(frame) => (FRAME, frame.head.chain(frame.body)),
            Self::Ready => (READY, Bytes::new().chain(Bytes::new())),
            Self::Heard => (HEARD, Bytes::new().chain(Bytes::new())),
            Self::Handshake(bytes) => (HANDSHAKE, bytes.chain(Bytes::new())),
            Self::Close { frames, reason } => {
                let frames = Bytes::copy_from_slice(&frames.to_be_bytes());
                (CLOSE, frames.chain(Bytes::from(reason)))
            }
            Self::Closed => (CLOSED, Bytes::new().chain(Bytes::new())),
        };
        let mut done = false;
        std::iter::from_fn(move || {
            if std::mem::replace(&mut done, bytes.remaining() < max) {
                return None;
            }
            let len = bytes.remaining().min(max - 1);
            let mut message = BytesMut::with_capacity(1 + len);
            message.put_u8(if done { kind } else { MORE });
            message.put((&mut bytes).take(len));
            Some(message)
        })
    }
}

/// A message, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Frame(Bytes),
    /// A piece of a frame that is not the last one.
    More(Bytes),
    Nudge,
    Ready,
    Heard,
    Handshake(Bytes),
    Close {
        frames: u64,
        reason: String,
    },
    Closed,
}

impl Received {
    /// Reads a message.
    pub(crate) fn decode(mut message: Bytes) -> Result<Self, String> {
        if message.len() > 1 + MAX_FRAME {
            return Err(format!("message of {} bytes", message.len()));
        }
        if message.is_empty() {
            return Err("empty message".to_owned());
        }
        match message.get_u8() {
            FRAME => Ok(Self::Frame(message)),
            MORE => Ok(Self::More(message)),
            NUDGE if message.is_empty() => Ok(Self::Nudge),
            READY if message.is_empty() => Ok(Self::Ready),
            HEARD if message.is_empty() => Ok(Self::Heard),
            HANDSHAKE => Ok(Self::Handshake(message)),
            CLOSE => {
                let frames = message.try_get_u64().map_err(|_| "torn close".to_owned())?;
                let reason = cut_reason(&String::from_utf8_lossy(&message)).to_owned();
                Ok(Self::Close { frames, reason })
            }
            CLOSED if message.is_empty() => Ok(Self::Closed),
            kind => Err(format!("message of kind {kind:#04x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::Lane;

    use super::*;

    fn frame(len: usize) -> Frame {
        let bytes: Bytes = (0..len).map(|at| at as u8).collect();
        Frame { lane: Lane::Bulk, head: bytes.slice(..len.min(5)), body: bytes.slice(len.min(5)..) }
    }

    #[test]
    fn a_frame_is_cut_into_pieces_and_the_last_one_says_so() {
        for (len, pieces) in [(0, 1), (1, 1), (9, 1), (10, 2), (18, 2), (19, 3)] {
            let sent = frame(len);
            let messages: Vec<_> = Outgoing::Frame(sent.clone()).messages(10).collect();
            assert_eq!(messages.len(), pieces, "{len} bytes");
            let mut whole = BytesMut::new();
            for (at, message) in messages.into_iter().enumerate() {
                assert!(message.len() <= 10);
                match Received::decode(message.freeze()).unwrap() {
                    Received::More(bytes) if at + 1 < pieces => whole.extend_from_slice(&bytes),
                    Received::Frame(bytes) if at + 1 == pieces => whole.extend_from_slice(&bytes),
                    other => panic!("piece {at} of {len} bytes: {other:?}"),
                }
            }
            assert_eq!(whole, [sent.head, sent.body].concat());
        }
    }

    #[test]
    fn messages_are_written_as_they_always_were() {
        let bytes = |message: Outgoing| message.messages(usize::MAX).next().unwrap().to_vec();
        assert_eq!(bytes(Outgoing::Frame(frame(2))), [0, 0, 1]);
        assert_eq!(bytes(Outgoing::Handshake(Bytes::from_static(b"e"))), b"\x04e");
        let close = Outgoing::Close { frames: 258, reason: "so".to_owned() };
        assert_eq!(bytes(close), b"\x05\0\0\0\0\0\0\x01\x02so");
        let short = [Outgoing::Ready, Outgoing::Heard, Outgoing::Closed].map(bytes);
        assert_eq!(short, [[2], [3], [6]]);
    }

    #[test]
    fn what_is_no_message_is_named() {
        for (message, error) in [
            (vec![], "empty message"),
            (vec![8], "message of kind 0x08"),
            (vec![7, 0], "message of kind 0x07"),
            (vec![6, 0], "message of kind 0x06"),
            (vec![5, 0], "torn close"),
            (vec![0; 65_537], "message of 65537 bytes"),
        ] {
            assert_eq!(Received::decode(message.into()).unwrap_err(), error);
        }
    }
}
