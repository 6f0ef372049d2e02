//! The bare model with plain memory, and a clock that only the test moves.

use core::time::Duration;
use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use pci::{Cx, Dma, Model, Ram, Width};
use wire::{
    Lane,
    control::Profile,
    usb::{Completion, DeviceId, Failure, Moved, Request, RequestId, Speed, ToRemote},
};

use super::Host;
use crate::{Config, NoFreePort, Output, PortId, Xhci};

/// An [`Xhci`] without a VM: its memory, its clock, and what it has asked for.
pub struct Bare {
    /// The controller.
    pub xhci: Xhci,
    /// Guest memory.
    pub ram: Ram,
    /// The time.
    pub now: Duration,
    /// Messages for the remote that nobody has taken yet.
    pub messages: VecDeque<ToRemote>,
    /// Interrupts sent so far.
    pub interrupts: u64,
    /// What the model puts off for its budget stays undone until time passes, or a tick is called for.
    pub lazy: bool,
}

impl Bare {
    /// A controller with this much memory from address 0 on.
    #[must_use]
    pub fn new(config: Config, memory: usize) -> Self {
        Self {
            xhci: Xhci::new(config),
            ram: Ram::new(0, memory),
            now: Duration::ZERO,
            messages: VecDeque::new(),
            interrupts: 0,
            lazy: false,
        }
    }

    /// Calls the model, and lets it finish what it put off for its budget, unless it is [`Self::lazy`].
    pub fn with<R>(&mut self, call: impl FnOnce(&mut Xhci, &mut Cx<'_, Output>) -> R) -> R {
        let result = self.once(call);
        while !self.lazy && self.xhci.deadline().is_some_and(|at| at <= self.now) {
            self.once(|xhci, cx| xhci.tick(cx));
        }
        result
    }

    /// Calls the model once.
    pub fn once<R>(&mut self, call: impl FnOnce(&mut Xhci, &mut Cx<'_, Output>) -> R) -> R {
        let mut out = Vec::new();
        let result = call(&mut self.xhci, &mut Cx { now: self.now, dma: &self.ram, out: &mut out });
        for output in out {
            match output {
                Output::Usb(message) => self.messages.push_back(message),
                Output::Interrupt(_) => self.interrupts += 1,
            }
        }
        result
    }

    /// Plugs a device in.
    ///
    /// # Errors
    /// [`NoFreePort`].
    pub fn attach(&mut self, device: DeviceId, speed: Speed) -> Result<PortId, NoFreePort> {
        self.attach_known(device, speed, Profile::default())
    }

    /// The same, with what is known of the device beforehand.
    ///
    /// # Errors
    /// As [`Xhci::attach`].
    pub fn attach_known(
        &mut self,
        device: DeviceId,
        speed: Speed,
        profile: Profile,
    ) -> Result<PortId, NoFreePort> {
        self.with(|xhci, cx| xhci.attach(cx, device, speed, Arc::new(profile)))
    }

    /// Unplugs a device.
    pub fn detach(&mut self, device: DeviceId) {
        self.with(|xhci, cx| xhci.detach(cx, device));
    }

    /// Completes a request.
    pub fn complete(&mut self, id: RequestId, result: Result<(), Failure>, moved: Moved) {
        self.with(|xhci, cx| {
            xhci.complete(cx, Completion { id, result, moved, packets: Vec::new(), lane: Lane::Bulk })
        });
    }

    /// Completes a request with data from the device.
    pub fn give(&mut self, id: RequestId, data: impl Into<Bytes>) {
        self.complete(id, Ok(()), Moved::In(data.into()));
    }

    /// Takes the messages for the remote so far.
    pub fn take_messages(&mut self) -> Vec<ToRemote> {
        self.messages.drain(..).collect()
    }

    /// Takes the requests so far; completes resets and streams, and drops cancels.
    pub fn take_requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        while let Some(message) = self.messages.pop_front() {
            match message {
                ToRemote::Submit(request) => requests.push(request),
                ToRemote::Follow(follow) => requests.push(follow.into()),
                ToRemote::Reset { id, .. } => self.complete(id, Ok(()), Moved::Out(0)),
                ToRemote::Streams { id, count, .. } => self.complete(id, Ok(()), Moved::Out(count.into())),
                ToRemote::Cancel { .. } => {}
            }
        }
        requests
    }
}

impl Host for Bare {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.with(|xhci, cx| xhci.read(cx, offset, width))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.with(|xhci, cx| xhci.write(cx, offset, width, value));
    }

    fn load(&mut self, address: u64, data: &mut [u8]) {
        self.ram.read(address, data).expect("memory that exists");
    }

    fn store(&mut self, address: u64, data: &[u8]) {
        self.ram.write(address, data).expect("memory that exists");
    }

    /// Time passes from deadline to deadline.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.xhci.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.with(|xhci, cx| xhci.tick(cx));
        }
        self.now = until;
    }
}
