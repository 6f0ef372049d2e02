//! A voice and a card whose clock is not the one that the sender follows, in virtual time.

use tokio::time;
use wire::audio::{Block, Codec, Coded, StreamId, ToHost};

use super::*;
use crate::{
    cli,
    events::{Counts, Events},
    sound::{status::Playing, voice::Voice},
};

const MS: Duration = Duration::from_millis(1);
/// Samples are the numbers of their frames, times this.
const STEP: i32 = 64;
const RUN: u32 = 1;

fn format(rate: u32) -> Format {
    Format { rate, encoding: Encoding::S32, channels: 1 }
}

/// Five milliseconds of the run.
fn packet(rate: u32, number: u64) -> Coded {
    let at = |number: u64| number * u64::from(rate) / 200;
    let (first, frames) = (at(number), at(number + 1) - at(number));
    let samples = (first + 1..=first + frames).flat_map(|n| (n as i32 * STEP).to_le_bytes());
    let payload = samples.collect::<Vec<u8>>().into();
    let block = Block { position: first, frames: frames as u16, codec: Codec::Pcm, payload };
    let (stream, again, copies) = (StreamId(4), false, Vec::new());
    Coded { stream, run: RUN, again, format: format(rate), block, copies }
}

/// What becomes of some minutes of a run.
struct World {
    rate: u32,
    /// How much faster than the sender's the card's clock is, parts per million; and its rate.
    ppm: f64,
    card_rate: u32,
    /// When the host says that it follows another card: when what waits has changed by so many milliseconds.
    disagree: Option<f64>,
    voice: Voice,
    player: Player,
    periods: u32,
    /// What waited at first, and waits on average, milliseconds.
    level: Option<(f64, f64)>,
    told: Option<u32>,
    last: i32,
    /// The most and the least by which the card was behind the sender in each minute, milliseconds.
    behind: Vec<(f64, f64)>,
    /// The most by which a step between neighbours was not what it should be, in what 24 bits of float can tell.
    rough: f64,
}

impl World {
    fn new((rate, card_rate): (u32, u32), ppm: f64, disagree: Option<f64>) -> Self {
        let (card, ring) = Card::new(format(rate), card_rate).unwrap();
        let of_card = format(card_rate);
        let player = Player {
            ring,
            shared: Arc::clone(&card.shared),
            channels: 1,
            card_channels: 1,
            target: samples(of_card, PERIOD),
            most: samples(of_card, LONGEST),
            playing: false,
        };
        let events = Events(cli::Format::Json);
        let voice = Voice::new(&packet(rate, 0), Ok(Box::new(card)), Some(MS), events).unwrap();
        Self {
            rate,
            ppm,
            card_rate,
            disagree,
            voice,
            player,
            periods: 1,
            level: None,
            told: None,
            last: 0,
            behind: vec![],
            rough: 0.0,
        }
    }

    async fn play(&mut self, minutes: u32, comes: impl Fn(u32) -> bool) -> Playing {
        for n in 0..minutes * 60_000 {
            time::advance(MS).await;
            let now = MS * n;
            if n.is_multiple_of(5) && comes(n) {
                self.voice.play(now, &packet(self.rate, u64::from(n / 5)));
            }
            // Not at the same time as packets come, as the two have nothing to do with each other.
            if n % 2 == 1 {
                let said = self.voice.look_after(now);
                said.iter().for_each(|said| self.hear(n, said));
            }
            if f64::from(n) / 10.0 >= f64::from(self.periods) / (1.0 + self.ppm / 1e6) {
                self.callback(n);
            }
        }
        self.voice.status(None)
    }

    /// The host hears a report.
    fn hear(&mut self, n: u32, said: &ToHost) {
        let ToHost::Reception(report) = said else { return };
        let level = report.level.as_secs_f64() * 1e3;
        let (first, mean) = self.level.unwrap_or((level, level));
        let mean = mean + (level - mean) / 16.0;
        self.level = Some((if n < 3_000 { mean } else { first }, mean));
        if self.told.is_none() && self.disagree.is_some_and(|most| (mean - first).abs() > most) {
            self.told = Some(n / 1_000);
            self.voice.adapt(RUN);
        }
    }

    fn callback(&mut self, n: u32) {
        self.periods += 1;
        let mut out = vec![0; self.card_rate as usize / 100];
        self.player.fill(&mut out);
        let step = f64::from(STEP) * f64::from(self.rate) / f64::from(self.card_rate);
        for sample in out {
            let quantum = 2f64.powf((f64::from(sample).log2().floor() - 23.0).max(0.0));
            let off = (f64::from(sample - self.last) - step).abs() / quantum;
            // From silence it goes to the first frame: no step. Later than a second after it began, a quantum is too much.
            if n > 1_000 && self.told.is_none_or(|told| n < told * 1_000 + 2_000) && off > self.rough {
                self.rough = off;
            }
            self.last = sample;
        }
        let late = (n / 5 + 1) as f64 * 5.0 - f64::from(self.last / STEP) / f64::from(self.rate) * 1e3;
        if self.behind.len() as u32 <= n / 60_000 {
            self.behind.push((0.0, f64::MAX));
        }
        if let Some(minute) = self.behind.last_mut().filter(|_| n > 1_000) {
            *minute = (minute.0.max(late), minute.1.min(late));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_that_the_sender_does_not_follow_is_resampled_for_and_neither_runs_dry_nor_lags() {
    let (same, lacks, many) = ((48_000, 48_000), (44_100, 48_000), (192_000, 48_000));
    for (rates, ppm, minutes) in [(same, -200.0, 10), (same, 200.0, 10), (lacks, 200.0, 3), (many, -200.0, 2)]
    {
        let mut world = World::new(rates, ppm, Some(5.0));
        let status = world.play(minutes, |_| true).await;
        let World { behind, rough, told, .. } = &world;
        println!("{rates:?}, {ppm} ppm: told after {told:?} s, {behind:.1?} ms behind, {rough:.1} quanta");
        let Counts { gaps, skipped, underruns, waited, .. } = status.counts;
        assert_eq!((status.resampled_to, gaps, skipped, underruns, waited), (Some(rates.1), 0, 0, 0, 0));
        assert!(told.is_some_and(|after| after < 40));
        // Not when it begins: a frame that is lost or doubled would be a step of eight quanta by then. At other rates it is
        // resampled anyway, and a quantum is more than a step.
        assert!(rates != same || *rough <= 6.0, "{rates:?}, {ppm} ppm: {rough} quanta");
        // As far as the target goes down in the first minute, and no further.
        for (most, least) in &behind[1..] {
            let (usual, _) = behind[1];
            assert!((most - usual).abs() < 1.5 && *least > 3.0, "{rates:?}, {ppm} ppm: {behind:?}");
        }
        assert!(behind[1].0 < 13.0 && behind[0].0 < 35.0, "{rates:?}, {ppm} ppm: {behind:?}");
        let drift = f64::from(status.way.drift_ppm.unwrap());
        assert!((drift - ppm).abs() < 10.0, "{ppm} ppm: {drift} told");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_goes_and_a_gap_leaves_nothing_behind() {
    let mut world = World::new((48_000, 48_000), -200.0, Some(15.0));
    let status = world.play(6, |ms| !(180_000..180_100).contains(&ms)).await;
    let World { behind, told, .. } = &world;
    println!("told after {told:?} s, {behind:.1?} ms behind, {:?}", status.counts);
    assert!(behind[0].0 > 30.0 && told.is_some_and(|after| after > 60));
    assert!(behind[5].0 < 16.0 && behind[5].1 > 3.0, "{behind:?}");
    let Counts { gaps, concealed, waited, .. } = status.counts;
    assert_eq!((gaps, concealed + waited), (4_800, 4_800), "nothing but the gap");
}

#[tokio::test(start_paused = true)]
async fn a_card_of_the_senders_clock_hears_every_frame_as_it_is_and_one_of_another_slips() {
    for (ppm, slips) in [(0.0, false), (200.0, true)] {
        let mut world = World::new((48_000, 48_000), ppm, None);
        let status = world.play(4, |_| true).await;
        let slipped = status.counts.underruns > 0 || status.counts.waited > 0;
        assert_eq!((status.resampled_to, slipped), (None, slips), "{ppm} ppm");
        assert!(slips || world.rough == 0.0, "{} quanta", world.rough);
    }
}
