//! A VM and a remote made of channels: a bus whose transactions the test writes, memory that can be broken, and the
//! remote's end of a link in memory. Everything runs on the test's own thread.

use std::{
    cell::Cell,
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, Mutex},
    task::Poll,
};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use link::{Link, Memory, MemoryConfig, PeerKey};
use pci::{Bus, Dma, DmaError, Function, Interrupts, Ram, Region, Transaction};
use session::{LinkId, LinkKind, NewLink, Session};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};
use vm_session::{Event, HoldTimes, LinkUp, Parts, VmSession, Wish};
use wire::{
    Lane, ToHost, ToRemote,
    control::{Attachment, Profile},
    usb::DeviceId,
};

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
        let session = Session::remote(session::Config::default());
        Remote { links: BTreeMap::new(), last: 0, session, start: Instant::now() }
    }

    /// A link to the VM; its other end.
    pub(crate) async fn link(&self) -> Memory {
        self.link_of(MemoryConfig::default()).await
    }

    async fn link_of(&self, config: MemoryConfig) -> Memory {
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

/// The remote's end of a session, driven by hand.
pub(crate) struct Remote {
    links: BTreeMap<LinkId, Memory>,
    last: u64,
    session: Session,
    start: Instant,
}

impl Remote {
    /// Gets one more link, and the session onto it.
    pub(crate) async fn join(&mut self, world: &World) {
        let id = self.open(world).await;
        self.until_on(id).await;
    }

    async fn until_on(&mut self, id: LinkId) {
        while self.session.link() != Some(id) {
            self.receive().await;
        }
    }

    /// What the link that it is on has, and no other.
    pub(crate) fn binding(&self) -> [u8; 32] {
        self.session.link().and_then(|link| self.links.get(&link)).expect("it is on a link").binding()
    }

    /// The key by which the host knows it.
    pub(crate) fn key(&self) -> PeerKey {
        MemoryConfig::default().keys[1]
    }

    /// Asks for a session that the host does not have; the host's answer.
    pub(crate) async fn refused(&mut self, world: &World) -> session::ResetReason {
        self.open(world).await;
        loop {
            match self.session.poll_event() {
                Some(session::Event::Reset(reason)) => return reason,
                Some(_) => {}
                None => self.receive().await,
            }
        }
    }

    /// Answers what the host asks, which is no message.
    pub(crate) async fn hear_nothing(&mut self) {
        while self.receive().now_or_never().is_some() {}
        while let Some(event) = self.session.poll_event() {
            assert!(!matches!(event, session::Event::Message(..)), "{event:?}");
        }
    }

    /// Says hello with this key, and does not wait.
    pub(crate) async fn ask(&mut self, world: &World, key: PeerKey) {
        let default = MemoryConfig::default();
        let keys = default.keys.map(|_| key);
        let link = world.link_of(MemoryConfig { keys, ..default }).await;
        self.open_on(link).await;
    }

    async fn open(&mut self, world: &World) -> LinkId {
        self.open_on(world.link().await).await
    }

    async fn open_on(&mut self, link: Memory) -> LinkId {
        self.last += 1;
        let id = LinkId(self.last);
        let new = NewLink { id, kind: LinkKind::STREAM, binding: link.binding(), opens: true };
        self.session.link_up(self.start.elapsed(), new).expect("a session that wants a link");
        self.links.insert(id, link);
        self.flush().await;
        id
    }

    /// Ends the session in good order.
    pub(crate) async fn leave(&mut self) {
        self.session.close("the remote ends");
        self.flush().await;
    }

    /// All links break.
    pub(crate) fn cut(&mut self) {
        for (id, link) in std::mem::take(&mut self.links) {
            drop(link);
            self.session.link_down(self.start.elapsed(), id);
        }
    }

    /// Says something to the host.
    pub(crate) async fn say(&mut self, message: ToHost) {
        self.session.send(message.encode()).expect("room in the session");
        self.flush().await;
    }

    /// Lends a device.
    pub(crate) async fn lend(&mut self, device: u32) {
        self.lend_as(device, Profile::default()).await;
    }

    /// Lends a device with this profile.
    pub(crate) async fn lend_as(&mut self, device: u32, profile: Profile) {
        let attachment = Attachment {
            device: DeviceId(device),
            speed: wire::usb::Speed::High,
            vendor: 1,
            product: 2,
            name: "a device".into(),
            profile,
        };
        self.say(ToHost::Control(wire::control::ToHost::Attached(attachment))).await;
    }

    /// Says something that is no message.
    pub(crate) async fn say_raw(&mut self, lane: Lane, body: Bytes) {
        self.session.send(wire::Message { lane, head: Bytes::new(), body }).expect("room in the session");
        self.flush().await;
    }

    /// The next message from the host.
    pub(crate) async fn hear(&mut self) -> ToRemote {
        loop {
            match self.session.poll_event() {
                Some(session::Event::Message(lane, bytes)) => {
                    self.session.consumed(lane, bytes.len());
                    return ToRemote::decode(lane, bytes).expect("the host speaks properly");
                }
                Some(session::Event::Retired(link)) => drop(self.links.remove(&link)),
                Some(_) => {}
                None => self.receive().await,
            }
        }
    }

    /// Takes a frame of any link.
    async fn receive(&mut self) {
        let links = &mut self.links;
        let frame = poll_fn(|cx| {
            let mut ready = links.iter_mut().filter_map(|(id, link)| match link.poll_receive(cx) {
                Poll::Ready(frame) => Some((*id, frame)),
                Poll::Pending => None,
            });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        });
        let (id, frame) = frame.await;
        let (lane, frame): (Lane, Bytes) = frame.expect("a live link");
        let now = self.start.elapsed();
        self.session.receive_on(now, id, lane, frame).expect("the host keeps the protocol");
        self.flush().await;
    }

    /// Whether the host has closed every link, as far as can be seen now.
    pub(crate) fn closed(&mut self) -> bool {
        self.links.values_mut().all(|link| {
            let received = poll_fn(|cx| link.poll_receive(cx)).now_or_never();
            matches!(received, Some(Err(_)))
        })
    }

    async fn flush(&mut self) {
        let now = self.start.elapsed();
        for (id, link) in &mut self.links {
            while let Some(frame) = self.session.poll_transmit_on(now, *id) {
                // The host may have hung up already; what it said before can still be read.
                if poll_fn(|cx| link.poll_ready(cx)).await.is_err() {
                    break;
                }
                link.send(frame).expect("room on the link");
            }
            drop(poll_fn(|cx| link.poll_flush(cx)).await);
        }
    }
}
