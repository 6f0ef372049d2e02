//! Sound nouns: PCM by frame index, so that both ends can count what was lost.

mod coded;

pub use coded::{Block, Codec, Coded, MAX_COPIES, MAX_FRAMES, MAX_GAPS, Missing, Reception, Volume};

/// A stream of one sound function, numbered by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u8);

/// How one sample is written, as HD Audio keeps it in memory. HDA 1.0a §4.5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Unsigned, one byte.
    U8,
    /// Signed, two bytes, little-endian.
    S16,
    /// 20 bits at the top of a signed little-endian 4-byte word.
    S20,
    /// 24 bits at the top of a signed little-endian 4-byte word.
    S24,
    /// Signed, four bytes, little-endian.
    S32,
}

impl Encoding {
    /// The bytes that one sample takes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::S16 => 2,
            Self::S20 | Self::S24 | Self::S32 => 4,
        }
    }

    /// The bits of a sample that carry sound.
    #[must_use]
    pub fn significant_bits(self) -> u8 {
        match self {
            Self::U8 => 8,
            Self::S16 => 16,
            Self::S20 => 20,
            Self::S24 => 24,
            Self::S32 => 32,
        }
    }
}

/// The format of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Frames per second, 8 000 to 192 000.
    pub rate: u32,
    /// How a sample is written.
    pub encoding: Encoding,
    /// Channels, 1 to 16, interleaved.
    pub channels: u8,
}

impl Format {
    /// The bytes of one frame: one sample of every channel.
    #[must_use]
    pub fn frame_bytes(self) -> u32 {
        self.encoding.bytes() * u32::from(self.channels)
    }
}

/// A jack of the sound function, into which something is plugged or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Jack {
    /// Headphones.
    Headphone,
    /// A microphone.
    Microphone,
}

/// Sound messages to the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRemote {
    /// The guest stopped the stream when it had sent `position` frames of this run; it may go on later.
    Pause {
        /// The stream.
        stream: StreamId,
        /// The run.
        run: u32,
        /// Frames sent so far in this run.
        position: u64,
    },
    /// The guest listens to the microphone: its frames are wanted in this format, from now on, until
    /// [`Self::StopRecord`]. Without it nothing may be sent.
    Record {
        /// The stream.
        stream: StreamId,
        /// Which recording: grows by one each time.
        run: u32,
        /// What the guest takes.
        format: Format,
    },
    /// The guest listens no more.
    StopRecord {
        /// The stream.
        stream: StreamId,
        /// The recording that ends.
        run: u32,
    },
    /// Play these frames.
    PlayCoded(Coded),
    /// How the host receives the recording: what the remote chooses its codec by.
    Reception(Reception),
    /// Frames of the recording that did not arrive: send them once more.
    Missing(Missing),
    /// How loud the guest has its codec set. The frames that are sent have it in them already.
    Volume(Volume),
    /// The host's sample clock follows another card than the one that this run plays on: to the end of the run, the remote
    /// has to resample it. Said once for a run, if at all.
    Apart {
        /// The stream.
        stream: StreamId,
        /// The run.
        run: u32,
    },
}

/// Sound messages to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// Frames of the microphone, for the recording that was asked for.
    RecordedCoded(Coded),
    /// How the remote receives what is played: what the host's clock follows and its codec is chosen by.
    Reception(Reception),
    /// Frames that were to be played did not arrive: send them once more.
    Missing(Missing),
    /// Something was plugged in or pulled out.
    Jack {
        /// Where.
        jack: Jack,
        /// Something is plugged in now.
        present: bool,
    },
}
