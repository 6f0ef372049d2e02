//! Transfer descriptors: all TRBs of one USB transfer. xHCI 1.2 §4.11.2.

use bytes::Bytes;
use pci::{Dma, DmaError};
use wire::usb::{Payload, RequestId, Setup};

use crate::{
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
    /// Bytes from the device that are not in guest memory yet, and their offset.
    pub(crate) pending: Option<(u32, Bytes)>,
    /// The bytes last sent to the device, and their offset.
    pub(crate) sent_out: Option<(u32, Bytes)>,
    /// The ring behind it.
    pub(crate) after: RingPointer,
    /// How far it is.
    pub(crate) progress: Progress,
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
    /// With everything moved it is the status stage, or the last TRB.
    pub(crate) fn position(&self) -> Position {
        let mut left = self.done;
        for (index, element) in self.elements.iter().enumerate() {
            let Some(piece) = element.piece() else { continue };
            if left < piece.length {
                return Position { index, offset: left, before: self.done - left };
            }
            left -= piece.length;
        }
        let status = self.elements.iter().position(|e| e.trb.kind == TransferKind::Status);
        let index = status.unwrap_or(self.elements.len().saturating_sub(1));
        let offset = match self.elements.get(index).and_then(Element::piece) {
            Some(piece) => piece.length,
            None => 0,
        };
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

    /// Copies the bytes that are pending into the guest's buffers.
    pub(crate) fn flush(&mut self, dma: &dyn Dma) -> Result<(), DmaError> {
        let Some((offset, data)) = self.pending.take() else { return Ok(()) };
        self.windows(offset, data.len(), |buffer, skip, range| match (buffer, data.get(range)) {
            (Buffer::Memory(address), Some(from)) => dma.write(address.wrapping_add(skip), from),
            // Immediate data cannot be received; the gatherer refuses it.
            _ => Ok(()),
        })
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
