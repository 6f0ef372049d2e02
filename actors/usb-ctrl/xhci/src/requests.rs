//! Requests that the remote has not completed, and whose they are.

use std::collections::BTreeMap;

use wire::usb::{DeviceId, RequestId};

use crate::slot::SlotId;

/// Who waits for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The endpoint with this device context index.
    Endpoint(SlotId, u8),
    /// An endpoint whose halt is being cleared; the guest was told already.
    Fence(SlotId, u8),
    /// The stream endpoints of this slot: their device is being given its streams.
    Streams(SlotId),
    /// The port with this index: its device is being reset.
    Port(u8),
}

/// One request.
#[derive(Debug, Clone, Copy)]
struct Booked {
    /// None: it goes on, and nobody waits for it any more.
    owner: Option<Owner>,
    device: DeviceId,
    cost: u64,
}

/// The requests in flight. Ids grow and are never used twice.
///
/// A request that its endpoint forgets is booked on until the remote has ended it, or its device is gone: what a guest
/// takes back and asks for again is on its way all the same.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    next: u64,
    booked: BTreeMap<RequestId, Booked>,
    cost: u64,
    unknown: u64,
}

/// What may be in flight: payload bytes, and [`MESSAGE`] for each request. Only endpoints with nothing in flight may add
/// to it.
const CREDIT: u64 = 64 << 20;
/// What may be in flight at all.
const MOST: u64 = 2 * CREDIT;
/// What a request costs beside its payload.
const MESSAGE: u64 = 4096;

impl Requests {
    /// None, and the id of the first to come.
    pub(crate) fn new(first: RequestId) -> Self {
        Self { next: first.0, booked: BTreeMap::new(), cost: 0, unknown: 0 }
    }

    /// A new request, with so many bytes of payload or of room for it.
    pub(crate) fn allocate(&mut self, owner: Owner, device: DeviceId, bytes: u32) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        let cost = MESSAGE + u64::from(bytes);
        self.booked.insert(id, Booked { owner: Some(owner), device, cost });
        self.cost += cost;
        id
    }

    /// Whether an endpoint that has something in flight may add to it.
    pub(crate) fn has_credit(&self) -> bool {
        self.cost < CREDIT
    }

    /// Whether anybody may add to what is in flight.
    pub(crate) fn has_room(&self) -> bool {
        self.cost < MOST
    }

    /// Nobody waits for this completion any more; it will come.
    pub(crate) fn forget(&mut self, id: RequestId) {
        if let Some(booked) = self.booked.get_mut(&id) {
            booked.owner = None;
        }
    }

    /// This request, or its completion, is lost.
    pub(crate) fn lose(&mut self, id: RequestId) {
        if let Some(booked) = self.booked.remove(&id) {
            self.cost -= booked.cost;
        }
    }

    /// The device is gone, and will end nothing.
    pub(crate) fn lose_all_of(&mut self, device: DeviceId) {
        let of_it: Vec<_> =
            self.booked.iter().filter(|(_, booked)| booked.device == device).map(|(id, _)| *id).collect();
        of_it.into_iter().for_each(|id| self.lose(id));
    }

    /// Whose completion this is. One that belongs to no request is counted.
    pub(crate) fn settle(&mut self, id: RequestId) -> Option<Owner> {
        let Some(booked) = self.booked.remove(&id) else {
            self.unknown += 1;
            return None;
        };
        self.cost -= booked.cost;
        booked.owner
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.booked.len()
    }

    /// How many completions belonged to no request.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }
}
