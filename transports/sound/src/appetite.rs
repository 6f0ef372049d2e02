//! What a card's ring wants of the receiver, and what it has to have.
//!
//! ```text
//!   a period ago        now                  the card takes a period
//!   ──┼──────────────────┼────────┼──────────────────┼──► time
//!     the card took one           about to take: what has not come by then is made up
//! ```
//! It asks for frames as evenly as if the card took them one by one, and is given what there is: of what it has asked for,
//! some is on its way. So what waits for packets that are late waits here, where it serves a thread that is late as well.
//!
//! Its other half is the receiver's: [`Appetite::begin`] is what [`Receiver::set_ring`](crate::Receiver::set_ring) is told,
//! and what it wants and needs is what [`Receiver::supply`](crate::Receiver::supply) is asked for.

use core::time::Duration;

use crate::{frames_in, time_of};

/// What a card takes at once, unless it turns out to take more.
pub const PERIOD: Duration = Duration::from_millis(10);
/// The most that it may take.
pub const LONGEST: Duration = Duration::from_millis(500);
/// What the ring holds beyond that: all that has come in time.
const ROOM: Duration = Duration::from_millis(50);
/// What it holds for a card that takes the most: the room that a ring needs.
pub const LARGEST: Duration = LONGEST.saturating_add(ROOM);
/// A card that takes frames in less time than this is about to: it may be that its ring is not looked after again before.
const ABOUT: Duration = Duration::from_millis(4);

/// The appetite of one card's ring, in frames.
#[derive(Debug)]
pub struct Appetite {
    rate: u32,
    /// What the card takes at once, as far as that is known.
    period: u64,
    /// Asked for, and not there yet.
    owed: u64,
    /// When it asked last, and the time that has passed and was not asked for: less than a frame takes.
    asked: Option<Duration>,
    rest: Duration,
}

impl Appetite {
    /// That of a ring for frames of this rate, hertz.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let period = frames_in(PERIOD, rate);
        let period = period + u64::from(time_of(period, rate) < PERIOD);
        Self { rate, period, owed: 0, asked: None, rest: Duration::ZERO }
    }

    /// Frames follow from now on; so many wait in the ring already, and the card has taken `most` at once before, and some so
    /// long ago. It has asked for all that the ring lacks, but for what it will ask for until the card takes a period. What
    /// the ring holds, what the card takes at once, and the frames that it has not asked for.
    pub fn begin(&mut self, waiting: u64, most: u64, since: Duration) -> (Duration, Duration, u64) {
        self.period = self.period.max(self.at_once(most));
        let passed = frames_in(since, self.rate);
        let until_next = if most > 0 { self.period.saturating_sub(passed) } else { 0 };
        let waiting = waiting.saturating_add(until_next);
        (self.owed, self.asked) = (self.holds().saturating_sub(waiting), None);
        (time_of(self.holds(), self.rate), time_of(self.period, self.rate), waiting)
    }

    /// Whether a card that has taken so many at once takes more than was known: it has to begin anew.
    #[must_use]
    pub fn outgrown(&self, most: u64) -> bool {
        self.at_once(most) > self.period
    }

    fn holds(&self) -> u64 {
        self.period + frames_in(ROOM, self.rate)
    }

    fn at_once(&self, frames: u64) -> u64 {
        frames.min(frames_in(LONGEST, self.rate))
    }

    /// What it asks for as time has passed, if so many wait. `now` is since an arbitrary start.
    pub fn wants(&mut self, now: Duration, waiting: u64) -> u64 {
        let passed = now.saturating_sub(self.asked.replace(now).unwrap_or(now));
        let lacking = self.holds().saturating_sub(waiting.saturating_add(self.owed));
        // A little faster than the card plays, by more than clocks differ.
        let due = self.rest + passed.min(LARGEST) * 33 / 32;
        let wants = lacking.min(frames_in(due.min(LONGEST), self.rate));
        let rest = due.saturating_sub(time_of(wants, self.rate));
        self.rest = if wants < lacking { rest } else { Duration::ZERO };
        self.owed += wants;
        wants
    }

    /// So many of those are there.
    pub fn got(&mut self, frames: u64) {
        self.owed = self.owed.saturating_sub(frames);
    }

    /// What it has to have now, if so many wait and the card has taken so many so long ago. As long as it never took any,
    /// it may at any time.
    #[must_use]
    pub fn needs(&self, waiting: u64, (since, taken): (Duration, u64)) -> u64 {
        if taken > 0 && since.saturating_add(ABOUT) < time_of(taken, self.rate) {
            return 0;
        }
        self.period.saturating_sub(waiting)
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
        assert_eq!(appetite.begin(0, 0, MS), (60 * MS, 10 * MS, 0));
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
        for (most, waiting, since, taken, needs) in [
            (0, 0, 0, 0, 480),
            (0, 100, 9, 480, 380),
            (0, 100, 6, 480, 380),
            (0, 100, 5, 480, 0),
            (0, 480, 9, 480, 0),
            (0, 480, 100, 480, 0),
            (960, 480, 18, 960, 480),
            (960, 480, 9, 960, 0),
            (960, 480, 9, 480, 480),
            (48_000, 0, 99, 48_000, 0),
            (48_000, 0, 999, 48_000, 24_000),
        ] {
            let mut appetite = Appetite::new(RATE);
            appetite.begin(0, most, MS * since);
            let took = (MS * since, taken);
            assert_eq!(appetite.needs(waiting, took), needs, "{most} {waiting} {since} {taken}");
        }
    }

    #[test]
    fn all_that_the_card_takes_at_once_is_needed_to_the_last_frame() {
        for rate in [11_025, 22_050, 44_100, RATE, 192_000] {
            assert!(Appetite::new(rate).needs(0, (MS, 0)) >= u64::from(rate.div_ceil(100)), "{rate}");
            for takes in [512, 1_000, 1_024, 1_323, 2_048, 4_096] {
                let mut appetite = Appetite::new(rate);
                appetite.begin(0, takes, MS);
                let needs = appetite.needs(0, (time_of(takes, rate), takes));
                let due = takes.max(u64::from(rate.div_ceil(100)));
                assert_eq!(needs, due, "{takes} frames at {rate} Hz");
                assert!(!appetite.outgrown(takes), "{takes} frames at {rate} Hz");
            }
        }
    }

    #[test]
    fn what_it_asks_for_until_the_card_takes_a_period_it_has_not_asked_for_at_the_beginning() {
        for since in [0, 3, 9, 10, 50] {
            let mut appetite = Appetite::new(RATE);
            let (_, _, waiting) = appetite.begin(7, 480, MS * since);
            assert_eq!(waiting, 7 + 48 * u64::from(10u32.saturating_sub(since)), "{since} ms after the last");
            let until = (0..=10).map(|ms| appetite.wants(MS * ms, 7)).sum::<u64>();
            assert_eq!(until, waiting - 7, "it is not asked for twice");
        }
    }

    #[test]
    fn what_the_card_takes_at_once_fits_and_leaves_the_same_room() {
        let mut appetite = Appetite::new(RATE);
        assert!(!appetite.outgrown(480) && appetite.outgrown(481));
        assert_eq!(appetite.begin(0, 960, MS * 20), (70 * MS, 20 * MS, 0));
        assert_eq!(appetite.begin(0, 480, MS * 20), (70 * MS, 20 * MS, 0), "it may take as much again");
        assert_eq!(appetite.begin(0, u64::MAX, LONGEST), (LARGEST, LONGEST, 0));
        assert!(!appetite.outgrown(u64::MAX), "no ring is as large");
    }
}
