//! The bytes that all transfers of this computer may have in flight: usbfs gives 16 MiB to all programs together, and
//! a transfer beyond that fails. So ours wait instead.

use std::sync::{
    LazyLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Where Linux says how many MiB there are; 0 means any number.
const LIMIT: &str = "/sys/module/usbcore/parameters/usbfs_memory_mb";
/// Without a limit, or without Linux: what fills any bus for a long time.
const ENOUGH: usize = 64 << 20;

/// The credit of this process.
pub(super) static CREDIT: LazyLock<Credit> = LazyLock::new(|| {
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

/// Bytes that may be taken and given back.
#[derive(Debug)]
pub(super) struct Credit {
    left: AtomicUsize,
}

impl Credit {
    fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Takes so many bytes, if they are there.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    /// Gives bytes back that were taken.
    pub(super) fn give(&self, bytes: usize) {
        self.left.fetch_add(bytes, Relaxed);
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

    #[test]
    fn what_is_not_there_is_not_taken() {
        let credit = Credit::new(10);
        assert!(credit.take(7) && !credit.take(4));
        credit.give(7);
        assert!(credit.take(10));
    }
}
