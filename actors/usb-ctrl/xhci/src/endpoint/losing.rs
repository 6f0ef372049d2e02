//! What makes requests, late data and fences void: cleared halts, lost devices, closed endpoints.

use bytes::Bytes;
use wire::usb::{self, Payload, RequestId, Transfer};

use super::{Endpoint, Kind, State};
use crate::{
    requests::{Owner, Requests},
    transfer::{Hands, bulk_only::Commands, intercept::clear_halt, submit::emit, td::Progress},
    trb::event::CompletionCode,
};

impl Endpoint {
    /// Late data counts for nothing any more, and perhaps a request must be completed before anything else.
    pub(crate) fn void(&mut self, hands: &mut Hands<'_, '_>, fence: Option<RequestId>) {
        // The remote ends what is in flight before it clears the halt.
        if fence.is_some() || self.expects_more() {
            self.cancel_sent(hands);
            self.rings_mut().for_each(|ring| ring.cancel_sent(hands));
        }
        self.void_late_data();
        self.commands = Commands::default();
        self.resume = None;
        self.rings_mut().for_each(|ring| ring.void(hands, None));
        if let Some(older) = self.fence.filter(|_| fence.is_some()) {
            hands.requests.forget(older);
        }
        if fence.is_some() {
            // If the halt is not cleared after all, that is told when the fence falls.
            self.void_next = false;
        }
        self.fence = fence.or(self.fence);
    }

    /// The fence is gone.
    pub(crate) fn lift_fence(&mut self, id: RequestId, cleared: bool) {
        if self.fence == Some(id) {
            self.fence = None;
            self.void_next |= !cleared;
        }
    }

    /// The fence was cancelled by mistake: the halt is cleared once more.
    pub(crate) fn renew_fence(&mut self, hands: &mut Hands<'_, '_>, id: RequestId) {
        if self.fence != Some(id) {
            return;
        }
        self.fence = self.clear_halt(hands);
    }

    /// Has the remote clear the device's halt of this endpoint, without being asked to by the guest; nothing is submitted
    /// before that is done.
    pub(crate) fn clear_halt(&self, hands: &mut Hands<'_, '_>) -> Option<RequestId> {
        let setup = clear_halt(self.address);
        let owner = Owner::Fence(self.slot, self.dci);
        let (transfer, payload) = (Transfer::Control(setup), Payload::Out(Bytes::new()));
        emit(hands, owner, usb::Endpoint::CONTROL, transfer, payload)
    }

    /// The device cannot be reached any more: what is in flight fails, once, as on a cable that is pulled.
    pub(crate) fn lose_device(&mut self, hands: &mut Hands<'_, '_>) {
        self.close(hands);
        self.rings_mut().for_each(|ring| ring.lose_device(hands));
        if self.state == State::Stopping {
            return;
        }
        if self.kind == Kind::Isochronous {
            // No error halts it: each of them is told.
            for td in self.tds.iter_mut().filter(|td| td.finished().is_none()) {
                td.progress = Progress::Finished(CompletionCode::UsbTransactionError);
            }
            self.submitted = self.tds.len();
            return;
        }
        let done = self.tds.iter().position(|td| td.finished().is_none());
        let Some(first) = done else { return };
        self.tds.truncate(first + 1);
        if let Some(td) = self.tds.back_mut() {
            td.progress = Progress::Finished(CompletionCode::UsbTransactionError);
        }
        self.queued_bytes = self.tds.iter().fold(0, |sum, td| sum.saturating_add(td.length));
        self.queued_trbs = self.tds.iter().map(|td| td.elements.len()).sum();
        self.submitted = self.submitted.min(first);
        // What was read beyond is read again when the endpoint runs again.
    }

    /// The endpoint goes: nobody waits for anything.
    pub(crate) fn close(&mut self, hands: &mut Hands<'_, '_>) {
        let acknowledged = self.forget_acknowledged(hands.requests);
        self.cancel_sent_through(hands, acknowledged);
        self.rings_mut().for_each(|ring| ring.close(hands));
        if let Some(streams) = &mut self.streams {
            streams.forget(hands.requests);
        }
        self.forget_requests(hands.requests);
    }

    fn forget_requests(&mut self, requests: &mut Requests) {
        for td in self.tds.iter_mut().chain(self.orphans.iter_mut().map(|orphan| &mut orphan.td)) {
            if let Some(sent) = td.sent() {
                match self.kind {
                    // Its end may be lost on the way.
                    Kind::Isochronous => requests.lose(sent.id),
                    _ => requests.forget(sent.id),
                }
                td.progress = Progress::Waiting;
            }
        }
        if let Some(fence) = self.fence.take() {
            requests.forget(fence);
        }
        self.orphans.clear();
        self.stash.clear();
        self.resume = None;
        self.cancels = 0;
        self.void_next = false;
        self.lost_at = None;
    }
}
