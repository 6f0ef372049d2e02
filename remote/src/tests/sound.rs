//! Sound between a host that plays and the host that hears how far it came.

use std::{path::Path, time::Duration};

use ::sound::choice::Wish;
use actix::prelude::*;
use tokio::{sync::mpsc, time::Instant};
use wire::audio::{Block, Codec, Coded, Encoding, Format, StreamId, ToHost, ToRemote};

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

/// Frames as they are.
fn packet(stream: u8, run: u32, position: u64, pcm: &[u8]) -> ToRemote {
    let (frames, payload) = ((pcm.len() / 4) as u16, pcm.to_vec().into());
    let block = Block { position, frames, codec: Codec::Pcm, payload };
    let (again, copies) = (false, Vec::new());
    ToRemote::PlayCoded(Coded { stream: StreamId(stream), run, again, format: FORMAT, block, copies })
}

impl World {
    fn new() -> Self {
        Self::with(|folder| Audio::Wav(folder.join("x.wav")))
    }

    fn with(audio: impl FnOnce(&Path) -> Audio) -> Self {
        tokio::time::pause();
        let folder = tempfile::tempdir().unwrap();
        let (host, reports) = probe();
        let output = Output::new(audio(folder.path())).unwrap();
        let sound = {
            let (input, headphones) = (Input::new(Audio::None).unwrap(), Headphones::No);
            let (events, host) = (Events(cli::Format::Json), host.recipient());
            let codec = Wish::Auto;
            Sound::new(Parts { output, input, headphones, codec, events, host }).start()
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
            self.hear(packet(stream, run, position, pcm)).await;
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
async fn every_frame_is_written_and_its_reception_is_reported_ten_times_a_second() {
    let mut world = World::new();
    let sent = pcm(48_000, 1);
    world.play(1, 1, 0, &sent).await;
    world.pause(1, 1, 48_000).await;
    assert!(world.file("x.wav") == sent);
    let mut reports = Vec::new();
    while let Ok(Report(ToHost::Reception(reception))) = world.reports.try_recv() {
        assert_eq!((reception.stream, reception.run, reception.loss), (StreamId(1), 1, 0));
        reports.push((reception.at, reception.position));
    }
    assert!((9..=12).contains(&reports.len()), "{}", reports.len());
    assert!(reports.windows(2).all(|pair| pair[0] < pair[1]), "{reports:?}");
    let counts = world.end().await;
    assert_eq!((counts.frames, counts.gaps, counts.skipped, counts.underruns), (48_000, 0, 0, 0));
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
    let counts = world.end().await;
    assert_eq!((counts.frames, counts.gaps, counts.underruns), (14_400, 0, 0));
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
async fn frames_that_never_came_are_made_up_counted_and_asked_for() {
    let mut world = World::new();
    let sent = pcm(9_600, 6);
    world.sound.send(Heard::RoundTrip(Duration::from_millis(2))).await.unwrap();
    world.play(1, 1, 0, &sent[..4 * 4_800]).await;
    world.play(1, 1, 5_040, &sent[4 * 5_040..]).await;
    world.pause(1, 1, 10_000).await;
    let heard = world.file("x.wav");
    assert!(heard[..4 * 4_800] == sent[..4 * 4_800] && heard.len() == sent.len());
    let asked =
        std::iter::from_fn(|| world.reports.try_recv().ok()).find_map(|Report(report)| match report {
            ToHost::Missing(missing) => Some(missing.gaps),
            _ => None,
        });
    assert_eq!(asked, Some(vec![(4_800, 240)]));
    let counts = world.end().await;
    assert_eq!((counts.gaps, counts.concealed), (240 + 400, 240));
}

/// Nothing comes for so long, then all of it at once.
async fn stalled(stall: u32) -> Counts {
    let world = World::new();
    let sent = pcm(48_000, stall);
    world.play(1, 1, 0, &sent[..4 * 24_000]).await;
    tokio::time::sleep(Duration::from_millis(stall.into())).await;
    for (n, pcm) in (0u64..).zip(sent[4 * 24_000..].chunks(4 * 240)) {
        world.hear(packet(1, 1, 24_000 + 240 * n, pcm)).await;
        if 5 * n >= u64::from(stall) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    world.pause(1, 1, 48_000).await;
    assert!(world.file("x.wav") == sent, "{stall} ms");
    let counts = world.end().await;
    assert!((counts.frames, counts.gaps) == (48_000, 0) && counts.underruns > 0, "{counts}");
    counts
}

#[actix::test]
async fn a_stall_of_the_network_is_waited_for_and_is_in_no_file() {
    let counts = stalled(120).await;
    assert!(counts.waited > 0 && counts.skipped == 0, "{counts}");
}

#[actix::test]
async fn what_a_card_would_have_skipped_after_a_long_stall_is_in_the_file() {
    let counts = stalled(600).await;
    assert!(counts.skipped > 0, "{counts}");
}

/// A minute to a card that is half a per mille slow, of which the host says after 20 s that it does not follow it, in this
/// run: the most that waited in the last ten seconds.
async fn set_apart(run: u32) -> Duration {
    let mut world = World::with(|_| Audio::Test("ppm=-500".parse().unwrap()));
    let silence = vec![0x11; 4 * 240];
    let start = Instant::now();
    for n in 0..12_000u32 {
        tokio::time::sleep_until(start + Duration::from_millis(5) * n).await;
        world.hear(packet(1, 7, 240 * u64::from(n), &silence)).await;
        if n == 4_000 {
            world.hear(ToRemote::Apart { stream: StreamId(1), run }).await;
        }
    }
    let mut levels = Vec::new();
    while let Ok(Report(report)) = world.reports.try_recv() {
        if let ToHost::Reception(reception) = report {
            levels.push(reception.level);
        }
    }
    assert!(levels.len() > 590, "{} reports", levels.len());
    levels.split_off(500).into_iter().max().unwrap()
}

#[actix::test]
async fn a_stream_that_the_host_sets_apart_keeps_its_latency_by_itself() {
    let most = set_apart(7).await;
    assert!(most < Duration::from_millis(20), "{most:?}");
}

#[actix::test]
async fn what_the_host_says_of_another_run_does_not_count() {
    let most = set_apart(6).await;
    assert!(most > Duration::from_millis(30), "{most:?}");
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
    assert_eq!(world.end().await.frames, 9_600, "its clock goes on all the same");
}
