//! What capture hears: frames of the remote's microphone as they come, and silence where there are none.
//!
//! ```text
//!   moving, and a way from a plugged microphone to the stream that is not muted: Record ──► remote
//!   frames ──► waiting (at most 150 ms, else only the newest 20 ms stay) ──► levels ──► memory
//!   any of it ends: StopRecord ──► remote, and nothing waits any more
//! ```
//!
//! The guest's clock never waits: what is not there when its time has come is silence, and when it comes it is heard
//! later. Frames that are lost on the way leave a hole as long as they were.

use std::collections::VecDeque;

use pci::{Dma, DmaError};
use wire::audio::{Encoding, StreamId, ToRemote};

use super::bdl::Ring;
use super::format::Shape;
use crate::codec::{Fader, Path};
use crate::{Output, Packet};

/// What may wait at most, in milliseconds.
const CAP: u64 = 150;
/// What is left of it when it would be more.
const TARGET: u64 = 20;

/// The microphone's side of a capture stream.
pub(crate) struct Recorder {
    stream: StreamId,
    shape: Shape,
    /// The recording that the remote was asked for.
    recording: Option<u32>,
    /// The index of the frame that is expected next.
    next: u64,
    /// Whole frames.
    waiting: VecDeque<u8>,
    /// Frames of silence since the last ones came.
    starved: u64,
    fader: Fader,
    loss: Loss,
}

/// Frames that a recording has not heard as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loss {
    /// Silence, because the remote's had not come.
    pub(crate) missing: u64,
    /// Left out, because too many waited.
    pub(crate) skipped: u64,
}

/// Without the microphone's sound.
impl core::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { stream, shape: _, recording, next, waiting, starved: _, fader: _, loss } = self;
        let waiting = waiting.len();
        write!(f, "Recorder({stream:?}, {recording:?}, frame {next}, {waiting} bytes wait, {loss:?})")
    }
}

impl Recorder {
    pub(crate) fn new(stream: StreamId, shape: Shape) -> Self {
        let (waiting, fader) = (VecDeque::new(), Fader::default());
        Self { stream, shape, recording: None, next: 0, waiting, starved: 0, fader, loss: Loss::default() }
    }

    /// Asks the remote for its microphone if the way from there is open, or to stop. `recordings` counts them.
    pub(crate) fn listen(&mut self, inlet: &Path, recordings: &mut u32, out: &mut Vec<Output>) {
        let Some(format) = self.shape.sound.filter(|format| inlet.audible(format.channels)) else {
            return self.stop(out);
        };
        if self.recording.is_none() {
            *recordings = recordings.wrapping_add(1);
            self.recording = Some(*recordings);
            (self.next, self.starved) = (0, 0);
            let (stream, run) = (self.stream, *recordings);
            out.push(Output::Audio(ToRemote::Record { stream, run, format }));
        }
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&mut self, out: &mut Vec<Output>) {
        if let Some(run) = self.forget() {
            out.push(Output::Audio(ToRemote::StopRecord { stream: self.stream, run }));
        }
    }

    /// The remote that was asked is gone.
    pub(crate) fn forget(&mut self) -> Option<u32> {
        self.waiting = VecDeque::new();
        self.fader = Fader::default();
        self.recording.take()
    }

    /// Frames that wait for the guest; `None`: it does not listen.
    pub(crate) fn waiting(&self) -> Option<u64> {
        self.recording.map(|_| self.waiting.len() as u64 / self.shape.frame_bytes)
    }

    /// What was lost since this was asked last.
    pub(crate) fn take_loss(&mut self) -> Loss {
        core::mem::take(&mut self.loss)
    }

    /// Takes frames of the recording; those of another one, and those that have come before, are dropped.
    pub(crate) fn push(&mut self, packet: &Packet) {
        let frame = self.bytes(1);
        let mine = self.recording == Some(packet.run) && self.shape.sound == Some(packet.format);
        if !mine || !packet.pcm.len().is_multiple_of(frame) {
            return;
        }
        let known = self.bytes(self.next.saturating_sub(packet.position));
        let Some(pcm) = packet.pcm.get(known..).filter(|pcm| !pcm.is_empty()) else { return };
        // Time that has passed in silence already needs no hole.
        let hole = packet.position.saturating_sub(self.next).saturating_sub(self.starved);
        let hole = self.bytes(hole.min(self.frames_in(CAP)));
        self.waiting.extend(core::iter::repeat_n(self.silence(), hole));
        self.waiting.extend(pcm);
        self.next = packet.position.saturating_add((packet.pcm.len() / frame) as u64);
        self.starved = 0;
        if self.waiting.len() > self.bytes(self.frames_in(CAP)) {
            let excess = self.waiting.len() - self.bytes(self.frames_in(TARGET));
            self.waiting.drain(..excess);
            self.loss.skipped += (excess / frame) as u64;
        }
    }

    /// Puts the next frames into the ring.
    pub(crate) fn deliver(
        &mut self,
        ring: &mut Ring,
        frames: u64,
        dma: &dyn Dma,
        inlet: &Path,
    ) -> Result<bool, DmaError> {
        let bytes = frames.saturating_mul(self.shape.frame_bytes);
        let sound = self.take(bytes, inlet);
        let mut rest = sound.as_slice();
        let silence = self.silence();
        ring.walk(bytes, |address, length| {
            let (sound, after) = rest.split_at(rest.len().min(length));
            rest = after;
            if !sound.is_empty() {
                dma.write(address, sound)?;
            }
            fill(dma, address.wrapping_add(sound.len() as u64), length - sound.len(), silence)
        })
    }

    /// Up to so many bytes that wait, as loud as the codec has them.
    fn take(&mut self, bytes: u64, inlet: &Path) -> Vec<u8> {
        let (Some(format), Path::Open(levels), Some(_)) = (self.shape.sound, inlet, self.recording) else {
            return Vec::new();
        };
        let count = self.waiting.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut sound: Vec<u8> = self.waiting.drain(..count).collect();
        self.fader.apply(format, levels, &mut sound);
        // Before the first frame there is nothing to miss.
        if self.next > 0 {
            let missing = (bytes - count as u64) / self.shape.frame_bytes;
            self.starved += missing;
            self.loss.missing += missing;
        }
        sound
    }

    /// The byte that silence is made of.
    fn silence(&self) -> u8 {
        let unsigned = self.shape.sound.is_some_and(|format| format.encoding == Encoding::U8);
        if unsigned { 0x80 } else { 0 }
    }

    fn bytes(&self, frames: u64) -> usize {
        usize::try_from(frames.saturating_mul(self.shape.frame_bytes)).unwrap_or(usize::MAX)
    }

    fn frames_in(&self, milliseconds: u64) -> u64 {
        self.shape.rate.frames_in(milliseconds * 1_000_000).max(1)
    }
}

fn fill(dma: &dyn Dma, mut address: u64, mut length: usize, byte: u8) -> Result<(), DmaError> {
    let block = [byte; 1024];
    while length > 0 {
        let part = block.get(..length).unwrap_or(&block);
        dma.write(address, part)?;
        address = address.wrapping_add(part.len() as u64);
        length -= part.len();
    }
    Ok(())
}
