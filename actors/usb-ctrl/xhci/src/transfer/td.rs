//! Transfer descriptors: all TRBs of one USB transfer. xHCI 1.2 §4.11.2.

use bytes::Bytes;
use pci::{Dma, DmaError};
use wire::usb::{Payload, RequestId, Setup};

use crate::{
    budget::Budget,
    redacted::Redacted,
    ring::RingPointer,
    trb::{
        event::CompletionCode,
        transfer::{Buffer, Piece, TransferKind, TransferTrb},
    },
};

/// One TRB of a TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    /// Where it is.
    pub(crate) at: RingPointer,
    /// What it asks for.
    pub(crate) trb: TransferTrb,
}

impl Element {
    /// Its piece of data, if it is one.
    pub(crate) fn piece(&self) -> Option<Piece> {
        match self.trb.kind {
            TransferKind::Normal(piece) | TransferKind::Isoch(piece) | TransferKind::Data { piece, .. } => {
                Some(piece)
            }
            _ => None,
        }
    }
}

/// How far a TD is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing, or the next part, is to be submitted.
    Waiting,
    /// A request is in flight.
    Sent(Sent),
    /// It can be retired.
    Finished(CompletionCode),
}

/// A request in flight for a TD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its id.
    pub(crate) id: RequestId,
    /// What was sent, or how much room there is.
    pub(crate) payload: Payload,
    /// It was cancelled by us, and its completion is still to come.
    pub(crate) cancelled: bool,
}

/// One USB transfer. Those of the guest have at least one element.
#[derive(Debug, Clone)]
pub(crate) struct Td {
    /// Its TRBs in order, Links left out.
    pub(crate) elements: Vec<Element>,
    /// The control request.
    pub(crate) setup: Option<Setup>,
    /// Data comes from the device.
    pub(crate) inward: bool,
    /// All bytes of its pieces.
    pub(crate) length: u32,
    /// Bytes that have moved, counted from the first piece.
    pub(crate) done: u32,
    /// Bytes that have moved in TRBs of the same TD before these, ahead of a stop.
    pub(crate) moved_before: u32,
    /// Bytes from the device that are not all in guest memory yet.
    pub(crate) pending: Option<Pending>,
    /// Bytes that are to be sent to the device, as far as they have been copied.
    pub(crate) staged: Redacted<Vec<u8>>,
    /// The bytes last sent to the device, and their offset.
    pub(crate) sent_out: Option<(u32, Redacted<Bytes>)>,
    /// The ring behind it.
    pub(crate) after: RingPointer,
    /// How far it is.
    pub(crate) progress: Progress,
}

/// Bytes from the device on their way into guest memory. They are kept whole until all of them are there: a TD that is
/// taken away in between has received none.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// Where they begin among the TD's bytes.
    pub(crate) offset: u32,
    /// All of them.
    pub(crate) data: Redacted<Bytes>,
    copied: usize,
}

impl Pending {
    /// None of these is in guest memory.
    pub(crate) fn new(offset: u32, data: Bytes) -> Self {
        Self { offset, data: Redacted(data), copied: 0 }
    }
}

impl Position {
    /// Nothing has moved.
    pub(crate) const START: Self = Self { index: 0, offset: 0, before: 0 };
}

impl Td {
    /// A TD that starts with this TRB.
    pub(crate) fn starting(first: Element, inward: bool) -> Self {
        let mut this = Self {
            elements: Vec::new(),
            setup: None,
            inward,
            length: 0,
            done: 0,
            moved_before: 0,
            pending: None,
            staged: Redacted::default(),
            sent_out: None,
            after: first.at.next(),
            progress: Progress::Waiting,
        };
        this.push(first);
        this
    }

    /// Room for bytes that no TD has asked for yet; the ring goes on here.
    pub(crate) fn unasked(after: RingPointer, length: u32, progress: Progress) -> Self {
        Self {
            elements: Vec::new(),
            setup: None,
            inward: true,
            length,
            done: 0,
            moved_before: 0,
            pending: None,
            staged: Redacted::default(),
            sent_out: None,
            after,
            progress,
        }
    }

    /// A TD that is nothing but a mistake, found here.
    pub(crate) fn mistaken(at: RingPointer, trb: TransferTrb) -> Self {
        let mut this = Self::starting(Element { at, trb }, false);
        this.progress = Progress::Finished(CompletionCode::TrbError);
        this
    }

    /// Adds a TRB.
    pub(crate) fn push(&mut self, element: Element) {
        match element.trb.kind {
            TransferKind::Setup(setup) => self.setup = Some(setup),
            TransferKind::Data { inward, .. } => self.inward = inward,
            _ => {}
        }
        self.length = self.length.saturating_add(element.piece().map_or(0, |piece| piece.length));
        self.after = element.at.next();
        self.elements.push(element);
    }

    /// Where it starts.
    pub(crate) fn start(&self) -> RingPointer {
        self.elements.first().map_or(self.after, |element| element.at)
    }

    /// Whether there is anything for the device in it.
    pub(crate) fn is_transfer(&self) -> bool {
        self.setup.is_some() || self.elements.iter().any(|element| element.piece().is_some())
    }

    /// Whether it is at its end, for better or worse.
    pub(crate) fn finished(&self) -> Option<CompletionCode> {
        match self.progress {
            Progress::Finished(code) => Some(code),
            Progress::Waiting | Progress::Sent(_) => None,
        }
    }

    /// The request in flight.
    pub(crate) fn sent(&self) -> Option<&Sent> {
        match &self.progress {
            Progress::Sent(sent) => Some(sent),
            Progress::Waiting | Progress::Finished(_) => None,
        }
    }

    /// Where the bytes that have moved end: the element, the bytes moved in it, and the bytes moved before it.
    /// With everything moved it is the status stage, or the last TRB with bytes.
    pub(crate) fn position(&self) -> Position {
        let mut left = self.done;
        for (index, element) in self.elements.iter().enumerate() {
            let Some(piece) = element.piece() else { continue };
            if left < piece.length {
                return Position { index, offset: left, before: self.done - left };
            }
            left -= piece.length;
        }
        match self.elements.iter().position(|e| e.trb.kind == TransferKind::Status) {
            Some(index) => Position { index, offset: 0, before: self.done },
            None => self.last_bytes(),
        }
    }

    /// Where a TD that ended with this code did.
    pub(crate) fn end(&self, code: CompletionCode) -> Position {
        // Too many bytes is a matter of the bytes, whatever comes behind them.
        let babbled = code == CompletionCode::BabbleDetectedError && self.done >= self.length;
        if babbled { self.last_bytes() } else { self.position() }
    }

    /// The last TRB with bytes, all of them moved; the last one if none has any.
    fn last_bytes(&self) -> Position {
        let last = self.elements.len().saturating_sub(1);
        let index = self.elements.iter().rposition(|element| element.piece().is_some()).unwrap_or(last);
        let offset = self.elements.get(index).and_then(Element::piece).map_or(0, |piece| piece.length);
        Position { index, offset, before: self.done.saturating_sub(offset) }
    }

    /// Copies bytes of the guest's buffers.
    pub(crate) fn copy_out(&self, dma: &dyn Dma, offset: u32, length: u32) -> Result<Bytes, DmaError> {
        let mut data = vec![0; length as usize];
        self.windows(offset, data.len(), |buffer, skip, range| {
            let Some(to) = data.get_mut(range) else { return Ok(()) };
            match buffer {
                Buffer::Memory(address) => dma.read(address.wrapping_add(skip), to),
                Buffer::Immediate(bytes) => {
                    let from = bytes.iter().skip(skip as usize);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    Ok(())
                }
            }
        })?;
        Ok(data.into())
    }

    /// Copies bytes that are to be sent to the device, from where it is on, as many as the budget lets it. All of them when
    /// they are together.
    pub(crate) fn stage(
        &mut self,
        dma: &dyn Dma,
        budget: &mut Budget,
        length: u32,
    ) -> Result<Option<Bytes>, DmaError> {
        let staged = self.staged.len();
        let more = budget.take_bytes((length as usize).saturating_sub(staged));
        let offset = self.done.saturating_add(staged as u32);
        let more = self.copy_out(dma, offset, more as u32)?;
        if staged == 0 && more.len() == length as usize {
            return Ok(Some(more));
        }
        self.staged.reserve_exact(length as usize - staged);
        self.staged.extend_from_slice(&more);
        let all = self.staged.len() >= length as usize;
        Ok(all.then(|| core::mem::take(&mut *self.staged).into()))
    }

    /// Copies bytes that are pending into the guest's buffers, as many as the budget lets it; whether that are all.
    pub(crate) fn flush(&mut self, dma: &dyn Dma, budget: &mut Budget) -> Result<bool, DmaError> {
        let Some(Pending { offset, data, copied }) = self.pending.take() else { return Ok(true) };
        let end = copied + budget.take_bytes(data.len().saturating_sub(copied));
        let now = data.slice(copied..end);
        let at = offset.saturating_add(copied as u32);
        self.windows(at, now.len(), |buffer, skip, range| match (buffer, now.get(range)) {
            (Buffer::Memory(address), Some(from)) => dma.write(address.wrapping_add(skip), from),
            // Immediate data cannot be received; the gatherer refuses it.
            _ => Ok(()),
        })?;
        let all = end == data.len();
        if !all {
            self.pending = Some(Pending { offset, data, copied: end });
        }
        Ok(all)
    }

    /// Copies all bytes that are pending into the guest's buffers.
    pub(crate) fn flush_all(&mut self, dma: &dyn Dma) -> Result<(), DmaError> {
        while !self.flush(dma, &mut Budget::new())? {}
        Ok(())
    }

    /// Visits the parts of the buffers that hold these bytes: buffer, offset in it, range of the bytes.
    fn windows(
        &self,
        offset: u32,
        length: usize,
        mut visit: impl FnMut(Buffer, u64, core::ops::Range<usize>) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let mut skip = offset as usize;
        let mut at = 0;
        for piece in self.elements.iter().filter_map(Element::piece) {
            let size = piece.length as usize;
            if skip >= size {
                skip -= size;
                continue;
            }
            let take = (size - skip).min(length - at);
            if take == 0 {
                break;
            }
            visit(piece.buffer, skip as u64, at..at + take)?;
            at += take;
            skip = 0;
        }
        Ok(())
    }
}

/// A place among the bytes of a TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The element.
    pub(crate) index: usize,
    /// Bytes moved in it.
    pub(crate) offset: u32,
    /// Bytes moved before it.
    pub(crate) before: u32,
}
