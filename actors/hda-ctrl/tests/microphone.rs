//! The actor between a guest that records and a remote with a microphone, in virtual time.

mod common;

use std::time::Duration;

use common::{RING, SOUND, World};
use hda_ctrl::RemoteCame;
use pci::Dma;
use tokio::time;
use wire::audio::{Block, Codec, Coded, Encoding, Format, Jack, StreamId, ToHost, ToRemote};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

/// The microphone hears something.
fn hear(world: &World, position: u64, pcm: &[u8]) {
    let (frames, payload) = ((pcm.len() / 4) as u16, pcm.to_vec().into());
    let block = Block { position, frames, codec: Codec::Pcm, payload };
    let (stream, run, again, copies) = (StreamId(0), 1, false, Vec::new());
    let coded = Coded { stream, run, again, format: FORMAT, block, copies };
    world.reports.send(ToHost::RecordedCoded(coded)).expect("an actor");
}

/// What the guest has heard.
fn heard(world: &World) -> Vec<u8> {
    let mut heard = vec![0; RING as usize];
    world.memory.ram.read(SOUND, &mut heard).expect("memory");
    heard
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
    world.record(FORMAT).await;
    world.plug(Jack::Microphone, true).await;
    assert_eq!(world.asked().await, record(1));

    let pcm: Vec<u8> = (0..960u32).map(|n| (n % 251) as u8 + 1).collect();
    hear(&world, 0, &pcm);
    time::sleep(Duration::from_millis(50)).await;
    let heard = heard(&world);
    let begin = heard.iter().position(|byte| *byte != 0).expect("sound");
    assert_eq!(heard[begin..begin + pcm.len()], pcm);

    world.plug(Jack::Microphone, false).await;
    assert_eq!(world.asked().await, stop(1));
}

#[actix::test]
async fn a_remote_that_comes_later_is_asked_anew() {
    let mut world = World::new();
    world.plug(Jack::Microphone, true).await;
    world.record(FORMAT).await;
    assert_eq!(world.asked().await, record(1));
    world.hda.send(RemoteCame).await.unwrap();
    assert_eq!(world.asked().await, record(2));
}

#[actix::test]
async fn when_the_model_dies_the_microphone_is_closed_and_what_is_plugged_in_stays_so() {
    let mut world = World::new();
    world.plug(Jack::Microphone, true).await;
    world.record(FORMAT).await;
    assert_eq!(world.asked().await, record(1));
    world.memory.broken.set(true);
    time::sleep(Duration::from_millis(20)).await;
    world.memory.broken.set(false);
    assert_eq!(world.asked().await, stop(1));

    time::sleep(Duration::from_millis(500)).await;
    world.record(FORMAT).await;
    assert_eq!(world.asked().await, record(1));
}

#[actix::test]
async fn of_more_than_can_wait_the_latest_is_heard_and_the_guest_is_not_kept_waiting() {
    let mut world = World::new();
    world.record(FORMAT).await;
    world.plug(Jack::Microphone, true).await;
    assert_eq!(world.asked().await, record(1));
    // All at once: the actor has no chance to take any of it in between.
    for n in 0..100u8 {
        hear(&world, u64::from(n) * 48, &[n + 1; 48 * 4]);
    }
    // What was lost leaves a hole as long as it was.
    time::sleep(Duration::from_millis(120)).await;
    let mut heard = heard(&world);
    heard.retain(|byte| *byte != 0);
    heard.dedup();
    assert_eq!(heard, [97, 98, 99, 100], "the channel of this test holds four");
}

#[actix::test]
async fn a_storm_of_plugs_is_its_last_word() {
    let mut world = World::new();
    world.record(FORMAT).await;
    for n in 0..1_001u32 {
        world.jacks.send_if_modified(|jacks| jacks.set(Jack::Microphone, n % 2 == 0));
    }
    assert_eq!(world.asked().await, record(1));
    let more = time::timeout(Duration::from_secs(1), world.remote.recv()).await;
    assert!(more.is_err(), "{more:?}");
}
