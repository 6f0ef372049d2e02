//! WAV files: one to write what the VM plays, one to read what its microphone hears.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use wire::audio::{Encoding, Format};

use super::{Source, pace::Pace};

/// A file that is written.
pub(super) struct Tape {
    path: PathBuf,
    encoding: Encoding,
    writer: WavWriter<BufWriter<File>>,
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

impl Tape {
    pub(super) fn create(path: PathBuf, format: Format) -> Result<Self> {
        let spec = WavSpec {
            channels: format.channels.into(),
            sample_rate: format.rate,
            bits_per_sample: 8 * format.encoding.bytes() as u16,
            sample_format: SampleFormat::Int,
        };
        let writer =
            WavWriter::create(&path, spec).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path, encoding: format.encoding, writer })
    }

    /// Writes whole frames.
    pub(super) fn write(&mut self, pcm: &[u8]) -> Result<()> {
        write(&mut self.writer, self.encoding, pcm)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    /// Makes it a complete file; more may follow.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.writer.flush().with_context(|| format!("finishing {}", self.path.display()))
    }

    /// Its name.
    pub(super) fn file(&self) -> String {
        self.path.display().to_string()
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

/// A file that is heard from its beginning, then silence: a microphone for as long as the file is there.
pub(super) struct WavMicrophone {
    path: PathBuf,
    reader: WavReader<BufReader<File>>,
    format: Format,
    pace: Pace,
    started: Option<Duration>,
    heard: u64,
}

impl WavMicrophone {
    /// # Errors
    /// It is not there, or no WAV file of whole numbers in a format of HD Audio.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let reader = WavReader::open(path).with_context(|| format!("reading {}", path.display()))?;
        let WavSpec { channels, sample_rate: rate, bits_per_sample, sample_format } = reader.spec();
        let encoding = match bits_per_sample {
            8 => Encoding::U8,
            16 => Encoding::S16,
            24 => Encoding::S24,
            _ => Encoding::S32,
        };
        let known =
            sample_format == SampleFormat::Int && bits_per_sample <= 32 && (1..=16).contains(&channels);
        anyhow::ensure!(known, "{}: not PCM of 8 to 32 bits and 1 to 16 channels", path.display());
        let format = Format { rate, encoding, channels: channels as u8 };
        Ok(Self { path: path.into(), reader, format, pace: Pace::default(), started: None, heard: 0 })
    }
}

impl Source for WavMicrophone {
    fn format(&self) -> Format {
        self.format
    }

    fn pull(&mut self, now: Duration, into: &mut Vec<i32>) -> Result<u64> {
        anyhow::ensure!(self.path.exists(), "{} is gone", self.path.display());
        let started = *self.started.get_or_insert(now);
        let due = self.pace.frames(self.format.rate, now.saturating_sub(started));
        let count = (due - self.heard) as usize * usize::from(self.format.channels);
        self.heard = due;
        let (spare, end) = (32 - self.reader.spec().bits_per_sample, into.len() + count);
        for sample in self.reader.samples::<i32>().take(count) {
            into.push(sample.with_context(|| format!("reading {}", self.path.display()))? << spare);
        }
        into.resize(end, 0);
        Ok(0)
    }

    fn xruns(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_file_of_its_own() {
        for (number, name) in [(1, "a/x.wav"), (2, "a/x-2.wav"), (3, "a/x-3.wav")] {
            assert_eq!(path(Path::new("a/x.wav"), number), Path::new(name));
        }
    }

    #[test]
    fn a_file_is_heard_once_at_its_own_rate_and_then_silence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let format = Format { rate: 8_000, encoding: Encoding::S16, channels: 2 };
        let pcm: Vec<u8> = (1..=160i16).flat_map(|n| (n * 201).to_le_bytes()).collect();
        let mut tape = Tape::create(path.clone(), format).unwrap();
        tape.write(&pcm).unwrap();
        drop(tape);
        let mut microphone = WavMicrophone::open(&path).unwrap();
        assert_eq!(microphone.format(), format);
        let mut heard = Vec::new();
        for (ms, samples) in [(0, 0), (3, 48), (7, 112), (20, 320)] {
            assert_eq!(microphone.pull(Duration::from_millis(ms), &mut heard).unwrap(), 0);
            assert_eq!(heard.len(), samples, "after {ms} ms");
        }
        let narrow: Vec<u8> = heard.iter().flat_map(|s| ((s >> 16) as i16).to_le_bytes()).collect();
        assert!(narrow[..320] == pcm && narrow[320..] == [0; 320]);
        std::fs::remove_file(&path).unwrap();
        assert!(microphone.pull(Duration::from_millis(21), &mut heard).is_err());
    }
}
