//! Sound between a host that plays and the host that hears how far it came.

use std::{path::Path, time::Duration};

use actix::prelude::*;
use tokio::{sync::mpsc, time::Instant};
use wire::audio::{Encoding, Format, Packet, StreamId, ToHost, ToRemote};

use super::world::probe;
use crate::{
    cli::{self, Audio},
    events::{Counts, Events},
    sound::{End, Headphones, Heard, Input, Output, Parts, Report, Sound},
};

const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

struct World {
    sound: Addr<Sound>,
    reports: mpsc::UnboundedReceiver<Report>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        tokio::time::pause();
        let folder = tempfile::tempdir().unwrap();
        let (host, reports) = probe();
        let output = Output::new(Audio::Wav(folder.path().join("x.wav"))).unwrap();
        let sound = {
            let (input, headphones) = (Input::new(Audio::None).unwrap(), Headphones::No);
            let (events, host) = (Events(cli::Format::Json), host.recipient());
            Sound::new(Parts { output, input, headphones, events, host }).start()
        };
        Self { sound, reports, folder }
    }

    async fn hear(&self, what: ToRemote) {
        self.sound.send(Heard::Audio(what)).await.unwrap();
    }

    /// Plays frames from a position on, five milliseconds at a time, as they become due.
    async fn play(&self, stream: u8, run: u32, from: u64, frames: &[u8]) {
        let start = Instant::now();
        for (n, pcm) in frames.chunks(4 * 240).enumerate() {
            tokio::time::sleep_until(start + Duration::from_millis(5 * n as u64)).await;
            let position = from + 240 * n as u64;
            let (stream, pcm) = (StreamId(stream), pcm.to_vec().into());
            self.hear(ToRemote::Play(Packet { stream, run, position, format: FORMAT, pcm })).await;
        }
    }

    async fn pause(&self, stream: u8, run: u32, position: u64) {
        self.hear(ToRemote::Pause { stream: StreamId(stream), run, position }).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn file(&self, name: &str) -> Vec<u8> {
        read(&self.folder.path().join(name))
    }

    async fn end(self) -> Counts {
        self.sound.send(End).await.unwrap().sound
    }
}

fn read(path: &Path) -> Vec<u8> {
    let mut reader = hound::WavReader::open(path).unwrap();
    reader.samples::<i16>().flat_map(|sample| sample.unwrap().to_le_bytes()).collect()
}

fn pcm(frames: u32, seed: u32) -> Vec<u8> {
    (0..frames).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()).collect()
}

#[actix::test]
async fn every_frame_is_written_and_its_playing_is_reported_ten_times_a_second() {
    let mut world = World::new();
    let sent = pcm(48_000, 1);
    let start = Instant::now();
    world.play(1, 1, 0, &sent).await;
    world.pause(1, 1, 48_000).await;
    assert!(world.file("x.wav") == sent);
    let mut reports = Vec::new();
    while let Ok(Report(ToHost::Played { stream, run, position, queued })) = world.reports.try_recv() {
        assert_eq!((stream, run), (StreamId(1), 1));
        reports.push((position, queued));
    }
    assert!((9..=14).contains(&reports.len()), "{} in {:?}", reports.len(), start.elapsed());
    assert!(reports.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{reports:?}");
    assert_eq!(reports.last(), Some(&(48_000, 0)));
    let counts = world.end().await;
    assert_eq!(counts, Counts { frames: 48_000, ..Counts::default() });
}

#[actix::test]
async fn a_run_goes_on_in_its_file_after_a_pause_and_another_run_has_another() {
    let world = World::new();
    let sent = pcm(9_600, 2);
    world.play(1, 1, 0, &sent[..4 * 4_800]).await;
    world.pause(1, 1, 4_800).await;
    assert!(world.file("x.wav") == sent[..4 * 4_800], "complete while it is paused");
    world.play(1, 1, 4_800, &sent[4 * 4_800..]).await;
    world.pause(1, 1, 9_600).await;
    let other = pcm(4_800, 3);
    world.play(1, 2, 0, &other).await;
    world.pause(1, 2, 4_800).await;
    assert!(world.file("x.wav") == sent && world.file("x-2.wav") == other);
    assert_eq!(world.end().await, Counts { frames: 14_400, ..Counts::default() });
}

#[actix::test]
async fn two_streams_play_beside_each_other() {
    let world = World::new();
    let (one, two) = (pcm(9_600, 4), pcm(9_600, 5));
    tokio::join!(world.play(1, 1, 0, &one), world.play(2, 1, 0, &two));
    world.pause(1, 1, 9_600).await;
    world.pause(2, 1, 9_600).await;
    let heard = [world.file("x.wav"), world.file("x-2.wav")];
    assert!(heard.contains(&one) && heard.contains(&two), "whichever was first has the first file");
}

#[actix::test]
async fn frames_that_never_came_are_counted_and_late_ones_not_played() {
    let mut world = World::new();
    let sent = pcm(4_800, 6);
    world.play(1, 1, 0, &sent[..4 * 2_400]).await;
    world.play(1, 1, 3_600, &sent[4 * 3_600..]).await;
    world.play(1, 1, 2_400, &sent[4 * 2_400..4 * 2_640]).await;
    world.pause(1, 1, 5_000).await;
    let heard = [&sent[..4 * 2_400], &sent[4 * 3_600..]].concat();
    assert!(world.file("x.wav") == heard);
    let last = std::iter::from_fn(|| world.reports.try_recv().ok()).last().unwrap();
    assert!(matches!(last.0, ToHost::Played { position: 5_000, queued: 0, .. }), "{last:?}");
    assert_eq!(world.end().await.gaps, 1_200 + 200);
}

#[actix::test]
async fn a_stream_whose_pause_was_lost_ends_by_itself() {
    let world = World::new();
    let sent = pcm(4_800, 7);
    world.play(1, 1, 0, &sent).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.file("x.wav") == sent);
}

#[actix::test]
async fn the_end_completes_files_that_still_play() {
    let world = World::new();
    let sent = pcm(48_000, 8);
    world.play(1, 1, 0, &sent).await;
    let path = world.folder.path().join("x.wav");
    let keep = world.folder.path().join("kept.wav");
    world.sound.send(End).await.unwrap();
    std::fs::rename(path, &keep).unwrap();
    let written = read(&keep);
    assert!(sent.starts_with(&written) && written.len() > sent.len() / 2, "{} bytes", written.len());
}

#[actix::test]
async fn a_sink_that_fails_is_tried_again_with_the_next_run() {
    let world = World::new();
    std::fs::create_dir(world.folder.path().join("x.wav")).unwrap();
    world.play(1, 1, 0, &pcm(4_800, 9)).await;
    world.pause(1, 1, 4_800).await;
    let sent = pcm(4_800, 10);
    world.play(1, 2, 0, &sent).await;
    world.pause(1, 2, 4_800).await;
    assert!(world.file("x-2.wav") == sent);
    assert_eq!(world.end().await.frames, 9_600, "received all the same");
}
