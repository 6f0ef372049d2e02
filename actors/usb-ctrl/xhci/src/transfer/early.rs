//! OUT transfers of Bulk-Only Transport that the guest is told of before the device has taken them: its command and its
//! data cost no round trip each. USB Mass Storage Class, Bulk-Only Transport 1.0 §5.3, §6.7.
//!
//! That promises nothing: a driver believes the *status* of a command, and that is always the device's own. What if the
//! device does not take what was acknowledged?
//!
//! - It stalls the data of a command that it does not like. The status says so, and how much is missing. The guest, who
//!   was told of no stall, will not clear the halt: that is done here, as the guest would have done.
//! - It fails in any other way. The next TD stalls, and the driver recovers as from any command that failed.
//!
//! A cable pulled at that instant would explain both.

use wire::usb::{Completion, Failure, RequestId};

use super::{
    Hands,
    bulk_only::{Commands, Part},
    td::Progress,
};
use crate::{endpoint::Endpoint, requests::Requests, trb::event::CompletionCode};

/// Bytes that may be acknowledged and on their way: the longest command that drivers send, and then some.
const MOST: u32 = (1 << 20) + 4096;

/// A transfer that was acknowledged and has not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    id: RequestId,
    bytes: u32,
    part: Part,
}

impl Endpoint {
    /// Lets the guest hear of a TD that is on its way as a whole, if that is sound and there is room.
    pub(super) fn acknowledge(&mut self, index: usize, id: RequestId, bytes: u32, part: Part) {
        let on_their_way: u32 = self.acknowledged.iter().map(|one| one.bytes).sum();
        let room = on_their_way.saturating_add(bytes) <= MOST;
        let Some(td) = self.tds.get_mut(index).filter(|td| td.done + bytes == td.length) else { return };
        if room && !self.cautious && !self.void_next {
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
        match completion.result {
            Ok(()) if completion.moved.len() >= bytes => {}
            // Taken back with the command, or behind a stall that is being cleared.
            Err(Failure::Cancelled) => {}
            Err(Failure::Stall) if part == Part::Data => {
                self.commands = Commands::default();
                if self.fence.is_none() {
                    self.fence = self.clear_halt(hands);
                }
            }
            Ok(()) | Err(_) => {
                self.commands = Commands::default();
                self.void_next = true;
            }
        }
        true
    }

    /// Nobody waits for them any more; the last of them, if there are any.
    pub(crate) fn forget_acknowledged(&mut self, requests: &mut Requests) -> Option<RequestId> {
        let last = self.acknowledged.back().map(|one| one.id);
        self.acknowledged.drain(..).for_each(|one| requests.forget(one.id));
        last
    }
}
