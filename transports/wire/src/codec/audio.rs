//! Sound messages: the fixed head, and what a codec has written as it is.

mod coded;

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, HEAD_LEN, Head, kind};
use crate::{
    Lane, Message,
    audio::{Encoding, Format, Jack, StreamId, ToHost, ToRemote},
};

pub(super) fn encode(message: ToRemote) -> Message {
    let empty = |lane, head| Message { lane, head, body: Bytes::new() };
    match message {
        ToRemote::Pause { stream, run, position } => {
            empty(Lane::Audio, audio_head(kind::PAUSE, stream, run, position, None))
        }
        // Whether a microphone is open is not to be lost.
        ToRemote::Record { stream, run, format } => {
            empty(Lane::Ctl, audio_head(kind::RECORD, stream, run, 0, Some(format)))
        }
        ToRemote::StopRecord { stream, run } => {
            empty(Lane::Ctl, audio_head(kind::STOP_RECORD, stream, run, 0, None))
        }
        ToRemote::PlayCoded(message) => coded::encode(kind::PLAY_CODED, message),
        ToRemote::Reception(reception) => coded::encode_reception(kind::HOST_RECEPTION, &reception),
        ToRemote::Missing(missing) => coded::encode_missing(kind::HOST_MISSING, &missing),
        ToRemote::Volume(volume) => coded::encode_volume(volume),
        // It is said once.
        ToRemote::Apart { stream, run } => empty(Lane::Ctl, audio_head(kind::APART, stream, run, 0, None)),
    }
}

pub(super) fn encode_report(report: ToHost) -> Message {
    let empty = |lane, head| Message { lane, head, body: Bytes::new() };
    match report {
        ToHost::RecordedCoded(message) => coded::encode(kind::RECORDED_CODED, message),
        ToHost::Reception(reception) => coded::encode_reception(kind::RECEPTION, &reception),
        ToHost::Missing(missing) => coded::encode_missing(kind::MISSING, &missing),
        ToHost::Jack { jack, present } => empty(Lane::Ctl, jack_head(jack, present)),
    }
}

pub(super) fn decode(kind: u8, head: &Head, body: Bytes) -> Result<ToRemote, DecodeError> {
    let (stream, run, position) = place(head);
    Ok(match kind {
        kind::PAUSE => ToRemote::Pause { stream, run, position },
        kind::RECORD => ToRemote::Record { stream, run, format: format(head)? },
        kind::STOP_RECORD => ToRemote::StopRecord { stream, run },
        kind::PLAY_CODED => ToRemote::PlayCoded(coded::decode(head, body)?),
        kind::HOST_RECEPTION => ToRemote::Reception(coded::decode_reception(head, &body)?),
        kind::HOST_MISSING => ToRemote::Missing(coded::decode_missing(head, &body)?),
        kind::VOLUME => ToRemote::Volume(coded::decode_volume(head)?),
        kind::APART => ToRemote::Apart { stream, run },
        other => return Err(DecodeError::Kind(other)),
    })
}

pub(super) fn decode_report(kind: u8, head: &Head, body: Bytes) -> Result<ToHost, DecodeError> {
    Ok(match kind {
        kind::RECORDED_CODED => ToHost::RecordedCoded(coded::decode(head, body)?),
        kind::RECEPTION => ToHost::Reception(coded::decode_reception(head, &body)?),
        kind::MISSING => ToHost::Missing(coded::decode_missing(head, &body)?),
        kind::JACK => ToHost::Jack { jack: jack(head)?, present: present(head)? },
        other => return Err(DecodeError::Kind(other)),
    })
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

// Audio head: kind u8 | stream u8 | encoding u8 | channels u8 | run u32 | position u64 | rate u32 | zero 12
fn audio_head(kind: u8, stream: StreamId, run: u32, position: u64, format: Option<Format>) -> Bytes {
    head(kind, stream, run, position, format, [0; 3])
}

/// What every head of a stream's message has in common, and three words of its own from byte 20 on.
fn head(
    kind: u8,
    stream: StreamId,
    run: u32,
    position: u64,
    format: Option<Format>,
    words: [u32; 3],
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
    words.into_iter().for_each(|word| head.put_u32_le(word));
    head.freeze()
}

fn jack(head: &Head) -> Result<Jack, DecodeError> {
    match head.u8(1) {
        1 => Ok(Jack::Headphone),
        2 => Ok(Jack::Microphone),
        other => Err(DecodeError::Field { field: "jack", value: u64::from(other) }),
    }
}

fn present(head: &Head) -> Result<bool, DecodeError> {
    match head.u8(2) {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Field { field: "present", value: u64::from(other) }),
    }
}

// Jack head: kind u8 | jack u8 | present u8 | zeros
fn jack_head(jack: Jack, present: bool) -> Bytes {
    let mut head = [0; HEAD_LEN];
    let number = match jack {
        Jack::Headphone => 1,
        Jack::Microphone => 2,
    };
    if let Some(fields) = head.first_chunk_mut() {
        *fields = [kind::JACK, number, u8::from(present)];
    }
    Bytes::copy_from_slice(&head)
}
