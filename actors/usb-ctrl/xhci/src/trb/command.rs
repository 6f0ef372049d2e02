//! TRBs on the command ring. xHCI 1.2 §6.4.3.

use super::{RawTrb, TrbType};

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// xHCI 1.2 §4.6.2.
    NoOp,
    /// xHCI 1.2 §4.6.3.
    EnableSlot,
    /// xHCI 1.2 §4.6.4.
    DisableSlot,
    /// xHCI 1.2 §4.6.5.
    AddressDevice {
        /// The input context.
        input: u64,
        /// Block Set Address Request (BSR).
        block: bool,
    },
    /// xHCI 1.2 §4.6.6.
    ConfigureEndpoint {
        /// The input context.
        input: u64,
        /// Deconfigure (DC).
        deconfigure: bool,
    },
    /// xHCI 1.2 §4.6.7.
    EvaluateContext {
        /// The input context.
        input: u64,
    },
    /// xHCI 1.2 §4.6.8.
    ResetEndpoint {
        /// The endpoint's device context index.
        endpoint: u8,
        /// Transfer State Preserve (TSP).
        preserve: bool,
    },
    /// xHCI 1.2 §4.6.9.
    StopEndpoint {
        /// The endpoint's device context index.
        endpoint: u8,
    },
    /// xHCI 1.2 §4.6.10.
    SetTrDequeue {
        /// The endpoint's device context index.
        endpoint: u8,
        /// The stream, 0 for none.
        stream: u16,
        /// The new pointer, and its cycle state in bit 0.
        pointer: u64,
    },
    /// xHCI 1.2 §4.6.11.
    ResetDevice,
    /// xHCI 1.2 §4.6.14.
    SetLatencyTolerance,
    /// xHCI 1.2 §4.6.15.
    PortBandwidth {
        /// Where the answer goes.
        context: u64,
        /// The speed asked for, a protocol speed id.
        speed: u8,
    },
    /// A type that is not supported, or none.
    Unsupported,
}

impl Command {
    /// What the sixteen bytes mean. The slot id is [`RawTrb::fields`]'s.
    pub(crate) fn decode(raw: RawTrb) -> Self {
        let control = raw.fields();
        let endpoint = control.endpoint().value();
        let flag = control.block_interrupt();
        let input = raw.parameter & !0xf;
        let Ok(kind) = raw.kind() else { return Self::Unsupported };
        match kind {
            TrbType::NoOpCommand => Self::NoOp,
            TrbType::EnableSlotCommand => Self::EnableSlot,
            TrbType::DisableSlotCommand => Self::DisableSlot,
            TrbType::AddressDeviceCommand => Self::AddressDevice { input, block: flag },
            TrbType::ConfigureEndpointCommand => Self::ConfigureEndpoint { input, deconfigure: flag },
            TrbType::EvaluateContextCommand => Self::EvaluateContext { input },
            TrbType::ResetEndpointCommand => Self::ResetEndpoint { endpoint, preserve: flag },
            TrbType::StopEndpointCommand => Self::StopEndpoint { endpoint },
            TrbType::SetTrDequeueCommand => {
                Self::SetTrDequeue { endpoint, stream: (raw.status >> 16) as u16, pointer: raw.parameter }
            }
            TrbType::ResetDeviceCommand => Self::ResetDevice,
            TrbType::SetLatencyToleranceCommand => Self::SetLatencyTolerance,
            TrbType::GetPortBandwidthCommand => Self::PortBandwidth { context: input, speed: endpoint & 0xf },
            TrbType::Normal
            | TrbType::SetupStage
            | TrbType::DataStage
            | TrbType::StatusStage
            | TrbType::Isoch
            | TrbType::Link
            | TrbType::EventData
            | TrbType::NoOp
            | TrbType::ForceEventCommand
            | TrbType::NegotiateBandwidthCommand
            | TrbType::ForceHeaderCommand
            | TrbType::GetExtendedPropertyCommand
            | TrbType::SetExtendedPropertyCommand
            | TrbType::TransferEvent
            | TrbType::CommandCompletionEvent
            | TrbType::PortStatusChangeEvent
            | TrbType::HostControllerEvent
            | TrbType::MfIndexWrapEvent => Self::Unsupported,
        }
    }
}
