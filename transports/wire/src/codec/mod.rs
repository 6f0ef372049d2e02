//! The two encodings: `kind u8 | rmp-serde map` for control, a fixed head and raw bytes for data.

mod audio;
mod control;
mod usb;

use bytes::Bytes;

use crate::{Lane, MAX_BODY, Message, usb::Completion};

/// The length of the head of a data message, bytes, the kind byte included.
pub const HEAD_LEN: usize = 32;

/// The kind byte. Numbers are never reused (0x20 and 0x29 were sound without a codec); gaps leave room within a group.
mod kind {
    pub(super) const CONTROL: u8 = 0x01;
    pub(super) const SUBMIT: u8 = 0x10;
    pub(super) const CANCEL: u8 = 0x11;
    pub(super) const RESET: u8 = 0x12;
    pub(super) const STREAMS: u8 = 0x13;
    pub(super) const FOLLOW: u8 = 0x14;
    pub(super) const COMPLETED: u8 = 0x18;
    pub(super) const PAUSE: u8 = 0x21;
    pub(super) const RECORD: u8 = 0x22;
    pub(super) const STOP_RECORD: u8 = 0x23;
    pub(super) const PLAY_CODED: u8 = 0x24;
    pub(super) const HOST_RECEPTION: u8 = 0x25;
    pub(super) const HOST_MISSING: u8 = 0x26;
    pub(super) const VOLUME: u8 = 0x27;
    pub(super) const APART: u8 = 0x28;
    pub(super) const JACK: u8 = 0x2a;
    pub(super) const RECORDED_CODED: u8 = 0x2b;
    pub(super) const RECEPTION: u8 = 0x2c;
    pub(super) const MISSING: u8 = 0x2d;
}

/// Why bytes are not a message. The peer erred: the link is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than its kind needs.
    #[error("message of {len} bytes is too short for its kind {kind:#04x}")]
    Short {
        /// The kind byte.
        kind: u8,
        /// The length of the message.
        len: usize,
    },
    /// More bytes than allowed.
    #[error("message of {len} bytes is too long")]
    Long {
        /// The length of the message.
        len: usize,
    },
    /// A kind that this version or this direction does not know.
    #[error("unknown message kind {0:#04x}")]
    Kind(u8),
    /// A field outside its range.
    #[error("field {field} has the impossible value {value}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A control message that is not the map it should be.
    #[error("malformed control message: {0}")]
    Control(String),
}

/// Everything that a host sends to a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRemote {
    /// Control.
    Control(crate::control::ToRemote),
    /// USB.
    Usb(crate::usb::ToRemote),
    /// Sound.
    Audio(crate::audio::ToRemote),
}

/// Everything that a remote sends to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// Control.
    Control(crate::control::ToHost),
    /// A USB request has ended.
    Completed(Completion),
    /// Sound.
    Audio(crate::audio::ToHost),
}

impl ToRemote {
    /// Writes the message; its payload is shared, not copied.
    #[must_use]
    pub fn encode(self) -> Message {
        match self {
            Self::Control(message) => control::encode(&message),
            Self::Usb(message) => usb::encode(message),
            Self::Audio(message) => audio::encode(message),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The peer wrote nonsense; nothing was allocated because of it.
    pub fn decode(lane: Lane, message: Bytes) -> Result<Self, DecodeError> {
        let (kind, head, body) = split(message)?;
        match kind {
            kind::CONTROL => control::decode(&body).map(Self::Control),
            kind::SUBMIT | kind::FOLLOW | kind::CANCEL | kind::RESET | kind::STREAMS => {
                usb::decode(kind, lane, &head, body).map(Self::Usb)
            }
            kind::PAUSE..=kind::APART => audio::decode(kind, &head, body).map(Self::Audio),
            other => Err(DecodeError::Kind(other)),
        }
    }
}

impl ToHost {
    /// Writes the message; its payload is shared, not copied.
    #[must_use]
    pub fn encode(self) -> Message {
        match self {
            Self::Control(message) => control::encode(&message),
            Self::Completed(completion) => usb::encode_completion(completion),
            Self::Audio(report) => audio::encode_report(report),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The peer wrote nonsense; nothing was allocated because of it.
    pub fn decode(lane: Lane, message: Bytes) -> Result<Self, DecodeError> {
        let (kind, head, body) = split(message)?;
        match kind {
            kind::CONTROL => control::decode(&body).map(Self::Control),
            kind::COMPLETED => usb::decode_completion(lane, &head, body).map(Self::Completed),
            kind::JACK..=kind::MISSING => audio::decode_report(kind, &head, body).map(Self::Audio),
            other => Err(DecodeError::Kind(other)),
        }
    }
}

/// The fixed head of a data message without its kind byte.
struct Head([u8; HEAD_LEN]);

impl Head {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

/// Takes a message apart: its kind, its head (zeros for control) and its body.
fn split(mut message: Bytes) -> Result<(u8, Head, Bytes), DecodeError> {
    let Some(&kind) = message.first() else { return Err(DecodeError::Short { kind: 0, len: 0 }) };
    if message.len() > HEAD_LEN + MAX_BODY {
        return Err(DecodeError::Long { len: message.len() });
    }
    if kind == kind::CONTROL {
        return Ok((kind, Head([0; HEAD_LEN]), message.slice(1..)));
    }
    if message.len() < HEAD_LEN {
        return Err(DecodeError::Short { kind, len: message.len() });
    }
    let mut head = [0; HEAD_LEN];
    head.copy_from_slice(&message.split_to(HEAD_LEN));
    Ok((kind, Head(head), message))
}
