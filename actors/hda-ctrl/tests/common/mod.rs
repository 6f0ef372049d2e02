//! A guest on a bus, an actor that is its sound controller, and the session that hears what it says; in virtual time.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its part")]

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::prelude::*;
use futures_util::stream;
use hda::driver::{Buffer, Driver, Host as _};
use hda_ctrl::{HdaCtrl, Jacks, Parts, Play, Wish};
use pci::{Bus, Dma, DmaError, Function, Interrupts, Ram, Region, Transaction, Width};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time,
};
use wire::audio::{Format, Jack, ToHost, ToRemote};

pub const TAG: u8 = 3;
pub const SOUND: u64 = 0x8_0000;
/// Bytes of the ring in the guest's memory.
pub const RING: u32 = 0x1_0000;
const DPLBASE: u64 = 0x70;

/// Guest memory that panics on command: the crash of the model that writes to it next.
#[derive(Clone)]
pub struct Memory {
    pub ram: Rc<Ram>,
    pub broken: Rc<Cell<bool>>,
}

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.ram.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        assert!(!self.broken.get(), "crash injection");
        self.ram.write(address, data)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
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

/// The function and memory as the driver wants them.
pub struct Machine<'a>(&'a mut dyn Function, Memory);

impl hda::driver::Host for Machine<'_> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut data = [0; 8];
        self.0.read(Region::Bar(0), offset, &mut data[..width.bytes()]);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.write(Region::Bar(0), offset, &value.to_le_bytes()[..width.bytes()]);
    }

    fn memory(&self) -> &dyn Dma {
        &self.1
    }
}

/// Who would be the session.
struct Session(mpsc::UnboundedSender<ToRemote>);

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<Play> for Session {
    type Result = ();

    fn handle(&mut self, Play(messages): Play, _: &mut Self::Context) {
        messages.into_iter().for_each(|message| drop(self.0.send(message)));
    }
}

pub struct World {
    pub hda: Addr<HdaCtrl>,
    pub accesses: mpsc::UnboundedSender<Box<dyn Transaction>>,
    pub memory: Memory,
    pub reports: broadcast::Sender<ToHost>,
    pub jacks: watch::Sender<Jacks>,
    _round_trip: watch::Sender<Option<Duration>>,
    pub remote: mpsc::UnboundedReceiver<ToRemote>,
}

impl World {
    pub fn new() -> Self {
        time::pause();
        let (accesses, mut transactions) = mpsc::unbounded_channel();
        let memory = Memory { ram: Rc::new(Ram::new(0, 1 << 20)), broken: Rc::default() };
        let (to_remote, remote) = mpsc::unbounded_channel();
        let bus = Bus {
            transactions: Box::pin(stream::poll_fn(move |cx| transactions.poll_recv(cx))),
            dma: Rc::new(memory.clone()),
            interrupts: Rc::new(Silent),
        };
        let ((reports, heard), (jacks, plugged)) = (broadcast::channel(4), watch::channel(Jacks::default()));
        let (round_trip, known) = watch::channel(None);
        let hda = HdaCtrl::new(Parts {
            bus,
            config: hda::config_space(),
            hda: hda::Config::default(),
            reports: heard,
            jacks: plugged,
            round_trip: known,
            codec: Wish::Auto,
            session: Session(to_remote).start().recipient(),
            tether: Box::new(()),
        });
        let hda = hda.expect("an alarm").start();
        Self { hda, accesses, memory, reports, jacks, _round_trip: round_trip, remote }
    }

    /// The guest starts its driver, and does so much with it.
    pub async fn start(&self, act: impl FnOnce(&mut Driver<Machine<'_>>) + 'static) {
        let (memory, (done, started)) = (self.memory.clone(), oneshot::channel());
        let access = Access(move |function: &mut dyn Function| {
            function.write(Region::Config, 4, &6u16.to_le_bytes());
            let mut driver = Driver::start(Machine(function, memory), 0).expect("a controller");
            act(&mut driver);
            done.send(()).expect("somebody waits");
        });
        self.accesses.send(Box::new(access)).expect("a bus");
        started.await.expect("an answer");
    }

    /// The guest records.
    pub async fn record(&self, format: Format) {
        self.start(move |driver| {
            let microphone = driver.microphone().expect("a microphone");
            driver.connect(microphone.converter, TAG, format).expect("a converter");
            let buffers = [Buffer { address: SOUND, length: RING, interrupt: true }];
            driver.set_up(0, TAG, format, &buffers, RING).expect("a stream");
            driver.run(0, true);
        })
        .await;
    }

    /// The guest plays what is in its ring, again and again, and wants neither interrupts nor positions in memory: a tick
    /// for each packet is enough.
    pub async fn play(&self, format: Format) {
        self.start(move |driver| {
            let speaker = driver.speaker().expect("a speaker");
            driver.connect(speaker.converter, TAG, format).expect("a converter");
            let buffers = [Buffer { address: SOUND, length: RING, interrupt: false }];
            driver.host().write(DPLBASE, Width::Dword, 0);
            let stream = driver.output(0);
            driver.set_up(stream, TAG, format, &buffers, RING).expect("a stream");
            driver.run(stream, true);
        })
        .await;
    }

    /// The guest plays the same to the speakers and to the headphones, as two streams.
    pub async fn play_twice(&self, format: Format) {
        self.start(move |driver| {
            let speaker = driver.speaker().expect("a speaker");
            let headphone = driver.headphone().expect("headphones");
            let buffers = [Buffer { address: SOUND, length: RING, interrupt: false }];
            driver.host().write(DPLBASE, Width::Dword, 0);
            for (number, converter) in [speaker.converter, headphone.converter].into_iter().enumerate() {
                let (number, tag) = (number as u8, TAG + number as u8);
                driver.connect(converter, tag, format).expect("a converter");
                let stream = driver.output(number);
                driver.set_up(stream, tag, format, &buffers, RING).expect("a stream");
                driver.run(stream, true);
            }
        })
        .await;
    }

    pub async fn plug(&self, jack: Jack, present: bool) {
        self.jacks.send_if_modified(|jacks| jacks.set(jack, present));
        time::sleep(Duration::from_millis(110)).await;
    }

    pub async fn asked(&mut self) -> ToRemote {
        let asked = time::timeout(Duration::from_secs(1), self.remote.recv()).await;
        asked.expect("the remote hears something").expect("a session")
    }
}
