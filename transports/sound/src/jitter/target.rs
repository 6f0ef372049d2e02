//! How much should wait.

use core::time::Duration;
use std::collections::VecDeque;

use super::CAP;

/// How fast it shrinks, in nanoseconds per second: a ratio of 750 ppm follows it, so that clocks that differ can still be
/// followed at the same time.
const SHRINK: u64 = 750_000;
/// For how long nothing is known well enough to shrink, and for how long that much more is kept than seems enough.
const UNKNOWN: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(60);
const CAUTION: Duration = Duration::from_millis(3);
/// What is kept below the cap, so that a good level is not cut.
const BELOW_CAP: Duration = Duration::from_millis(30);
/// It does not shrink for less than this.
const STILL: Duration = Duration::from_micros(600);
/// For how long a late packet may turn out to be no jitter.
const DOUBT: Duration = Duration::from_secs(3);
/// For how long it is remembered that something was late, and how often at most.
const MEMORY: Duration = Duration::from_secs(60);
const MOST_LATES: usize = 32;
/// What is worth leaving silence out for.
const WORTH: Duration = Duration::from_millis(8);
/// For what the clocks' loops leave.
const GUARD: Duration = Duration::from_millis(1);

/// The goal for what waits after an arrival: the slowest packets' delay, the device's period, one packet, and what
/// repairs take. It grows at once, and shrinks by three quarters of a millisecond a second, or as
/// much as silence is left out.
#[derive(Debug, Clone)]
pub struct Target {
    now: Duration,
    /// When it last changed by itself.
    at: Option<Duration>,
    born: Option<Duration>,
    /// When it last began to grow because something was late, and what it was before.
    before: Option<(Duration, Duration)>,
    /// When something was late in the last minute, and what it came to: once is chance, twice is the way this network is.
    lates: VecDeque<(Duration, Duration)>,
    /// What would be enough by what is known.
    wanted: Duration,
}

impl Target {
    /// Starts with this, e.g. [`super::START_LAN`].
    #[must_use]
    pub fn new(start: Duration) -> Self {
        let now = start.min(CAP - BELOW_CAP);
        Self { now, at: None, born: None, before: None, lates: VecDeque::new(), wanted: now }
    }

    /// The goal.
    #[must_use]
    pub fn get(&self) -> Duration {
        self.now
    }

    /// A packet came too late by so much.
    pub fn late(&mut self, now: Duration, by: Duration) {
        let before = self.before.filter(|(at, _)| now.saturating_sub(*at) < DOUBT);
        self.before = before.or(Some((now, self.now)));
        self.now = self.now.saturating_add(by).min(CAP - BELOW_CAP);
        match self.lates.back_mut() {
            Some((at, need)) if now.saturating_sub(*at) < DOUBT => *need = self.now,
            _ => self.lates.push_back((now, self.now)),
        }
        if self.lates.len() > MOST_LATES {
            self.lates.pop_front();
        }
    }

    /// How much less could wait at once, if silence is at hand: zero unless it is worth it, and nothing was late lately.
    #[must_use]
    pub fn spare(&self, now: Duration) -> Duration {
        let calm = self.lates.back().is_some_and(|(late, _)| now.saturating_sub(*late) >= DOUBT);
        let spare = self.now.saturating_sub(self.wanted);
        if calm && spare >= WORTH { spare } else { Duration::ZERO }
    }

    /// So much less waits, as silence was left out.
    pub fn lower(&mut self, by: Duration) {
        self.now = self.now.saturating_sub(by);
    }

    /// What came late was no jitter: as it was before, if that was not long ago.
    pub fn undo(&mut self, now: Duration) {
        if let Some((_, before)) = self.before.take().filter(|(at, _)| now.saturating_sub(*at) < DOUBT) {
            self.now = before;
        }
    }

    /// Follows what is known: `slowest` of [`super::Delays`], and the rest as this type has it.
    pub fn follow(
        &mut self,
        now: Duration,
        slowest: Duration,
        period: Duration,
        packet: Duration,
        repair: Duration,
    ) {
        let known = (slowest + period + packet + GUARD).saturating_add(repair).min(CAP - BELOW_CAP);
        self.lates.retain(|(at, _)| now.saturating_sub(*at) < MEMORY);
        let wanted = known.max(self.twice());
        let born = *self.born.get_or_insert(now);
        let passed = now.saturating_sub(self.at.replace(now).unwrap_or(now));
        let age = now.saturating_sub(born);
        let enough = if age < WARM_UP { wanted + CAUTION } else { wanted };
        // What the bins of a histogram make of the same delays differs from time to time.
        let shrinks = age >= UNKNOWN && self.now.saturating_sub(enough) > STILL;
        let shrink = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(SHRINK) / 1_000_000;
        let lowest = if shrinks { self.now.saturating_sub(Duration::from_nanos(shrink)) } else { self.now };
        // What was late only lately is on its way down.
        (self.now, self.wanted) = (known.max(lowest).max(enough.min(self.now)), wanted);
    }

    /// What was needed for what was late, the worst time not counted.
    fn twice(&self) -> Duration {
        let mut needs: Vec<_> = self.lates.iter().map(|(_, need)| *need).collect();
        needs.sort_unstable();
        needs.iter().nth_back(1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_grows_at_once_and_shrinks_no_faster_than_a_millisecond_a_second() {
        let mut target = Target::new(ms(20));
        target.late(ms(0), ms(30));
        assert_eq!(target.get(), ms(50));
        let mut before = target.get();
        for n in 0..4_000 {
            target.follow(ms(100 * n), ms(2), ms(10), ms(5), ms(0));
            assert!(target.get() <= before && before - target.get() <= Duration::from_micros(100));
            before = target.get();
        }
        assert!(target.get() >= ms(18) && target.get() < ms(19), "2 + 10 + 5, and a guard: {target:?}");
        target.follow(ms(400_000), ms(12), ms(10), ms(5), ms(10));
        assert_eq!(target.get(), ms(38));
    }

    #[test]
    fn what_was_late_once_is_forgotten_at_the_next_silence_and_what_was_late_twice_in_a_minute_is_not() {
        let mut target = Target::new(ms(20));
        let follow = |target: &mut Target, now| target.follow(now, ms(2), ms(10), ms(5), ms(0));
        follow(&mut target, ms(0));
        follow(&mut target, ms(99_900));
        target.late(ms(100_000), ms(80));
        follow(&mut target, ms(100_000));
        assert_eq!(target.spare(ms(102_900)), ms(0), "it may still be that more is late");
        assert!(target.spare(ms(103_000)) > ms(75));
        target.lower(target.spare(ms(103_000)));
        assert_eq!((target.get(), target.spare(ms(103_000))), (ms(18), ms(0)));
        follow(&mut target, ms(109_900));
        target.late(ms(110_000), ms(80));
        follow(&mut target, ms(110_000));
        assert_eq!(target.spare(ms(120_000)), ms(0), "it is needed");
        follow(&mut target, ms(110_100));
        follow(&mut target, ms(165_000));
        assert!(target.spare(ms(165_000)) > ms(30), "a minute later the first time is forgotten");
    }

    #[test]
    fn it_stays_below_the_cap_whatever_happens() {
        let mut target = Target::new(ms(10_000));
        target.late(ms(0), Duration::MAX);
        target.follow(ms(0), ms(200), ms(200), ms(120), Duration::MAX);
        assert!(target.get() < CAP);
    }
}
