//! From finished TDs to events, in ring order. xHCI 1.2 §4.10.1, §4.11.3.1, §4.11.5.2.

use super::{
    Hands,
    orphan::Fate,
    td::{Element, Position, Td},
};
use crate::{
    budget::Budget,
    endpoint::{Endpoint, Kind, Resume, State},
    trb::{
        event::{CompletionCode, Event, TransferEvent},
        transfer::TransferKind,
    },
};

/// EDTLA counts modulo 2^24. xHCI 1.2 §4.11.5.2.
const EDTLA_MASK: u32 = 0xff_ffff;

impl Endpoint {
    /// Tells the guest of every TD at the head of the queue that is finished.
    pub(crate) fn retire(&mut self, hands: &mut Hands<'_, '_>) {
        while hands.events.ready() && hands.budget.left() && self.state.runs() && self.retire_head(hands) {}
    }

    /// The same, whatever that costs: what is not told now would be lost.
    pub(crate) fn retire_at_any_cost(&mut self, hands: &mut Hands<'_, '_>) {
        let left = core::mem::replace(hands.budget, Budget::new());
        while self.state.runs() && self.tds.front().is_some_and(|td| td.finished().is_some()) {
            *hands.budget = Budget::new();
            self.retire_head(hands);
        }
        *hands.budget = left;
    }

    /// Tells the guest of the TD at the head of the queue; false if it is not finished, or a long copy goes on in the next
    /// call.
    fn retire_head(&mut self, hands: &mut Hands<'_, '_>) -> bool {
        let Some(head) = self.tds.front_mut().filter(|td| td.finished().is_some()) else { return false };
        let flushed = head.flush(hands.cx.dma, hands.budget);
        if flushed == Ok(false) {
            return false;
        }
        let Some(td) = self.tds.pop_front() else { return false };
        self.release(&td);
        hands.budget.take_td();
        hands.budget.spend_trbs(td.elements.len());
        let code = match td.finished() {
            Some(code) if flushed.is_ok() => code,
            _ => CompletionCode::TrbError,
        };
        match code {
            CompletionCode::Success => {
                self.report_success(hands, &td);
                let speaks = td.elements.iter().any(|element| element.trb.interrupt);
                self.silent = if speaks { 0 } else { self.silent.saturating_add(1) };
                self.dequeue = td.after;
                self.cautious = false;
                self.ahead_failed = false;
            }
            CompletionCode::TrbError => self.fail(hands, &td, code),
            _ if self.kind == Kind::Isochronous => {
                self.report_until(hands, &td, td.end(code).index, code);
                self.dequeue = td.after;
            }
            _ => self.fail(hands, &td, code),
        }
        true
    }

    fn report_success(&mut self, hands: &mut Hands<'_, '_>, td: &Td) {
        let last_piece = td.elements.iter().rposition(|element| element.piece().is_some());
        let mut count = Count::of(td);
        let mut short = false;
        for (index, element) in td.elements.iter().enumerate() {
            match element.trb.kind {
                TransferKind::Normal(_) | TransferKind::Isoch(_) | TransferKind::Data { .. } => {
                    let residue = count.pass(element);
                    let skipped = short;
                    short |= residue > 0;
                    let asked = if skipped {
                        // xHCI 1.2 §4.10.1.1: behind the short TRB only the last one of the TD speaks.
                        element.trb.interrupt && Some(index) == last_piece
                    } else {
                        element.trb.interrupt || short && element.trb.short_interrupt
                    };
                    if asked {
                        self.post(hands, element, code(short), residue);
                    }
                }
                TransferKind::EventData(value) => {
                    if element.trb.interrupt {
                        self.post_event_data(hands, element, code(short), value, count.take());
                    }
                }
                TransferKind::Setup(_) | TransferKind::Status => {
                    short = false;
                    count.edtla = 0;
                    if element.trb.interrupt {
                        self.post(hands, element, CompletionCode::Success, 0);
                    }
                }
                TransferKind::NoOp | TransferKind::Unknown => {
                    if element.trb.interrupt {
                        self.post(hands, element, code(short), 0);
                    }
                }
            }
        }
    }

    /// The TD ends here, and so does the endpoint's work. The output context says so before the event does.
    /// xHCI 1.2 §4.8.3, §4.10.2.
    fn fail(&mut self, hands: &mut Hands<'_, '_>, td: &Td, code: CompletionCode) {
        let position = td.end(code);
        self.dequeue = td.elements.get(position.index).map_or(td.after, |element| element.at);
        if code == CompletionCode::UsbTransactionError {
            // A soft retry goes on where the bus failed. xHCI 1.2 §4.6.8.1.
            self.resume = Resume::at(td, position);
        }
        self.cautious = code != CompletionCode::StallError;
        self.cancel_sent(hands);
        // What is queued behind a stall stalls as well; behind other errors it may have succeeded. A packet that has its
        // time is never run again.
        let void = code == CompletionCode::StallError || self.kind == Kind::Isochronous;
        self.orphan_all(if void { Fate::Void } else { Fate::Open }, Position::START);
        self.fetch = self.dequeue;
        self.state = if code == CompletionCode::TrbError { State::Error } else { State::Halted };
        self.mirror(hands.cx.dma);
        self.report_until(hands, td, position.index, code);
    }

    /// Tells of what is behind the TRBs before this one, and that the TD has ended in this one, or stands still there.
    fn report_until(&self, hands: &mut Hands<'_, '_>, td: &Td, end: usize, code: CompletionCode) {
        let mut count = Count::of(td);
        for (index, element) in td.elements.iter().enumerate() {
            let residue = count.pass(element);
            if index == end {
                return self.post(hands, element, code, residue);
            }
            match element.trb.kind {
                TransferKind::EventData(value) if element.trb.interrupt => {
                    self.post_event_data(hands, element, CompletionCode::Success, value, count.take());
                }
                _ if element.trb.interrupt => self.post(hands, element, CompletionCode::Success, 0),
                _ => {}
            }
        }
    }

    /// The endpoint stands still in this TD: the next run goes on there. Where that is.
    pub(crate) fn stand_still(&mut self, td: &Td) -> Position {
        let starts_over = td.setup.is_some() || td.done == 0;
        let position = if starts_over { Position::START } else { td.position() };
        if let Some(element) = td.elements.get(position.index) {
            self.dequeue = element.at;
            self.resume = Resume::at(td, position);
        }
        position
    }

    /// The guest is told where a TD stands still; the output context says so first. xHCI 1.2 §4.6.9.
    pub(crate) fn report_stopped(&mut self, hands: &mut Hands<'_, '_>, td: &Td) -> Position {
        let position = self.stand_still(td);
        self.mirror(hands.cx.dma);
        self.report_until(hands, td, position.index, CompletionCode::Stopped);
        position
    }

    fn post(&self, hands: &mut Hands<'_, '_>, element: &Element, code: CompletionCode, residue: u32) {
        self.post_transfer(hands, element, code, element.at.at, residue, false);
    }

    fn post_event_data(
        &self,
        hands: &mut Hands<'_, '_>,
        element: &Element,
        code: CompletionCode,
        value: u64,
        moved: u32,
    ) {
        self.post_transfer(hands, element, code, value, moved, true);
    }

    fn post_transfer(
        &self,
        hands: &mut Hands<'_, '_>,
        element: &Element,
        code: CompletionCode,
        pointer: u64,
        length: u32,
        event_data: bool,
    ) {
        let event = TransferEvent {
            pointer,
            length,
            code,
            event_data,
            slot: self.slot.number(),
            endpoint: self.dci,
            block_interrupt: element.trb.block_interrupt,
        };
        hands.events.post(hands.cx.dma, element.trb.interrupter, Event::Transfer(event));
    }
}

fn code(short: bool) -> CompletionCode {
    if short { CompletionCode::ShortPacket } else { CompletionCode::Success }
}

/// The bytes moved before a TRB, since the TD's start or its last Event Data TRB.
pub(crate) fn moved_before(td: &Td, index: usize) -> u32 {
    let mut count = Count::of(td);
    for element in td.elements.iter().take(index) {
        count.pass(element);
        if matches!(element.trb.kind, TransferKind::EventData(_)) && element.trb.interrupt {
            count.take();
        }
    }
    count.edtla
}

/// Counts moved bytes along the TRBs of a TD.
struct Count {
    left: u32,
    edtla: u32,
}

impl Count {
    fn of(td: &Td) -> Self {
        Self { left: td.done, edtla: td.moved_before }
    }

    /// Passes a TRB; answers the bytes that did not move in it.
    fn pass(&mut self, element: &Element) -> u32 {
        let length = element.piece().map_or(0, |piece| piece.length);
        let moved = length.min(self.left);
        self.left -= moved;
        self.edtla = self.edtla.wrapping_add(moved);
        length - moved
    }

    /// The bytes since the last Event Data TRB.
    fn take(&mut self) -> u32 {
        core::mem::take(&mut self.edtla) & EDTLA_MASK
    }
}
