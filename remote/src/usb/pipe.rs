//! The requests of one endpoint of a real device.

use std::{collections::VecDeque, time::Duration};

use wire::usb::{Direction, Endpoint, Request, RequestId};

/// An isochronous OUT pipe starts with so many requests, or after so long: the next ones then come in time.
const HEAD_START: usize = 3;
const HEAD_START_TIME: Duration = Duration::from_millis(30);

/// The requests of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) waiting: VecDeque<Request>,
    pub(super) flying: VecDeque<RequestId>,
    /// Everything up to here is cancelled, also what arrives later.
    pub(super) cancelled: Option<RequestId>,
    /// An isochronous pipe waits for more until then.
    pub(super) starts_at: Option<Duration>,
}

impl Pipe {
    /// Whether an isochronous pipe to the device had better wait for more before it starts.
    pub(super) fn needs_head_start(&mut self, endpoint: Endpoint, now: Duration) -> bool {
        let started = !self.flying.is_empty() || self.waiting.len() >= HEAD_START;
        if started || endpoint.direction() == Direction::In {
            self.starts_at = None;
            return false;
        }
        let waits = now < *self.starts_at.get_or_insert(now + HEAD_START_TIME);
        self.starts_at = self.starts_at.filter(|_| waits);
        waits
    }
}
