//! What the device hears.

use core::time::Duration;

use bytes::Bytes;
use wire::audio::{Codec, Reception};

use super::{Following, LONGEST_PERIOD, REPORT, Receiver};
use crate::{
    frames_in,
    jitter::{CAP, Next, STALL},
    splice, time_of,
};

/// How often the slowest packets are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The target's growth that is waited for at once, when repairs begin to take longer; less is left to the clock.
const AT_ONCE: Duration = Duration::from_millis(2);

/// What a decoder hears of the sound behind a cut before it is heard: Opus is itself again after that.
const WARM: Duration = Duration::from_millis(20);

/// What is less loud than this is no more than the last bit of 16 going to and fro.
const QUIET: u32 = 1 << 17;

/// A block that waits.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) codec: Codec,
    pub(super) payload: Bytes,
}

/// See the drawing in the module above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not enough has come yet.
    Waiting,
    /// Frames are played.
    Playing,
    /// There was nothing to play for so many frames.
    Starved(u64),
}

impl Receiver {
    /// Fills whole frames for the device, interleaved, each sample at the top of 32 bits. `now`: when the first of them
    /// is asked for.
    pub fn pull(&mut self, now: Duration, out: &mut [i32]) {
        let channels = self.channels();
        let rate = match self.config.clocking {
            super::Clocking::SenderFollows => self.format.rate,
            super::Clocking::Resample(rate) => rate,
        };
        let most = usize::try_from(frames_in(LONGEST_PERIOD, rate)).unwrap_or(usize::MAX);
        let frames = (out.len() / channels).min(most);
        let (out, rest) = out.split_at_mut(frames * channels);
        rest.fill(0);
        let mut heard = core::mem::take(&mut self.scratch);
        heard.clear();
        match self.following.take() {
            None => {
                self.take(now, frames, &mut heard);
                out.copy_from_slice(heard.get(..out.len()).unwrap_or_default());
                self.keep_past(out);
            }
            Some(following) => self.pull_resampled(now, following, &mut heard, out),
        }
        self.scratch = heard;
        self.look_after(now);
    }

    /// Appends exactly so many frames of the time line.
    pub(super) fn take(&mut self, now: Duration, frames: usize, out: &mut Vec<i32>) {
        self.behind = 0;
        self.take_at_least(now, frames, frames, out);
    }

    /// Appends so many frames of the time line and those that the device waits for; if they are not there, the least that it
    /// needs.
    pub(super) fn take_at_least(&mut self, now: Duration, frames: usize, least: usize, out: &mut Vec<i32>) {
        let channels = self.channels();
        let wanted = frames + usize::try_from(self.behind).unwrap_or(usize::MAX);
        let (least, end) = (out.len() + least.min(wanted) * channels, out.len() + wanted * channels);
        self.fillers.clear();
        self.start(now, wanted, out);
        self.refill(now);
        self.cut_to_target(now);
        let before = self.playing().saturating_add(self.behind);
        while self.state != State::Waiting && out.len() < end {
            self.skip_silence(now);
            let up_to = if self.ready() { end } else { least };
            if out.len() >= up_to {
                break;
            }
            self.step(now, (up_to - out.len()) / channels, out);
        }
        if self.state == State::Waiting && out.len() < least {
            self.fill(out.len() / channels, least / channels);
            out.resize(least, 0);
        }
        self.behind = (end.saturating_sub(out.len()) / channels) as u64;
        let taken = self.playing().saturating_add(self.behind).saturating_sub(before);
        self.meter.pulled(now, before, taken, frames as u64);
    }

    /// Whether there is something to be had at once that is not made up.
    fn ready(&self) -> bool {
        !self.decoded.is_empty() || self.owed > 0 || self.drained || self.queue.knows(self.queue.head())
    }

    /// Leaves the waiting state if it is time, possibly in the middle of what is asked for.
    fn start(&mut self, now: Duration, frames: usize, out: &mut Vec<i32>) {
        if self.state != State::Waiting || self.idle() {
            return;
        }
        let wait = self.lacks(now, self.target.get());
        let wait = if self.drained { 0 } else { wait };
        if wait < frames as u64 {
            self.state = State::Playing;
            // It was silent for long.
            self.decoder.forget_concealment();
            self.fill(0, wait as usize);
            out.resize(out.len() + wait as usize * usize::from(self.format.channels), 0);
        }
    }

    /// These frames of what is asked for are no part of the run.
    fn fill(&mut self, first: usize, end: usize) {
        if first < end {
            self.fillers.push(first..end);
        }
    }

    /// After there was nothing to play, the first packet is not enough: if the sender's time line has slipped, no burst
    /// follows it, and playing at once would starve again and again.
    fn refill(&mut self, now: Duration) {
        if matches!(self.state, State::Starved(_)) && !self.drained && !self.idle() {
            let enough = self.target.get().saturating_sub(time_of(self.packet, self.format.rate));
            let lacks = self.lacks(now, enough);
            // A burst may have followed it meanwhile.
            self.owed = if self.refilling { lacks } else { self.owed.max(lacks) };
            self.refilling = true;
        } else {
            self.refilling = false;
        }
    }

    /// How many frames of what waits are too much: after a long stall all above the target, else all if it is more than
    /// the cap.
    fn excess(&self, now: Duration) -> u64 {
        let (rate, target) = (self.format.rate, self.target.get());
        let catching_up = self.catching_up.is_some_and(|until| now < until);
        let most = if catching_up { target + self.config.period + time_of(self.packet, rate) } else { CAP };
        if self.waits() <= frames_in(most, rate) || self.drained {
            return 0;
        }
        self.waits().saturating_sub(frames_in(target, rate)).min(self.queued())
    }

    /// Appends what the next pull would cut out of the run, out of its turn: for a device that is none, such as a file,
    /// which shall have every frame once and in order. Samples as [`Self::pull`] has them, not resampled; how many frames.
    pub fn take_excess(&mut self, now: Duration, out: &mut Vec<i32>) -> u64 {
        let excess = self.excess(now);
        if excess == 0 {
            return 0;
        }
        self.fed(now);
        self.decoder.forget_concealment();
        let channels = self.channels();
        self.decode_until(excess);
        let samples = usize::try_from(excess).unwrap_or(usize::MAX).saturating_mul(channels);
        let samples = samples.min(self.decoded.len());
        out.extend(self.decoded.drain(..samples));
        self.counters.played += (samples / channels) as u64;
        (samples / channels) as u64
    }

    /// Bounds what waits.
    fn cut_to_target(&mut self, now: Duration) {
        let (rate, excess) = (self.format.rate, self.excess(now));
        if excess == 0 {
            return;
        }
        // Only what is at either end of the cut has to be heard; what is between is dropped as it came.
        let around = splice::around(rate);
        self.decode_until(around);
        let dropped = excess.saturating_sub(self.decoded_frames() + frames_in(WARM, rate));
        self.queue.skip(dropped);
        let rest = excess - dropped;
        self.decode_until(rest + around);
        let (rest, channels) = (usize::try_from(rest).unwrap_or(usize::MAX), self.format.channels.into());
        self.counters.cut += dropped + splice::cut(&mut self.decoded, rest, rate, channels) as u64;
    }

    /// Appends at least one of up to `wanted` frames, or leaves the playing state.
    fn step(&mut self, now: Duration, wanted: usize, out: &mut Vec<i32>) {
        let channels = self.channels();
        if !self.decoded.is_empty() {
            let samples = self.decoded.len().min(wanted * channels);
            out.extend(self.decoded.drain(..samples));
            self.counters.played += (samples / channels) as u64;
            return;
        }
        if self.owed > 0 {
            let frames = wanted.min(usize::try_from(self.owed).unwrap_or(usize::MAX));
            self.owed -= frames as u64;
            if let State::Starved(before) = &mut self.state {
                *before = before.saturating_add(frames as u64);
            }
            self.wait(frames, out);
            // Nothing was lost, so nothing is changed.
            if self.owed == 0 && self.config.clocking == super::Clocking::SenderFollows {
                self.decoder.forget_concealment();
            }
            return;
        }
        match self.queue.next() {
            Next::Block { payload, skip, frames } => {
                self.fed(now);
                self.decode(&payload, skip, frames);
            }
            Next::Gap(missing) => {
                let missing = self.made_up_for(missing);
                let frames = wanted.min(usize::try_from(missing).unwrap_or(usize::MAX));
                self.miss(frames as u64);
                self.decoder.conceal(frames, out);
                self.counters.concealed += frames as u64;
                self.counters.decoded += frames as u64;
            }
            Next::Empty if self.drained => self.state = State::Waiting,
            Next::Empty => {
                let before = if let State::Starved(frames) = self.state { frames } else { 0 };
                self.lacked = if before == 0 { wanted as u64 } else { self.lacked + wanted as u64 };
                self.state = State::Starved(before.saturating_add(wanted as u64));
                self.wait(wanted, out);
            }
        }
    }

    /// Leaves out what is silence anyway, if more waits than has to.
    fn skip_silence(&mut self, now: Duration) {
        if !self.config.skips_silence || self.decoded.is_empty() {
            return;
        }
        let spare = frames_in(self.target.spare(now), self.format.rate);
        let frames = usize::try_from(spare).unwrap_or(usize::MAX).min(self.decoded.len() / self.channels());
        if frames > 0 && self.decoded.iter().all(|sample| sample.unsigned_abs() < QUIET) {
            self.decoded.drain(..frames * self.channels());
            self.counters.cut += frames as u64;
            self.target.lower(time_of(frames as u64, self.format.rate));
        }
    }

    fn wait(&mut self, frames: usize, out: &mut Vec<i32>) {
        let first = out.len() / self.channels();
        self.fill(first, first + frames);
        self.decoder.conceal(frames, out);
        self.counters.decoded += frames as u64;
        self.counters.waited += frames as u64;
    }

    /// The next frames are here.
    fn fed(&mut self, now: Duration) {
        if let State::Starved(frames) = self.state {
            self.state = State::Playing;
            // Nothing was lost, so nothing is changed, if it can be heard as it is.
            if self.config.clocking == super::Clocking::SenderFollows {
                self.decoder.forget_concealment();
            }
            // What was waited for is what has to wait from now on, unless it was no jitter.
            let rate = self.format.rate;
            if time_of(frames, rate) + self.target.get() <= CAP {
                self.target.late(now, time_of(self.lacked, rate));
            }
        }
    }

    /// Frames are missing, of which silence has stood for some already; returns the others.
    fn made_up_for(&mut self, missing: u64) -> u64 {
        let State::Starved(frames) = self.state else { return missing };
        let over = missing.min(frames);
        self.miss(over);
        self.state = State::Playing;
        missing - over
    }

    /// The next frames did not come in time.
    fn miss(&mut self, frames: u64) {
        let first = self.queue.head();
        self.counters.lost += frames;
        self.queue.skip(frames);
        self.holes.leave(first, self.queue.head());
    }

    /// Decodes blocks, and makes up gaps, until so many frames are decoded, or nothing is left.
    fn decode_until(&mut self, frames: u64) {
        while let lacking @ 1.. = frames.saturating_sub(self.decoded_frames()) {
            match self.queue.next() {
                Next::Block { payload, skip, frames } => self.decode(&payload, skip, frames),
                Next::Gap(missing) => {
                    let missing = missing.min(lacking);
                    self.miss(missing);
                    self.counters.decoded += missing;
                    self.decoder.conceal(usize::try_from(missing).unwrap_or(usize::MAX), &mut self.decoded);
                }
                Next::Empty => return,
            }
        }
    }

    fn decode(&mut self, held: &Held, skip: u64, frames: u64) {
        let size = |frames: u64| usize::try_from(frames).unwrap_or(usize::MAX);
        self.counters.decoded += skip + frames;
        let (all, skip) = (size(skip.saturating_add(frames)), size(skip));
        self.exact &= held.codec == Codec::Pcm;
        if self.decoder.decode(held.codec, &held.payload, all, skip, &mut self.decoded).is_err() {
            self.counters.refused += 1;
            self.counters.lost += frames;
            self.counters.concealed += frames;
            self.decoder.conceal(size(frames), &mut self.decoded);
        }
    }

    /// Ten times a second: target, clock and report.
    pub(super) fn look_after(&mut self, now: Duration) {
        if let State::Starved(frames) = self.state
            && time_of(frames, self.format.rate) > STALL
        {
            self.state = State::Waiting;
            self.stalled = true;
        }
        let since = *self.reported.get_or_insert(now);
        if now.saturating_sub(since) < REPORT {
            return;
        }
        self.reported = Some(if now.saturating_sub(since) < 2 * REPORT { since + REPORT } else { now });
        self.follow(now);
        let Some(level) = self.meter.take_level() else { return };
        let target = self.target.get();
        if let Some(Following { servo, resampler, .. }) = &mut self.following {
            resampler.set_ratio(servo.observe(now, level, target));
        }
        let losses = self.meter.take_losses();
        let counted = |count: u64| count as u32;
        self.report = Some(Reception {
            stream: self.stream,
            run: self.run,
            position: self.playing().saturating_add(self.behind),
            at: now,
            level,
            target,
            jitter: self.slowest,
            loss: losses.loss,
            burst: losses.burst,
            concealed: counted(self.counters.concealed),
            slipped: counted(self.counters.waited.wrapping_add(self.counters.cut)),
            late: counted(self.counters.late),
            duplicate: counted(self.counters.duplicate),
            // Whoever has the device knows.
            xruns: 0,
        });
    }

    fn follow(&mut self, now: Duration) {
        let rate = self.format.rate;
        if now.saturating_sub(self.looked.unwrap_or_default()) >= LOOK || self.looked.is_none() {
            self.looked = Some(now);
            self.slowest = self.meter.delays.slowest().unwrap_or_default();
        }
        let asking = self.round_trip.filter(|_| now < self.lossy_until);
        self.row = if now < self.lossy_until { self.row } else { 0 };
        let asking = asking
            .map_or(Duration::ZERO, |trip| trip.saturating_add(time_of(2 * self.packet + self.row, rate)));
        let repair = time_of(self.reach, rate).max(asking);
        let before = self.target.get();
        self.target.follow(now, self.slowest, self.config.period, time_of(self.packet, rate), repair);
        let grown = self.target.get().saturating_sub(before);
        if self.state == State::Playing && repair > self.repair && grown > AT_ONCE {
            self.owe(before);
        }
        self.repair = repair;
    }
}
