//! Whose clock the sample clock follows: that of the remote's sound card, as far as there is one.
//!
//! ```text
//!   no stream is reported ──────────────► free: back to the host's time
//!   one, or several that agree ─────────► the one that has been reported for longest leads: it is followed
//!   one that disagrees with the leader ─► apart: the remote resamples it, to the end of its run, and it is not heeded
//!   only such as are apart ─────────────► the host's time: the remote's loop is the only one on their buffers
//! ```
//! Two streams agree as long as their buffers are equally far from where they should be: what one clock cannot keep for
//! both of them has two clocks. One that is apart without need loses no more than its bits.

use std::{collections::BTreeMap, time::Duration};

use sound::clock::{Limits, Pace, Pacer};
use wire::audio::{Reception, StreamId, ToRemote};

/// A stream of which nothing was said for so long is not listened to.
const SILENT: Duration = Duration::from_secs(1);
/// Between buffers of one clock, that of a card that asks for more at once included, microseconds.
const DISAGREE: u64 = 10_000;
/// Reports that an error is averaged over.
const MEAN: i64 = 16;

/// The sample clock's pace.
#[derive(Debug)]
pub(crate) struct Follow {
    pacer: Pacer,
    /// In the order of their first report; as many as there are streams at most.
    heard: Vec<Listener>,
    /// The runs that the remote resamples. A stream that pauses goes on in the same run: so this outlives its listener.
    apart: BTreeMap<StreamId, u32>,
}

/// What is known of one run's buffer at the remote.
#[derive(Debug)]
struct Listener {
    stream: StreamId,
    run: u32,
    last: Duration,
    /// How much more waits than should, on average, microseconds.
    error: i64,
}

impl Follow {
    pub(crate) fn new() -> Self {
        Self { pacer: Pacer::new(Limits::SAMPLE_CLOCK), heard: Vec::new(), apart: BTreeMap::new() }
    }

    /// What the remote says of a stream that plays, and what it has to be told of it.
    pub(crate) fn observe(&mut self, now: Duration, reception: &Reception) -> Option<ToRemote> {
        let Reception { stream, run, level, target, .. } = *reception;
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let error = micros(level).saturating_sub(micros(target));
        self.heard.retain(|listener| listener.stream != stream || listener.run == run);
        match self.heard.iter_mut().find(|listener| listener.stream == stream) {
            Some(listener) => {
                listener.error += (error.clamp(-1_000_000, 1_000_000) - listener.error) / MEAN;
                listener.last = now;
            }
            None => self.heard.push(Listener { stream, run, last: now, error: 0 }),
        }
        self.forget_silent(now);
        let leader = self.leader()?;
        if leader.stream == stream {
            self.pacer.observe(now, level, target);
            return None;
        }
        let disagrees = |listener: &&Listener| listener.error.abs_diff(leader.error) > DISAGREE;
        self.heeded().find(|listener| listener.stream == stream).filter(disagrees)?;
        self.apart.insert(stream, run);
        Some(ToRemote::Apart { stream, run })
    }

    /// The stream plays no more.
    pub(crate) fn ended(&mut self, now: Duration, stream: StreamId) {
        self.heard.retain(|listener| listener.stream != stream);
        self.judge(now);
    }

    /// Another remote has come: nothing is known of its clocks, and it resamples nothing.
    pub(crate) fn forget(&mut self, now: Duration) {
        self.heard.clear();
        self.apart.clear();
        self.judge(now);
        self.pacer.forget();
    }

    /// How much faster than the host's time the clock is to run, parts per billion.
    pub(crate) fn ppb(&mut self, now: Duration) -> i32 {
        self.forget_silent(now);
        self.pacer.ratio(now)
    }

    fn forget_silent(&mut self, now: Duration) {
        self.heard.retain(|listener| now.saturating_sub(listener.last) < SILENT);
        self.judge(now);
    }

    /// Those whose buffers are the sample clock's to keep.
    fn heeded(&self) -> impl Iterator<Item = &Listener> {
        self.heard.iter().filter(|listener| self.apart.get(&listener.stream) != Some(&listener.run))
    }

    fn leader(&self) -> Option<&Listener> {
        self.heeded().next()
    }

    fn judge(&mut self, now: Duration) {
        let pace = match (self.leader(), self.heard.is_empty()) {
            (Some(_), _) => Pace::Remote,
            (None, false) => Pace::Host,
            (None, true) => Pace::Free,
        };
        if pace != self.pacer.pace() {
            self.pacer.set_pace(now, pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// The remote's buffer of a stream, whose card is this much faster than the host, parts per million.
    struct Card {
        stream: u8,
        run: u32,
        ppm: f64,
        /// Seconds.
        level: f64,
    }

    impl Card {
        fn new(stream: u8, ppm: f64) -> Self {
            Self { stream, run: 1, ppm, level: 0.02 }
        }

        fn report(&mut self, follow: &mut Follow, now: Duration) -> Option<ToRemote> {
            self.level += (f64::from(follow.ppb(now)) / 1e9 - self.ppm / 1e6) * STEP.as_secs_f64();
            let reception = Reception {
                stream: StreamId(self.stream),
                run: self.run,
                position: 0,
                at: now,
                level: Duration::from_secs_f64(self.level.max(0.0)),
                target: Duration::from_millis(20),
                jitter: Duration::ZERO,
                loss: 0,
                burst: 0,
                concealed: 0,
                slipped: 0,
                late: 0,
                duplicate: 0,
                xruns: 0,
            };
            follow.observe(now, &reception)
        }
    }

    /// All report so many times, and what the remote is told.
    fn play(follow: &mut Follow, cards: &mut [&mut Card], reports: std::ops::Range<u32>) -> Vec<ToRemote> {
        let mut told = Vec::new();
        for now in reports.map(|n| STEP * n) {
            cards.iter_mut().for_each(|card| told.extend(card.report(follow, now)));
        }
        told
    }

    fn apart(stream: u8, run: u32) -> ToRemote {
        ToRemote::Apart { stream: StreamId(stream), run }
    }

    fn ppm(follow: &mut Follow, now: Duration) -> i32 {
        follow.ppb(now) / 1_000
    }

    #[test]
    fn one_card_is_followed_within_20_ppm_in_15_seconds_and_let_go_when_it_falls_silent() {
        let (mut follow, mut card) = (Follow::new(), Card::new(4, -180.0));
        assert_eq!(play(&mut follow, &mut [&mut card], 0..150), []);
        assert!((-200..=-160).contains(&ppm(&mut follow, STEP * 150)));
        assert_eq!(follow.ppb(STEP * 400), 0);
    }

    #[test]
    fn two_streams_of_one_card_are_followed_together() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 90.0), Card::new(5, 90.0));
        play(&mut follow, &mut [&mut one], 0..700);
        assert_eq!(play(&mut follow, &mut [&mut one, &mut two], 700..3_000), []);
        assert!((85..=95).contains(&ppm(&mut follow, STEP * 3_000)));
        // The one that leads ends: the other leads where it was.
        follow.ended(STEP * 3_000, StreamId(4));
        assert_eq!(play(&mut follow, &mut [&mut two], 3_000..3_600), []);
        assert!((85..=95).contains(&ppm(&mut follow, STEP * 3_600)));
    }

    #[test]
    fn of_two_cards_the_first_is_followed_and_the_other_is_told_apart_once_while_it_is_12_ms_off_at_most() {
        for (first, other) in [(400.0, -400.0), (-400.0, 400.0), (0.0, 400.0), (0.0, -30.0)] {
            for later in [0, 900] {
                let (mut follow, mut one, mut two) =
                    (Follow::new(), Card::new(4, first), Card::new(5, other));
                play(&mut follow, &mut [&mut one], 0..later);
                let (mut told, mut off) = (Vec::new(), 0.0);
                for n in later..later + 6_000 {
                    told.extend(play(&mut follow, &mut [&mut one, &mut two], n..n + 1));
                    off = if told.is_empty() { (two.level - 0.02).abs() } else { off };
                    assert!((one.level - 0.02).abs() < 0.002, "{first} and {other}: {} s", one.level);
                    if n > later + 600 {
                        let ppm = f64::from(ppm(&mut follow, STEP * n));
                        assert!((ppm - first).abs() < 20.0, "{first} and {other}: {ppm}");
                    }
                }
                assert_eq!(told, [apart(5, 1)], "{first} and {other}");
                assert!((0.008..0.012).contains(&off), "{first} and {other}: {off} s");
            }
        }
    }

    #[test]
    fn what_is_apart_is_so_to_the_end_of_its_run_and_follows_nobody() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 400.0), Card::new(5, -400.0));
        assert_eq!(play(&mut follow, &mut [&mut one, &mut two], 0..600), [apart(5, 1)]);
        follow.ended(STEP * 600, StreamId(4));
        assert_eq!(play(&mut follow, &mut [&mut two], 600..900), []);
        assert_eq!(follow.ppb(STEP * 900), 0, "the remote's loop is the only one");
        // It pauses, and goes on in the same run.
        follow.ended(STEP * 900, StreamId(5));
        assert_eq!(play(&mut follow, &mut [&mut two], 1_000..1_300), []);
        assert_eq!(follow.ppb(STEP * 1_300), 0);
        // The other comes back, and leads.
        (one.level, two.level) = (0.02, 0.02);
        assert_eq!(play(&mut follow, &mut [&mut two, &mut one], 1_300..1_900), []);
        assert!((380..=420).contains(&ppm(&mut follow, STEP * 1_900)));
        follow.ended(STEP * 1_900, StreamId(4));
        // Another run is another matter.
        (two.run, two.level) = (2, 0.02);
        assert_eq!(play(&mut follow, &mut [&mut two], 1_900..2_500), []);
        assert!((-420..=-380).contains(&ppm(&mut follow, STEP * 2_500)));
    }

    #[test]
    fn another_remote_resamples_nothing_and_has_to_be_told() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 400.0), Card::new(5, -400.0));
        assert_eq!(play(&mut follow, &mut [&mut one, &mut two], 0..600), [apart(5, 1)]);
        follow.forget(STEP * 600);
        (one.level, two.level) = (0.02, 0.02);
        assert_eq!(play(&mut follow, &mut [&mut two, &mut one], 600..1_800), [apart(4, 1)]);
        assert!((-420..=-380).contains(&ppm(&mut follow, STEP * 1_800)), "the one that was apart leads");
    }

    #[test]
    fn what_a_remote_says_moves_the_clock_no_faster_and_no_further_than_it_may() {
        let (mut follow, mut before, mut told) = (Follow::new(), 0, 0);
        for n in 0..2_000u32 {
            let level = f64::from(n % 7) * 900.0;
            let mut card = Card { stream: (n % 16) as u8, run: n / 400, ppm: 0.0, level };
            told += card.report(&mut follow, STEP * n).iter().count();
            let ppb = follow.ppb(STEP * n);
            assert!(ppb.abs() <= 1_000_000 && (ppb - before).abs() <= 5_001, "{before} to {ppb}");
            before = ppb;
        }
        assert!(told <= 16 * 5, "{told} messages: one for a run at most");
    }
}
