//! When to try again: soon at first, then less and less often, never in step with everybody else.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait; a session that lasted longer was a success.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    /// Where in the jitter's range the next wait falls; whoever makes it supplies something random.
    seed: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: FIRST, seed }
    }

    /// How long to wait after a session that lasted so long, or none at all: doubling up to ten seconds while nothing
    /// lasts, up to a fifth less by jitter.
    pub(crate) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= LONGEST {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        wait - wait.mul_f64((self.seed >> 40) as f64 / (1u64 << 24) as f64 / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_over_after_a_session_that_lasted() {
        let mut backoff = Backoff::new(7);
        for ms in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let (wait, full) = (backoff.after(Duration::ZERO), Duration::from_millis(ms));
            assert!(wait <= full && wait >= full.mul_f64(0.8), "{wait:?} of {full:?}");
        }
        let brief = backoff.after(Duration::from_secs(1));
        assert!(brief >= Duration::from_secs(8), "a session that ends at once is no success");
        assert!(backoff.after(LONGEST) <= FIRST);
    }
}
