//! When a model that has panicked is made anew.

use core::time::Duration;
use std::collections::VecDeque;

/// How often, and how soon, a failed model is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildPolicy {
    /// The wait after the first failure; doubled for each further one inside the window.
    pub first_delay: Duration,
    /// Rebuilds inside the window before the device stays failed.
    pub limit: usize,
    /// The window.
    pub window: Duration,
}

impl Default for RebuildPolicy {
    /// 5 in 60 s, the first after 20 ms.
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(20), limit: 5, window: Duration::from_secs(60) }
    }
}

/// The failures of one device, and what follows from them.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    policy: RebuildPolicy,
    failures: VecDeque<Duration>,
}

impl Restarts {
    /// No failures yet.
    #[must_use]
    pub fn new(policy: RebuildPolicy) -> Self {
        Self { policy, failures: VecDeque::new() }
    }

    /// A failure, now. Answers when to rebuild; `None`: not any more, unless somebody asks ([`Self::permitted`]).
    #[must_use]
    pub fn failed(&mut self, now: Duration) -> Option<Duration> {
        self.failures.push_back(now);
        // Those beyond the limit say nothing new; this keeps the record small.
        if self.failures.len() > self.policy.limit + 1 {
            self.failures.pop_front();
        }
        let earlier = self.recent(now).saturating_sub(1);
        if !self.permitted(now) {
            return None;
        }
        let doublings = u32::try_from(earlier).unwrap_or(u32::MAX);
        let delay = self.policy.first_delay.saturating_mul(2u32.saturating_pow(doublings));
        Some(now.saturating_add(delay))
    }

    /// Whether the limit leaves room for a rebuild, now. What asks is a reset of the function by the guest.
    #[must_use]
    pub fn permitted(&self, now: Duration) -> bool {
        self.recent(now) <= self.policy.limit
    }

    fn recent(&self, now: Duration) -> usize {
        self.failures.iter().filter(|at| now.saturating_sub(**at) < self.policy.window).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_delay_doubles_and_the_sixth_failure_in_the_window_is_final() {
        let mut restarts = Restarts::default();
        for (at, due) in [
            (0, Some(20)),
            (100, Some(140)),
            (200, Some(280)),
            (300, Some(460)),
            (400, Some(720)),
            (800, None),
        ] {
            assert_eq!(restarts.failed(ms(at)), due.map(ms), "failure at {at} ms");
        }
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut restarts = Restarts::default();
        for at in [0, 1_000, 2_000, 3_000, 4_000] {
            assert!(restarts.failed(ms(at)).is_some());
        }
        assert_eq!(restarts.failed(ms(64_000)), Some(ms(64_020)));
    }

    #[test]
    fn a_reset_is_permitted_again_when_the_window_has_passed() {
        let mut restarts = Restarts::default();
        for at in 0..100 {
            let _ = restarts.failed(ms(at));
        }
        assert!(!restarts.permitted(ms(100)));
        assert!(restarts.permitted(ms(60_094)));
        assert!(restarts.failures.len() <= 6);
    }
}
