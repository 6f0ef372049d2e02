//! Isochronous TDs: a packet each, several of them in one request. xHCI 1.2 §4.11.2.5, §4.14.2.
//!
//! The remote's bus paces them: a TD ends when its packet has. Nothing is ever retried, and no error halts the
//! endpoint. Requests and their ends may be lost on the way: what a later end has overtaken has missed its service.

use bytes::Bytes;
use wire::usb::{Completion, PacketEnd, Packets, Payload, RequestId, Transfer};

use super::{
    Hands,
    settle::End,
    submit::emit,
    td::{Progress, Sent, Td},
};
use crate::{endpoint::Endpoint, requests::Owner, trb::event::CompletionCode};

/// The most packets of one request: half a frame's length of high-speed audio is no delay that anybody hears.
const BATCH: usize = 8;
/// The longest packet: 16 packets of 1024 bytes, three times. USB 3.2 §9.6.7.
const MAX_PACKET: u32 = 48 << 10;

impl Endpoint {
    /// Submits the TDs that wait, up to a batch of them. There is at least one.
    pub(super) fn submit_packets(&mut self, hands: &mut Hands<'_, '_>) {
        let first = self.submitted;
        let waits = |td: &&mut Td| td.progress == Progress::Waiting && td.length <= MAX_PACKET;
        let mut batch: Vec<&mut Td> = self.tds.iter_mut().skip(first).take(BATCH).take_while(waits).collect();
        let lengths: Vec<u16> = batch.iter().map(|td| td.length as u16).collect();
        let Some(packets) = Packets::new(&lengths) else {
            // It is longer than any packet can be.
            return self.conclude(first, CompletionCode::TrbError);
        };
        for td in &batch {
            hands.budget.spend_trbs(td.elements.len());
        }
        let total = packets.total();
        let payload = if batch.first().is_some_and(|td| td.inward) {
            Payload::In { max: total }
        } else {
            hands.budget.spend_bytes(total);
            let copied = batch.iter().map(|td| td.copy_out(hands.cx.dma, 0, td.length));
            match copied.collect::<Result<Vec<Bytes>, _>>() {
                Ok(pieces) => Payload::Out(pieces.concat().into()),
                Err(_) => return self.conclude(first, CompletionCode::TrbError),
            }
        };
        let owner = Owner::Endpoint(self.slot, self.dci);
        let Some(id) = emit(hands, owner, self.address, Transfer::Isochronous(packets), payload.clone())
        else {
            return;
        };
        for td in &mut batch {
            let payload = if td.inward { Payload::In { max: td.length } } else { Payload::Out(Bytes::new()) };
            td.progress = Progress::Sent(Sent { id, payload, cancelled: false });
        }
        self.submitted += lengths.len();
    }

    /// A request of several packets has ended.
    pub(super) fn complete_packets(
        &mut self,
        hands: &mut Hands<'_, '_>,
        id: RequestId,
        completion: Completion,
    ) {
        let Completion { result, moved, packets, .. } = completion;
        let mut data = match moved {
            wire::usb::Moved::In(data) => data,
            wire::usb::Moved::Out(_) => Bytes::new(),
        };
        let mut packets = packets.into_iter();
        let orphans = self.orphans.iter_mut().map(|orphan| &mut orphan.td);
        for td in self.tds.iter_mut().chain(orphans) {
            let Some((sent, cancelled)) = td.sent().map(|sent| (sent.id, sent.cancelled)) else { continue };
            if sent < id {
                hands.requests.forget(sent);
                td.progress = Progress::Finished(CompletionCode::MissedServiceError);
            }
            if sent != id {
                continue;
            }
            // Without its packets it never got that far.
            let end = packets.next().unwrap_or(PacketEnd { moved: 0, result });
            let moved = u32::from(end.moved).min(td.length);
            let arrived = data.split_to(data.len().min(end.moved.into()));
            hands.budget.spend_bytes(moved);
            if td.inward && !arrived.is_empty() {
                td.pending = Some((0, arrived.slice(..arrived.len().min(td.length as usize))));
            }
            td.done = moved;
            td.progress = match end.result.map_or_else(End::from, |()| End::Done) {
                End::Done if u32::from(end.moved) > td.length => {
                    Progress::Finished(CompletionCode::BabbleDetectedError)
                }
                End::Done => Progress::Finished(CompletionCode::Success),
                End::Cancelled if cancelled => Progress::Waiting,
                End::Cancelled => Progress::Finished(CompletionCode::UsbTransactionError),
                // A stall means nothing on such an endpoint.
                End::Failed(CompletionCode::StallError) => {
                    Progress::Finished(CompletionCode::UsbTransactionError)
                }
                End::Failed(code) => Progress::Finished(code),
            };
            self.cancels = self.cancels.saturating_sub(usize::from(cancelled));
        }
        self.submitted = self.tds.iter().take_while(|td| td.progress != Progress::Waiting).count();
        self.sort_orphans();
    }
}
