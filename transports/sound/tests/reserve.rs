//! A device with a reserve of its own: what is late by less than that is waited for, and nothing is made up.

use std::time::Duration;

use sound::{Config, Receiver, Sender, choice::Plan, redundancy::Distances};
use wire::audio::{Codec, Encoding, Format, StreamId};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S32, channels: 1 };
const MS: Duration = Duration::from_millis(1);
/// What most cards take at once, frames, and what the ring holds beyond that.
const PERIOD: usize = 480;
const ROOM: usize = 50 * 48;

/// A card with a ring before it, filled every 2 ms, of which the receiver knows.
struct Card {
    ring: std::collections::VecDeque<i32>,
    owed: usize,
    heard: Vec<i32>,
    xruns: u32,
    /// Frames of time since it took some.
    since: usize,
}

/// What a card that takes so many frames at once, and did so `since` frames ago, hears of numbered frames in packets of
/// 2.5 ms, each of which is late by as much as `late` says, in ms.
fn hear(seconds: u32, period: usize, since: usize, late: impl Fn(u32) -> u32) -> (Card, Receiver) {
    let plan = Plan { codec: Codec::Pcm, frames: 120, distances: Distances::NONE, bits: 0 };
    let mut sender = Sender::new(StreamId(0), 1, FORMAT, 0, plan);
    let config = Config { period: MS, ..Config::LAN };
    let mut receiver = Receiver::at(StreamId(0), 1, FORMAT, 0, config.over(Some(MS))).unwrap();
    let (holds, time) = (period + ROOM, |frames: usize| sound::time_of(frames as u64, FORMAT.rate));
    let mut next = period - since;
    receiver.set_ring(time(holds), time(period), next as u64);
    let (ring, owed) = (Default::default(), holds - next);
    let mut card = Card { ring, owed, heard: Vec::new(), xruns: 0, since };
    let (mut coded, mut samples, mut on_the_way) = (Vec::new(), Vec::new(), Vec::new());
    for half in 0..seconds * 2_000 {
        let now = MS * half / 2;
        if half.is_multiple_of(5) {
            let first = sender.position() as i32;
            let pcm: Vec<u8> = (first + 1..=first + 120).flat_map(i32::to_le_bytes).collect();
            sender.push(now, &pcm, &mut coded);
            on_the_way.extend(coded.drain(..).map(|coded| (half + 2 * late(half / 5), coded)));
        }
        // Nothing overtakes anything.
        while on_the_way.first().is_some_and(|(due, _)| *due <= half) {
            receiver.push(now, &on_the_way.remove(0).1);
        }
        if half.is_multiple_of(4) {
            let wanted = holds.saturating_sub(card.ring.len() + card.owed).min(108);
            card.owed += wanted;
            // What the card lacks less than 4 ms before it takes a period has to be made up.
            let about = half as usize * 24 + 4 * 48 >= next;
            let least = if about { period.saturating_sub(card.ring.len()) } else { 0 };
            receiver.supply(now, wanted, least, &mut samples);
            assert!(samples.len() <= card.owed, "no more than it has asked for");
            card.owed -= samples.len();
            card.ring.extend(&samples);
        }
        if half as usize * 24 >= next {
            (next, card.since) = (next + period, 0);
            let playing = !card.heard.is_empty();
            let some = if playing || card.ring.len() >= period { card.ring.len().min(period) } else { 0 };
            card.xruns += u32::from(playing && some < period);
            card.heard.extend(card.ring.drain(..some));
        }
        card.since += 24;
    }
    (card, receiver)
}

/// Whether all numbers are there, each once and in order, after the silence at the beginning.
fn whole(heard: &[i32]) -> bool {
    let sound: Vec<i32> = heard.iter().copied().skip_while(|sample| *sample == 0).collect();
    sound.len() > 48_000 && sound.iter().zip(1..).all(|(heard, number)| *heard == number)
}

#[test]
fn on_a_good_link_the_reserve_is_part_of_what_waits_and_the_whole_is_short() {
    // As many frames as sound servers and ALSA's dmix take at once.
    for period in [PERIOD, 1_024, 2_048, 4_096] {
        for since in [0, period / 2, period - 1] {
            let (card, receiver) = hear(20, period, since, |_| 0);
            let counters = receiver.counters();
            assert!(whole(&card.heard) && receiver.exact(), "{period}: {counters:?}");
            assert_eq!((counters.lost, counters.waited, card.xruns), (0, 0, 0), "{period}: {counters:?}");
            // Behind what has been sent, and beyond what the card has taken before its time: in both places.
            let waits = (receiver.queued() as usize + card.ring.len()).saturating_sub(card.since);
            assert!((1..48 * 14).contains(&waits), "{period}, {since}: {waits} frames wait");
        }
    }
}

#[test]
fn packets_that_are_late_by_less_than_the_reserve_cost_nothing() {
    let late = |n: u32| if n.is_multiple_of(400) && n > 0 { 9 } else { 0 };
    for period in [PERIOD, 1_024, 2_048, 4_096] {
        let (card, receiver) = hear(60, period, period / 3, late);
        let counters = receiver.counters();
        assert!(whole(&card.heard), "{period}: {counters:?}");
        let faults = (counters.lost, counters.concealed, card.xruns);
        assert_eq!(faults, (0, 0, 0), "{period}: {counters:?}");
    }
}

#[test]
fn a_device_that_has_none_any_more_is_given_what_it_asks_for() {
    let (card, mut receiver) = hear(2, PERIOD, 0, |_| 0);
    assert_eq!(receiver.behind(), card.owed as u64);
    receiver.set_ring(Duration::ZERO, Duration::ZERO, 0);
    let mut samples = Vec::new();
    receiver.supply(MS * 2_000, 4_800, 4_800, &mut samples);
    assert_eq!((samples.len(), receiver.behind()), (4_800, 0));
    // Resampling has no reserve.
    receiver.resample().unwrap();
    receiver.supply(MS * 2_100, 480, 0, &mut samples);
    assert_eq!(samples.len(), 480);
}
