//! Device and input contexts in guest memory. xHCI 1.2 §4.5, §6.2.
//!
//! A context is copied once and parsed from the copy. What the guest may read back (output contexts) is a mirror of
//! our own state, never its source.
#![expect(unreachable_pub, reason = "what bitfield writes is pub inside crate-private types")]

use arbitrary_int::{u3, u5, u10, u20};
use bitbybit::{bitenum, bitfield};
use pci::{Dma, DmaError};
use zerocopy::{FromBytes, IntoBytes, little_endian::U32};

/// The number of contexts of a device: the slot's and 31 endpoints'.
const CONTEXTS: u64 = 32;

/// The dwords of a context that have a meaning; with 64-byte contexts the rest is padding.
type Dwords = [U32; 8];

/// Where contexts lie, and how far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contexts {
    base: u64,
    stride: u64,
}

impl Contexts {
    /// Contexts from this address on. xHCI 1.2 §5.3.6 (CSZ).
    pub(crate) fn new(base: u64, long: bool) -> Self {
        Self { base: base & !0xf, stride: if long { 64 } else { 32 } }
    }

    /// The address of the context with this index, 0 to 32.
    pub(crate) fn at(self, index: u8) -> u64 {
        debug_assert!(u64::from(index) <= CONTEXTS);
        self.base.wrapping_add(u64::from(index) * self.stride)
    }

    /// The input context's control context. xHCI 1.2 §6.2.5.1.
    pub(crate) fn control(self, dma: &dyn Dma) -> Result<InputControl, DmaError> {
        let [drop, add, ..] = read(dma, self.at(0))?;
        Ok(InputControl { drop: drop.get(), add: add.get() })
    }

    /// A slot context of an input context, or an output context.
    pub(crate) fn slot(self, dma: &dyn Dma, index: u8) -> Result<SlotContext, DmaError> {
        let [d0, d1, d2, d3, ..] = read(dma, self.at(index))?;
        Ok(SlotContext {
            route: SlotRoute::new_with_raw_value(d0.get()),
            port: SlotPort::new_with_raw_value(d1.get()),
            hub: SlotHub::new_with_raw_value(d2.get()),
            state: SlotStatus::new_with_raw_value(d3.get()),
        })
    }

    /// The endpoint context with this index.
    pub(crate) fn endpoint(self, dma: &dyn Dma, index: u8) -> Result<EndpointContext, DmaError> {
        let [d0, d1, d2, d3, d4, ..] = read(dma, self.at(index))?;
        Ok(EndpointContext {
            status: EndpointStatus::new_with_raw_value(d0.get()),
            kind: EndpointKind::new_with_raw_value(d1.get()),
            dequeue: u64::from(d2.get()) | u64::from(d3.get()) << 32,
            average: d4.get(),
        })
    }
}

fn read(dma: &dyn Dma, at: u64) -> Result<Dwords, DmaError> {
    let mut dwords = Dwords::default();
    dma.read(at, dwords.as_mut_bytes())?;
    Ok(dwords)
}

/// Input Control Context: which contexts a command drops and adds. xHCI 1.2 §6.2.5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputControl {
    /// Drop flags.
    pub(crate) drop: u32,
    /// Add flags.
    pub(crate) add: u32,
}

/// Slot Context. xHCI 1.2 §6.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotContext {
    /// The first dword.
    pub(crate) route: SlotRoute,
    /// The second dword.
    pub(crate) port: SlotPort,
    /// The third dword.
    pub(crate) hub: SlotHub,
    /// The fourth dword.
    pub(crate) state: SlotStatus,
}

impl SlotContext {
    /// Writes it as an output context.
    pub(crate) fn write(&self, dma: &dyn Dma, at: u64) -> Result<(), DmaError> {
        let mut dwords = Dwords::default();
        let values =
            [self.route.raw_value(), self.port.raw_value(), self.hub.raw_value(), self.state.raw_value()];
        dwords.iter_mut().zip(values).for_each(|(to, from)| to.set(from));
        dma.write(at, dwords.as_bytes())
    }
}

/// Slot Context, first dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct SlotRoute {
    /// Route String: hub ports on the way, 0 at the root hub.
    #[bits(0..=19, rw)]
    route: u20,
    /// Context Entries: the highest valid context.
    #[bits(27..=31, rw)]
    entries: u5,
}

/// Slot Context, second dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct SlotPort {
    /// Max Exit Latency.
    #[bits(0..=15, rw)]
    max_exit_latency: u16,
    /// Root Hub Port Number, from 1.
    #[bits(16..=23, rw)]
    root_port: u8,
}

/// Slot Context, third dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct SlotHub {
    /// Interrupter Target.
    #[bits(22..=31, rw)]
    interrupter: u10,
}

/// Slot Context, fourth dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct SlotStatus {
    /// USB Device Address.
    #[bits(0..=7, rw)]
    address: u8,
    /// Slot State.
    #[bits(27..=31, rw)]
    state: u5,
}

/// Endpoint Context. xHCI 1.2 §6.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointContext {
    /// The first dword.
    pub(crate) status: EndpointStatus,
    /// The second dword.
    pub(crate) kind: EndpointKind,
    /// TR Dequeue Pointer, with the dequeue cycle state in bit 0.
    pub(crate) dequeue: u64,
    /// Average TRB Length and the low half of Max ESIT Payload.
    pub(crate) average: u32,
}

impl EndpointContext {
    /// Writes it as an output context.
    pub(crate) fn write(&self, dma: &dyn Dma, at: u64) -> Result<(), DmaError> {
        let mut dwords = Dwords::default();
        let values = [
            self.status.raw_value(),
            self.kind.raw_value(),
            self.dequeue as u32,
            (self.dequeue >> 32) as u32,
            self.average,
        ];
        dwords.iter_mut().zip(values).for_each(|(to, from)| to.set(from));
        dma.write(at, dwords.as_bytes())
    }
}

/// Endpoint Context, first dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct EndpointStatus {
    /// Endpoint State.
    #[bits(0..=2, rw)]
    state: u3,
    /// Max Primary Streams, 0 for none.
    #[bits(10..=14, rw)]
    max_streams: u5,
    /// Linear Stream Array: the primary array is all there is.
    #[bit(15, rw)]
    linear: bool,
    /// Interval: the endpoint is served every 2 to this power of 125 us.
    #[bits(16..=23, rw)]
    interval: u8,
}

/// Endpoint Context, second dword.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct EndpointKind {
    /// Endpoint Type.
    #[bits(3..=5, rw)]
    kind: EndpointType,
    /// Max Burst Size.
    #[bits(8..=15, rw)]
    max_burst: u8,
    /// Max Packet Size, bytes.
    #[bits(16..=31, rw)]
    max_packet: u16,
}

/// Endpoint types. xHCI 1.2 §6.2.3, table 6-9.
#[bitenum(u3, exhaustive = true)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EndpointType {
    /// No endpoint.
    NotValid = 0,
    /// Isochronous, to the device.
    IsochOut = 1,
    /// Bulk, to the device.
    BulkOut = 2,
    /// Interrupt, to the device.
    InterruptOut = 3,
    /// Control, both ways.
    Control = 4,
    /// Isochronous, from the device.
    IsochIn = 5,
    /// Bulk, from the device.
    BulkIn = 6,
    /// Interrupt, from the device.
    InterruptIn = 7,
}

/// Zeroes the output contexts of a device from this endpoint index on.
pub(crate) fn clear(dma: &dyn Dma, contexts: Contexts, index: u8) -> Result<(), DmaError> {
    dma.write(contexts.at(index), Dwords::default().as_bytes())
}

/// A 64-bit pointer in guest memory.
pub(crate) fn pointer(dma: &dyn Dma, at: u64) -> Result<u64, DmaError> {
    let mut bytes = [0; 8];
    dma.read(at, &mut bytes)?;
    Ok(u64::read_from_bytes(&bytes).map_or(0, u64::from_le))
}
