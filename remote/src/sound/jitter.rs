//! The jitter buffer: bytes of whole frames between a network and a sound card. Latency is bounded by construction:
//! beyond the cap the oldest frames go.

use std::{collections::VecDeque, time::Duration};

use wire::audio::Format;

/// What has to wait before a sound card starts: less is an underrun soon, more is latency for ever.
const TARGET: Duration = Duration::from_millis(20);
/// What may wait at most.
const CAP: Duration = Duration::from_millis(150);

/// Frames that wait for the sound card.
#[derive(Debug)]
pub(crate) struct Jitter {
    frame: usize,
    target: usize,
    cap: usize,
    bytes: VecDeque<u8>,
    playing: bool,
    draining: bool,
    pub(crate) played: u64,
    pub(crate) underruns: u64,
    pub(crate) dropped: u64,
}

impl Jitter {
    pub(crate) fn new(format: Format) -> Self {
        let frame = format.frame_bytes() as usize;
        let bytes = |time: Duration| (time.as_secs_f64() * f64::from(format.rate)) as usize * frame;
        Self {
            frame,
            target: bytes(TARGET),
            cap: bytes(CAP),
            bytes: VecDeque::new(),
            playing: false,
            draining: false,
            played: 0,
            underruns: 0,
            dropped: 0,
        }
    }

    /// Frames from the network.
    pub(crate) fn push(&mut self, pcm: &[u8]) {
        self.draining = false;
        self.bytes.extend(pcm);
        if self.bytes.len() > self.cap {
            let excess = self.bytes.len() - self.target;
            let excess = excess - excess % self.frame;
            self.bytes.drain(..excess);
            self.dropped += (excess / self.frame) as u64;
        }
    }

    /// Nothing more is coming for now: what waits is played out.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Frames that wait.
    pub(crate) fn queued(&self) -> u64 {
        (self.bytes.len() / self.frame) as u64
    }

    /// Up to so many frames for the sound card, into the front of `out`; the rest of it is the card's to silence.
    /// Returns the bytes written.
    pub(crate) fn pull(&mut self, frames: usize, mut out: impl FnMut(&[u8])) -> usize {
        if !self.playing {
            if !self.draining && self.bytes.len() < self.target.max(self.frame) {
                return 0;
            }
            self.playing = true;
        }
        let wanted = frames * self.frame;
        let taken = wanted.min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let first = taken.min(front.len());
        out(&front[..first]);
        out(&back[..taken - first]);
        self.bytes.drain(..taken);
        self.played += (taken / self.frame) as u64;
        if taken < wanted && !self.draining {
            self.underruns += 1;
            self.playing = false;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::*;

    fn jitter() -> Jitter {
        Jitter::new(Format { rate: 48_000, encoding: Encoding::S16, channels: 2 })
    }

    fn pull(jitter: &mut Jitter, frames: usize) -> Vec<u8> {
        let mut out = Vec::new();
        jitter.pull(frames, |bytes| out.extend(bytes));
        out
    }

    #[test]
    fn nothing_plays_before_the_target_is_reached_unless_no_more_is_coming() {
        let mut jitter = jitter();
        jitter.push(&[1; 4 * 959]);
        assert!(pull(&mut jitter, 240).is_empty());
        jitter.push(&[2; 4]);
        assert_eq!(pull(&mut jitter, 240).len(), 960);

        let mut short = self::jitter();
        short.push(&[1; 40]);
        short.drain();
        assert_eq!(pull(&mut short, 240).len(), 40);
        assert_eq!(short.underruns, 0);
    }

    #[test]
    fn latency_is_capped_whatever_arrives_and_what_goes_is_counted() {
        let mut jitter = jitter();
        for _ in 0..100 {
            jitter.push(&[0; 4 * 480]);
        }
        assert!(jitter.queued() <= 48 * 150);
        assert_eq!(jitter.queued() + jitter.dropped, 48_000);
    }

    #[test]
    fn frames_come_out_in_order_and_a_shortage_is_an_underrun() {
        let mut jitter = jitter();
        let pcm: Vec<u8> = (0..4 * 1000u32).map(|n| n as u8).collect();
        jitter.push(&pcm);
        let mut out = pull(&mut jitter, 600);
        out.extend(pull(&mut jitter, 600));
        assert_eq!(out, pcm);
        assert_eq!((jitter.played, jitter.underruns), (1000, 1));
    }
}
