//! The loop that follows a card's clock here, because the VM's clock follows another card's.
//!
//! ```text
//!   reports: level, target ─► goal ─► Servo ─► ratio ─► the sink resamples
//!   level  ╲.......___________ target      the goal begins where the level is: what has gathered by then goes slowly,
//!   goal   └─╲__╱                          and is not taken for drift
//! ```

use std::time::Duration;

use ::sound::clock::{Limits, Servo};
use wire::audio::Reception;

/// How fast the goal moves from where the level was to the target, seconds a second: faster than a target shrinks, and
/// nobody hears it.
const APPROACH: f64 = 800e-6;

/// The loop.
#[derive(Debug)]
pub(super) struct Adapt {
    servo: Servo,
    goal: Goal,
}

/// What the level is to be.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Where it is.
    Level,
    /// On its way to the target: so much at this time.
    Near(Duration, Duration),
    Target,
}

impl Adapt {
    pub(super) fn new() -> Self {
        Self { servo: Servo::new(Limits::RESAMPLER), goal: Goal::Level }
    }

    /// How much faster than it plays the sink is to take frames, parts per billion.
    pub(super) fn ratio(&self) -> i32 {
        self.servo.ratio()
    }

    /// The receiver has reported: the ratio from now on.
    pub(super) fn observe(&mut self, report: &Reception) -> i32 {
        let Reception { at, level, target, .. } = *report;
        let goal = match self.goal {
            Goal::Level => level,
            Goal::Near(last, goal) => {
                let step = at.saturating_sub(last).mul_f64(APPROACH);
                target.clamp(goal.saturating_sub(step), goal.saturating_add(step))
            }
            Goal::Target => target,
        };
        self.goal = if goal == target { Goal::Target } else { Goal::Near(at, goal) };
        self.servo.observe(at, level, goal)
    }

    /// The time line has slipped, and with it what waits: on its way to the target, that is where it goes on from.
    pub(super) fn slipped(&mut self) {
        if let Goal::Near(..) = self.goal {
            self.goal = Goal::Level;
        }
    }

    /// Frames come again after a stop: nothing has changed but what waits.
    pub(super) fn begin(&mut self) {
        self.goal = Goal::Level;
        self.servo.restart(self.servo.ratio());
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::StreamId;

    use super::*;

    /// Reports ten times a second of a card that is this much faster than the sender, parts per million, from `level` on;
    /// after five seconds `cut` goes from what waits and from the target, as when silence is left out. Seconds. The level
    /// and the ratio (ppb) after each.
    fn run(ppm: f64, level: f64, target: f64, cut: f64) -> Vec<(f64, i32)> {
        let (mut adapt, mut level, mut target, mut seen) = (Adapt::new(), level, target, Vec::new());
        for n in 0..3_000u32 {
            if n == 50 && cut > 0.0 {
                (level, target) = (level - cut, target - cut);
                adapt.slipped();
            }
            level = (level - (ppm / 1e6 + f64::from(adapt.ratio()) / 1e9) / 10.0).max(0.0);
            let ratio = adapt.observe(&Reception {
                stream: StreamId(4),
                run: 1,
                position: 0,
                at: Duration::from_millis(100) * n,
                level: Duration::from_secs_f64(level),
                target: Duration::from_secs_f64(target),
                jitter: Duration::ZERO,
                loss: 0,
                burst: 0,
                concealed: 0,
                slipped: 0,
                late: 0,
                duplicate: 0,
                xruns: 0,
            });
            seen.push((level, ratio));
        }
        seen
    }

    #[test]
    fn the_cards_clock_is_found_and_what_waited_too_much_goes_without_too_little_waiting_then() {
        for ppm in [-200.0, 0.0, 200.0] {
            for level in [0.005, 0.02, 0.06] {
                let seen = run(ppm, level, 0.02, 0.0);
                for (at, (waits, ratio)) in seen.iter().enumerate().skip(1_500) {
                    assert!((waits - 0.02).abs() < 0.000_5, "{ppm}, {level}: {waits} after {at} reports");
                    assert!((f64::from(*ratio) / 1e3 + ppm).abs() < 25.0, "{ppm}, {level}: {ratio}");
                }
                let (least, most) = (level.min(0.02) - 0.004, level.max(0.02) + 0.004);
                assert!(seen.iter().all(|(waits, _)| (least..most).contains(waits)), "{ppm}, {level}");
            }
        }
    }

    #[test]
    fn what_was_left_out_on_the_way_to_the_target_does_not_come_back() {
        let seen = run(0.0, 0.035, 0.03, 0.021);
        let most = seen[50..].iter().map(|(waits, _)| *waits).fold(0.0, f64::max);
        assert!(most < 0.016, "{most} s wait again");
        assert!(seen.iter().all(|(_, ratio)| ratio.abs() < 2_000_000), "nobody hears it");
    }
}
