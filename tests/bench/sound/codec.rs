//! How long Opus takes for a packet, on one core and by itself.

use std::{hint::black_box, time::Instant};

use sound::codec::{Decoder, Encoder, PACKETS, pcm, whole_frames};
use wire::audio::{Block, Codec};

use crate::FORMAT;

/// Bits per second: what the product uses for stereo, and half and one and a half times as much.
const RATES: [u32; 3] = [64_000, 128_000, 192_000];
/// Seconds of sound.
const SECONDS: u32 = 10;

/// Lines for each rate and length of packet: microseconds to write and to read one, and what that is of a core.
pub(crate) fn lines() -> Vec<String> {
    let cases = RATES.iter().flat_map(|bits| PACKETS.iter().skip(1).map(move |packet| (*bits, *packet)));
    let line = |(bits, packet)| {
        let frames = whole_frames(packet, FORMAT.rate)?;
        let (blocks, write) = write(bits, frames)?;
        let read = read(&blocks, frames)?;
        let [write, read] = [write, read].map(|seconds| seconds / blocks.len() as f64 * 1e6);
        let part = |micros: f64| micros / packet.as_secs_f64() / 1e4;
        Some(format!(
            "{:>3} kbit/s, packets of {:>2} ms   encode {write:>6.1} us ({:.2} % of a core)   decode {read:>6.1} us ({:.2} %)",
            bits / 1_000,
            packet.as_millis(),
            part(write),
            part(read)
        ))
    };
    cases.filter_map(line).collect()
}

/// Three tones and some noise: as hard to write as music.
fn music(from: u32, frames: u16) -> Vec<i32> {
    let sample = |n: u32| {
        let at = f64::from(n) / f64::from(FORMAT.rate) * std::f64::consts::TAU;
        let tones: f64 = [220.0, 554.4, 3_000.0].iter().map(|hertz| (at * hertz).sin()).sum();
        let noise = f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5;
        ((tones * 0.2 + noise * 0.05) * f64::from(i32::MAX)) as i32
    };
    (from..from + u32::from(frames)).flat_map(|n| [sample(n), sample(n.wrapping_add(977))]).collect()
}

/// The packets, and the seconds that they took.
fn write(bits: u32, frames: u16) -> Option<(Vec<Block>, f64)> {
    let mut encoder = Encoder::new(FORMAT);
    let count = FORMAT.rate * SECONDS / u32::from(frames);
    let sound: Vec<_> = (0..count).map(|n| pcm(FORMAT, &music(n * u32::from(frames), frames))).collect();
    let since = Instant::now();
    let blocks: Vec<Block> = sound
        .into_iter()
        .enumerate()
        .map(|(n, pcm)| encoder.encode(Codec::Opus, bits, n as u64 * u64::from(frames), frames, pcm))
        .collect();
    let took = since.elapsed().as_secs_f64();
    blocks.iter().all(|block| block.codec == Codec::Opus).then_some((blocks, took))
}

fn read(blocks: &[Block], frames: u16) -> Option<f64> {
    let mut decoder = Decoder::new(FORMAT);
    let mut out = Vec::new();
    let since = Instant::now();
    for block in blocks {
        out.clear();
        decoder.decode(block.codec, &block.payload, frames.into(), 0, &mut out).ok()?;
        black_box(&out);
    }
    Some(since.elapsed().as_secs_f64())
}
