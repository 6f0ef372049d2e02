//! How much of a lane may be on its way: enough for the path, and little more, as urgent frames meet it there.

use std::time::Duration;

/// The rate is measured over this time at least, and over a round trip.
const SPAN: Duration = Duration::from_millis(20);
/// The shortest round trip is forgotten after this time, in halves: paths change.
const MEMORY: Duration = Duration::from_secs(10);

/// A bound that follows the path: a quarter more than what was acknowledged within the shortest round trip. A bound that
/// holds the lane back grows with it, until the path does.
#[derive(Debug)]
pub(crate) struct Window {
    least: usize,
    most: usize,
    limit: usize,
    /// The shortest round trip in this half of the memory, and in the last one.
    shortest: [Option<Duration>; 2],
    half_since: Duration,
    /// What was sent up to here was sent at this time.
    probe: Option<(u64, Duration)>,
    /// The span of the moment began with so much acknowledged.
    span: Option<(u64, Duration)>,
}

impl Window {
    /// A bound between the two, bytes.
    pub(crate) fn new(least: usize, most: usize) -> Self {
        let most = most.max(least);
        Self {
            least,
            most,
            limit: least,
            shortest: [None; 2],
            half_since: Duration::ZERO,
            probe: None,
            span: None,
        }
    }

    /// The bound, bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Something is sent: so much since the beginning, bytes.
    pub(crate) fn sent(&mut self, now: Duration, sent: u64) {
        self.probe.get_or_insert((sent, now));
    }

    /// So much was sent since the beginning, bytes, and this much of it is not acknowledged.
    pub(crate) fn observe(&mut self, now: Duration, sent: u64, outstanding: usize) {
        let acknowledged = sent.saturating_sub(outstanding as u64);
        if now.saturating_sub(self.half_since) > MEMORY / 2 {
            self.shortest = [None, self.shortest[0]];
            self.half_since = now;
        }
        if let Some((_, since)) = self.probe.take_if(|(up_to, _)| *up_to <= acknowledged) {
            let round_trip = now.saturating_sub(since);
            self.shortest[0] = Some(self.shortest[0].map_or(round_trip, |known| known.min(round_trip)));
        }
        // What is not held back says nothing about the path.
        if outstanding == 0 {
            self.span = None;
        }
        let (from, since) = *self.span.get_or_insert((acknowledged, now));
        let Some(round_trip) = self.shortest.into_iter().flatten().min() else { return };
        let span = now.saturating_sub(since);
        if span >= SPAN.max(round_trip) {
            let path = u128::from(acknowledged - from) * round_trip.as_nanos() / span.as_nanos();
            let more = usize::try_from(path * 5 / 4).unwrap_or(usize::MAX);
            // One lull is no slower path.
            self.limit = more.max(self.limit - self.limit / 8).clamp(self.least, self.most);
            self.span = Some((acknowledged, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// Sends as much as the window lets for ten seconds. Returns the bound and the rate of the last second, bytes.
    fn run(window: &mut Window, rate: f64, round_trip: Duration) -> (usize, f64) {
        let step = Duration::from_micros(100);
        let (mut sent, mut acknowledged, mut last) = (0_u64, 0_u64, 0_u64);
        // The bottleneck is free again at this time; what was sent is acknowledged then and there.
        let (mut free, mut flight) = (Duration::ZERO, std::collections::VecDeque::new());
        let end = Duration::from_secs(10);
        let mut now = Duration::ZERO;
        while now < end {
            while flight.front().is_some_and(|(at, _)| *at <= now) {
                acknowledged = flight.pop_front().map_or(acknowledged, |(_, up_to)| up_to);
            }
            if now.as_secs() == 8 {
                last = acknowledged;
            }
            window.observe(now, sent, (sent - acknowledged) as usize);
            while ((sent - acknowledged) as usize) < window.limit() {
                sent += 16 * KIB as u64;
                window.sent(now, sent);
                free = free.max(now) + Duration::from_secs_f64((16 * KIB) as f64 / rate);
                flight.push_back((free + round_trip, sent));
            }
            now += step;
        }
        (window.limit(), (acknowledged - last) as f64)
    }

    #[test]
    fn a_path_is_filled_and_not_flooded() {
        // MB/s, ms, and the bound expected, KiB: a quarter more than the path holds, with its own queue in it.
        for (rate, round_trip, least, most) in
            [(5e6, 20, 100, 300), (20e6, 50, 1024, 1024), (100e6, 0, 64, 200), (0.2e6, 20, 64, 64)]
        {
            let mut window = Window::new(64 * KIB, 1024 * KIB);
            let (limit, reached) = run(&mut window, rate, Duration::from_millis(round_trip));
            assert!(
                (least..=most).contains(&(limit / KIB)),
                "{} KiB at {rate} B/s, {round_trip} ms",
                limit / KIB
            );
            let possible = rate.min(limit as f64 / (round_trip.max(1) as f64 / 1e3));
            assert!(reached > possible * 0.7, "{reached} B/s of {possible}");
        }
    }

    #[test]
    fn a_bound_that_is_fixed_stays() {
        let mut window = Window::new(32 * KIB, 0);
        run(&mut window, 50e6, Duration::from_millis(20));
        assert_eq!(window.limit(), 32 * KIB);
    }
}
