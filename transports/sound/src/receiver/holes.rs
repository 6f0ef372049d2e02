//! Frames that were made up lately, or jumped over: what comes for them is late, what comes for others has come before.

use std::collections::VecDeque;

/// The most holes that are remembered.
const MOST: usize = 64;

/// The last holes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Holes(VecDeque<(u64, u64)>);

impl Holes {
    /// These frames are missing, from the first to the one before `end`.
    pub(super) fn leave(&mut self, first: u64, end: u64) {
        match self.0.back_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ => {
                while self.0.len() >= MOST {
                    self.0.pop_front();
                }
                self.0.push_back((first, end));
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether some of these frames were missing. They are known from now on.
    pub(super) fn fill(&mut self, first: u64, end: u64) -> bool {
        let hit = |(from, to): (u64, u64)| from < end && first < to;
        if !self.0.iter().any(|hole| hit(*hole)) {
            return false;
        }
        let mut rest = VecDeque::with_capacity(self.0.len() + 1);
        for (from, to) in self.0.drain(..) {
            let pieces = if hit((from, to)) {
                [(from, first.max(from)), (end.min(to), to)]
            } else {
                [(from, to), (to, to)]
            };
            rest.extend(pieces.into_iter().filter(|(from, to)| from < to));
        }
        // What is filled in the middle of a hole makes two of it.
        while rest.len() > MOST {
            rest.pop_front();
        }
        self.0 = rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_late_once_and_then_known() {
        let mut holes = Holes::default();
        holes.leave(100, 140);
        holes.leave(140, 200);
        holes.leave(400, 440);
        for (first, end, late) in [
            (0, 100, false),
            (120, 160, true),
            (120, 160, false),
            (90, 110, true),
            (100, 120, true),
            (160, 400, true),
            (100, 400, false),
            (430, 500, true),
            (400, 430, true),
            (0, 1_000, false),
        ] {
            assert_eq!(holes.fill(first, end), late, "{first} to {end}");
        }
        assert!(holes.0.is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut holes = Holes::default();
        (0..1_000).for_each(|n| holes.leave(n * 10, n * 10 + 5));
        assert_eq!(holes.0.len(), MOST);
        holes.leave(20_000, 30_000);
        for n in 0..5_000 {
            holes.fill(20_000 + 2 * n, 20_001 + 2 * n);
            assert!(holes.0.len() <= MOST, "{} after {n} of every second frame", holes.0.len());
        }
    }
}
