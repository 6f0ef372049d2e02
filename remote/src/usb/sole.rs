//! One open device at a time: who opens it again waits until the one before has given it back.
//!
//! What the one before gives back last, by a reset, would else be taken from the new one.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;

/// Bus and address.
type Key = (u8, u8);

/// What is open in this process.
static OPEN: (Mutex<BTreeSet<Key>>, Condvar) = (Mutex::new(BTreeSet::new()), Condvar::new());

/// The right to open a device, until this is dropped.
#[derive(Debug)]
pub(super) struct Sole(Key);

impl Sole {
    /// Waits for the right, so long at most.
    ///
    /// # Errors
    /// The one before still has it.
    pub(super) fn wait(bus: u8, address: u8, patience: Duration) -> anyhow::Result<Self> {
        let (key, (open, closed)) = ((bus, address), &OPEN);
        let guard = open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = closed.wait_timeout_while(guard, patience, |open| open.contains(&key));
        let (mut guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !guard.insert(key) {
            return Err(rusb::Error::Busy).context("it is still being given back");
        }
        Ok(Self(key))
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        let (open, closed) = &OPEN;
        open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_device_is_opened_again_only_when_the_one_before_has_closed() {
        let first = Sole::wait(250, 1, LONG).unwrap();
        let error = Sole::wait(250, 1, Duration::ZERO).unwrap_err();
        assert_eq!(error.downcast_ref::<rusb::Error>(), Some(&rusb::Error::Busy), "it is tried again");
        let other = Sole::wait(250, 2, Duration::ZERO);
        assert!(other.is_ok(), "another device is another matter");
        let (said, heard) = mpsc::channel();
        let also = said.clone();
        let opens = thread::spawn(move || {
            let second = Sole::wait(250, 1, LONG).unwrap();
            also.send("opened").unwrap();
            second
        });
        said.send("closed").unwrap();
        drop(first);
        drop(opens.join().unwrap());
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["closed", "opened"]);
        assert!(Sole::wait(250, 1, Duration::ZERO).is_ok());
    }
}
