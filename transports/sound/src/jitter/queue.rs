//! Runs of frames in the order of their positions, each frame once.

use std::collections::BTreeMap;

/// The most blocks that wait.
const BLOCKS: usize = 1_024;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It waits.
    Stored,
    /// All its frames wait already.
    Duplicate,
    /// The time of all its frames was over; the first one's by so many frames.
    Late(u64),
    /// It lies so many frames further ahead than may wait.
    Ahead(u64),
    /// It is empty, ends beyond all numbers, or is in part what waits already; or there is no room.
    Refused,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<T> {
    /// A block. Its first `skip` frames were taken before or are over, `frames` are left.
    Block {
        /// What was stored.
        payload: T,
        /// Frames of it that are over.
        skip: u64,
        /// Frames of it that are next.
        frames: u64,
    },
    /// So many frames are missing before the next block.
    Gap(u64),
    /// Nothing waits.
    Empty,
}

/// Blocks of frames that wait for their time, as values of any kind. Bounded in number, time and weight.
#[derive(Debug, Clone)]
pub struct Queue<T> {
    blocks: BTreeMap<u64, Held<T>>,
    /// The first frame that was not taken yet.
    head: u64,
    /// The end of the furthest block ever stored.
    end: u64,
    window: u64,
    weight: usize,
    heaviest: usize,
}

#[derive(Debug, Clone)]
struct Held<T> {
    end: u64,
    weight: usize,
    payload: T,
}

impl<T> Queue<T> {
    /// A queue whose next frame is `head`, for blocks that end at most `window` frames after it and weigh at most
    /// `heaviest` together.
    #[must_use]
    pub fn new(head: u64, window: u64, heaviest: usize) -> Self {
        Self { blocks: BTreeMap::new(), head, end: head, window, weight: 0, heaviest }
    }

    /// The next frame.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The end of the furthest frames that have come; the head if it is beyond them.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end.max(self.head)
    }

    /// The blocks that wait, and what they weigh.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.blocks.len(), self.weight)
    }

    /// Takes a block of frames.
    pub fn insert(&mut self, position: u64, frames: u64, payload: T, weight: usize) -> Arrival {
        let Some(end) = position.checked_add(frames).filter(|_| frames > 0) else { return Arrival::Refused };
        if end <= self.head {
            return Arrival::Late(self.head - position);
        }
        let furthest = self.head.saturating_add(self.window);
        if end > furthest {
            return Arrival::Ahead(end - furthest);
        }
        // No sender cuts its frames in two ways; from one that did, a frame could be had at the price of many blocks.
        match self.blocks.range(..end).next_back() {
            Some((first, held)) if *first <= position && held.end >= end => return Arrival::Duplicate,
            Some((_, held)) if held.end > position => return Arrival::Refused,
            _ => {}
        }
        if self.blocks.len() >= BLOCKS || self.weight + weight > self.heaviest {
            return Arrival::Refused;
        }
        self.weight += weight;
        self.end = self.end.max(end);
        self.blocks.insert(position, Held { end, weight, payload });
        Arrival::Stored
    }

    /// Whether a block with this frame waits, or its time is over.
    #[must_use]
    pub fn knows(&self, position: u64) -> bool {
        position < self.head
            || self.blocks.range(..=position).next_back().is_some_and(|(_, held)| held.end > position)
    }

    /// Takes the next block, or tells what is missing.
    #[expect(
        clippy::should_implement_trait,
        reason = "a gap is not the end, and taking changes what is late"
    )]
    pub fn next(&mut self) -> Next<T> {
        while let Some(first) = self.blocks.first_entry() {
            let (start, end) = (*first.key(), first.get().end);
            if start > self.head && end > self.head {
                return Next::Gap(start - self.head);
            }
            let held = first.remove();
            self.weight -= held.weight;
            if end > self.head {
                let (skip, frames) = (self.head - start, end - self.head);
                self.head = end;
                return Next::Block { payload: held.payload, skip, frames };
            }
        }
        Next::Empty
    }

    /// The time of the next frames is over.
    pub fn skip(&mut self, frames: u64) {
        self.head = self.head.saturating_add(frames);
        while let Some(first) = self.blocks.first_entry().filter(|first| first.get().end <= self.head) {
            self.weight -= first.remove().weight;
        }
    }

    /// Nothing that waits is wanted any more; `head` is next, and may be anywhere.
    pub fn restart(&mut self, head: u64) {
        *self = Self::new(head, self.window, self.heaviest);
    }
}
