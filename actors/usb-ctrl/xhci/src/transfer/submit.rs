//! From TDs to requests: every queued TD at once, in ring order, parts of a long one after each other.

use bytes::Bytes;
use wire::usb::{self, Payload, Request, RequestId, ToRemote, Transfer};

use super::{
    Hands, SlotEffect,
    bulk_only::Part,
    intercept::{Plan, disguise, known, plan},
    td::{Pending, Progress, Sent, Td},
};
use crate::{
    Output,
    endpoint::{Endpoint, Kind, context_index},
    redacted::Redacted,
    requests::Owner,
    trb::event::CompletionCode,
};

impl Endpoint {
    /// Submits what is gathered, as far as order, fences and budget let it.
    pub(crate) fn submit(&mut self, hands: &mut Hands<'_, '_>) {
        while hands.budget.left() {
            let limit = self.part_limit();
            let Some(td) = self.tds.get(self.submitted) else { return };
            match &td.progress {
                Progress::Finished(_) => self.submitted += 1,
                Progress::Sent(_) if self.kind == Kind::Isochronous => self.submitted += 1,
                Progress::Sent(sent) if td.setup.is_some() || covers(td, sent) => self.submitted += 1,
                Progress::Sent(_) => return,
                Progress::Waiting if hands.device.is_none() => {
                    self.conclude(self.submitted, CompletionCode::UsbTransactionError);
                }
                Progress::Waiting if self.serves_late_data() => {
                    self.waits_for_service = self.kind == Kind::Interrupt && hands.cx.now < self.service_at;
                    if self.waits_for_service {
                        return;
                    }
                    self.serve_stash(hands);
                }
                Progress::Waiting if self.fenced() || hands.gated || self.expects_more() => return,
                Progress::Waiting if !self.may_add(hands) => {
                    hands.starved = true;
                    return;
                }
                Progress::Waiting if self.void_next => {
                    // The halt that the guest was told is cleared could not be cleared.
                    self.void_next = false;
                    self.conclude(self.submitted, CompletionCode::StallError);
                }
                Progress::Waiting if self.kind == Kind::Isochronous => self.submit_packets(hands),
                Progress::Waiting => {
                    let index = self.submitted;
                    self.submit_one(hands, limit);
                    if self.tds.get(index).is_some_and(|td| td.progress == Progress::Waiting) {
                        // It must wait.
                        return;
                    }
                }
            }
        }
    }

    fn may_add(&self, hands: &Hands<'_, '_>) -> bool {
        let nothing_in_flight = self.submitted == 0 && self.acknowledged.is_empty();
        hands.requests.has_credit() || nothing_in_flight && hands.requests.has_room()
    }

    pub(super) fn conclude(&mut self, index: usize, code: CompletionCode) {
        if let Some(td) = self.tds.get_mut(index) {
            td.progress = Progress::Finished(code);
        }
    }

    fn submit_one(&mut self, hands: &mut Hands<'_, '_>, limit: u32) {
        let index = self.submitted;
        let Some(td) = self.tds.get_mut(index) else { return };
        hands.budget.spend_trbs(td.elements.len());
        match td.flush(hands.cx.dma, hands.budget) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.conclude(index, CompletionCode::TrbError),
        }
        if let Some(setup) = td.setup {
            return self.submit_control(hands, index, setup);
        }
        let (left, inward) = (td.length.saturating_sub(td.done), td.inward);
        let payload = if inward {
            Payload::In { max: self.room(hands, left) }
        } else {
            match td.stage(hands.cx.dma, hands.budget, left.min(limit)) {
                Ok(Some(data)) if self.must_hold(hands, index, &data) => return self.hold(index, data),
                Ok(Some(data)) => Payload::Out(data),
                // A long copy goes on in the next call.
                Ok(None) => return,
                Err(_) => return self.conclude(index, CompletionCode::TrbError),
            }
        };
        let transfer = match self.kind {
            Kind::Interrupt => Transfer::Interrupt,
            Kind::Bulk | Kind::Control | Kind::Isochronous => {
                Transfer::Bulk { stream: self.stream.map_or(0, |stream| stream.id) }
            }
        };
        self.send(hands, index, transfer, payload);
    }

    /// Whether these bytes, the next of a TD, must wait until what was acknowledged has ended: they would not be.
    fn must_hold(&self, hands: &Hands<'_, '_>, index: usize, data: &Bytes) -> bool {
        if self.acknowledged.is_empty() || !self.is_bulk_only(hands) {
            return false;
        }
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let whole = self.tds.get(index).is_some_and(|td| td.done + bytes == td.length);
        !whole || self.waits_for_acknowledged(bytes) || self.commands.part(data).is_none()
    }

    /// They are sent when something has ended.
    fn hold(&mut self, index: usize, data: Bytes) {
        if let Some(td) = self.tds.get_mut(index) {
            td.staged.0 = data.into();
        }
    }

    fn serves_late_data(&self) -> bool {
        !self.stash.is_empty() && self.fence.is_none()
    }

    /// Gives late data to the next TD: as much as fits, up to the end of a short packet. Reports that came at once, after
    /// an outage, are served as a bus serves them, one an interval: a guest's readers lose what comes faster.
    fn serve_stash(&mut self, hands: &mut Hands<'_, '_>) {
        let Some(td) = self.tds.get_mut(self.submitted) else { return };
        match td.flush(hands.cx.dma, hands.budget) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.conclude(self.submitted, CompletionCode::TrbError),
        }
        let Some(late) = self.stash.front_mut() else { return };
        let left = td.length.saturating_sub(td.done);
        let take = left.min(u32::try_from(late.data.len()).unwrap_or(u32::MAX));
        hands.budget.spend_trbs(td.elements.len());
        td.pending = Some(Pending::new(td.done, late.data.split_to(take as usize)));
        td.done += take;
        let ended = late.ended && late.data.is_empty();
        if late.data.is_empty() {
            self.stash.pop_front();
        }
        if ended || td.done >= td.length {
            td.progress = Progress::Finished(CompletionCode::Success);
            self.service_at = hands.cx.now + self.service_interval();
        }
    }

    fn submit_control(&mut self, hands: &mut Hands<'_, '_>, index: usize, setup: usb::Setup) {
        let plan = plan(setup, hands.enabled);
        let Some(td) = self.tds.get_mut(index) else { return };
        if plan == Plan::Answer {
            td.done = if td.inward { 0 } else { td.length };
            return self.conclude(index, CompletionCode::Success);
        }
        if let Some(data) = known(hands.profile, setup).filter(|_| td.inward) {
            let data = disguise(setup, data);
            td.done = u32::try_from(data.len()).unwrap_or(u32::MAX).min(td.length);
            td.pending = Some(Pending::new(0, data.slice(..td.done as usize)));
            return self.conclude(index, CompletionCode::Success);
        }
        let payload = if td.inward && setup.length > 0 {
            Payload::In { max: setup.length.into() }
        } else {
            match out_data(td, hands, td.length) {
                Some(data) => Payload::Out(data),
                None => return self.conclude(index, CompletionCode::TrbError),
            }
        };
        let transfer = Transfer::Control(setup);
        match plan {
            Plan::Acknowledge(endpoint) => {
                let owner = Owner::Fence(self.slot, endpoint);
                let fence = emit(hands, owner, self.address, transfer, payload);
                hands.effects.push(SlotEffect::ClearHalt { endpoint, fence });
                self.conclude(index, CompletionCode::Success);
            }
            Plan::ForwardWith(effect) => {
                hands.effects.push(effect);
                self.send(hands, index, transfer, payload);
            }
            Plan::Forward | Plan::Answer => self.send(hands, index, transfer, payload),
        }
    }

    fn send(&mut self, hands: &mut Hands<'_, '_>, index: usize, transfer: Transfer, payload: Payload) {
        let owner = Owner::Endpoint(self.slot, self.dci);
        let Some(id) = emit(hands, owner, self.address, transfer, payload.clone()) else { return };
        let part = self.announce(hands, id, &payload);
        let bytes = payload.requested();
        if let Some(td) = self.tds.get_mut(index) {
            if let Payload::Out(data) = &payload {
                td.sent_out = Some((td.done, Redacted(data.clone())));
            }
            td.progress = Progress::Sent(Sent { id, payload, cancelled: false });
        }
        if let Some(part) = part {
            self.acknowledge(index, id, bytes, part);
        }
    }
}

impl Endpoint {
    /// What is sent may make certain what another endpoint is asked for next. Answers which part of a command it is.
    fn announce(&mut self, hands: &mut Hands<'_, '_>, after: RequestId, payload: &Payload) -> Option<Part> {
        let (true, Some(profile), Payload::Out(data)) = (self.is_bulk_only(hands), hands.profile, payload)
        else {
            return None;
        };
        let pair = profile.bulk_only.iter().find(|pair| pair.out == self.address)?;
        let part = self.commands.part(data);
        if let Some(next) = self.commands.sent(data) {
            let endpoint = context_index(pair.input);
            hands.effects.push(SlotEffect::Expect { endpoint, after, next });
        }
        part
    }
}

/// Books a request and sends it, if there is a device.
pub(crate) fn emit(
    hands: &mut Hands<'_, '_>,
    owner: Owner,
    endpoint: usb::Endpoint,
    transfer: Transfer,
    payload: Payload,
) -> Option<RequestId> {
    let device = hands.device?;
    let id = hands.requests.allocate(owner, device, payload.requested());
    let request = Request { id, device, endpoint, transfer, payload };
    hands.cx.emit(Output::Usb(ToRemote::Submit(request)));
    Some(id)
}

/// Whether nothing of the TD is left to submit behind this request.
fn covers(td: &Td, sent: &Sent) -> bool {
    !sent.cancelled && u64::from(td.done) + u64::from(sent.payload.requested()) >= u64::from(td.length)
}

fn out_data(td: &Td, hands: &mut Hands<'_, '_>, length: u32) -> Option<Bytes> {
    hands.budget.spend_bytes(length);
    td.copy_out(hands.cx.dma, td.done, length).ok()
}

/// Bytes that came for a TD that nobody waits for any more.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    /// The bytes.
    pub(crate) data: Redacted<Bytes>,
    /// They ended with a short packet, and so does the transfer that gets them.
    pub(crate) ended: bool,
}
