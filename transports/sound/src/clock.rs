//! Following another clock: the level of a buffer in, a ratio out.
//!
//! ```text
//!   level - target ─► pre-filter (10 x bandwidth) ─► PI, zeta 0.8 ─► clamp ─► slew ─► ratio, parts per billion
//!                                                     ▲   0.05 Hz for 60 s, then 0.005 Hz
//!                                                     └── what clamp and slew took away (anti-windup)
//! ```
//! The ratio is for (A) the sender's sample clock, so that nothing is resampled ([`Pacer`]), or (B) a resampler at the
//! receiver ([`Servo`]). A wide loop finds the drift within seconds; a narrow one does not make jitter audible.
//! Integers go in and come out; equal inputs give equal outputs.

use core::f64::consts::TAU;
use core::time::Duration;

const BILLION: f64 = 1e9;
/// Bandwidth in hertz at first, for how long, and afterwards.
const WIDE: f64 = 0.05;
const WIDE_FOR: Duration = Duration::from_secs(60);
const NARROW: f64 = 0.005;
/// Damping.
const ZETA: f64 = 0.8;
/// The pre-filter's bandwidth in loop bandwidths.
const PRE_FILTER: f64 = 10.0;
/// The pace of a target that is followed; faster is a jump.
const PACE: f64 = 1e-3;
/// Observations further apart than this say nothing of the time between them.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// How far and how fast a ratio may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Parts per billion, above and below 0.
    pub most: i32,
    /// Parts per billion per second.
    pub slew: i32,
}

impl Limits {
    /// For the host's sample clock, which the guest measures: 1000 ppm, 50 ppm/s.
    pub const SAMPLE_CLOCK: Self = Self { most: 1_000_000, slew: 50_000 };
    /// For a resampler: 0.5 %, 500 ppm/s.
    pub const RESAMPLER: Self = Self { most: 5_000_000, slew: 500_000 };
}

/// The loop: how much faster than nominal what waits has to be taken, so that the level stays where it should be.
#[derive(Debug, Clone)]
pub struct Servo {
    limits: Limits,
    /// Filtered error, seconds.
    error: Option<f64>,
    /// The drift as far as it is known, as a plain number.
    drift: f64,
    /// The ratio of the moment, as a plain number.
    output: f64,
    /// The last target, seconds.
    target: Option<f64>,
    last: Option<Duration>,
    started: Option<Duration>,
}

impl Servo {
    /// A loop that knows nothing yet; its ratio is 0.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, error: None, drift: 0.0, output: 0.0, target: None, last: None, started: None }
    }

    /// Begins anew from this ratio (clamped), with what is known of the drift: wide first.
    pub fn restart(&mut self, ratio: i32) {
        let Self { limits, error, drift: _, output, target, last, started } = self;
        *output = f64::from(ratio.clamp(-limits.most, limits.most)) / BILLION;
        (*error, *target, *last, *started) = (None, None, None, None);
    }

    /// What waits, and what should: the ratio for the time until the next observation, parts per billion; positive:
    /// more waits than should, or it comes too fast. At best ten times a second; `now` never goes back.
    pub fn observe(&mut self, now: Duration, level: Duration, target: Duration) -> i32 {
        let raw = level.as_secs_f64() - target.as_secs_f64();
        let step = now.saturating_sub(self.last.replace(now).unwrap_or(now)).min(LONGEST_STEP).as_secs_f64();
        let wide = now.saturating_sub(*self.started.get_or_insert(now)) < WIDE_FOR;
        let omega = TAU * if wide { WIDE } else { NARROW };
        let weight = 1.0 - (-omega * PRE_FILTER * step).exp();
        let before = self.error.unwrap_or(raw);
        let error = before + (raw - before) * weight;
        self.error = Some(error);

        let (proportional, integral) = (2.0 * ZETA * omega, omega * omega);
        // A target that moves slowly is led, so that the integral does not take its pace for drift.
        let goal = target.as_secs_f64();
        let pace = (goal - self.target.replace(goal).unwrap_or(goal)) / step.max(1e-3);
        let lead = if pace.abs() <= PACE { -pace } else { 0.0 };
        let wanted = proportional * error + self.drift + lead;
        let (most, slew) =
            (f64::from(self.limits.most) / BILLION, f64::from(self.limits.slew) / BILLION * step);
        let output = wanted.clamp(-most, most).clamp(self.output - slew, self.output + slew);
        // What is not granted is not to be remembered as drift: it would be wanted long after the error is gone.
        if (wanted - output) * error <= 0.0 {
            self.drift = (self.drift + integral * error * step).clamp(-most, most);
        }
        self.output = output;
        self.ratio()
    }

    /// The ratio of the moment, parts per billion.
    #[must_use]
    pub fn ratio(&self) -> i32 {
        (self.output * BILLION).round() as i32
    }
}

/// Who sets the pace of the host's sample clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The one remote that listens: its device is followed, and nothing is resampled.
    Remote,
    /// The host: those that listen follow its clock, by resampling, and nobody's is followed.
    Host,
    /// Nobody listens.
    Free,
}

/// The host's sample clock: by how much it runs faster than the host's time. Modes change without a step: the ratio
/// moves by [`Limits::slew`] at most, whatever happens.
#[derive(Debug, Clone)]
pub struct Pacer {
    pace: Pace,
    servo: Servo,
    limits: Limits,
    ratio: i32,
    at: Duration,
}

impl Pacer {
    /// A clock that runs freely with the host's time.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { pace: Pace::Free, servo: Servo::new(limits), limits, ratio: 0, at: Duration::ZERO }
    }

    /// Who sets the pace.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Somebody else sets the pace from now on. What is known of the remote's drift is kept for the next time.
    pub fn set_pace(&mut self, now: Duration, pace: Pace) {
        self.ratio(now);
        if pace == Pace::Remote && self.pace != pace {
            self.servo.restart(self.ratio.saturating_neg());
        }
        self.pace = pace;
    }

    /// Another remote has come: nothing is known of its drift.
    pub fn forget(&mut self) {
        let output = self.servo.output;
        self.servo = Servo { output, ..Servo::new(self.limits) };
    }

    /// What a [`wire::audio::Reception`] says of the remote's buffer. It is heard while the remote sets the pace.
    pub fn observe(&mut self, now: Duration, level: Duration, target: Duration) {
        if self.pace == Pace::Remote {
            self.ratio = self.servo.observe(now, level, target).saturating_neg();
            self.at = now;
        }
    }

    /// The ratio, parts per billion: while the remote sets the pace, that of the last observation; else on its way to 0.
    pub fn ratio(&mut self, now: Duration) -> i32 {
        if self.pace != Pace::Remote {
            let passed = now.saturating_sub(self.at).as_micros();
            let most = passed.saturating_mul(self.limits.slew.unsigned_abs().into()) / 1_000_000;
            let step = i32::try_from(most).unwrap_or(i32::MAX).min(self.ratio.saturating_abs());
            self.ratio -= self.ratio.signum() * step;
            // Time that was too short for a step is not lost.
            if most > 0 {
                self.at = now;
            }
        }
        self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);
    const TARGET: Duration = Duration::from_millis(20);

    /// A buffer that fills by `ppm`, with a servo that empties it: the ratio after each step, in ppb.
    fn follow(servo: &mut Servo, ppm: f64, steps: u32, noise: impl Fn(u32) -> f64) -> Vec<i32> {
        let mut level = TARGET.as_secs_f64();
        let mut ratios = Vec::new();
        for n in 0..steps {
            level += (ppm / 1e6 - f64::from(servo.ratio()) / 1e9) * STEP.as_secs_f64();
            let seen = Duration::from_secs_f64((level + noise(n)).max(0.0));
            ratios.push(servo.observe(STEP * n, seen, TARGET));
        }
        ratios
    }

    #[test]
    fn a_drift_is_found_within_15_seconds_and_then_held() {
        for ppm in [-200.0, -50.0, 0.0, 50.0, 200.0] {
            let mut servo = Servo::new(Limits::SAMPLE_CLOCK);
            let ratios = follow(&mut servo, ppm, 6_000, |_| 0.0);
            let off = |ratio: &i32| (f64::from(*ratio) / 1e3 - ppm).abs();
            let first = ratios.iter().position(|ratio| off(ratio) < 20.0).unwrap();
            assert!(first < 150, "{ppm} ppm: first after {first} steps");
            assert!(ratios[600..].iter().all(|ratio| off(ratio) < 20.0), "{ppm} ppm: held");
            assert!(ratios[3_000..].iter().all(|ratio| off(ratio) < 1.0), "{ppm} ppm: exact");
        }
    }

    #[test]
    fn no_ratio_is_beyond_the_limits_and_none_changes_faster_than_it_may() {
        for limits in [Limits::SAMPLE_CLOCK, Limits::RESAMPLER] {
            let mut servo = Servo::new(limits);
            let mut before = 0;
            for n in 0..20_000u32 {
                let level = Duration::from_millis(u64::from(n.wrapping_mul(2_654_435_761) >> 24));
                let ratio = servo.observe(STEP * n, level, TARGET);
                assert!(ratio.abs() <= limits.most && (ratio - before).abs() <= limits.slew / 10 + 1);
                before = ratio;
            }
        }
    }

    #[test]
    fn a_loop_that_was_held_at_its_limit_lets_go_at_once() {
        let mut servo = Servo::new(Limits::SAMPLE_CLOCK);
        let stuck = (0..6_000).map(|n| servo.observe(STEP * n, TARGET * 6, TARGET)).last();
        assert_eq!(stuck, Some(1_000_000));
        let after = (6_000..6_300).map(|n| servo.observe(STEP * n, Duration::ZERO, TARGET));
        assert!(after.last() < Some(0), "thirty seconds later it goes the other way");
    }

    #[test]
    fn modes_change_without_a_step_and_the_drift_is_remembered() {
        let mut pacer = Pacer::new(Limits::SAMPLE_CLOCK);
        let (mut before, mut level) = (0, TARGET.as_secs_f64());
        let paces = [(0, Pace::Remote), (3_000, Pace::Host), (3_010, Pace::Remote), (3_600, Pace::Free)];
        for n in 0..4_000u32 {
            let now = STEP * n;
            if let Some((_, pace)) = paces.iter().find(|(at, _)| *at == n) {
                pacer.set_pace(now, *pace);
            }
            level += (f64::from(pacer.ratio(now)) / 1e9 + 200e-6) * STEP.as_secs_f64();
            pacer.observe(now, Duration::from_secs_f64(level.max(0.0)), TARGET);
            let ratio = pacer.ratio(now);
            assert!((ratio - before).abs() <= 5_001, "step {n}: {before} to {ratio}");
            if (2_000..3_000).contains(&n) {
                assert!((ratio + 200_000).abs() < 1_000, "step {n}: {ratio}");
            }
            before = ratio;
        }
        assert_eq!(pacer.ratio(STEP * 4_000), 0, "a clock that nobody hears runs with the host's time");
    }
}
