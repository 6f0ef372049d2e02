//! Device slots. xHCI 1.2 §4.5.3.
//!
//! ```text
//!   Disabled ─Enable─► Enabled ─Address, BSR─► Default ─Address─► Addressed ─Configure─► Configured
//!                         └──────────Address───────────────────────►  ▲  └◄─Deconfigure────┘
//!   Disable: from anywhere to Disabled         Default ◄─Reset Device─┴────────────────────┘
//! ```

use core::num::NonZeroU8;

use arbitrary_int::u5;
use pci::Dma;
use wire::usb::DeviceId;

use crate::{
    context::{Contexts, SlotContext, SlotHub, SlotPort, SlotRoute, SlotStatus},
    endpoint::{Endpoint, LAST},
};

/// A slot's number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(NonZeroU8);

impl SlotId {
    /// The slot with this number, if it is one.
    pub(crate) fn new(number: u8) -> Option<Self> {
        NonZeroU8::new(number).map(Self)
    }

    /// Its number.
    pub(crate) fn number(self) -> u8 {
        self.0.get()
    }
}

/// Slot states, Disabled apart: that is no slot. xHCI 1.2 §4.5.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Given out, no device yet.
    Enabled,
    /// The device listens on the default address.
    Default,
    /// The device has an address.
    Addressed,
    /// The device is configured.
    Configured,
}

impl SlotState {
    fn bits(self) -> u5 {
        u5::new(match self {
            Self::Enabled => 0,
            Self::Default => 1,
            Self::Addressed => 2,
            Self::Configured => 3,
        })
    }
}

/// An enabled slot.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its number.
    pub(crate) id: SlotId,
    /// Its state.
    pub(crate) state: SlotState,
    /// The index of the port that the device is on.
    pub(crate) port: Option<u8>,
    /// The device, as long as it listens to this slot.
    pub(crate) device: Option<DeviceId>,
    /// What the output slot context says.
    pub(crate) context: SlotContext,
    /// Where the output contexts are.
    pub(crate) output: Option<Contexts>,
    endpoints: Vec<Option<Box<Endpoint>>>,
}

impl Slot {
    /// A slot that was just enabled.
    pub(crate) fn new(id: SlotId) -> Self {
        let context = SlotContext {
            route: SlotRoute::DEFAULT,
            port: SlotPort::DEFAULT,
            hub: SlotHub::DEFAULT,
            state: SlotStatus::DEFAULT,
        };
        let endpoints = (0..=LAST).map(|_| None).collect();
        Self { id, state: SlotState::Enabled, port: None, device: None, context, output: None, endpoints }
    }

    /// The endpoint with this device context index, if it is enabled.
    pub(crate) fn endpoint(&self, dci: u8) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(dci))?.as_deref()
    }

    /// The same, to be changed.
    pub(crate) fn endpoint_mut(&mut self, dci: u8) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(usize::from(dci))?.as_deref_mut()
    }

    /// Enables an endpoint, or disables it; answers the one that was there.
    pub(crate) fn replace(&mut self, dci: u8, endpoint: Option<Box<Endpoint>>) -> Option<Box<Endpoint>> {
        core::mem::replace(self.endpoints.get_mut(usize::from(dci))?, endpoint)
    }

    /// The enabled endpoints: bit n for device context index n.
    pub(crate) fn enabled(&self) -> u32 {
        (0..=LAST).filter(|dci| self.endpoint(*dci).is_some()).fold(0, |bits, dci| bits | 1 << dci)
    }

    /// Writes the output slot context.
    pub(crate) fn mirror(&mut self, dma: &dyn Dma) {
        let addressed = matches!(self.state, SlotState::Addressed | SlotState::Configured);
        let address = if addressed { self.id.number() } else { 0 };
        self.context.state = SlotStatus::DEFAULT.with_address(address).with_state(self.state.bits());
        let Some(output) = self.output else { return };
        if self.context.write(dma, output.at(0)).is_err() {
            tracing::debug!(slot = self.id.number(), "no memory for an output context");
        }
    }
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Option<Slot>>,
}

impl Slots {
    /// This many, none enabled.
    pub(crate) fn new(count: u8) -> Self {
        Self { slots: (0..count).map(|_| None).collect() }
    }

    /// Enables the first free slot up to this number.
    pub(crate) fn enable(&mut self, most: u8) -> Option<SlotId> {
        let (number, place) = (1..=most).zip(&mut self.slots).find(|(_, slot)| slot.is_none())?;
        let id = SlotId::new(number)?;
        *place = Some(Slot::new(id));
        Some(id)
    }

    /// Disables a slot; answers what was in it.
    pub(crate) fn disable(&mut self, id: SlotId) -> Option<Slot> {
        self.slots.get_mut(usize::from(id.number() - 1))?.take()
    }

    /// An enabled slot.
    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(usize::from(id.number() - 1))?.as_ref()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id.number() - 1))?.as_mut()
    }

    /// The enabled slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }
}
