//! How much later than the fastest the packets of the last minute came.

use core::time::Duration;

/// The width of a bin in microseconds, and how many there are: 200 ms in all.
const WIDTH: i64 = 250;
const BINS: usize = 800;
/// Where the first packet is put: it may have been a slow one.
const CENTRE: i64 = 200;
/// The window is forgotten slice by slice.
const SLICES: usize = 6;
const SLICE: Duration = Duration::from_secs(10);

/// The distribution of relative delays over 60 s, in bins of 250 us.
#[derive(Debug, Clone)]
pub struct Delays {
    /// The delay of bin 0, in microseconds of an arbitrary origin.
    zero: Option<i64>,
    slices: [Vec<u32>; SLICES],
    sum: Vec<u32>,
    count: u32,
    since: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        let (slices, sum) = (core::array::from_fn(|_| vec![0; BINS]), vec![0; BINS]);
        Self { zero: None, slices, sum, count: 0, since: Duration::ZERO }
    }
}

impl Delays {
    /// Notes the delay of a packet, in microseconds of an arbitrary but lasting origin.
    pub fn note(&mut self, now: Duration, delay: i64) {
        self.forget(now);
        let zero = *self.zero.get_or_insert(delay.saturating_sub(CENTRE * WIDTH));
        let mut bin = delay.saturating_sub(zero).div_euclid(WIDTH);
        if bin < 0 {
            self.shift(bin.unsigned_abs().saturating_add(8));
            bin = 8;
        }
        let bin = usize::try_from(bin).unwrap_or(BINS).min(BINS - 1);
        for bins in [self.slices.first_mut(), Some(&mut self.sum)].into_iter().flatten() {
            if let Some(count) = bins.get_mut(bin) {
                *count = count.saturating_add(1);
            }
        }
        self.count = self.count.saturating_add(1);
    }

    /// How much later than the fastest one of a thousand packets comes at least. `None`: nothing is known.
    #[must_use]
    pub fn slowest(&self) -> Option<Duration> {
        let (first, _) = self.sum.iter().enumerate().find(|(_, count)| **count > 0)?;
        let mut left = self.count / 1_000;
        let slow = self.sum.iter().enumerate().rev().find(|(_, count)| {
            let here = **count > left;
            left = left.saturating_sub(**count);
            here
        });
        let bins = slow.map_or(0, |(last, _)| last.saturating_sub(first));
        Some(Duration::from_micros(bins as u64 * WIDTH.unsigned_abs()))
    }

    /// The delay of the fastest packets, in microseconds of the same origin.
    #[must_use]
    pub fn fastest(&self) -> Option<i64> {
        let (first, _) = self.sum.iter().enumerate().find(|(_, count)| **count > 0)?;
        Some(self.zero?.saturating_add(first as i64 * WIDTH))
    }

    /// Lets the oldest slice go when its time has come.
    fn forget(&mut self, now: Duration) {
        if now.saturating_sub(self.since) < SLICE {
            return;
        }
        self.since = now;
        self.slices.rotate_right(1);
        for (count, gone) in self.sum.iter_mut().zip(self.slices.iter().flat_map(|slice| slice.iter())) {
            *count -= (*gone).min(*count);
            self.count -= (*gone).min(self.count);
        }
        if let Some(slice) = self.slices.first_mut() {
            slice.fill(0);
        }
        // The fastest may have become slower for good, as clocks drift: the bins follow.
        let first = self.sum.iter().position(|count| *count > 0);
        if let Some(first) = first.filter(|first| *first > CENTRE as usize) {
            self.follow(first - CENTRE as usize / 2);
        }
    }

    /// Makes room for faster packets: every bin moves up, the highest gather in the last.
    fn shift(&mut self, bins: u64) {
        let by = usize::try_from(bins).unwrap_or(BINS).min(BINS);
        for slice in self.slices.iter_mut().chain([&mut self.sum]) {
            let beyond = slice.iter().skip(BINS - by).fold(0u32, |sum, count| sum.saturating_add(*count));
            slice.copy_within(..BINS - by, by);
            slice.iter_mut().take(by).for_each(|count| *count = 0);
            if let Some(last) = slice.last_mut() {
                *last = last.saturating_add(beyond);
            }
        }
        let moved = i64::try_from(bins).unwrap_or(i64::MAX).saturating_mul(WIDTH);
        self.zero = self.zero.map(|zero| zero.saturating_sub(moved));
    }

    /// Every bin moves down; the lowest `by` are empty.
    fn follow(&mut self, by: usize) {
        for slice in self.slices.iter_mut().chain([&mut self.sum]) {
            slice.copy_within(by.., 0);
            slice.iter_mut().skip(BINS - by).for_each(|count| *count = 0);
        }
        self.zero = self.zero.map(|zero| zero.saturating_add(by as i64 * WIDTH));
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
        (0..1_000).for_each(|n| delays.note(at(n), (n % 50) as i64 * 1_000));
        assert_eq!(delays.slowest(), Some(at(49)));
        (0..7_000).for_each(|n| delays.note(at(5_000 + n * 10), 20_000));
        assert_eq!(delays.slowest(), Some(Duration::ZERO));
        assert_eq!(delays.fastest(), Some(20_000));
    }

    #[test]
    fn slow_drift_in_either_direction_is_followed() {
        for direction in [-1, 1] {
            let mut delays = Delays::default();
            // 200 ppm for an hour.
            for n in 0..36_000u64 {
                delays.note(at(n * 100), direction * 20 * n as i64 + (n % 5) as i64 * 1_000);
            }
            let slowest = delays.slowest().unwrap();
            assert!((at(4)..=at(17)).contains(&slowest), "{slowest:?}");
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
