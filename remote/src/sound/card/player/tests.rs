//! What a card hears.

use std::f64::consts::TAU;

use cpal::Sample;
use wire::audio::Encoding;

use super::*;

mod clocks;

fn player(channels: usize, card_channels: usize) -> (Producer<i32>, Player) {
    let (producer, ring) = RingBuffer::new(64);
    let shared = Arc::new(Shared::default());
    (producer, Player { ring, shared, channels, card_channels, target: 16, most: 48, playing: false })
}

fn push(producer: &mut Producer<i32>, samples: Range<i32>) {
    samples.for_each(|n| producer.push(n << 16).unwrap());
}

/// What a card of this rate, which takes ten milliseconds at once, hears of a sine of one second at another.
fn hear(from: u32, to: u32, frames: usize) -> (Vec<f64>, Card) {
    let format = Format { rate: from, encoding: Encoding::S32, channels: 2 };
    let (mut card, ring) = Card::new(format, to).unwrap();
    let (channels, target) = (2, samples(Format { rate: to, ..format }, PERIOD));
    let shared = Arc::clone(&card.shared);
    let mut player =
        Player { ring, shared, channels, card_channels: 2, target, most: usize::MAX, playing: false };
    let (mut given, mut heard) = (0, Vec::new());
    card.begin();
    for ms in 0..1_500u32 {
        // The ring is filled to where it should be, in pieces of any length, as packets come.
        let period = samples(Format { channels: 1, ..format }, PERIOD) as u64;
        let wants = card.wants(Duration::from_millis(1) * ms).unwrap();
        let room = (period + u64::from(ms % 7)).saturating_sub(card.waiting());
        let piece = given..(given + wants.max(usize::try_from(room).unwrap())).min(frames);
        given = piece.end;
        let sine = |n: usize| ((n as f64 * 997.0 * TAU / f64::from(from)).sin() * 1e9) as i32;
        if piece.start == frames {
            card.drain();
        } else {
            card.take(&piece.flat_map(|n| [sine(n), 0]).collect::<Vec<_>>(), &[]).unwrap();
        }
        if ms.is_multiple_of(10) {
            let mut out = vec![1i32; to as usize / 100 * 2];
            player.fill(&mut out);
            assert!(out.iter().skip(1).step_by(2).all(|sample| *sample == 0), "channels stay apart");
            heard.extend(out.iter().step_by(2).map(|sample| f64::from(*sample) / 1e9));
        }
    }
    (heard, card)
}

#[test]
fn a_run_whose_rate_the_card_lacks_is_heard_as_long_and_as_high_as_it_was() {
    for (from, to) in [(44_100, 48_000), (192_000, 48_000), (11_025, 44_100)] {
        let (heard, card) = hear(from, to, from as usize);
        assert_eq!((card.resampled_to(), card.xruns(), card.waiting()), (Some(to), 0, 0), "{from}");
        let loud = |sample: &f64| sample.abs() > 0.2;
        let (first, last) = (heard.iter().position(loud).unwrap(), heard.iter().rposition(loud).unwrap());
        assert!((last - first).abs_diff(to as usize) < 20, "{from}: {} frames", last - first);
        let sound = &heard[first + 500..last - 500];
        let crossings = sound.windows(2).filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0)).count();
        let due = sound.len() as f64 * 2.0 * 997.0 / f64::from(to);
        assert!((crossings as f64 - due).abs() < 1.5, "{from}: {crossings} for {due}");
        // Of any sine: x(n-1) + x(n+1) = 2 cos(w) x(n); nothing is lost between the pieces.
        let twice_cos = 2.0 * (997.0 * TAU / f64::from(to)).cos();
        let wrong = sound.windows(3).map(|w| (w[0] + w[2] - twice_cos * w[1]).abs());
        assert!(wrong.fold(0.0, f64::max) < 1e-4, "{from}");
    }
}

#[test]
fn a_run_at_the_rate_of_the_card_is_heard_bit_by_bit() {
    let (heard, card) = hear(48_000, 48_000, 48_000);
    assert_eq!((card.resampled_to(), card.xruns()), (None, 0));
    let sine = (0..48_000).map(|n| ((f64::from(n) * 997.0 * TAU / 48_000.0).sin() * 1e9) as i32);
    let first = heard.iter().position(|sample| *sample != 0.0).unwrap() - 1;
    assert!(sine.zip(&heard[first..]).all(|(said, heard)| f64::from(said) / 1e9 == *heard));
}

#[test]
fn sixteen_bits_pass_through_the_ring_unchanged() {
    for value in [i16::MIN, -1, 0, 1, 257, i16::MAX] {
        assert_eq!(i16::from_sample(i32::from(value) << 16), value);
    }
}

#[test]
fn the_card_gets_silence_until_enough_waits_and_counts_what_it_lacks() {
    let (mut producer, mut player) = player(2, 2);
    let mut out = [1i16; 8];
    player.fill(&mut out);
    assert_eq!((out, player.shared.xruns.load(Relaxed)), ([0; 8], 0));
    push(&mut producer, 0..20);
    player.fill(&mut out);
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
    player.fill(&mut out);
    player.fill(&mut out);
    assert_eq!((out[3], out[4], player.shared.xruns.load(Relaxed)), (19, 0, 1));
}

#[test]
fn a_card_starts_when_all_that_it_takes_at_once_is_there() {
    let (mut producer, mut player) = player(2, 2);
    let mut out = [1i16; 40];
    push(&mut producer, 0..38);
    player.fill(&mut out);
    assert_eq!(out, [0; 40]);
    push(&mut producer, 38..40);
    player.fill(&mut out);
    assert_eq!((out[1], out[39], player.shared.last.most()), (1, 39, 20));
    // More than there may ever be is not waited for.
    push(&mut producer, 40..88);
    player.playing = false;
    let mut out = [1i16; 200];
    player.fill(&mut out);
    assert_eq!((out[0], out[47], out[48]), (40, 87, 0));
}

#[test]
fn half_a_frame_is_never_played() {
    let (mut producer, mut player) = player(2, 2);
    player.playing = true;
    push(&mut producer, 0..17);
    let mut out = [1i16; 32];
    player.fill(&mut out);
    assert_eq!((out[15], out[16]), (15, 0));
    player.playing = true;
    push(&mut producer, 17..34);
    player.fill(&mut out);
    assert_eq!(out[..3], [16, 17, 18], "channels stay where they are");
}

#[test]
fn a_card_with_other_channels_hears_what_it_can() {
    for (channels, card_channels, heard) in [(1, 2, [0, 0, 1, 1]), (2, 4, [0, 1, 0, 0]), (4, 2, [0, 1, 4, 5])]
    {
        let (mut producer, mut player) = player(channels, card_channels);
        push(&mut producer, 0..16);
        let mut out = [9i16; 4];
        player.fill(&mut out);
        assert_eq!(out, heard, "{channels} on {card_channels}");
    }
}
