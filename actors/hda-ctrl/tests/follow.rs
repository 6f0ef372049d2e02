//! The actor between a guest that plays and a remote whose sound cards have clocks of their own, in virtual time.

mod common;

use std::{ops::Range, time::Duration};

use common::{RING, SOUND, World};
use pci::Dma;
use sound::{
    Config, Receiver,
    clock::{Limits, Servo},
};
use tokio::time::{self, Instant};
use wire::audio::{Coded, Encoding, Format, Jack, Reception, ToHost, ToRemote};

const FORMAT: Format = Format { rate: 8_000, encoding: Encoding::S32, channels: 1 };
const FRAMES: i32 = (RING / 4) as i32;
const HOUR: Duration = Duration::from_secs(3_600);
/// The loop is wide for the first minute, and needs as long again to calm down.
const SETTLED: Duration = Duration::from_secs(180);
/// Over this time the sample clock's pace is measured: to a packet, 8 ppm.
const MEASURED: Duration = Duration::from_secs(300);

/// A card of the remote, which takes 10 ms at once, of its own time.
struct Card {
    receiver: Receiver,
    /// Nanoseconds of the host's time.
    period: f64,
    due: f64,
    /// It is resampled at the remote.
    servo: Option<Servo>,
    /// What is heard next: frames are numbered from 1 to the end of the ring, and then from 1 on again.
    next: i32,
    heard: u64,
    jumps: u64,
}

impl Card {
    fn new(first: &Coded, now: Duration, ppm: f64) -> Self {
        let mut receiver = Receiver::new(first, Config::LAN).expect("no resampler");
        receiver.push(now, first);
        let (period, due) = (1e7 / (1.0 + ppm / 1e6), now.as_nanos() as f64);
        Self { receiver, period, due, servo: None, next: 1, heard: 0, jumps: 0 }
    }

    /// Waits for the first packet.
    async fn of(world: &mut World, ppm: f64) -> Self {
        loop {
            if let ToRemote::PlayCoded(coded) = world.asked().await {
                return Self::new(&coded, Duration::ZERO, ppm);
            }
        }
    }

    fn due(&self) -> Duration {
        Duration::from_nanos(self.due as u64)
    }

    fn pull(&mut self, now: Duration) -> Option<Reception> {
        let mut samples = [0; 80];
        self.receiver.pull(now, &mut samples);
        let mut gaps = self.receiver.fillers().iter().map(Range::len).sum::<usize>();
        for sample in samples {
            if sample == self.next {
                (self.next, self.heard) = (self.next % FRAMES + 1, self.heard + 1);
            } else if gaps > 0 {
                gaps -= 1;
            } else {
                self.jumps += 1;
            }
        }
        let report = self.receiver.report();
        if let (Some(servo), Some(report)) = (&mut self.servo, &report) {
            servo.observe(now, report.level, report.target);
        }
        let ratio = self.servo.as_ref().map_or(0, Servo::ratio);
        self.due += self.period / (1.0 + f64::from(ratio) / 1e9);
        report
    }
}

fn world() -> World {
    let world = World::new();
    let sound: Vec<u8> = (1..=FRAMES).flat_map(i32::to_le_bytes).collect();
    world.memory.ram.write(SOUND, &sound).expect("memory");
    world
}

/// An hour of a guest that plays to a card which is this much faster than the host.
async fn follow(ppm: f64) {
    let mut world = world();
    world.play(FORMAT).await;
    let mut card = Card::of(&mut world, ppm).await;
    let start = Instant::now();
    let (mut off, mut paces, mut mark) = (0.0f64, Vec::new(), None);
    while start.elapsed() < HOUR {
        if let Ok(message) = time::timeout_at(start + card.due(), world.remote.recv()).await {
            if let ToRemote::PlayCoded(coded) = message.expect("a session") {
                card.receiver.push(start.elapsed(), &coded);
            }
            continue;
        }
        let now = start.elapsed();
        let Some(report) = card.pull(now) else { continue };
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let error = millis(report.level) - millis(report.target);
        world.reports.send(ToHost::Reception(report)).expect("an actor");
        if now < SETTLED {
            continue;
        }
        off = off.max(error.abs());
        let made = card.receiver.playing() + card.receiver.queued();
        let (since, before) = *mark.get_or_insert((now, made));
        if now >= since + MEASURED {
            let pace = (made - before) as f64 / (now - since).as_secs_f64() / f64::from(FORMAT.rate);
            paces.push((pace - 1.0) * 1e6 - ppm);
            mark = Some((now, made));
        }
    }
    let counters = card.receiver.counters();
    println!("{ppm:+} ppm: {counters:?}, off its level by {off:.2} ms, of its pace by {paces:.1?} ppm");
    assert_eq!((card.jumps, card.heard), (0, counters.played), "every frame in its turn, and exact");
    assert!(card.receiver.exact() && card.heard > 8_000 * 3_590);
    assert_eq!((counters.waited, counters.lost, counters.cut, counters.late), (0, 0, 0, 0), "nothing slips");
    // The timers of a test count in milliseconds, the actor's and the card's: that much is jitter.
    assert!(off <= 1.5, "{off} ms");
    assert!(paces.len() == 11 && paces.iter().all(|ppm| ppm.abs() <= 20.0), "{paces:?}");
}

#[actix::test]
async fn a_card_that_is_200_ppm_fast_is_followed_for_an_hour_without_a_slip() {
    follow(200.0).await;
}

#[actix::test]
async fn a_card_that_is_200_ppm_slow_is_followed_for_an_hour_without_a_slip() {
    follow(-200.0).await;
}

#[actix::test]
async fn of_two_cards_the_first_is_followed_and_the_other_is_told_apart_once_and_neither_slips() {
    let mut world = world();
    // What is heard nowhere is silence.
    world.plug(Jack::Headphone, true).await;
    world.play_twice(FORMAT).await;
    let (start, mut cards, mut apart) = (Instant::now(), Vec::<(_, Card)>::new(), Vec::new());
    let (mut made, mut off) = (Vec::new(), 0.0f64);
    while start.elapsed() < Duration::from_secs(900) {
        let due = cards.iter().map(|(_, card)| card.due()).min().unwrap_or(HOUR);
        if let Ok(message) = time::timeout_at(start + due, world.remote.recv()).await {
            let now = start.elapsed();
            match message.expect("a session") {
                ToRemote::PlayCoded(coded) => match cards.iter_mut().find(|(id, _)| *id == coded.stream) {
                    Some((_, card)) => card.receiver.push(now, &coded),
                    None => {
                        let ppm = if cards.is_empty() { 200.0 } else { -200.0 };
                        cards.push((coded.stream, Card::new(&coded, now, ppm)));
                    }
                },
                ToRemote::Apart { stream, run } => {
                    apart.push((stream, run, now));
                    let card = cards.iter_mut().find(|(id, _)| *id == stream);
                    card.expect("a stream").1.servo = Some(Servo::new(Limits::RESAMPLER));
                }
                _ => {}
            }
            continue;
        }
        let now = start.elapsed();
        for (number, (_, card)) in cards.iter_mut().enumerate().filter(|(_, (_, card))| card.due() <= now) {
            let Some(report) = card.pull(now) else { continue };
            let error = report.level.as_secs_f64() - report.target.as_secs_f64();
            off = if now < Duration::from_secs(300) { 0.0 } else { off.max(error.abs() * 1e3) };
            if number == 0 && now >= Duration::from_secs(300) {
                made.push((now, card.receiver.playing() + card.receiver.queued()));
            }
            world.reports.send(ToHost::Reception(report)).expect("an actor");
        }
    }
    let ((from, before), (to, after)) = (made[0], made[made.len() - 1]);
    let pace = (after - before) as f64 / (to - from).as_secs_f64() / f64::from(FORMAT.rate);
    let ppm = (pace - 1.0) * 1e6;
    println!("apart: {apart:?}; off by {off:.2} ms at most, the leader's pace {ppm:.1} ppm");
    let [(stream, run, after)] = apart[..] else { panic!("{apart:?}") };
    assert!((stream, run) == (cards[1].0, 1) && after < Duration::from_secs(30), "{apart:?}");
    assert!((ppm - 200.0).abs() <= 20.0, "{ppm} ppm");
    assert!(off <= 3.0, "{off} ms");
    for (stream, card) in cards {
        let counters = card.receiver.counters();
        assert_eq!((counters.waited, counters.lost, counters.cut), (0, 0, 0), "{stream:?}: nothing slips");
        assert_eq!((card.jumps, card.heard > 8_000 * 890), (0, true), "{stream:?}");
    }
}
