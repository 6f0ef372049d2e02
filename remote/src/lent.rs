//! One lent device as the Remote sees it: under which id, and how often it has failed.

use std::{collections::VecDeque, time::Duration};

use actix::Recipient;
use wire::{Lane, control::Attachment, usb::DeviceId};

use crate::port::{Do, What};

/// A device may fail so often within this time; once more, and it stays away.
const FAILURES: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// The wait before it comes back the first time; it doubles.
const FIRST: Duration = Duration::from_millis(20);

/// A device that is lent.
pub(crate) struct Lent {
    /// Where its messages go.
    pub(crate) port: Recipient<Do>,
    /// How it is presented; the id is this attachment's.
    pub(crate) attachment: Attachment,
    failures: VecDeque<Duration>,
}

impl Lent {
    /// A device that this port carries out.
    pub(crate) fn new(port: Recipient<Do>, attachment: Attachment) -> Self {
        Self { port, attachment, failures: VecDeque::new() }
    }

    /// Begins anew in this session, under this id.
    pub(crate) fn renew(&mut self, device: DeviceId, session: u64) -> Attachment {
        self.port.do_send(Do { what: What::Renew { session }, credit: (Lane::Ctl, 0) });
        self.attachment.device = device;
        self.attachment.clone()
    }

    /// It failed now. How long to wait before it comes back; none if it failed too often.
    pub(crate) fn failed(&mut self, now: Duration) -> Option<Duration> {
        self.failures.retain(|at| now.saturating_sub(*at) < WITHIN);
        self.failures.push_back(now);
        let before = self.failures.len() - 1;
        (before < FAILURES).then(|| FIRST * (1 << before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_comes_back_five_times_a_minute() {
        let mut lent = Lent::new(crate::tests::nowhere(), crate::tests::attachment("a"));
        let seconds = Duration::from_secs;
        let waits: Vec<_> = (0..6).map(|n| lent.failed(seconds(n)).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(20), Some(40), Some(80), Some(160), Some(320), None]);
        assert_eq!(lent.failed(seconds(70)), Some(FIRST));
    }
}
