//! The requests that a device has and has not ended: when it goes, each of them still has its end.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wire::{
    Lane,
    usb::{Completion, Failure, Moved, Payload, Request, RequestId},
};

use crate::port::{Ends, place};

/// Requests of one device. As many as the host has credit for.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    waiting: BTreeMap<RequestId, Kind>,
    /// Ends of requests that nobody carries out any more.
    orphans: Ends<VecDeque<Completion>>,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    lane: Lane,
    /// Whether data comes from the device.
    reads: bool,
    /// Whether it has an end that is yet to be told.
    refused: bool,
}

impl Flight {
    /// The device has this request now.
    pub(crate) fn submitted(&mut self, request: &Request) {
        let reads = matches!(request.payload, Payload::In { .. });
        self.waiting.insert(request.id, Kind { lane: request.transfer.lane(), reads, refused: false });
    }

    /// The device has been asked for something without data.
    pub(crate) fn asked(&mut self, id: RequestId) {
        self.waiting.insert(id, Kind { lane: Lane::Ctl, reads: false, refused: false });
    }

    /// Whether it is still to end.
    pub(crate) fn has(&self, id: RequestId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// The device has ended it.
    pub(crate) fn ended(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    /// It ends without having been carried out.
    pub(crate) fn refuse(&mut self, request: &Request, failure: Failure) {
        let lane = request.transfer.lane();
        let end = nobody(lane, request.id, matches!(request.payload, Payload::In { .. }));
        self.orphans[place(lane)].push_back(Completion { result: Err(failure), ..end });
        if let Some(kind) = self.waiting.get_mut(&request.id) {
            kind.refused = true;
        }
    }

    /// The device is gone: whatever waits, and was not refused, ends as disconnected.
    pub(crate) fn abandon(&mut self) {
        for (id, Kind { lane, reads, .. }) in self.waiting.extract_if(.., |_, kind| !kind.refused) {
            self.orphans[place(lane)].push_back(nobody(lane, id, reads));
        }
    }

    /// The session is gone: nobody wants to hear of any request.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The end of the next request of this lane that nobody carries out.
    pub(crate) fn orphan(&mut self, lane: Lane) -> Option<Completion> {
        self.orphans[place(lane)].pop_front()
    }
}

/// The end of a request for a device that is not there.
pub(crate) fn nobody(lane: Lane, id: RequestId, reads: bool) -> Completion {
    let moved = if reads { Moved::In(Bytes::new()) } else { Moved::Out(0) };
    Completion { id, result: Err(Failure::Disconnected), moved, packets: Vec::new(), lane }
}

#[cfg(test)]
mod tests {
    use wire::usb::{DeviceId, Endpoint, Transfer};

    use super::*;

    #[test]
    fn whatever_waits_when_a_device_goes_ends_once_in_order_on_its_lane() {
        let mut flight = Flight::default();
        let bulk = |id, payload| Request {
            id: RequestId(id),
            device: DeviceId(1),
            endpoint: Endpoint::from_address(0x81).unwrap(),
            transfer: Transfer::Bulk { stream: 0 },
            payload,
        };
        for id in [1, 2, 3] {
            flight.submitted(&bulk(id, Payload::In { max: 512 }));
        }
        flight.submitted(&bulk(4, Payload::Out(Bytes::from_static(b"x"))));
        flight.asked(RequestId(5));
        flight.ended(RequestId(2));
        flight.abandon();
        flight.abandon();
        let ends: Vec<_> = std::iter::from_fn(|| flight.orphan(Lane::Bulk)).collect();
        assert_eq!(ends.iter().map(|end| end.id.0).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!((&ends[0].moved, &ends[2].moved), (&Moved::In(Bytes::new()), &Moved::Out(0)));
        assert_eq!(flight.orphan(Lane::Ctl).map(|end| end.id.0), Some(5));
        assert!(flight.orphan(Lane::Int).is_none() && flight.orphan(Lane::Bulk).is_none());
    }

    #[test]
    fn a_request_that_was_refused_has_one_end_and_is_pending_until_it_is_told() {
        let mut flight = Flight::default();
        let endpoint = Endpoint::from_address(0x81).unwrap();
        let (id, device, payload) = (RequestId(1), DeviceId(1), Payload::In { max: 512 });
        let request = Request { id, device, endpoint, transfer: Transfer::Bulk { stream: 0 }, payload };
        flight.submitted(&request);
        flight.refuse(&request, Failure::Cancelled);
        flight.abandon();
        assert!(flight.has(id), "who comes after it must not begin");
        assert_eq!(flight.orphan(Lane::Bulk).map(|end| end.result), Some(Err(Failure::Cancelled)));
        flight.ended(id);
        assert!(flight.orphan(Lane::Bulk).is_none() && !flight.has(id));
    }
}
