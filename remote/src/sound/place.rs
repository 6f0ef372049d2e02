//! Where sound goes and where it comes from, whatever it is made of.

use std::{ops::Range, time::Duration};

use anyhow::Result;
use wire::audio::Format;

#[cfg(feature = "cpal")]
use super::card;
use super::{Pace, paced, ramp, wav};
use crate::cli::Audio;

/// A place for the sound of one run. Time is since an arbitrary start. Dropping it ends it.
pub(crate) trait Sink {
    /// How much it wants at once, or how unevenly.
    fn period(&self) -> Duration;
    /// Frames that it wants now. An error, here and below: it has failed for good.
    fn wants(&mut self, now: Duration) -> Result<usize>;
    /// Of so many frames that it wants, or has wanted before and not got, those that it has to have now.
    fn needs(&self, wanted: usize) -> usize {
        wanted
    }
    /// Frames follow from now on. If it is a ring: what it holds at most, what of that it takes at once, and how many frames it
    /// does not want yet; all others are taken for wanted.
    fn begin(&mut self) -> Option<(Duration, Duration, u64)> {
        None
    }
    /// Whether it takes more at once than it has said: it has to begin anew.
    fn outgrown(&self) -> bool {
        false
    }
    /// Takes whole frames, samples at the top of 32 bits. `fillers`: the frames that are no part of the run.
    fn take(&mut self, samples: &[i32], fillers: &[Range<usize>]) -> Result<()>;
    /// So many frames of the run never came, and nothing was made up for them: a file has silence in their place.
    fn skip(&mut self, _frames: u64) -> Result<()> {
        Ok(())
    }
    /// Whether it takes frames out of their turn rather than have none of them: it is a file.
    fn keeps_all(&self) -> bool;
    /// No more frames follow for now: what waits is played although it may be less than a good start.
    fn drain(&mut self);
    /// Frames that were taken and are not heard yet.
    fn waiting(&self) -> u64;
    /// Whether it is still there.
    fn check(&self) -> Result<()>;
    /// Times that it was not looked after in time.
    fn xruns(&self) -> u64;
    /// Everything taken and played is where it belongs (a file is complete); more may follow.
    fn settle(&mut self) -> Result<()>;
    /// The file that it is written to, if it is one.
    fn file(&self) -> Option<String>;
    /// From now on it takes frames faster than it plays by so many parts per billion: its clock is not the one that they
    /// come by. A file takes them as they are, but faster.
    fn adapt(&mut self, parts_per_billion: i32);
    /// The rate of the card, if frames are resampled to it, or to its clock.
    fn resampled_to(&self) -> Option<u32> {
        None
    }
}

/// A microphone that is open. Time is since an arbitrary start. Dropping it closes it.
pub(crate) trait Source {
    /// As the device has it.
    fn format(&self) -> Format;
    /// What was heard since the last time: whole frames, samples at the top of 32 bits. The frames lost before them.
    fn pull(&mut self, now: Duration, into: &mut Vec<i32>) -> Result<u64>;
    /// Times that it was not looked after in time.
    fn xruns(&self) -> u64;
}

/// Where sound goes.
pub(crate) struct Output {
    audio: Audio,
    runs: u32,
}

/// Where sound comes from.
pub(crate) struct Input(Audio);

/// Without cards, nobody can ask for one.
fn check(audio: &Audio) -> Result<()> {
    anyhow::ensure!(
        cfg!(feature = "cpal") || !matches!(audio, Audio::Cpal(_)),
        "this build has no sound cards: build with the feature `cpal`, or use wav:FILE"
    );
    Ok(())
}

impl Output {
    /// The place that was asked for.
    ///
    /// # Errors
    /// This build has no sound cards.
    pub(crate) fn new(audio: Audio) -> Result<Self> {
        check(&audio)?;
        Ok(Self { audio, runs: 0 })
    }

    pub(super) fn place(&self) -> &Audio {
        &self.audio
    }

    /// Whether what has failed may be there again soon, as a card may that was plugged in again.
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.audio, Audio::Cpal(_))
    }

    pub(super) fn open(&mut self, format: Format) -> Result<Box<dyn Sink>> {
        self.runs += 1;
        Ok(match &self.audio {
            Audio::Wav(file) => {
                let tape = wav::Tape::create(wav::path(file, self.runs), format)?;
                Box::new(paced::Paced::new(format, Pace::default(), Some(tape)))
            }
            Audio::Test(pace) => Box::new(paced::Paced::new(format, *pace, None)),
            #[cfg(feature = "cpal")]
            Audio::Cpal(wanted) => Box::new(card::Card::open(wanted.as_deref(), format)?),
            _ => Box::new(paced::Paced::new(format, Pace::default(), None)),
        })
    }
}

impl Input {
    /// The place that was asked for.
    ///
    /// # Errors
    /// This build has no sound cards.
    pub(crate) fn new(audio: Audio) -> Result<Self> {
        check(&audio)?;
        Ok(Self(audio))
    }

    pub(super) fn place(&self) -> &Audio {
        &self.0
    }

    pub(super) fn granted(&self) -> bool {
        self.0 != Audio::None
    }

    /// Opens it in this format, or the nearest that it has.
    pub(super) fn open(&self, format: Format) -> Result<Box<dyn Source>> {
        Ok(match &self.0 {
            Audio::None => anyhow::bail!("no microphone is granted"),
            Audio::Wav(file) => Box::new(wav::WavMicrophone::open(file)?),
            Audio::Test(pace) => Box::new(ramp::Ramp::new(format.rate, *pace)),
            #[cfg(feature = "cpal")]
            Audio::Cpal(wanted) => Box::new(card::Listener::open(wanted.as_deref(), format)?),
            #[cfg(not(feature = "cpal"))]
            Audio::Cpal(_) => anyhow::bail!("this build has no sound cards"),
        })
    }
}
