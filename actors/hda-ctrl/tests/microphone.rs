//! The actor between a guest that records and a remote with a microphone, in virtual time.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::prelude::*;
use futures_util::stream;
use hda::driver::{Buffer, Driver};
use hda_ctrl::{HdaCtrl, Jacks, Parts, Play, RemoteCame, Wish};
use pci::{Bus, Dma, DmaError, Function, Interrupts, Ram, Region, Transaction, Width};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time,
};
use wire::audio::{Block, Codec, Coded, Encoding, Format, Jack, StreamId, ToHost, ToRemote};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const TAG: u8 = 3;
const SOUND: u64 = 0x8_0000;

/// Guest memory that panics on command: the crash of the model that writes to it next.
#[derive(Clone)]
struct Memory {
    ram: Rc<Ram>,
    broken: Rc<Cell<bool>>,
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
struct Machine<'a>(&'a mut dyn Function, Memory);

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

struct World {
    hda: Addr<HdaCtrl>,
    accesses: mpsc::UnboundedSender<Box<dyn Transaction>>,
    memory: Memory,
    reports: broadcast::Sender<ToHost>,
    jacks: watch::Sender<Jacks>,
    _round_trip: watch::Sender<Option<Duration>>,
    remote: mpsc::UnboundedReceiver<ToRemote>,
}

impl World {
    fn new() -> Self {
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

    /// The guest starts its driver, and records.
    async fn record(&self) {
        let (memory, (done, recorded)) = (self.memory.clone(), oneshot::channel());
        let access = Access(move |function: &mut dyn Function| {
            function.write(Region::Config, 4, &6u16.to_le_bytes());
            let mut driver = Driver::start(Machine(function, memory), 0).expect("a controller");
            let microphone = driver.microphone().expect("a microphone");
            driver.connect(microphone.converter, TAG, FORMAT).expect("a converter");
            let buffers = [Buffer { address: SOUND, length: 0x1_0000, interrupt: true }];
            driver.set_up(0, TAG, FORMAT, &buffers, 0x1_0000).expect("a stream");
            driver.run(0, true);
            done.send(()).expect("somebody waits");
        });
        self.accesses.send(Box::new(access)).expect("a bus");
        recorded.await.expect("an answer");
    }

    async fn plug(&self, present: bool) {
        self.jacks.send_if_modified(|jacks| jacks.set(Jack::Microphone, present));
        time::sleep(Duration::from_millis(110)).await;
    }

    /// The microphone hears something.
    fn hear(&self, position: u64, pcm: &[u8]) {
        let (frames, payload) = ((pcm.len() / 4) as u16, pcm.to_vec().into());
        let block = Block { position, frames, codec: Codec::Pcm, payload };
        let (stream, run, again, copies) = (StreamId(0), 1, false, Vec::new());
        let coded = Coded { stream, run, again, format: FORMAT, block, copies };
        self.reports.send(ToHost::RecordedCoded(coded)).expect("an actor");
    }

    /// What the guest has heard.
    fn heard(&self) -> Vec<u8> {
        let mut heard = vec![0; 0x1_0000];
        self.memory.ram.read(SOUND, &mut heard).expect("memory");
        heard
    }

    async fn asked(&mut self) -> ToRemote {
        let asked = time::timeout(Duration::from_secs(1), self.remote.recv()).await;
        asked.expect("the remote hears something").expect("a session")
    }
}

fn record(run: u32) -> ToRemote {
    ToRemote::Record { stream: StreamId(0), run, format: FORMAT }
}

fn stop(run: u32) -> ToRemote {
    ToRemote::StopRecord { stream: StreamId(0), run }
}

#[actix::test]
async fn the_remote_is_asked_when_it_has_a_microphone_and_heard_until_it_is_pulled_out() {
    let mut world = World::new();
    world.record().await;
    world.plug(true).await;
    assert_eq!(world.asked().await, record(1));

    let pcm: Vec<u8> = (0..960u32).map(|n| (n % 251) as u8 + 1).collect();
    world.hear(0, &pcm);
    time::sleep(Duration::from_millis(50)).await;
    let heard = world.heard();
    let begin = heard.iter().position(|byte| *byte != 0).expect("sound");
    assert_eq!(heard[begin..begin + pcm.len()], pcm);

    world.plug(false).await;
    assert_eq!(world.asked().await, stop(1));
}

#[actix::test]
async fn a_remote_that_comes_later_is_asked_anew() {
    let mut world = World::new();
    world.plug(true).await;
    world.record().await;
    assert_eq!(world.asked().await, record(1));
    world.hda.send(RemoteCame).await.unwrap();
    assert_eq!(world.asked().await, record(2));
}

#[actix::test]
async fn when_the_model_dies_the_microphone_is_closed_and_what_is_plugged_in_stays_so() {
    let mut world = World::new();
    world.plug(true).await;
    world.record().await;
    assert_eq!(world.asked().await, record(1));
    world.memory.broken.set(true);
    time::sleep(Duration::from_millis(20)).await;
    world.memory.broken.set(false);
    assert_eq!(world.asked().await, stop(1));

    time::sleep(Duration::from_millis(500)).await;
    world.record().await;
    assert_eq!(world.asked().await, record(1));
}

#[actix::test]
async fn of_more_than_can_wait_the_latest_is_heard_and_the_guest_is_not_kept_waiting() {
    let mut world = World::new();
    world.record().await;
    world.plug(true).await;
    assert_eq!(world.asked().await, record(1));
    // All at once: the actor has no chance to take any of it in between.
    for n in 0..100u8 {
        world.hear(u64::from(n) * 48, &[n + 1; 48 * 4]);
    }
    // What was lost leaves a hole as long as it was.
    time::sleep(Duration::from_millis(120)).await;
    let mut heard = world.heard();
    heard.retain(|byte| *byte != 0);
    heard.dedup();
    assert_eq!(heard, [97, 98, 99, 100], "the channel of this test holds four");
}

#[actix::test]
async fn a_storm_of_plugs_is_its_last_word() {
    let mut world = World::new();
    world.record().await;
    for n in 0..1_001u32 {
        world.jacks.send_if_modified(|jacks| jacks.set(Jack::Microphone, n % 2 == 0));
    }
    assert_eq!(world.asked().await, record(1));
    let more = time::timeout(Duration::from_secs(1), world.remote.recv()).await;
    assert!(more.is_err(), "{more:?}");
}
