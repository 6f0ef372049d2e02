//! The xHCI controller as a pure model: registers, rings, contexts, ports; no clock, no thread, no socket.
//!
//! ```text
//!   register write ─► registers ─► controller ─┬─► command ─► slot, endpoint, context
//!                                              ├─► port
//!                                              └─► endpoint ─► ring, trb ─► transfer ─► Output::Usb(Submit)
//!   completion ─────► Xhci::complete ─► transfer ─► event_ring ─► interrupter ─► Output::Interrupt
//! ```
//!
//! Modules are named after the chapters of the xHCI specification 1.2. Nothing a guest writes, and nothing a remote
//! answers, makes the model panic, loop, or hold memory without bound: walks have a budget, the rest of them is
//! done in the next [`pci::Model::tick`].
//!
//! No command waits for the network without a bound: port resets and commands complete from local state, and
//! fences keep the order towards the device (DESIGN D9).
//!
//! Isochronous endpoints are paced by the remote's bus: a TD ends when its packet has ended there. Not supported: a frame
//! clock that follows the remote's (a Frame ID only tells whether a TD is too late), secondary stream arrays, TDs of more
//! than 2048 TRBs, and restoring a state that was saved before a reset (that answers Save/Restore Error, and drivers set up
//! anew).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod budget;
mod command;
mod context;
mod controller;
pub mod driver;
mod endpoint;
mod event_ring;
mod frame_clock;
mod identity;
mod interrupter;
mod port;
mod redacted;
mod registers;
mod requests;
mod ring;
mod root_hub;
mod slot;
mod transfer;
mod trb;
mod work;

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pci::{Cx, Model, Width};
use wire::{
    control::Profile,
    usb::{Completion, DeviceId, RequestId, Speed, ToRemote},
};

pub use crate::identity::{config_space, config_space_msix};
use crate::{
    command::CommandRing,
    frame_clock::FrameClock,
    interrupter::Events,
    port::{Port, Protocol},
    registers::{
        capability::Shape,
        operational::{UsbCmd, UsbSts},
    },
    requests::{Owner, Requests},
    slot::{SlotId, Slots},
    work::Work,
};

/// Device slots.
const SLOTS: u8 = 64;
/// Interrupters: some drivers refuse fewer than 4.
const INTERRUPTERS: u8 = 8;
/// The most ports of one kind.
const MAX_PORTS: u8 = 15;

/// The settings of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// USB 2 ports, 1 to 15.
    pub usb2_ports: u8,
    /// USB 3 ports, 1 to 15.
    pub usb3_ports: u8,
    /// 64-byte contexts (CSZ) instead of 32-byte ones.
    pub long_contexts: bool,
    /// The id of the first request. Ids are never reused in a session: a controller that replaces another goes on
    /// where that one was.
    pub first_request: RequestId,
    /// Interrupt vectors that the interrupters are folded into, 1 to 8. With MSI, guests grant one vector or few:
    /// then 1 is right. With MSI-X, 8 gives each interrupter its own.
    pub vectors: u16,
    /// How long a Stop Endpoint command may wait for the remote before it is answered with what is known.
    /// Drivers give commands from 100 ms up.
    pub stop_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            usb2_ports: 8,
            usb3_ports: 8,
            long_contexts: false,
            first_request: RequestId(1),
            vectors: 1,
            stop_deadline: Duration::from_millis(60),
        }
    }
}

/// What a controller asks its owner to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A message for the remote.
    Usb(ToRemote),
    /// The message-signalled interrupt of this vector.
    Interrupt(u16),
}

/// A root hub port, counted from 1 as in `PORTSC(n)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// All ports that fit a device's speed are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no free port for a device of {0:?} speed")]
pub struct NoFreePort(pub Speed);

/// Numbers to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests that the remote has not completed.
    pub in_flight: usize,
    /// Completions that nobody waited for: late ones of slots that are gone, or inventions of the remote.
    pub unknown_completions: u64,
    /// Slots in use.
    pub slots: usize,
}

/// An xHCI controller. xHCI 1.2.
#[derive(Debug)]
pub struct Xhci {
    config: Config,
    shape: Shape,
    usbcmd: UsbCmd,
    usbsts: UsbSts,
    /// DNCTRL: storage.
    notifications: u32,
    dcbaap: u64,
    /// CONFIG: MaxSlotsEn.
    configure: u32,
    frames: FrameClock,
    /// An MFINDEX Wrap Event is owed.
    wrap_event: bool,
    commands: CommandRing,
    events: Events,
    ports: Vec<Port>,
    slots: Slots,
    requests: Requests,
    /// Endpoints with something to do.
    work: Work,
    /// Endpoints that wait until less is in flight.
    starved: BTreeSet<(SlotId, u8)>,
    /// Isochronous endpoints with packets in flight, and when those count as lost.
    paced: BTreeMap<(SlotId, u8), Duration>,
    /// The driver had the state saved, and nothing was reset since.
    saved: bool,
}

impl Xhci {
    /// A controller in its reset state, nothing plugged in.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shape = Shape {
            slots: SLOTS,
            interrupters: INTERRUPTERS,
            usb2_ports: config.usb2_ports.clamp(1, MAX_PORTS),
            usb3_ports: config.usb3_ports.clamp(1, MAX_PORTS),
            long_contexts: config.long_contexts,
        };
        let usb2 = (0..shape.usb2_ports).map(|_| Port::new(Protocol::Usb2));
        let usb3 = (0..shape.usb3_ports).map(|_| Port::new(Protocol::Usb3));
        Self {
            shape,
            usbcmd: UsbCmd::DEFAULT,
            usbsts: UsbSts::DEFAULT,
            notifications: 0,
            dcbaap: 0,
            configure: 0,
            frames: FrameClock::default(),
            wrap_event: false,
            commands: CommandRing::default(),
            events: Events::new(shape.interrupters),
            ports: usb2.chain(usb3).collect(),
            slots: Slots::new(shape.slots),
            requests: Requests::new(config.first_request),
            work: Work::default(),
            starved: BTreeSet::new(),
            paced: BTreeMap::new(),
            saved: false,
            config,
        }
    }

    /// Plugs a device into the first free port for its speed, with what is known of it beforehand. If it is plugged in
    /// already, it is unplugged first: it may have become another one.
    ///
    /// # Errors
    /// [`NoFreePort`]: the device stays outside.
    pub fn attach(
        &mut self,
        cx: &mut Cx<'_, Output>,
        device: DeviceId,
        speed: Speed,
        profile: Arc<Profile>,
    ) -> Result<PortId, NoFreePort> {
        self.detach(cx, device);
        let protocol = Protocol::of(speed);
        // A port of an unplugging that is not long ago comes last: the guest must see that one before the next device.
        let free = (1..)
            .zip(&mut self.ports)
            .filter(|(_, port)| port.protocol() == protocol && port.device().is_none())
            .min_by_key(|(_, port)| port.busy(cx.now));
        let (number, port) = free.ok_or(NoFreePort(speed))?;
        port.connect(cx.now, device, speed, profile);
        self.run(cx);
        Ok(PortId(number))
    }

    /// Unplugs a device, if it is plugged in. What was in flight fails as on a cable that is pulled; completions
    /// that still come for it are dropped.
    pub fn detach(&mut self, cx: &mut Cx<'_, Output>, device: DeviceId) {
        let Some(port) = self.ports.iter_mut().find(|port| port.device() == Some(device)) else { return };
        port.disconnect(cx.now);
        self.remove_device(cx, device);
        self.requests.lose_all_of(device);
        self.work.extend(core::mem::take(&mut self.starved));
        self.run(cx);
    }

    /// A request has ended. Completions of unknown requests are counted and dropped; whatever lengths a completion
    /// has, no more bytes reach the guest than it has room for.
    pub fn complete(&mut self, cx: &mut Cx<'_, Output>, completion: Completion) {
        self.settle(cx, completion);
        self.run(cx);
    }

    /// Numbers to watch.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.requests.in_flight(),
            unknown_completions: self.requests.unknown(),
            slots: self.slots.iter().count(),
        }
    }
}

impl Model for Xhci {
    type Output = Output;

    fn read(&mut self, cx: &mut Cx<'_, Output>, offset: u64, width: Width) -> u64 {
        registers::read(offset, width, |offset| self.read_dword(cx.now, offset))
    }

    fn write(&mut self, cx: &mut Cx<'_, Output>, offset: u64, width: Width, value: u64) {
        for (offset, write) in registers::writes(offset, width, value) {
            self.write_dword(cx, offset, write);
        }
        self.run(cx);
    }

    fn reset(&mut self, cx: &mut Cx<'_, Output>) {
        self.reset_controller(cx);
    }

    fn tick(&mut self, cx: &mut Cx<'_, Output>) {
        self.run(cx);
    }

    fn deadline(&self) -> Option<Duration> {
        self.next_deadline()
    }

    /// USBSTS says Host Controller Error and halted; a driver gives up on it. xHCI 1.2 §5.4.2.
    fn read_failed(offset: u64, width: Width) -> u64 {
        registers::read(offset, width, registers::failed)
    }
}
