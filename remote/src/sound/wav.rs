//! A WAV file for a sound card: it takes frames at the format's rate, like one, and writes down every frame it was given,
//! in order and nothing else: what a card would have skipped or filled with silence is only counted.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hound::{SampleFormat, WavSpec, WavWriter};
use wire::audio::{Encoding, Format};

use super::{Progress, Sink, jitter::Jitter};

/// The sink of one run.
pub(super) struct WavFile {
    path: PathBuf,
    format: Format,
    writer: WavWriter<BufWriter<File>>,
    jitter: Jitter,
    /// When the sound card started, and the frames it has wanted since.
    started: Option<(Duration, u64)>,
    played: u64,
    skipped: u64,
}

/// The file of the `number`th run: the second of `x.wav` is `x-2.wav`.
pub(super) fn path(path: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(String::new, |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

impl WavFile {
    pub(super) fn create(path: PathBuf, format: Format) -> Result<Self> {
        let spec = WavSpec {
            channels: format.channels.into(),
            sample_rate: format.rate,
            bits_per_sample: 8 * format.encoding.bytes() as u16,
            sample_format: SampleFormat::Int,
        };
        let writer =
            WavWriter::create(&path, spec).with_context(|| format!("creating {}", path.display()))?;
        let jitter = Jitter::new(format);
        Ok(Self { path, format, writer, jitter, started: None, played: 0, skipped: 0 })
    }

    fn write(&mut self, pcm: &[u8]) -> Result<u64> {
        write(&mut self.writer, self.format.encoding, pcm)
            .with_context(|| format!("writing {}", self.path.display()))?;
        let frames = pcm.len() as u64 / u64::from(self.format.frame_bytes());
        self.played += frames;
        Ok(frames)
    }
}

impl Sink for WavFile {
    fn push(&mut self, now: Duration, pcm: &[u8]) -> Result<()> {
        // The card's time passes before the frames arrive: what it wanted by now it takes from what waited.
        self.tick(now)?;
        self.jitter.push(pcm);
        let excess = self.jitter.excess();
        self.skipped += self.write(&excess)?;
        Ok(())
    }

    fn drain(&mut self) {
        self.jitter.drain();
    }

    fn tick(&mut self, now: Duration) -> Result<Progress> {
        let (started, wanted) = self.started.unwrap_or((now, 0));
        let due =
            (now.saturating_sub(started).as_nanos() * u128::from(self.format.rate) / 1_000_000_000) as u64;
        // The first look only finds out whether there is enough to start with.
        let frames = if self.started.is_none() { 1 } else { due.saturating_sub(wanted) };
        let pcm = self.jitter.pull(usize::try_from(frames).unwrap_or(usize::MAX));
        let taken = self.write(&pcm)?;
        // If it ran dry, or has not begun, the card starts again with the next frames.
        self.started = (taken == frames).then_some((started, wanted + frames));
        let (played, queued) = (self.played, self.jitter.queued());
        Ok(Progress { played, queued, underruns: self.jitter.underruns, skipped: self.skipped })
    }

    fn settle(&mut self) -> Result<()> {
        self.writer.flush().with_context(|| format!("finishing {}", self.path.display()))
    }

    fn file(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }
}

fn write(writer: &mut WavWriter<BufWriter<File>>, encoding: Encoding, pcm: &[u8]) -> hound::Result<()> {
    match encoding {
        Encoding::U8 => pcm.iter().try_for_each(|sample| writer.write_sample((*sample ^ 0x80) as i8)),
        Encoding::S16 => pcm
            .as_chunks::<2>()
            .0
            .iter()
            .try_for_each(|sample| writer.write_sample(i16::from_le_bytes(*sample))),
        Encoding::S20 | Encoding::S24 | Encoding::S32 => pcm
            .as_chunks::<4>()
            .0
            .iter()
            .try_for_each(|sample| writer.write_sample(i32::from_le_bytes(*sample))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

    fn pcm(frames: usize) -> Vec<u8> {
        (0..frames).flat_map(|n| ((n as u32) * 7).to_le_bytes()).collect()
    }

    fn samples(path: &Path) -> Vec<u8> {
        let mut reader = hound::WavReader::open(path).unwrap();
        reader.samples::<i16>().flat_map(|s| s.unwrap().to_le_bytes()).collect()
    }

    fn sink() -> (tempfile::TempDir, PathBuf, WavFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let sink = WavFile::create(path.clone(), FORMAT).unwrap();
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
    fn each_run_has_a_file_of_its_own() {
        for (number, name) in [(1, "a/x.wav"), (2, "a/x-2.wav"), (3, "a/x-3.wav")] {
            assert_eq!(path(Path::new("a/x.wav"), number), Path::new(name));
        }
    }
}
