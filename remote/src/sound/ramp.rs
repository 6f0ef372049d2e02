//! The microphone of the test card: a ramp that is inaudible and tells every frame from its neighbours.

use std::time::Duration;

use anyhow::Result;
use wire::audio::{Encoding, Format};

use super::{Source, pace::Pace};

/// What the card has; its rate is the one that is wanted.
const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

/// The `n`th frame is the number `n` in 16 bits on all channels.
pub(super) struct Ramp {
    format: Format,
    pace: Pace,
    started: Option<Duration>,
    heard: u64,
}

impl Ramp {
    /// The card has every rate, and two channels.
    pub(super) fn new(rate: u32, pace: Pace) -> Self {
        Self { format: Format { rate, ..FORMAT }, pace, started: None, heard: 0 }
    }
}

impl Source for Ramp {
    fn format(&self) -> Format {
        self.format
    }

    fn pull(&mut self, now: Duration, into: &mut Vec<i32>) -> Result<u64> {
        let started = *self.started.get_or_insert(now);
        let due = self.pace.frames(self.format.rate, now.saturating_sub(started));
        into.extend((self.heard..due).flat_map(|n| [i32::from(n as u16 as i16) << 16; 2]));
        self.heard = due;
        Ok(0)
    }

    fn xruns(&self) -> u64 {
        0
    }
}
