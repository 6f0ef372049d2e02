//! From time to frames and back, exactly, for ever.

use crate::clock::{LinkTime, NANOS_PER_SECOND};

/// Frames per second as a fraction: some divisors of 44.1 kHz leave no whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Frames in [`Self::seconds`] seconds, 1 to 192 000.
    pub(crate) frames: u64,
    /// 1 to 8.
    pub(crate) seconds: u64,
}

impl Rate {
    /// The time that whole frames take, rounded up.
    pub(crate) fn nanoseconds(self, frames: u64) -> u64 {
        let nanoseconds = u128::from(frames) * u128::from(self.seconds * NANOS_PER_SECOND);
        u64::try_from(nanoseconds.div_ceil(u128::from(self.frames))).unwrap_or(u64::MAX)
    }

    /// The longest time in which no more than `frames` can pass.
    pub(crate) fn at_most(self, frames: u64) -> u64 {
        let nanoseconds = u128::from(frames) * u128::from(self.seconds * NANOS_PER_SECOND);
        u64::try_from(nanoseconds / u128::from(self.frames)).unwrap_or(u64::MAX)
    }

    /// The whole frames in a time of at most a few seconds.
    pub(crate) fn frames_in(self, nanoseconds: u64) -> u64 {
        nanoseconds.saturating_mul(self.frames) / (self.seconds * NANOS_PER_SECOND)
    }
}

/// A stream's position as a function of link time: a line through an anchor that moves on by whole seconds, at which
/// the line meets whole frames. So products stay small and nothing is ever rounded away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeline {
    rate: Rate,
    anchor: LinkTime,
    frames: u64,
}

impl Timeline {
    /// At `anchor` the position is `frames`.
    pub(crate) fn new(rate: Rate, anchor: LinkTime, frames: u64) -> Self {
        Self { rate, anchor, frames }
    }

    /// The position at `now`, in whole frames; moves the anchor on.
    pub(crate) fn position(&mut self, now: LinkTime) -> u64 {
        let turn = self.rate.seconds * NANOS_PER_SECOND;
        let turns = now.since(self.anchor) / turn;
        self.anchor = self.anchor.after(turns * turn);
        self.frames += turns * self.rate.frames;
        self.frames + self.rate.frames_in(now.since(self.anchor))
    }

    /// When the position is reached.
    pub(crate) fn time_of(&self, position: u64) -> LinkTime {
        self.anchor.after(self.rate.nanoseconds(position.saturating_sub(self.frames)))
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::clock::LinkClock;

    #[test]
    fn a_day_at_any_rate_is_exact_to_the_frame_and_does_not_overflow() {
        let clock = LinkClock::new();
        for (frames, seconds) in
            [(48_000, 1), (44_100, 1), (192_000, 1), (44_100, 8), (48_000, 7), (8_000, 1)]
        {
            let rate = Rate { frames, seconds };
            let mut timeline = Timeline::new(rate, clock.link(Duration::from_nanos(333)), 0);
            let mut last = 0;
            // An awkward step, so that the anchor moves at moments of all kinds.
            let step = Duration::from_nanos(7_919_000_003);
            let mut now = Duration::from_nanos(333);
            while now < Duration::from_secs(86_400) {
                now += step;
                let position = timeline.position(clock.link(now));
                let elapsed = now.as_nanos() - 333;
                let exact = elapsed * u128::from(frames) / (u128::from(seconds) * 1_000_000_000);
                assert_eq!(u128::from(position), exact, "{frames}/{seconds} Hz at {now:?}");
                assert!(position > last);
                last = position;
            }
        }
    }

    #[test]
    fn a_position_is_reached_at_its_time_and_not_a_nanosecond_before() {
        let clock = LinkClock::new();
        let rate = Rate { frames: 44_100, seconds: 1 };
        let timeline = Timeline::new(rate, clock.link(Duration::from_nanos(5)), 100);
        for position in [101, 147, 44_199, 44_200, 10_000_000] {
            let host = clock.host(timeline.time_of(position));
            assert_eq!({ timeline }.position(clock.link(host)), position);
            assert_eq!({ timeline }.position(clock.link(host - Duration::from_nanos(1))), position - 1);
        }
    }
}
