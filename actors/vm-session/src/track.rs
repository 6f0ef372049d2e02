//! Sound to a remote that takes Opus as its own kind of track: packets leave the AUDIO lane and go there.

use bytes::Bytes;
use tokio::sync::mpsc;
use wire::audio::{Codec, Coded, StreamId, ToRemote};

/// A packet of Opus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusPacket {
    /// Of its first sample, in samples of 48 kHz; wraps.
    pub timestamp: u32,
    /// The packet. RFC 6716.
    pub payload: Bytes,
}

/// The track of a link. It carries one stream at a time: the one that began first, until it pauses.
#[derive(Debug)]
pub(crate) struct Track {
    packets: mpsc::Sender<OpusPacket>,
    playing: Option<Playing>,
    /// Where the timestamps of the next run begin.
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Playing {
    stream: StreamId,
    run: u32,
    /// The timestamp of frame 0.
    base: u32,
}

impl Track {
    pub(crate) fn new(packets: mpsc::Sender<OpusPacket>) -> Self {
        Self { packets, playing: None, next: 0 }
    }

    /// Takes a message if it belongs on the track; others come back.
    pub(crate) fn take(&mut self, message: ToRemote) -> Option<ToRemote> {
        match &message {
            ToRemote::PlayCoded(coded) if coded.block.codec == Codec::Opus => {
                self.play(coded);
                return None;
            }
            ToRemote::Pause { stream, .. }
                if self.playing.is_some_and(|playing| playing.stream == *stream) =>
            {
                self.playing = None;
            }
            _ => {}
        }
        Some(message)
    }

    fn play(&mut self, Coded { stream, run, again, format, block, .. }: &Coded) {
        // What is sent again comes too late here.
        if *again || self.playing.is_some_and(|playing| playing.stream != *stream) {
            return;
        }
        // Wraps with the timestamps.
        let at = |frame: u64| (u128::from(frame) * 48_000 / u128::from(format.rate.max(1))) as u32;
        let start = at(block.position);
        let playing = self.playing.filter(|playing| playing.run == *run).unwrap_or(Playing {
            stream: *stream,
            run: *run,
            base: self.next.wrapping_sub(start),
        });
        self.playing = Some(playing);
        self.next = playing.base.wrapping_add(at(block.position.saturating_add(block.frames.into())));
        let timestamp = playing.base.wrapping_add(start);
        // Late is lost.
        let _ = self.packets.try_send(OpusPacket { timestamp, payload: block.payload.clone() });
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::{Block, Encoding, Format};

    use super::*;

    fn coded(stream: u8, run: u32, position: u64, codec: Codec) -> ToRemote {
        let format = Format { rate: 24_000, encoding: Encoding::S16, channels: 2 };
        let block = Block { position, frames: 240, codec, payload: "x".into() };
        let (stream, copies) = (StreamId(stream), Vec::new());
        ToRemote::PlayCoded(Coded { stream, run, again: false, format, block, copies })
    }

    #[test]
    fn opus_goes_on_the_track_in_one_line_of_time_and_everything_else_comes_back() {
        let (packets, mut came) = mpsc::channel(8);
        let mut track = Track::new(packets);
        let opus = |stream, run, position| coded(stream, run, position, Codec::Opus);
        assert_eq!(track.take(opus(1, 1, 7200)), None);
        assert_eq!(track.take(opus(1, 1, 7440)), None);
        let pcm = coded(1, 1, 7680, Codec::Pcm);
        assert_eq!(track.take(pcm.clone()), Some(pcm));
        assert_eq!(track.take(opus(2, 9, 0)), None, "another stream is silent meanwhile");
        let pause = ToRemote::Pause { stream: StreamId(1), run: 1, position: 7680 };
        assert_eq!(track.take(pause.clone()), Some(pause));
        assert_eq!(track.take(opus(2, 9, 240)), None);
        let times: Vec<_> =
            std::iter::from_fn(|| came.try_recv().ok()).map(|packet| packet.timestamp).collect();
        assert_eq!(times, [0, 480, 960]);
    }
}
