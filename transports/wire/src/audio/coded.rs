//! Sound that a codec has written, and what a receiver says of it.
//!
//! ```text
//!   Coded:  block 3 | copies of block 2, block 1 ..   a lost packet's frames come again with a later one
//!   Missing ◄── a receiver that has time for it asks for what it lacks
//!   Reception ◄── ten times a second: how far, how full, how lossy
//! ```

use core::time::Duration;

use bytes::Bytes;

use super::{Format, StreamId};

/// The most copies that one message carries.
pub const MAX_COPIES: usize = 4;
/// The most frames of one block: 120 ms, the longest packet of Opus (RFC 6716 §2.1.4), at 192 kHz.
pub const MAX_FRAMES: u16 = 23_040;
/// The most gaps that one [`Missing`] names.
pub const MAX_GAPS: usize = 32;

/// How frames are written in a [`Block`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are: whole frames in the stream's [`Format`].
    Pcm,
    /// One packet of Opus (RFC 6716), at 48 kHz whatever the stream's rate is.
    Opus,
}

/// A run of frames as its codec has written it.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The index of the first frame since the run began.
    pub position: u64,
    /// How many frames of the stream it holds, 1 to [`MAX_FRAMES`].
    pub frames: u16,
    /// How they are written.
    pub codec: Codec,
    /// What the codec wrote. Never empty.
    pub payload: Bytes,
}

/// Without the sound.
impl core::fmt::Debug for Block {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { position, frames, codec, payload } = self;
        write!(f, "Block({frames} frames from {position}, {codec:?}, {} bytes)", payload.len())
    }
}

/// A block, and copies of earlier ones in case that they were lost (as RFC 2198 has it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded {
    /// The stream.
    pub stream: StreamId,
    /// The run, or the recording.
    pub run: u32,
    /// Whether it was asked for by [`Missing`]: its time of arrival says nothing of the network.
    pub again: bool,
    /// The format of the stream.
    pub format: Format,
    /// The frames that it is for.
    pub block: Block,
    /// At most [`MAX_COPIES`], each of a block before it.
    pub copies: Vec<Block>,
}

/// Frames that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The stream.
    pub stream: StreamId,
    /// The run, or the recording.
    pub run: u32,
    /// First frame and number of frames; 1 to [`MAX_GAPS`] of them.
    pub gaps: Vec<(u64, u32)>,
}

/// How a receiver fares. Counts are since the run began, and wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// The stream.
    pub stream: StreamId,
    /// The run, or the recording.
    pub run: u32,
    /// The frame that left for the device at [`Self::at`].
    pub position: u64,
    /// The device's time, since an arbitrary start; whole microseconds.
    pub at: Duration,
    /// Frames that wait after an arrival, on average since the last report, as time; whole microseconds.
    pub level: Duration,
    /// What [`Self::level`] should be; whole microseconds.
    pub target: Duration,
    /// How much later than the fastest packets the slowest of a thousand come; whole microseconds.
    pub jitter: Duration,
    /// Packets since the last report that did not come in time, before anything was repaired, in parts per million.
    pub loss: u32,
    /// How many packets in a row are lost when some are, on average, in hundredths.
    pub burst: u16,
    /// Frames made up because none came.
    pub concealed: u32,
    /// Frames that the time line has slipped by: waited for, or cut out.
    pub slipped: u32,
    /// Packets that came when their time was over.
    pub late: u32,
    /// Packets that came twice, redundant copies not counted.
    pub duplicate: u32,
    /// Times that the device ran out of frames, or was not looked after in time; 0 if that is not known.
    pub xruns: u32,
}

/// How loud a stream is, for whoever maps it to hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// The stream.
    pub stream: StreamId,
    /// In 1/256 dB, as USB audio has it; 0: as it is.
    pub gain: i16,
    /// Silent, whatever the gain.
    pub mute: bool,
}
