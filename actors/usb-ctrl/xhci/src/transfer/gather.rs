//! From the ring to TDs: chained TRBs belong together, and so do the three stages of a control request.
//! xHCI 1.2 §3.2.9, §4.11.2.

use pci::Dma;
use wire::usb::Direction;

use super::{
    Hands,
    td::{Element, Progress, Td},
};
use crate::{
    endpoint::{Endpoint, Kind, Resume},
    ring::{Fetched, RingPointer, fetch},
    trb::{
        event::CompletionCode,
        transfer::{Buffer, TransferKind, TransferTrb},
    },
};

/// The most TRBs of one TD; 2048 pages are 8 MiB.
const MAX_TRBS: usize = 2048;
/// The TRBs of one endpoint's TDs that are gathered and not retired; no more TDs are gathered beyond it.
const TRB_CREDIT: usize = 1024;
/// The most TDs of one endpoint that are gathered and not retired.
const MAX_TDS: usize = 256;
/// The most TDs in a row that neither the remote nor the guest hears of: a ring with more of them is a circle.
const MAX_SILENT: u32 = 1 << 14;
/// The payload credit of one endpoint: no more TDs are gathered beyond it.
const CREDIT: u32 = 4 << 20;

/// A TD whose end has not been seen yet.
#[derive(Debug, Clone)]
pub(crate) struct Partial {
    td: Td,
    stage: Stage,
    /// The last TRB was chained to one that must follow.
    chained: bool,
}

/// The stage of a control request, or the only one of another transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Only,
    Setup,
    Data,
    Status,
}

impl Endpoint {
    /// Takes TDs off the ring as far as credit and budget go, and submits each at once.
    pub(crate) fn gather(&mut self, hands: &mut Hands<'_, '_>) {
        while self.has_room() && hands.budget.left() {
            let Some(mut td) = self.next_td(hands) else { return };
            self.resume_or_adopt(&mut td, hands.cx.dma);
            if self.kind == Kind::Isochronous && self.misses_its_frame(&td, hands.frame) {
                td.progress = Progress::Finished(CompletionCode::MissedServiceError);
            }
            self.queued_bytes = self.queued_bytes.saturating_add(td.length.min(CREDIT));
            self.queued_trbs += td.elements.len();
            self.tds.push_back(td);
            hands.budget.take_td();
            // Isochronous ones go together: the next turn of the endpoint's work submits them.
            if self.kind != Kind::Isochronous {
                self.submit(hands);
            }
        }
    }

    fn has_room(&self) -> bool {
        let depth = if self.cautious { 1 } else { MAX_TDS };
        let mistaken = self.tds.back().is_some_and(|td| td.finished() == Some(CompletionCode::TrbError));
        self.tds.len() < depth && self.queued_bytes < CREDIT && self.queued_trbs < TRB_CREDIT && !mistaken
    }

    /// A TD leaves the queue.
    pub(crate) fn release(&mut self, td: &Td) {
        self.queued_bytes = self.queued_bytes.saturating_sub(td.length.min(CREDIT));
        self.queued_trbs = self.queued_trbs.saturating_sub(td.elements.len());
        self.submitted = self.submitted.saturating_sub(1);
    }

    fn next_td(&mut self, hands: &mut Hands<'_, '_>) -> Option<Td> {
        if self.silent >= MAX_SILENT {
            return Some(self.mistake(self.fetch));
        }
        loop {
            let chained = self.partial.as_ref().is_some_and(|partial| partial.chained);
            match fetch(&mut self.fetch, hands.cx.dma, hands.budget, chained) {
                Fetched::Trb(at, raw) => {
                    if let Some(td) = self.take(Element { at, trb: TransferTrb::decode(raw) }) {
                        return Some(td);
                    }
                }
                Fetched::ChainEnd => {
                    if let Some(td) = self.end_chain() {
                        return Some(td);
                    }
                }
                Fetched::Empty | Fetched::OutOfBudget => return None,
                Fetched::Endless(at) | Fetched::Fault(at) => return Some(self.mistake(at)),
            }
        }
    }

    fn mistake(&mut self, at: RingPointer) -> Td {
        self.partial = None;
        Td::mistaken(at, TransferTrb::decode(crate::trb::RawTrb::default()))
    }

    /// Adds a TRB to the TD that is being gathered; answers the TD if this was its last.
    fn take(&mut self, element: Element) -> Option<Td> {
        let stage = self.partial.as_ref().map(|partial| (partial.stage, partial.chained));
        let fits = self.partial.as_ref().is_none_or(|partial| partial.td.elements.len() < MAX_TRBS);
        let Some(stage) = self.step(stage, &element).filter(|_| fits) else {
            self.partial = None;
            return Some(Td::mistaken(element.at, element.trb));
        };
        let chained = element.trb.chain;
        match &mut self.partial {
            Some(partial) => {
                partial.td.push(element);
                (partial.stage, partial.chained) = (stage, chained);
            }
            none => {
                let inward = self.address.direction() == Direction::In;
                *none = Some(Partial { td: Td::starting(element, inward), stage, chained });
            }
        }
        if chained { None } else { self.end_chain() }
    }

    /// The stage that a TRB belongs to, after this stage and chain bit; none if it has no business there.
    fn step(&self, before: Option<(Stage, bool)>, element: &Element) -> Option<Stage> {
        let kind = element.trb.kind;
        let receives = match kind {
            TransferKind::Normal(_) if before.is_some_and(|(stage, _)| stage == Stage::Data) => {
                self.partial.as_ref().is_some_and(|partial| partial.td.inward)
            }
            TransferKind::Data { inward, .. } => inward,
            _ => self.address.direction() == Direction::In,
        };
        if receives && element.piece().is_some_and(|p| matches!(p.buffer, Buffer::Immediate(_))) {
            return None;
        }
        Some(match (before, kind) {
            (None, TransferKind::NoOp | TransferKind::EventData(_)) => Stage::Only,
            (Some((stage, true)), TransferKind::NoOp | TransferKind::EventData(_)) => stage,
            // Each TD of an isochronous endpoint begins with an Isoch TRB, and no other has one. xHCI 1.2 §4.11.2.5.
            (None, TransferKind::Isoch(_)) if self.kind == Kind::Isochronous => Stage::Only,
            (None, TransferKind::Normal(_)) if self.kind == Kind::Isochronous => return None,
            (None | Some((Stage::Only, true)), TransferKind::Normal(_)) if !self.is_control() => Stage::Only,
            (None, TransferKind::Setup(_)) if self.is_control() => Stage::Setup,
            (Some((Stage::Setup, _)), TransferKind::Data { .. }) => Stage::Data,
            (Some((Stage::Data, true)), TransferKind::Normal(_)) => Stage::Data,
            (Some((Stage::Setup, _) | (Stage::Data, false)), TransferKind::Status) => Stage::Status,
            _ => return None,
        })
    }

    /// The chain has ended: the TD as well, unless more stages of a control request must follow.
    fn end_chain(&mut self) -> Option<Td> {
        let partial = self.partial.as_mut()?;
        partial.chained = false;
        if matches!(partial.stage, Stage::Setup | Stage::Data) {
            return None;
        }
        let mut td = self.partial.take()?.td;
        if !td.is_transfer() {
            td.progress = Progress::Finished(CompletionCode::Success);
        } else if !control_is_sound(&td) {
            td.progress = Progress::Finished(CompletionCode::TrbError);
        }
        Some(td)
    }

    /// A TD that the guest runs again goes on where it stopped, or takes over the result of its first run.
    fn resume_or_adopt(&mut self, td: &mut Td, dma: &dyn Dma) {
        if !td.is_transfer() || td.finished().is_some() {
            return;
        }
        if let Some(Resume { at, length, offset, before }) = self.resume.take()
            && at == td.start().at
            && td.elements.first().and_then(Element::piece).is_some_and(|piece| piece.length == length)
        {
            td.done = offset;
            td.moved_before = before;
        }
        self.adopt(td, dma);
    }
}

/// Whether the data stage fits the request: same direction, and an OUT brings exactly what it announces.
fn control_is_sound(td: &Td) -> bool {
    let Some(setup) = td.setup else { return true };
    match (setup.length, td.length) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        (announced, there) => match setup.direction() {
            Direction::In => td.inward,
            Direction::Out => !td.inward && u32::from(announced) == there,
        },
    }
}
