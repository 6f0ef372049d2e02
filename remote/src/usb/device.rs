//! A real device, as a [`Function`] like any other.
//!
//! ```text
//!   submit ──► Queue ──► Engine ──► libusb
//!   poll   ◄── Queue ◄── Engine ◄── event thread (and a wake)
//!                 └── what the kernel must know of ──► Claims
//! ```
//! Its port runs on a thread of its own: what changes a configuration, a halt or the bus waits for the kernel there.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use functions::Function;
use rusb::{Context, DeviceHandle};
use wire::{
    Lane,
    control::Profile,
    usb::{Completion, Endpoint, Failure, Moved, Request, RequestId, Speed},
};

use super::{
    claims::Claims,
    credit::CREDIT,
    kernel::Kernel as _,
    profile::{self, Known},
    queue::Queue,
    request::failure,
    sole::Sole,
    standard::Way,
    transfer::Engine,
};

/// How long a device that was lent before may take to be given back: its transfers, and a reset.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lent device.
pub(crate) struct Device {
    // The queue goes first: its engine takes its transfers back before interfaces are released.
    queue: Queue<Engine<Context>>,
    claims: Claims<DeviceHandle<Context>>,
    handle: Arc<DeviceHandle<Context>>,
    id: (u16, u16),
    speed: Speed,
    known: Known,
    // The last: by then everything is given back.
    _sole: Sole,
}

impl Device {
    /// Takes a device from its computer. Somebody must handle the context's events. `wake` is called, on any thread,
    /// when there may be something to poll.
    ///
    /// # Errors
    /// It cannot be opened, or somebody else has it.
    pub(crate) fn open(device: rusb::Device<Context>, wake: Box<dyn Fn() + Send + Sync>) -> Result<Self> {
        let sole = Sole::wait(device.bus_number(), device.address(), PATIENCE)?;
        let descriptor = device.device_descriptor().context("reading its descriptor")?;
        let handle = Arc::new(device.open().context("opening it")?);
        let speed = match device.speed() {
            rusb::Speed::Low => Speed::Low,
            rusb::Speed::Full | rusb::Speed::Unknown => Speed::Full,
            rusb::Speed::Super | rusb::Speed::SuperPlus => Speed::Super,
            _ => Speed::High,
        };
        let mut claims = Claims::new(Arc::clone(&handle));
        claims.claim(&handle.interfaces()).context("taking its interfaces")?;
        let known = profile::read(&*handle, speed);
        let queue = Queue::new(Engine::new(Arc::clone(&handle), wake), Arc::clone(&CREDIT));
        let id = (descriptor.vendor_id(), descriptor.product_id());
        Ok(Self { queue, claims, handle, id, speed, known, _sole: sole })
    }

    /// Carries out what goes through the kernel. Facts about the device change here.
    fn carry_out(&mut self, way: Way) -> Result<(), Failure> {
        match way {
            Way::Raw | Way::Nothing => Ok(()),
            Way::Configure(value) => self.configure(value),
            Way::Choose { interface, setting } => {
                self.queue.drain(&self.endpoints_of(interface));
                self.claims.use_it();
                self.claims.choose(interface, setting).map_err(failure)
            }
            Way::ClearHalt(endpoint) => {
                self.queue.drain(&[endpoint]);
                self.handle.clear_halt(endpoint.address()).map_err(failure)
            }
        }
    }

    fn endpoints_of(&self, interface: u8) -> Vec<Endpoint> {
        let configurations = self.known.configurations.iter();
        let mut active = configurations.filter(|c| c.value == self.claims.configuration());
        active.next().map(|configuration| configuration.endpoints_of(interface)).unwrap_or_default()
    }

    fn configure(&mut self, value: u8) -> Result<(), Failure> {
        self.queue.drain_all(Some(Endpoint::CONTROL));
        self.note_use();
        let configuration = self.known.configurations.iter().find(|c| c.value == value);
        let interfaces = configuration.map(|c| c.interfaces()).unwrap_or_default();
        // It was reset, or nothing happened since it came: what it has is what is asked for.
        if value == self.claims.configuration() && !self.claims.is_used() && self.claims.has(&interfaces) {
            return Ok(());
        }
        if value != 0 && configuration.is_none() {
            return Err(Failure::Stall);
        }
        self.claims.configure(value, &interfaces).map_err(|error| {
            tracing::warn!("configuration {value} cannot be set: {error:#}");
            Failure::Stall
        })
    }

    /// Remembers whether anything happened since it was reset that a reset would undo.
    fn note_use(&mut self) {
        if self.queue.take_touched() {
            self.claims.use_it();
        }
    }

    /// Resets it, if that changes anything: some devices die of one reset too many.
    fn reset_if_used(&mut self) -> Result<(), Failure> {
        self.queue.drain_all(None);
        self.note_use();
        if !self.claims.is_used() {
            return Ok(());
        }
        self.claims.reset().map_err(|error| {
            tracing::info!(%error, "the device did not survive its reset");
            if error == rusb::Error::NoDevice { Failure::Disconnected } else { Failure::Fault }
        })
    }
}

impl Function for Device {
    fn id(&self) -> (u16, u16) {
        self.id
    }

    fn speed(&self) -> Speed {
        self.speed
    }

    fn profile(&self) -> Profile {
        self.known.profile.clone()
    }

    fn streams(&mut self, id: RequestId, endpoints: &[Endpoint], count: u16) {
        self.queue.drain(endpoints);
        let (result, moved) = match count {
            0 => {
                self.queue.carrier().free_streams(endpoints);
                (Ok(()), 0)
            }
            count => match self.queue.carrier().alloc_streams(endpoints, count) {
                Ok(got) => (Ok(()), got),
                Err(code) => {
                    tracing::warn!(code, "the device, or its bus, has no streams");
                    (Err(Failure::InvalidArgument), 0)
                }
            },
        };
        let (moved, lane) = (Moved::Out(moved), Lane::Ctl);
        self.queue.end(Completion { id, result, moved, packets: Vec::new(), lane });
    }

    fn submit(&mut self, request: Request) {
        self.queue.submit(request);
    }

    fn cancel(&mut self, endpoint: Endpoint, through: RequestId) {
        self.queue.cancel(endpoint, through);
    }

    fn reset(&mut self, through: RequestId) -> Result<(), Failure> {
        let result = self.reset_if_used();
        self.queue.cancel_all_later(through);
        result
    }

    fn replug(&mut self) {
        // The new host's first reset tries again, and hears of it.
        let _ = self.reset_if_used();
        self.queue.forget();
    }

    fn poll(&mut self, now: Duration, lane: Lane) -> Option<Completion> {
        self.queue.collect();
        while let Some((request, way)) = self.queue.start(now) {
            let result = self.carry_out(way);
            self.queue.end_of(&request, result);
        }
        self.note_use();
        self.queue.next_end(lane)
    }

    fn deadline(&self) -> Option<Duration> {
        self.queue.deadline()
    }
}
