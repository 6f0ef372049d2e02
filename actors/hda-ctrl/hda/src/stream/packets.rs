//! What playback sends: packets of 2.5 ms, numbered by frames. Whoever sends them may make longer ones of them.

use bytes::BytesMut;
use pci::{Dma, DmaError};
use wire::audio::{Format, StreamId, ToRemote, Volume};

use super::attention::Attention;
use super::bdl::Ring;
use super::format::Shape;
use crate::codec::{Fader, Levels, Path};
use crate::{Output, Packet};

/// Packets per second.
const PER_SECOND: u64 = 400;

/// The frames of one run that are on their way out.
pub(crate) struct Packets {
    stream: StreamId,
    run: u32,
    frame_bytes: u64,
    /// `None`: nothing that can be played; positions are counted all the same.
    format: Option<Format>,
    /// The index of the first frame in `pending`.
    first: u64,
    /// Whole frames, less than a packet between calls.
    pending: BytesMut,
    packet_bytes: usize,
    fader: Fader,
    attention: Attention,
    /// What was told of how loud it is: decibels below 0 dB, if it is not silent.
    told: Option<Option<u8>>,
}

/// Without the guest's sound.
impl core::fmt::Debug for Packets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            stream,
            run,
            frame_bytes: _,
            format,
            first,
            pending,
            packet_bytes: _,
            fader: _,
            attention: _,
            told: _,
        } = self;
        write!(f, "Packets({stream:?} run {run}, {format:?}, frame {first}, {} bytes wait)", pending.len())
    }
}

impl Packets {
    /// `lap`: the bytes of the ring.
    pub(crate) fn new(stream: StreamId, run: u32, shape: Shape, lap: u64) -> Self {
        let Shape { frame_bytes, sound: format, .. } = shape;
        let frames = format.map_or(1, |format| u64::from(format.rate) / PER_SECOND).max(1);
        let packet_bytes = usize::try_from(frames * frame_bytes).unwrap_or(usize::MAX);
        let (pending, fader) = (BytesMut::new(), Fader::default());
        Self {
            stream,
            run,
            frame_bytes,
            format,
            first: 0,
            pending,
            packet_bytes,
            fader,
            attention: Attention::new(lap),
            told: None,
        }
    }

    /// The guest has acknowledged a completion.
    pub(crate) fn acknowledged(&mut self) {
        self.attention.acknowledged();
    }

    /// Takes the next frames out of the ring and sends what makes whole packets. `waiting`: a completion that
    /// interrupts is not acknowledged. After an error, what was taken by
    /// this call is forgotten.
    pub(crate) fn collect(
        &mut self,
        ring: &mut Ring,
        frames: u64,
        dma: &dyn Dma,
        outlet: &Path,
        waiting: bool,
        out: &mut Vec<Output>,
    ) -> Result<bool, DmaError> {
        let bytes = frames.saturating_mul(self.frame_bytes);
        let (Some(format), Path::Open(levels)) = (self.format, outlet) else {
            self.flush(out);
            self.first += frames;
            return ring.walk(bytes, |_, _| Ok(()));
        };
        self.tell_volume(levels.attenuation(format.channels), out);
        let kept = self.pending.len();
        let interrupts = ring.walk(bytes, |address, length| {
            let start = self.pending.len();
            self.pending.resize(start + length, 0);
            dma.read(address, self.pending.get_mut(start..).unwrap_or_default())
        });
        if interrupts.is_err() {
            self.pending.truncate(kept);
        } else {
            let sound = self.pending.get_mut(kept..).unwrap_or_default();
            self.attention.hear(sound, waiting);
            let silence = Levels::SILENT;
            let levels = if self.attention.lost() { &silence } else { levels };
            self.fader.apply(format, levels, sound);
        }
        while self.pending.len() >= self.packet_bytes {
            self.send(format, self.packet_bytes, out);
        }
        interrupts
    }

    /// Tells how loud the guest has it, if that is news.
    fn tell_volume(&mut self, attenuation: Option<u8>, out: &mut Vec<Output>) {
        if self.told.replace(attenuation) != Some(attenuation) {
            let gain = attenuation.map_or(0, |decibels| -256 * i16::from(decibels));
            let volume = Volume { stream: self.stream, gain, mute: attenuation.is_none() };
            out.push(Output::Audio(ToRemote::Volume(volume)));
        }
    }

    /// The frames that the packet in the making lacks; `None` when nothing is being sent.
    pub(crate) fn frames_wanted(&self) -> Option<u64> {
        self.format?;
        Some((self.packet_bytes.saturating_sub(self.pending.len()) as u64).div_ceil(self.frame_bytes).max(1))
    }

    /// Sends what there is, and that no more will come for now.
    pub(crate) fn pause(&mut self, out: &mut Vec<Output>) {
        self.flush(out);
        if self.format.is_some() {
            let Self { stream, run, first: position, .. } = *self;
            out.push(Output::Audio(ToRemote::Pause { stream, run, position }));
        }
    }

    fn flush(&mut self, out: &mut Vec<Output>) {
        if let (Some(format), false) = (self.format, self.pending.is_empty()) {
            self.send(format, self.pending.len(), out);
        }
    }

    fn send(&mut self, format: Format, bytes: usize, out: &mut Vec<Output>) {
        let pcm = self.pending.split_to(bytes).freeze();
        let (stream, run, position) = (self.stream, self.run, self.first);
        self.first += bytes as u64 / self.frame_bytes;
        out.push(Output::Play(Packet { stream, run, position, format, pcm }));
    }
}
