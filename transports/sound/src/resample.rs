//! Another rate, or the same one by another clock: rubato, for frames of samples as they are kept here.
//!
//! Between equal rates a septic polynomial follows a drift of some hundred parts per million: 0.08 ms late, the
//! residual 145 dB down at 1 kHz. Between others, such as 44.1 and 48 kHz, a windowed sinc of 128 points keeps what
//! would alias out; it is 1.3 ms late. Sound passes as 32-bit floating point: 24 bits exact.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, PolynomialDegree, Resampler as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

use crate::samples::{from_float, to_float};

/// How far the ratio may leave the nominal one: more than any [`crate::clock::Limits`].
const MOST: f64 = 1.01;

/// Frames of what comes in that a filter hears at once, at most: after so many of silence it is silent.
pub const REACH: usize = 128;

/// Frames of the past that a filter between equal rates hears before it goes on with them: more than it is long.
pub const PAST: usize = 16;

/// Why there is no resampler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no resampler from {from} to {to} Hz with {channels} channels: {reason}")]
pub struct Unfit {
    from: u32,
    to: u32,
    channels: u8,
    reason: String,
}

/// A stream's way from one clock to another. Frames are interleaved.
pub struct Resampler {
    inner: Async<f32>,
    channels: usize,
    most: usize,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl core::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Resampler({} channels, ratio {})", self.channels, self.inner.resample_ratio())
    }
}

impl Resampler {
    /// From one rate to another (hertz), writing at most `most` frames at once.
    ///
    /// # Errors
    /// A rate, the number of channels, or `most` is 0, or out of all proportion.
    pub fn new(from: u32, to: u32, channels: u8, most: usize) -> Result<Self, Unfit> {
        let unfit = |reason: String| Unfit { from, to, channels, reason };
        if from == 0 || to == 0 || channels == 0 || most == 0 {
            return Err(unfit("nothing to do".to_owned()));
        }
        let (ratio, count) = (f64::from(to) / f64::from(from), usize::from(channels));
        let inner = if from == to {
            Async::new_poly(ratio, MOST, PolynomialDegree::Septic, most, count, FixedAsync::Output)
        } else {
            let sinc = SincInterpolationParameters {
                sinc_len: REACH,
                f_cutoff: None,
                oversampling_factor: 256,
                interpolation: SincInterpolationType::Quadratic,
                window: WindowFunction::BlackmanHarris2,
            };
            Async::new_sinc(ratio, MOST, &sinc, most, count, FixedAsync::Output)
        };
        let inner = inner.map_err(|error| unfit(error.to_string()))?;
        Ok(Self { inner, channels: count, most, input: Vec::new(), output: Vec::new() })
    }

    /// Takes the sound faster than nominal by so many parts per billion, from the next frame on, without a jump.
    pub fn set_ratio(&mut self, parts_per_billion: i32) {
        let relative = 1.0 / (1.0 + f64::from(parts_per_billion.clamp(-9_000_000, 9_000_000)) / 1e9);
        if let Some(adjustable) = self.inner.as_adjustable() {
            // In range by the clamp; a refusal leaves the ratio as it is.
            let _ = adjustable.set_resample_ratio_relative(relative, true);
        }
    }

    /// The frames that [`Self::process`] wants for so many frames (at most what was said in [`Self::new`]).
    pub fn needed(&mut self, frames: usize) -> usize {
        if let Some(resizable) = self.inner.as_resizable() {
            let _ = resizable.set_chunk_size(frames.clamp(1, self.most));
        }
        self.inner.input_frames_next()
    }

    /// The most frames that [`Self::process`] makes of so many.
    fn made_of(&mut self, input: usize) -> usize {
        let (mut least, mut most) = (0, self.most);
        while least < most {
            let frames = (least + most).div_ceil(2);
            if self.needed(frames) <= input {
                least = frames;
            } else {
                most = frames - 1;
            }
        }
        least
    }

    /// How much later a frame comes out than it went in, in frames, as long as nothing is faster or slower.
    #[must_use]
    pub fn delay(&self) -> usize {
        // The first one that comes out is a step after the place that this counts from.
        self.inner.output_delay().saturating_sub(1)
    }

    /// Makes `out` (whole frames) of as many frames as [`Self::needed`] has just asked for. Returns whether it could;
    /// if not, `out` is silent.
    pub fn process(&mut self, input: &[i32], out: &mut [i32]) -> bool {
        self.input.clear();
        self.input.extend(input.iter().map(|sample| to_float(*sample)));
        self.output.clear();
        self.output.resize(out.len(), 0.0);
        let (channels, frames) = (self.channels, out.len() / self.channels);
        let done =
            InterleavedSlice::new(&self.input, channels, input.len() / channels).ok().and_then(|from| {
                let mut to = InterleavedSlice::new_mut(&mut self.output, channels, frames).ok()?;
                self.inner.process_into_buffer(&from, &mut to, None).ok()
            });
        out.iter_mut().zip(&self.output).for_each(|(to, from)| *to = from_float(*from));
        done.is_some_and(|(_, written)| written == frames)
    }
}

/// A stream at another fixed rate, or by another clock, in pieces of any length: what comes out begins with silence, as
/// long as the filter is late.
#[derive(Debug)]
pub struct Converter {
    resampler: Resampler,
    channels: usize,
    waiting: Vec<i32>,
    /// Frames to come that were played already.
    played: usize,
}

impl Converter {
    /// From one rate to another (hertz), writing at most `most` frames at once.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub fn new(from: u32, to: u32, channels: u8, most: usize) -> Result<Self, Unfit> {
        let mut resampler = Resampler::new(from, to, channels, most)?;
        let channels = usize::from(channels);
        // As much as the first piece wants more than later ones, and one frame for the rounding.
        let ahead = resampler.needed(1) + 1;
        Ok(Self { resampler, channels, waiting: vec![0; ahead * channels], played: 0 })
    }

    /// The same rate by another clock from now on, for a stream of which `past` (whole frames, of which the last [`PAST`]
    /// matter) was played as it came. [`Self::convert_all`] goes on from there: no frame is lost or doubled, and there is no
    /// silence, if there was none.
    ///
    /// # Errors
    /// As [`Resampler::new`].
    pub fn after(past: &[i32], rate: u32, channels: u8, most: usize) -> Result<Self, Unfit> {
        let resampler = Resampler::new(rate, rate, channels, most)?;
        let channels = usize::from(channels);
        let past = past.get(past.len().saturating_sub(PAST * channels)..).unwrap_or_default();
        let mut waiting = vec![0; PAST * channels - past.len()];
        waiting.extend_from_slice(past);
        let played = PAST + resampler.delay();
        Ok(Self { resampler, channels, waiting, played })
    }

    /// See [`Resampler::set_ratio`]. From then on both sides do not last equally long: it is for [`Self::convert_all`].
    pub fn set_ratio(&mut self, parts_per_billion: i32) {
        self.resampler.set_ratio(parts_per_billion);
    }

    /// Takes whole frames at the first rate, and appends to `out` as many at the second as can be made of all that has come.
    pub fn convert_all(&mut self, input: &[i32], out: &mut Vec<i32>) {
        self.waiting.extend_from_slice(input);
        while let made @ 1.. = self.resampler.made_of(self.waiting.len() / self.channels) {
            let needed = self.resampler.needed(made) * self.channels;
            let piece = out.len();
            out.resize(piece + made * self.channels, 0);
            let (input, made_of_it) = (self.waiting.get(..needed), out.get_mut(piece..));
            if !self.resampler.process(input.unwrap_or_default(), made_of_it.unwrap_or_default()) {
                // It never refuses; if it did, what it left would gather.
                return self.waiting.clear();
            }
            self.waiting.drain(..needed);
            let played = self.played.min(made);
            self.played -= played;
            out.drain(piece..piece + played * self.channels);
        }
    }

    /// Takes whole frames at the first rate and fills `out` with frames at the second; both last equally long.
    pub fn convert(&mut self, input: &[i32], out: &mut [i32]) {
        self.waiting.extend_from_slice(input);
        for piece in out.chunks_mut(self.resampler.most * self.channels) {
            let needed = self.resampler.needed(piece.len() / self.channels) * self.channels;
            if self.waiting.len() < needed {
                self.waiting.resize(needed, 0);
            }
            self.resampler.process(self.waiting.get(..needed).unwrap_or_default(), piece);
            self.waiting.drain(..needed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(frames: std::ops::Range<usize>, hertz: f64, rate: f64) -> Vec<i32> {
        let angle = |n: usize| n as f64 * hertz / rate * core::f64::consts::TAU;
        frames.map(|n| (angle(n).sin() * 1e9) as i32).collect()
    }

    /// How far below a sine of this frequency the rest is, in dB: a least-squares fit.
    fn purity(samples: &[i32], hertz: f64, rate: f64) -> f64 {
        let turn = |n: usize| (n as f64 * hertz / rate * core::f64::consts::TAU).sin_cos();
        // The normal equations: a part of a cycle makes sine and cosine depend on each other.
        let [mut ss, mut sc, mut cc, mut sy, mut cy] = [0.0; 5];
        for (n, sample) in samples.iter().enumerate() {
            let ((s, c), y) = (turn(n), f64::from(*sample));
            (ss, sc, cc, sy, cy) = (ss + s * s, sc + s * c, cc + c * c, sy + s * y, cy + c * y);
        }
        let determinant = ss * cc - sc * sc;
        let (sin, cos) = ((sy * cc - cy * sc) / determinant, (cy * ss - sy * sc) / determinant);
        let rest = samples.iter().enumerate().map(|(n, sample)| {
            let (s, c) = turn(n);
            (f64::from(*sample) - sin * s - cos * c).powi(2)
        });
        10.0 * ((sin * sin + cos * cos) / 2.0 / (rest.sum::<f64>() / samples.len() as f64)).log10()
    }

    #[test]
    fn a_drift_of_200_ppm_changes_the_pitch_and_nothing_else() {
        let mut resampler = Resampler::new(48_000, 48_000, 1, 480).unwrap();
        resampler.set_ratio(200_000);
        let (mut from, mut out) = (0, Vec::new());
        for _ in 0..500 {
            let needed = resampler.needed(480);
            let mut piece = [0; 480];
            assert!(resampler.process(&sine(from..from + needed, 997.0, 48_000.0), &mut piece));
            from += needed;
            out.extend(piece);
        }
        assert!((i64::try_from(from).unwrap() - 240_048).abs() <= 10, "{from} frames were taken for 240000");
        let purity = purity(&out[48_000..96_000], 997.0 * 1.0002, 48_000.0);
        println!("septic polynomial at 200 ppm: the rest is {purity:.1} dB down");
        assert!(purity > 120.0, "{purity:.1} dB");
    }

    #[test]
    fn forty_four_one_becomes_forty_eight_and_back_piece_by_piece() {
        let mut up = Converter::new(44_100, 48_000, 2, 480).unwrap();
        let mut down = Converter::new(48_000, 44_100, 2, 441).unwrap();
        let mut left = Vec::new();
        for n in 0..300 {
            let mono = sine(n * 441..(n + 1) * 441, 1_000.0, 44_100.0);
            let stereo: Vec<i32> = mono.iter().flat_map(|sample| [*sample, 0]).collect();
            let (mut middle, mut back) = ([0; 960], [0; 882]);
            up.convert(&stereo, &mut middle);
            down.convert(&middle, &mut back);
            assert!(back.iter().skip(1).step_by(2).all(|sample| *sample == 0), "channels stay apart");
            left.extend(back.iter().step_by(2));
        }
        let purity = purity(&left[44_100..88_200], 1_000.0, 44_100.0);
        println!("44.1 to 48 kHz and back: the rest is {purity:.1} dB down");
        assert!(purity > 90.0, "{purity:.1} dB");
    }

    #[test]
    fn another_clock_in_the_middle_of_a_sound_makes_no_jump_and_loses_no_frame() {
        for (from, ppb) in [(0, 0), (300, 200_000), (1_000, -4_000_000)] {
            let line = |frames: std::ops::Range<usize>| {
                frames.flat_map(|n| [n as i32 * 4_096, -(n as i32) * 4_096]).collect::<Vec<i32>>()
            };
            let mut heard = line(0..from);
            let mut converter = Converter::after(&heard, 48_000, 2, 480).unwrap();
            converter.set_ratio(ppb);
            let mut at = from;
            for frames in [1, 0, 7, 480, 1_000, 64].into_iter().cycle().take(600) {
                converter.convert_all(&line(at..at + frames), &mut heard);
                at += frames;
            }
            let (left, right): (Vec<i32>, Vec<i32>) =
                heard.as_chunks().0.iter().map(|[l, r]| (*l, *r)).unzip();
            let step = 4_096.0 * (1.0 + f64::from(ppb) / 1e9);
            // A run that begins here begins with silence: there the filter rings.
            let smooth = if from == 0 { 16 } else { 1 };
            for (n, pair) in left.windows(2).enumerate().skip(smooth) {
                let off = f64::from(pair[1] - pair[0]) - if n < from { 4_096.0 } else { step };
                assert!(off.abs() < 600.0, "{ppb}: {pair:?} at {n}");
            }
            assert!(left.iter().zip(&right).all(|(left, right)| (left + right).abs() <= 256), "{ppb}");
            let due = from as f64 + (at - from) as f64 / (1.0 + f64::from(ppb) / 1e9);
            let waits = due - left.len() as f64;
            assert!((0.0..9.0).contains(&waits), "{ppb}: {} of {due} frames", left.len());
        }
    }

    #[test]
    fn what_cannot_be_resampled_is_an_error() {
        for (from, to, channels, most) in [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)] {
            assert!(Resampler::new(from, to, channels, most).is_err());
        }
    }
}
