//! What codecs write: a head, a table of copies, then the blocks; and what receivers say.

use core::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{format, head, place};
use crate::{
    DecodeError, Lane, Message,
    audio::{
        Block, Codec, Coded, Format, MAX_COPIES, MAX_FRAMES, MAX_GAPS, Missing, Reception, StreamId, Volume,
    },
    codec::Head,
};

/// Bytes of a copy in the table: back u32 | frames u16 | codec u8 | zero u8 | length u32.
const COPY: usize = 12;
/// Bytes of a gap: first frame u64 | frames u32.
const GAP: usize = 12;
/// Bytes of a reception's body.
const RECEPTION: usize = 48;
/// The longest packet of Opus with one frame in it, and with as many as there may be. RFC 6716 §3.4.
const MAX_OPUS: usize = 1275 * 48;

fn field(field: &'static str, value: impl TryInto<u64>) -> DecodeError {
    DecodeError::Field { field, value: value.try_into().unwrap_or(u64::MAX) }
}

fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::Pcm => 1,
        Codec::Opus => 2,
    }
}

fn codec(number: u8) -> Result<Codec, DecodeError> {
    match number {
        1 => Ok(Codec::Pcm),
        2 => Ok(Codec::Opus),
        other => Err(field("codec", other)),
    }
}

// Words of the head from byte 20 on: frames u16, codec u8, copies u8 | length u32 | flags u32 (1: sent again).
// Body: the table of copies | the block's payload | the copies' payloads.
pub(super) fn encode(kind: u8, message: Coded) -> Message {
    let Coded { stream, run, again, format, block, mut copies } = message;
    copies.truncate(MAX_COPIES);
    let [low, high] = block.frames.to_le_bytes();
    let about = u32::from_le_bytes([low, high, codec_number(block.codec), copies.len() as u8]);
    let words = [about, block.payload.len() as u32, u32::from(again)];
    let head = head(kind, stream, run, block.position, Some(format), words);
    if copies.is_empty() {
        return Message { lane: Lane::Audio, head, body: block.payload };
    }
    let payloads = copies.iter().map(|copy| copy.payload.len()).sum::<usize>() + block.payload.len();
    let mut body = BytesMut::with_capacity(copies.len() * COPY + payloads);
    for copy in &copies {
        body.put_u32_le(u32::try_from(block.position.saturating_sub(copy.position)).unwrap_or(u32::MAX));
        body.put_u16_le(copy.frames);
        body.put_slice(&[codec_number(copy.codec), 0]);
        body.put_u32_le(copy.payload.len() as u32);
    }
    body.put_slice(&block.payload);
    copies.iter().for_each(|copy| body.put_slice(&copy.payload));
    Message { lane: Lane::Audio, head, body: body.freeze() }
}

pub(super) fn decode(head: &Head, mut body: Bytes) -> Result<Coded, DecodeError> {
    let (stream, run, position) = place(head);
    let format = format(head)?;
    let count = usize::from(head.u8(23));
    if count > MAX_COPIES {
        return Err(field("copies", count));
    }
    if body.len() < count * COPY {
        return Err(field("copies", count));
    }
    let again = flag("again", head.u32(28))?;
    let mut table = body.split_to(count * COPY);
    let block = block(format, position, head.u16(20), head.u8(22), head.u32(24), &mut body)?;
    let mut copies = Vec::with_capacity(count);
    while table.has_remaining() {
        let (back, frames, codec) = (table.get_u32_le(), table.get_u16_le(), table.get_u8());
        table.advance(1);
        let earlier = position.checked_sub(back.into()).filter(|_| back > 0);
        let earlier = earlier.ok_or_else(|| field("back", back))?;
        copies.push(self::block(format, earlier, frames, codec, table.get_u32_le(), &mut body)?);
    }
    if body.has_remaining() {
        return Err(field("coded length", body.len()));
    }
    Ok(Coded { stream, run, again, format, block, copies })
}

/// Takes a block's payload from the front of `rest`.
fn block(
    format: Format,
    position: u64,
    frames: u16,
    number: u8,
    length: u32,
    rest: &mut Bytes,
) -> Result<Block, DecodeError> {
    let codec = codec(number)?;
    if !(1..=MAX_FRAMES).contains(&frames) {
        return Err(field("frames", frames));
    }
    let fits = match codec {
        Codec::Pcm => u64::from(length) == u64::from(frames) * u64::from(format.frame_bytes()),
        Codec::Opus => (1..=MAX_OPUS).contains(&(length as usize)),
    };
    if !fits || rest.len() < length as usize {
        return Err(field("block length", length));
    }
    if position.checked_add(frames.into()).is_none() {
        return Err(field("position", position));
    }
    Ok(Block { position, frames, codec, payload: rest.split_to(length as usize) })
}

fn flag(name: &'static str, value: u32) -> Result<bool, DecodeError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(field(name, other)),
    }
}

pub(super) fn encode_missing(kind: u8, missing: &Missing) -> Message {
    let gaps = missing.gaps.get(..MAX_GAPS).unwrap_or(&missing.gaps);
    let mut body = BytesMut::with_capacity(gaps.len() * GAP);
    for (first, frames) in gaps {
        body.put_u64_le(*first);
        body.put_u32_le(*frames);
    }
    let head = head(kind, missing.stream, missing.run, 0, None, [0; 3]);
    Message { lane: Lane::Audio, head, body: body.freeze() }
}

pub(super) fn decode_missing(head: &Head, body: &Bytes) -> Result<Missing, DecodeError> {
    let (stream, run, _) = place(head);
    let (gaps, rest) = body.as_chunks::<GAP>();
    if !(1..=MAX_GAPS).contains(&gaps.len()) || !rest.is_empty() {
        return Err(field("gaps", body.len()));
    }
    let gap = |mut bytes: &[u8]| (bytes.get_u64_le(), bytes.get_u32_le());
    Ok(Missing { stream, run, gaps: gaps.iter().map(|bytes| gap(bytes)).collect() })
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

// Body: at u64 µs | level u32 µs | target u32 µs | jitter u32 µs | loss u32 | burst u32 | concealed u32 | slipped u32
//       | late u32 | duplicate u32 | xruns u32
pub(super) fn encode_reception(kind: u8, r: &Reception) -> Message {
    let mut body = BytesMut::with_capacity(RECEPTION);
    body.put_u64_le(u64::try_from(r.at.as_micros()).unwrap_or(u64::MAX));
    let times = [r.level, r.target, r.jitter].map(microseconds);
    let counts = [r.loss, r.burst.into(), r.concealed, r.slipped, r.late, r.duplicate, r.xruns];
    times.into_iter().chain(counts).for_each(|word| body.put_u32_le(word));
    let head = head(kind, r.stream, r.run, r.position, None, [0; 3]);
    Message { lane: Lane::Audio, head, body: body.freeze() }
}

pub(super) fn decode_reception(head: &Head, body: &Bytes) -> Result<Reception, DecodeError> {
    let (stream, run, position) = place(head);
    if body.len() != RECEPTION {
        return Err(field("reception length", body.len()));
    }
    let mut body = &body[..];
    let at = Duration::from_micros(body.get_u64_le());
    let [level, target, jitter] = [(); 3].map(|()| Duration::from_micros(body.get_u32_le().into()));
    let (loss, burst) = (body.get_u32_le(), body.get_u32_le());
    if loss > 1_000_000 {
        return Err(field("loss", loss));
    }
    let burst = u16::try_from(burst).map_err(|_| field("burst", burst))?;
    let [concealed, slipped, late, duplicate, xruns] = [(); 5].map(|()| body.get_u32_le());
    Ok(Reception {
        stream,
        run,
        position,
        at,
        level,
        target,
        jitter,
        loss,
        burst,
        concealed,
        slipped,
        late,
        duplicate,
        xruns,
    })
}

// Words of the head from byte 20 on: gain i16, zero u16 | mute u32 | zero u32. It is not to be lost: the control lane.
pub(super) fn encode_volume(volume: Volume) -> Message {
    let Volume { stream, gain, mute } = volume;
    let words = [u32::from(gain.cast_unsigned()), u32::from(mute), 0];
    let head = head(crate::codec::kind::VOLUME, stream, 0, 0, None, words);
    Message { lane: Lane::Ctl, head, body: Bytes::new() }
}

pub(super) fn decode_volume(head: &Head) -> Result<Volume, DecodeError> {
    let gain = head.u16(20).cast_signed();
    Ok(Volume { stream: StreamId(head.u8(1)), gain, mute: flag("mute", head.u32(24))? })
}
