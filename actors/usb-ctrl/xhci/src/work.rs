//! Endpoints with something to do, in turn.

use std::collections::BTreeSet;

use crate::slot::SlotId;

/// An endpoint: its slot and device context index.
type Key = (SlotId, u8);

/// Endpoints with something to do. Taken in turn, so that none waits for another that is always busy.
#[derive(Debug, Default)]
pub(crate) struct Work {
    waiting: BTreeSet<Key>,
    last: Option<Key>,
}

impl Work {
    /// There is something to do here.
    pub(crate) fn insert(&mut self, key: Key) {
        self.waiting.insert(key);
    }

    /// There is something to do at all of these.
    pub(crate) fn extend(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.waiting.extend(keys);
    }

    /// The next one.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        let behind = self.last.and_then(|last| self.waiting.range(last..).find(|key| **key != last).copied());
        let key = behind.or_else(|| self.waiting.first().copied())?;
        self.waiting.remove(&key);
        self.last = Some(key);
        Some(key)
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing is to be done any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
