//! What was sent and may have to be sent again.

use std::{collections::VecDeque, time::Duration};

use crate::tx::Chunk;

/// How often the time before a chunk is sent again doubles.
const DOUBLINGS: u8 = 4;

/// Chunks of one lane from the peer's acknowledgement on, oldest first. Their bytes are shared, not copied.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    kept: VecDeque<Kept>,
    /// Their cost, bytes.
    cost: u64,
    /// So many at the end have not been sent over the link of the moment.
    unsent: usize,
    /// The offsets of chunks that seem to be lost, in order.
    lost: VecDeque<u64>,
    /// When to look for lost chunks; not later than the first can be given up for lost.
    look_at: Option<Duration>,
}

#[derive(Debug)]
struct Kept {
    chunk: Chunk,
    sent: Duration,
    /// How often it was given up for lost.
    lost: u8,
}

impl Ring {
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Keeps a chunk that is sent now, and lost if it is not acknowledged within `patience`.
    pub(crate) fn push(&mut self, chunk: Chunk, now: Duration, patience: Duration) {
        self.look_until(now + patience);
        self.cost += chunk.cost();
        self.kept.push_back(Kept { chunk, sent: now, lost: 0 });
    }

    /// Forgets what ends at or before this offset.
    pub(crate) fn forget(&mut self, base: u64) {
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.chunk.end() <= base) {
            self.cost -= kept.chunk.cost();
        }
        self.unsent = self.unsent.min(self.kept.len());
        if self.kept.is_empty() {
            self.look_at = None;
        }
        while self.lost.pop_front_if(|seq| *seq < base).is_some() {}
    }

    /// A new link: all of it has to be sent again.
    pub(crate) fn rewind(&mut self) {
        self.unsent = self.kept.len();
        self.lost.clear();
        self.look_at = None;
        self.kept.iter_mut().for_each(|kept| kept.lost = 0);
    }

    /// Whether something has to be sent again.
    pub(crate) fn ready(&self) -> bool {
        self.unsent > 0 || !self.lost.is_empty()
    }

    /// Whether a chunk that is lost goes next: it counts as on its way already.
    pub(crate) fn repairs(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The first chunk that has not been sent over the link of the moment.
    pub(crate) fn unsent(&self) -> Option<&Chunk> {
        let at = self.kept.len().checked_sub(self.unsent)?;
        self.kept.get(at).map(|kept| &kept.chunk)
    }

    /// The next chunk to be sent again.
    pub(crate) fn pop(&mut self, now: Duration, patience: Duration) -> Option<Chunk> {
        self.look_until(now + patience);
        let at = match self.lost.pop_front() {
            Some(seq) => self.kept.binary_search_by_key(&seq, |kept| kept.chunk.seq).ok()?,
            None => {
                let at = self.kept.len().checked_sub(self.unsent)?;
                self.unsent = self.unsent.saturating_sub(1);
                at
            }
        };
        let kept = self.kept.get_mut(at)?;
        kept.sent = now;
        Some(kept.chunk.clone())
    }

    /// When [`Self::on_timeout`] wants to be called.
    pub(crate) fn look_at(&self) -> Option<Duration> {
        self.look_at
    }

    /// Gives chunks up for lost that were not acknowledged in time.
    pub(crate) fn on_timeout(&mut self, now: Duration, patience: Duration) {
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        let sent = self.kept.len() - self.unsent;
        for kept in self.kept.iter_mut().take(sent).filter(|kept| kept.lost_at(patience) <= now) {
            if let Err(at) = self.lost.binary_search(&kept.chunk.seq) {
                self.lost.insert(at, kept.chunk.seq);
            }
            kept.sent = now;
            kept.lost = kept.lost.saturating_add(1);
        }
        self.look_at = self.kept.iter().take(sent).map(|kept| kept.lost_at(patience)).min();
    }

    fn look_until(&mut self, at: Duration) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}

impl Kept {
    fn lost_at(&self, patience: Duration) -> Duration {
        self.sent + patience * (1 << self.lost.min(DOUBLINGS))
    }
}
