//! A device with a ring of its own, from which it takes a period at once: what waits there is a part of what waits.
//!
//! ```text
//!   packets ─► queue ─► decoded ─► │ the device's ring                      │ ─► a period at once
//!                                  │ behind: asked for, and not there yet ..│.. there
//!                                  └── the device's time line, as even as if it took frame by frame
//! ```
//! All that has come is given at once. What has not come is made up only when the device needs it: so the ring serves
//! packets that are late, and whoever hands them on, with the same frames.

use core::time::Duration;

use super::{LONGEST_PERIOD, Receiver, State};
use crate::{frames_in, jitter::CAP};

impl Receiver {
    /// The device begins with a ring of its own, from which it takes so much at once. So many frames it has
    /// not asked for: they wait there, or are asked for before it takes a period. All others that the ring holds it has asked
    /// for. What waits there need not wait here, if it is filled by [`Self::supply`]. Without a ring, all are zero.
    pub fn set_ring(&mut self, holds: Duration, takes: Duration, unasked: u64) {
        let holds = holds.min(2 * LONGEST_PERIOD);
        self.reserve = frames_in(holds.saturating_sub(takes), self.format.rate);
        self.behind = frames_in(holds, self.format.rate).saturating_sub(unasked);
        if holds > Duration::ZERO {
            self.state = State::Waiting;
            (self.owed, self.refilling, self.lacked) = (0, false, 0);
        }
    }

    /// The device ran out of frames although all was there, because nobody was in time to hand them on: from now on more
    /// waits, by about this much.
    pub fn ran_out(&mut self, now: Duration, by: Duration) {
        self.target.late(now, by.min(CAP));
    }

    /// Frames that the device has asked for and not got yet.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.behind
    }

    /// Fills `out` with whole frames, as [`Self::pull`] does, for a device with a ring ([`Self::set_ring`]) whose time goes on
    /// by so many: with all that it has asked for so far, or, if the next ones are not there, with the `least` that it needs
    /// now. One that is resampled for gets as many as it asks for.
    pub fn supply(&mut self, now: Duration, frames: usize, least: usize, out: &mut Vec<i32>) {
        let (channels, most) = (self.channels(), frames_in(LONGEST_PERIOD, self.format.rate));
        out.clear();
        if self.following.is_some() || frames as u64 > most {
            out.resize(frames * channels, 0);
            return self.pull(now, out);
        }
        self.take_at_least(now, frames, least, out);
        self.keep_past(out);
        self.look_after(now);
    }

    /// What waits, with what the device has in reserve.
    pub(super) fn waits(&self) -> u64 {
        (self.queued() + self.reserve).saturating_sub(self.behind)
    }

    /// Frames to wait for until so much waits, with what the device has in reserve.
    pub(super) fn lacks(&self, now: Duration, target: Duration) -> u64 {
        let below = self.behind.saturating_sub(self.queued() + self.reserve);
        self.meter.wait(now, self.waits(), target) + below
    }
}
