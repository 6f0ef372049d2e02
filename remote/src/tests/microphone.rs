//! The microphone between this computer and a host that listens, or does not.

use std::{path::PathBuf, time::Duration};

use ::sound::choice::Wish;
use actix::prelude::*;
use tokio::sync::mpsc;
use wire::audio::{Coded, Encoding, Format, Jack, StreamId, ToHost, ToRemote};

use super::world::probe;
use crate::{
    cli::{self, Audio},
    events::Events,
    sound::{Ask, Headphones, Heard, Input, Output, Parts, Report, Sound, status::Status},
};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

struct World {
    sound: Addr<Sound>,
    reports: mpsc::UnboundedReceiver<Report>,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(input: &str) -> Self {
        tokio::time::pause();
        let folder = tempfile::tempdir().unwrap();
        write_wav(&folder.path().join("x.wav"), &pcm(96_000));
        let input = input.replace("x.wav", &folder.path().join("x.wav").to_string_lossy());
        let (host, reports) = probe();
        let sound = Sound::new(Parts {
            output: Output::new(Audio::None).unwrap(),
            input: Input::new(input.parse().unwrap()).unwrap(),
            headphones: Headphones::Auto,
            codec: Wish::Auto,
            events: Events(cli::Format::Json),
            host: host.recipient(),
        });
        let world = Self { sound: sound.start(), reports, folder };
        world.pass(100).await;
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("x.wav")
    }

    async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn record(&self, stream: u8, run: u32, format: Format) {
        let record = ToRemote::Record { stream: StreamId(stream), run, format };
        self.sound.send(Heard::Audio(record)).await.unwrap();
    }

    async fn stop(&self, stream: u8, run: u32) {
        let stop = ToRemote::StopRecord { stream: StreamId(stream), run };
        self.sound.send(Heard::Audio(stop)).await.unwrap();
    }

    async fn ask(&self, ask: Ask) -> Status {
        self.sound.send(ask).await.unwrap()
    }

    /// What was reported of jacks, and of the recording of a stream, since the last time.
    fn reported(&mut self, stream: u8) -> (Vec<(Jack, bool)>, Vec<Coded>) {
        let (mut jacks, mut packets) = (Vec::new(), Vec::new());
        while let Ok(Report(report)) = self.reports.try_recv() {
            match report {
                ToHost::Jack { jack, present } => jacks.push((jack, present)),
                ToHost::RecordedCoded(packet) if packet.stream == StreamId(stream) => packets.push(packet),
                ToHost::RecordedCoded(_) | ToHost::Reception(_) | ToHost::Missing(_) => {}
            }
        }
        (jacks, packets)
    }
}

fn pcm(frames: u32) -> Vec<u8> {
    (1..=frames).flat_map(|n| (n.wrapping_mul(2_654_435_761) | 1).to_le_bytes()).collect()
}

fn write_wav(path: &std::path::Path, pcm: &[u8]) {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for sample in pcm.as_chunks().0 {
        writer.write_sample(i16::from_le_bytes(*sample)).unwrap();
    }
    writer.finalize().unwrap();
}

/// The sound of packets that follow each other without a gap.
fn joined(packets: &[Coded]) -> Vec<u8> {
    let mut pcm = Vec::new();
    for packet in packets {
        let at = (pcm.len() / packet.format.frame_bytes() as usize) as u64;
        assert_eq!(packet.block.position - packets[0].block.position, at, "{packet:?}");
        pcm.extend_from_slice(&packet.block.payload);
    }
    pcm
}

#[actix::test]
async fn nothing_is_sent_unless_the_vm_listens() {
    let mut world = World::new("wav:x.wav").await;
    world.pass(1_000).await;
    let (jacks, packets) = world.reported(0);
    assert_eq!((jacks, packets), (vec![(Jack::Microphone, true)], vec![]));

    world.record(0, 7, FORMAT).await;
    world.pass(1_000).await;
    world.stop(0, 6).await;
    world.pass(100).await;
    world.stop(0, 7).await;
    let (_, packets) = world.reported(0);
    assert!(packets.iter().all(|packet| packet.run == 7 && packet.block.frames == 120));
    let frames = joined(&packets).len() / 4;
    assert!((52_000..=52_800).contains(&frames), "1.1 seconds: {frames} frames");
    world.pass(1_000).await;
    assert_eq!(world.reported(0).1, []);
}

#[actix::test]
async fn what_the_device_has_in_the_same_format_is_heard_bit_by_bit() {
    let mut world = World::new("wav:x.wav").await;
    world.record(0, 1, FORMAT).await;
    world.pass(2_500).await;
    let heard = joined(&world.reported(0).1);
    let sent = pcm(96_000);
    assert!(heard[..sent.len()] == sent && heard[sent.len()..].iter().all(|byte| *byte == 0));
}

#[actix::test]
async fn two_streams_hear_one_microphone_each_in_its_own_format() {
    let mut world = World::new("wav:x.wav").await;
    world.record(0, 1, FORMAT).await;
    world.record(1, 2, Format { rate: 16_000, encoding: Encoding::S32, channels: 1 }).await;
    world.pass(1_000).await;
    let status = world.ask(Ask::Status).await.microphone;
    assert_eq!((status.recordings.len(), status.device), (2, Some(FORMAT.into())));
    let (_, packets) = world.reported(1);
    let frames = joined(&packets).len() / 4;
    assert!((15_700..=16_000).contains(&frames), "{frames} frames of 16 kHz in a second");
}

#[actix::test]
async fn a_muted_microphone_is_closed_and_the_vm_does_not_know() {
    let mut world = World::new("wav:x.wav").await;
    world.record(0, 1, FORMAT).await;
    world.pass(500).await;
    let muted = world.ask(Ask::Mute(true)).await.microphone;
    assert_eq!((muted.muted, muted.device, muted.recordings.len()), (true, None, 1));
    let before = world.reported(0).1;
    world.pass(500).await;
    assert_eq!(world.reported(0), (vec![], vec![]));
    world.ask(Ask::Mute(false)).await;
    world.pass(500).await;
    let after = world.reported(0).1;
    assert!(!after.is_empty());
    joined(&[before, after].concat());
}

#[actix::test]
async fn without_a_link_nobody_listens_and_the_next_host_hears_of_full_jacks() {
    let mut world = World::new("test").await;
    world.record(0, 1, FORMAT).await;
    world.pass(100).await;
    world.sound.send(Heard::Silence).await.unwrap();
    world.reported(0);
    world.pass(500).await;
    assert_eq!(world.reported(0), (vec![], vec![]));
    world.sound.send(Heard::Linked).await.unwrap();
    world.pass(1).await;
    assert_eq!(world.reported(0), (vec![(Jack::Microphone, true)], vec![]));
}

#[actix::test]
async fn a_device_that_goes_is_an_empty_jack_and_is_heard_again_when_it_comes_back() {
    let mut world = World::new("wav:x.wav").await;
    world.record(0, 1, FORMAT).await;
    world.pass(100).await;
    world.reported(0);
    std::fs::remove_file(world.file()).unwrap();
    world.pass(100).await;
    assert_eq!(world.reported(0).0, [(Jack::Microphone, false)]);
    write_wav(&world.file(), &pcm(96_000));
    world.pass(1_100).await;
    let (jacks, packets) = world.reported(0);
    assert_eq!(jacks, [(Jack::Microphone, true)]);
    assert!(!packets.is_empty(), "the recording that was not stopped goes on");
}

#[actix::test]
async fn what_is_no_sound_file_is_tried_again_and_is_an_error_to_nobody() {
    let mut world = World::new("wav:x.wav").await;
    std::fs::write(world.file(), "no sound").unwrap();
    world.record(0, 1, FORMAT).await;
    world.pass(500).await;
    assert_eq!(world.reported(0).1, []);
    write_wav(&world.file(), &pcm(96_000));
    world.pass(1_100).await;
    assert!(!world.reported(0).1.is_empty());
}

#[actix::test]
async fn a_microphone_that_is_not_granted_does_not_exist() {
    let mut world = World::new("none").await;
    world.record(0, 1, FORMAT).await;
    world.pass(2_000).await;
    assert_eq!(world.reported(0), (vec![], vec![]));
    assert!(!world.ask(Ask::Status).await.microphone.granted);
}

#[actix::test]
async fn headphones_are_plugged_in_when_the_user_says_so() {
    let mut world = World::new("none").await;
    for (says, finds) in [(Headphones::Yes, true), (Headphones::Yes, true), (Headphones::No, false)] {
        assert_eq!(world.ask(Ask::Headphones(says)).await.headphones, finds);
    }
    world.pass(1).await;
    assert_eq!(world.reported(0).0, [(Jack::Headphone, true), (Jack::Headphone, false)]);
}

#[actix::test]
async fn a_test_card_with_faults_loses_no_frame_and_runs_at_its_own_speed() {
    let mut world = World::new("test:ppm=1000,jitter=30").await;
    world.record(0, 1, FORMAT).await;
    world.pass(100_000).await;
    let heard = joined(&world.reported(0).1);
    let frames = heard.as_chunks::<4>().0;
    assert!((4_801_000..=4_804_800).contains(&frames.len()), "{} frames", frames.len());
    let ramp = |n: usize| [(n as u16).to_le_bytes(); 2].concat();
    assert!(frames.iter().enumerate().all(|(n, frame)| frame[..] == ramp(n)));
}
