//! Isochronous TDs: a packet each, several of them in one request. xHCI 1.2 §4.11.2.5, §4.14.2.
//!
//! The remote's bus paces them: a TD ends when its packet has. Nothing is ever retried, and no error halts the
//! endpoint. Requests and their ends may be lost on the way: what a later end has overtaken has missed its service, and so
//! has everything in flight when no end comes at all.

use core::time::Duration;

use bytes::Bytes;
use wire::usb::{Completion, Direction, PacketEnd, Packets, Payload, RequestId, Transfer};

use super::{
    Hands,
    settle::End,
    submit::emit,
    td::{Pending, Progress, Sent, Td},
};
use crate::{
    endpoint::{Endpoint, Kind, State},
    requests::Owner,
    trb::event::{CompletionCode, Event, TransferEvent},
};

/// The most packets of one request: half a frame's length of high-speed audio is no delay that anybody hears.
const BATCH: usize = 8;
/// The longest packet: 16 packets of 1024 bytes, three times. USB 3.2 §9.6.7.
const MAX_PACKET: u32 = 48 << 10;
/// Frame IDs have 11 bits, and name one of the next 895 frames. xHCI 1.2 §4.11.2.5, §6.4.1.3.
const FRAMES: u16 = 0x7ff;
const VALID_FRAMES: u16 = 895;
/// How long no end may come while packets are in flight: longer than any queue and round trip, shorter than what a
/// listener takes for the end.
const LOST_AFTER: Duration = Duration::from_secs(1);

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
        self.lost_at.get_or_insert(hands.cx.now + LOST_AFTER);
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
                hands.requests.lose(sent);
                td.progress = Progress::Finished(CompletionCode::MissedServiceError);
            }
            if sent != id {
                continue;
            }
            // Without its packets it never got that far.
            let end = packets.next().unwrap_or(PacketEnd { moved: 0, result });
            let moved = u32::from(end.moved).min(td.length);
            let arrived = data.split_to(data.len().min(end.moved.into()));
            if td.inward && !arrived.is_empty() {
                let there = arrived.len().min(td.length as usize);
                td.pending = Some(Pending::new(0, arrived.slice(..there)));
            }
            td.done = moved;
            td.progress = match end.result.map_or_else(End::from, |()| End::Done) {
                End::Done if u32::from(end.moved) > td.length => {
                    Progress::Finished(CompletionCode::IsochBufferOverrun)
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
        let stopped = self.orphans.iter().map(|orphan| &orphan.td);
        let in_flight = self.tds.iter().chain(stopped).any(|td| td.sent().is_some());
        self.lost_at = in_flight.then_some(hands.cx.now + LOST_AFTER);
    }

    /// Packets whose ends do not come have missed their service: no other end may ever overtake them.
    pub(crate) fn lose_overdue(&mut self, hands: &mut Hands<'_, '_>) {
        if self.lost_at.is_none_or(|at| at > hands.cx.now) {
            return;
        }
        self.lost_at = None;
        self.cancel_sent(hands);
        for td in self.tds.iter_mut().chain(self.orphans.iter_mut().map(|orphan| &mut orphan.td)) {
            if let Some(sent) = td.sent() {
                hands.requests.lose(sent.id);
                td.progress = Progress::Finished(CompletionCode::MissedServiceError);
            }
        }
        self.cancels = 0;
        self.sort_orphans();
    }

    /// Whether a TD that begins a flow is too late, or too early, for the frame it names. Those behind it keep their
    /// distance from it: the remote's bus does. xHCI 1.2 §4.11.2.5.
    pub(super) fn misses_its_frame(&self, td: &Td, now: u16) -> bool {
        let frame = td.elements.first().and_then(|element| element.trb.frame);
        let begins =
            self.tds.back().is_none_or(|td| td.finished() == Some(CompletionCode::MissedServiceError));
        begins && frame.is_some_and(|frame| frame.wrapping_sub(now) & FRAMES > VALID_FRAMES)
    }

    /// Tells the guest that there was no TD for a packet, once. xHCI 1.2 §4.10.3.1.
    pub(crate) fn tell_dry(&mut self, hands: &mut Hands<'_, '_>) {
        if self.kind != Kind::Isochronous || self.state != State::Running {
            return;
        }
        if !self.tds.is_empty() {
            self.flows = true;
        } else if self.partial.is_none() && core::mem::take(&mut self.flows) {
            let code = match self.address.direction() {
                Direction::Out => CompletionCode::RingUnderrun,
                Direction::In => CompletionCode::RingOverrun,
            };
            let (slot, endpoint) = (self.slot.number(), self.dci);
            let event = TransferEvent {
                pointer: 0,
                length: 0,
                code,
                event_data: false,
                slot,
                endpoint,
                block_interrupt: false,
            };
            hands.events.post(hands.cx.dma, hands.interrupter, Event::Transfer(event));
        }
    }
}
