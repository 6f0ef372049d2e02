//! What is chosen, and that it does not flutter.

use std::time::Duration;

use sound::{
    Config, Receiver, Sender,
    choice::{Chooser, Wish},
};
use wire::audio::{Codec, Encoding, Format, Reception, StreamId};

const STEREO: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

fn reception(loss: u32, burst: u16, jitter: u64) -> Reception {
    Reception {
        stream: StreamId(4),
        run: 1,
        position: 0,
        at: Duration::ZERO,
        level: Duration::ZERO,
        target: Duration::ZERO,
        jitter: Duration::from_micros(jitter),
        loss,
        burst,
        concealed: 0,
        slipped: 0,
        late: 0,
        duplicate: 0,
        xruns: 0,
    }
}

const LAN: Option<Duration> = Some(Duration::from_micros(500));
const AWAY: Option<Duration> = Some(Duration::from_millis(15));
const DOOR: Option<Duration> = Some(Duration::from_millis(22));
const FAR: Option<Duration> = Some(Duration::from_millis(60));

/// The plan after so many equal reports, ten a second, from this second on.
fn after(
    chooser: &mut Chooser,
    from: u64,
    reports: u64,
    reception: Reception,
    round_trip: Option<Duration>,
) -> sound::choice::Plan {
    let plans = (0..reports)
        .map(|n| chooser.observe(Duration::from_millis(from * 1_000 + n * 100), &reception, round_trip));
    plans.last().unwrap()
}

#[test]
fn each_link_gets_its_codec_and_its_copies() {
    struct Case {
        name: &'static str,
        reception: Reception,
        round_trip: Option<Duration>,
        codec: Codec,
        frames: u16,
        distances: &'static [u8],
    }
    #[rustfmt::skip]
    let cases = [
        Case { name: "a local network", reception: reception(0, 0, 500),          round_trip: LAN,  codec: Codec::Pcm,  frames: 120, distances: &[] },
        Case { name: "some loss",       reception: reception(10_000, 100, 500),   round_trip: LAN,  codec: Codec::Pcm,  frames: 240, distances: &[2] },
        Case { name: "bursts",          reception: reception(15_000, 300, 500),   round_trip: LAN,  codec: Codec::Pcm,  frames: 240, distances: &[8] },
        Case { name: "much loss",       reception: reception(50_000, 100, 500),   round_trip: LAN,  codec: Codec::Opus, frames: 240, distances: &[2, 4] },
        Case { name: "bad Wi-Fi",       reception: reception(50_000, 300, 9_000), round_trip: LAN,  codec: Codec::Opus, frames: 240, distances: &[4, 8] },
        Case { name: "next door",       reception: reception(0, 0, 4_000),        round_trip: DOOR, codec: Codec::Pcm,  frames: 240, distances: &[] },
        Case { name: "far away",        reception: reception(0, 0, 4_000),        round_trip: FAR,  codec: Codec::Opus, frames: 480, distances: &[] },
        Case { name: "busy ends",       reception: reception(0, 0, 25_000),       round_trip: LAN,  codec: Codec::Pcm , frames: 240, distances: &[] },
        Case { name: "much jitter",     reception: reception(0, 0, 25_000),       round_trip: AWAY, codec: Codec::Opus, frames: 240, distances: &[] },
    ];
    for Case { name, reception, round_trip, codec, frames, distances } in cases {
        let codec = if cfg!(feature = "opus") { codec } else { Codec::Pcm };
        let plan = after(&mut Chooser::new(Wish::Auto, STEREO), 0, 200, reception, round_trip);
        assert_eq!((plan.codec, plan.frames), (codec, frames), "{name}");
        if cfg!(feature = "opus") {
            assert_eq!(plan.distances.iter().collect::<Vec<_>>(), distances, "{name}");
        }
    }
}

#[test]
#[cfg_attr(not(feature = "opus"), ignore = "needs Opus")]
fn what_the_user_wishes_is_done_where_it_can_be() {
    let bad = reception(100_000, 100, 50_000);
    assert_eq!(after(&mut Chooser::new(Wish::Pcm, STEREO), 0, 100, bad, LAN).codec, Codec::Pcm);
    let good = reception(0, 0, 0);
    assert_eq!(after(&mut Chooser::new(Wish::Opus, STEREO), 0, 100, good, LAN).codec, Codec::Opus);
    // Surround sound cannot be, nor can a rate of which no packet is whole.
    for format in [Format { channels: 6, ..STEREO }, Format { rate: 11_025, ..STEREO }] {
        let plan = after(&mut Chooser::new(Wish::Opus, format), 0, 100, good, LAN);
        assert_eq!(plan.codec, Codec::Pcm, "{format:?}");
    }
    // Of 44.1 kHz, 10 ms are 441 frames.
    let plan = Chooser::new(Wish::Opus, Format { rate: 44_100, ..STEREO }).plan(LAN);
    assert_eq!((plan.codec, plan.frames), (Codec::Opus, 441));
    for (text, wish) in
        [("auto", Ok(Wish::Auto)), ("pcm", Ok(Wish::Pcm)), ("opus", Ok(Wish::Opus)), ("mp3", Err(()))]
    {
        assert_eq!(text.parse::<Wish>().map_err(|_| ()), wish, "{text}");
    }
}

#[test]
#[cfg_attr(not(feature = "opus"), ignore = "needs Opus")]
fn one_bad_report_changes_nothing_and_half_a_minute_of_good_ones_changes_back() {
    let mut chooser = Chooser::new(Wish::Auto, STEREO);
    let (good, bad) = (reception(0, 0, 1_000), reception(0, 0, 30_000));
    assert_eq!(after(&mut chooser, 0, 1, bad, AWAY).codec, Codec::Pcm);
    assert_eq!(after(&mut chooser, 1, 10, good, AWAY).codec, Codec::Pcm);
    assert_eq!(after(&mut chooser, 2, 2, bad, AWAY).codec, Codec::Opus);
    assert_eq!(after(&mut chooser, 3, 290, good, AWAY).codec, Codec::Opus, "29 s");
    assert_eq!(after(&mut chooser, 32, 20, good, AWAY).codec, Codec::Pcm);
    // Between good and bad nothing changes, in either state.
    let middling = reception(0, 0, 12_000);
    assert_eq!(after(&mut chooser, 40, 2_000, middling, AWAY).codec, Codec::Pcm);
    after(&mut chooser, 300, 2, bad, AWAY);
    assert_eq!(after(&mut chooser, 301, 2_000, middling, AWAY).codec, Codec::Opus);
}

/// Reports of an hour: a local network, at whose ends computers are so busy that packets are late again and again, and
/// sometimes one is so late that the time line slips. Packets are twice as long from the second late report in a row on,
/// and until none was late for half a minute.
#[test]
fn auto_stays_pcm_for_an_hour_on_a_good_link_between_busy_computers() {
    let mut chooser = Chooser::new(Wish::Auto, STEREO);
    let mut dice = 1u32;
    let (mut late_in_a_row, mut good_in_a_row, mut frames, mut fell) = (0, 0, 120, 0);
    for n in 0..36_000u64 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly some milliseconds, now and then a hundred; a round trip that has to wait for the same computers.
        let late = if dice >> 16 & 0xff == 0 { 100_000 } else { u64::from(dice >> 20 & 0xfff) };
        let report = Reception { slipped: n as u32 / 100, ..reception(0, 100, late) };
        let round_trip = Duration::from_micros(300 + late / 20);
        let plan = chooser.observe(Duration::from_millis(100 * n), &report, Some(round_trip));
        assert_eq!((plan.codec, plan.distances.iter().count()), (Codec::Pcm, 0), "report {n}");
        (late_in_a_row, good_in_a_row) = match late {
            100_000 => (late_in_a_row + 1, 0),
            _ => (0, good_in_a_row + 1),
        };
        let before = frames;
        frames = match (late_in_a_row, good_in_a_row) {
            (2.., _) => 240,
            (_, 301..) => 120,
            _ => before,
        };
        fell += u32::from(frames > before);
        assert_eq!(plan.frames, frames, "report {n}");
    }
    assert_eq!(fell, 1, "of many late reports two follow each other, once");
}

/// And what it sends is what comes out, frame by frame, while packets are late by less than what waits.
#[test]
fn what_auto_sends_over_such_a_link_is_heard_bit_by_bit() {
    let mut chooser = Chooser::new(Wish::Auto, STEREO);
    let mut sender = Sender::new(StreamId(4), 1, STEREO, 0, chooser.plan(LAN));
    let mut receiver = Receiver::at(StreamId(4), 1, STEREO, 0, Config::LAN).unwrap();
    let noise = |n: u32| n.wrapping_mul(2_654_435_761) | 1;
    let (mut dice, mut coded, mut heard) = (1u32, Vec::new(), Vec::new());
    let mut waiting = std::collections::VecDeque::new();
    for ms in 0..60_000u64 {
        let now = Duration::from_millis(ms);
        if ms.is_multiple_of(5) {
            let first = sender.position() as u32;
            let pcm: Vec<u8> = (first..first + 240).flat_map(|n| noise(n).to_le_bytes()).collect();
            sender.push(now, &pcm, &mut coded);
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let late = u64::from(dice >> 29);
            waiting.extend(coded.drain(..).map(|coded| (ms + late, coded)));
        }
        while waiting.front().is_some_and(|(due, _)| *due <= ms) {
            waiting.pop_front().iter().for_each(|(_, coded)| receiver.push(now, coded));
        }
        if ms.is_multiple_of(10) {
            let mut out = vec![0; 960];
            receiver.pull(now, &mut out);
            heard.extend(out);
        }
        if let Some(report) = receiver.report() {
            sender.set_plan(chooser.observe(now, &report, LAN));
        }
    }
    let mut bytes = bytes::BytesMut::new();
    sound::samples::narrow(STEREO.encoding, &heard, &mut bytes);
    let frames: Vec<u32> = bytes.as_chunks().0.iter().map(|frame| u32::from_le_bytes(*frame)).collect();
    let begin = frames.iter().position(|frame| *frame != 0).unwrap();
    assert!(receiver.exact(), "{:?}", receiver.counters());
    assert!(frames[begin..].iter().zip(0..).all(|(heard, n)| *heard == noise(n)));
    assert!(frames.len() - begin > 59 * 48_000);
}
