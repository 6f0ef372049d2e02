//! How good a link is: its round trip, and what it loses.

use std::{collections::VecDeque, time::Duration};

use crate::ways::Way;

/// What is lost comes about a second later: then SCTP says it again, and TCP soon after it has been lost twice. So the
/// mean message of a link that loses a tenth comes a tenth of a second later.
const REPAIR: Duration = Duration::from_secs(1);
/// A score that is better by less than this, or a fifth, is not worth a move.
const LEAST_GAIN: Duration = Duration::from_millis(2);
/// A link has become bad when its score is that much longer than it was at its best: twice, and this.
const WORSE: Duration = Duration::from_millis(30);
/// So many pings, one a second, say what a link loses.
const PINGS: usize = 16;
/// So many of them have to be late: one or two are chance.
const LATE: u64 = 3;
/// What a kind of link has lost counts against it for so many looks after the session has left it.
const REMEMBERED: u32 = 300;

/// How good a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) round_trip: Duration,
    /// Parts of a million.
    pub(crate) loss: u32,
}

impl Score {
    /// How long its mean message and the answer take.
    pub(crate) fn cost(self) -> Duration {
        self.round_trip + REPAIR / 1_000 * (self.loss / 1_000)
    }

    /// Whether it is worth a move from the other one.
    pub(crate) fn better(self, old: Self) -> bool {
        self.cost() + LEAST_GAIN.max(old.cost() / 5) < old.cost()
    }

    /// Whether a link is bad that was this good at its best.
    pub(crate) fn bad(self, best: Duration) -> bool {
        self.cost() > best * 2 + WORSE
    }
}

/// What a link loses, by the pings that were late or not answered: whatever says again what was lost, the link itself or
/// what is below it, that takes time. So it is the same measure for every kind.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// How many pings there were in all, and how many were late, look by look.
    looks: VecDeque<(u64, u64)>,
}

impl Lost {
    /// There were so many pings by now, and so many were late.
    pub(crate) fn look(&mut self, pings: u64, late: u64) {
        self.looks.push_back((pings, late));
        if self.looks.len() > PINGS + 1 {
            self.looks.pop_front();
        }
    }

    /// Parts of a million; as long as it is young, as if all that is to come were in time.
    pub(crate) fn loss(&self) -> u32 {
        let (Some((pings, late)), Some(last)) = (self.looks.front(), self.looks.back()) else { return 0 };
        let (pings, late) = (last.0.saturating_sub(*pings), last.1.saturating_sub(*late));
        let loss = if late < LATE { 0 } else { late * 1_000_000 / pings.max(PINGS as u64) };
        u32::try_from(loss).unwrap_or(u32::MAX)
    }
}

/// What the kinds of links lost that the session has left.
#[derive(Debug, Default)]
pub(crate) struct Remembered([Option<(u32, u32)>; 2]);

impl Remembered {
    /// It was left in this look, and lost this.
    pub(crate) fn left(&mut self, way: Way, look: u32, loss: u32) {
        self.0[way as usize] = Some((look, loss));
    }

    /// What a new link of this kind is likely to lose.
    pub(crate) fn loss(&self, way: Way, look: u32) -> u32 {
        let known = self.0[way as usize].filter(|(left, _)| look.saturating_sub(*left) < REMEMBERED);
        known.map_or(0, |(_, loss)| loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: u32 = 10_000;

    fn score(ms: u64, loss: u32) -> Score {
        Score { round_trip: Duration::from_millis(ms), loss: loss * PERCENT }
    }

    #[test]
    fn a_move_has_to_be_worth_it_by_round_trip_and_loss() {
        for (new, old, worth) in [
            ((1, 0), (2, 0), false),
            ((1, 0), (4, 0), true),
            ((90, 0), (100, 0), false),
            ((79, 0), (100, 0), true),
            ((100, 0), (90, 0), false),
            // What loses is worth less than what is a little slower, and more than what is much slower.
            ((30, 0), (10, 20), true),
            ((10, 20), (30, 0), false),
            ((10, 20), (400, 0), true),
            // Of two that lose alike the round trip decides, and a little less loss is nothing.
            ((10, 20), (10, 20), false),
            ((10, 18), (10, 20), false),
            ((10, 12), (10, 20), true),
        ] {
            let better = score(new.0, new.1).better(score(old.0, old.1));
            assert_eq!(better, worth, "{new:?} against {old:?} (ms, %)");
        }
    }

    #[test]
    fn of_two_links_never_each_is_better_than_the_other() {
        let scores =
            || [1, 10, 100, 1_000].into_iter().flat_map(|ms| [0, 1, 10, 50].map(|loss| score(ms, loss)));
        for a in scores() {
            assert!(scores().all(|b| !(a.better(b) && b.better(a))), "{a:?}");
        }
    }

    #[test]
    fn what_is_twice_as_slow_as_at_its_best_and_more_or_loses_a_lot_is_bad() {
        for (now, best, bad) in [
            ((49, 0), 10, false),
            ((51, 0), 10, true),
            ((10, 3), 10, false),
            ((10, 19), 10, true),
            // Far away a message takes long anyway.
            ((200, 19), 200, false),
            ((200, 25), 200, true),
        ] {
            let now_is_bad = score(now.0, now.1).bad(Duration::from_millis(best));
            assert_eq!(now_is_bad, bad, "{now:?} (ms, %) after {best} ms");
        }
    }

    #[test]
    fn loss_is_what_was_late_of_the_last_sixteen_pings_unless_it_is_chance() {
        let percent_after = |late: &[u64]| {
            let mut lost = Lost::default();
            let mut sum = 0;
            lost.look(7, 3);
            for (ping, late) in (1..).zip(late) {
                sum += late;
                lost.look(7 + ping, 3 + sum);
            }
            lost.loss() / PERCENT
        };
        assert_eq!(percent_after(&[]), 0);
        assert_eq!(percent_after(&[1, 1]), 0, "two are chance");
        assert_eq!(percent_after(&[1, 1, 1]), 18, "three of sixteen");
        assert_eq!(percent_after(&[1; 16]), 100);
        assert_eq!(percent_after(&[[1; 16], [0; 16]].concat()), 0, "it has recovered");
        assert_eq!(percent_after(&[1; 100]), 100);
    }

    #[test]
    fn what_a_kind_of_link_lost_counts_against_it_for_five_minutes() {
        let mut remembered = Remembered::default();
        remembered.left(Way::Webrtc, 10, 200_000);
        for (way, look, loss) in [
            (Way::Webrtc, 10, 200_000),
            (Way::Webrtc, 309, 200_000),
            (Way::Webrtc, 310, 0),
            (Way::NoiseTcp, 10, 0),
        ] {
            assert_eq!(remembered.loss(way, look), loss, "{way} at look {look}");
        }
    }
}
