//! A VM made of channels: a bus whose transactions the test writes, and memory that can be broken. Everything runs on the
//! test's own thread.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use actix::prelude::*;
use futures_util::stream;
use link::{Memory, MemoryConfig};
use pci::{Bus, Dma, DmaError, Function, Interrupts, Ram, Region, Transaction};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use vm_session::{Event, HoldTimes, LinkUp, Parts, VmSession, Wish};

use crate::remote::Remote;

/// Guest memory that panics on command: the crash of whatever model reads it next.
pub(crate) struct Memories {
    ram: Ram,
    broken: Rc<Cell<bool>>,
}

impl Dma for Memories {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        assert!(!self.broken.get(), "crash injection");
        self.ram.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.ram.write(address, data)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        assert!(!self.broken.get(), "crash injection");
        self.ram.observe(address)
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.ram.publish(address, value)
    }
}

struct Silent;

impl Interrupts for Silent {
    fn raise(&self, _: u16) {}
}

/// What the guest does, as a closure on the function.
struct Access<F>(F);

impl<F: FnOnce(&mut dyn Function)> Transaction for Access<F> {
    fn perform(self: Box<Self>, function: &mut dyn Function) {
        (self.0)(function);
    }
}

/// The guest's side of one function.
pub(crate) struct Guest {
    accesses: mpsc::UnboundedSender<Box<dyn Transaction>>,
    /// Set it, and the next read of memory panics.
    pub(crate) broken: Rc<Cell<bool>>,
    /// The guest's memory.
    pub(crate) memory: Rc<Memories>,
}

impl Guest {
    fn new() -> (Self, Bus) {
        let (accesses, mut transactions) = mpsc::unbounded_channel();
        let broken = Rc::new(Cell::new(false));
        let memory = Rc::new(Memories { ram: Ram::new(0, 1 << 20), broken: Rc::clone(&broken) });
        let dma = Rc::clone(&memory) as Rc<dyn Dma>;
        let transactions = Box::pin(stream::poll_fn(move |cx| transactions.poll_recv(cx)));
        (Self { accesses, broken, memory }, Bus { transactions, dma, interrupts: Rc::new(Silent) })
    }

    /// Does something to the function and waits until it is done; `None` if the controller died of it.
    pub(crate) async fn access<R: 'static>(
        &self,
        access: impl FnOnce(&mut dyn Function) -> R + 'static,
    ) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        let access = Access(move |function: &mut dyn Function| drop(answer.send(access(function))));
        self.accesses.send(Box::new(access)).expect("the bus is there");
        answered.await.ok()
    }

    /// Reads a dword of BAR 0.
    pub(crate) async fn read(&self, offset: u64) -> Option<u32> {
        let read = move |function: &mut dyn Function| {
            let mut data = [0; 4];
            function.read(Region::Bar(0), offset, &mut data);
            u32::from_le_bytes(data)
        };
        self.access(read).await
    }

    /// Writes a dword of BAR 0.
    pub(crate) async fn write(&self, offset: u64, value: u32) -> Option<()> {
        self.access(move |function| function.write(Region::Bar(0), offset, &value.to_le_bytes())).await
    }

    /// Lets the function master the bus.
    pub(crate) async fn enable(&self) {
        self.access(|function| function.write(Region::Config, 4, &6u16.to_le_bytes()))
            .await
            .expect("a live function");
    }

    /// Reads a register until it is as wanted; whoever runs the test limits its time.
    pub(crate) async fn until(&self, offset: u64, wanted: impl Fn(u32) -> bool) -> u32 {
        loop {
            if let Some(value) = self.read(offset).await.filter(|value| wanted(*value)) {
                return value;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Records what the VmSession tells.
struct Listener(Arc<Mutex<Vec<Event>>>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Event> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event, _: &mut Self::Context) {
        self.0.lock().expect("one thread").push(event);
    }
}

/// One VM.
pub(crate) struct World {
    /// The USB controller's guest side.
    pub(crate) usb: Guest,
    /// The HD Audio controller's guest side.
    pub(crate) hda: Guest,
    /// The actor under test.
    pub(crate) session: Addr<VmSession>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl World {
    /// A VM whose actors run on this thread.
    pub(crate) fn new() -> Self {
        let (usb, usb_bus) = Guest::new();
        let (hda, hda_bus) = Guest::new();
        let events = Arc::default();
        let session = VmSession::new(Parts {
            name: "test".into(),
            usb: usb_bus,
            usb_config: xhci::config_space,
            xhci: xhci::Config::default(),
            hda: hda_bus,
            hda_config: hda::config_space,
            hda_settings: hda::Config::default(),
            codec: Wish::Auto,
            hold: HoldTimes::default(),
            takeover: false,
            io: Handle::current(),
            tap: None,
            events: Listener(Arc::clone(&events)).start().recipient(),
        })
        .start();
        Self { usb, hda, session, events }
    }

    /// A remote that has a session.
    pub(crate) async fn remote(&self) -> Remote {
        let mut remote = self.stranger();
        remote.join(self).await;
        remote
    }

    /// The same by a link that holds so many frames.
    pub(crate) async fn remote_by(&self, capacity: usize) -> Remote {
        let mut remote = self.stranger();
        let link = self.link_of(MemoryConfig { capacity, ..MemoryConfig::default() }).await;
        let id = remote.open_on(link).await;
        remote.until_on(id).await;
        remote
    }

    /// A remote without a link.
    pub(crate) fn stranger(&self) -> Remote {
        Remote::new()
    }

    /// A link to the VM; its other end.
    pub(crate) async fn link(&self) -> Memory {
        self.link_of(MemoryConfig::default()).await
    }

    /// The same, such a one.
    pub(crate) async fn link_of(&self, config: MemoryConfig) -> Memory {
        let (host, link) = link::pair_with(config);
        self.session.send(LinkUp { link: Box::new(host), track: None }).await.expect("the session is there");
        link
    }

    /// What was told so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("one thread").clone()
    }

    /// Waits until this was told.
    pub(crate) async fn until(&self, told: impl Fn(&Event) -> bool) {
        while !self.events().iter().any(&told) {
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until then, and until the actors have done what is due.
pub(crate) async fn until(instant: Instant) {
    time::sleep_until(instant).await;
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}
