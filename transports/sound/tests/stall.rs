//! After a stall: how soon the latency is what it was before.

use std::time::Duration;

use sound::{
    Config, Receiver, Sender,
    choice::Plan,
    clock::{Limits, Pace, Pacer},
    redundancy::Distances,
};
use wire::audio::{Codec, Encoding, Format, StreamId};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S32, channels: 1 };

/// Of a second, so many milliseconds at its beginning are silence.
fn sample(n: u64, silence: u64) -> i32 {
    if n / 48 % 1_000 < silence { 0 } else { (n as i32 & 0xff_ffff) << 7 | 1 << 30 }
}

/// What comes of stalls (from here, so long, in milliseconds): the level in milliseconds, second by second.
fn listen(stalls: &[(u32, u32)], silence: u64, seconds: u32) -> (Vec<f64>, sound::Counters) {
    let plan = Plan { codec: Codec::Pcm, frames: 240, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(0), 1, FORMAT, 0, plan);
    let mut receiver = Receiver::at(StreamId(0), 1, FORMAT, 0, Config::LAN).unwrap();
    let mut pacer = Pacer::new(Limits::SAMPLE_CLOCK);
    pacer.set_pace(Duration::ZERO, Pace::Remote);
    let (mut produced, mut waiting, mut levels, mut next) = (0.0, Vec::new(), Vec::new(), 0);
    for ms in 0..seconds * 1_000 {
        let now = Duration::from_millis(ms.into());
        produced += 48.0 * (1.0 + f64::from(pacer.ratio(now)) / 1e9);
        while sender.position() + 240 <= produced as u64 {
            let first = sender.position();
            let pcm: Vec<u8> = (first..first + 240).flat_map(|n| sample(n, silence).to_le_bytes()).collect();
            sender.push(now, &pcm, &mut waiting);
        }
        if !stalls.iter().any(|(at, long)| (*at..*at + *long).contains(&ms)) {
            waiting.drain(..).for_each(|coded| receiver.push(now, &coded));
        }
        if ms.is_multiple_of(10) {
            let mut out = [0; 480];
            receiver.pull(now, &mut out);
            let filler = |at: usize| receiver.fillers().iter().any(|range| range.contains(&at));
            for (_, heard) in out.iter().enumerate().filter(|(at, heard)| **heard != 0 && !filler(*at)) {
                while sample(next, silence) == 0 {
                    next += 1;
                }
                assert_eq!(
                    *heard,
                    sample(next, silence),
                    "every frame that is no silence, once and in order"
                );
                next += 1;
            }
        }
        if let Some(report) = receiver.report() {
            pacer.observe(now, report.level, report.target);
            if ms % 1_000 < 100 {
                levels.push(report.level.as_secs_f64() * 1e3);
            }
        }
    }
    println!("stalls {stalls:?}, {silence} ms of silence a second: {:?}", receiver.counters());
    let shown: Vec<_> =
        levels.iter().enumerate().skip(115).filter(|(n, _)| *n < 130 || n % 10 == 0).collect();
    println!("level by the second: {shown:.0?}");
    (levels, receiver.counters())
}

#[test]
fn with_the_next_silence_the_latency_is_what_it_was() {
    let (levels, counters) = listen(&[(120_000, 100)], 50, 130);
    assert!(levels[121] > 90.0, "what was late once is waited for at first");
    // Three seconds of doubt, and the first silences after that.
    assert!(levels[126] < levels[118] + 8.0, "{:?}", &levels[118..127]);
    assert!(counters.cut.abs_diff(counters.waited) < 48 * 10, "what was waited for: {counters:?}");
}

#[test]
fn without_any_silence_the_clock_takes_two_minutes_and_no_frame_is_cut() {
    let (levels, counters) = listen(&[(120_000, 100)], 0, 250);
    assert!(levels[240] < levels[118] + 8.0, "{:?}", &levels[230..]);
    assert_eq!((counters.cut, counters.lost), (0, 0));
}

#[test]
fn a_network_that_stalls_again_and_again_is_waited_for() {
    let stalls: Vec<_> = (0..5).map(|n| (120_000 + 10_000 * n, 100)).collect();
    let twice = listen(&stalls[..2], 50, 165).1;
    let often = listen(&stalls, 50, 165).1;
    assert!(often.waited <= twice.waited + 48 * 10, "{twice:?}, {often:?}");
}

#[test]
fn silence_is_not_left_out_where_nothing_was_late_and_never_of_a_file() {
    assert_eq!(listen(&[], 50, 200).1.cut, 0);
    let plan = Plan { codec: Codec::Pcm, frames: 240, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(0), 1, FORMAT, 0, plan);
    let config = Config { skips_silence: false, ..Config::LAN };
    let mut receiver = Receiver::at(StreamId(0), 1, FORMAT, 0, config).unwrap();
    let mut packets = Vec::new();
    for n in 0..4_000u32 {
        let now = Duration::from_millis(5) * n;
        sender.push(now, &[0; 960], &mut packets);
        if !(2_000..2_020).contains(&n) {
            packets.drain(..).for_each(|coded| receiver.push(now, &coded));
        }
        receiver.pull(now, &mut [0; 240]);
    }
    let counters = receiver.counters();
    assert!(counters.waited > 48 * 70 && counters.cut == 0, "{counters:?}");
}
