//! Transfer Request Blocks: sixteen bytes as they stand in memory, and what they mean. xHCI 1.2 §4.11, §6.4.
//!
//! A [`RawTrb`] is copied from guest memory once; decoding it gives a [`transfer::TransferTrb`] or a
//! [`command::Command`], and after that nobody touches a bit. Unknown types are a variant.
#![expect(unreachable_pub, reason = "what bitfield writes is pub inside crate-private types")]

pub(crate) mod command;
pub(crate) mod event;
pub(crate) mod transfer;

use arbitrary_int::{u5, u6, u10, u17};
use bitbybit::{bitenum, bitfield};

/// The size of a TRB, bytes.
pub(crate) const TRB_BYTES: u64 = 16;

/// A TRB as it stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawTrb {
    /// The first eight bytes.
    pub(crate) parameter: u64,
    /// The third dword.
    pub(crate) status: u32,
    /// The fourth dword.
    pub(crate) control: u32,
}

impl RawTrb {
    /// Its bytes before the control dword, which carries the cycle bit and is written last.
    pub(crate) fn body(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let parameter = self.parameter.to_le_bytes();
        let from = parameter.into_iter().chain(self.status.to_le_bytes());
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        bytes
    }

    /// The TRB of these twelve bytes and this control dword.
    pub(crate) fn from_parts(body: [u8; 12], control: u32) -> Self {
        let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3] = body;
        Self {
            parameter: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            status: u32::from_le_bytes([s0, s1, s2, s3]),
            control,
        }
    }

    /// The control dword's fields.
    pub(crate) fn fields(self) -> Control {
        Control::new_with_raw_value(self.control)
    }

    /// The type, or the number that is none.
    pub(crate) fn kind(self) -> Result<TrbType, u6> {
        TrbType::new_with_raw_value(self.fields().kind())
    }
}

/// The control dword of transfer TRBs. xHCI 1.2 §6.4.1.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Control {
    /// Cycle bit (C).
    #[bit(0, rw)]
    cycle: bool,
    /// Link: Toggle Cycle (TC). Others: Evaluate Next TRB (ENT). Events: Event Data (ED) is bit 2.
    #[bit(1, rw)]
    toggle_cycle: bool,
    /// Interrupt on Short Packet (ISP); in an event, Event Data (ED).
    #[bit(2, rw)]
    short_interrupt: bool,
    /// No Snoop (NS).
    #[bit(3, rw)]
    no_snoop: bool,
    /// Chain bit (CH).
    #[bit(4, rw)]
    chain: bool,
    /// Interrupt On Completion (IOC).
    #[bit(5, rw)]
    interrupt: bool,
    /// Immediate Data (IDT).
    #[bit(6, rw)]
    immediate: bool,
    /// Block Event Interrupt (BEI). Commands: Block Set Address, Deconfigure, Transfer State Preserve.
    #[bit(9, rw)]
    block_interrupt: bool,
    /// TRB Type.
    #[bits(10..=15, rw)]
    kind: u6,
    /// Data and Status stages: the direction is IN. Commands and events: endpoint id bits 0.
    #[bits(16..=20, rw)]
    endpoint: u5,
    /// Stop Endpoint: Suspend (SP).
    #[bit(23, rw)]
    suspend: bool,
    /// Slot id.
    #[bits(24..=31, rw)]
    slot: u8,
}

/// The status dword of transfer TRBs. xHCI 1.2 §6.4.1.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Status {
    /// TRB Transfer Length, bytes.
    #[bits(0..=16, rw)]
    length: u17,
    /// TD Size: a hint that nobody needs here.
    #[bits(17..=21, rw)]
    td_size: u5,
    /// Interrupter Target.
    #[bits(22..=31, rw)]
    interrupter: u10,
}

/// TRB types. xHCI 1.2 §6.4.6.
#[bitenum(u6, exhaustive = false)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TrbType {
    /// Data of bulk and interrupt transfers, and what is chained to a data stage.
    Normal = 1,
    /// The eight bytes of a control request.
    SetupStage = 2,
    /// The data of a control request.
    DataStage = 3,
    /// The handshake of a control request.
    StatusStage = 4,
    /// One interval of an isochronous endpoint.
    Isoch = 5,
    /// Where the ring goes on.
    Link = 6,
    /// An event of the driver's own.
    EventData = 7,
    /// Nothing, on a transfer ring.
    NoOp = 8,
    /// Gives a slot.
    EnableSlotCommand = 9,
    /// Takes a slot back.
    DisableSlotCommand = 10,
    /// Gives the device an address.
    AddressDeviceCommand = 11,
    /// Adds and drops endpoints.
    ConfigureEndpointCommand = 12,
    /// Changes what can change in a context.
    EvaluateContextCommand = 13,
    /// Ends a halt.
    ResetEndpointCommand = 14,
    /// Stops an endpoint.
    StopEndpointCommand = 15,
    /// Moves an endpoint's dequeue pointer.
    SetTrDequeueCommand = 16,
    /// The device has been reset.
    ResetDeviceCommand = 17,
    /// For virtual functions.
    ForceEventCommand = 18,
    /// For bandwidth negotiation.
    NegotiateBandwidthCommand = 19,
    /// A latency tolerance value.
    SetLatencyToleranceCommand = 20,
    /// Asks for the bandwidth that is left.
    GetPortBandwidthCommand = 21,
    /// Sends a link management packet.
    ForceHeaderCommand = 22,
    /// Nothing, on the command ring.
    NoOpCommand = 23,
    /// Asks for an extended property.
    GetExtendedPropertyCommand = 24,
    /// Sets an extended property.
    SetExtendedPropertyCommand = 25,
    /// The end of a TD, or of a part that asked for it.
    TransferEvent = 32,
    /// The end of a command.
    CommandCompletionEvent = 33,
    /// A port has something to say.
    PortStatusChangeEvent = 34,
    /// The controller has something to say.
    HostControllerEvent = 37,
    /// The microframe index has wrapped.
    MfIndexWrapEvent = 39,
}
