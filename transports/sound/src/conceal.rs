//! Sound made up where none came: the last sound again, fading to silence, and a soft return to what comes next.
//!
//! ```text
//!   heard ──────────┐
//!     .. a b c d    │ d c b a a b c d ..   back and forth, so that no two neighbours are far apart; 40 ms to silence
//!                   └─ lost ─────────────┐
//!                                         real sound, faded in over 2.5 ms
//! ```
//! It is for codecs without a concealment of their own: PCM.

use crate::samples::blend;

/// How much of the past is repeated, per second: 10 ms.
const REPEATED: u32 = 100;
/// How long the repetition takes to fade out, per second: 40 ms.
const FADE: u32 = 25;
/// How long the return takes, per second: 2.5 ms.
const RETURN: u32 = 400;

/// The concealment of one stream. Samples are interleaved.
#[derive(Debug, Clone)]
pub struct Concealer {
    channels: usize,
    /// Frames.
    repeated: usize,
    fade: usize,
    back: usize,
    /// The last frames that were heard.
    past: Vec<i32>,
    /// Frames made up since then.
    made: usize,
}

impl Concealer {
    /// For a stream with this many frames a second and channels (0 is taken for 1).
    #[must_use]
    pub fn new(rate: u32, channels: u8) -> Self {
        let frames = |per_second: u32| (rate / per_second).max(1) as usize;
        let (repeated, fade, back) = (frames(REPEATED), frames(FADE), frames(RETURN));
        Self { channels: usize::from(channels.max(1)), repeated, fade, back, past: Vec::new(), made: 0 }
    }

    /// Notes frames that are played as they are.
    pub fn heard(&mut self, samples: &[i32]) {
        let keep = self.repeated * self.channels;
        let new = samples.get(samples.len().saturating_sub(keep)..).unwrap_or_default();
        let excess = (self.past.len() + new.len()).saturating_sub(keep);
        self.past.drain(..excess.min(self.past.len()));
        self.past.extend_from_slice(new);
        self.made = 0;
    }

    /// Appends frames that nobody sent.
    pub fn make(&mut self, frames: usize, out: &mut Vec<i32>) {
        for _ in 0..frames {
            self.frame(|sample| out.push(sample));
        }
    }

    /// Whether the last frames were made up.
    #[must_use]
    pub fn concealing(&self) -> bool {
        self.made > 0
    }

    /// Fades from what would have been made up to the sound that has come.
    pub fn rejoin(&mut self, samples: &mut [i32]) {
        let (channels, back) = (self.channels, self.back);
        for (at, frame) in samples.chunks_exact_mut(channels).take(back).enumerate() {
            let mut real = frame.iter_mut();
            self.frame(|made| {
                if let Some(sample) = real.next() {
                    *sample = blend(made, *sample, at + 1, back + 1);
                }
            });
        }
        self.made = 0;
    }

    /// What comes next is played as it is, whatever was made up.
    pub fn forget(&mut self) {
        self.made = 0;
    }

    fn frame(&mut self, mut put: impl FnMut(i32)) {
        let frames = self.past.len() / self.channels;
        let gone = self.made;
        self.made = self.made.saturating_add(1);
        if frames == 0 || gone >= self.fade {
            return (0..self.channels).for_each(|_| put(0));
        }
        let turn = gone % (2 * frames);
        let at = if turn < frames { frames - 1 - turn } else { turn - frames };
        let frame = self.past.chunks_exact(self.channels).nth(at).unwrap_or_default();
        frame.iter().for_each(|sample| put(blend(*sample, 0, gone, self.fade)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(frames: usize) -> Vec<i32> {
        (0..frames).map(|n| ((n as f64 * 0.13).sin() * 1e9) as i32).collect()
    }

    #[test]
    fn a_gap_is_filled_without_a_jump_and_fades_to_silence() {
        let mut concealer = Concealer::new(48_000, 1);
        let heard = sine(4_800);
        concealer.heard(&heard);
        let mut all = heard.clone();
        concealer.make(4_800, &mut all);
        let steepest = heard.windows(2).map(|w| w[1].abs_diff(w[0])).max().unwrap();
        assert!(all.windows(2).all(|w| w[1].abs_diff(w[0]) <= steepest + steepest / 8));
        assert!(all[4_800 + 1_920..].iter().all(|sample| *sample == 0), "silent after 40 ms");
        assert!(concealer.concealing());
    }

    #[test]
    fn the_return_starts_near_what_was_made_up_and_ends_exact() {
        let mut concealer = Concealer::new(48_000, 1);
        concealer.heard(&[1 << 30; 480]);
        concealer.make(48, &mut Vec::new());
        let mut samples = vec![0; 480];
        concealer.rejoin(&mut samples);
        assert!(samples[0] > 1 << 29 && samples[119] < 1 << 24, "{} {}", samples[0], samples[119]);
        assert!(samples[120..].iter().all(|sample| *sample == 0));
        assert!(!concealer.concealing());
    }

    #[test]
    fn channels_stay_where_they_are_and_nothing_heard_is_silence() {
        let mut concealer = Concealer::new(8_000, 2);
        let mut out = Vec::new();
        concealer.make(3, &mut out);
        assert_eq!(out, [0; 6]);
        concealer.heard(&[1_000_000, -1_000_000].repeat(100));
        out.clear();
        concealer.make(100, &mut out);
        assert!(out.chunks(2).all(|frame| frame[0] > 0 && frame[1] < 0));
    }
}
