//! One lent device as the Remote sees it: under which id, what it has moved, and how often it has failed.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use actix::{Recipient, prelude::RecipientRequest};
use serde::{Deserialize, Serialize};
use wire::{
    Lane,
    control::Attachment,
    usb::{Completion, DeviceId, Moved},
};

use crate::port::{Do, PortId, What};

/// A device may fail so often within this time; once more, and it stays away.
const FAILURES: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// The wait before it comes back the first time; it doubles.
const FIRST: Duration = Duration::from_millis(20);

/// A device that is lent.
pub(crate) struct Lent {
    /// Which port carries it out.
    pub(crate) id: PortId,
    /// Where its messages go.
    pub(crate) port: Recipient<Do>,
    /// How it is presented; the id is the last attachment's.
    pub(crate) attachment: Attachment,
    /// Where it is plugged in, if it is a real one.
    pub(crate) bus_port: Option<String>,
    /// Whether the VM of this session has it.
    pub(crate) attached: bool,
    pub(crate) traffic: Traffic,
    pub(crate) since: SystemTime,
    failures: VecDeque<Duration>,
}

/// What a device has moved since it was lent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Requests that ended.
    pub(crate) requests: u64,
    /// Bytes from the device.
    pub(crate) bytes_in: u64,
    /// Bytes to the device.
    pub(crate) bytes_out: u64,
}

impl Traffic {
    /// Counts the end of a request.
    pub(crate) fn count(&mut self, end: &Completion) {
        let bytes = u64::from(end.moved.len());
        let way = match end.moved {
            Moved::In(_) => &mut self.bytes_in,
            Moved::Out(_) => &mut self.bytes_out,
        };
        *way = way.saturating_add(bytes);
        self.requests = self.requests.saturating_add(1);
    }
}

impl Lent {
    /// A device that this port carries out, lent from now on.
    pub(crate) fn new(id: PortId, port: Recipient<Do>, attachment: Attachment) -> Self {
        Self {
            id,
            port,
            attachment,
            bus_port: None,
            attached: false,
            traffic: Traffic::default(),
            since: SystemTime::now(),
            failures: VecDeque::new(),
        }
    }

    /// Begins anew in this session, under this id.
    pub(crate) fn renew(&mut self, device: DeviceId, session: u64) -> Attachment {
        self.tell(What::Renew { session });
        self.attachment.device = device;
        self.attached = true;
        self.attachment.clone()
    }

    /// Tells the port something that the host did not ask for.
    pub(crate) fn tell(&self, what: What) {
        self.port.do_send(Do { what, credit: (Lane::Ctl, 0) });
    }

    /// Gives the device back to this computer; ready when that is done.
    pub(crate) fn unplug(&self) -> RecipientRequest<Do> {
        self.port.send(Do { what: What::Unplug, credit: (Lane::Ctl, 0) })
    }

    /// It failed now. How long to wait before it comes back; none if it failed too often.
    pub(crate) fn failed(&mut self, now: Duration) -> Option<Duration> {
        self.attached = false;
        self.failures.retain(|at| now.saturating_sub(*at) < WITHIN);
        self.failures.push_back(now);
        let before = self.failures.len() - 1;
        (before < FAILURES).then(|| FIRST * (1 << before))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wire::usb::RequestId;

    use super::*;

    #[test]
    fn a_device_comes_back_five_times_a_minute() {
        let mut lent = Lent::new(PortId(1), crate::tests::nowhere(), crate::tests::attachment("a"));
        let seconds = Duration::from_secs;
        let waits: Vec<_> = (0..6).map(|n| lent.failed(seconds(n)).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(20), Some(40), Some(80), Some(160), Some(320), None]);
        assert_eq!(lent.failed(seconds(70)), Some(FIRST));
    }

    #[test]
    fn traffic_is_counted_by_its_way() {
        let mut traffic = Traffic::default();
        for moved in [Moved::In(Bytes::from_static(b"abc")), Moved::Out(5), Moved::Out(2)] {
            let (id, packets) = (RequestId(1), Vec::new());
            traffic.count(&Completion { id, result: Ok(()), moved, packets, lane: Lane::Bulk });
        }
        assert_eq!(traffic, Traffic { requests: 3, bytes_in: 3, bytes_out: 7 });
    }
}
