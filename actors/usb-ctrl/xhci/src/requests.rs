//! Requests that the remote has not completed, and whose they are.

use std::collections::BTreeMap;

use wire::usb::RequestId;

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

/// The requests in flight. Ids grow and are never used twice.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    next: u64,
    owners: BTreeMap<RequestId, (Owner, u32)>,
    bytes: u64,
    unknown: u64,
}

/// Payload bytes in flight beyond which only endpoints with nothing in flight may add to them.
const CREDIT: u64 = 64 << 20;

impl Requests {
    /// None, and the id of the first to come.
    pub(crate) fn new(first: RequestId) -> Self {
        Self { next: first.0, owners: BTreeMap::new(), bytes: 0, unknown: 0 }
    }

    /// A new request, with so many bytes of payload or of room for it.
    pub(crate) fn allocate(&mut self, owner: Owner, bytes: u32) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.owners.insert(id, (owner, bytes));
        self.bytes += u64::from(bytes);
        id
    }

    /// Whether the controller as a whole may have more in flight.
    pub(crate) fn has_credit(&self) -> bool {
        self.bytes < CREDIT
    }

    /// Nobody waits for this completion any more.
    pub(crate) fn forget(&mut self, id: RequestId) {
        self.take(id);
    }

    /// Whose completion this is. One that nobody waits for is counted.
    pub(crate) fn settle(&mut self, id: RequestId) -> Option<Owner> {
        let owner = self.take(id);
        self.unknown += u64::from(owner.is_none());
        owner
    }

    fn take(&mut self, id: RequestId) -> Option<Owner> {
        let (owner, bytes) = self.owners.remove(&id)?;
        self.bytes -= u64::from(bytes);
        Some(owner)
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.owners.len()
    }

    /// How many completions nobody waited for.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }
}
