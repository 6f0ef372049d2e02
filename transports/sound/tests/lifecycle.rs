//! A stream from its first packet to its last, as a device hears it.

use std::time::Duration;

use sound::{Clocking, Config, Receiver, Sender, choice::Plan, jitter::CAP, redundancy::Distances};
use wire::audio::{Codec, Coded, Encoding, Format, Reception, StreamId};

const FORMAT: Format = Format { rate: 8_000, encoding: Encoding::S32, channels: 1 };
/// Frames of 5 ms.
const PACKET: u64 = 40;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Packets in which every frame is its own number, from 1 on.
fn packets(count: u64) -> Vec<Coded> {
    let plan = Plan { codec: Codec::Pcm, frames: PACKET as u16, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(4), 1, FORMAT, 0, plan);
    let pcm: Vec<u8> = (1..=(count * PACKET) as i32).flat_map(i32::to_le_bytes).collect();
    let mut packets = Vec::new();
    sender.push(Duration::ZERO, &pcm, &mut packets);
    packets
}

/// A device with a period of 10 ms, and everything it has heard.
struct Desk {
    receiver: Receiver,
    now: Duration,
    heard: Vec<i32>,
    reports: Vec<Reception>,
}

impl Desk {
    fn new(config: Config) -> Self {
        let receiver = Receiver::at(StreamId(4), 1, FORMAT, 0, config).unwrap();
        Self { receiver, now: Duration::ZERO, heard: Vec::new(), reports: Vec::new() }
    }

    /// Lets 5 ms pass in which these packets come.
    fn step(&mut self, packets: &[Coded]) {
        packets.iter().for_each(|coded| self.receiver.push(self.now, coded));
        if self.now.as_millis().is_multiple_of(10) {
            let mut out = [0; 80];
            self.receiver.pull(self.now, &mut out);
            self.heard.extend(out);
            self.reports.extend(self.receiver.report());
        }
        self.now += ms(5);
    }

    /// The frames that were heard, without silence.
    fn sound(&self) -> Vec<i32> {
        self.heard.iter().copied().filter(|sample| *sample != 0).collect()
    }
}

#[test]
fn a_pause_is_no_slip_and_the_stream_goes_on_at_the_same_frame() {
    let packets = packets(400);
    let mut desk = Desk::new(Config::LAN);
    for half in packets.chunks(200) {
        half.iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
        desk.receiver.drain();
        // Three seconds and a bit.
        (0..601).for_each(|_| desk.step(&[]));
        assert!(desk.receiver.idle());
    }
    assert_eq!(desk.sound(), (1..=400 * PACKET as i32).collect::<Vec<_>>());
    let counters = desk.receiver.counters();
    assert_eq!((counters.waited, counters.lost, counters.cut), (0, 0, 0), "{counters:?}");
    assert!(desk.receiver.exact());
    let last = desk.reports.last().unwrap();
    assert!(last.jitter <= ms(1) && last.target <= ms(21), "a pause is no jitter: {last:?}");
}

#[test]
fn a_sound_shorter_than_the_target_is_heard_as_a_whole() {
    let mut desk = Desk::new(Config::LAN);
    desk.step(&packets(1));
    desk.receiver.drain();
    (0..4).for_each(|_| desk.step(&[]));
    assert_eq!(desk.sound(), (1..=PACKET as i32).collect::<Vec<_>>());
}

#[test]
fn a_lost_packet_is_a_hole_of_its_own_length() {
    let mut desk = Desk::new(Config::LAN);
    for (n, coded) in packets(200).iter().enumerate() {
        desk.step(if n == 100 { &[] } else { std::slice::from_ref(coded) });
    }
    let counters = desk.receiver.counters();
    assert_eq!((counters.lost, counters.concealed, counters.waited, counters.late), (PACKET, PACKET, 0, 0));
    assert!(!desk.receiver.exact());
    let at = |frame: i32| desk.heard.iter().position(|sample| *sample == frame);
    let (before, after) = (at(100 * PACKET as i32).unwrap(), at(102 * PACKET as i32).unwrap());
    assert_eq!(after - before, 2 * PACKET as usize, "the time line goes on");
    let loss: Vec<u32> = desk.reports.iter().map(|r| r.loss).filter(|loss| *loss > 0).collect();
    assert!(matches!(loss[..], [47_000..=50_000]), "one of the twenty of its tenth of a second: {loss:?}");
}

#[test]
fn a_late_packet_makes_the_target_grow_at_once() {
    let packets = packets(400);
    let mut desk = Desk::new(Config::LAN);
    packets[..200].iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    let before = desk.reports.last().unwrap().target;
    // 40 ms late, and all that follow wait for it.
    (0..8).for_each(|_| desk.step(&[]));
    desk.step(&packets[200..209]);
    packets[209..260].iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    let after = desk.reports.last().unwrap();
    let counters = desk.receiver.counters();
    assert!(after.target >= before + ms(15), "{before:?} to {after:?}");
    assert_eq!((counters.concealed, counters.cut), (0, 0), "{counters:?}");
    assert!(after.level >= ms(44), "what was waited for is kept: {after:?}");
}

#[test]
fn an_overtaken_packet_that_is_too_late_is_lost_and_makes_the_others_wait_longer() {
    let packets = packets(400);
    let mut desk = Desk::new(Config::LAN);
    for (n, coded) in packets.iter().enumerate() {
        match n {
            200 => desk.step(&[]),
            212 => desk.step(&[packets[200].clone(), coded.clone()]),
            _ => desk.step(std::slice::from_ref(coded)),
        }
    }
    let (counters, last) = (desk.receiver.counters(), desk.reports.last().unwrap());
    assert_eq!((counters.late, counters.concealed), (1, PACKET), "{counters:?}");
    assert!(last.target >= ms(60), "{last:?}");
    assert!(last.level >= ms(60), "all that follow wait as long: {last:?}");
}

#[test]
fn what_comes_twice_is_no_lateness_however_late_it_is() {
    let packets = packets(400);
    let mut desk = Desk::new(Config::LAN);
    for (n, coded) in packets.iter().enumerate() {
        let again = n.checked_sub(if n % 3 == 0 { 1 } else { 30 }).map(|n| packets[n].clone());
        let come: Vec<Coded> = again.into_iter().chain([coded.clone()]).collect();
        desk.step(&come);
    }
    let (counters, last) = (desk.receiver.counters(), desk.reports.last().unwrap());
    assert_eq!((counters.late, counters.waited, counters.concealed), (0, 0, 0), "{counters:?}");
    assert!(counters.duplicate > 370 && last.target <= ms(20) && last.loss == 0, "{counters:?} {last:?}");
    assert!(desk.sound().windows(2).all(|pair| pair[1] == pair[0] + 1), "each frame once");
}

#[test]
fn what_is_missing_is_asked_for_once_and_only_if_the_answer_can_be_in_time() {
    for (round_trip, asked) in [(Some(ms(5)), 1), (Some(ms(500)), 0), (None, 0)] {
        let mut desk = Desk::new(Config { start: ms(60), ..Config::LAN });
        desk.receiver.set_round_trip(round_trip);
        let mut asks = Vec::new();
        for (n, coded) in packets(200).iter().enumerate() {
            desk.step(if n == 100 { &[] } else { std::slice::from_ref(coded) });
            asks.extend(desk.receiver.missing());
        }
        assert_eq!(asks.len(), asked, "{round_trip:?}: {asks:?}");
        if let Some(missing) = asks.first() {
            assert_eq!(missing.gaps, [(100 * PACKET, PACKET as u32)]);
        }
    }
}

#[test]
fn a_report_is_due_ten_times_a_second_and_tells_where_the_device_is() {
    let mut desk = Desk::new(Config::LAN);
    packets(600).iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    assert_eq!(desk.reports.len(), 29, "three seconds");
    for pair in desk.reports.windows(2) {
        assert_eq!(pair[1].at - pair[0].at, ms(100));
        assert!(pair[1].position - pair[0].position == 800 || pair[0].position == 0, "{pair:?}");
        assert!(pair[1].level.abs_diff(ms(20)) < ms(1), "{pair:?}");
    }
}

#[test]
fn more_than_the_cap_never_waits_and_the_cut_leaves_the_target() {
    let packets = packets(200);
    let mut desk = Desk::new(Config::LAN);
    packets[..20].iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    desk.step(&packets[20..80]);
    desk.step(&[]);
    let waits = sound::time_of(desk.receiver.queued(), FORMAT.rate);
    assert!(waits <= ms(30), "{waits:?}");
    assert!(desk.receiver.counters().cut > 0 && waits < CAP);
}

#[test]
fn a_device_that_stood_still_hears_the_newest_sound_when_it_goes_on() {
    let packets = packets(1_000);
    let mut desk = Desk::new(Config::LAN);
    packets[..100].iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    // Three seconds in which it asks for nothing.
    for coded in &packets[100..700] {
        desk.receiver.push(desk.now, coded);
        desk.now += ms(5);
        assert!(desk.receiver.queued() <= 8_000 + 160, "memory is bounded");
    }
    packets[700..720].iter().for_each(|coded| desk.step(std::slice::from_ref(coded)));
    let behind = 720 * PACKET - desk.receiver.playing();
    assert!(behind <= 8 * 50, "{behind} frames behind");
}

#[test]
fn packets_of_other_runs_are_dropped() {
    let mut desk = Desk::new(Config::LAN);
    for coded in packets(40) {
        desk.step(&[
            Coded { run: 2, ..coded.clone() },
            Coded { stream: StreamId(3), ..coded.clone() },
            coded,
        ]);
    }
    desk.receiver.drain();
    (0..20).for_each(|_| desk.step(&[]));
    assert_eq!(desk.sound(), (1..=40 * PACKET as i32).collect::<Vec<_>>());
}

#[test]
fn a_device_of_another_rate_hears_as_long_as_was_sent() {
    let config = Config { clocking: Clocking::Resample(48_000), ..Config::LAN };
    let mut receiver = Receiver::at(StreamId(4), 1, FORMAT, 0, config).unwrap();
    let mut out = vec![0; 480];
    for (n, coded) in packets(400).iter().enumerate() {
        receiver.push(ms(5 * n as u64), coded);
        if n % 2 == 0 {
            receiver.pull(ms(5 * n as u64), &mut out);
        }
    }
    let counters = receiver.counters();
    assert_eq!((counters.waited, counters.concealed, counters.cut), (0, 0, 0), "{counters:?}");
    assert!((15_500..=16_000).contains(&counters.played), "{counters:?}");
    assert!(receiver.ratio().abs() < 100_000, "{}", receiver.ratio());
}

#[test]
fn a_file_that_leaves_fillers_out_and_takes_the_excess_has_every_frame_once_and_in_order() {
    for stall in [30, 120, 200, 400] {
        let packets = packets(600);
        let mut receiver = Receiver::at(StreamId(4), 1, FORMAT, 0, Config::LAN).unwrap();
        let (mut file, mut sent) = (Vec::new(), packets.iter());
        for n in 0..700u32 {
            let now = ms(5) * n;
            // Nothing comes from 1 s on; then all of it at once.
            let stalled = (200..200 + stall / 5).contains(&n);
            let due = if stalled { 0 } else { (n as usize + 1).saturating_sub(600 - sent.len()) };
            for coded in sent.by_ref().take(due) {
                receiver.push(now, coded);
                receiver.take_excess(now, &mut file);
            }
            if n == 650 {
                receiver.drain();
            }
            let mut out = [0; PACKET as usize];
            receiver.pull(now, &mut out);
            let filler = |at: usize| receiver.fillers().iter().any(|range| range.contains(&at));
            file.extend(out.iter().enumerate().filter(|(at, _)| !filler(*at)).map(|(_, sample)| sample));
        }
        let expected: Vec<i32> = (1..=600 * PACKET as i32).collect();
        assert!(file == expected, "{stall} ms: {} frames, {:?}", file.len(), receiver.counters());
        assert!(receiver.exact() && receiver.counters().waited > 0);
    }
}

#[test]
fn a_target_that_grows_is_waited_for_and_changes_no_frame() {
    let packets = packets(400);
    let mut receiver = Receiver::at(StreamId(4), 1, FORMAT, 0, Config::LAN).unwrap();
    let (mut heard, mut queue) = (Vec::new(), Vec::new());
    for n in 0..440u32 {
        let now = ms(5) * n;
        // Each tenth packet is later than the one before it of that kind: the target grows again and again.
        let late = if n % 10 == 0 { n / 20 } else { 0 };
        queue.extend(packets.get(n as usize).map(|coded| (n + late / 5, coded)));
        queue.iter().filter(|(due, _)| *due == n).for_each(|(_, coded)| receiver.push(now, coded));
        queue.retain(|(due, _)| *due > n);
        let mut out = [0; PACKET as usize];
        receiver.pull(now, &mut out);
        let filler = |at: usize| receiver.fillers().iter().any(|range| range.contains(&at));
        heard.extend(out.iter().enumerate().filter(|(at, _)| !filler(*at)).map(|(_, sample)| *sample));
        if receiver.counters().lost > 0 {
            break;
        }
    }
    assert!(receiver.exact() && receiver.counters().waited > 0, "{:?}", receiver.counters());
    assert!(heard.iter().zip(1..).all(|(heard, said)| *heard == said), "{:?}", receiver.counters());
}
