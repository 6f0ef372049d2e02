//! The format of a stream, as registers and converters write it. HDA 1.0a §3.7.1.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::{u3, u4};
use bitbybit::bitfield;
use wire::audio::{Encoding, Format};

use super::rate::Rate;

/// Stream Descriptor Format (SDnFMT), and what a converter is set to.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct RawFormat {
    /// Channels less one (CHAN).
    #[bits(0..=3, rw)]
    channels: u4,
    /// Bits per sample (BITS).
    #[bits(4..=6, rw)]
    bits: u3,
    /// Divisor less one (DIV).
    #[bits(8..=10, rw)]
    divisor: u3,
    /// Multiple less one (MULT).
    #[bits(11..=13, rw)]
    multiple: u3,
    /// Base rate: 44.1 kHz instead of 48 kHz (BASE).
    #[bit(14, rw)]
    base_44k1: bool,
    /// Something other than PCM (TYPE).
    #[bit(15, rw)]
    other: bool,
}

/// What a stream's engine has to know of any format, valid or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How fast it moves.
    pub(crate) rate: Rate,
    /// The bytes of a frame in memory, 1 to 64.
    pub(crate) frame_bytes: u64,
    /// What it sounds like; `None`: nothing that can be played.
    pub(crate) sound: Option<Format>,
}

impl RawFormat {
    /// What the format means. Reserved values move like 16-bit samples at four times the base rate at most.
    pub(crate) fn shape(self) -> Shape {
        let (base, multiple) = (if self.base_44k1() { 44_100 } else { 48_000 }, self.multiple().value());
        let rate = Rate {
            frames: base * u64::from(multiple.min(3) + 1),
            seconds: u64::from(self.divisor().value()) + 1,
        };
        let encoding = match self.bits().value() {
            0 => Some(Encoding::U8),
            1 => Some(Encoding::S16),
            2 => Some(Encoding::S20),
            3 => Some(Encoding::S24),
            4 => Some(Encoding::S32),
            _ => None,
        };
        let channels = self.channels().value() + 1;
        let frame_bytes = u64::from(encoding.map_or(2, Encoding::bytes)) * u64::from(channels);
        Shape { rate, frame_bytes, sound: self.sound(rate, encoding, channels, multiple) }
    }

    fn sound(self, rate: Rate, encoding: Option<Encoding>, channels: u8, multiple: u8) -> Option<Format> {
        let whole = rate.frames.is_multiple_of(rate.seconds).then(|| rate.frames / rate.seconds)?;
        let rate = u32::try_from(whole).ok().filter(|rate| (8_000..=192_000).contains(rate))?;
        let pcm = !self.other() && multiple <= 3;
        pcm.then_some(Format { rate, encoding: encoding?, channels })
    }

    /// The way to write a format, if there is one.
    pub(crate) fn of(format: Format) -> Option<Self> {
        let bits = match format.encoding {
            Encoding::U8 => 0,
            Encoding::S16 => 1,
            Encoding::S20 => 2,
            Encoding::S24 => 3,
            Encoding::S32 => 4,
        };
        let channels = format.channels.checked_sub(1).and_then(|channels| u4::try_new(channels).ok())?;
        let rates = (0..2u8).flat_map(|base| (0..4).flat_map(move |m| (0..8).map(move |d| (base, m, d))));
        rates
            .map(|(base, multiple, divisor)| {
                Self::DEFAULT
                    .with_channels(channels)
                    .with_bits(u3::new(bits))
                    .with_divisor(u3::new(divisor))
                    .with_multiple(u3::new(multiple))
                    .with_base_44k1(base == 1)
            })
            .find(|raw| raw.shape().sound == Some(format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_read_as_the_specification_says() {
        struct Case {
            name: &'static str,
            raw: u16,
            rate: (u64, u64),
            frame: u64,
            sound: Option<Format>,
        }
        let pcm = |rate, encoding, channels| Some(Format { rate, encoding, channels });
        #[rustfmt::skip]
        let cases = [
            Case { name: "48 kHz 16 bit stereo", raw: 0x0011, rate: (48_000, 1), frame: 4, sound: pcm(48_000, Encoding::S16, 2) },
            Case { name: "44.1 kHz 16 bit mono", raw: 0x4010, rate: (44_100, 1), frame: 2, sound: pcm(44_100, Encoding::S16, 1) },
            Case { name: "192 kHz 32 bit 8 channels", raw: 0x1847, rate: (192_000, 1), frame: 32, sound: pcm(192_000, Encoding::S32, 8) },
            Case { name: "96 kHz 24 bit 6 channels", raw: 0x0835, rate: (96_000, 1), frame: 24, sound: pcm(96_000, Encoding::S24, 6) },
            Case { name: "32 kHz 20 bit stereo", raw: 0x0a21, rate: (96_000, 3), frame: 8, sound: pcm(32_000, Encoding::S20, 2) },
            Case { name: "8 kHz 8 bit mono", raw: 0x0500, rate: (48_000, 6), frame: 1, sound: pcm(8_000, Encoding::U8, 1) },
            Case { name: "11.025 kHz", raw: 0x4311, rate: (44_100, 4), frame: 4, sound: pcm(11_025, Encoding::S16, 2) },
            Case { name: "not PCM", raw: 0x8011, rate: (48_000, 1), frame: 4, sound: None },
            Case { name: "reserved size", raw: 0x0051, rate: (48_000, 1), frame: 4, sound: None },
            Case { name: "reserved multiple", raw: 0x3811, rate: (192_000, 1), frame: 4, sound: None },
            Case { name: "no whole rate", raw: 0x4711, rate: (44_100, 8), frame: 4, sound: None },
            Case { name: "too slow", raw: 0x0711, rate: (48_000, 8), frame: 4, sound: None },
        ];
        for Case { name, raw, rate, frame, sound } in cases {
            let shape = RawFormat::new_with_raw_value(raw).shape();
            assert_eq!((shape.rate.frames, shape.rate.seconds), rate, "{name}");
            assert_eq!(shape.frame_bytes, frame, "{name}");
            assert_eq!(shape.sound, sound, "{name}");
        }
    }

    #[test]
    fn every_pcm_format_can_be_written_back() {
        for raw in 0..=u16::MAX {
            if let Some(sound) = RawFormat::new_with_raw_value(raw).shape().sound {
                let again = RawFormat::of(sound).expect("what was decoded can be encoded");
                assert_eq!(again.shape().sound, Some(sound), "{raw:#06x}");
            }
        }
        let odd = Format { rate: 12_345, encoding: Encoding::S16, channels: 2 };
        assert_eq!(RawFormat::of(odd), None);
        assert_eq!(RawFormat::of(Format { rate: 48_000, channels: 17, ..odd }), None);
    }
}
