//! A sound card that is a piece of software: it takes frames at its own pace, like one, and perhaps writes them into a
//! WAV file: every frame of the run that came, once and in order, and what was made up for frames that were lost, or
//! silence: each is where it belongs in the VM's time. Silence for which a card's time line would wait is not in it, and
//! what a card would skip is. Another clock than its own makes it faster or slower: no frame is changed.

use std::{ops::Range, time::Duration};

use anyhow::Result;
use wire::audio::Format;

use super::{Sink, pace::Pace, wav::Tape};

/// How much it wants at once, about.
const PERIOD: Duration = Duration::from_millis(5);
/// The most that it wants at once: if it is not looked after for longer, its clock stands still.
const LONGEST: Duration = Duration::from_millis(100);
/// The most silence that a file gets at a time: longer than devices are held without a link.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

const BILLION: u64 = 1_000_000_000;
/// Frames of silence that are written at once.
const SILENCE: usize = 4096;

/// The sink of one run.
pub(super) struct Paced {
    format: Format,
    pace: Pace,
    tape: Option<Tape>,
    /// When it started, and the frames it has played since.
    started: Option<(Duration, u64)>,
    /// How much faster it takes them, parts per billion, if it follows another clock; and billionths of a frame that it has
    /// not wanted yet.
    faster: Option<i32>,
    rest: u64,
}

impl Paced {
    pub(super) fn new(format: Format, pace: Pace, tape: Option<Tape>) -> Self {
        Self { format, pace, tape, started: None, faster: None, rest: 0 }
    }

    fn write(&mut self, samples: &[i32]) -> Result<()> {
        let Some(tape) = self.tape.as_mut().filter(|_| !samples.is_empty()) else { return Ok(()) };
        tape.write(&::sound::codec::pcm(self.format, samples))
    }
}

impl Sink for Paced {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn wants(&mut self, now: Duration) -> Result<usize> {
        let (started, before) = self.started.unwrap_or((now, 0));
        let due = self.pace.frames(self.format.rate, now.saturating_sub(started));
        self.started = Some((started, due));
        let most = ::sound::frames_in(LONGEST, self.format.rate);
        let speed = BILLION.saturating_add_signed(self.faster.unwrap_or(0).into());
        self.rest += due.saturating_sub(before).min(most) * speed;
        let wants = self.rest / BILLION;
        self.rest %= BILLION;
        Ok(usize::try_from(wants).unwrap_or(0))
    }

    fn take(&mut self, samples: &[i32], fillers: &[Range<usize>]) -> Result<()> {
        let channels = usize::from(self.format.channels);
        let mut from = 0;
        for filler in fillers {
            self.write(samples.get(from..filler.start * channels).unwrap_or_default())?;
            from = filler.end * channels;
        }
        self.write(samples.get(from..).unwrap_or_default())
    }

    fn skip(&mut self, frames: u64) -> Result<()> {
        let Some(tape) = &mut self.tape else { return Ok(()) };
        let mut left = frames.min(::sound::frames_in(LONGEST_SILENCE, self.format.rate));
        let silence = vec![0; usize::from(self.format.channels) * SILENCE];
        while left > 0 {
            let now = left.min(SILENCE as u64);
            let samples = silence.get(..now as usize * usize::from(self.format.channels)).unwrap_or_default();
            tape.write(&::sound::codec::pcm(self.format, samples))?;
            left -= now;
        }
        Ok(())
    }

    fn keeps_all(&self) -> bool {
        self.tape.is_some()
    }

    fn drain(&mut self) {
        self.started = None;
    }

    fn waiting(&self) -> u64 {
        0
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn xruns(&self) -> u64 {
        0
    }

    fn settle(&mut self) -> Result<()> {
        self.started = None;
        self.tape.as_mut().map_or(Ok(()), Tape::settle)
    }

    fn file(&self) -> Option<String> {
        self.tape.as_ref().map(Tape::file)
    }

    fn adapt(&mut self, parts_per_billion: i32) {
        self.faster = Some(parts_per_billion);
    }

    /// What nobody hears need not be resampled; but it is told as a card would.
    fn resampled_to(&self) -> Option<u32> {
        self.faster.filter(|_| self.tape.is_none()).map(|_| self.format.rate)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wire::audio::Encoding;

    use super::*;

    const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
    const MS: Duration = Duration::from_millis(1);

    fn samples(path: &Path) -> Vec<i32> {
        let mut reader = hound::WavReader::open(path).unwrap();
        reader.samples::<i16>().map(|sample| i32::from(sample.unwrap()) << 16).collect()
    }

    #[test]
    fn it_wants_frames_at_its_own_pace_and_stands_still_while_nobody_looks_after_it() {
        for (millionths, frames) in [(1_000_000, 480), (500_000, 240), (2_000_000, 960)] {
            let mut sink = Paced::new(FORMAT, Pace { millionths, ..Pace::default() }, None);
            assert_eq!(sink.wants(7 * MS).unwrap(), 0);
            assert_eq!(sink.wants(17 * MS).unwrap(), frames, "{millionths}");
            assert_eq!(sink.wants(5_017 * MS).unwrap(), 4_800);
            assert_eq!(sink.wants(5_027 * MS).unwrap(), frames, "{millionths}");
        }
    }

    #[test]
    fn it_follows_another_clock_to_the_frame() {
        for ppb in [200_000, -200_000, 5_000_000, -5_000_000] {
            let mut sink = Paced::new(FORMAT, Pace::default(), None);
            assert_eq!(sink.resampled_to(), None);
            sink.adapt(ppb);
            let frames: usize = (0..=100_000).map(|ms| sink.wants(ms * MS).unwrap()).sum();
            assert_eq!(frames as i64, 4_800_000 + i64::from(ppb) * 48 / 10_000, "{ppb}");
            assert_eq!(sink.resampled_to(), Some(48_000));
        }
    }

    #[test]
    fn what_is_no_part_of_the_run_is_not_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let mut sink = Paced::new(FORMAT, Pace::default(), Some(Tape::create(path.clone(), FORMAT).unwrap()));
        let pcm: Vec<i32> = (1..=20).map(|n| n << 16).collect();
        sink.take(&pcm, &[0..2, 4..5, 9..10]).unwrap();
        sink.settle().unwrap();
        let numbers: Vec<i32> = samples(&path).into_iter().map(|sample| sample >> 16).collect();
        assert_eq!(numbers, [5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18]);
        // It is a complete file, and goes on.
        sink.take(&pcm[..2], &[]).unwrap();
        sink.settle().unwrap();
        assert_eq!(samples(&path).len(), 14);
    }

    #[test]
    fn what_never_came_is_silence_in_its_place_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let mut sink = Paced::new(FORMAT, Pace::default(), Some(Tape::create(path.clone(), FORMAT).unwrap()));
        sink.take(&[1 << 16; 4], &[]).unwrap();
        sink.skip(10_000).unwrap();
        sink.take(&[2 << 16; 2], &[]).unwrap();
        sink.settle().unwrap();
        let samples = samples(&path);
        assert_eq!((samples.len(), samples[3], samples[4], samples[20_003]), (20_006, 1 << 16, 0, 0));
        assert_eq!(samples[20_004], 2 << 16);
        sink.skip(u64::MAX).unwrap();
        sink.settle().unwrap();
        let seconds = hound::WavReader::open(&path).unwrap().duration() / FORMAT.rate;
        assert_eq!(u64::from(seconds), LONGEST_SILENCE.as_secs());
    }
}
