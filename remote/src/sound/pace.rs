//! The clock of a sound card that is a piece of software: how many frames it has moved, and when it gets round to it.

use std::{str::FromStr, time::Duration};

/// The clock: at its best exact and never late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Its speed in millionths of the true one: 2_000_000 is twice as fast, 999_800 is 200 ppm slow.
    pub(crate) millionths: u32,
    /// Each of its periods is late by up to so much.
    pub(crate) jitter: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { millionths: 1_000_000, jitter: Duration::ZERO }
    }
}

/// `speed=F,ppm=N,jitter=MS`, any of them.
impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pace = Self::default();
        for fault in text.split(',') {
            let wrong = || format!("`{fault}` is none of speed=F (0.01 to 100), ppm=N, jitter=MS");
            let (name, number) = fault.split_once('=').ok_or_else(wrong)?;
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let speed = match name {
                "speed" => number,
                "ppm" => 1.0 + number / 1e6,
                "jitter" if (0.0..=10_000.0).contains(&number) => {
                    pace.jitter = Duration::from_secs_f64(number / 1e3);
                    continue;
                }
                _ => return Err(wrong()),
            };
            if !(0.01..=100.0).contains(&speed) {
                return Err(wrong());
            }
            pace.millionths = (f64::from(pace.millionths) * speed).round() as u32;
        }
        Ok(pace)
    }
}

/// How often the card moves frames, if it is late at times.
const PERIOD: Duration = Duration::from_millis(5);

impl Pace {
    /// Frames that a card of this rate has moved in this time since it started. Never less than before.
    pub(crate) fn frames(self, rate: u32, elapsed: Duration) -> u64 {
        let elapsed = if self.jitter.is_zero() { elapsed } else { self.looked(elapsed) };
        let frames = elapsed.as_nanos() * u128::from(rate) * u128::from(self.millionths);
        u64::try_from(frames / 1_000_000_000_000_000).unwrap_or(u64::MAX)
    }

    /// When the card has looked after its frames last.
    fn looked(self, elapsed: Duration) -> Duration {
        let period = PERIOD.as_nanos();
        let now = elapsed.as_nanos();
        // Of the periods that may still be late, the last that was not.
        let back = self.jitter.as_nanos().div_ceil(period);
        let last = now / period;
        let on_time = |n: &u128| n * period + self.lateness(*n) <= now;
        let n = (last.saturating_sub(back)..=last).rev().find(on_time);
        let at = n.unwrap_or_else(|| last.saturating_sub(back)) * period;
        Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// The same for the same period in every run: any number that looks random.
    fn lateness(self, period: u128) -> u128 {
        let mixed = (period as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (u128::from(mixed >> 32) * self.jitter.as_nanos()) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_keeps_its_own_time() {
        for (millionths, frames) in [(1_000_000, 48_000), (2_000_000, 96_000), (999_800, 47_990)] {
            let pace = Pace { millionths, ..Pace::default() };
            assert_eq!(pace.frames(48_000, Duration::from_secs(1)), frames, "{millionths}");
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(Pace { millionths: 1_000_200, ..Pace::default() }.frames(48_000, day), 4_148_029_440);
    }

    #[test]
    fn its_faults_are_said_by_name() {
        let pace = |text: &str| text.parse::<Pace>();
        let jitter = Duration::from_millis(5);
        assert_eq!(pace("speed=2,jitter=5"), Ok(Pace { millionths: 2_000_000, jitter }));
        assert_eq!(pace("ppm=-200"), Ok(Pace { millionths: 999_800, ..Pace::default() }));
        for text in ["", "speed", "speed=0", "speed=x", "jitter=-1", "pitch=1"] {
            assert!(pace(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_card_that_is_late_is_never_later_than_its_jitter_and_never_goes_back() {
        let pace = Pace { jitter: Duration::from_millis(12), ..Pace::default() };
        let (mut before, mut latest) = (0, 0);
        for ms in 0..5_000u64 {
            let frames = pace.frames(48_000, Duration::from_millis(ms));
            assert!(frames >= before && frames <= 48 * ms, "{ms} ms");
            (before, latest) = (frames, latest.max(48 * ms - frames));
        }
        assert!((48 * 6..=48 * 18).contains(&latest), "{latest} frames late at most");
    }
}
