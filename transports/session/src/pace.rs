//! How long a chunk may be: as long as the link takes little time for it.

use std::time::Duration;

/// The rate is measured over at least this time.
const SPAN: Duration = Duration::from_millis(20);
/// A chunk should be gone within this time: what an urgent message waits for at most, on a link that is not very slow.
const CHUNK_TIME: Duration = Duration::from_millis(1);
/// The chunk of a link whose rate is not known, or low, bytes: 16 KiB of payload with the head of its message, so that
/// a transfer of a round size does not leave a stub behind.
const SHORT_CHUNK: usize = 16 * 1024 + 64;

/// The chunk of a message on the slowest link, bytes; only the last one of a message is shorter.
pub(crate) fn least_chunk(max_chunk: usize) -> usize {
    SHORT_CHUNK.min(max_chunk)
}

/// Measures the rate at which a link takes bytes. An idle link is a slow one.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    since: Option<Duration>,
    bytes: usize,
    chunk: usize,
}

impl Pace {
    /// The longest chunk at the rate of the moment, bytes.
    pub(crate) fn chunk(&self, max_chunk: usize) -> usize {
        self.chunk.max(least_chunk(max_chunk)).min(max_chunk)
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
        assert_eq!(pace.chunk(61_440), SHORT_CHUNK, "nothing is known at first");
        for (rate, expected) in CASES {
            for _ in 0..100 {
                now += Duration::from_millis(1);
                pace.took(now, rate as usize / 1000);
            }
            let chunk = pace.chunk(61_440);
            assert!(chunk.abs_diff(expected) * 10 <= expected, "{chunk} at {rate} B/s");
            assert_eq!(pace.chunk(1_000), 1_000, "never above what is configured");
        }
        pace.took(now + Duration::from_secs(9), 60_000);
        assert_eq!(pace.chunk(61_440), SHORT_CHUNK, "a burst after a pause says nothing");
    }
}
