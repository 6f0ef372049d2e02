//! Samples as they are worked on: 32 bits, the significant ones on top, so that every encoding of the wire fits without
//! loss; and as floating point for whatever filters them.

use bytes::{BufMut, BytesMut};
use wire::audio::Encoding;

/// Appends samples as they are on the wire, each at the top of 32 bits. What is less than a sample is left out.
pub fn widen(encoding: Encoding, pcm: &[u8], out: &mut Vec<i32>) {
    match encoding {
        Encoding::U8 => out.extend(pcm.iter().map(|byte| i32::from((*byte ^ 0x80).cast_signed()) << 24)),
        Encoding::S16 => {
            out.extend(pcm.as_chunks().0.iter().map(|bytes| i32::from(i16::from_le_bytes(*bytes)) << 16));
        }
        Encoding::S20 | Encoding::S24 | Encoding::S32 => {
            out.extend(pcm.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)));
        }
    }
}

/// Appends samples as they are on the wire. The inverse of [`widen`]; what does not fit is rounded, and the loudest stay
/// the loudest. Encodings in four bytes keep all 32 bits.
pub fn narrow(encoding: Encoding, samples: &[i32], out: &mut BytesMut) {
    out.reserve(samples.len() * encoding.bytes() as usize);
    match encoding {
        Encoding::U8 => samples.iter().for_each(|s| out.put_u8((rounded(*s, 24) as u8) ^ 0x80)),
        Encoding::S16 => samples.iter().for_each(|s| out.put_i16_le(rounded(*s, 16) as i16)),
        Encoding::S20 | Encoding::S24 | Encoding::S32 => samples.iter().for_each(|s| out.put_i32_le(*s)),
    }
}

/// The sample without its lowest `bits`.
fn rounded(sample: i32, bits: u32) -> i32 {
    sample.saturating_add(1 << (bits - 1)) >> bits
}

/// A sample between -1 and 1. Exact for up to 24 significant bits.
#[must_use]
pub fn to_float(sample: i32) -> f32 {
    sample as f32 / 2_147_483_648.0
}

/// The sample of a number between -1 and 1; beyond, the loudest; not a number: silence.
#[must_use]
pub fn from_float(value: f32) -> i32 {
    (f64::from(value) * 2_147_483_648.0).round() as i32
}

/// A weighted mean: `part` of `all` of `to`, the rest of `from`.
pub(crate) fn blend(from: i32, to: i32, part: usize, all: usize) -> i32 {
    let (part, all) = (part.min(all) as i64, all.max(1) as i64);
    ((i64::from(from) * (all - part) + i64::from(to) * part) / all) as i32
}
