//! How long devices stay plugged in without a link: the key `hold` of a VM.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;
use vm_session::HoldTimes;

/// How long devices stay plugged in while their remote has no link, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hold {
    /// Mass storage (25): a guest waits 30 s for a command.
    pub(crate) storage: f64,
    /// Keyboards, pointers and the like (10).
    pub(crate) hid: f64,
    /// Everything else (10).
    pub(crate) other: f64,
}

/// The longest time that makes sense, seconds: a guest gives up long before.
const LONGEST_HOLD: f64 = 3600.0;

impl Default for Hold {
    fn default() -> Self {
        let HoldTimes { storage, hid, other } = HoldTimes::default();
        Self { storage: storage.as_secs_f64(), hid: hid.as_secs_f64(), other: other.as_secs_f64() }
    }
}

impl Hold {
    pub(super) fn check(self) -> Result<()> {
        let times = [("storage", self.storage), ("hid", self.hid), ("other", self.other)];
        match times.into_iter().find(|(_, time)| !(0.0..=LONGEST_HOLD).contains(time)) {
            Some((class, time)) => {
                bail!("hold.{class} = {time} makes no sense; write seconds, from 0 to {LONGEST_HOLD}")
            }
            None => Ok(()),
        }
    }
}

impl From<Hold> for HoldTimes {
    fn from(Hold { storage, hid, other }: Hold) -> Self {
        let seconds = Duration::from_secs_f64;
        Self { storage: seconds(storage), hid: seconds(hid), other: seconds(other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default() {
        let hold: Hold = toml::from_str("hid = 0.5").unwrap();
        let expected = HoldTimes { hid: Duration::from_millis(500), ..HoldTimes::default() };
        assert_eq!(HoldTimes::from(hold), expected);
    }

    #[test]
    fn seconds_are_from_none_to_an_hour() {
        for (storage, good) in
            [(0.0, true), (3600.0, true), (3600.1, false), (-0.1, false), (f64::NAN, false)]
        {
            assert_eq!(Hold { storage, ..Hold::default() }.check().is_ok(), good, "{storage}");
        }
    }
}
