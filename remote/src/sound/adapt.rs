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

    /// Frames come again after a stop: nothing has changed but what waits.
    pub(super) fn begin(&mut self) {
        self.goal = Goal::Level;
        self.servo.restart(self.servo.ratio());
    }
}
