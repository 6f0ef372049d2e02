//! What a card's ring wants of the receiver, and what it has to have.
//!
//! ```text
//!   a period ago        now                  the card takes a period
//!   ──┼──────────────────┼────────┼──────────────────┼──► time
//!     the card took one           about to take: what has not come by then is made up
//! ```
//! It asks for frames as evenly as if the card took them one by one, and is given what there is: of what it has asked for,
//! some is on its way. So what waits for packets that are late waits here, where it serves a thread that is late as well.

use std::time::Duration;

use ::sound::{frames_in, time_of};

/// What the ring holds at most: more than cards take at once, and all that has come in time.
pub(super) const RING: Duration = Duration::from_millis(60);
/// What a card takes at once, unless it turns out to take more.
pub(super) const PERIOD: Duration = super::PERIOD;
/// A card that takes frames in less time than this is about to: it may be that its ring is not looked after again before.
const ABOUT: Duration = Duration::from_millis(4);

/// The ring's appetite, in frames.
#[derive(Debug)]
pub(super) struct Appetite {
    rate: u32,
    /// Asked for, and not there yet.
    owed: u64,
    /// When it asked last, and the time that has passed and was not asked for: less than a frame takes.
    asked: Option<Duration>,
    rest: Duration,
}

impl Appetite {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, owed: 0, asked: None, rest: Duration::ZERO }
    }

    /// Frames follow from now on; so many wait in the ring already. It has asked for all that the ring lacks.
    pub(super) fn begin(&mut self, waiting: u64) {
        (self.owed, self.asked) = (frames_in(RING, self.rate).saturating_sub(waiting), None);
    }

    /// What it asks for as time has passed.
    pub(super) fn wants(&mut self, now: Duration, waiting: u64) -> u64 {
        let passed = now.saturating_sub(self.asked.replace(now).unwrap_or(now));
        let lacking = frames_in(RING, self.rate).saturating_sub(waiting + self.owed);
        // A little faster than the card plays, by more than clocks differ.
        let due = self.rest + passed.min(RING) * 33 / 32;
        let wants = lacking.min(frames_in(due, self.rate));
        let rest = due.saturating_sub(time_of(wants, self.rate));
        self.rest = if wants < lacking { rest } else { Duration::ZERO };
        self.owed += wants;
        wants
    }

    /// So many of those are there.
    pub(super) fn got(&mut self, frames: u64) {
        self.owed = self.owed.saturating_sub(frames);
    }

    /// What it has to have now, if so many wait and the card has taken so many so long ago.
    pub(super) fn needs(&self, waiting: u64, (since, taken): (Duration, u64)) -> u64 {
        let period = time_of(taken, self.rate);
        if taken > 0 && since + ABOUT < period {
            return 0;
        }
        frames_in(PERIOD.max(period).min(RING), self.rate).saturating_sub(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RATE: u32 = 48_000;

    #[test]
    fn it_asks_at_the_pace_of_the_card_for_no_more_than_there_is_room_for() {
        let mut appetite = Appetite::new(RATE);
        appetite.begin(0);
        let mut waiting = 0;
        // All that it asks for comes 40 ms late: 20 ms wait before the card takes ten of them.
        for ms in 0..10_000u32 {
            let wants = appetite.wants(MS * ms, waiting);
            assert!(wants <= 50, "{wants} in a millisecond");
            let there = appetite.owed.saturating_sub(40 * 48);
            appetite.got(there);
            waiting += there;
            assert!(waiting + appetite.owed <= 60 * 48);
            if ms.is_multiple_of(10) {
                assert!(ms < 10 || waiting >= 48 * 19, "{waiting} frames after {ms} ms");
                waiting -= 480;
            }
        }
        assert!((48 * 8..=48 * 21).contains(&waiting), "{waiting} frames at the end");
    }

    #[test]
    fn it_has_to_have_a_period_just_before_the_card_takes_one() {
        let appetite = Appetite::new(RATE);
        for (waiting, since, taken, needs) in [
            (0, 0, 0, 480),
            (100, 9, 480, 380),
            (100, 6, 480, 380),
            (100, 5, 480, 0),
            (480, 9, 480, 0),
            (480, 18, 960, 480),
            (480, 100, 480, 0),
            (0, 99, 48_000, 0),
            (0, 999, 48_000, 2_880),
        ] {
            assert_eq!(appetite.needs(waiting, (MS * since, taken)), needs, "{waiting} {since} {taken}");
        }
    }
}
