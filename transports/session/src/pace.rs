//! How long a chunk may be: as long as the link takes little time for it.

use std::time::Duration;

/// The rate is measured over at least this time.
const SPAN: Duration = Duration::from_millis(20);
/// A long chunk should be gone within this time.
const CHUNK_TIME: Duration = Duration::from_millis(1);
/// Chunks are short where one of [`SHORT_CHUNK`] would take longer than this: an urgent message waits for one at most.
const SHORT_TIME: Duration = Duration::from_micros(500);
/// Payload of chunks that are not long comes in pieces of this, bytes.
const STEP: usize = 4 * 1024;
/// Room for the head of a message, so that a transfer of a round size does not leave a stub behind, bytes.
const HEAD: usize = 64;
/// The chunk of a link whose rate is not known, bytes.
const SHORT_CHUNK: usize = 4 * STEP + HEAD;

/// The chunk of a message on the slowest link, bytes; only the last one of a message is shorter.
pub(crate) fn least_chunk(max_chunk: usize) -> usize {
    (STEP + HEAD).min(max_chunk)
}

/// Not more than this, in steps where it is not long; at least one step.
fn at_most(chunk: usize, most: u64) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let stepped = if most < SHORT_CHUNK { (most / STEP).max(1) * STEP + HEAD } else { most };
    chunk.min(stepped)
}

/// Measures the rate at which a link takes bytes. An idle link is a slow one.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    since: Option<Duration>,
    bytes: usize,
    chunk: usize,
}

impl Pace {
    /// The longest chunk at the rate of the moment, bytes. `share`: not more than this. `rate`: what the path is known to
    /// carry, bytes per second.
    pub(crate) fn chunk(&self, max_chunk: usize, share: u64, rate: Option<u64>) -> usize {
        let chunk = if self.chunk > SHORT_CHUNK {
            self.chunk
        } else {
            let soon = rate.map_or(u64::MAX, |rate| rate / (1_000_000 / SHORT_TIME.as_micros() as u64));
            at_most(SHORT_CHUNK, soon)
        };
        at_most(chunk, share).min(max_chunk)
    }

    /// The link took so many bytes.
    pub(crate) fn took(&mut self, now: Duration, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let since = *self.since.get_or_insert(now);
        let span = now.saturating_sub(since);
        if span >= SPAN {
            let chunk = self.bytes as u128 * CHUNK_TIME.as_nanos() / span.as_nanos();
            *self = Self { since: Some(now), bytes: 0, chunk: usize::try_from(chunk).unwrap_or(usize::MAX) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOTS: u64 = u64::MAX;

    #[test]
    fn a_chunk_takes_a_millisecond_or_is_short() {
        const CASES: [(u64, usize); 5] = [
            (1_000_000, SHORT_CHUNK),
            (12_500_000, SHORT_CHUNK),
            (40_000_000, 40_000),
            (100_000_000, 61_440),
            (0, SHORT_CHUNK),
        ];
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(5));
        assert_eq!(pace.chunk(61_440, LOTS, None), SHORT_CHUNK, "nothing is known at first");
        for (rate, expected) in CASES {
            for _ in 0..100 {
                now += Duration::from_millis(1);
                pace.took(now, rate as usize / 1000);
            }
            let chunk = pace.chunk(61_440, LOTS, None);
            assert!(chunk.abs_diff(expected) * 10 <= expected, "{chunk} at {rate} B/s");
            assert_eq!(pace.chunk(1_000, LOTS, None), 1_000, "never above what is configured");
        }
        pace.took(now + Duration::from_secs(9), 60_000);
        assert_eq!(pace.chunk(61_440, LOTS, None), SHORT_CHUNK, "a burst after a pause says nothing");
    }

    #[test]
    fn where_a_short_chunk_would_take_long_it_is_shorter() {
        let pace = Pace::default();
        for (rate, share, steps) in [
            (1_000_000, LOTS, 1),
            (12_500_000, LOTS, 1),
            (20_000_000, LOTS, 2),
            (40_000_000, LOTS, 4),
            (LOTS, 100, 1),
            (LOTS, 9_000, 2),
        ] {
            assert_eq!(pace.chunk(61_440, share, Some(rate)), steps * STEP + HEAD, "{rate} B/s, {share} B");
        }
    }
}
