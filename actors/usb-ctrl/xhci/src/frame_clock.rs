//! The microframe index: a clock that runs with the controller. xHCI 1.2 §4.14.2, §5.5.1.

use core::time::Duration;

/// One microframe.
const MICROFRAME: Duration = Duration::from_micros(125);
/// MFINDEX has 14 bits.
const WRAP: u128 = 1 << 14;

/// MFINDEX.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameClock {
    /// Time counted while it ran before.
    counted: Duration,
    /// Since when it runs.
    since: Option<Duration>,
    /// Wraps that have been announced.
    wraps: u128,
}

impl FrameClock {
    /// Starts it.
    pub(crate) fn start(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Stops it where it is.
    pub(crate) fn stop(&mut self, now: Duration) {
        self.counted = self.elapsed(now);
        self.since = None;
    }

    fn elapsed(&self, now: Duration) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn microframes(&self, now: Duration) -> u128 {
        self.elapsed(now).as_nanos() / MICROFRAME.as_nanos()
    }

    /// MFINDEX.
    pub(crate) fn index(&self, now: Duration) -> u32 {
        (self.microframes(now) % WRAP) as u32
    }

    /// Whether it has wrapped since this was last asked; several times count as one.
    pub(crate) fn take_wrap(&mut self, now: Duration) -> bool {
        let wraps = self.microframes(now) / WRAP;
        let wrapped = wraps != self.wraps;
        self.wraps = wraps;
        wrapped
    }

    /// When it wraps next.
    pub(crate) fn next_wrap(&self) -> Option<Duration> {
        let since = self.since?;
        let microframes = u64::try_from((self.wraps + 1) * WRAP).ok()?;
        let nanos = microframes.checked_mul(MICROFRAME.as_nanos() as u64)?;
        Some((since + Duration::from_nanos(nanos)).saturating_sub(self.counted))
    }
}
