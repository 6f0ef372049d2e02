//! Amplifiers, and what they do to samples. HDA 1.0a §7.3.3.7, §7.3.4.10.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::u7;
use bitbybit::bitfield;
use wire::audio::{Encoding, Format};

use super::verb::SetAmplifier;

/// The step of 0 dB, and the highest one.
const UNITY: u8 = 0x4a;

/// Mute capable; steps of 1 dB (3: four quarters); 74 of them; 0 dB is the last one.
pub(crate) const CAPABILITIES: u32 = 1 << 31 | 3 << 16 | (UNITY as u32) << 8 | UNITY as u32;

/// One side of an amplifier. HDA 1.0a §7.3.3.7.
#[bitfield(u8, default = 0x4a, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Gain {
    /// Steps.
    #[bits(0..=6, rw)]
    steps: u7,
    /// Silent, whatever the steps.
    #[bit(7, rw)]
    mute: bool,
}

/// A stereo amplifier. After a reset it lets everything through unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amplifier {
    left: Side,
    right: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side(Gain);

impl Default for Side {
    fn default() -> Self {
        Self(Gain::DEFAULT)
    }
}

impl Amplifier {
    pub(crate) fn read(&self, left: bool) -> u8 {
        if left { self.left.0.raw_value() } else { self.right.0.raw_value() }
    }

    /// Steps above the highest one are taken for it.
    pub(crate) fn write(&mut self, setting: SetAmplifier) {
        let steps = setting.gain().min(u7::new(UNITY));
        let gain = Side(Gain::DEFAULT.with_steps(steps).with_mute(setting.mute()));
        if setting.left() {
            self.left = gain;
        }
        if setting.right() {
            self.right = gain;
        }
    }

    pub(crate) fn level(&self, left: bool) -> Level {
        let Side(gain) = if left { self.left } else { self.right };
        if gain.mute() { Level::SILENT } else { Level::down(UNITY.saturating_sub(gain.steps().value())) }
    }

    /// The level of an amplifier that a microphone is heard through: its lowest step is silence, so that whoever turns
    /// it down to nothing is not heard.
    pub(crate) fn sensitivity(&self, left: bool) -> Level {
        let Side(gain) = if left { self.left } else { self.right };
        if gain.steps().value() == 0 { Level::SILENT } else { self.level(left) }
    }
}

/// How loud samples are left: silent, or so many dB below what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(Option<core::cmp::Reverse<u8>>);

impl Level {
    /// Nothing comes out.
    pub(crate) const SILENT: Self = Self(None);
    /// Nothing is changed.
    pub(crate) const UNITY: Self = Self::down(0);

    const fn down(decibels: u8) -> Self {
        Self(Some(core::cmp::Reverse(decibels)))
    }

    fn factor(self) -> f64 {
        self.0.map_or(0.0, |down| 10f64.powf(-f64::from(down.0) / 20.0))
    }
}

/// The levels of a stream's channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Levels(pub(crate) [Level; 16]);

impl Levels {
    /// Nothing comes out.
    pub(crate) const SILENT: Self = Self([Level::SILENT; 16]);

    /// Whether anything comes through in the first so many channels.
    pub(crate) fn audible(&self, channels: u8) -> bool {
        self.0.iter().take(channels.into()).any(|level| *level != Level::SILENT)
    }

    /// How many decibels the loudest of the first so many channels is below 0 dB; `None`: all are silent.
    pub(crate) fn attenuation(&self, channels: u8) -> Option<u8> {
        let loudest = self.0.iter().take(channels.into()).max()?;
        loudest.0.map(|down| down.0)
    }

    /// What samples of a channel are multiplied with.
    pub(crate) fn factor(&self, channel: usize) -> f64 {
        self.0.get(channel).map_or(0.0, |level| level.factor())
    }

    /// Applies the levels to whole frames. At 0 dB the bytes stay as they are.
    pub(crate) fn apply(&self, format: Format, pcm: &mut [u8]) {
        let Some(levels) = self.0.get(..usize::from(format.channels)) else { return };
        if levels.iter().all(|level| *level == Level::UNITY) {
            return;
        }
        let factors: Vec<_> = levels.iter().map(|level| level.factor()).collect();
        let samples = pcm.chunks_exact_mut(format.encoding.bytes() as usize);
        for (sample, factor) in samples.zip(factors.iter().cycle()) {
            scale(format.encoding, sample, *factor);
        }
    }
}

/// Multiplies one sample by a factor of 0 to 1, rounding to the nearest value the encoding has. A factor of 1 leaves
/// every byte as it is.
pub(crate) fn scale(encoding: Encoding, sample: &mut [u8], factor: f64) {
    if factor == 1.0 {
        return;
    }
    match (encoding, sample) {
        (Encoding::U8, [byte]) => {
            let value = f64::from(i16::from(*byte) - 0x80) * factor;
            *byte = (value.round() as i16 + 0x80) as u8;
        }
        (_, [low, high]) => {
            let value = f64::from(i16::from_le_bytes([*low, *high])) * factor;
            [*low, *high] = (value.round() as i16).to_le_bytes();
        }
        (encoding, &mut [ref mut a, ref mut b, ref mut c, ref mut d]) => {
            // The sample stands at the top of the word; the rest stays 0.
            let below = 32 - u32::from(encoding.significant_bits());
            let value = f64::from(i32::from_le_bytes([*a, *b, *c, *d]) >> below) * factor;
            [*a, *b, *c, *d] = ((value.round() as i32) << below).to_le_bytes();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN_6: Level = Level::down(6);

    fn applied(encoding: Encoding, levels: &[Level], pcm: &[u8]) -> Vec<u8> {
        let mut all = [Level::UNITY; 16];
        all[..levels.len()].copy_from_slice(levels);
        let format = Format { rate: 48_000, encoding, channels: levels.len() as u8 };
        let mut pcm = pcm.to_vec();
        Levels(all).apply(format, &mut pcm);
        pcm
    }

    #[test]
    fn at_0_db_every_byte_stays_even_those_outside_the_sample() {
        let pcm: Vec<_> = (0..=255).collect();
        for encoding in [Encoding::U8, Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            assert_eq!(applied(encoding, &[Level::UNITY, Level::UNITY], &pcm), pcm, "{encoding:?}");
        }
    }

    #[test]
    fn each_step_is_one_decibel() {
        let mut amplifier = Amplifier::default();
        for steps in 0..=0x7f {
            let setting = SetAmplifier::DEFAULT.with_left(true).with_gain(u7::new(steps));
            amplifier.write(setting);
            let expected = 10f64.powf((f64::from(steps.min(0x4a)) - 74.0) / 20.0);
            assert!((amplifier.level(true).factor() - expected).abs() < 1e-12, "{steps}");
            assert_eq!(amplifier.level(false), Level::UNITY);
            assert_eq!(amplifier.read(true), steps.min(0x4a));
        }
    }

    #[test]
    fn the_loudest_channel_is_how_loud_a_stream_is() {
        let mut levels = [Level::SILENT; 16];
        assert_eq!(Levels(levels).attenuation(2), None);
        (levels[0], levels[1], levels[2]) = (Level::down(70), DOWN_6, Level::UNITY);
        assert_eq!(
            [1, 2, 3].map(|channels| Levels(levels).attenuation(channels)),
            [Some(70), Some(6), Some(0)]
        );
    }

    #[test]
    fn channels_have_their_own_levels() {
        // -6 dB is a factor of 0.501.
        let pcm: Vec<_> = [1000i16, 1000, -32768, -32768].iter().flat_map(|s| s.to_le_bytes()).collect();
        let quiet: Vec<_> = [501i16, 1000, -16423, -32768].iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(applied(Encoding::S16, &[DOWN_6, Level::UNITY], &pcm), quiet);
    }

    #[test]
    fn silence_is_the_middle_of_each_encoding() {
        assert_eq!(applied(Encoding::U8, &[Level::SILENT], &[0, 0x80, 0xff]), [0x80; 3]);
        for encoding in [Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            assert_eq!(applied(encoding, &[Level::SILENT], &[0xff, 0x7f, 1, 0x80]), [0; 4], "{encoding:?}");
        }
    }

    #[test]
    fn scaled_samples_keep_to_their_bits() {
        let loudest = i32::MIN.to_le_bytes();
        for (encoding, mask) in [(Encoding::S20, 0xfff), (Encoding::S24, 0xff), (Encoding::S32, 0)] {
            let quiet = applied(encoding, &[DOWN_6], &loudest);
            let value = i32::from_le_bytes([quiet[0], quiet[1], quiet[2], quiet[3]]);
            assert_eq!(value & mask, 0, "{encoding:?}");
            assert!((f64::from(value) / f64::from(i32::MIN) - 0.501_187).abs() < 1e-5, "{encoding:?}");
        }
        assert_eq!(applied(Encoding::U8, &[DOWN_6], &[0, 0xff]), [0x80 - 64, 0x80 + 64]);
    }
}
