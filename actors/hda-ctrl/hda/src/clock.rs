//! The link's clock: the one time base of WALCLK and of every stream.
//!
//! ```text
//!   host time ──× ratio──► link time ──× 3/125──► WALCLK (24 MHz)
//!                              └──× rate────────► each stream's position
//! ```
//!
//! The device owns the "crystal": the ratio may be steered to follow a remote sound card, and when the host was late
//! the whole time line *slips*, so that streams and wall clock stay consistent with each other. Integers only; link
//! time never goes back and never steps when the ratio changes.

use core::time::Duration;

/// A moment of the link, in nanoseconds since the clock was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct LinkTime(u64);

pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl LinkTime {
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// How much faster than the host the link runs, in parts per billion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Drift(i32);

/// The most that the link may drift: 1000 ppm. Guests measure it against their own clocks.
const MOST: i32 = 1_000_000;

impl Drift {
    /// Parts per billion, as far as they may go.
    pub(crate) fn new(ppb: i32) -> Self {
        Self(ppb.clamp(-MOST, MOST))
    }

    /// The link's nanoseconds in this many host seconds; always positive, as the drift is above -100 %.
    fn per(self, seconds: u128) -> u128 {
        seconds * (i128::from(NANOS_PER_SECOND) + i128::from(self.0)).max(1) as u128
    }
}

/// Link time as a function of host time: a line through an anchor.
#[derive(Debug, Clone)]
pub(crate) struct LinkClock {
    host: Duration,
    link: LinkTime,
    drift: Drift,
    /// Where WALCLK counts from; `None` while the link is in reset.
    wall_zero: Option<LinkTime>,
    slipped: u64,
}

impl LinkClock {
    pub(crate) fn new() -> Self {
        Self {
            host: Duration::ZERO,
            link: LinkTime::default(),
            drift: Drift::default(),
            wall_zero: None,
            slipped: 0,
        }
    }

    /// The link time of a host time not before the anchor.
    pub(crate) fn link(&self, host: Duration) -> LinkTime {
        let elapsed =
            self.drift.per(host.saturating_sub(self.host).as_nanos()) / u128::from(NANOS_PER_SECOND);
        self.link.after(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// The first host time at which [`Self::link`] has reached `link`.
    pub(crate) fn host(&self, link: LinkTime) -> Duration {
        let ahead = u128::from(link.since(self.link)) * u128::from(NANOS_PER_SECOND);
        let nanoseconds = ahead.div_ceil(self.drift.per(1));
        self.host.saturating_add(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }

    /// Takes `nanoseconds` of link time back that would have passed by `host`: the time line slips.
    pub(crate) fn slip(&mut self, host: Duration, nanoseconds: u64) {
        let link = self.link(host);
        self.link = LinkTime(link.0.saturating_sub(nanoseconds).max(self.link.0));
        self.host = host;
        self.slipped = self.slipped.saturating_add(nanoseconds);
    }

    /// From `host` on, link time passes at this pace; what has passed stays as it is.
    pub(crate) fn set_drift(&mut self, host: Duration, drift: Drift) {
        if self.drift != drift {
            (self.link, self.host) = (self.link(host), self.host.max(host));
            self.drift = drift;
        }
    }

    /// All the time that has slipped so far.
    pub(crate) fn slipped(&self) -> Duration {
        Duration::from_nanos(self.slipped)
    }

    /// The link leaves reset: WALCLK counts from now.
    pub(crate) fn start_wall(&mut self, now: LinkTime) {
        self.wall_zero = Some(now);
    }

    /// The link is in reset: WALCLK is 0.
    pub(crate) fn stop_wall(&mut self) {
        self.wall_zero = None;
    }

    /// WALCLK: 24 MHz, wrapping after 178.9 s. HDA 1.0a §3.3.16.
    pub(crate) fn wall(&self, now: LinkTime) -> u32 {
        let nanoseconds = self.wall_zero.map_or(0, |zero| now.since(zero));
        (u128::from(nanoseconds) * 3 / 125) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ns(nanoseconds: u64) -> Duration {
        Duration::from_nanos(nanoseconds)
    }

    #[test]
    fn the_wall_clock_counts_24_mhz_from_the_end_of_reset() {
        let mut clock = LinkClock::new();
        assert_eq!(clock.wall(clock.link(ns(1_000_000))), 0);
        clock.start_wall(clock.link(ns(1_000_000)));
        for (nanoseconds, ticks) in [(0, 0), (41, 0), (42, 1), (125, 3), (1_000_000_000, 24_000_000)] {
            assert_eq!(clock.wall(clock.link(ns(1_000_000 + nanoseconds))), ticks, "{nanoseconds} ns");
        }
        // 2^32 ticks take 178.956970666.. s.
        assert_eq!(clock.wall(clock.link(ns(1_000_000 + 178_956_970_667))), 0);
        // Three years later it is still exact.
        let years = 3 * 365 * 86_400;
        let expected = (24_000_000 * u128::from(years)) as u32;
        assert_eq!(clock.wall(clock.link(ns(1_000_000) + Duration::from_secs(years))), expected);
    }

    #[test]
    fn a_link_time_is_reached_at_its_host_time_and_not_earlier() {
        for drift in [0, 1, -1, 200_000, -1_000_000, 999_999] {
            let clock =
                LinkClock { host: ns(17), link: LinkTime(3), drift: Drift(drift), ..LinkClock::new() };
            for target in [3, 4, 1_000, 20_833, 999_999_999, 86_400_000_000_007] {
                let host = clock.host(LinkTime(target));
                assert!(clock.link(host) >= LinkTime(target), "{drift} ppb, {target}");
                assert!(target == 3 || clock.link(host - ns(1)) < LinkTime(target), "{drift} ppb, {target}");
            }
        }
    }

    #[test]
    fn a_new_drift_changes_the_pace_and_not_the_time() {
        let mut clock = LinkClock::new();
        let (mut host, mut before) = (0, LinkTime(0));
        for (ppb, passed) in [(200_000, 1_000_200_000), (-200_000, 999_800_000), (i32::MAX, 1_001_000_000)] {
            clock.set_drift(ns(host), Drift::new(ppb));
            assert_eq!(clock.link(ns(host)), before, "{ppb} ppb: no step");
            host += NANOS_PER_SECOND;
            assert_eq!(clock.link(ns(host)).since(before), passed, "{ppb} ppb");
            before = clock.link(ns(host));
        }
    }

    #[test]
    fn a_slip_takes_time_back_but_never_before_what_was_seen() {
        let mut clock = LinkClock::new();
        clock.slip(ns(100), 30);
        assert_eq!(clock.link(ns(100)), LinkTime(70));
        assert_eq!(clock.link(ns(110)), LinkTime(80));
        clock.slip(ns(110), 500);
        assert_eq!(clock.link(ns(110)), LinkTime(70));
        assert_eq!(clock.link(ns(50)), LinkTime(70));
    }
}
