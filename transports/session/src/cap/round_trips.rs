//! What round trips say about a path.

use std::time::Duration;

/// The shortest round trip is forgotten after this time, in halves: paths change.
const MEMORY: Duration = Duration::from_secs(20);

/// How much round trips differ: from their mean, in the mean; both smoothed over 16.
#[derive(Debug, Default)]
pub(super) struct Swing {
    middle: Option<Duration>,
    pub(super) mean: Duration,
}

impl Swing {
    /// With another bound comes another mean of round trips.
    pub(super) fn another_bound(&mut self) {
        self.middle = None;
    }

    pub(super) fn saw(&mut self, round_trip: Duration) {
        let middle = self.middle.unwrap_or(round_trip);
        self.mean = self.mean - self.mean / 16 + middle.abs_diff(round_trip) / 16;
        self.middle = Some(middle - middle / 16 + round_trip / 16);
    }
}

/// The shortest round trip of a while.
#[derive(Debug, Default)]
pub(super) struct Shortest {
    /// In this half of the memory, and in the last one.
    halves: [Option<Duration>; 2],
    since: Option<Duration>,
}

impl Shortest {
    pub(super) fn get(&self) -> Option<Duration> {
        self.halves.into_iter().flatten().min()
    }

    /// Whether it is much shorter than in the last half, which is forgotten then.
    pub(super) fn fell(&mut self) -> bool {
        let [Some(this), Some(last)] = self.halves else { return false };
        let fell = this < last * 3 / 4;
        if fell {
            self.halves = [Some(this); 2];
        }
        fell
    }

    /// Whether a half has passed.
    pub(super) fn saw(&mut self, now: Duration, round_trip: Duration) -> bool {
        let passed = now.saturating_sub(*self.since.get_or_insert(now)) > MEMORY / 2;
        let [this, last] = self.halves;
        let (this, last) = if passed { (None, this) } else { (this, last) };
        self.halves = [Some(this.map_or(round_trip, |known| known.min(round_trip))), last];
        if passed {
            self.since = Some(now);
        }
        passed
    }
}
