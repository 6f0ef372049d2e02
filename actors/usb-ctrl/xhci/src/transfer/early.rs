//! OUT transfers of Bulk-Only Transport that the guest is told of before the device has taken them: its command and its
//! data cost no round trip each. USB Mass Storage Class, Bulk-Only Transport 1.0 §5.3, §6.7.
//!
//! That promises nothing: a driver believes the *status* of a command, and that is always the device's own. What if the
//! device does not take what was acknowledged?
//!
//! - It stalls the last data of a command that it does not like. The status says so, and how much is missing. The guest,
//!   who was told of no stall, will not clear the halt: that is done here, as the guest would have done. If there is more
//!   data to come, the next of it stalls, and the guest does that itself.
//! - It fails in any other way. The next TD on either of the pair of endpoints stalls, and the driver recovers as from any
//!   command that failed.
//!
//! A cable pulled at that instant would explain both. Order is kept by a simple rule: while something that was acknowledged
//! is on its way, nothing is sent behind it that is not acknowledged as well. So a stop, which takes back what is on its
//! way, never takes back what the guest believes sent; a cleared halt, a reset and a new configuration do.

use wire::usb::{Completion, Failure, RequestId};

use super::{
    Hands, SlotEffect,
    bulk_only::{Commands, Part},
    td::Progress,
};
use crate::{
    endpoint::{Endpoint, context_index},
    requests::Requests,
    trb::event::CompletionCode,
};

/// Bytes that may be acknowledged and on their way: the longest command that drivers send, and then some.
const MOST: u32 = (1 << 20) + 4096;
/// And transfers.
const MOST_TRANSFERS: usize = 64;

/// A transfer that was acknowledged and has not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    id: RequestId,
    bytes: u32,
    part: Part,
}

impl Endpoint {
    /// Whether a TD with so many bytes must wait until what was acknowledged has ended.
    pub(super) fn waits_for_acknowledged(&self, bytes: u32) -> bool {
        !self.acknowledged.is_empty() && !self.may_acknowledge(bytes)
    }

    fn may_acknowledge(&self, bytes: u32) -> bool {
        let on_their_way: u32 = self.acknowledged.iter().map(|one| one.bytes).sum();
        let room = on_their_way.saturating_add(bytes) <= MOST && self.acknowledged.len() < MOST_TRANSFERS;
        room && !self.cautious && !self.void_next
    }

    /// Lets the guest hear of a TD that is on its way as a whole, if that is sound and there is room.
    pub(super) fn acknowledge(&mut self, index: usize, id: RequestId, bytes: u32, part: Part) {
        let first = self.tds.iter().take(index).all(|td| td.finished().is_some());
        let whole = self.tds.get(index).is_some_and(|td| td.done + bytes == td.length);
        if !first || !whole || !self.may_acknowledge(bytes) {
            return;
        }
        if let Some(td) = self.tds.get_mut(index) {
            td.done = td.length;
            td.progress = Progress::Finished(CompletionCode::Success);
            self.acknowledged.push_back(Acknowledged { id, bytes, part });
        }
    }

    /// A request that was acknowledged before has ended; false if this is none.
    pub(super) fn end_acknowledged(
        &mut self,
        hands: &mut Hands<'_, '_>,
        id: RequestId,
        completion: &Completion,
    ) -> bool {
        let Some(index) = self.acknowledged.iter().position(|one| one.id == id) else { return false };
        let Some(Acknowledged { bytes, part, .. }) = self.acknowledged.remove(index) else { return false };
        if completion.result.is_ok() && completion.moved.len() >= bytes {
            return true;
        }
        // What follows it is as void as it is.
        let more_to_come = self.commands.expect_data();
        self.take_back(hands);
        self.commands = Commands::default();
        if part == Part::Data && completion.result == Err(Failure::Stall) && !more_to_come {
            self.fence = self.fence.or_else(|| self.clear_halt(hands));
            return true;
        }
        self.void_next = true;
        let mut pairs = hands.profile.iter().flat_map(|profile| &profile.bulk_only);
        if let Some(pair) = pairs.find(|pair| pair.out == self.address).filter(|_| !more_to_come) {
            hands.effects.push(SlotEffect::FailNext { endpoint: context_index(pair.input) });
        }
        true
    }

    /// What was acknowledged is void: the remote ends what of it is still on its way.
    pub(crate) fn take_back(&mut self, hands: &mut Hands<'_, '_>) {
        if let Some(last) = self.forget_acknowledged(hands.requests) {
            self.cancel_sent_through(hands, Some(last));
        }
    }

    /// The next TD stalls, or the one that is on its way: there is nothing that could answer it.
    pub(crate) fn fail_next(&mut self, hands: &mut Hands<'_, '_>) {
        self.void_next = true;
        self.cancel_sent(hands);
    }

    /// Nobody waits for them any more; the last of them, if there are any.
    pub(crate) fn forget_acknowledged(&mut self, requests: &mut Requests) -> Option<RequestId> {
        let last = self.acknowledged.back().map(|one| one.id);
        self.acknowledged.drain(..).for_each(|one| requests.forget(one.id));
        last
    }
}
