//! The jitter buffer of a sink that is paced by us: bytes of whole frames between a network and a sound card.

use std::{collections::VecDeque, time::Duration};

use wire::audio::Format;

/// What has to wait before a sound card starts: less is an underrun soon, more is latency for ever.
pub(super) const TARGET: Duration = Duration::from_millis(20);
/// What may wait at most.
pub(super) const CAP: Duration = Duration::from_millis(150);

/// Frames that wait for the sound card.
#[derive(Debug)]
pub(super) struct Jitter {
    frame: usize,
    target: usize,
    cap: usize,
    bytes: VecDeque<u8>,
    playing: bool,
    draining: bool,
    pub(super) underruns: u64,
}

impl Jitter {
    pub(super) fn new(format: Format) -> Self {
        let frame = format.frame_bytes() as usize;
        let bytes = |time: Duration| (time.as_secs_f64() * f64::from(format.rate)) as usize * frame;
        Self {
            frame,
            target: bytes(TARGET).max(frame),
            cap: bytes(CAP).max(frame),
            bytes: VecDeque::new(),
            playing: false,
            draining: false,
            underruns: 0,
        }
    }

    /// Frames from the network.
    pub(super) fn push(&mut self, pcm: &[u8]) {
        self.draining = false;
        self.bytes.extend(pcm);
    }

    /// If more waits than may, the oldest of it, so that the target is left: latency is bounded by taking these out of
    /// their turn.
    pub(super) fn excess(&mut self) -> Vec<u8> {
        let excess = if self.bytes.len() > self.cap { self.bytes.len() - self.target } else { 0 };
        self.bytes.drain(..excess - excess % self.frame).collect()
    }

    /// Nothing more is coming for now: what waits is played out.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Frames that wait.
    pub(super) fn queued(&self) -> u64 {
        (self.bytes.len() / self.frame) as u64
    }

    /// Up to so many frames for the sound card; it plays silence for what is missing.
    pub(super) fn pull(&mut self, frames: usize) -> Vec<u8> {
        if !self.playing && !self.draining && self.bytes.len() < self.target {
            return Vec::new();
        }
        let wanted = frames.saturating_mul(self.frame);
        let taken = wanted.min(self.bytes.len());
        self.playing = taken == wanted;
        self.underruns += u64::from(!self.playing && !self.draining);
        self.bytes.drain(..taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::*;

    fn jitter() -> Jitter {
        Jitter::new(Format { rate: 48_000, encoding: Encoding::S16, channels: 2 })
    }

    #[test]
    fn nothing_plays_before_the_target_is_reached_unless_no_more_is_coming() {
        let mut jitter = jitter();
        jitter.push(&[1; 4 * 959]);
        assert!(jitter.pull(240).is_empty());
        jitter.push(&[2; 4]);
        assert_eq!(jitter.pull(240).len(), 960);

        let mut short = self::jitter();
        short.push(&[1; 40]);
        short.drain();
        assert_eq!(short.pull(240).len(), 40);
        assert_eq!(short.underruns, 0);
    }

    #[test]
    fn latency_is_capped_whatever_arrives_and_no_frame_is_lost_by_it() {
        let mut jitter = jitter();
        let mut frames = 0;
        for _ in 0..100 {
            jitter.push(&[0; 4 * 480]);
            frames += jitter.excess().len() as u64 / 4;
            assert!(jitter.queued() <= 48 * 150);
        }
        assert_eq!(jitter.queued() + frames, 48_000);
    }

    #[test]
    fn frames_come_out_in_order_and_a_shortage_is_an_underrun() {
        let mut jitter = jitter();
        let pcm: Vec<u8> = (0..4 * 1000u32).map(|n| n as u8).collect();
        jitter.push(&pcm);
        assert_eq!([jitter.pull(600), jitter.pull(600)].concat(), pcm);
        assert_eq!(jitter.underruns, 1);
    }
}
