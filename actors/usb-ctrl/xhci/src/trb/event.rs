//! Events, and the codes in them. xHCI 1.2 §6.4.2, §6.4.5.

use arbitrary_int::u5;

use super::{Control, RawTrb, TrbType};

/// An event before it has a cycle bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Transfer Event. xHCI 1.2 §6.4.2.1.
    Transfer(TransferEvent),
    /// Command Completion Event. xHCI 1.2 §6.4.2.2.
    Command {
        /// The command TRB, or where the command ring has stopped.
        pointer: u64,
        /// How it went.
        code: CompletionCode,
        /// The slot, 0 for none.
        slot: u8,
    },
    /// Port Status Change Event of this port, counted from 1. xHCI 1.2 §6.4.2.3.
    PortStatusChange(u8),
    /// Host Controller Event: the ring is full. xHCI 1.2 §6.4.2.6.
    RingFull,
    /// MFINDEX Wrap Event. xHCI 1.2 §6.4.2.8.
    MfIndexWrap,
}

/// Transfer Event. xHCI 1.2 §6.4.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferEvent {
    /// The TRB, or the value of an Event Data TRB.
    pub(crate) pointer: u64,
    /// Bytes that did *not* move in that TRB; with Event Data, bytes that did move. 24 bits.
    pub(crate) length: u32,
    /// How it went.
    pub(crate) code: CompletionCode,
    /// The pointer is the value of an Event Data TRB (ED).
    pub(crate) event_data: bool,
    /// The slot.
    pub(crate) slot: u8,
    /// The endpoint's device context index.
    pub(crate) endpoint: u8,
    /// The event interrupts nobody (BEI).
    pub(crate) block_interrupt: bool,
}

impl Event {
    /// Whether it may interrupt.
    pub(crate) fn interrupts(&self) -> bool {
        !matches!(self, Self::Transfer(TransferEvent { block_interrupt: true, .. }))
    }

    /// Its bytes, with this cycle bit.
    pub(crate) fn encode(self, cycle: bool) -> RawTrb {
        let control = |kind: TrbType| Control::DEFAULT.with_kind(kind.raw_value()).with_cycle(cycle);
        let status = |code: CompletionCode, length: u32| u32::from(code as u8) << 24 | length & 0xff_ffff;
        match self {
            Self::Transfer(event) => RawTrb {
                parameter: event.pointer,
                status: status(event.code, event.length),
                control: control(TrbType::TransferEvent)
                    .with_short_interrupt(event.event_data)
                    .with_endpoint(u5::new(event.endpoint & 0x1f))
                    .with_slot(event.slot)
                    .raw_value(),
            },
            Self::Command { pointer, code, slot } => RawTrb {
                parameter: pointer,
                status: status(code, 0),
                control: control(TrbType::CommandCompletionEvent).with_slot(slot).raw_value(),
            },
            Self::PortStatusChange(port) => RawTrb {
                parameter: u64::from(port) << 24,
                status: status(CompletionCode::Success, 0),
                control: control(TrbType::PortStatusChangeEvent).raw_value(),
            },
            Self::RingFull => RawTrb {
                parameter: 0,
                status: status(CompletionCode::EventRingFullError, 0),
                control: control(TrbType::HostControllerEvent).raw_value(),
            },
            Self::MfIndexWrap => RawTrb {
                parameter: 0,
                status: status(CompletionCode::Success, 0),
                control: control(TrbType::MfIndexWrapEvent).raw_value(),
            },
        }
    }
}

/// Completion codes. xHCI 1.2 §6.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CompletionCode {
    /// It worked.
    Success = 1,
    /// The device sent more than there was room for.
    BabbleDetectedError = 3,
    /// The device did not answer, or not properly.
    UsbTransactionError = 4,
    /// The TRB makes no sense, or its buffer is not there.
    TrbError = 5,
    /// The endpoint stalls.
    StallError = 6,
    /// The endpoint's kind is not supported.
    ResourceError = 7,
    /// All slots are in use.
    NoSlotsAvailableError = 9,
    /// The stream's context is not that of a ring.
    InvalidStreamTypeError = 10,
    /// The slot is not enabled.
    SlotNotEnabledError = 11,
    /// The endpoint is not enabled.
    EndpointNotEnabledError = 12,
    /// Fewer bytes came than there was room for.
    ShortPacket = 13,
    /// An isochronous OUT endpoint has nothing to send.
    RingUnderrun = 14,
    /// An isochronous IN endpoint has no room to receive.
    RingOverrun = 15,
    /// A context makes no sense.
    ParameterError = 17,
    /// The slot or endpoint is in the wrong state.
    ContextStateError = 19,
    /// The last free place of an event ring.
    EventRingFullError = 21,
    /// An isochronous TD came too late for its interval, or was lost on the way.
    MissedServiceError = 23,
    /// The command ring has stopped.
    CommandRingStopped = 24,
    /// The command was aborted.
    CommandAborted = 25,
    /// The TD stands still, on request.
    Stopped = 26,
    /// An isochronous packet was longer than its TD.
    IsochBufferOverrun = 31,
    /// There is no such stream.
    InvalidStreamIdError = 34,
}
