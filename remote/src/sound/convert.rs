//! From what a microphone has to what the guest wants: channels, rate, encoding; and from the guest's rate and clock to a
//! card's.
//!
//! Nothing changes that need not: the same rate and channels pass bit by bit, as far as the encoding has bits.

use ::sound::resample;
use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use wire::audio::{Encoding, Format};

/// The most frames that are resampled at once.
const PIECE: usize = 480;

/// One conversion, with what it remembers of the sound so far.
pub(super) struct Converter {
    from: u8,
    to: Format,
    rate: Option<Rate>,
}

/// Between two rates, or two clocks.
pub(super) struct Rate {
    converter: resample::Converter,
    /// Its ratio is not that of the rates: the clocks differ.
    adapted: bool,
    from: u64,
    to: u64,
    /// Frames so far: taken at the one rate, given at the other.
    taken: u64,
    given: u64,
}

impl Converter {
    /// # Errors
    /// The rates are too far apart, or none at all.
    pub(super) fn new(from: Format, to: Format) -> Result<Self> {
        let rate = (from.rate != to.rate).then(|| Rate::new(from.rate, to)).transpose()?;
        Ok(Self { from: from.channels, to, rate })
    }

    /// Converts whole frames, samples at the top of 32 bits. What comes out begins with silence, as long as the filter is
    /// late.
    pub(super) fn convert(&mut self, samples: &[i32]) -> Bytes {
        let mapped = map_channels(samples, self.from, self.to.channels);
        let samples = match &mut self.rate {
            Some(rate) => rate.convert(&mapped, self.to.channels.into()),
            None => mapped,
        };
        narrow(self.to.encoding, samples)
    }
}

impl Rate {
    /// # Errors
    /// As [`Converter::new`].
    pub(super) fn new(from: u32, to: Format) -> Result<Self> {
        let converter = resample::Converter::new(from, to.rate, to.channels, PIECE)
            .with_context(|| format!("from {from} to {} Hz", to.rate))?;
        Ok(Self { converter, adapted: false, from: from.into(), to: to.rate.into(), taken: 0, given: 0 })
    }

    /// The same rate by another clock, behind frames that went as they came.
    ///
    /// # Errors
    /// As [`Converter::new`].
    #[cfg(feature = "cpal")]
    pub(super) fn after(past: &[i32], format: Format) -> Result<Self> {
        let Format { rate, channels, .. } = format;
        let converter = resample::Converter::after(past, rate, channels, PIECE)?;
        Ok(Self { converter, adapted: true, from: rate.into(), to: rate.into(), taken: 0, given: 0 })
    }

    /// Takes the sound faster by so many parts per billion from now on.
    #[cfg(feature = "cpal")]
    pub(super) fn adapt(&mut self, parts_per_billion: i32) {
        self.adapted = true;
        self.converter.set_ratio(parts_per_billion);
    }

    /// Both sides last equally long, to within a frame; if clocks differ, to within what the filter waits for.
    pub(super) fn convert(&mut self, samples: &[i32], channels: usize) -> Vec<i32> {
        if self.adapted {
            let mut converted = Vec::new();
            self.converter.convert_all(samples, &mut converted);
            return converted;
        }
        self.taken += (samples.len() / channels) as u64;
        let due = self.taken * self.to / self.from;
        let mut converted = vec![0; (due - self.given) as usize * channels];
        self.given = due;
        self.converter.convert(samples, &mut converted);
        converted
    }

    /// What the filter has heard and not said yet, for a sound that ends, or pauses. Only a card needs it.
    #[cfg(feature = "cpal")]
    pub(super) fn finish(&mut self, channels: usize) -> Vec<i32> {
        self.convert(&vec![0; resample::REACH * channels], channels)
    }
}

/// Channel by channel; one channel goes to all, all go to one, and a channel that is lacking is silent.
fn map_channels(samples: &[i32], from: u8, to: u8) -> Vec<i32> {
    if from == to {
        return samples.to_vec();
    }
    let frames = samples.chunks_exact(from.into());
    let mix = |frame: &[i32]| (frame.iter().copied().map(i64::from).sum::<i64>() / i64::from(from)) as i32;
    match (from, to) {
        (1, _) => samples.iter().flat_map(|sample| std::iter::repeat_n(*sample, to.into())).collect(),
        (_, 1) => frames.map(mix).collect(),
        _ => frames
            .flat_map(|frame| (0..usize::from(to)).map(|at| frame.get(at).copied().unwrap_or(0)))
            .collect(),
    }
}

/// Samples at the top of 32 bits, in an encoding of HD Audio. Bits that a four-byte word does not carry are cut off.
fn narrow(encoding: Encoding, mut samples: Vec<i32>) -> Bytes {
    if let Encoding::S20 | Encoding::S24 = encoding {
        let spare = 32 - u32::from(encoding.significant_bits());
        samples.iter_mut().for_each(|sample| *sample = *sample >> spare << spare);
    }
    let mut pcm = BytesMut::new();
    ::sound::samples::narrow(encoding, &samples, &mut pcm);
    pcm.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(rate: u32, encoding: Encoding, channels: u8) -> Format {
        Format { rate, encoding, channels }
    }

    #[test]
    fn what_needs_no_change_passes_bit_by_bit() {
        let samples = [i32::MIN, -1 << 16, 0, 1 << 16, 0x1234_0000, i32::MAX];
        let stereo = format(48_000, Encoding::S16, 2);
        let pcm = Converter::new(stereo, stereo).unwrap().convert(&samples);
        let expected = [i16::MIN, -1, 0, 1, 0x1234, i16::MAX];
        assert_eq!(pcm, expected.map(i16::to_le_bytes).concat());
    }

    #[test]
    fn every_encoding_gets_the_bits_that_it_has() {
        for (encoding, pcm) in [
            (Encoding::U8, vec![0x92]),
            (Encoding::S16, vec![0x34, 0x12]),
            (Encoding::S20, vec![0x00, 0x50, 0x34, 0x12]),
            (Encoding::S24, vec![0x00, 0x56, 0x34, 0x12]),
            (Encoding::S32, vec![0x78, 0x56, 0x34, 0x12]),
        ] {
            assert_eq!(narrow(encoding, vec![0x1234_5678]), pcm, "{encoding:?}");
        }
    }

    #[test]
    fn one_channel_is_heard_on_all_and_all_are_heard_on_one() {
        assert_eq!(map_channels(&[1, 2], 1, 2), [1, 1, 2, 2]);
        assert_eq!(map_channels(&[10, 20, i32::MAX, i32::MAX], 2, 1), [15, i32::MAX]);
        assert_eq!(map_channels(&[1, 2], 2, 4), [1, 2, 0, 0]);
        assert_eq!(map_channels(&[1, 2, 3, 4], 4, 2), [1, 2]);
    }

    #[test]
    fn another_rate_sounds_the_same() {
        let (from, to) = (format(44_100, Encoding::S32, 1), format(48_000, Encoding::S32, 1));
        let sine = |n: u32, rate: f64| (f64::from(n) * 997.0 * std::f64::consts::TAU / rate).sin();
        let samples: Vec<i32> = (0..44_100).map(|n| (sine(n, 44_100.0) * 1e9) as i32).collect();
        let mut converter = Converter::new(from, to).unwrap();
        let pcm: Vec<u8> = samples.chunks(441).flat_map(|part| converter.convert(part)).collect();
        let heard: Vec<f64> =
            pcm.as_chunks().0.iter().map(|s| f64::from(i32::from_le_bytes(*s)) / 1e9).collect();
        assert!(heard.len() == 48_000, "{} frames", heard.len());
        // Of any sine: x(n-1) + x(n+1) = 2 cos(w) x(n).
        let twice_cos = 2.0 * (997.0 * std::f64::consts::TAU / 48_000.0).cos();
        let wrong = heard[1_000..40_000].windows(3).map(|w| (w[0] + w[2] - twice_cos * w[1]).abs());
        assert!(wrong.fold(0.0, f64::max) < 1e-4);
        assert!(heard[1_000..40_000].iter().copied().fold(0.0, f64::max) > 0.99);
    }

    #[test]
    fn rates_that_no_resampler_takes_are_an_error() {
        assert!(Converter::new(format(0, Encoding::S16, 1), format(8_000, Encoding::S16, 1)).is_err());
    }
}
