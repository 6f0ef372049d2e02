//! The way from a remote's microphone into the guest's memory, and what becomes of it when either end goes.

use std::{cell::Cell, time::Duration};

use crate::{
    remote::Remote,
    world::{Guest, World, until},
};
use hda::driver::{Buffer, Driver};
use pci::{Dma, Function, Region, Width};
use tokio::time::{self, Instant};
use wire::{
    ToHost, ToRemote,
    audio::{self, Block, Codec, Coded, Encoding, Format, Jack, StreamId},
};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const TAG: u8 = 3;
const SOUND: u64 = 0x8_0000;
const RING: u32 = 0x4000;
/// HDA 1.0a §3.3.37: where in the ring the first input stream is.
const SD0LPIB: u64 = 0x84;

/// The function and memory as the driver wants them.
struct Machine<'a>(&'a mut dyn Function, &'a dyn Dma);

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
        self.1
    }
}

/// The guest starts its driver, and records.
async fn record(guest: &Guest) {
    guest.enable().await;
    let memory = guest.memory.clone();
    let access = guest.access(move |function| {
        let mut driver = Driver::start(Machine(function, &*memory), 0).expect("a controller");
        let microphone = driver.microphone().expect("a microphone");
        driver.connect(microphone.converter, TAG, FORMAT).expect("a converter");
        let buffers = [Buffer { address: SOUND, length: RING, interrupt: true }];
        driver.set_up(0, TAG, FORMAT, &buffers, RING).expect("a stream");
        driver.run(0, true);
    });
    access.await.expect("a live controller");
}

async fn plug(remote: &mut Remote, present: bool) {
    remote.say(ToHost::Audio(audio::ToHost::Jack { jack: Jack::Microphone, present })).await;
}

fn asked(run: u32) -> ToRemote {
    ToRemote::Audio(audio::ToRemote::Record { stream: StreamId(0), run, format: FORMAT })
}

/// Frames of the first recording.
fn recorded(position: u64, pcm: &[u8]) -> ToHost {
    let (frames, payload) = ((pcm.len() / 4) as u16, pcm.to_vec().into());
    let block = Block { position, frames, codec: Codec::Pcm, payload };
    let (stream, run, again, copies) = (StreamId(0), 1, false, Vec::new());
    ToHost::Audio(audio::ToHost::RecordedCoded(Coded { stream, run, again, format: FORMAT, block, copies }))
}

fn stop(run: u32) -> ToRemote {
    ToRemote::Audio(audio::ToRemote::StopRecord { stream: StreamId(0), run })
}

#[actix::test]
async fn what_a_remote_records_is_what_the_guest_hears() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1));

    let pcm: Vec<u8> = (0..960u32).map(|n| (n % 251) as u8 + 1).collect();
    remote.say(recorded(0, &pcm)).await;
    time::sleep(Duration::from_millis(60)).await;
    let mut heard = vec![0; RING as usize];
    world.hda.memory.read(SOUND, &mut heard).unwrap();
    let begin = heard.iter().position(|byte| *byte != 0).expect("sound");
    assert_eq!(heard[begin..begin + pcm.len()], pcm);
}

#[actix::test]
async fn a_remote_that_comes_while_the_guest_records_is_asked_for_its_microphone() {
    time::pause();
    let world = World::new();
    record(&world.hda).await;
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    assert_eq!(remote.hear().await, asked(1));

    // It comes again before its absence is worth telling the guest, and is a new one all the same.
    drop(remote);
    time::sleep(Duration::from_millis(20)).await;
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    assert_eq!(remote.hear().await, asked(2));
}

#[actix::test]
async fn without_a_link_both_jacks_are_empty() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1));
    remote.leave().await;
    time::sleep(Duration::from_millis(200)).await;

    // Whoever comes next and says nothing of a microphone is not asked for one.
    let mut remote = world.remote().await;
    assert!(time::timeout(Duration::from_secs(1), remote.hear()).await.is_err());
    plug(&mut remote, true).await;
    assert_eq!(remote.hear().await, asked(2));
}

#[actix::test]
async fn while_there_is_no_link_the_microphone_is_silent_and_the_recording_runs_on() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1));
    let begin = Instant::now();
    // 10 ms, and no sample of them is silence.
    let pcm: Vec<u8> = (0..1920u32).map(|n| (n % 251) as u8 + 1).collect();
    let heard = || {
        let mut heard = vec![0; RING as usize];
        world.hda.memory.read(SOUND, &mut heard).unwrap();
        heard
    };
    let position = async || world.hda.read(SD0LPIB).await.expect("a live controller");
    remote.say(recorded(0, &pcm)).await;
    until(begin + Duration::from_millis(60)).await;
    assert!(heard().windows(pcm.len()).any(|window| window == pcm), "before the link breaks");

    remote.cut();
    world.hda.memory.write(SOUND, &[0x55; RING as usize]).unwrap();
    let before = position().await;
    // The guest's ring is 85 ms, of 192 bytes each.
    until(Instant::now() + Duration::from_millis(200)).await;
    let moved = (RING + position().await - before) % RING;
    assert!(moved.abs_diff(200 * 192 % RING) <= 2 * 192, "{moved} bytes further than twice around");
    assert!(heard().iter().all(|byte| *byte == 0), "what was not recorded is silence");

    remote.join(&world).await;
    // The microphone's own count has run on as well.
    let position = begin.elapsed().as_millis() as u64 * 48;
    for packet in 0..20 {
        remote.say(recorded(position + 480 * packet, &pcm)).await;
        until(Instant::now() + Duration::from_millis(10)).await;
    }
    assert!(heard().windows(pcm.len()).any(|window| window == pcm), "when it is back");
}

#[actix::test]
async fn when_the_controllers_actor_dies_recording_stops_and_the_next_one_knows_the_jacks() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1));
    assert!(world.hda.access(|_| panic!("crash injection")).await.is_none());
    assert_eq!(remote.hear().await, stop(1));
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1), "the microphone was not plugged in again");
}

/// A guest's reads are answered while the remote says one thing after another: all of them before it has said everything.
async fn reads_go_on_beside(world: &World, mut flood: impl AsyncFnMut(u64)) {
    const READS: u64 = 50;
    const FLOOD: u64 = 100 * READS;
    let (said, read) = (Cell::new(0), Cell::new(false));
    let flooding = async {
        while said.get() < FLOOD && !read.get() {
            flood(said.get()).await;
            said.set(said.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    // HDA 1.0a §3.3.7: GCTL.
    let reading = async {
        for _ in 0..READS {
            assert!(world.hda.read(0x08).await.is_some(), "a live controller");
            tokio::task::yield_now().await;
        }
        read.set(true);
    };
    tokio::join!(flooding, reading);
    assert!(
        (READS..FLOOD).contains(&said.get()),
        "{READS} reads were answered beside {} messages",
        said.get()
    );
}

#[actix::test]
async fn a_remote_that_floods_sound_does_not_keep_the_guest_waiting() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    plug(&mut remote, true).await;
    record(&world.hda).await;
    assert_eq!(remote.hear().await, asked(1));
    reads_go_on_beside(&world, async |n| {
        remote.say(recorded(240 * n, &[1; 960])).await;
    })
    .await;
}

#[actix::test]
async fn a_remote_that_floods_plugs_does_not_keep_the_guest_waiting() {
    time::pause();
    let world = World::new();
    let mut remote = world.remote().await;
    record(&world.hda).await;
    reads_go_on_beside(&world, async |n| plug(&mut remote, n % 2 == 0).await).await;
}
