//! A peer that sends anything: no frame is doubled, no memory is its choice, nothing panics.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use sound::{
    Config, Receiver, Sender,
    choice::Plan,
    codec::Decoder,
    jitter::{Arrival, Next, Queue},
    redundancy::{Distances, Keeper, Red},
    samples,
};
use wire::audio::{Block, Codec, Coded, Encoding, Format, Missing, StreamId};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const WINDOW: u64 = 48_000;

fn position() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..20_000, 1 => 40_000u64..60_000, 1 => any::<u64>()]
}

#[derive(Debug, Clone)]
enum Op {
    Insert { position: u64, frames: u64, weight: usize },
    Take,
    Skip(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let insert = (position(), prop_oneof![4 => 1u64..600, 1 => any::<u64>()], 0usize..4_000);
    prop_oneof![
        4 => insert.prop_map(|(position, frames, weight)| Op::Insert { position, frames, weight }),
        2 => Just(Op::Take),
        1 => (0u64..700).prop_map(Op::Skip),
    ]
}

proptest! {
    #[test]
    fn the_queue_never_gives_a_frame_twice_and_never_holds_more_than_it_may(
        ops in proptest::collection::vec(op(), 1..400),
    ) {
        let mut queue = Queue::new(0, WINDOW, 100_000);
        let mut given = BTreeSet::new();
        let mut next = 0;
        for op in ops {
            match op {
                Op::Insert { position, frames, weight } => {
                    let arrival = queue.insert(position, frames, (position, frames), weight);
                    let whole = position.checked_add(frames).is_some_and(|end| end <= queue.head() + WINDOW);
                    prop_assert!(whole || arrival != Arrival::Stored);
                }
                Op::Take => match queue.next() {
                    Next::Block { payload: (position, all), skip, frames } => {
                        prop_assert_eq!((position + skip, skip + frames), (next, all));
                        for frame in next..next + frames {
                            prop_assert!(given.insert(frame), "frame {} twice", frame);
                        }
                        next += frames;
                    }
                    Next::Gap(missing) => prop_assert!(missing > 0 && missing <= WINDOW),
                    Next::Empty => prop_assert_eq!(queue.load(), (0, 0)),
                },
                Op::Skip(frames) => {
                    queue.skip(frames);
                    next += frames;
                }
            }
            prop_assert_eq!(queue.head(), next);
            let (blocks, weight) = queue.load();
            prop_assert!(blocks <= 1_024 && weight <= 100_000);
        }
    }

    /// Packets in any order, doubled and lost, all in time: what comes out is what came in, each frame once.
    #[test]
    fn any_order_of_what_is_in_time_is_played_exactly(
        order in Just((0..60usize).collect::<Vec<_>>()).prop_shuffle(),
        doubled in proptest::collection::vec(0usize..60, 0..20),
        distances in proptest::collection::vec(1u8..8, 0..3),
        lost in 0usize..60,
    ) {
        let plan = Plan { codec: Codec::Pcm, frames: 120, distances: Distances::new(&distances), bits: 0 };
        let mut sender = Sender::new(StreamId(1), 1, FORMAT, 0, plan);
        let pcm: Vec<u8> = (0..7_200u32).flat_map(|n| (n + 1).to_le_bytes()).collect();
        let mut packets = Vec::new();
        sender.push(Duration::ZERO, &pcm, &mut packets);
        let config = Config { start: Duration::from_millis(100), ..Config::LAN };
        let mut receiver = Receiver::new(&packets[0], config).unwrap();
        for at in order.iter().chain(&doubled).filter(|at| **at != lost || distances.is_empty()) {
            receiver.push(Duration::ZERO, &packets[*at]);
        }
        // A lost packet is repaired if its copy came with a later one.
        let repaired = distances.is_empty() || distances.iter().any(|d| lost + usize::from(*d) < 60);
        receiver.drain();
        let mut heard = vec![0; 7_200 * 2];
        receiver.pull(Duration::from_millis(200), &mut heard);
        let mut bytes = bytes::BytesMut::new();
        samples::narrow(FORMAT.encoding, &heard, &mut bytes);
        prop_assert_eq!(receiver.counters().concealed == 0, repaired || lost == 59);
        if repaired {
            prop_assert!(bytes == pcm);
        }
    }

    #[test]
    fn a_receiver_survives_any_packets_at_any_times(
        steps in proptest::collection::vec(
            (position(), 1u16..2_000, any::<bool>(), any::<bool>(), 0u64..400, 0usize..3, 0u8..3), 1..150),
        resample in any::<bool>(),
        ring in any::<bool>(),
    ) {
        let clocking = if resample { sound::Clocking::Resample(44_100) } else { sound::Clocking::SenderFollows };
        let config = Config { clocking, ..Config::LAN };
        let mut receiver = Receiver::at(StreamId(1), 1, FORMAT, 100, config).unwrap();
        receiver.set_round_trip(Some(Duration::from_millis(5)));
        if ring {
            receiver.set_ring(Duration::from_millis(60), Duration::from_millis(10), 0);
        }
        let (mut now, mut out, mut played) = (Duration::ZERO, vec![0; 960], 100);
        for (position, frames, opus, again, millis, pulls, copies) in steps {
            let codec = if opus { Codec::Opus } else { Codec::Pcm };
            let payload = Bytes::from(vec![frames as u8; if opus { 60 } else { usize::from(frames) * 4 }]);
            let block = Block { position: position.min(u64::MAX - 2_000), frames, codec, payload };
            let copy = |n: u8| Block { position: block.position.saturating_sub(u64::from(n) * 7), ..block.clone() };
            let copies = (1..=copies).map(copy).collect();
            let (stream, run) = (StreamId(1), 1);
            receiver.push(now, &Coded { stream, run, again, format: FORMAT, block, copies });
            for _ in 0..pulls {
                if ring {
                    let behind = receiver.behind();
                    receiver.supply(now, 240, frames.into(), &mut out);
                    let got = (out.len() / usize::from(FORMAT.channels)) as u64;
                    prop_assert!(resample || got + receiver.behind() == 240 + behind, "{} of {}", got, behind);
                } else {
                    receiver.pull(now, &mut out);
                }
                now += Duration::from_millis(millis / 4);
            }
            if let Some(reception) = receiver.report() {
                prop_assert!(reception.target <= sound::jitter::CAP && reception.loss <= 1_000_000);
            }
            let _ = receiver.missing();
            prop_assert!(receiver.playing() >= played, "no frame is played twice");
            played = receiver.playing();
            prop_assert!(receiver.queued() <= 2 * WINDOW);
            if again {
                receiver.drain();
            }
        }
    }

    #[test]
    fn every_encoding_is_read_and_written_exactly(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for encoding in [Encoding::U8, Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            let size = encoding.bytes() as usize;
            let whole = &bytes[..bytes.len() - bytes.len() % size];
            let (mut wide, mut back) = (Vec::new(), bytes::BytesMut::new());
            samples::widen(encoding, &bytes, &mut wide);
            samples::narrow(encoding, &wide, &mut back);
            prop_assert_eq!(&back[..], whole, "{:?}", encoding);
            // And through floating point, as far as 24 bits go.
            if encoding.significant_bits() <= 24 {
                let mask = !0 << (32 - encoding.significant_bits());
                let wide: Vec<i32> = wide.into_iter().map(|sample| sample & mask).collect();
                let floats: Vec<i32> = wide.iter().map(|s| samples::from_float(samples::to_float(*s))).collect();
                prop_assert_eq!(floats, wide, "{:?}", encoding);
            }
        }
    }

    #[test]
    fn copies_are_of_earlier_blocks_at_their_distances(
        frames in proptest::collection::vec(1u16..500, 1..60),
        distances in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let (mut red, distances) = (Red::default(), Distances::new(&distances));
        let (mut sent, mut position) = (Vec::new(), 0);
        for frames in frames {
            let block = Block { position, frames, codec: Codec::Pcm, payload: Bytes::from(vec![frames as u8]) };
            let copies = red.copies(&block, distances);
            let expected = distances.iter().filter_map(|d| sent.len().checked_sub(d.into()));
            let expected: Vec<Block> = expected.map(|at| Block::clone(&sent[at])).collect();
            prop_assert_eq!(copies, expected);
            position += u64::from(frames);
            sent.push(block);
        }
    }

    #[test]
    fn answers_are_given_once_and_cost_at_most_a_quarter(
        gaps in proptest::collection::vec((0u64..60_000, any::<u32>()), 1..64),
    ) {
        let mut keeper = Keeper::default();
        for n in 0..100u64 {
            let payload = Bytes::from(vec![0; 960]);
            keeper.keep(Duration::from_millis(5 * n), &Block { position: n * 240, frames: 240, codec: Codec::Pcm, payload });
        }
        let first = keeper.answer(&gaps);
        let second = keeper.answer(&gaps);
        prop_assert!(first.len() + second.len() <= 25);
        let positions: BTreeSet<u64> = first.iter().chain(&second).map(|block| block.position).collect();
        prop_assert_eq!(positions.len(), first.len() + second.len());
    }

    #[test]
    fn a_decoder_takes_any_bytes_and_yields_as_many_frames_as_were_said_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        frames in prop_oneof![Just(120usize), Just(240), Just(480), Just(960), 0usize..6_000],
        channels in 1u8..4,
        rate in prop_oneof![Just(48_000u32), Just(44_100), Just(11_025)],
    ) {
        let format = Format { rate, channels, ..FORMAT };
        let mut decoder = Decoder::new(format);
        for codec in [Codec::Opus, Codec::Pcm, Codec::Opus] {
            let mut out = Vec::new();
            let read = decoder.decode(codec, &bytes, frames, 0, &mut out);
            let whole = if read.is_ok() { frames * usize::from(channels) } else { 0 };
            prop_assert_eq!(out.len(), whole);
            out.clear();
            decoder.conceal(100, &mut out);
            prop_assert_eq!(out.len(), 100 * usize::from(channels));
        }
    }
}

#[test]
fn nobody_makes_a_sender_send_more_than_it_has() {
    let plan = Plan { codec: Codec::Pcm, frames: 240, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(1), 1, FORMAT, 0, plan);
    let mut out = Vec::new();
    sender.push(Duration::ZERO, &[0; 4 * 2_400], &mut out);
    let mut again = Vec::new();
    for run in [1, 2] {
        for gaps in [vec![(0, u32::MAX)], vec![(u64::MAX, u32::MAX)], vec![(480, 1); 1_000]] {
            sender.answer(&Missing { stream: StreamId(1), run, gaps }, &mut again);
        }
    }
    assert!(
        again.len() <= 3 && again.iter().all(|coded| coded.again && coded.copies.is_empty()),
        "{again:?}"
    );
}

/// A second more than there is time for before each pull, in blocks of this many frames, each so far behind the one before
/// it; what was decoded of it at most in one pull, and how many frames were refused.
fn flood(codec: Codec, frames: u16, step: u64) -> (u64, u64) {
    let plan = Plan { codec, frames, distances: Distances::NONE, bits: 128_000 };
    let mut sender = Sender::new(StreamId(1), 1, FORMAT, 0, plan);
    let mut sent = Vec::new();
    sender.push(Duration::ZERO, &vec![1; 4 * usize::from(frames)], &mut sent);
    let template = sent.remove(0);
    assert_eq!(template.block.codec, codec);
    let mut receiver = Receiver::at(StreamId(1), 1, FORMAT, 0, Config::LAN).unwrap();
    let (mut most, mut before, mut position) = (0, 0, 0);
    for n in 0..100u32 {
        let now = Duration::from_millis(5) * n;
        let end = receiver.playing() + WINDOW - u64::from(frames);
        while position <= end {
            let block = Block { position, ..template.block.clone() };
            receiver.push(now, &Coded { block, ..template.clone() });
            position += step;
        }
        receiver.pull(now, &mut [0; 480]);
        let decoded = receiver.counters().decoded;
        most = u64::max(most, decoded - before);
        before = decoded;
    }
    let counters = receiver.counters();
    assert!(counters.cut > 10 * WINDOW, "it is a flood: {counters:?}");
    (most, counters.refused)
}

#[test]
fn a_flood_is_dropped_as_it_came_and_one_pull_decodes_only_what_is_at_the_ends_of_the_cut() {
    for (codec, frames) in [(Codec::Pcm, 240), (Codec::Pcm, 1), (Codec::Opus, 120), (Codec::Opus, 960)] {
        let (most, refused) = flood(codec, frames, frames.into());
        println!("{codec:?}, blocks of {frames}: {most} frames decoded in one pull");
        // A pull of 5 ms, 55 ms at either end, 20 ms of warming up, and what is left of a block at each place.
        let bound = 48 * (5 + 2 * 55 + 20) + 3 * u64::from(frames);
        assert!(
            most <= bound && refused == 0 || frames == 1,
            "{codec:?}, {frames}: {most} of {bound}, {refused}"
        );
    }
}

#[test]
fn a_block_longer_than_may_wait_does_not_turn_time_back() {
    let format = Format { rate: 11_025, ..FORMAT };
    let mut receiver = Receiver::at(StreamId(1), 1, format, 100, Config::LAN).unwrap();
    let payload = Bytes::from(vec![1; 4 * usize::from(wire::audio::MAX_FRAMES)]);
    let block = Block { position: 0, frames: wire::audio::MAX_FRAMES, codec: Codec::Pcm, payload };
    let coded = Coded { stream: StreamId(1), run: 1, again: false, format, block, copies: Vec::new() };
    receiver.push(Duration::ZERO, &coded);
    assert_eq!((receiver.playing(), receiver.counters().refused), (100, 1));
}

#[test]
fn blocks_that_overlap_are_refused_and_cost_nothing() {
    let mut receiver = Receiver::at(StreamId(1), 1, FORMAT, 0, Config::LAN).unwrap();
    let block = |position, frames: u16| {
        let payload = Bytes::from(vec![1; 4 * usize::from(frames)]);
        let block = Block { position, frames, codec: Codec::Pcm, payload };
        Coded { stream: StreamId(1), run: 1, again: false, format: FORMAT, block, copies: Vec::new() }
    };
    (0..960).for_each(|n| receiver.push(Duration::ZERO, &block(n, 960)));
    receiver.push(Duration::ZERO, &block(960, 960));
    receiver.push(Duration::ZERO, &block(1_000, 10));
    receiver.drain();
    receiver.pull(Duration::ZERO, &mut [0; 2 * 2_000]);
    let counters = receiver.counters();
    assert_eq!((counters.played, counters.decoded), (1_920, 1_920), "{counters:?}");
    assert_eq!(counters.refused, 959, "{counters:?}");
}

#[test]
fn a_packet_that_holds_more_than_it_says_is_not_even_begun() {
    let plan = Plan { codec: Codec::Opus, frames: 960, distances: Distances::NONE, bits: 128_000 };
    let mut sent = Vec::new();
    Sender::new(StreamId(1), 1, FORMAT, 0, plan).push(Duration::ZERO, &[9; 4 * 960], &mut sent);
    let mut decoder = Decoder::new(FORMAT);
    for (frames, fits) in [(120, false), (480, false), (960, true), (1_920, false)] {
        let read = decoder.decode(Codec::Opus, &sent[0].block.payload, frames, 0, &mut Vec::new());
        assert_eq!(read.is_ok(), fits, "{frames}");
    }
}
