//! The bytes that all transfers of this computer may have in flight: usbfs gives 16 MiB to all programs together, and
//! a transfer beyond that fails. So ours wait instead.
//!
//! What there is is shared by a rule that needs no list of who shares it: nobody may have more than is left for others.
//! One pipe alone gets a half, each of two a third, and a new one always finds something.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Where Linux says how many MiB there are; 0 means any number.
const LIMIT: &str = "/sys/module/usbcore/parameters/usbfs_memory_mb";
/// Without a limit, or without Linux: what fills any bus for a long time.
const ENOUGH: usize = 64 << 20;

/// The credit of this process.
pub(super) static CREDIT: LazyLock<Arc<Credit>> = LazyLock::new(|| {
    let limit = std::fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok());
    Credit::new(bytes(limit))
});

/// A quarter is left to others, and to what the kernel counts beside the data.
fn bytes(mebibytes: Option<usize>) -> usize {
    match mebibytes {
        None | Some(0) => ENOUGH,
        Some(limit) => limit.saturating_mul((1 << 20) / 4 * 3).min(ENOUGH),
    }
}

/// Bytes that may be taken and come back.
#[derive(Debug)]
pub(super) struct Credit {
    all: usize,
    taken: AtomicUsize,
}

/// Bytes that were taken; they come back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    credit: Arc<Credit>,
    bytes: usize,
}

/// Why there is nothing to take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// Who asks has its part, and gets more when something of its own comes back.
    HasItsPart,
    /// Others have too much; nobody tells when that has changed.
    OthersHave,
}

impl Credit {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { all: bytes, taken: AtomicUsize::new(0) })
    }

    /// Takes so many bytes for somebody who holds some already. Who holds none always gets them, or nothing of it
    /// would ever end and give credit back.
    ///
    /// # Errors
    /// It must wait.
    pub(super) fn take(self: &Arc<Self>, bytes: usize, held: usize) -> Result<Share, Short> {
        let wanted = held.saturating_add(bytes);
        let take = |taken: usize| {
            let taken = taken.saturating_add(bytes);
            (held == 0 || wanted <= self.all.saturating_sub(taken)).then_some(taken)
        };
        match self.taken.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Ok(Share { credit: Arc::clone(self), bytes }),
            Err(_) if wanted > self.all.saturating_sub(wanted) => Err(Short::HasItsPart),
            Err(_) => Err(Short::OthersHave),
        }
    }
}

impl Share {
    /// How many bytes it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.credit.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_what_the_kernel_gives_are_ours_and_no_limit_is_a_sane_one() {
        assert_eq!(bytes(Some(16)), 12 << 20);
        assert_eq!((bytes(Some(0)), bytes(None), bytes(Some(usize::MAX))), (ENOUGH, ENOUGH, ENOUGH));
    }

    /// Takes bytes one by one, in turn for each of so many, until nobody gets any more; what each has then.
    fn shared_by(number: usize, credit: &Arc<Credit>) -> Vec<Vec<Share>> {
        let mut all: Vec<Vec<Share>> = (0..number).map(|_| Vec::new()).collect();
        loop {
            let before: usize = all.iter().map(Vec::len).sum();
            all.iter_mut().for_each(|shares| shares.extend(credit.take(1, shares.len())));
            if all.iter().map(Vec::len).sum::<usize>() == before {
                return all;
            }
        }
    }

    #[test]
    fn nobody_has_more_than_is_left_for_others() {
        let credit = Credit::new(1200);
        for (number, expected) in [(1, 600), (2, 400), (5, 200)] {
            let shares = shared_by(number, &credit);
            assert!(shares.iter().all(|shares| shares.len().abs_diff(expected) <= 1), "{number}");
        }
        assert_eq!(credit.taken.load(Relaxed), 0, "what is dropped comes back");
    }

    #[test]
    fn who_holds_nothing_gets_what_it_asks_for_and_others_wait_for_it() {
        let credit = Credit::new(100);
        let first = credit.take(60, 0).unwrap();
        assert_eq!(credit.take(1, 60).unwrap_err(), Short::HasItsPart);
        let second = credit.take(60, 0).unwrap();
        assert_eq!(credit.take(1, 10).unwrap_err(), Short::OthersHave);
        drop((first, second));
        assert_eq!(credit.take(1, 10).unwrap().bytes(), 1);
    }
}
