//! By how much a sound card runs faster than this computer's clock: the line through what it has moved in the last two
//! minutes, to some tens of parts per million: what is moved is seen every few milliseconds.

use std::{collections::VecDeque, time::Duration};

/// What is looked at, and from what on there is something to say.
const WINDOW: Duration = Duration::from_secs(120);
const KNOWN: Duration = Duration::from_secs(15);
/// Looks that are closer to each other add nothing.
const APART: Duration = Duration::from_millis(90);

/// Times, and what had been moved by then.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// Frames of the card since the first of them.
    moved: VecDeque<(Duration, f64)>,
    /// Frames of the run at the last of them.
    last: u64,
}

impl Drift {
    /// So many frames of the run have been moved by now; fewer than before: it begins anew. Since the last time, they were
    /// taken faster than the card plays by so many parts per billion.
    pub(super) fn note(&mut self, now: Duration, frames: u64, faster: i32) {
        let moved = match self.moved.back() {
            Some(_) if frames < self.last => {
                self.moved.clear();
                0.0
            }
            Some((at, _)) if now.saturating_sub(*at) < APART => return,
            Some((_, moved)) => moved + (frames - self.last) as f64 / (1.0 + f64::from(faster) / 1e9),
            None => 0.0,
        };
        self.last = frames;
        self.moved.push_back((now, moved));
        while self.moved.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.moved.pop_front();
        }
    }

    /// What was moved before says nothing of what follows.
    pub(super) fn forget(&mut self) {
        self.moved.clear();
    }

    /// Parts per million, positive if the card is fast; None: not known yet.
    pub(super) fn ppm(&self, rate: u32) -> Option<i32> {
        let ((first, from), (last, _)) = (*self.moved.front()?, *self.moved.back()?);
        if last.saturating_sub(first) < KNOWN {
            return None;
        }
        let points = || {
            self.moved.iter().map(|(at, frames)| {
                let at = at.saturating_sub(first).as_secs_f64();
                (at, (frames - from) / f64::from(rate.max(1)) - at)
            })
        };
        let count = self.moved.len() as f64;
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
        moved_faster(drift, from..from + seconds, ppm, 0);
    }

    /// The same, if frames are taken faster than it plays.
    fn moved_faster(drift: &mut Drift, seconds: std::ops::Range<u32>, ppm: f64, ppb: i32) {
        let before = drift.last;
        let start = f64::from((seconds.start * 10).saturating_sub(1)) * 0.1 * 500.0 * (1.0 + ppm / 1e6);
        for n in seconds.start * 10..seconds.end * 10 {
            let periods = f64::from(n) * 0.1 * 500.0 * (1.0 + ppm / 1e6);
            let frames = ((periods - start) * (1.0 + f64::from(ppb) / 1e9)) as u64 * 96;
            drift.note(Duration::from_millis(100) * n, before + frames, ppb);
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
    fn what_is_taken_faster_than_the_card_plays_does_not_count_as_its_own_speed() {
        let mut drift = Drift::default();
        moved(&mut drift, 0, 60, 200.0);
        for (seconds, ppb) in [(60..65, 5_000_000), (65..90, -300_000), (90..120, 200_000)] {
            moved_faster(&mut drift, seconds, 200.0, ppb);
        }
        let told = f64::from(drift.ppm(48_000).unwrap());
        assert!((told - 200.0).abs() <= 40.0, "{told}");
    }

    #[test]
    fn what_begins_anew_is_not_known_yet() {
        let mut drift = Drift::default();
        moved(&mut drift, 0, 30, 0.0);
        drift.note(Duration::from_secs(31), 0, 0);
        assert_eq!(drift.ppm(48_000), None);
        moved(&mut drift, 32, 30, 0.0);
        drift.forget();
        assert_eq!(drift.ppm(48_000), None);
    }
}
