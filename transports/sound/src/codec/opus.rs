//! Opus, at 48 kHz inside. RFC 6716.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use ropus::{Application, Bitrate, Channels, DecodeMode};
use wire::audio::Format;

use super::{PACKETS, whole_frames};
use crate::{
    resample::Converter,
    samples::{from_float, to_float},
};

/// Opus's own rate.
const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const LONGEST: usize = 5_760;
/// The longest packet of one frame. RFC 6716 §3.2.1.
const MOST_BYTES: usize = 1_275;
/// Of 10: most of the quality for half of the time.
const COMPLEXITY: u8 = 5;

fn channels(format: Format) -> Option<Channels> {
    match format.channels {
        1 => Some(Channels::Mono),
        2 => Some(Channels::Stereo),
        _ => None,
    }
}

/// Frames at 48 kHz that last as long; `None`: not whole ones.
fn inside(frames: usize, rate: u32) -> Option<usize> {
    let frames = frames.checked_mul(RATE as usize)?;
    frames.is_multiple_of(rate as usize).then(|| frames / rate as usize)
}

/// The conversion of a stream between its rate and Opus's; `Ok(None)`: none is needed.
fn converter(from: u32, to: u32, channels: u8) -> Option<Option<Converter>> {
    if from == to {
        return Some(None);
    }
    Converter::new(from, to, channels, LONGEST).ok().map(Some)
}

pub(super) struct Writer {
    encoder: ropus::Encoder,
    format: Format,
    up: Option<Converter>,
    bits: u32,
}

impl core::fmt::Debug for Writer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Opus({:?}, {} bit/s)", self.format, self.bits)
    }
}

impl Writer {
    pub(super) fn new(format: Format) -> Option<Self> {
        let encoder = ropus::Encoder::builder(RATE, channels(format)?, Application::RestrictedLowDelay)
            .complexity(COMPLEXITY)
            .build()
            .ok()?;
        Some(Self { encoder, format, up: converter(format.rate, RATE, format.channels)?, bits: 0 })
    }

    pub(super) fn write(&mut self, bits: u32, frames: u16, samples: &[i32]) -> Option<Bytes> {
        let inside = inside(frames.into(), self.format.rate)?;
        if self.bits != bits {
            self.encoder.set_bitrate(Bitrate::try_bits(bits).ok()?).ok()?;
            self.bits = bits;
        }
        let floats: Vec<f32> = match &mut self.up {
            None => samples.iter().map(|sample| to_float(*sample)).collect(),
            Some(up) => {
                let mut converted = vec![0; inside * usize::from(self.format.channels)];
                up.convert(samples, &mut converted);
                converted.iter().map(|sample| to_float(*sample)).collect()
            }
        };
        let mut packet = vec![0; MOST_BYTES];
        // The codec is sound, but young: should a guest's sound make it panic, this stream starts it anew.
        let encoder = &mut self.encoder;
        let Ok(encoded) = catch_unwind(AssertUnwindSafe(|| encoder.encode_float(&floats, &mut packet)))
        else {
            *self = Self::new(self.format)?;
            return None;
        };
        let length = encoded.ok().filter(|length| *length > 0)?;
        packet.truncate(length);
        Some(packet.into())
    }
}

pub(super) struct Reader {
    decoder: ropus::Decoder,
    format: Format,
    down: Option<Converter>,
    buffer: Vec<f32>,
    /// Frames made up beyond what was wanted, at the stream's rate.
    surplus: Vec<i32>,
    /// The smallest piece that can be made up: at the stream's rate, and at 48 kHz.
    unit: (usize, usize),
}

impl core::fmt::Debug for Reader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Opus({:?})", self.format)
    }
}

impl Reader {
    pub(super) fn new(format: Format) -> Option<Self> {
        let outside = usize::from(PACKETS.iter().find_map(|time| whole_frames(*time, format.rate))?);
        let unit = (outside, inside(outside, format.rate)?);
        let decoder = ropus::Decoder::new(RATE, channels(format)?).ok()?;
        let buffer = vec![0.0; LONGEST * usize::from(format.channels)];
        let down = converter(RATE, format.rate, format.channels)?;
        Some(Self { decoder, format, down, buffer, surplus: Vec::new(), unit })
    }

    /// Appends the frames of a packet; `None`: it has not so many, or is no packet.
    pub(super) fn read(&mut self, packet: &[u8], frames: usize, out: &mut Vec<i32>) -> Option<()> {
        self.surplus.clear();
        let inside =
            inside(frames, self.format.rate).filter(|inside| *inside <= LONGEST && !packet.is_empty())?;
        // Longer ones do not fit, and are not even begun.
        (self.decode(packet, inside)? == inside).then_some(())?;
        self.append(inside, frames, out);
        Some(())
    }

    /// Appends frames made up of what came before.
    pub(super) fn make(&mut self, frames: usize, out: &mut Vec<i32>) {
        let wanted = frames * usize::from(self.format.channels);
        let (outside, inside) = self.unit;
        while self.surplus.len() < wanted {
            if self.decode(&[], inside) != Some(inside) {
                self.surplus.resize(wanted, 0);
                break;
            }
            let mut made = core::mem::take(&mut self.surplus);
            self.append(inside, outside, &mut made);
            self.surplus = made;
        }
        out.extend(self.surplus.drain(..wanted));
    }

    /// Decodes into the buffer, or makes up `frames` if there is no packet. Returns the frames.
    fn decode(&mut self, packet: &[u8], frames: usize) -> Option<usize> {
        let channels = usize::from(self.format.channels);
        let (decoder, buffer) = (&mut self.decoder, self.buffer.get_mut(..frames * channels)?);
        // As with the encoder; here the bytes are a stranger's.
        let decoded =
            catch_unwind(AssertUnwindSafe(|| decoder.decode_float(packet, buffer, DecodeMode::Normal)));
        match decoded {
            Ok(frames) => frames.ok(),
            Err(_) => {
                *self = Self::new(self.format)?;
                None
            }
        }
    }

    fn append(&mut self, inside: usize, frames: usize, out: &mut Vec<i32>) {
        let channels = usize::from(self.format.channels);
        let decoded = self.buffer.get(..inside * channels).unwrap_or_default();
        match &mut self.down {
            None => out.extend(decoded.iter().map(|sample| from_float(*sample))),
            Some(down) => {
                let samples: Vec<i32> = decoded.iter().map(|sample| from_float(*sample)).collect();
                let start = out.len();
                out.resize(start + frames * channels, 0);
                down.convert(&samples, out.get_mut(start..).unwrap_or_default());
            }
        }
    }
}
