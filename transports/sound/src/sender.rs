//! The sending end of a stream: frames in, packets out.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use wire::audio::{Coded, Format, Missing, StreamId};

use crate::{
    choice::Plan,
    codec::Encoder,
    redundancy::{Keeper, Red},
};

/// One run of a stream, or one recording, on its way out. Memory: less than a packet that waits, the copies, and half a
/// second to answer from.
#[derive(Debug)]
pub struct Sender {
    stream: StreamId,
    run: u32,
    format: Format,
    plan: Plan,
    encoder: Encoder,
    red: Red,
    keeper: Keeper,
    /// The index of the first frame in `pending`.
    first: u64,
    pending: BytesMut,
}

impl Sender {
    /// The first frame of the run is number `position`.
    #[must_use]
    pub fn new(stream: StreamId, run: u32, format: Format, position: u64, plan: Plan) -> Self {
        Self {
            stream,
            run,
            format,
            plan,
            encoder: Encoder::new(format),
            red: Red::default(),
            keeper: Keeper::default(),
            first: position,
            pending: BytesMut::new(),
        }
    }

    /// How frames are sent from the next packet on.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// The index of the next frame to be taken.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.first + self.waiting() as u64
    }

    /// Frames that are less than a packet, and wait for more.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len() / self.frame()
    }

    /// Takes the next frames of the run, and appends the packets that are complete. What is less than a frame is left
    /// out.
    pub fn push(&mut self, now: Duration, pcm: &[u8], out: &mut Vec<Coded>) {
        let whole = pcm.len() - pcm.len() % self.frame();
        self.pending.extend_from_slice(pcm.get(..whole).unwrap_or_default());
        loop {
            let frames = self.plan.frames.max(1);
            let bytes = usize::from(frames) * self.frame();
            if self.pending.len() < bytes {
                break;
            }
            let pcm = self.pending.split_to(bytes).freeze();
            self.send(now, frames, pcm, out);
        }
    }

    /// No more frames follow for now: sends what is less than a packet.
    pub fn flush(&mut self, now: Duration, out: &mut Vec<Coded>) {
        let frames = u16::try_from(self.pending.len() / self.frame()).unwrap_or(u16::MAX);
        if frames > 0 {
            let pcm = self.pending.split().freeze();
            self.send(now, frames, pcm, out);
        }
    }

    /// Appends what the receiver lacks, as far as it is still there and was not sent again before.
    pub fn answer(&mut self, missing: &Missing, out: &mut Vec<Coded>) {
        if (missing.stream, missing.run) != (self.stream, self.run) {
            return;
        }
        for block in self.keeper.answer(&missing.gaps) {
            let (stream, run, format) = (self.stream, self.run, self.format);
            out.push(Coded { stream, run, again: true, format, block, copies: Vec::new() });
        }
    }

    fn send(&mut self, now: Duration, frames: u16, pcm: Bytes, out: &mut Vec<Coded>) {
        let block = self.encoder.encode(self.plan.codec, self.plan.bits, self.first, frames, pcm);
        self.first = self.first.saturating_add(frames.into());
        let copies = self.red.copies(&block, self.plan.distances);
        self.keeper.keep(now, &block);
        let (stream, run, format) = (self.stream, self.run, self.format);
        out.push(Coded { stream, run, again: false, format, block, copies });
    }

    fn frame(&self) -> usize {
        (self.format.frame_bytes() as usize).max(1)
    }
}
