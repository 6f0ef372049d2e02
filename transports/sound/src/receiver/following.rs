//! A device with a clock of its own: what is resampled for it, and how that begins in the middle of a run.
//!
//! ```text
//!   .. played as they came │ resampled, at first by nothing ..
//!              past ────┐  │
//!                       └─► the filter hears the last frames again, and the first ones early: none is lost or doubled
//! ```

use core::time::Duration;

use super::{Clocking, LONGEST_PERIOD, Receiver};
use crate::{
    clock::{Limits, Servo},
    frames_in,
    resample::{PAST, Resampler, Unfit},
};

/// The loop that follows the device's clock, and what it steers.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) servo: Servo,
    pub(super) resampler: Resampler,
    /// The filter is to hear what was played before.
    unprimed: bool,
}

impl Following {
    /// From one rate to another.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub(super) fn new(from: u32, to: u32, channels: u8) -> Result<Self, Unfit> {
        let most = usize::try_from(frames_in(LONGEST_PERIOD, to)).unwrap_or(usize::MAX);
        let resampler = Resampler::new(from, to, channels, most)?;
        Ok(Self { servo: Servo::new(Limits::RESAMPLER), resampler, unprimed: false })
    }
}

impl Receiver {
    /// The device has a clock of its own after all, if of the same rate: it is followed from the next pull on. No frame is
    /// lost or doubled on the way. Nothing changes if it is followed already.
    ///
    /// # Errors
    /// There is no resampler for this stream.
    pub fn resample(&mut self) -> Result<(), Unfit> {
        if self.following.is_none() {
            let rate = self.format.rate;
            let following = Following::new(rate, rate, self.format.channels)?;
            self.following = Some(Following { unprimed: true, ..following });
            self.config.clocking = Clocking::Resample(rate);
            (self.reserve, self.behind) = (0, 0);
        }
        Ok(())
    }

    /// What the resampler does at the moment, parts per billion; 0 without one.
    #[must_use]
    pub fn ratio(&self) -> i32 {
        self.following.as_ref().map_or(0, |following| following.servo.ratio())
    }

    /// Fills whole frames for a device that is followed. `heard` is scratch.
    pub(super) fn pull_resampled(
        &mut self,
        now: Duration,
        mut following: Following,
        heard: &mut Vec<i32>,
        out: &mut [i32],
    ) {
        if core::mem::take(&mut following.unprimed) {
            self.prime(now, &mut following.resampler, heard);
            heard.clear();
        }
        let frames = out.len() / self.channels();
        let needed = following.resampler.needed(frames.max(1));
        self.take(now, needed, heard);
        if frames > 0 {
            following.resampler.process(heard, out);
        }
        self.following = Some(following);
    }

    /// Lets the filter hear what was played, so that the next frame out of it is the next of the run.
    fn prime(&mut self, now: Duration, resampler: &mut Resampler, heard: &mut Vec<i32>) {
        let channels = self.channels();
        self.past.resize(PAST * channels, 0);
        heard.extend_from_slice(&self.past);
        let again = PAST + resampler.delay();
        let early = resampler.needed(again).saturating_sub(PAST);
        self.take(now, early, heard);
        resampler.process(heard, &mut vec![0; again * channels]);
    }

    /// Keeps the last frames that were played as they came, for a filter that may follow.
    pub(super) fn keep_past(&mut self, out: &[i32]) {
        let keep = PAST * self.channels();
        self.past.extend_from_slice(out.get(out.len().saturating_sub(keep)..).unwrap_or_default());
        self.past.drain(..self.past.len().saturating_sub(keep));
    }
}
