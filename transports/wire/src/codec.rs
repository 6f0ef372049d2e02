//! The two encodings: `kind u8 | rmp-serde map` for control, a fixed head and raw bytes for data.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Lane, MAX_BODY, Message,
    audio::{self, Encoding, Format, Packet, StreamId},
    control::{self, Answer, Hello, MAX_TEXT},
    usb::{self, Completion, DeviceId, Endpoint, Failure, Moved, Payload, Request, RequestId, Setup, Transfer},
};

/// The length of the head of a data message, bytes, the kind byte included.
pub const HEAD_LEN: usize = 32;
/// The longest control message, bytes.
const MAX_CONTROL: usize = 4096;

/// The kind byte. Numbers are never reused; gaps leave room within a group.
mod kind {
    pub(super) const CONTROL: u8 = 0x01;
    pub(super) const SUBMIT: u8 = 0x10;
    pub(super) const CANCEL: u8 = 0x11;
    pub(super) const RESET: u8 = 0x12;
    pub(super) const COMPLETED: u8 = 0x18;
    pub(super) const PLAY: u8 = 0x20;
    pub(super) const PAUSE: u8 = 0x21;
    pub(super) const PLAYED: u8 = 0x28;
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
    Control(control::ToRemote),
    /// USB.
    Usb(usb::ToRemote),
    /// Sound.
    Audio(audio::ToRemote),
}

/// Everything that a remote sends to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// Control.
    Control(control::ToHost),
    /// A USB request has ended.
    Completed(Completion),
    /// Sound.
    Audio(audio::ToHost),
}

impl ToRemote {
    /// Writes the message; its payload is shared, not copied.
    #[must_use]
    pub fn encode(self) -> Message {
        match self {
            Self::Control(message) => control_message(&message),
            Self::Usb(message) => encode_usb(message),
            Self::Audio(audio::ToRemote::Play(packet)) => {
                let head = audio_head(kind::PLAY, packet.stream, packet.run, packet.position, Some(packet.format), 0);
                Message { lane: Lane::Audio, head, body: packet.pcm }
            }
            Self::Audio(audio::ToRemote::Pause { stream, run, position }) => {
                let head = audio_head(kind::PAUSE, stream, run, position, None, 0);
                Message { lane: Lane::Audio, head, body: Bytes::new() }
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The peer wrote nonsense; nothing was allocated because of it.
    pub fn decode(lane: Lane, message: Bytes) -> Result<Self, DecodeError> {
        let (kind, mut head, body) = split(message)?;
        Ok(match kind {
            kind::CONTROL => Self::Control(read_control(&body)?),
            kind::SUBMIT | kind::CANCEL | kind::RESET => Self::Usb(decode_usb(kind, lane, &mut head, body)?),
            kind::PLAY => {
                let (stream, run, position, format, _) = head.audio();
                let format = format?;
                if !body.len().is_multiple_of(format.frame_bytes() as usize) {
                    return Err(DecodeError::Field { field: "pcm length", value: body.len() as u64 });
                }
                Self::Audio(audio::ToRemote::Play(Packet { stream, run, position, format, pcm: body }))
            }
            kind::PAUSE => {
                let (stream, run, position, ..) = head.audio();
                Self::Audio(audio::ToRemote::Pause { stream, run, position })
            }
            other => return Err(DecodeError::Kind(other)),
        })
    }
}

impl ToHost {
    /// Writes the message; its payload is shared, not copied.
    #[must_use]
    pub fn encode(self) -> Message {
        match self {
            Self::Control(message) => control_message(&message),
            Self::Completed(completion) => encode_completion(completion),
            Self::Audio(audio::ToHost::Played { stream, run, position, queued }) => {
                let head = audio_head(kind::PLAYED, stream, run, position, None, queued);
                Message { lane: Lane::Audio, head, body: Bytes::new() }
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The peer wrote nonsense; nothing was allocated because of it.
    pub fn decode(lane: Lane, message: Bytes) -> Result<Self, DecodeError> {
        let (kind, mut head, body) = split(message)?;
        Ok(match kind {
            kind::CONTROL => Self::Control(read_control(&body)?),
            kind::COMPLETED => Self::Completed(decode_completion(lane, &mut head, body)?),
            kind::PLAYED => {
                let (stream, run, position, _, queued) = head.audio();
                Self::Audio(audio::ToHost::Played { stream, run, position, queued })
            }
            other => return Err(DecodeError::Kind(other)),
        })
    }
}

impl Hello {
    /// Writes the greeting for a handshake message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_map(self)
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// It is malformed, too long, or has a text over [`MAX_TEXT`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: Self = from_map(bytes)?;
        check_text("vm", hello.vm.as_deref().unwrap_or(""))?;
        check_text("name", &hello.name)?;
        Ok(hello)
    }
}

impl Answer {
    /// Writes the answer for a handshake message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_map(self)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// It is malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let answer: Self = from_map(bytes)?;
        match &answer {
            Self::Welcome { vm } => check_text("vm", vm)?,
            Self::Refused { text, .. } => check_text("text", text)?,
        }
        Ok(answer)
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), DecodeError> {
    if text.len() > MAX_TEXT { Err(DecodeError::Field { field, value: text.len() as u64 }) } else { Ok(()) }
}

fn to_map(value: &impl Serialize) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "plain structs of integers and strings always serialise to memory")]
    rmp_serde::to_vec_named(value).expect("control nouns serialise")
}

fn from_map<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_CONTROL {
        return Err(DecodeError::Long { len: bytes.len() });
    }
    rmp_serde::from_slice(bytes).map_err(|error| DecodeError::Control(error.to_string()))
}

fn control_message(value: &impl Serialize) -> Message {
    Message {
        lane: Lane::Ctl,
        head: Bytes::from_static(&[kind::CONTROL]),
        body: Bytes::from(to_map(value)),
    }
}

fn read_control<T: DeserializeOwned>(body: &Bytes) -> Result<T, DecodeError> {
    from_map(body)
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

    fn endpoint(&self) -> Result<Endpoint, DecodeError> {
        let address = self.u8(2);
        Endpoint::from_address(address)
            .ok_or(DecodeError::Field { field: "endpoint", value: u64::from(address) })
    }

    fn audio(&mut self) -> (StreamId, u32, u64, Result<Format, DecodeError>, u32) {
        let format = self.format();
        (StreamId(self.u8(1)), self.u32(4), self.u64(8), format, self.u32(24))
    }

    fn format(&self) -> Result<Format, DecodeError> {
        let encoding = match self.u8(2) {
            1 => Encoding::U8,
            2 => Encoding::S16,
            3 => Encoding::S20,
            4 => Encoding::S24,
            5 => Encoding::S32,
            other => return Err(DecodeError::Field { field: "encoding", value: u64::from(other) }),
        };
        let (channels, rate) = (self.u8(3), self.u32(16));
        if !(1..=16).contains(&channels) {
            return Err(DecodeError::Field { field: "channels", value: u64::from(channels) });
        }
        if !(1_000..=768_000).contains(&rate) {
            return Err(DecodeError::Field { field: "rate", value: u64::from(rate) });
        }
        Ok(Format { rate, encoding, channels })
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

// USB head: kind u8 | transfer or failure u8 | endpoint u8 | direction u8 | device u32 | id u64 | setup 8 bytes
//           | length u32 | stream u16 | zero u16
fn usb_head(kind: u8, what: u8, endpoint: u8, input: bool, device: u32, id: u64, length: u32) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    head.put_slice(&[kind, what, endpoint, u8::from(input)]);
    head.put_u32_le(device);
    head.put_u64_le(id);
    head.put_u64_le(0);
    head.put_u32_le(length);
    head.put_u32_le(0);
    head
}

fn encode_usb(message: usb::ToRemote) -> Message {
    let lane = message.lane();
    match message {
        usb::ToRemote::Submit(Request { id, device, endpoint, transfer, payload }) => {
            let (what, setup, stream) = match transfer {
                Transfer::Control(setup) => (0, setup.to_bytes(), 0),
                Transfer::Bulk { stream } => (2, [0; 8], stream),
                Transfer::Interrupt => (3, [0; 8], 0),
            };
            let (input, length) = (matches!(payload, Payload::In { .. }), payload.requested());
            let mut head = usb_head(kind::SUBMIT, what, endpoint.address(), input, device.0, id.0, length);
            if let Some(place) = head.get_mut(16..24) {
                place.copy_from_slice(&setup);
            }
            if let Some(place) = head.get_mut(28..30) {
                place.copy_from_slice(&stream.to_le_bytes());
            }
            let body = match payload {
                Payload::Out(data) => data,
                Payload::In { .. } => Bytes::new(),
            };
            Message { lane, head: head.freeze(), body }
        }
        usb::ToRemote::Cancel { device, endpoint, through } => {
            let head = usb_head(kind::CANCEL, 0, endpoint.address(), false, device.0, through.0, 0);
            Message { lane, head: head.freeze(), body: Bytes::new() }
        }
        usb::ToRemote::Reset { device, id } => {
            let head = usb_head(kind::RESET, 0, 0, false, device.0, id.0, 0);
            Message { lane, head: head.freeze(), body: Bytes::new() }
        }
    }
}

fn decode_usb(kind: u8, lane: Lane, head: &mut Head, body: Bytes) -> Result<usb::ToRemote, DecodeError> {
    let (device, id, endpoint) = (DeviceId(head.u32(4)), RequestId(head.u64(8)), head.endpoint()?);
    let message = match kind {
        kind::CANCEL => usb::ToRemote::Cancel { device, endpoint, through: id },
        kind::RESET => usb::ToRemote::Reset { device, id },
        _ => {
            let transfer = match head.u8(1) {
                0 => Transfer::Control(Setup::from_bytes(head.array(16))),
                2 => Transfer::Bulk { stream: head.u16(28) },
                3 => Transfer::Interrupt,
                other => return Err(DecodeError::Field { field: "transfer", value: u64::from(other) }),
            };
            let length = head.u32(24);
            if length as usize > MAX_BODY {
                return Err(DecodeError::Field { field: "length", value: u64::from(length) });
            }
            let payload = match (head.u8(3), body.len()) {
                (0, len) if len == length as usize => Payload::Out(body),
                (1, 0) => Payload::In { max: length },
                (_, len) => return Err(DecodeError::Field { field: "body length", value: len as u64 }),
            };
            usb::ToRemote::Submit(Request { id, device, endpoint, transfer, payload })
        }
    };
    if message.lane() == lane {
        Ok(message)
    } else {
        Err(DecodeError::Field { field: "lane", value: lane as u64 })
    }
}

const FAILURES: [Failure; 6] = [
    Failure::Cancelled,
    Failure::Stall,
    Failure::Disconnected,
    Failure::Fault,
    Failure::Overflow,
    Failure::InvalidArgument,
];

fn encode_completion(Completion { id, result, moved, lane }: Completion) -> Message {
    let what = match result {
        Ok(()) => 0,
        Err(failure) => 1 + FAILURES.iter().position(|f| *f == failure).map_or(0, |at| at as u8),
    };
    let (input, length) = (matches!(moved, Moved::In(_)), moved.len());
    let head = usb_head(kind::COMPLETED, what, 0, input, 0, id.0, length).freeze();
    let body = match moved {
        Moved::In(data) => data,
        Moved::Out(_) => Bytes::new(),
    };
    Message { lane, head, body }
}

fn decode_completion(lane: Lane, head: &mut Head, body: Bytes) -> Result<Completion, DecodeError> {
    let result = match head.u8(1) {
        0 => Ok(()),
        what => Err(*FAILURES
            .get(usize::from(what) - 1)
            .ok_or(DecodeError::Field { field: "failure", value: u64::from(what) })?),
    };
    let length = head.u32(24);
    let moved = match (head.u8(3), body.len()) {
        (0, 0) => Moved::Out(length),
        (1, len) if len == length as usize => Moved::In(body),
        (_, len) => return Err(DecodeError::Field { field: "body length", value: len as u64 }),
    };
    Ok(Completion { id: RequestId(head.u64(8)), result, moved, lane })
}

// Audio head: kind u8 | stream u8 | encoding u8 | channels u8 | run u32 | position u64 | rate u32 | zero u32
//             | queued u32 | zero u32
fn audio_head(
    kind: u8,
    stream: StreamId,
    run: u32,
    position: u64,
    format: Option<Format>,
    queued: u32,
) -> Bytes {
    let encoding = match format.map(|f| f.encoding) {
        None => 0,
        Some(Encoding::U8) => 1,
        Some(Encoding::S16) => 2,
        Some(Encoding::S20) => 3,
        Some(Encoding::S24) => 4,
        Some(Encoding::S32) => 5,
    };
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    head.put_slice(&[kind, stream.0, encoding, format.map_or(0, |f| f.channels)]);
    head.put_u32_le(run);
    head.put_u64_le(position);
    head.put_u32_le(format.map_or(0, |f| f.rate));
    head.put_u32_le(0);
    head.put_u32_le(queued);
    head.put_u32_le(0);
    head.freeze()
}
