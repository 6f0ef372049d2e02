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
    /// What flies: the number under which it does, and the request.
    pub(super) flying: VecDeque<(u64, RequestId)>,
    /// Bytes of credit that what flies has.
    pub(super) held: usize,
    /// Everything up to here is cancelled, also what arrives later.
    pub(super) cancelled: Option<RequestId>,
    /// An isochronous pipe waits for more until then.
    starts_at: Option<Duration>,
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

    /// When it starts with what it has.
    pub(super) fn starts_at(&self) -> Option<Duration> {
        self.starts_at.filter(|_| !self.waiting.is_empty())
    }

    /// A request flies under this number, with so much credit.
    pub(super) fn took_off(&mut self, number: u64, id: RequestId, held: usize) {
        self.flying.push_back((number, id));
        self.held += held;
    }

    /// What flew under this number has ended.
    pub(super) fn landed(&mut self, number: u64, held: usize) {
        let Some(at) = self.flying.iter().position(|(flying, _)| *flying == number) else { return };
        self.flying.remove(at);
        self.held -= held;
    }
}
