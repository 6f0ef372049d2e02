//! A world of two clocks and a network between them, in virtual time.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use sound::{
    Clocking, Config, Receiver, Sender,
    choice::{Chooser, Plan, Wish},
    clock::{Limits, Pace, Pacer},
    redundancy::Distances,
};
use wire::audio::{Codec, Coded, Encoding, Format, Reception, StreamId};

/// Numbers that look random and are the same each time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// At least 0, less than 1.
    pub fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Losses: a part of all packets, this many in a row on average (1: at random).
pub struct Losses {
    part: f64,
    burst: f64,
    losing: bool,
}

impl Losses {
    pub fn new(part: f64, burst: f64) -> Self {
        Self { part, burst, losing: false }
    }

    pub fn lose(&mut self, dice: &mut Dice) -> bool {
        if self.burst <= 1.0 {
            return dice.roll() < self.part;
        }
        let leave = 1.0 / self.burst;
        let enter = leave * self.part / (1.0 - self.part);
        self.losing = if self.losing { dice.roll() >= leave } else { dice.roll() < enter };
        self.losing
    }
}

/// What happens on the way.
pub struct Network {
    pub losses: Losses,
    /// One way, at least.
    pub delay: Duration,
    /// And up to so much more.
    pub jitter: Duration,
    /// Packets overtake each other.
    pub reorder: bool,
    /// From here to there nothing comes; then all of it.
    pub stalls: Vec<(Duration, Duration)>,
}

impl Network {
    pub fn clean() -> Self {
        Self {
            losses: Losses::new(0.0, 1.0),
            delay: Duration::from_micros(300),
            jitter: Duration::ZERO,
            reorder: false,
            stalls: Vec::new(),
        }
    }
}

pub const PLAN: Plan = Plan { codec: Codec::Pcm, frames: 40, distances: Distances::NONE, bits: 128_000 };
pub const MONO: Format = Format { rate: 8_000, encoding: Encoding::S32, channels: 1 };

pub struct World {
    pub config: Config,
    pub plan: Plan,
    /// How much faster than the host's time the device runs, parts per million.
    pub ppm: f64,
    pub network: Network,
    /// Who sets the pace: the device, if the host follows it.
    pub follows: bool,
    /// The host's time line slips: from here to there it makes nothing, and then goes on as if no time had passed.
    pub slips: Vec<(Duration, Duration)>,
    /// The device asks up to so much later than it should.
    pub tardy: Duration,
    /// Lost packets are asked for.
    pub asks: bool,
    /// And what is sent again is not lost once more.
    pub spares_answers: bool,
    /// The plan follows what is reported, for somebody who wishes this; `plan` is how much is made at once.
    pub wish: Option<Wish>,
    /// What was before this is not counted in [`Outcome::settled`].
    pub settles: Duration,
    pub length: Duration,
}

impl World {
    pub fn new(ppm: f64, length: Duration) -> Self {
        let (network, config) = (Network::clean(), Config::LAN);
        Self {
            config,
            plan: PLAN,
            ppm,
            network,
            follows: true,
            slips: Vec::new(),
            tardy: Duration::ZERO,
            asks: false,
            spares_answers: false,
            wish: None,
            settles: Duration::ZERO,
            length,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames that came out of their turn: skipped, doubled, or of no number.
    pub wrong: u64,
    /// Frames in their turn.
    pub right: u64,
    /// Frames that were sent.
    pub sent: u64,
    pub counters: sound::Counters,
    /// Frames that were played as they came, and that were not, since it should have settled.
    pub settled: (u64, u64),
    /// How it is sent in the end.
    pub plan: Option<Plan>,
    /// The time between host and device, minute by minute, in milliseconds.
    pub latency: Vec<f64>,
    pub worst_latency: f64,
    /// When the ratio was first within 20 ppm of the drift.
    pub found: Option<Duration>,
    /// The last time when it was not.
    pub lost: Duration,
    /// How far what waits was from what should, on average over ten seconds, at most, in the second half: milliseconds.
    pub off: f64,
    /// The ratio's standard deviation in the second half, ppm.
    pub deviation: f64,
    pub last: Option<Reception>,
    /// The mean of the losses that were reported, parts per million.
    pub loss: f64,
    /// How many of them were in a row, by the reports in which there were some.
    pub burst: f64,
    pub largest_queue: u64,
}

impl Outcome {
    /// Whether the drift was found within this time.
    pub fn found_within(&self, time: Duration) -> bool {
        self.found.is_some_and(|found| found < time)
    }

    /// The part of the time that was not heard as it was sent, since it should have settled.
    pub fn unheard(&self) -> f64 {
        self.settled.1 as f64 / (self.settled.0 + self.settled.1) as f64
    }
}

struct Way {
    network: Network,
    dice: Dice,
    last: u64,
    number: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    packets: VecDeque<(u64, Option<Coded>)>,
}

impl Way {
    fn send(&mut self, now: u64, coded: Coded) {
        if !self.network.losses.lose(&mut self.dice) {
            self.deliver(now, coded);
        }
    }

    fn deliver(&mut self, now: u64, coded: Coded) {
        let jitter = self.dice.roll() * self.network.jitter.as_nanos() as f64;
        let mut at = now + self.network.delay.as_nanos() as u64 + jitter as u64;
        for (from, to) in &self.network.stalls {
            if (from.as_nanos()..to.as_nanos()).contains(&u128::from(at)) {
                at = to.as_nanos() as u64;
            }
        }
        if !self.network.reorder {
            at = at.max(self.last);
            self.last = at;
        }
        self.heap.push(Reverse((at, self.number)));
        self.packets.push_back((self.number, Some(coded)));
        self.number += 1;
    }

    fn next(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((at, _))| *at)
    }

    fn take(&mut self) -> Option<Coded> {
        let Reverse((_, number)) = self.heap.pop()?;
        let first = self.packets.front()?.0;
        let coded = self.packets.get_mut((number - first) as usize)?.1.take();
        while self.packets.front().is_some_and(|(_, coded)| coded.is_none()) {
            self.packets.pop_front();
        }
        coded
    }
}

/// Lets a world run.
pub fn run(world: World) -> Outcome {
    let World {
        config,
        plan,
        ppm,
        network,
        follows,
        slips,
        tardy,
        asks,
        spares_answers,
        wish,
        settles,
        length,
    } = world;
    let device_rate = match config.clocking {
        Clocking::SenderFollows => MONO.rate,
        Clocking::Resample(rate) => rate,
    };
    let round_trip = network.delay * 2 + network.jitter;
    let mut receiver = Receiver::at(StreamId(4), 1, MONO, 0, config).unwrap();
    receiver.set_round_trip(asks.then_some(round_trip));
    let mut chooser = wish.map(|wish| Chooser::new(wish, MONO));
    let first = chooser.as_ref().map_or(plan, |chooser| chooser.plan(Some(round_trip)));
    let mut sender = Sender::new(StreamId(4), 1, MONO, 0, first);
    let mut pacer = Pacer::new(Limits::SAMPLE_CLOCK);
    pacer.set_pace(Duration::ZERO, if follows { Pace::Remote } else { Pace::Host });
    let mut way = Way {
        network,
        dice: Dice::new(7),
        last: 0,
        number: 0,
        heap: BinaryHeap::new(),
        packets: VecDeque::new(),
    };
    let packet = 1e9 * f64::from(plan.frames) / f64::from(MONO.rate);
    let period = config.period.as_nanos() as f64 / (1.0 + ppm / 1e6);
    let mut out =
        vec![0; (config.period.as_nanos() as u64 * u64::from(device_rate) / 1_000_000_000) as usize];
    let (mut produced, mut asked, mut due) = (packet, 0.0, 0.0);
    let mut answers: VecDeque<(u64, Vec<Coded>)> = VecDeque::new();
    let (mut pcm, mut coded) = (Vec::new(), Vec::new());
    let mut outcome = Outcome { plan: Some(first), ..Outcome::default() };
    let heard = |counters: sound::Counters| (counters.played, counters.concealed + counters.waited);
    let mut before = None;
    let mut previous = 0i32;
    let (mut expected, mut minute, mut sums) = (1i32, 1u64, (0.0, 0u32));
    let (mut ratios, mut errors) = (Vec::new(), (0.0, 0));
    let (mut losses, mut bursts) = ((0.0, 0.0), (0.0, 0.0));
    let end = length.as_nanos() as u64;
    loop {
        let answered = answers.front().map_or(u64::MAX, |(at, _)| *at);
        let next = (produced as u64).min(asked as u64).min(way.next()).min(answered);
        let now = Duration::from_nanos(next);
        if next >= end {
            break;
        }
        if way.next() == next {
            receiver.push(now, &way.take().unwrap());
        } else if answered == next {
            let (_, again) = answers.pop_front().unwrap();
            for coded in again {
                if spares_answers { way.deliver(next, coded) } else { way.send(next, coded) }
            }
        } else if produced as u64 == next {
            let first = sender.position() as i32;
            pcm.clear();
            (first..first + i32::from(plan.frames)).for_each(|n| pcm.extend((n + 1).to_le_bytes()));
            sender.push(now, &pcm, &mut coded);
            coded.drain(..).for_each(|coded| way.send(next, coded));
            if let Some((_, to)) = slips.iter().find(|(from, to)| (*from..*to).contains(&now)) {
                produced = to.as_nanos() as f64;
            }
            produced += packet / (1.0 + f64::from(pacer.ratio(now)) / 1e9);
        } else {
            receiver.pull(now, &mut out);
            for sample in &out {
                if *sample == expected {
                    expected += 1;
                    outcome.right += 1;
                } else if *sample != 0 {
                    outcome.wrong += 1;
                    // Two numbers in a row are frames, and not something made up.
                    if previous.checked_add(1) == Some(*sample) {
                        expected = *sample + 1;
                    }
                }
                previous = *sample;
            }
            outcome.largest_queue = outcome.largest_queue.max(receiver.queued());
            let unmade = (produced - next as f64) / packet * f64::from(plan.frames);
            let latency = (sender.position() as f64 - unmade + f64::from(plan.frames)
                - receiver.playing() as f64)
                * 1e3
                / f64::from(MONO.rate);
            outcome.worst_latency =
                f64::max(outcome.worst_latency, if next > end / 20 { latency } else { 0.0 });
            sums = (sums.0 + latency, sums.1 + 1);
            if next > minute * 60_000_000_000 {
                outcome.latency.push(sums.0 / f64::from(sums.1));
                (sums, minute) = ((0.0, 0), minute + 1);
            }
            if let Some(reception) = receiver.report() {
                pacer.observe(now, reception.level, reception.target);
                if let Some(chooser) = &mut chooser {
                    let plan = chooser.observe(now, &reception, Some(round_trip));
                    sender.set_plan(plan);
                    outcome.plan = Some(plan);
                }
                if now >= settles {
                    before.get_or_insert(heard(receiver.counters()));
                }
                let error = reception.level.as_secs_f64() - reception.target.as_secs_f64();
                errors = (errors.0 + error * 1e3, errors.1 + 1);
                if errors.1 == 100 {
                    let mean = f64::abs(errors.0 / 100.0);
                    outcome.off = if now * 2 > length { outcome.off.max(mean) } else { 0.0 };
                    errors = (0.0, 0);
                }
                let ratio = f64::from(if follows { pacer.ratio(now) } else { -receiver.ratio() }) / 1e3 - ppm;
                if ratio.abs() <= 20.0 {
                    outcome.found.get_or_insert(now);
                } else {
                    outcome.lost = now;
                }
                if next > end / 2 {
                    ratios.push(ratio);
                }
                losses = (losses.0 + f64::from(reception.loss), losses.1 + 1.0);
                if reception.loss > 0 {
                    bursts = (bursts.0 + f64::from(reception.burst) / 100.0, bursts.1 + 1.0);
                }
                outcome.last = Some(reception);
            }
            due += period;
            asked = due + way.dice.roll() * tardy.as_nanos() as f64;
        }
        if let Some(missing) = receiver.missing() {
            let mut again = Vec::new();
            sender.answer(&missing, &mut again);
            answers.push_back((next + way.network.delay.as_nanos() as u64, again));
        }
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
    let square = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>();
    outcome.deviation = (square / ratios.len().max(1) as f64).sqrt();
    outcome.loss = losses.0 / losses.1;
    outcome.burst = bursts.0 / bursts.1;
    outcome.counters = receiver.counters();
    let (before, after) = (before.unwrap_or_default(), heard(outcome.counters));
    outcome.settled = (after.0 - before.0, after.1 - before.1);
    outcome.sent = sender.position();
    outcome
}
