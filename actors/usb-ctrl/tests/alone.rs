//! The UsbCtrl actor alone: a bus made of a channel, mock mailboxes, no socket and no other thread.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::stream;
use pci::{Bus, Dma, Function, Interrupts, Ram, Region, Transaction};
use tokio::sync::{mpsc, oneshot};
use usb_ctrl::{Attach, Detach, Parts, Plugged, Submit, UsbCtrl};
use wire::{
    Lane,
    usb::{Completion, DeviceId, Moved, RequestId, Speed},
};

/// xHCI 1.2 §5.4.1: Run/Stop and Interrupter Enable.
const RUN_AND_INTERRUPT: u32 = 0x5;
/// xHCI 1.2 §4.9.4: the type of a Port Status Change Event.
const PORT_STATUS_CHANGE: u32 = 34;
const ERST: u64 = 0x1000;
const EVENTS: u64 = 0x2000;

/// Records what the actor tells its session.
struct Session(mpsc::UnboundedSender<Submit>, mpsc::UnboundedSender<Plugged>);

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<Submit> for Session {
    type Result = ();

    fn handle(&mut self, message: Submit, _: &mut Self::Context) {
        let _ = self.0.send(message);
    }
}

impl Handler<Plugged> for Session {
    type Result = ();

    fn handle(&mut self, message: Plugged, _: &mut Self::Context) {
        let _ = self.1.send(message);
    }
}

#[derive(Default)]
struct Raised(RefCell<Vec<u16>>);

impl Interrupts for Raised {
    fn raise(&self, vector: u16) {
        self.0.borrow_mut().push(vector);
    }
}

struct Access<F>(F);

impl<F: FnOnce(&mut dyn Function)> Transaction for Access<F> {
    fn perform(self: Box<Self>, function: &mut dyn Function) {
        (self.0)(function);
    }
}

/// Reports its own drop.
struct Tether(Option<oneshot::Sender<()>>);

impl Drop for Tether {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}

struct World {
    actor: Addr<UsbCtrl>,
    accesses: mpsc::UnboundedSender<Box<dyn Transaction>>,
    completions: mpsc::Sender<Vec<Completion>>,
    ram: Rc<Ram>,
    raised: Rc<Raised>,
    plugged: mpsc::UnboundedReceiver<Plugged>,
    dropped: oneshot::Receiver<()>,
}

impl World {
    fn new() -> Self {
        let (accesses, mut transactions) = mpsc::unbounded_channel();
        let (completions, completed) = mpsc::channel(4);
        let (submitted, _) = mpsc::unbounded_channel();
        let (told, plugged) = mpsc::unbounded_channel();
        let session = Session(submitted, told).start();
        let (tether, dropped) = oneshot::channel();
        let (ram, raised) = (Rc::new(Ram::new(0, 1 << 16)), Rc::new(Raised::default()));
        let transactions = Box::pin(stream::poll_fn(move |cx| transactions.poll_recv(cx)));
        let actor = UsbCtrl::new(Parts {
            bus: Bus { transactions, dma: ram.clone(), interrupts: raised.clone() },
            config: xhci::config_space(),
            xhci: xhci::Config::default(),
            completions: completed,
            session: session.clone().recipient(),
            plugged: session.recipient(),
            lent: Vec::new(),
            tether: Box::new(Tether(Some(tether))),
        });
        let actor = actor.expect("an alarm").start();
        Self { actor, accesses, completions, ram, raised, plugged, dropped }
    }

    async fn access<R: 'static>(&self, access: impl FnOnce(&mut dyn Function) -> R + 'static) -> R {
        let (answer, answered) = oneshot::channel();
        let access = Access(move |function: &mut dyn Function| drop(answer.send(access(function))));
        self.accesses.send(Box::new(access)).expect("the bus is there");
        answered.await.expect("an answer")
    }

    async fn write(&self, offset: u64, value: u32) {
        self.access(move |function| function.write(Region::Bar(0), offset, &value.to_le_bytes())).await;
    }

    async fn read(&self, offset: u64) -> u32 {
        self.access(move |function| {
            let mut data = [0; 4];
            function.read(Region::Bar(0), offset, &mut data);
            u32::from_le_bytes(data)
        })
        .await
    }

    /// Runs the controller with one event ring segment of 16 TRBs.
    async fn run(&self) {
        self.access(|function| function.write(Region::Config, 4, &6u16.to_le_bytes())).await;
        self.ram.write(ERST, &EVENTS.to_le_bytes()).unwrap();
        self.ram.write(ERST + 8, &16u64.to_le_bytes()).unwrap();
        let operational = u64::from(self.read(0).await & 0xff);
        let runtime = u64::from(self.read(0x18).await);
        for (offset, value) in
            [(0x28, 1), (0x38, EVENTS as u32), (0x3c, 0), (0x30, ERST as u32), (0x34, 0), (0x20, 2)]
        {
            self.write(runtime + offset, value).await;
        }
        self.write(operational, RUN_AND_INTERRUPT).await;
    }

    fn event_type(&self, index: u64) -> u32 {
        self.ram.observe(EVENTS + 16 * index + 12).unwrap() >> 10 & 0x3f
    }
}

#[actix::test]
async fn an_attached_device_is_a_port_event_and_an_interrupt_and_so_is_its_end() {
    let world = World::new();
    world.run().await;
    world
        .actor
        .send(Attach { device: DeviceId(1), speed: Speed::High, profile: Arc::default() })
        .await
        .unwrap();
    assert_eq!((world.event_type(0), world.raised.0.borrow().len()), (PORT_STATUS_CHANGE, 1));
    world.actor.send(Detach { device: DeviceId(1) }).await.unwrap();
    let operational = u64::from(world.read(0).await & 0xff);
    let connected = world.read(operational + 0x400).await & 1;
    assert_eq!(connected, 0);
}

#[actix::test]
async fn which_port_a_device_is_in_is_told_and_that_none_was_left_for_it() {
    let mut world = World::new();
    let mut ports = Vec::new();
    loop {
        let device = DeviceId(ports.len() as u32 + 1);
        world.actor.do_send(Attach { device, speed: Speed::Super, profile: Arc::default() });
        let told = world.plugged.recv().await.unwrap();
        assert_eq!(told.device, device);
        match told.port {
            Some(port) => ports.push(port),
            None => break,
        }
    }
    let all = ports.len();
    ports.sort();
    ports.dedup();
    assert!(all > 1 && ports.len() == all, "no two are in one: {ports:?}");
}

#[actix::test]
async fn completions_of_requests_that_nobody_made_change_nothing() {
    let world = World::new();
    world.run().await;
    let stray = Completion {
        id: RequestId(99),
        result: Ok(()),
        moved: Moved::In(Bytes::from_static(b"x")),
        packets: Vec::new(),
        lane: Lane::Bulk,
    };
    // More batches than the stream holds: it is drained, not stuck.
    for _ in 0..20 {
        world.completions.send(vec![stray.clone(); 10]).await.unwrap();
    }
    world.read(0).await;
    assert_eq!(world.event_type(0), 0);
    assert!(world.raised.0.borrow().is_empty());
}

#[actix::test]
async fn the_tether_is_dropped_with_the_actor_whichever_way_it_ends() {
    let mut world = World::new();
    world.run().await;
    assert!(world.dropped.try_recv().is_err());
    let access: Box<dyn Transaction> = Box::new(Access(|_: &mut dyn Function| panic!("crash injection")));
    world.accesses.send(access).expect("the bus is there");
    world.dropped.await.expect("the tether reports");
    assert!(!world.actor.connected());
}
