//! The engine of one stream: moves sound between guest memory and the link, in step with the link's clock.
//!
//! ```text
//!   Timeline ──position──► walk the Ring ──► output: levels ──► packets ──► Output::Audio
//!                               │            input:  the Recorder's frames, or silence, into memory
//!                               └──► end of a piece with IOC ──► completion
//! ```
//!
//! Every byte of the ring is moved exactly once per lap, in order, in whole frames, whenever [`Engine::advance`]
//! happens to be called. How far one call moves is bounded by [`Engine::stride`]: the owner of the clock lets time
//! slip instead of asking for more.

use pci::{Dma, DmaError};
use wire::audio::StreamId;

use super::bdl::Ring;
use super::format::Shape;
use super::packets::Packets;
use super::rate::Timeline;
use super::recorder::{Loss, Recorder};
use crate::clock::LinkTime;
use crate::codec::Path;
use crate::{Output, Packet};

/// Which way a stream's sound goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Capture.
    Input,
    /// Playback.
    Output,
}

/// The most that one late call may catch up on; what is beyond slips.
const CATCH_UP: u64 = 50_000_000;

/// A stream that was started and not reset since.
#[derive(Debug)]
pub(crate) struct Engine {
    shape: Shape,
    ring: Ring,
    /// CBL, at least 1: where the position wraps.
    cyclic: u64,
    /// Moved since the run began.
    frames: u64,
    /// `None` while paused or held.
    timeline: Option<Timeline>,
    /// The end of a piece was passed, and is not to be told before the position is other than 0.
    completion_due: bool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Capture(Recorder),
    Playback(Packets),
}

impl Engine {
    /// An engine at the ring's first byte, not moving yet.
    pub(crate) fn new(
        direction: Direction,
        shape: Shape,
        ring: Ring,
        cyclic: u64,
        id: StreamId,
        run: u32,
    ) -> Self {
        let work = match direction {
            Direction::Input => Work::Capture(Recorder::new(id, shape)),
            Direction::Output => Work::Playback(Packets::new(id, run, shape, ring.bytes())),
        };
        Self { shape, ring, cyclic: cyclic.max(1), frames: 0, timeline: None, completion_due: false, work }
    }

    pub(crate) fn moving(&self) -> bool {
        self.timeline.is_some()
    }

    /// Moves from now on, from the byte where it stopped.
    pub(crate) fn go(&mut self, now: LinkTime) {
        if self.timeline.is_none() {
            self.timeline = Some(Timeline::new(self.shape.rate, now, self.frames));
        }
    }

    /// Moves no more; what is not sent yet is sent.
    pub(crate) fn halt(&mut self, out: &mut Vec<Output>) {
        if self.timeline.take().is_some() {
            match &mut self.work {
                Work::Capture(recorder) => recorder.stop(out),
                Work::Playback(packets) => packets.pause(out),
            }
        }
    }

    /// Lets the remote record as long as the guest can hear it. `recordings` counts them.
    pub(crate) fn listen(&mut self, inlet: &Path, recordings: &mut u32, out: &mut Vec<Output>) {
        if let (Work::Capture(recorder), Some(_)) = (&mut self.work, self.timeline) {
            recorder.listen(inlet, recordings, out);
        }
    }

    /// The remote that was asked to record is gone.
    pub(crate) fn forget_recording(&mut self) {
        if let Work::Capture(recorder) = &mut self.work {
            recorder.forget();
        }
    }

    /// The guest has acknowledged a completion.
    pub(crate) fn acknowledged(&mut self) {
        if let Work::Playback(packets) = &mut self.work {
            packets.acknowledged();
        }
    }

    /// Frames of the microphone.
    pub(crate) fn captured(&mut self, packet: &Packet) {
        if let Work::Capture(recorder) = &mut self.work {
            recorder.push(packet);
        }
    }

    /// Captured frames that wait for the guest; `None`: it does not listen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        match &self.work {
            Work::Capture(recorder) => recorder.waiting(),
            Work::Playback(_) => None,
        }
    }

    /// What the recording has lost since this was asked last.
    pub(crate) fn take_loss(&mut self) -> Loss {
        match &mut self.work {
            Work::Capture(recorder) => recorder.take_loss(),
            Work::Playback(_) => Loss::default(),
        }
    }

    /// The position in the ring (LPIB): 0 to below CBL.
    pub(crate) fn position(&self) -> u32 {
        let bytes = self.frames.wrapping_mul(self.shape.frame_bytes);
        u32::try_from(bytes % self.cyclic).unwrap_or(u32::MAX)
    }

    /// The longest time that one [`Self::advance`] may cover, in nanoseconds: half a lap, at most 50 ms. So each
    /// buffer is visited at most once, whatever the guest's list looks like.
    pub(crate) fn stride(&self) -> u64 {
        let half = self.cyclic.min(self.ring.bytes()) / 2;
        let frames = (half / self.shape.frame_bytes).max(1);
        self.shape.rate.at_most(frames).min(CATCH_UP)
    }

    /// Moves everything up to `now`. `waiting`: a completion that interrupts is not acknowledged. Answers whether a buffer's completion is to be told.
    pub(crate) fn advance(
        &mut self,
        now: LinkTime,
        dma: &dyn Dma,
        path: &Path,
        waiting: bool,
        out: &mut Vec<Output>,
    ) -> Result<bool, DmaError> {
        let Some(timeline) = &mut self.timeline else { return Ok(false) };
        let frames = timeline.position(now).saturating_sub(self.frames);
        self.completion_due |= match &mut self.work {
            Work::Capture(recorder) => recorder.deliver(&mut self.ring, frames, dma, path)?,
            Work::Playback(packets) => packets.collect(&mut self.ring, frames, dma, path, waiting, out)?,
        };
        self.frames += frames;
        // Linux takes a position of 0 at an interrupt for a sign that there is no position buffer.
        let told = self.completion_due && (self.position() != 0 || self.cyclic <= self.shape.frame_bytes);
        self.completion_due &= !told;
        Ok(told)
    }

    /// When [`Self::advance`] has something to tell or to send next.
    pub(crate) fn next(&self) -> Option<LinkTime> {
        let timeline = self.timeline?;
        let packet = match &self.work {
            Work::Capture(_) => None,
            Work::Playback(packets) => packets.frames_wanted(),
        };
        let frames = self.frames_to_completion().into_iter().chain(packet).min()?;
        Some(timeline.time_of(self.frames.saturating_add(frames)))
    }

    fn frames_to_completion(&self) -> Option<u64> {
        if self.completion_due {
            return Some(1);
        }
        let frames = self.ring.to_interrupt()?.div_ceil(self.shape.frame_bytes);
        let position = self.frames.wrapping_add(frames).wrapping_mul(self.shape.frame_bytes) % self.cyclic;
        Some(frames + u64::from(position == 0))
    }
}
