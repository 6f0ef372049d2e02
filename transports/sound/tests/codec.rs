//! Opus and PCM as a listener has them: what comes out, how well, and what damaged blocks do.
#![cfg(feature = "opus")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use sound::{
    Config, Receiver, Sender,
    choice::Plan,
    codec::{Damaged, Decoder, Encoder, PACKETS, opus_frames, pcm, whole_frames},
    redundancy::Distances,
    samples,
};
use wire::audio::{Block, Codec, Coded, Encoding, Format, StreamId};

const STEREO: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const BITS: u32 = 128_000;

/// A chord, each channel another one, at the top of 32 bits.
fn chord(format: Format, frames: usize) -> Vec<i32> {
    let tone =
        |n: usize, hertz: f64| (n as f64 * hertz / f64::from(format.rate) * std::f64::consts::TAU).sin();
    (0..frames)
        .flat_map(|n| (0..format.channels).map(move |c| (n, f64::from(c))))
        .map(|(n, c)| ((tone(n, 330.0 + 110.0 * c) + tone(n, 1_100.0 + 70.0 * c)) * 5e8) as i32)
        .collect()
}

fn encode(format: Format, frames: u16, sound: &[i32]) -> Vec<Block> {
    let mut encoder = Encoder::new(format);
    let packets = sound.chunks_exact(usize::from(frames) * usize::from(format.channels));
    let block = |(n, packet): (usize, &[i32])| {
        encoder.encode(Codec::Opus, BITS, n as u64 * u64::from(frames), frames, pcm(format, packet))
    };
    packets.enumerate().map(block).collect()
}

/// Signal to noise in dB when `heard` is taken for `sent` that came later by the best number of frames up to 10 ms.
fn likeness(format: Format, sent: &[i32], heard: &[i32]) -> f64 {
    let channels = usize::from(format.channels);
    let noise = |delay: usize| {
        let pairs = sent.iter().zip(&heard[delay * channels..]);
        let (signal, noise) = pairs.skip(20_000).take(40_000).fold((0.0, 0.0), |(signal, noise), (s, h)| {
            (signal + f64::from(*s).powi(2), noise + (f64::from(*s) - f64::from(*h)).powi(2))
        });
        10.0 * (signal / noise).log10()
    };
    (0..480).map(noise).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn opus_of_every_length_sounds_like_what_was_sent() {
    for (rate, channels) in [(48_000, 2), (48_000, 1), (44_100, 2), (96_000, 2), (16_000, 1)] {
        for packet in PACKETS {
            let format = Format { rate, channels, encoding: Encoding::S24 };
            let Some(frames) = whole_frames(packet, rate) else { continue };
            assert_eq!(opus_frames(packet, format), Some(frames));
            let sound = chord(format, rate as usize * 2);
            let blocks = encode(format, frames, &sound);
            assert!(blocks.iter().all(|block| block.codec == Codec::Opus));
            let (mut decoder, mut heard) = (Decoder::new(format), Vec::new());
            for block in &blocks {
                decoder.decode(block.codec, &block.payload, frames.into(), 0, &mut heard).unwrap();
            }
            assert_eq!(heard.len(), blocks.len() * usize::from(frames) * usize::from(channels));
            let bits = blocks.iter().map(|block| block.payload.len() * 8).sum::<usize>() / 2;
            let likeness = likeness(format, &sound, &heard);
            println!("{rate} Hz, {channels} channels, {packet:?}: {likeness:.1} dB at {bits} bit/s");
            assert!(likeness > 15.0, "{rate} Hz, {channels} channels, {packet:?}: {likeness:.1} dB");
        }
    }
}

#[test]
fn what_opus_cannot_take_stays_pcm_as_it_is() {
    for (format, frames) in [
        (Format { channels: 6, ..STEREO }, 240),
        (Format { rate: 11_025, ..STEREO }, 55),
        (STEREO, 241),
        (STEREO, 1),
    ] {
        let bytes = Bytes::from(vec![7; usize::from(frames) * format.frame_bytes() as usize]);
        let block = Encoder::new(format).encode(Codec::Opus, BITS, 0, frames, bytes.clone());
        assert_eq!((block.codec, block.payload), (Codec::Pcm, bytes), "{format:?}");
    }
}

#[test]
fn a_lost_packet_of_opus_is_made_up_without_a_hole() {
    let sound = chord(STEREO, 48_000);
    let blocks = encode(STEREO, 240, &sound);
    let (mut decoder, mut heard) = (Decoder::new(STEREO), Vec::new());
    for (n, block) in blocks.iter().enumerate() {
        if n % 20 == 10 {
            decoder.conceal(240, &mut heard);
        } else {
            decoder.decode(Codec::Opus, &block.payload, 240, 0, &mut heard).unwrap();
        }
    }
    let power = |samples: &[i32]| samples.iter().map(|s| (f64::from(*s) / 1e9).powi(2)).sum::<f64>();
    let quietest = (10..200)
        .step_by(20)
        .map(|n| power(&heard[n * 480..(n + 1) * 480]) / power(&heard[(n - 2) * 480..(n - 1) * 480]));
    let quietest = quietest.fold(f64::INFINITY, f64::min);
    println!("concealed packets have at least {quietest:.2} of the power before");
    assert!(quietest > 0.3, "{quietest}");
}

#[test]
fn a_block_that_is_not_what_it_says_is_damaged_and_the_next_one_plays() {
    let sound = chord(STEREO, 4_800);
    let blocks = encode(STEREO, 240, &sound);
    let (mut decoder, mut out) = (Decoder::new(STEREO), Vec::new());
    for (codec, payload, frames) in [
        (Codec::Opus, &blocks[0].payload[..], 480),
        (Codec::Opus, &blocks[0].payload[..], 120),
        (Codec::Opus, &[][..], 240),
        (Codec::Opus, &[0xff; 1_500][..], 240),
        (Codec::Pcm, &[1, 2, 3][..], 1),
        (Codec::Pcm, &[0; 960][..], 239),
    ] {
        assert_eq!(decoder.decode(codec, payload, frames, 0, &mut out), Err(Damaged(codec)));
    }
    assert!(out.is_empty());
    decoder.decode(Codec::Opus, &blocks[1].payload, 240, 0, &mut out).unwrap();
    assert_eq!(out.len(), 480);
}

/// The whole path with Opus, 5 % loss and copies: nothing is concealed for long, and it sounds like what was sent.
#[test]
fn opus_with_copies_survives_five_percent_of_loss() {
    let plan = Plan { codec: Codec::Opus, frames: 240, distances: Distances::new(&[2, 4]), bits: BITS };
    let mut sender = Sender::new(StreamId(4), 1, STEREO, 0, plan);
    let sound = chord(STEREO, 96_000);
    let mut receiver: Option<Receiver> = None;
    let config = Config { start: Duration::from_millis(60), ..Config::LAN };
    let (mut heard, mut packets) = (Vec::new(), Vec::<Coded>::new());
    for (n, packet) in sound.chunks_exact(480).enumerate() {
        let now = Duration::from_millis(5 * n as u64);
        sender.push(now, &pcm(STEREO, packet), &mut packets);
        for coded in packets.drain(..) {
            if n % 20 != 7 {
                let receiver = receiver.get_or_insert_with(|| Receiver::new(&coded, config).unwrap());
                receiver.push(now, &coded);
            }
        }
        if n % 2 == 1 {
            let mut out = [0; 960];
            receiver.as_mut().unwrap().pull(now, &mut out);
            heard.extend(out);
        }
    }
    let receiver = receiver.unwrap();
    let counters = receiver.counters();
    assert!(!receiver.exact(), "Opus is like what was sent, but not the same");
    let start = heard.iter().position(|sample| *sample != 0).unwrap() / 2 * 2;
    let likeness = likeness(STEREO, &sound, &heard[start..]);
    println!("5 % loss, copies at 2 and 4: {counters:?}, {likeness:.1} dB");
    assert_eq!((counters.concealed, counters.cut), (0, 0));
}

#[test]
fn pcm_of_every_format_passes_the_whole_path_bit_for_bit() {
    for encoding in [Encoding::U8, Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
        for rate in [8_000, 11_025, 44_100, 48_000, 192_000] {
            for channels in [1, 2, 8] {
                let format = Format { rate, encoding, channels };
                let frames = u16::try_from(rate / 200).unwrap();
                let plan = Plan { codec: Codec::Pcm, frames, distances: Distances::NONE, bits: 0 };
                let mut sender = Sender::new(StreamId(4), 1, format, 0, plan);
                let mut dice = 1u32;
                let mut bytes = |count: usize| {
                    let mut next = || {
                        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (dice >> 24) as u8
                    };
                    (0..count).map(|_| next()).collect::<Vec<u8>>()
                };
                let sent = bytes(20 * usize::from(frames) * format.frame_bytes() as usize);
                let mut packets = Vec::new();
                sender.push(Duration::ZERO, &sent, &mut packets);
                let mut receiver = Receiver::new(&packets[0], Config::LAN).unwrap();
                packets.iter().for_each(|coded| receiver.push(Duration::ZERO, coded));
                receiver.drain();
                let mut heard = vec![0; 20 * usize::from(frames) * usize::from(channels)];
                receiver.pull(Duration::from_millis(10), &mut heard);
                let mut back = BytesMut::new();
                samples::narrow(encoding, &heard, &mut back);
                assert!(back == sent && receiver.exact(), "{format:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_packet_of_opus_with_any_damage_yields_its_frames_or_nothing(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in 0usize..40,
        frames in prop_oneof![Just(120u16), Just(240), Just(480), Just(960)],
    ) {
        let blocks = encode(STEREO, frames, &chord(STEREO, usize::from(frames) * 4));
        let (mut decoder, mut out) = (Decoder::new(STEREO), Vec::new());
        for block in blocks {
            let mut bytes = block.payload.to_vec();
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            out.clear();
            let read = decoder.decode(Codec::Opus, &bytes, frames.into(), 0, &mut out);
            prop_assert_eq!(out.len(), if read.is_ok() { usize::from(frames) * 2 } else { 0 });
            decoder.decode(Codec::Opus, &block.payload, frames.into(), 0, &mut out).unwrap();
        }
    }
}
