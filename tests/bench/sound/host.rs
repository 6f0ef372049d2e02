//! The host: a real HdaCtrl on a thread of its own, and a guest that plays, records, and notes where its streams are.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use futures_util::stream;
use hda::{
    Speakers,
    driver::{Buffer, Driver, Host as _, Kind},
};
use hda_ctrl::{HdaCtrl, Jacks, Parts, Play, Wish};
use link::Link;
use pci::{Bus, Dma, Function, Interrupts, Ram, Region, Transaction, Width};
use session::Role;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use wire::{ToHost, ToRemote, audio};

use crate::{FORMAT, pump::pump};

/// A ring holds a second.
const RING: u32 = 4 * FORMAT.rate;
const RAM: usize = 16 << 20;
/// How often the guest looks where its streams are, if it is to know, and otherwise.
const LOOK: Duration = Duration::from_millis(5);
const SELDOM: Duration = Duration::from_millis(200);

/// The thread of a host.
pub(crate) const THREAD: &str = "host";

/// What the guest does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// How many streams it plays.
    pub(crate) streams: u8,
    /// Whether it records one as well.
    pub(crate) records: bool,
    /// Whether it notes where they are all the time.
    pub(crate) looks: bool,
}

/// When which frame passed the position of the first stream.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Of playback: the moment, and the frames that had passed since the run began.
    pub(crate) played: Vec<(Instant, u64)>,
    /// Of capture: the moment, and the number that the last frame carried.
    pub(crate) recorded: Vec<(Instant, u32)>,
}

impl Passed {
    /// When this frame passed; none before the first look, or after the last.
    pub(crate) fn when(&self, frame: u64) -> Option<Instant> {
        let after = self.played.partition_point(|(_, frames)| *frames <= frame);
        let ((then, from), (now, to)) = (self.played.get(after.checked_sub(1)?)?, self.played.get(after)?);
        let part = (frame - from) as f64 / (to - from).max(1) as f64;
        Some(*then + (*now - *then).mul_f64(part))
    }
}

struct Silent;

impl Interrupts for Silent {
    fn raise(&self, _: u16) {}
}

struct Access<F>(F);

impl<F: FnOnce(&mut dyn Function)> Transaction for Access<F> {
    fn perform(self: Box<Self>, function: &mut dyn Function) {
        (self.0)(function);
    }
}

/// The function and memory as the driver wants them.
struct Machine<'a>(&'a mut dyn Function, Rc<Ram>);

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
        &*self.1
    }
}

/// Who would be the session: hands on to the pump.
struct Mouth(mpsc::UnboundedSender<wire::Message>);

impl Actor for Mouth {
    type Context = Context<Self>;
}

impl Handler<Play> for Mouth {
    type Result = ();

    fn handle(&mut self, Play(messages): Play, _: &mut Self::Context) {
        messages.into_iter().for_each(|message| drop(self.0.send(ToRemote::Audio(message).encode())));
    }
}

/// A host with this guest, until it is stopped.
pub(crate) fn start(
    link: Box<dyn Link>,
    codec: Wish,
    guest: Guest,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Result<Passed>> {
    let work = move || System::new().block_on(run(link, codec, guest, &stop));
    thread::Builder::new().name(THREAD.to_owned()).spawn(work).expect("a thread")
}

async fn run(link: Box<dyn Link>, codec: Wish, guest: Guest, stop: &AtomicBool) -> Result<Passed> {
    let Guest { streams, records, looks } = guest;
    let (accesses, mut transactions) = mpsc::unbounded_channel::<Box<dyn Transaction>>();
    let ram = Rc::new(Ram::new(0, RAM));
    let bus = Bus {
        transactions: Box::pin(stream::poll_fn(move |cx| transactions.poll_recv(cx))),
        dma: Rc::clone(&ram) as Rc<dyn Dma>,
        interrupts: Rc::new(Silent),
    };
    let (said, saying) = mpsc::unbounded_channel();
    let (reports, heard) = broadcast::channel(64);
    let jacks = watch::Sender::new(Jacks { headphone: false, microphone: records });
    let round_trip = watch::Sender::new(None);
    let parts = Parts {
        bus,
        config: hda::config_space(),
        hda: hda::Config { speakers: Speakers::Surround71, ..hda::Config::default() },
        reports: heard,
        jacks: jacks.subscribe(),
        round_trip: round_trip.subscribe(),
        codec,
        session: Mouth(said).start().recipient(),
        tether: Box::new(()),
    };
    let _actor = HdaCtrl::new(parts)?.start();
    // The pump is on this thread, as the session of a VM is.
    actix::spawn(pump(link, Role::Host, saying, move |lane, bytes, trip| {
        round_trip.send_replace(trip);
        if let Ok(ToHost::Audio(report)) = ToHost::decode(lane, bytes) {
            let _ = reports.send(report);
        }
    }));

    let access = |step: Step| {
        let (done, answer) = oneshot::channel();
        let step = Access(move |function: &mut dyn Function| {
            step(function);
            let _ = done.send(());
        });
        let _ = accesses.send(Box::new(step));
        answer
    };
    let memory = Rc::clone(&ram);
    access(Box::new(move |function| {
        function.write(Region::Config, 4, &6u16.to_le_bytes());
        play(Machine(function, memory), streams, records).expect("a guest that plays");
    }))
    .await
    .context("the controller")?;

    let passed = Rc::new(std::cell::RefCell::new(Passed::default()));
    while !stop.load(Relaxed) {
        let (memory, passed) = (Rc::clone(&ram), Rc::clone(&passed));
        access(Box::new(move |function| {
            look(&mut Machine(function, memory), records, &mut passed.borrow_mut())
        }))
        .await
        .context("the controller")?;
        tokio::time::sleep(if looks { LOOK } else { SELDOM }).await;
    }
    Ok(passed.take())
}

/// Something that a guest does to its function.
type Step = Box<dyn FnOnce(&mut dyn Function)>;

/// What a guest does: starts its driver, and lets rings run.
fn play(machine: Machine<'_>, streams: u8, records: bool) -> Result<(), hda::driver::Error> {
    let sound = |stream: u8| (1 << 20) + u64::from(stream) * (1 << 20);
    let mut driver = Driver::start(machine, 0)?;
    let first = driver.output(0);
    for number in 0..streams {
        // Each stream has a pair of the eight speakers.
        let speaker = driver.endpoint(Kind::Speaker, number)?;
        let (stream, tag) = (first + number, 1 + number);
        driver.connect(speaker.converter, tag, FORMAT)?;
        let noise: Vec<u8> = (0..RING).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 >> 3).collect();
        driver.host().memory().write(sound(stream), &noise)?;
        let ring = [Buffer { address: sound(stream), length: RING, interrupt: false }];
        driver.set_up(stream, tag, FORMAT, &ring, RING)?;
    }
    (0..streams).for_each(|number| driver.run(first + number, true));
    if records {
        let microphone = driver.microphone()?;
        driver.connect(microphone.converter, 9, FORMAT)?;
        driver.set_up(0, 9, FORMAT, &[Buffer { address: sound(0), length: RING, interrupt: false }], RING)?;
        driver.run(0, true);
    }
    Ok(())
}

/// LPIB of a stream. HDA 1.0a §3.3.36.
fn position(machine: &mut Machine<'_>, stream: u64) -> u32 {
    machine.read(0x84 + 0x20 * stream, Width::Dword) as u32
}

fn look(machine: &mut Machine<'_>, records: bool, passed: &mut Passed) {
    let at = u64::from(position(machine, 4) / 4);
    let before = passed.played.last().map_or(0, |(_, frames)| *frames);
    let lap = u64::from(RING / 4);
    let frames = before - before % lap + at;
    passed.played.push((Instant::now(), if frames < before { frames + lap } else { frames }));
    if records {
        let at = position(machine, 0);
        let mut frame = [0; 4];
        let last = (at + RING - 4) % RING;
        if machine.1.read((1 << 20) + u64::from(last), &mut frame).is_ok() {
            passed.recorded.push((Instant::now(), u32::from_le_bytes(frame)));
        }
    }
}

/// The way to this end's messages.
pub(crate) fn said(message: audio::ToHost) -> wire::Message {
    ToHost::Audio(message).encode()
}
