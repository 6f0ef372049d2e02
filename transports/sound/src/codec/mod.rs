//! PCM and Opus: frames to blocks and back.
//!
//! PCM is the frames as they are. Opus is `ropus` 0.12, a port of libopus's fixed-point codec to Rust whose output equals
//! the original's bit for bit: it needs neither C nor cmake, builds for wasm32, and its packets are what libopus and
//! browsers read and write. (`opusic-c` and `opus` wrap libopus itself and compile it with cmake and a C compiler.)
//! It sits behind the feature `opus`.
//!
//! | | PCM | Opus |
//! |---|---|---|
//! | packets | any whole number of frames | 2.5, 5, 10, 20 ms, if that is a whole number of frames |
//! | rates | all | 48 kHz; others are converted, and back ([`crate::resample::Converter`]) |
//! | channels | 1 to 16 | 1 and 2; streams with more stay PCM: their channels must not drift apart in quality |
//! | lost | [`crate::conceal`] | Opus's own concealment, at most 200 ms |
//! | delay of its own | none | 2.5 ms (restricted low delay: CELT only) |
//!
//! A decoder takes any bytes: what is not a block is [`Damaged`], leaves the state as if the block were lost, and costs
//! no more than one. A block never yields more or fewer frames than it says.

#[cfg(feature = "opus")]
mod opus;

use core::time::Duration;

use bytes::Bytes;
use wire::audio::{Block, Codec, Format};

use crate::{
    conceal::Concealer,
    samples::{narrow, widen},
};

/// The packet times there are, shortest first.
pub const PACKETS: [Duration; 4] = [
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
];

/// Concealment goes on for 1/5 s, then there is silence.
const MADE_AT_MOST: u32 = 5;

/// A block that its codec cannot read; it is to be taken for lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a damaged block of {0:?}")]
pub struct Damaged(pub Codec);

/// The frames of a packet of this time; `None`: it would not be whole ones.
#[must_use]
pub fn whole_frames(packet: Duration, rate: u32) -> Option<u16> {
    let frames = packet.as_micros() * u128::from(rate);
    u16::try_from(frames / 1_000_000).ok().filter(|_| frames > 0 && frames.is_multiple_of(1_000_000))
}

/// The frames of an Opus packet of a stream: the shortest one that is at least this long. `None`: the stream cannot be
/// Opus.
#[must_use]
pub fn opus_frames(packet: Duration, format: Format) -> Option<u16> {
    let fits = cfg!(feature = "opus") && (1..=2).contains(&format.channels);
    let whole = |time: &Duration| whole_frames(*time, format.rate).filter(|_| *time >= packet);
    PACKETS.iter().find_map(whole).filter(|_| fits)
}

/// Writes blocks of one stream.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    #[cfg(feature = "opus")]
    opus: Option<opus::Writer>,
}

impl Encoder {
    /// For a stream of this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            #[cfg(feature = "opus")]
            opus: None,
        }
    }

    /// Writes whole frames; PCM if the codec cannot take them. `bits`: what Opus may use per second.
    pub fn encode(&mut self, codec: Codec, bits: u32, position: u64, frames: u16, pcm: Bytes) -> Block {
        let opus = match codec {
            Codec::Pcm => None,
            Codec::Opus => self.opus(bits, frames, &pcm),
        };
        let (codec, payload) = opus.map_or((Codec::Pcm, pcm), |packet| (Codec::Opus, packet));
        Block { position, frames, codec, payload }
    }

    #[cfg(feature = "opus")]
    fn opus(&mut self, bits: u32, frames: u16, pcm: &[u8]) -> Option<Bytes> {
        if self.opus.is_none() {
            self.opus = opus::Writer::new(self.format);
        }
        let mut samples = Vec::new();
        widen(self.format.encoding, pcm, &mut samples);
        self.opus.as_mut()?.write(bits, frames, &samples)
    }

    #[cfg(not(feature = "opus"))]
    fn opus(&mut self, _: u32, _: u16, _: &[u8]) -> Option<Bytes> {
        let _ = (self.format, widen);
        None
    }
}

/// Reads blocks of one stream, and makes up what is missing. Samples are as [`crate::samples`] has them, interleaved.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    concealer: Concealer,
    last: Option<Codec>,
    made: usize,
    block: Vec<i32>,
    #[cfg(feature = "opus")]
    opus: Option<opus::Reader>,
}

impl Decoder {
    /// For a stream of this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            concealer: Concealer::new(format.rate, format.channels),
            last: None,
            made: 0,
            block: Vec::new(),
            #[cfg(feature = "opus")]
            opus: None,
        }
    }

    /// Appends the frames of a block after the first `skip`.
    ///
    /// # Errors
    /// The block is not what it says; nothing was appended.
    pub fn decode(
        &mut self,
        codec: Codec,
        payload: &[u8],
        frames: usize,
        skip: usize,
        out: &mut Vec<i32>,
    ) -> Result<(), Damaged> {
        let mut block = core::mem::take(&mut self.block);
        block.clear();
        let read = match codec {
            Codec::Pcm => {
                widen(self.format.encoding, payload, &mut block);
                Ok(())
            }
            Codec::Opus => self.read_opus(payload, frames, &mut block),
        };
        let channels = usize::from(self.format.channels);
        let whole = read.is_ok() && block.len() == frames * channels && skip <= frames;
        if let Some(rest) = block.get_mut(skip * channels..).filter(|_| whole) {
            // Opus comes back by itself; PCM does not, and one codec does not know where the other one was.
            let switched = self.last.is_some_and(|last| last != codec);
            if switched || (codec == Codec::Pcm && self.concealer.concealing()) {
                self.concealer.rejoin(rest);
            }
            self.concealer.heard(rest);
            out.extend_from_slice(rest);
            (self.last, self.made) = (Some(codec), 0);
        }
        self.block = block;
        if whole { Ok(()) } else { Err(Damaged(codec)) }
    }

    /// Appends frames that did not come.
    pub fn conceal(&mut self, frames: usize, out: &mut Vec<i32>) {
        let end = out.len() + frames * usize::from(self.format.channels);
        let most = (self.format.rate / MADE_AT_MOST) as usize;
        let frames = frames.min(most.saturating_sub(self.made));
        self.made += frames;
        match self.last {
            Some(Codec::Opus) => self.make_opus(frames, out),
            _ => self.concealer.make(frames, out),
        }
        out.resize(end, 0);
    }

    /// What comes next is played as it is, whatever was made up.
    pub fn forget_concealment(&mut self) {
        self.concealer.forget();
        self.made = 0;
    }

    /// Whether the last frames were made up.
    #[must_use]
    pub fn concealing(&self) -> bool {
        self.made > 0
    }

    #[cfg(feature = "opus")]
    fn read_opus(&mut self, payload: &[u8], frames: usize, block: &mut Vec<i32>) -> Result<(), Damaged> {
        if self.opus.is_none() {
            self.opus = opus::Reader::new(self.format);
        }
        let read = self.opus.as_mut().and_then(|opus| opus.read(payload, frames, block));
        read.ok_or(Damaged(Codec::Opus))
    }

    #[cfg(not(feature = "opus"))]
    fn read_opus(&mut self, _: &[u8], _: usize, _: &mut Vec<i32>) -> Result<(), Damaged> {
        Err(Damaged(Codec::Opus))
    }

    #[cfg(feature = "opus")]
    fn make_opus(&mut self, frames: usize, out: &mut Vec<i32>) {
        if let Some(opus) = &mut self.opus {
            opus.make(frames, out);
        }
    }

    #[cfg(not(feature = "opus"))]
    fn make_opus(&mut self, frames: usize, out: &mut Vec<i32>) {
        self.concealer.make(frames, out);
    }
}

/// Samples as PCM on the wire.
#[must_use]
pub fn pcm(format: Format, samples: &[i32]) -> Bytes {
    let mut bytes = bytes::BytesMut::new();
    narrow(format.encoding, samples, &mut bytes);
    bytes.freeze()
}
