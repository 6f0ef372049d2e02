//! Levels that change without a click: each change takes 5 ms.

use wire::audio::Format;

use super::amplifier::{Levels, scale};

/// How many changes fit into a second.
const PER_SECOND: u32 = 200;

/// The levels of one stream's sound over time. The first ones apply at once.
#[derive(Debug, Default)]
pub(crate) struct Fader {
    goal: Option<Levels>,
    /// The factors that the change began with.
    from: [f64; 16],
    /// Frames until the goal is reached, and how many the change takes in all.
    left: u32,
    all: u32,
}

impl Fader {
    /// Applies levels to the next whole frames of the stream. At 0 dB, and at 0 dB only, the bytes stay as they are.
    pub(crate) fn apply(&mut self, format: Format, levels: &Levels, pcm: &mut [u8]) {
        if pcm.is_empty() {
            return;
        }
        if self.goal.as_ref() != Some(levels) {
            self.turn_to(format, levels);
        }
        let (sample, frame) = (format.encoding.bytes() as usize, format.frame_bytes() as usize);
        let changing = pcm.len().min(self.left as usize * frame);
        let (changing, steady) = pcm.split_at_mut(changing);
        for frame in changing.chunks_exact_mut(frame) {
            self.left -= 1;
            for (channel, sample) in frame.chunks_exact_mut(sample).enumerate() {
                scale(format.encoding, sample, self.factor(channel));
            }
        }
        levels.apply(format, steady);
    }

    fn turn_to(&mut self, format: Format, levels: &Levels) {
        let now = core::array::from_fn(|channel| self.factor(channel));
        if self.goal.replace(levels.clone()).is_some() {
            self.from = now;
            self.all = (format.rate / PER_SECOND).max(1);
            self.left = self.all;
        }
    }

    fn factor(&self, channel: usize) -> f64 {
        let from = self.from.get(channel).copied().unwrap_or_default();
        let goal = self.goal.as_ref().map_or(0.0, |goal| goal.factor(channel));
        if self.left == 0 { goal } else { goal + (from - goal) * f64::from(self.left) / f64::from(self.all) }
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::super::amplifier::Level;
    use super::*;

    const FORMAT: Format = Format { rate: 8_000, encoding: Encoding::S16, channels: 2 };

    fn levels(left: Level, right: Level) -> Levels {
        let mut levels = [Level::SILENT; 16];
        (levels[0], levels[1]) = (left, right);
        Levels(levels)
    }

    /// 1000 on both sides, so many times, through the fader.
    fn faded(fader: &mut Fader, levels: &Levels, frames: usize) -> Vec<[i16; 2]> {
        let mut pcm: Vec<u8> = 1000i16.to_le_bytes().into_iter().cycle().take(4 * frames).collect();
        fader.apply(FORMAT, levels, &mut pcm);
        let side = |frame: &[u8], at| i16::from_le_bytes([frame[at], frame[at + 1]]);
        pcm.chunks_exact(4).map(|frame| [side(frame, 0), side(frame, 2)]).collect()
    }

    #[test]
    fn the_first_levels_apply_from_the_first_frame_on() {
        let mut fader = Fader::default();
        assert_eq!(faded(&mut fader, &levels(Level::SILENT, Level::UNITY), 2), [[0, 1000]; 2]);
    }

    #[test]
    fn a_change_takes_5_ms_in_equal_steps_however_it_is_cut_and_leaves_the_other_side_alone() {
        let (loud, quiet) = (levels(Level::UNITY, Level::UNITY), levels(Level::SILENT, Level::UNITY));
        for cut in [1, 7, 40, 100] {
            let mut fader = Fader::default();
            faded(&mut fader, &loud, 1);
            let mut heard = Vec::new();
            while heard.len() < 100 {
                heard.extend(faded(&mut fader, &quiet, cut));
            }
            // 40 frames at 8 kHz: 25 less with each.
            let expected = |n: i16| [(1000 - 25 * (n + 1)).max(0), 1000];
            assert!(heard.iter().zip(0..).all(|(heard, n)| *heard == expected(n)), "{cut}: {heard:?}");
        }
    }

    #[test]
    fn a_change_of_mind_goes_on_from_where_it_is_and_ends_with_untouched_bytes() {
        let (loud, quiet) = (levels(Level::UNITY, Level::UNITY), levels(Level::SILENT, Level::SILENT));
        let mut fader = Fader::default();
        faded(&mut fader, &loud, 1);
        let down = faded(&mut fader, &quiet, 20);
        assert_eq!(down.last(), Some(&[500, 500]));
        let up = faded(&mut fader, &loud, 41);
        assert!(up[0][0] > 500 && up[0][0] < 520 && up[38][0] < 1000);
        assert_eq!(up[40], [1000, 1000]);
        let mut pcm: Vec<u8> = (0..=255).collect();
        fader.apply(FORMAT, &loud, &mut pcm);
        assert!(pcm.iter().copied().eq(0..=255));
    }
}
