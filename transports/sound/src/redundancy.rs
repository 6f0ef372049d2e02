//! Sending again what may be lost: copies that ride along ([`Red`]), and answers to those who ask ([`Keeper`], [`Asker`]).
//!
//! ```text
//!   distances 2, 4:   packet 9 = block 9 + copies of 7 and 5      costs no round trip, but bytes and waiting
//!   asking:           9 came, 8 did not ─► Missing(8) ─► 8 again  costs bytes only when lost, but a round trip
//! ```
//! Losses come in bursts: a copy in the very next packet is lost together with the first, one four or eight packets
//! later is not. The receiver's queue knows every block by its position, so it needs to know nothing of all this.

use core::time::Duration;
use std::collections::VecDeque;

use wire::audio::{Block, MAX_COPIES, MAX_GAPS};

/// The furthest distance of a copy, in packets.
pub const FURTHEST: u8 = 16;
/// What a sender keeps to answer from.
const KEPT: Duration = Duration::from_millis(500);
/// Bytes that answers may come to, as a part of what was sent in the time that is kept.
const ANSWERS: usize = 4;
/// The most blocks that a sender keeps, and gaps that a receiver remembers.
const MOST: usize = 512;

/// At which distances copies follow, in packets. None twice, none beyond [`FURTHEST`], nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Distances([u8; MAX_COPIES]);

impl Distances {
    /// No copies.
    pub const NONE: Self = Self([0; MAX_COPIES]);

    /// The first [`MAX_COPIES`] of these that can be.
    #[must_use]
    pub fn new(distances: &[u8]) -> Self {
        let mut valid: Vec<u8> = distances.iter().copied().filter(|d| (1..=FURTHEST).contains(d)).collect();
        valid.sort_unstable();
        valid.dedup();
        let mut valid = valid.into_iter();
        Self(core::array::from_fn(|_| valid.next().unwrap_or(0)))
    }

    /// The distances, nearest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        self.0.into_iter().filter(|distance| *distance > 0)
    }

    /// The furthest one; 0: none.
    #[must_use]
    pub fn furthest(self) -> u8 {
        self.iter().last().unwrap_or(0)
    }
}

/// The sender's copies.
#[derive(Debug, Clone, Default)]
pub struct Red {
    /// Newest first.
    past: VecDeque<Block>,
}

impl Red {
    /// The copies that travel with this block.
    pub fn copies(&mut self, block: &Block, distances: Distances) -> Vec<Block> {
        let copy = |distance: u8| self.past.get(usize::from(distance) - 1).cloned();
        let copies =
            distances.iter().filter_map(copy).filter(|copy| copy.position < block.position).collect();
        self.past.push_front(block.clone());
        self.past.truncate(FURTHEST.into());
        copies
    }
}

/// What a sender keeps for half a second, to send it once more. Answers are bounded to a quarter of what was sent, so
/// that who asks for everything does not double the load.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    kept: VecDeque<Kept>,
    sent: usize,
    answered: usize,
}

#[derive(Debug, Clone)]
struct Kept {
    at: Duration,
    again: bool,
    block: Block,
}

impl Keeper {
    /// Keeps a block that was sent.
    pub fn keep(&mut self, now: Duration, block: &Block) {
        let old = |kept: &Kept| now.saturating_sub(kept.at) > KEPT;
        while self.kept.front().is_some_and(old) || self.kept.len() >= MOST {
            if let Some(gone) = self.kept.pop_front() {
                let length = gone.block.payload.len();
                self.sent -= length;
                self.answered -= if gone.again { length } else { 0 };
            }
        }
        self.sent += block.payload.len();
        self.kept.push_back(Kept { at: now, again: false, block: block.clone() });
    }

    /// The blocks with frames in these gaps; each is given once only.
    pub fn answer(&mut self, gaps: &[(u64, u32)]) -> Vec<Block> {
        let mut answers = Vec::new();
        for kept in &mut self.kept {
            let (start, end) = (kept.block.position, kept.block.position + u64::from(kept.block.frames));
            let asked =
                |(first, frames): &(u64, u32)| start < first.saturating_add((*frames).into()) && *first < end;
            let length = kept.block.payload.len();
            let affordable =
                (self.answered + length).saturating_mul(ANSWERS) <= self.sent.max(length * ANSWERS);
            if !kept.again && affordable && gaps.iter().take(MAX_GAPS).any(asked) {
                kept.again = true;
                self.answered += length;
                answers.push(kept.block.clone());
            }
        }
        answers
    }
}

/// What a receiver lacks and may still get. Each gap is asked for once.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// First frame, frames.
    gaps: VecDeque<(u64, u32)>,
}

/// What to do about a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// It has been filled, or no answer would come in time.
    Never,
    /// It may come by itself, and there is time.
    Later,
    /// It is the time.
    Now,
}

impl Asker {
    /// These frames were jumped over by what has come.
    pub fn lacks(&mut self, first: u64, frames: u64) {
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push_back((first, u32::try_from(frames).unwrap_or(u32::MAX)));
        }
    }

    /// Whether nothing is lacking.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.gaps.is_empty()
    }

    /// The gaps to ask for now, by what is to be done about each first frame.
    pub fn ask(&mut self, what: impl Fn(u64) -> Ask) -> Vec<(u64, u32)> {
        let mut asked = Vec::new();
        self.gaps.retain(|gap| {
            let ask = what(gap.0);
            if ask == Ask::Now {
                asked.push(*gap);
            }
            ask == Ask::Later
        });
        asked
    }
}
