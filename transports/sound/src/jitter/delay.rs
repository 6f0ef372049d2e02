//! How much later than the fastest the packets of the last minute came.

use core::time::Duration;

/// The width of a bin in microseconds, and how many there are: 200 ms in all.
const WIDTH: i64 = 250;
const BINS: usize = 800;
/// The window is forgotten slice by slice.
const SLICES: usize = 6;
const SLICE: Duration = Duration::from_secs(10);
/// Packets are compared with the fastest of their half second: for longer, clocks that differ and levels that are being
/// corrected would be taken for jitter, which makes the target grow, which moves the level ..
const BATCH: Duration = Duration::from_millis(500);
/// The most packets of a batch that are looked at.
const MOST: usize = 1_024;
/// Microseconds that the fastest of a batch has to be slower than that of the one before for it to be no jitter.
const SHIFT: i64 = 4_000;

/// The distribution of relative delays over 60 s, in bins of 250 us.
#[derive(Debug, Clone)]
pub struct Delays {
    /// The delays of this half second, and of the one before: whether they are jitter shows in the next.
    now: Vec<i64>,
    before: Vec<i64>,
    began: Duration,
    slices: [Vec<u32>; SLICES],
    sum: Vec<u32>,
    count: u32,
    since: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            now: Vec::new(),
            before: Vec::new(),
            began: Duration::ZERO,
            slices: core::array::from_fn(|_| vec![0; BINS]),
            sum: vec![0; BINS],
            count: 0,
            since: Duration::ZERO,
        }
    }
}

impl Delays {
    /// Notes the delay of a packet, in microseconds of an origin that lasts until [`Self::interrupt`]. Whether all packets
    /// have become slower for good: a sender whose time line has slipped, or another way through the network, is no
    /// jitter, and not counted as such.
    pub fn note(&mut self, now: Duration, delay: i64) -> bool {
        let shifted = now.saturating_sub(self.began) >= BATCH && self.turn(now);
        if self.now.len() < MOST {
            self.now.push(delay);
        }
        shifted
    }

    /// Delays have another origin from now on.
    pub fn interrupt(&mut self) {
        self.now.clear();
        self.before.clear();
    }

    /// How much later than the fastest one of a thousand packets comes at least. `None`: nothing is known.
    #[must_use]
    pub fn slowest(&self) -> Option<Duration> {
        let mut left = self.count / 1_000;
        let (bin, _) = self.sum.iter().enumerate().rev().find(|(_, count)| {
            let here = **count > left;
            left = left.saturating_sub(**count);
            here
        })?;
        Some(Duration::from_micros(bin as u64 * WIDTH.unsigned_abs()))
    }

    fn turn(&mut self, now: Duration) -> bool {
        self.began = now;
        self.forget(now);
        core::mem::swap(&mut self.now, &mut self.before);
        let mut older = core::mem::take(&mut self.now);
        let fastest = older.iter().min().zip(self.before.iter().min());
        let shifted = fastest.is_some_and(|(older, newer)| {
            // Half of the jitter is more than the luck of a batch.
            let jitter = self.slowest().unwrap_or_default().as_micros() as i64;
            newer.saturating_sub(*older) > SHIFT.max(jitter / 2)
        });
        if let Some((fastest, _)) = fastest.filter(|_| !shifted) {
            older.iter().for_each(|delay| self.count(delay.saturating_sub(*fastest)));
        }
        older.clear();
        self.now = older;
        shifted
    }

    fn count(&mut self, delay: i64) {
        let bin = usize::try_from(delay / WIDTH).unwrap_or(BINS).min(BINS - 1);
        for bins in [self.slices.first_mut(), Some(&mut self.sum)].into_iter().flatten() {
            if let Some(count) = bins.get_mut(bin) {
                *count = count.saturating_add(1);
            }
        }
        self.count = self.count.saturating_add(1);
    }

    /// Lets the oldest slice go when its time has come.
    fn forget(&mut self, now: Duration) {
        if now.saturating_sub(self.since) < SLICE {
            return;
        }
        self.since = now;
        self.slices.rotate_right(1);
        if let Some(oldest) = self.slices.first_mut() {
            for (count, gone) in self.sum.iter_mut().zip(oldest.iter_mut()) {
                *count = count.saturating_sub(*gone);
                self.count = self.count.saturating_sub(*gone);
                *gone = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_packet_of_a_thousand_may_be_slower() {
        let mut delays = Delays::default();
        assert_eq!(delays.slowest(), None);
        for n in 0..10_000u64 {
            delays.note(at(n), if n % 2_000 == 7 { 90_000 } else { 1_000 + 500 * (n % 10) as i64 });
        }
        assert_eq!(delays.slowest(), Some(Duration::from_micros(4_500)));
    }

    #[test]
    fn a_minute_later_all_is_forgotten() {
        let mut delays = Delays::default();
        (0..2_000).for_each(|n| _ = delays.note(at(n), (n % 50) as i64 * 1_000));
        assert_eq!(delays.slowest(), Some(at(49)));
        (0..7_000).for_each(|n| _ = delays.note(at(5_000 + n * 10), 20_000));
        assert_eq!(delays.slowest(), Some(Duration::ZERO));
    }

    #[test]
    fn a_time_line_that_has_slipped_is_no_jitter() {
        let mut delays = Delays::default();
        let mut shifts = 0;
        for n in 0..10_000u64 {
            let slip = if n > 5_000 { 80_000 } else { 0 };
            shifts += u32::from(delays.note(at(n * 5), slip + (n * 7 % 5) as i64 * 1_000));
        }
        assert_eq!((shifts, delays.slowest()), (1, Some(at(4))));
    }

    #[test]
    fn packets_that_come_late_and_then_in_time_again_are_jitter() {
        let mut delays = Delays::default();
        for n in 0..4_000u64 {
            let late = if (2_000..2_020).contains(&n) { (2_020 - n as i64) * 5_000 } else { 0 };
            assert!(!delays.note(at(n * 5), late));
        }
        assert_eq!(delays.slowest(), Some(at(85)), "of four thousand, four may be slower");
    }

    #[test]
    fn slow_drift_in_either_direction_is_followed() {
        for direction in [-1, 1] {
            let mut delays = Delays::default();
            // 1000 ppm for half an hour.
            for n in 0..180_000u64 {
                delays.note(at(n * 10), direction * 10 * n as i64 + (n % 5) as i64 * 1_000);
            }
            let slowest = delays.slowest().unwrap();
            assert!((at(3)..=at(5)).contains(&slowest), "{slowest:?}");
        }
    }

    #[test]
    fn hostile_delays_are_only_counted() {
        let mut delays = Delays::default();
        for delay in [0, i64::MIN, i64::MAX, 7, i64::MIN, -5] {
            delays.note(at(1), delay);
            assert!(delays.slowest() <= Some(at(200)));
        }
    }
}
