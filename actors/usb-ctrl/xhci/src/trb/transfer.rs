//! TRBs on transfer rings. xHCI 1.2 §6.4.1.

use wire::usb::Setup;

use super::{RawTrb, Status, TrbType};

/// Start Isoch ASAP (SIA). xHCI 1.2 §6.4.1.3.
const START_ASAP: u32 = 1 << 31;

/// What a TRB on a transfer ring asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferTrb {
    /// What it is.
    pub(crate) kind: TransferKind,
    /// IOC: an event when it is done.
    pub(crate) interrupt: bool,
    /// ISP: an event if it comes out short.
    pub(crate) short_interrupt: bool,
    /// CH: the TD goes on.
    pub(crate) chain: bool,
    /// BEI: the event interrupts nobody.
    pub(crate) block_interrupt: bool,
    /// The interrupter that hears of it.
    pub(crate) interrupter: u16,
    /// The frame that an Isoch TRB is for (Frame ID), unless it is for the next one (SIA). xHCI 1.2 §6.4.1.3.
    pub(crate) frame: Option<u16>,
}

/// The kinds of TRBs on a transfer ring, Link apart (the ring follows it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransferKind {
    /// A piece of data.
    Normal(Piece),
    /// The eight bytes of a control request.
    Setup(Setup),
    /// The first piece of a control request's data.
    Data {
        /// Where it is.
        piece: Piece,
        /// From the device.
        inward: bool,
    },
    /// The handshake of a control request.
    Status,
    /// The first piece of one interval's data of an isochronous endpoint.
    Isoch(Piece),
    /// An event with this value, if it asks for one.
    EventData(u64),
    /// Nothing.
    NoOp,
    /// A type that has no place here, or fields that make no sense.
    Unknown,
}

/// Where bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where they come from or go to.
    pub(crate) buffer: Buffer,
    /// How many, up to 128 KiB less one.
    pub(crate) length: u32,
}

/// The buffer of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// Guest memory at this address.
    Memory(u64),
    /// In the TRB itself (IDT): OUT only, up to eight bytes.
    Immediate([u8; 8]),
}

impl TransferTrb {
    /// What the sixteen bytes mean.
    pub(crate) fn decode(raw: RawTrb) -> Self {
        let (control, status) = (raw.fields(), Status::new_with_raw_value(raw.status));
        let length = status.length().value();
        let piece = if control.immediate() {
            let buffer = Buffer::Immediate(raw.parameter.to_le_bytes());
            (length <= 8).then_some(Piece { buffer, length })
        } else {
            Some(Piece { buffer: Buffer::Memory(raw.parameter), length })
        };
        let kind = match (raw.kind(), piece) {
            (Ok(TrbType::Normal), Some(piece)) => TransferKind::Normal(piece),
            // xHCI 1.2 §6.4.1.2.1: always immediate, always eight bytes.
            (Ok(TrbType::SetupStage), Some(Piece { buffer: Buffer::Immediate(bytes), length: 8 })) => {
                TransferKind::Setup(Setup::from_bytes(bytes))
            }
            (Ok(TrbType::DataStage), Some(piece)) => {
                TransferKind::Data { piece, inward: control.endpoint().value() & 1 != 0 }
            }
            (Ok(TrbType::StatusStage), _) => TransferKind::Status,
            (Ok(TrbType::Isoch), Some(piece)) => TransferKind::Isoch(piece),
            (Ok(TrbType::EventData), _) => TransferKind::EventData(raw.parameter),
            (Ok(TrbType::NoOp), _) => TransferKind::NoOp,
            _ => TransferKind::Unknown,
        };
        let names_frame = matches!(kind, TransferKind::Isoch(_)) && raw.control & START_ASAP == 0;
        Self {
            kind,
            frame: names_frame.then_some((raw.control >> 20 & 0x7ff) as u16),
            interrupt: control.interrupt(),
            short_interrupt: control.short_interrupt(),
            chain: control.chain(),
            block_interrupt: control.block_interrupt(),
            interrupter: status.interrupter().value(),
        }
    }
}
