//! A WAV file for a sound card: it takes frames at the format's rate, like one, and writes down every frame it took.

use std::{fs::File, io::BufWriter, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use hound::{SampleFormat, WavSpec, WavWriter};
use wire::audio::{Encoding, Format};

use super::{Progress, Sink, jitter::Jitter};

/// The sink. Each run is a file of its own: the second of `x.wav` is `x-2.wav`.
pub(crate) struct WavFile {
    path: PathBuf,
    runs: u32,
    run: Option<Run>,
}

struct Run {
    path: PathBuf,
    format: Format,
    writer: WavWriter<BufWriter<File>>,
    jitter: Jitter,
    /// When the sound card started, and the frames it has wanted since.
    started: Option<(Duration, u64)>,
}

impl WavFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, runs: 0, run: None }
    }

    fn next_path(&mut self) -> PathBuf {
        self.runs += 1;
        if self.runs == 1 {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let extension =
            self.path.extension().map_or_else(String::new, |e| format!(".{}", e.to_string_lossy()));
        self.path.with_file_name(format!("{stem}-{}{extension}", self.runs))
    }
}

impl Sink for WavFile {
    fn start(&mut self, format: Format) -> Result<()> {
        let path = self.next_path();
        let spec = WavSpec {
            channels: format.channels.into(),
            sample_rate: format.rate,
            bits_per_sample: 8 * format.encoding.bytes() as u16,
            sample_format: SampleFormat::Int,
        };
        let writer =
            WavWriter::create(&path, spec).with_context(|| format!("creating {}", path.display()))?;
        self.run = Some(Run { path, format, writer, jitter: Jitter::new(format), started: None });
        Ok(())
    }

    fn push(&mut self, now: Duration, pcm: &[u8]) -> Result<()> {
        // The card's time passes before the frames arrive: what it wanted by now it takes from what waited.
        self.tick(now)?;
        if let Some(run) = &mut self.run {
            run.jitter.push(pcm);
        }
        Ok(())
    }

    fn drain(&mut self) {
        if let Some(run) = &mut self.run {
            run.jitter.drain();
        }
    }

    fn tick(&mut self, now: Duration) -> Result<Progress> {
        self.run.as_mut().map_or(Ok(Progress::default()), |run| run.tick(now))
    }

    fn stop(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        run.writer.finalize().with_context(|| format!("finishing {}", run.path.display()))
    }

    fn file(&self) -> Option<String> {
        self.run.as_ref().map(|run| run.path.display().to_string())
    }
}

impl Run {
    fn tick(&mut self, now: Duration) -> Result<Progress> {
        let (started, wanted) = self.started.unwrap_or((now, 0));
        let due =
            (now.saturating_sub(started).as_nanos() * u128::from(self.format.rate) / 1_000_000_000) as u64;
        // The first look only finds out whether there is enough to start with.
        let frames = if self.started.is_none() { 1 } else { due.saturating_sub(wanted) };
        let (mut taken, mut result) = (Vec::new(), Ok(()));
        let length =
            self.jitter.pull(usize::try_from(frames).unwrap_or(usize::MAX / 64), |b| taken.extend(b));
        if length > 0 {
            result = write(&mut self.writer, self.format.encoding, &taken);
        }
        let frame = self.format.frame_bytes() as usize;
        self.started = match self.started {
            // It ran dry, or has not begun: the card starts again with the next frames.
            _ if (length / frame) < usize::try_from(frames).unwrap_or(usize::MAX) => None,
            None => Some((now, 1)),
            Some(_) => Some((started, wanted + frames)),
        };
        result.with_context(|| format!("writing {}", self.path.display()))?;
        let Jitter { played, underruns, dropped, .. } = self.jitter;
        Ok(Progress { played, queued: self.jitter.queued(), underruns, dropped })
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

    fn samples(path: &std::path::Path) -> Vec<u8> {
        let mut reader = hound::WavReader::open(path).unwrap();
        reader.samples::<i16>().flat_map(|s| s.unwrap().to_le_bytes()).collect()
    }

    #[test]
    fn every_frame_is_written_once_and_in_order_for_any_arrival_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let mut sink = WavFile::new(path.clone());
        sink.start(FORMAT).unwrap();
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
        sink.stop().unwrap();
        assert_eq!(progress, Progress { played: 48_000, queued: 0, underruns: 0, dropped: 0 });
        assert!(samples(&path) == sent);
    }

    #[test]
    fn it_is_paced_like_a_sound_card() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = WavFile::new(folder.path().join("x.wav"));
        sink.start(FORMAT).unwrap();
        sink.push(Duration::ZERO, &pcm(4800)).unwrap();
        sink.tick(Duration::ZERO).unwrap();
        let progress = sink.tick(Duration::from_millis(50)).unwrap();
        assert_eq!((progress.played, progress.queued), (2400, 2400));
    }

    #[test]
    fn each_run_is_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = WavFile::new(folder.path().join("x.wav"));
        for name in ["x.wav", "x-2.wav", "x-3.wav"] {
            sink.start(FORMAT).unwrap();
            assert!(sink.file().unwrap().ends_with(name), "{name}");
            sink.stop().unwrap();
        }
    }
}
