//! How much work strangers may cause: token buckets, of each source and of all.

use std::{collections::HashMap, time::Duration};

use super::Source;

/// Of one source: 20 first messages a second, 40 at once.
const EACH: Rate = Rate { one: Duration::from_millis(50), burst: 40 };
/// Of all together: 200 a second, 400 at once: a tenth of a processor, on a slow one.
const ALL: Rate = Rate { one: Duration::from_millis(5), burst: 400 };
/// Sources that have buckets of their own; those beyond share one.
const SOURCES: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Rate {
    /// A token comes so often.
    one: Duration,
    /// The bucket holds so many.
    burst: u32,
}

/// A bucket, written as the time when it is full again.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Duration);

impl Bucket {
    fn can(self, rate: Rate, now: Duration) -> bool {
        self.0.max(now) + rate.one <= now + rate.one * rate.burst
    }

    fn take(&mut self, rate: Rate, now: Duration) {
        self.0 = self.0.max(now) + rate.one;
    }

    fn full(self, now: Duration) -> bool {
        self.0 <= now
    }
}

#[derive(Debug, Default)]
pub(super) struct Buckets {
    all: Bucket,
    sources: HashMap<Source, Bucket>,
    /// Of the sources for which there is no room.
    others: Bucket,
}

impl Buckets {
    /// Takes a token for one first message, of the source's own bucket and, unless it is trusted, of all's; whether
    /// there was one in each.
    pub(super) fn take(&mut self, source: Source, trusted: bool, now: Duration) -> bool {
        let can_all = trusted || self.all.can(ALL, now);
        let own = self.bucket(source, now);
        if !can_all || !own.can(EACH, now) {
            return false;
        }
        own.take(EACH, now);
        if !trusted {
            self.all.take(ALL, now);
        }
        true
    }

    fn bucket(&mut self, source: Source, now: Duration) -> &mut Bucket {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            // A full bucket is as good as none.
            self.sources.retain(|_, bucket| !bucket.full(now));
            if self.sources.len() >= SOURCES {
                return &mut self.others;
            }
        }
        self.sources.entry(source).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into())
    }

    #[test]
    fn a_source_has_its_burst_at_once_and_then_its_rate() {
        let mut buckets = Buckets::default();
        let start = Duration::from_secs(7);
        let at_once = (0..1000).filter(|_| buckets.take(source(1), false, start)).count();
        assert_eq!(at_once, EACH.burst as usize);
        assert!(buckets.take(source(2), false, start), "another source has its own");
        let later = start + Duration::from_secs(1);
        let then = (0..1000).filter(|_| buckets.take(source(1), false, later)).count();
        assert_eq!(then, 20);
        let much_later = later + Duration::from_secs(1000);
        assert_eq!(
            (0..1000).filter(|_| buckets.take(source(1), false, much_later)).count(),
            EACH.burst as usize
        );
    }

    #[test]
    fn all_together_have_their_burst_and_their_rate_whatever_their_number() {
        let mut buckets = Buckets::default();
        let taken = (0..100_000).filter(|n| buckets.take(source(*n), false, Duration::ZERO)).count();
        assert_eq!(taken, ALL.burst as usize);
        let second = Duration::from_secs(1);
        assert_eq!((0..100_000).filter(|n| buckets.take(source(*n), false, second)).count(), 200);
    }

    #[test]
    fn buckets_are_bounded_and_forgotten_when_they_are_full_again() {
        let mut buckets = Buckets::default();
        // Trusted ones do not run into what all together may cause.
        for n in 0..100_000 {
            buckets.take(source(n), true, Duration::ZERO);
        }
        assert_eq!(buckets.sources.len(), SOURCES);
        assert!(!buckets.take(source(100_001), true, Duration::ZERO), "those beyond share one bucket");
        let later = EACH.one;
        assert!(buckets.take(source(100_001), true, later));
        assert_eq!(buckets.sources.len(), 1, "the others were full again");
    }
}
