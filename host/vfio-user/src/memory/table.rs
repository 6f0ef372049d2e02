//! Windows in the guest's address space: none overlaps another.

use std::collections::BTreeMap;

use crate::codec::{MAX_MAPS, Refusal};

/// Windows by their first address.
#[derive(Debug)]
pub(super) struct Table<T> {
    windows: BTreeMap<u64, (u64, T)>,
}

/// A window, as it is looked at.
#[derive(Debug, PartialEq)]
pub(super) struct Window<'t, T> {
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) content: &'t T,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { windows: BTreeMap::new() }
    }
}

impl<T> Table<T> {
    /// Whether a window may be laid here.
    pub(super) fn admits(&self, start: u64, size: u64) -> Result<(), Refusal> {
        if self.windows.len() >= MAX_MAPS {
            return Err(Refusal::NoSpace);
        }
        let last = size.checked_sub(1).and_then(|rest| start.checked_add(rest)).ok_or(Refusal::Invalid)?;
        match self.windows.range(..=last).next_back() {
            Some((at, (length, _))) if at + (length - 1) >= start => Err(Refusal::Exists),
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, start: u64, size: u64, content: T) -> Result<(), Refusal> {
        self.admits(start, size)?;
        self.windows.insert(start, (size, content));
        Ok(())
    }

    /// Removes the window that is exactly this one.
    pub(super) fn remove(&mut self, start: u64, size: u64) -> Result<T, Refusal> {
        match self.windows.get(&start) {
            Some((length, _)) if *length == size => {}
            _ => return Err(Refusal::NotFound),
        }
        self.windows.remove(&start).map(|(_, content)| content).ok_or(Refusal::NotFound)
    }

    pub(super) fn clear(&mut self) {
        self.windows.clear();
    }

    /// The window that shows this address.
    pub(super) fn at(&self, address: u64) -> Option<Window<'_, T>> {
        let (start, (size, content)) = self.windows.range(..=address).next_back()?;
        (address - start < *size).then_some(Window { start: *start, size: *size, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overlaps_are_refused_and_only_exact_windows_are_removed() {
        let mut table = Table::default();
        table.insert(0x2000, 0x2000, 'a').unwrap();
        for (start, size) in [(0x2000, 0x2000), (0x1000, 0x1001), (0x3fff, 1), (0x2800, 1), (0, u64::MAX)] {
            assert_eq!(table.admits(start, size), Err(Refusal::Exists), "{start:#x}+{size:#x}");
        }
        for (start, size) in [(0, 0), (2, u64::MAX), (u64::MAX, 2)] {
            assert_eq!(table.admits(start, size), Err(Refusal::Invalid), "{start:#x}+{size:#x}");
        }
        table.insert(0x4000, 0x1000, 'b').unwrap();
        table.insert(u64::MAX - 0xfff, 0x1000, 'z').unwrap();
        for (start, size) in [(0x2000, 0x1000), (0x3000, 0x1000), (0x2000, 0x3000), (0x5000, 0x1000)] {
            assert_eq!(table.remove(start, size), Err(Refusal::NotFound), "{start:#x}+{size:#x}");
        }
        assert_eq!(table.at(u64::MAX).map(|window| *window.content), Some('z'));
        assert_eq!(table.remove(0x2000, 0x2000), Ok('a'));
        assert_eq!(table.at(0x3fff), None);
        assert_eq!(table.at(0x4000), Some(Window { start: 0x4000, size: 0x1000, content: &'b' }));
    }

    #[test]
    fn the_number_of_windows_is_bounded() {
        let mut table = Table::default();
        for page in 0..MAX_MAPS as u64 {
            table.insert(page * 0x2000, 0x1000, ()).unwrap();
        }
        assert_eq!(table.insert(1 << 60, 0x1000, ()), Err(Refusal::NoSpace));
        table.remove(0, 0x1000).unwrap();
        assert_eq!(table.insert(1 << 60, 0x1000, ()), Ok(()));
    }

    proptest! {
        /// Against a model that keeps one owner for each of 64 pages.
        #[test]
        fn every_address_belongs_to_the_window_laid_over_it(
            ops in proptest::collection::vec((any::<bool>(), 0u64..64, 1u64..16), 0..200),
        ) {
            let mut table = Table::default();
            let mut pages = [None; 80];
            for (id, (insert, start, size)) in ops.into_iter().enumerate() {
                let range = start as usize..(start + size) as usize;
                if insert {
                    let free = pages[range.clone()].iter().all(Option::is_none);
                    prop_assert_eq!(table.insert(start, size, id).is_ok(), free);
                    if free {
                        pages[range].fill(Some((id, start, size)));
                    }
                } else if table.remove(start, size).is_ok() {
                    prop_assert!(pages[range.clone()].iter().all(|page| matches!(page, Some((_, at, length)) if (*at, *length) == (start, size))));
                    pages[range].fill(None);
                }
                for (page, owner) in pages.iter().enumerate() {
                    let found = table.at(page as u64).map(|window| (*window.content, window.start, window.size));
                    prop_assert_eq!(found, *owner);
                }
            }
        }
    }
}
