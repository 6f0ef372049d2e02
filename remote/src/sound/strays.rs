//! Whether what waits strays from what should, because the sender's clock does not follow the card: it follows another
//! card, or none.
//!
//! ```text
//!   waits too much          the sender follows ──╮            ╭── nobody follows: further away, and again
//!   or too little     ────╮            ╭─────────╯      ╭─────╯
//!                         ╰── a stall ─╯   ─────────────╯
//! ```
//! What a stall has added goes back by and by, and what jitter has made scarce comes: that is left to the sender, so that
//! its frames stay as they are.

use std::time::Duration;

/// For so long nothing is known of the clocks.
const UNKNOWN: Duration = Duration::from_secs(30);
/// An error of less, on average, may be anything: microseconds.
const STRAYS: i64 = 10_000;
/// Reports that an error is averaged over.
const MEAN: i64 = 32;
/// For how long it has to be no nearer, twice: too much lasts, and a sender is slow to turn; too little runs out.
const TOO_MUCH: Duration = Duration::from_secs(10);
const TOO_LITTLE: Duration = Duration::from_secs(4);

/// What is known of one stretch.
#[derive(Debug, Default)]
pub(super) struct Strays {
    begun: Option<Duration>,
    /// How much more waits than should, on average, microseconds.
    error: i64,
    /// When it was looked at last, how far away it was, and whether that was further than before.
    seen: Option<(Duration, i64, bool)>,
}

impl Strays {
    /// So much waits, and should. Whether nobody follows the card.
    pub(super) fn note(&mut self, now: Duration, level: Duration, target: Duration) -> bool {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        self.error += (micros(level).saturating_sub(micros(target)) - self.error) / MEAN;
        let known = now.saturating_sub(*self.begun.get_or_insert(now)) >= UNKNOWN;
        if !known || self.error.abs() <= STRAYS {
            self.seen = None;
            return false;
        }
        let same_way = |(_, before, _): &(Duration, i64, bool)| before.signum() == self.error.signum();
        let Some((at, before, again)) = self.seen.filter(same_way) else {
            self.seen = Some((now, self.error, false));
            return false;
        };
        let patience = if self.error > 0 { TOO_MUCH } else { TOO_LITTLE };
        if now.saturating_sub(at) < patience {
            return false;
        }
        let further = self.error.abs() >= before.abs();
        self.seen = Some((now, self.error, further));
        further && again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);
    const TARGET: f64 = 0.02;

    /// When a buffer is found to stray, in seconds: its level, in seconds more than should be, at each time.
    fn found(seconds: u32, error: impl Fn(f64) -> f64) -> Option<u32> {
        let mut strays = Strays::default();
        (0..seconds * 10).find_map(|n| {
            let level = Duration::from_secs_f64((TARGET + error(f64::from(n) / 10.0)).max(0.0));
            strays.note(STEP * n, level, Duration::from_secs_f64(TARGET)).then_some(n / 10)
        })
    }

    #[test]
    fn a_card_that_nobody_follows_is_found_before_it_runs_dry_or_lags() {
        for (ppm, earliest, latest) in
            [(200.0, 60, 85), (50.0, 210, 240), (600.0, 40, 55), (-200.0, 55, 70), (-50.0, 200, 225)]
        {
            let at = found(600, |seconds| seconds * ppm / 1e6).unwrap();
            assert!((earliest..=latest).contains(&at), "{ppm} ppm: after {at} s");
            assert!(f64::from(at) * ppm / 1e6 > -TARGET, "{ppm} ppm: it has run dry");
        }
    }

    #[test]
    fn what_the_sender_brings_back_does_not_stray() {
        // As a sample clock may turn: 50 ppm a second, up to 1000 ppm.
        let back = |seconds: f64| match seconds.clamp(0.0, 1e9) {
            seconds if seconds < 20.0 => 25e-6 * seconds * seconds,
            seconds => 0.01 + 1e-3 * (seconds - 20.0),
        };
        for stall in [0.012, 0.03, 0.06, 0.12] {
            let error = |s: f64| if s < 60.0 { 0.0 } else { (stall - back(s - 60.0)).max(0.0) };
            assert_eq!(found(300, error), None, "{stall} s too many");
        }
        assert_eq!(found(600, |seconds| 0.009 * (seconds * 0.7).sin()), None, "jitter");
        assert_eq!(found(25, |_| 0.05), None, "too early to tell");
    }
}
