//! Whose clock the sample clock follows: that of the remote's sound card, as far as there is one.
//!
//! ```text
//!   no stream is reported ──────────────► free: back to the host's time
//!   one, or several that agree ─────────► the one that has been reported for longest leads: it is followed
//!   one that disagrees with the leader ─► apart: the remote resamples it, to the end of its run, and it is not heeded
//!   only such as are apart ─────────────► the host's time: the remote's loop is the only one on their buffers
//! ```
//! Two streams agree as long as the one's buffer grows and shrinks with the other's: what one clock cannot keep for both
//! of them has two clocks. Where the buffers should be says nothing: each has its own past. One that is apart without need
//! loses no more than its bits.

use std::{collections::BTreeMap, time::Duration};

use sound::clock::{Limits, Pace, Pacer};
use wire::audio::{Reception, StreamId, ToRemote};

/// A stream of which nothing was said for so long is not listened to.
const SILENT: Duration = Duration::from_secs(1);
/// Buffers of one clock that began together move no further from each other, microseconds; but by jitter.
const DISAGREE: u64 = 3_000;
/// Reports that a level is averaged over.
const MEAN: i64 = 16;
/// After a time line has begun or slipped, its level says nothing of the time before, and for so long not enough.
const JUMPS: Duration = Duration::from_secs(1);
const SETTLES: Duration = Duration::from_secs(3);
/// A stream whose time line slips so much more often than the leader's runs dry, or over, again and again. Half of it is
/// forgotten each time that so much has passed.
const SLIPS: u32 = 10;
const FORGOTTEN: Duration = Duration::from_secs(60);

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
    /// What waits, on average, microseconds.
    level: i64,
    /// As the remote counts it, and in how many reports it was more than before.
    slipped: u32,
    slips: u32,
    halved: Duration,
    /// Since when the time line has not slipped.
    calm: Duration,
    /// When the level was compared first with this leader's, and by how much it was above that.
    above: Option<(Duration, StreamId, i64)>,
}

impl Listener {
    fn new(now: Duration, reception: &Reception) -> Self {
        let Reception { stream, run, slipped, .. } = *reception;
        Self {
            stream,
            run,
            last: now,
            level: level(reception),
            slipped,
            slips: 0,
            halved: now,
            calm: now,
            above: None,
        }
    }

    fn observe(&mut self, now: Duration, reception: &Reception) {
        self.last = now;
        if now.saturating_sub(self.halved) >= FORGOTTEN {
            (self.slips, self.halved) = (self.slips / 2, now);
        }
        if std::mem::replace(&mut self.slipped, reception.slipped) != reception.slipped {
            (self.slips, self.calm) = (self.slips.saturating_add(1), now);
        }
        let jumps = now.saturating_sub(self.calm) < JUMPS;
        self.level += (level(reception) - self.level) / if jumps { 1 } else { MEAN };
    }

    /// Whether what one clock does to the leader's buffer is something else than what happens to this one.
    fn disagrees(&mut self, now: Duration, leader: &Leader, jitter: Duration) -> bool {
        let above = self.level - leader.level;
        let since = self.calm.max(leader.calm) + SETTLES;
        let before = self.above.filter(|(at, stream, _)| *stream == leader.stream && *at >= since);
        let before = before.or_else(|| (now >= since).then_some((now, leader.stream, above)));
        self.above = before;
        let most = DISAGREE.saturating_add(u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX));
        before.is_some_and(|(_, _, before)| above.abs_diff(before) > most)
            || self.slips.saturating_sub(leader.slips) > SLIPS
    }
}

/// What the others are compared with.
struct Leader {
    stream: StreamId,
    level: i64,
    slips: u32,
    calm: Duration,
}

/// What waits, microseconds. No remote has more than a second.
fn level(reception: &Reception) -> i64 {
    i64::try_from(reception.level.as_micros()).unwrap_or(i64::MAX).min(1_000_000)
}

impl Follow {
    pub(crate) fn new() -> Self {
        Self { pacer: Pacer::new(Limits::SAMPLE_CLOCK), heard: Vec::new(), apart: BTreeMap::new() }
    }

    /// What the remote says of a stream that plays, and what it has to be told of it.
    pub(crate) fn observe(&mut self, now: Duration, reception: &Reception) -> Option<ToRemote> {
        let Reception { stream, run, jitter, .. } = *reception;
        self.heard.retain(|listener| listener.stream != stream || listener.run == run);
        match self.heard.iter_mut().find(|listener| listener.stream == stream) {
            Some(listener) => listener.observe(now, reception),
            None => self.heard.push(Listener::new(now, reception)),
        }
        self.forget_silent(now);
        let leader = self.leader()?;
        if leader.stream == stream {
            self.pacer.observe(now, reception.level, reception.target);
            return None;
        }
        if self.is_apart(reception) {
            return None;
        }
        let listener = self.heard.iter_mut().find(|listener| listener.stream == stream)?;
        listener.disagrees(now, &leader, jitter).then(|| {
            self.apart.insert(stream, run);
            ToRemote::Apart { stream, run }
        })
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

    /// Whether the remote resamples the run that this is about: its card is not followed.
    pub(crate) fn is_apart(&self, reception: &Reception) -> bool {
        self.apart.get(&reception.stream) == Some(&reception.run)
    }

    /// Of those whose buffers are the sample clock's to keep, the one that has been heard for longest.
    fn leader(&self) -> Option<Leader> {
        let apart = |listener: &&Listener| self.apart.get(&listener.stream) == Some(&listener.run);
        let &Listener { stream, level, slips, calm, .. } = self.heard.iter().find(|heard| !apart(heard))?;
        Some(Leader { stream, level, slips, calm })
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
        target: f64,
        slipped: u32,
    }

    impl Card {
        fn new(stream: u8, ppm: f64) -> Self {
            Self { stream, run: 1, ppm, level: 0.02, target: 0.02, slipped: 0 }
        }

        fn report(&mut self, follow: &mut Follow, now: Duration) -> Option<ToRemote> {
            self.level += (f64::from(follow.ppb(now)) / 1e9 - self.ppm / 1e6) * STEP.as_secs_f64();
            let reception = Reception {
                stream: StreamId(self.stream),
                run: self.run,
                position: 0,
                at: now,
                level: Duration::from_secs_f64(self.level.max(0.0)),
                target: Duration::from_secs_f64(self.target),
                jitter: Duration::ZERO,
                loss: 0,
                burst: 0,
                concealed: 0,
                slipped: self.slipped,
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
    fn how_far_a_buffer_is_from_where_it_should_be_and_that_it_slips_at_times_does_not_set_a_stream_apart() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 90.0), Card::new(5, 90.0));
        play(&mut follow, &mut [&mut one], 0..700);
        two.level = 0.029;
        for n in 700..3_000 {
            two.target = (two.target - 0.000_1).max(0.009);
            if n % 400 == 0 {
                (two.level, two.slipped) = (two.level + f64::from(n) * 1e-5, two.slipped + 480);
            }
            if n % 900 == 0 {
                (one.level, one.slipped) = (one.level - 0.01, one.slipped + 480);
            }
            assert_eq!(play(&mut follow, &mut [&mut one, &mut two], n..n + 1), [], "{n}");
        }
    }

    #[test]
    fn a_stream_that_slips_again_and_again_before_it_can_be_compared_is_told_apart() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 0.0), Card::new(5, 900.0));
        let mut told = Vec::new();
        for n in 0..600 {
            if two.level < 0.0185 {
                (two.level, two.slipped) = (0.02, two.slipped + 72);
            }
            told.extend(play(&mut follow, &mut [&mut one, &mut two], n..n + 1));
        }
        assert_eq!((told, two.slipped > 72 * 20), (vec![apart(5, 1)], true));
    }

    #[test]
    fn of_two_cards_the_first_is_followed_and_the_other_is_told_apart_once_before_it_is_7_ms_off() {
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
                assert!((0.0029..0.0065).contains(&off), "{first} and {other}: {off} s");
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
            // Each of four reports every 0.4 s: as long may the clock go another way.
            let level = f64::from(n % 7) * 900.0;
            let mut card = Card { run: n / 400, level, ..Card::new((n % 4) as u8, 0.0) };
            told += card.report(&mut follow, STEP * n).iter().count();
            let ppb = follow.ppb(STEP * n);
            assert!(ppb.abs() <= 1_000_000 && (ppb - before).abs() <= 20_001, "{before} to {ppb}");
            before = ppb;
        }
        assert!((1..=4 * 5).contains(&told), "{told} messages: one for a run at most");
    }
}
