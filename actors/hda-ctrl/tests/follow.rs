//! The actor between a guest that plays and a remote whose sound card has a clock of its own, in virtual time.

mod common;

use std::{ops::Range, time::Duration};

use common::{RING, SOUND, World};
use pci::Dma;
use sound::{Config, Receiver};
use tokio::time::{self, Instant};
use wire::audio::{Encoding, Format, Reception, ToHost, ToRemote};

const FORMAT: Format = Format { rate: 8_000, encoding: Encoding::S32, channels: 1 };
const FRAMES: i32 = (RING / 4) as i32;
const HOUR: Duration = Duration::from_secs(3_600);
/// The loop is wide for the first minute, and needs as long again to calm down.
const SETTLED: Duration = Duration::from_secs(180);
/// Over this time the sample clock's pace is measured: to a packet, 8 ppm.
const MEASURED: Duration = Duration::from_secs(300);

/// A remote whose card takes 10 ms at once, of its own time.
struct Card {
    receiver: Receiver,
    /// Nanoseconds of the host's time.
    period: f64,
    pulls: u32,
    /// What is heard next: frames are numbered from 1 to the end of the ring, and then from 1 on again.
    next: i32,
    heard: u64,
    jumps: u64,
}

impl Card {
    /// Waits for the first packet.
    async fn new(world: &mut World, ppm: f64) -> Self {
        loop {
            if let ToRemote::PlayCoded(coded) = world.asked().await {
                let mut receiver = Receiver::new(&coded, Config::LAN).expect("no resampler");
                receiver.push(Duration::ZERO, &coded);
                return Self {
                    receiver,
                    period: 1e7 / (1.0 + ppm / 1e6),
                    pulls: 0,
                    next: 1,
                    heard: 0,
                    jumps: 0,
                };
            }
        }
    }

    fn due(&self) -> Duration {
        Duration::from_nanos((f64::from(self.pulls) * self.period) as u64)
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
        self.pulls += 1;
        self.receiver.report()
    }
}

/// An hour of a guest that plays to a card which is this much faster than the host.
async fn follow(ppm: f64) {
    let mut world = World::new();
    let sound: Vec<u8> = (1..=FRAMES).flat_map(i32::to_le_bytes).collect();
    world.memory.ram.write(SOUND, &sound).expect("memory");
    world.play(FORMAT).await;
    let mut card = Card::new(&mut world, ppm).await;
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
