//! Sound messages: the fixed head and PCM as it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, HEAD_LEN, Head, kind};
use crate::{
    Lane, Message,
    audio::{Encoding, Format, Packet, StreamId, ToHost, ToRemote},
};

pub(super) fn encode(message: ToRemote) -> Message {
    let (head, body) = match message {
        ToRemote::Play(Packet { stream, run, position, format, pcm }) => {
            (audio_head(kind::PLAY, stream, run, position, Some(format), 0), pcm)
        }
        ToRemote::Pause { stream, run, position } => {
            (audio_head(kind::PAUSE, stream, run, position, None, 0), Bytes::new())
        }
    };
    Message { lane: Lane::Audio, head, body }
}

pub(super) fn encode_report(ToHost::Played { stream, run, position, queued }: ToHost) -> Message {
    let head = audio_head(kind::PLAYED, stream, run, position, None, queued);
    Message { lane: Lane::Audio, head, body: Bytes::new() }
}

pub(super) fn decode(kind: u8, head: &Head, body: Bytes) -> Result<ToRemote, DecodeError> {
    let (stream, run, position) = place(head);
    if kind == kind::PAUSE {
        return Ok(ToRemote::Pause { stream, run, position });
    }
    let format = format(head)?;
    if !body.len().is_multiple_of(format.frame_bytes() as usize) {
        return Err(DecodeError::Field { field: "pcm length", value: body.len() as u64 });
    }
    Ok(ToRemote::Play(Packet { stream, run, position, format, pcm: body }))
}

pub(super) fn decode_report(head: &Head) -> ToHost {
    let (stream, run, position) = place(head);
    ToHost::Played { stream, run, position, queued: head.u32(24) }
}

fn place(head: &Head) -> (StreamId, u32, u64) {
    (StreamId(head.u8(1)), head.u32(4), head.u64(8))
}

fn format(head: &Head) -> Result<Format, DecodeError> {
    let encoding = match head.u8(2) {
        1 => Encoding::U8,
        2 => Encoding::S16,
        3 => Encoding::S20,
        4 => Encoding::S24,
        5 => Encoding::S32,
        other => return Err(DecodeError::Field { field: "encoding", value: u64::from(other) }),
    };
    let (channels, rate) = (head.u8(3), head.u32(16));
    if !(1..=16).contains(&channels) {
        return Err(DecodeError::Field { field: "channels", value: u64::from(channels) });
    }
    if !(1_000..=768_000).contains(&rate) {
        return Err(DecodeError::Field { field: "rate", value: u64::from(rate) });
    }
    Ok(Format { rate, encoding, channels })
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
