//! How much may lie unsent where nothing can overtake it: in the kernel, and in records that are sealed.

use std::time::Duration;

/// What is enough on a slow line, bytes: it is the delay of an urgent frame there.
pub(crate) const LEAST: usize = 16 * 1024;
/// More gains nothing on any line, bytes.
pub(crate) const MOST: usize = 1024 * 1024;
/// The rate is measured over at least this time.
const SPAN: Duration = Duration::from_millis(20);
/// What may lie unsent should be gone within this time. Less would be a wake-up for each little room.
const DELAY: Duration = Duration::from_millis(1);

/// Follows the rate at which a socket takes bytes. An idle one is slow.
#[derive(Debug)]
pub(crate) struct LowWater {
    mark: usize,
    bytes: usize,
    since: Option<Duration>,
}

impl LowWater {
    pub(crate) fn new() -> Self {
        Self { mark: LEAST, bytes: 0, since: None }
    }

    /// The mark of the moment, bytes: a power of two.
    pub(crate) fn mark(&self) -> usize {
        self.mark
    }

    /// The socket took so many bytes. Whether the mark is another one now.
    pub(crate) fn took(&mut self, now: Duration, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let span = now.saturating_sub(*self.since.get_or_insert(now));
        if span < SPAN {
            return false;
        }
        let soon = self.bytes as u128 * DELAY.as_nanos() / span.as_nanos();
        let soon = usize::try_from(soon).unwrap_or(usize::MAX).clamp(LEAST, MOST);
        (self.bytes, self.since) = (0, Some(now));
        // Down only when it is far too high: a rate near a power of two would change it all the time.
        let mark = 1 << soon.ilog2();
        let changes = mark > self.mark || mark < self.mark / 2;
        if changes {
            self.mark = mark;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_of_the_rate_may_lie_unsent() {
        let (mut low, mut now) = (LowWater::new(), Duration::from_secs(3));
        assert_eq!(low.mark(), LEAST, "nothing is known at first");
        for (rate, mark) in [
            (12_500_000, LEAST),
            (70_000_000, 64 << 10),
            (3_000_000_000, MOST),
            (800_000_000, MOST),
            (200_000_000, 128 << 10),
            (1_000_000, LEAST),
        ] {
            let mut changes = 0;
            for _ in 0..200 {
                now += Duration::from_millis(1);
                changes += usize::from(low.took(now, rate / 1_000));
            }
            assert_eq!(low.mark(), mark, "{rate} B/s");
            assert!(changes <= 2, "{changes} changes at {rate} B/s");
        }
        low.took(now, 3 << 20);
        assert!(!low.took(now + Duration::from_secs(9), 60_000), "a burst after a pause says nothing");
        assert_eq!(low.mark(), LEAST);
    }
}
