//! A device whose clock turns out to be its own, in the middle of a run.

use std::time::Duration;

use sound::{Config, Receiver, Sender, choice::Plan, redundancy::Distances};
use wire::audio::{Codec, Encoding, Format, StreamId};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S32, channels: 2 };
const MS: Duration = Duration::from_millis(1);
/// A frame's number on the left, and on the right its negative: both exact in 24 bits. A filter keeps a straight line.
const STEP: i32 = 1 << 14;

/// Pulls of any length, and a switch before the one that begins at `switch` ms.
fn hear(pulls: impl Iterator<Item = usize>, switch: u32) -> (Vec<[i32; 2]>, Receiver) {
    let plan = Plan { codec: Codec::Pcm, frames: 240, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(0), 1, FORMAT, 0, plan);
    let mut receiver = Receiver::at(StreamId(0), 1, FORMAT, 0, Config::LAN).unwrap();
    let (mut heard, mut n, mut coded) = (Vec::new(), 0, Vec::new());
    for (at, frames) in pulls.enumerate() {
        let now = MS * at as u32;
        if at.is_multiple_of(5) {
            let pcm = (0..240).flat_map(|_| {
                n += STEP;
                [n, -n].map(i32::to_le_bytes).concat()
            });
            sender.push(now, &pcm.collect::<Vec<_>>(), &mut coded);
            coded.drain(..).for_each(|coded| receiver.push(now, &coded));
        }
        if at as u32 == switch {
            receiver.resample().unwrap();
        }
        let mut out = vec![0; 2 * frames];
        receiver.pull(now, &mut out);
        heard.extend(out.as_chunks::<2>().0);
    }
    (heard, receiver)
}

#[test]
fn no_frame_is_lost_or_doubled_where_resampling_begins() {
    for uneven in [0, 1, 17] {
        let lengths = |at: usize| if at.is_multiple_of(2) { 48 - uneven } else { 48 + uneven };
        let (heard, receiver) = hear((0..2_000).map(lengths), 1_000);
        let begin = heard.iter().position(|frame| frame[0] != 0).unwrap();
        let switch = 48 * 1_000;
        for (at, pair) in heard.windows(2).enumerate().skip(begin) {
            let [before, after] = [pair[0], pair[1]];
            assert_eq!(after[0], -after[1], "channels stay together at {at}");
            let step = after[0] - before[0];
            // As it came, then by half a percent faster or slower at most, and what 24 bits round; never a jump.
            let most = if at < switch { 0 } else { STEP / 32 };
            assert!((step - STEP).abs() <= most, "a step of {step} for {STEP} at frame {at}");
        }
        // Until the loop has something to say, nothing changes at all.
        let first = &heard[switch - 50..switch + 1_000];
        assert!(first.windows(2).all(|pair| pair[1][0] - pair[0][0] == STEP), "{uneven}");
        let counters = receiver.counters();
        assert_eq!((counters.lost, counters.waited, counters.cut), (0, 0, 0), "{counters:?}");
    }
}

#[test]
fn it_begins_once_and_may_begin_before_anything_was_heard() {
    let (heard, mut receiver) = hear((0..400).map(|_| 48), 0);
    let begin = heard.iter().position(|frame| frame[0] != 0).unwrap();
    assert!(heard[begin + 8..].windows(2).all(|pair| (pair[1][0] - pair[0][0] - STEP).abs() <= STEP / 32));
    let before = receiver.playing();
    receiver.resample().unwrap();
    receiver.pull(MS * 400, &mut [0; 96]);
    assert!(receiver.playing() - before <= 50, "nothing is taken twice to prime the filter");
    assert!(!receiver.exact());
}
