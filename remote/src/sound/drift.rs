//! By how much a sound card runs faster than this computer's clock: the line through what it has moved in the last two
//! minutes, to some tens of parts per million: what is moved is seen every few milliseconds.

use std::{collections::VecDeque, time::Duration};

/// What is looked at, and from what on there is something to say.
const WINDOW: Duration = Duration::from_secs(120);
const KNOWN: Duration = Duration::from_secs(15);
/// Looks that are closer to each other add nothing.
const APART: Duration = Duration::from_millis(90);

/// Times, and the frames that had been moved by then.
#[derive(Debug, Default)]
pub(super) struct Drift(VecDeque<(Duration, u64)>);

impl Drift {
    /// So many frames have been moved by now; fewer than before: it begins anew.
    pub(super) fn note(&mut self, now: Duration, frames: u64) {
        match self.0.back() {
            Some((_, before)) if frames < *before => self.0.clear(),
            Some((at, _)) if now.saturating_sub(*at) < APART => return,
            _ => {}
        }
        self.0.push_back((now, frames));
        while self.0.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.0.pop_front();
        }
    }

    /// What was moved before says nothing of what follows.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Parts per million, positive if the card is fast; None: not known yet.
    pub(super) fn ppm(&self, rate: u32) -> Option<i32> {
        let ((first, from), (last, _)) = (*self.0.front()?, *self.0.back()?);
        if last.saturating_sub(first) < KNOWN {
            return None;
        }
        let points = || {
            self.0.iter().map(|(at, frames)| {
                let at = at.saturating_sub(first).as_secs_f64();
                (at, (frames - from) as f64 / f64::from(rate.max(1)) - at)
            })
        };
        let count = self.0.len() as f64;
        let (at, ahead) = points().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        let (at, ahead) = (at / count, ahead / count);
        let (up, over) = points().fold((0.0, 0.0), |sum, point| {
            (sum.0 + (point.0 - at) * (point.1 - ahead), sum.1 + (point.0 - at).powi(2))
        });
        Some((up / over * 1e6).round() as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten looks a second at a card that moves 96 frames at once.
    fn moved(drift: &mut Drift, from: u32, seconds: u32, ppm: f64) {
        for n in from * 10..(from + seconds) * 10 {
            let periods = f64::from(n) * 0.1 * 500.0 * (1.0 + ppm / 1e6);
            drift.note(Duration::from_millis(100) * n, periods as u64 * 96);
        }
    }

    #[test]
    fn a_card_that_is_off_is_told_within_some_parts_per_million_though_it_moves_in_periods() {
        for ppm in [-1_000.0, -50.0, 0.0, 200.0] {
            let mut drift = Drift::default();
            moved(&mut drift, 0, 14, ppm);
            assert_eq!(drift.ppm(48_000), None, "too early to tell");
            moved(&mut drift, 14, 150, ppm);
            let told = f64::from(drift.ppm(48_000).unwrap());
            assert!((told - ppm).abs() <= 30.0, "{told} for {ppm}");
        }
    }

    #[test]
    fn what_begins_anew_is_not_known_yet() {
        let mut drift = Drift::default();
        moved(&mut drift, 0, 30, 0.0);
        drift.note(Duration::from_secs(31), 0);
        assert_eq!(drift.ppm(48_000), None);
        moved(&mut drift, 32, 30, 0.0);
        drift.forget();
        assert_eq!(drift.ppm(48_000), None);
    }
}
