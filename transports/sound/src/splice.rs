//! Cutting time out of decoded sound where it is heard least.

use crate::samples::blend;

/// The length of a cross-fade, per second: 5 ms.
const FADE: u32 = 200;
/// How far ahead the quietest place is looked for, per second: 50 ms.
const SEARCH: u32 = 20;

/// How many frames at either end of a cut [`cut`] looks at.
pub(crate) fn around(rate: u32) -> u64 {
    u64::from(rate / SEARCH) + u64::from((rate / FADE).max(1))
}

/// Takes up to `frames` frames out of interleaved samples, at the quietest 5 ms near their beginning, with a cross-fade;
/// tells how many it were. What is too short for a cross-fade loses its beginning instead.
pub(crate) fn cut(samples: &mut Vec<i32>, frames: usize, rate: u32, channels: usize) -> usize {
    let (channels, fade) = (channels.max(1), (rate / FADE).max(1) as usize);
    let all = samples.len() / channels;
    let frames = frames.min(all);
    let Some(latest) = all.checked_sub(frames + fade) else {
        samples.drain(..frames * channels);
        return frames;
    };
    let search = (rate / SEARCH) as usize;
    let step = fade.div_ceil(4);
    let places = (0..=latest.min(search)).step_by(step);
    let at = places.min_by_key(|at| energy(samples, at * channels, fade * channels)).unwrap_or(0);
    for n in 0..fade * channels {
        let from = samples.get(at * channels + n).copied().unwrap_or(0);
        if let Some(to) = samples.get_mut((at + frames) * channels + n) {
            *to = blend(from, *to, n / channels + 1, fade + 1);
        }
    }
    samples.drain(at * channels..(at + frames) * channels);
    frames
}

fn energy(samples: &[i32], from: usize, count: usize) -> u64 {
    let samples = samples.iter().skip(from).take(count);
    samples.map(|sample| u64::from((sample >> 16).unsigned_abs().pow(2))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_is_where_it_is_quiet_and_as_long_as_was_asked() {
        // Loud, but for 6 ms from frame 160 on.
        let sound = |n: usize| if (160..208).contains(&n) { 3 } else { 1 << (28 + n % 2) };
        let mut samples: Vec<i32> = (0..1_600).map(sound).collect();
        let before = samples.clone();
        assert_eq!(cut(&mut samples, 800, 8_000, 1), 800);
        assert_eq!(samples.len(), 800);
        assert_eq!(samples[..160], before[..160], "nothing changes before the quiet place");
        assert_eq!(samples[248..], before[1_048..], "nor after the cross-fade");
    }

    #[test]
    fn any_length_is_cut_without_losing_half_a_frame() {
        for (all, frames) in [(0, 5), (3, 5), (30, 30), (100, 1), (40, 0), (41, 1)] {
            let mut samples = vec![7; all * 2];
            let gone = cut(&mut samples, frames, 8_000, 2);
            assert_eq!((gone, samples.len()), (frames.min(all), (all - gone) * 2), "{frames} of {all}");
        }
    }
}
