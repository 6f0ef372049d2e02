//! Sound as the guest has it, between this model and whoever sends or receives it.

use bytes::Bytes;
use wire::audio::{Format, StreamId};

/// A run of frames of one stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// The stream.
    pub stream: StreamId,
    /// Which run of the stream: grows by one each time the guest starts it from a reset. Of a recording: the one that
    /// [`wire::audio::ToRemote::Record`] began.
    pub run: u32,
    /// The index of the first frame since the run began.
    pub position: u64,
    /// The format of the frames.
    pub format: Format,
    /// Whole frames, interleaved.
    pub pcm: Bytes,
}

/// Without the sound.
impl core::fmt::Debug for Packet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { stream, run, position, format, pcm } = self;
        write!(f, "Packet({stream:?} run {run}, frame {position}, {format:?}, {} bytes)", pcm.len())
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::*;

    #[test]
    fn nobody_reads_what_was_said_into_a_microphone_in_a_log() {
        let format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
        let pcm = Bytes::from_static(&[1, 2, 3, 4]);
        let shown = format!("{:?}", Packet { stream: StreamId(1), run: 3, position: 240, format, pcm });
        assert!(shown.contains("4 bytes") && !shown.contains("\\x01"), "{shown}");
    }
}
