//! Sound cards, by cpal. The card's callback moves samples to or from a lock-free ring and never waits. The speakers' ring
//! has what the card takes at once and 50 ms (`sound::appetite`): it is a part of what the receiver bounds. The
//! microphone's has room for what may ever wait, twice; what finds none is lost.

mod listener;
mod player;
mod system;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ::sound::appetite::PERIOD;
use anyhow::{Context as _, Result};
use cpal::{
    BufferSize, Device, DeviceType, ErrorKind, SampleFormat, StreamConfig, SupportedBufferSize,
    SupportedStreamConfigRange, traits::DeviceTrait,
};
use tokio::time::Instant;
use wire::audio::Format;

pub(super) use listener::Listener;
pub(super) use player::Card;
use system::{default_device, devices, id};

/// Which way sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// What the callback and its other end tell each other.
#[derive(Default)]
struct Shared {
    /// Times that the card or its callback was not in time.
    xruns: AtomicU64,
    /// Samples that found no room.
    lost: AtomicU64,
    draining: AtomicBool,
    failed: AtomicBool,
    last: Last,
}

/// When the callback took frames last, and how many; and the most that it ever took.
struct Last {
    begun: Instant,
    nanoseconds: AtomicU64,
    frames: AtomicUsize,
    most: AtomicUsize,
}

impl Default for Last {
    fn default() -> Self {
        let (nanoseconds, frames, most) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { begun: Instant::now(), nanoseconds, frames, most }
    }
}

impl Last {
    /// So many are taken now.
    fn take(&self, frames: usize) {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.store(now, Relaxed);
        self.frames.store(frames, Relaxed);
        self.most.fetch_max(frames, Relaxed);
    }

    /// The most that were ever taken at once.
    fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    /// The time since then, and how many; 0: none were ever taken.
    fn taken(&self) -> (Duration, usize) {
        let then = Duration::from_nanos(self.nanoseconds.load(Relaxed));
        (self.begun.elapsed().saturating_sub(then), self.frames.load(Relaxed))
    }
}

/// The output and input devices by name, with the sound system's own name where it has another.
///
/// # Errors
/// The sound system does not answer.
pub(crate) fn names() -> Result<Vec<String>> {
    let devices = devices()?;
    let both = |device: Device| match (name(&device), id(&device)) {
        (name, Some(id)) if id != name => format!("{name} ({id})"),
        (name, _) => name,
    };
    Ok(devices.map(both).collect())
}

/// Whether there is a device to listen to.
pub(super) fn hears(wanted: Option<&str>) -> bool {
    // Devices are said to hear that do not; a device that hears has a format.
    let formats = |device: Device| Ok(device.supported_input_configs()?.next().is_some());
    choose(wanted, Way::In).and_then(formats).unwrap_or(false)
}

/// Whether the sound system says that sound goes to headphones.
pub(super) fn is_headphones(wanted: Option<&str>) -> bool {
    let Ok(description) = choose(wanted, Way::Out).and_then(|device| Ok(device.description()?)) else {
        return false;
    };
    let named = description.name().to_lowercase();
    matches!(description.device_type(), DeviceType::Headphones | DeviceType::Headset)
        || ["headphone", "headset"].iter().any(|word| named.contains(word))
}

fn name(device: &Device) -> String {
    device
        .description()
        .map_or_else(|_| "a sound card".to_owned(), |description| description.name().to_owned())
}

fn choose(wanted: Option<&str>, way: Way) -> Result<Device> {
    let Some(wanted) = wanted else {
        return default_device(way);
    };
    let is_it = |device: &Device| {
        let Ok(description) = device.description() else { return false };
        let goes = match way {
            Way::Out => description.supports_output(),
            Way::In => description.supports_input(),
        };
        goes && (description.name().contains(wanted) || id(device).as_deref() == Some(wanted))
    };
    devices()?
        .find(is_it)
        .with_context(|| format!("no sound card is named `{wanted}`; see `farbus-remote devices`"))
}

/// Samples in a stretch of time.
fn samples(format: Format, time: Duration) -> usize {
    (time.as_secs_f64() * f64::from(format.rate)) as usize * usize::from(format.channels)
}

/// The way to open a card that loses nothing, else the nearest that it has.
fn nearest(
    configs: impl Iterator<Item = SupportedStreamConfigRange>,
    format: Format,
) -> Option<(SampleFormat, StreamConfig)> {
    let wide = format.encoding.significant_bits() > 16;
    let order = if wide {
        [SampleFormat::I32, SampleFormat::F32, SampleFormat::I16]
    } else {
        [SampleFormat::I16, SampleFormat::I32, SampleFormat::F32]
    };
    let wanted = u16::from(format.channels);
    let (_, rate, config) = configs
        .filter_map(|c| {
            let sample = order.iter().position(|sample| *sample == c.sample_format())?;
            let rate = format.rate.clamp(c.min_sample_rate(), c.max_sample_rate());
            // As many channels as there are, else a few too many, else as many as possible.
            let channels = (c.channels() < wanted, c.channels().abs_diff(wanted));
            Some(((rate.abs_diff(format.rate), channels, sample), rate, c))
        })
        .min_by_key(|(distance, ..)| *distance)?;
    // The card's own buffer, as far as it can be chosen.
    let period = samples(Format { rate, channels: 1, ..format }, PERIOD);
    let period = u32::try_from(period).unwrap_or(480);
    let buffer_size = match config.buffer_size() {
        SupportedBufferSize::Range { min, max } if (*min..=*max).contains(&period) => {
            BufferSize::Fixed(period)
        }
        _ => BufferSize::Default,
    };
    Some((
        config.sample_format(),
        StreamConfig { channels: config.channels(), sample_rate: rate, buffer_size },
    ))
}

/// What to do when a card says that something is wrong.
fn on_error(shared: &Arc<Shared>) -> impl FnMut(cpal::Error) + Send + 'static {
    let shared = Arc::clone(shared);
    move |error: cpal::Error| match error.kind() {
        ErrorKind::Xrun => {
            shared.xruns.fetch_add(1, Relaxed);
        }
        ErrorKind::DeviceChanged => tracing::info!("sound goes by another card now"),
        ErrorKind::RealtimeDenied => tracing::debug!("the sound card's thread has no real-time priority"),
        _ => {
            tracing::warn!("the sound card failed: {error}");
            shared.failed.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::audio::Encoding;

    use super::*;

    const ANY: SupportedBufferSize = SupportedBufferSize::Range { min: 16, max: 8_192 };

    /// One way of a card: channels, rates, format of its samples.
    fn way(channels: u16, rates: (u32, u32), sample: SampleFormat) -> SupportedStreamConfigRange {
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, ANY, sample)
    }

    fn format(rate: u32, encoding: Encoding, channels: u8) -> Format {
        Format { rate, encoding, channels }
    }

    #[test]
    fn a_card_takes_ten_milliseconds_at_once_if_it_can_and_else_what_it_likes() {
        let range = |min, max| SupportedBufferSize::Range { min, max };
        for (rate, has, buffer_size) in [
            (48_000, range(16, 8_192), BufferSize::Fixed(480)),
            (48_000, range(480, 480), BufferSize::Fixed(480)),
            (44_100, range(16, 8_192), BufferSize::Fixed(441)),
            (192_000, range(16, 8_192), BufferSize::Fixed(1_920)),
            (48_000, range(481, 8_192), BufferSize::Default),
            (48_000, range(16, 479), BufferSize::Default),
            (48_000, SupportedBufferSize::Unknown, BufferSize::Default),
        ] {
            let card = SupportedStreamConfigRange::new(2, 8_000, 192_000, has, SampleFormat::I16);
            let (_, config) = nearest([card].into_iter(), format(rate, Encoding::S16, 2)).unwrap();
            assert_eq!((config.sample_rate, config.buffer_size), (rate, buffer_size), "{rate} {has:?}");
        }
    }

    #[test]
    fn samples_lose_nothing_if_the_card_can_and_are_no_wider_than_need_be() {
        use SampleFormat::{F32, I16, I32, U8};
        for (encoding, has, takes) in [
            (Encoding::U8, &[F32, I32, I16][..], Some(I16)),
            (Encoding::S16, &[F32, I32, I16], Some(I16)),
            (Encoding::S16, &[F32, I32], Some(I32)),
            (Encoding::S20, &[I16, F32, I32], Some(I32)),
            (Encoding::S24, &[I16, F32], Some(F32)),
            (Encoding::S32, &[I16, U8], Some(I16)),
            (Encoding::S16, &[U8], None),
            (Encoding::S16, &[], None),
        ] {
            let card = has.iter().map(|sample| way(2, (48_000, 48_000), *sample));
            let found = nearest(card, format(48_000, encoding, 2)).map(|(sample, _)| sample);
            assert_eq!(found, takes, "{encoding:?} of {has:?}");
        }
    }

    #[test]
    fn there_are_as_many_channels_as_wanted_else_a_few_too_many_else_as_many_as_possible() {
        for (wanted, has, takes) in
            [(2, &[1, 8, 2, 4][..], 2), (2, &[8, 1, 4], 4), (8, &[1, 2, 6], 6), (1, &[8, 2], 2)]
        {
            let card = has.iter().map(|channels| way(*channels, (48_000, 48_000), SampleFormat::I16));
            let (_, config) = nearest(card, format(48_000, Encoding::S16, wanted)).unwrap();
            assert_eq!(config.channels, takes, "{wanted} of {has:?}");
        }
    }

    #[test]
    fn the_rate_is_the_nearest_that_the_card_has_and_counts_for_more_than_samples_and_channels() {
        for (wanted, has, takes) in [
            (44_100, &[(8_000, 192_000)][..], 44_100),
            (44_100, &[(48_000, 48_000)], 48_000),
            (192_000, &[(44_100, 48_000)], 48_000),
            (8_000, &[(44_100, 48_000)], 44_100),
            (96_000, &[(48_000, 48_000), (88_200, 88_200)], 88_200),
        ] {
            let card = has.iter().map(|rates| way(2, *rates, SampleFormat::I16));
            let (_, config) = nearest(card, format(wanted, Encoding::S16, 2)).unwrap();
            assert_eq!(config.sample_rate, takes, "{wanted} of {has:?}");
        }
        let (worse, exact) =
            (way(1, (44_100, 44_100), SampleFormat::F32), way(2, (48_000, 48_000), SampleFormat::I16));
        let (sample, config) = nearest([exact, worse].into_iter(), format(44_100, Encoding::S16, 2)).unwrap();
        assert_eq!((sample, config.channels, config.sample_rate), (SampleFormat::F32, 1, 44_100));
    }
}
