//! From finished TDs to events, in ring order. xHCI 1.2 §4.10.1, §4.11.3.1, §4.11.5.2.

use super::{
    Hands,
    orphan::Fate,
    td::{Element, Position, Td},
};
use crate::{
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
        while hands.events.ready() && hands.budget.left() && self.state.runs() {
            if self.tds.front().is_none_or(|td| td.finished().is_none()) {
                return;
            }
            let Some(mut td) = self.tds.pop_front() else { return };
            self.release(&td);
            hands.budget.take_td();
            hands.budget.spend_trbs(td.elements.len());
            let flushed = td.flush(hands.cx.dma);
            let code = match td.finished() {
                Some(code) if flushed.is_ok() => code,
                _ => CompletionCode::TrbError,
            };
            if self.kind == Kind::Isochronous
                && code != CompletionCode::Success
                && code != CompletionCode::TrbError
            {
                self.report_failure(hands, &td, td.position().index, code);
                self.dequeue = td.after;
            } else if code == CompletionCode::Success {
                self.report_success(hands, &td);
                self.dequeue = td.after;
                self.cautious = false;
                self.ahead_failed = false;
            } else {
                self.fail(hands, &td, code);
            }
        }
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
        let position = td.position();
        self.dequeue = td.elements.get(position.index).map_or(td.after, |element| element.at);
        if code == CompletionCode::UsbTransactionError {
            // A soft retry goes on where the bus failed. xHCI 1.2 §4.6.8.1.
            self.resume = Resume::at(td, position);
        }
        self.cautious = code != CompletionCode::StallError;
        self.cancel_sent(hands);
        // What is queued behind a stall stalls as well; behind other errors it may have succeeded.
        self.orphan_all(if code == CompletionCode::StallError { Fate::Void } else { Fate::Open });
        self.fetch = self.dequeue;
        self.state = if code == CompletionCode::TrbError { State::Error } else { State::Halted };
        self.mirror(hands.cx.dma);
        self.report_failure(hands, td, position.index, code);
    }

    fn report_failure(&self, hands: &mut Hands<'_, '_>, td: &Td, failed: usize, code: CompletionCode) {
        let mut count = Count::of(td);
        for (index, element) in td.elements.iter().enumerate() {
            let residue = count.pass(element);
            if index == failed {
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

    /// The guest is told where a TD stands still; the output context says so first. xHCI 1.2 §4.6.9.
    pub(crate) fn report_stopped(&mut self, hands: &mut Hands<'_, '_>, td: &Td) {
        let starts_over = td.setup.is_some() || td.done == 0;
        let position = if starts_over { Position::START } else { td.position() };
        let Some(element) = td.elements.get(position.index) else { return };
        let length = element.piece().map_or(0, |piece| piece.length);
        self.dequeue = element.at;
        self.resume = Resume::at(td, position);
        self.mirror(hands.cx.dma);
        self.post(hands, element, CompletionCode::Stopped, length.saturating_sub(position.offset));
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
