//! A sound card that is a piece of software: it takes frames at its own pace, like one, and perhaps writes them into a
//! WAV file: every frame it was given, in order and nothing else. What a card would have skipped or filled with
//! silence is only counted.

use std::time::Duration;

use anyhow::Result;
use wire::audio::Format;

use super::{Progress, Sink, jitter::Jitter, pace::Pace, wav::Tape};

/// The sink of one run.
pub(super) struct Paced {
    format: Format,
    pace: Pace,
    tape: Option<Tape>,
    jitter: Jitter,
    /// When the sound card started, and the frames it has wanted since.
    started: Option<(Duration, u64)>,
    played: u64,
    skipped: u64,
}

impl Paced {
    pub(super) fn new(format: Format, pace: Pace, tape: Option<Tape>) -> Self {
        let jitter = Jitter::new(format);
        Self { format, pace, tape, jitter, started: None, played: 0, skipped: 0 }
    }

    fn play(&mut self, pcm: &[u8]) -> Result<u64> {
        self.tape.as_mut().map_or(Ok(()), |tape| tape.write(pcm))?;
        let frames = pcm.len() as u64 / u64::from(self.format.frame_bytes());
        self.played += frames;
        Ok(frames)
    }
}

impl Sink for Paced {
    fn push(&mut self, now: Duration, pcm: &[u8]) -> Result<()> {
        // The card's time passes before the frames arrive: what it wanted by now it takes from what waited.
        self.tick(now)?;
        self.jitter.push(pcm);
        let excess = self.jitter.excess();
        self.skipped += self.play(&excess)?;
        Ok(())
    }

    fn drain(&mut self) {
        self.jitter.drain();
    }

    fn tick(&mut self, now: Duration) -> Result<Progress> {
        let (started, wanted) = self.started.unwrap_or((now, 0));
        let due = self.pace.frames(self.format.rate, now.saturating_sub(started));
        // The first look only finds out whether there is enough to start with.
        let frames = if self.started.is_none() { 1 } else { due.saturating_sub(wanted) };
        let pcm = self.jitter.pull(usize::try_from(frames).unwrap_or(usize::MAX));
        let taken = self.play(&pcm)?;
        // If it ran dry, or has not begun, the card starts again with the next frames.
        self.started = (taken == frames).then_some((started, wanted + frames));
        let (played, queued) = (self.played, self.jitter.queued());
        Ok(Progress { played, queued, underruns: self.jitter.underruns, skipped: self.skipped })
    }

    fn settle(&mut self) -> Result<()> {
        self.tape.as_mut().map_or(Ok(()), Tape::settle)
    }

    fn file(&self) -> Option<String> {
        self.tape.as_ref().map(Tape::file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use wire::audio::Encoding;

    use super::*;

    const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

    fn pcm(frames: usize) -> Vec<u8> {
        (0..frames).flat_map(|n| ((n as u32) * 7).to_le_bytes()).collect()
    }

    fn samples(path: &Path) -> Vec<u8> {
        let mut reader = hound::WavReader::open(path).unwrap();
        reader.samples::<i16>().flat_map(|s| s.unwrap().to_le_bytes()).collect()
    }

    fn sink() -> (tempfile::TempDir, PathBuf, Paced) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let sink = Paced::new(FORMAT, Pace::default(), Some(Tape::create(path.clone(), FORMAT).unwrap()));
        (folder, path, sink)
    }

    #[test]
    fn every_frame_is_written_once_and_in_order_for_any_arrival_in_time() {
        let (_folder, path, mut sink) = sink();
        let sent = pcm(48_000);
        let mut now = Duration::ZERO;
        for (n, packet) in sent.chunks(4 * 240).enumerate() {
            now = Duration::from_millis(5 * n as u64 + [0, 3, 1, 4][n % 4]);
            sink.push(now, packet).unwrap();
        }
        sink.drain();
        let mut progress = Progress { queued: 1, ..Progress::default() };
        while progress.queued > 0 {
            now += Duration::from_millis(5);
            progress = sink.tick(now).unwrap();
        }
        sink.settle().unwrap();
        assert_eq!(progress, Progress { played: 48_000, queued: 0, underruns: 0, skipped: 0 });
        assert!(samples(&path) == sent);
    }

    #[test]
    fn a_burst_loses_no_frame_and_waits_no_longer_than_a_card_would_let_it() {
        let (_folder, path, mut sink) = sink();
        let sent = pcm(24_000);
        // Nothing for half a second, then all of it at once.
        for packet in sent.chunks(4 * 240) {
            sink.push(Duration::from_millis(500), packet).unwrap();
        }
        let progress = sink.tick(Duration::from_millis(500)).unwrap();
        assert!(progress.queued <= 48 * 150 && progress.skipped > 0, "{progress:?}");
        sink.drain();
        let progress = sink.tick(Duration::from_secs(9)).unwrap();
        sink.settle().unwrap();
        assert_eq!((progress.played, progress.queued), (24_000, 0));
        assert!(samples(&path) == sent);
    }

    #[test]
    fn silence_between_frames_is_counted_and_not_written() {
        let (_folder, path, mut sink) = sink();
        let sent = pcm(4800);
        let mut progress = Progress::default();
        for (half, start) in sent.chunks(4 * 2400).zip([0, 500]) {
            sink.push(Duration::from_millis(start), half).unwrap();
            sink.tick(Duration::from_millis(start)).unwrap();
            progress = sink.tick(Duration::from_millis(start + 60)).unwrap();
        }
        sink.settle().unwrap();
        assert_eq!((progress.played, progress.underruns), (4800, 2), "both halves were played to their end");
        assert!(samples(&path) == sent);
    }

    #[test]
    fn it_is_paced_like_a_sound_card() {
        let (_folder, _, mut sink) = sink();
        sink.push(Duration::ZERO, &pcm(4800)).unwrap();
        sink.tick(Duration::ZERO).unwrap();
        let progress = sink.tick(Duration::from_millis(50)).unwrap();
        assert_eq!((progress.played, progress.queued), (2400, 2400));
    }

    #[test]
    fn what_was_settled_is_a_complete_file_and_goes_on_afterwards() {
        let (_folder, path, mut sink) = sink();
        let sent = pcm(2000);
        for (n, half) in sent.chunks(4000).enumerate() {
            sink.push(Duration::from_secs(n as u64), half).unwrap();
            sink.drain();
            sink.tick(Duration::from_secs(n as u64)).unwrap();
            sink.tick(Duration::from_secs(n as u64 + 1)).unwrap();
            sink.settle().unwrap();
            assert!(samples(&path) == sent[..4000 * (n + 1)]);
        }
    }

    #[test]
    fn a_test_card_plays_at_the_speed_that_was_set() {
        let pace = Pace { millionths: 500_000, ..Pace::default() };
        let mut sink = Paced::new(FORMAT, pace, None);
        sink.push(Duration::ZERO, &pcm(4800)).unwrap();
        sink.tick(Duration::ZERO).unwrap();
        let progress = sink.tick(Duration::from_millis(50)).unwrap();
        assert_eq!((progress.played, progress.queued), (1200, 3600));
    }
}
