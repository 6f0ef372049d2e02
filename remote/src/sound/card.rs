//! A sound card, by cpal. The card's callback takes samples from a lock-free ring and never waits; latency is bounded
//! by the ring's cap.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use cpal::{
    BufferSize, Device, ErrorKind, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, HostTrait, StreamTrait},
};
use rtrb::{Consumer, Producer, RingBuffer};
use wire::audio::{Encoding, Format};

use super::{Progress, Sink};

/// What has to wait before the card starts: less is an underrun soon, more is latency for ever.
const TARGET: Duration = Duration::from_millis(20);
/// What may wait at most; beyond it the oldest frames are skipped down to the target.
const CAP: Duration = Duration::from_millis(150);
/// The card's own buffer, as far as it can be chosen.
const PERIOD: Duration = Duration::from_millis(10);

/// The sink.
pub(crate) struct Card {
    wanted: Option<String>,
    run: Option<Run>,
}

struct Run {
    format: Format,
    /// Samples as 32 bits, the significant ones on top: every format of HD Audio fits without loss.
    samples: Producer<i32>,
    shared: Arc<Shared>,
    dropped: u64,
    stream: Stream,
}

/// What the callback and the sink tell each other.
#[derive(Default)]
struct Shared {
    played: AtomicU64,
    underruns: AtomicU64,
    /// Samples that the callback shall skip.
    skip: AtomicU64,
    draining: AtomicBool,
    failed: AtomicBool,
}

impl Card {
    pub(crate) fn new(wanted: Option<String>) -> Self {
        Self { wanted, run: None }
    }
}

/// The output devices with their names.
///
/// # Errors
/// The sound system does not answer.
pub(crate) fn outputs() -> Result<Vec<(Device, String)>> {
    let devices = cpal::default_host().output_devices().context("listing sound cards")?;
    Ok(devices.map(|device| (device.clone(), name(&device))).collect())
}

fn name(device: &Device) -> String {
    device
        .description()
        .map_or_else(|_| "a sound card".to_owned(), |description| description.name().to_owned())
}

fn choose(wanted: Option<&str>) -> Result<Device> {
    let Some(wanted) = wanted else {
        return cpal::default_host()
            .default_output_device()
            .context("this computer has no sound card; `farbus-remote devices` lists what there is");
    };
    let found = outputs()?.into_iter().find(|(_, name)| name.contains(wanted));
    let found =
        found.with_context(|| format!("no sound card is named `{wanted}`; see `farbus-remote devices`"));
    found.map(|(device, _)| device)
}

/// Samples in a stretch of time.
fn samples(format: Format, time: Duration) -> usize {
    (time.as_secs_f64() * f64::from(format.rate)) as usize * usize::from(format.channels)
}

impl Sink for Card {
    fn start(&mut self, format: Format) -> Result<()> {
        let device = choose(self.wanted.as_deref())?;
        let (samples_in, samples_out) = RingBuffer::new(samples(format, CAP) * 2);
        let shared = Arc::new(Shared::default());
        let stream = open(&device, format, samples_out, &shared)
            .with_context(|| format!("opening {} with {format:?}", name(&device)))?;
        stream.play().context("starting the sound card")?;
        self.run = Some(Run { format, samples: samples_in, shared, dropped: 0, stream });
        Ok(())
    }

    fn push(&mut self, _: Duration, pcm: &[u8]) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.shared.draining.store(false, Relaxed);
        for sample in widen(run.format.encoding, pcm) {
            // The ring has twice the cap; a card that stands still loses the newest.
            if run.samples.push(sample).is_err() {
                run.dropped += 1;
            }
        }
        run.bound_latency();
        anyhow::ensure!(!run.shared.failed.load(Relaxed), "the sound card is gone");
        Ok(())
    }

    fn drain(&mut self) {
        if let Some(run) = &self.run {
            run.shared.draining.store(true, Relaxed);
        }
    }

    fn tick(&mut self, _: Duration) -> Result<Progress> {
        Ok(self.run.as_ref().map_or_else(Progress::default, Run::progress))
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(run) = self.run.take() {
            // Dropping the stream ends it; pausing first lets the card finish its period.
            let _ = run.stream.pause();
        }
        Ok(())
    }
}

impl Run {
    fn waiting(&self) -> usize {
        self.samples.buffer().capacity() - self.samples.slots()
    }

    fn bound_latency(&mut self) {
        let waiting = self.waiting();
        let pending = self.shared.skip.load(Relaxed) as usize;
        if waiting.saturating_sub(pending) > samples(self.format, CAP) {
            let channels = usize::from(self.format.channels);
            let excess = waiting - samples(self.format, TARGET);
            let excess = excess - excess % channels;
            self.shared.skip.store(excess as u64, Relaxed);
            self.dropped += excess as u64;
        }
    }

    fn progress(&self) -> Progress {
        let channels = u64::from(self.format.channels);
        Progress {
            played: self.shared.played.load(Relaxed) / channels,
            queued: self.waiting() as u64 / channels,
            underruns: self.shared.underruns.load(Relaxed),
            dropped: self.dropped / channels,
        }
    }
}

/// Every sample at the top of 32 bits.
fn widen(encoding: Encoding, pcm: &[u8]) -> impl Iterator<Item = i32> {
    let bytes = encoding.bytes() as usize;
    pcm.chunks_exact(bytes).map(move |sample| match sample {
        [byte] => i32::from((*byte ^ 0x80) as i8) << 24,
        [low, high] => i32::from(i16::from_le_bytes([*low, *high])) << 16,
        [a, b, c, d] => i32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    })
}

/// Opens the card in the format that loses nothing, else in the one it has.
fn open(device: &Device, format: Format, ring: Consumer<i32>, shared: &Arc<Shared>) -> Result<Stream> {
    let supported: Vec<_> = device
        .supported_output_configs()?
        .filter(|c| c.channels() == u16::from(format.channels))
        .filter(|c| (c.min_sample_rate()..=c.max_sample_rate()).contains(&format.rate))
        .map(|c| c.sample_format())
        .collect();
    let wide = format.encoding.significant_bits() > 16;
    let order = if wide {
        [SampleFormat::I32, SampleFormat::F32, SampleFormat::I16]
    } else {
        [SampleFormat::I16, SampleFormat::I32, SampleFormat::F32]
    };
    let best = order.into_iter().find(|sample| supported.contains(sample));
    match best.context("the card cannot play this rate with so many channels")? {
        SampleFormat::I16 => build::<i16>(device, format, ring, shared),
        SampleFormat::I32 => build::<i32>(device, format, ring, shared),
        _ => build::<f32>(device, format, ring, shared),
    }
}

fn build<T: SizedSample + FromSample<i32> + Send + 'static>(
    device: &Device,
    format: Format,
    mut ring: Consumer<i32>,
    shared: &Arc<Shared>,
) -> Result<Stream> {
    let period = samples(format, PERIOD) / usize::from(format.channels);
    let config = StreamConfig {
        channels: format.channels.into(),
        sample_rate: format.rate,
        buffer_size: BufferSize::Fixed(u32::try_from(period).unwrap_or(480)),
    };
    let (filled, broken) = (Arc::clone(shared), Arc::clone(shared));
    let (target, mut playing) = (samples(format, TARGET), false);
    let fill = move |out: &mut [T], _: &cpal::OutputCallbackInfo| {
        fill(out, &mut ring, &filled, target, &mut playing);
    };
    let failed = move |error: cpal::Error| match error.kind() {
        ErrorKind::Xrun => {
            broken.underruns.fetch_add(1, Relaxed);
        }
        ErrorKind::DeviceChanged => tracing::info!("sound goes to another card now"),
        _ => {
            tracing::warn!("the sound card failed: {error}");
            broken.failed.store(true, Relaxed);
        }
    };
    Ok(device.build_output_stream(config, fill, failed, None)?)
}

/// Fills the card's buffer; runs on its thread and never waits.
fn fill<T: SizedSample + FromSample<i32>>(
    out: &mut [T],
    ring: &mut Consumer<i32>,
    shared: &Shared,
    target: usize,
    playing: &mut bool,
) {
    let skip = shared.skip.swap(0, Relaxed);
    for _ in 0..skip {
        let _ = ring.pop();
    }
    let draining = shared.draining.load(Relaxed);
    *playing |= ring.slots() >= target || (draining && ring.slots() > 0);
    let mut played = 0;
    for place in out.iter_mut() {
        let sample = if *playing { ring.pop().ok() } else { None };
        played += u64::from(sample.is_some());
        *place = sample.map_or(T::EQUILIBRIUM, T::from_sample);
    }
    shared.played.fetch_add(played, Relaxed);
    if *playing && (played as usize) < out.len() {
        *playing = false;
        shared.underruns.fetch_add(u64::from(!draining), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use cpal::Sample;

    use super::*;

    #[test]
    fn sixteen_bits_pass_through_the_ring_unchanged() {
        for value in [i16::MIN, -1, 0, 1, 257, i16::MAX] {
            let wide: Vec<i32> = widen(Encoding::S16, &value.to_le_bytes()).collect();
            assert_eq!(i16::from_sample(wide[0]), value);
        }
    }

    #[test]
    fn the_card_gets_silence_until_enough_waits_and_counts_what_it_lacks() {
        let (mut producer, mut ring) = RingBuffer::new(64);
        let (shared, mut playing) = (Shared::default(), false);
        let mut out = [1i16; 8];
        fill(&mut out, &mut ring, &shared, 16, &mut playing);
        assert_eq!((out, shared.underruns.load(Relaxed)), ([0; 8], 0));
        (0..20).for_each(|n| producer.push(n << 16).unwrap());
        fill(&mut out, &mut ring, &shared, 16, &mut playing);
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
        fill(&mut out, &mut ring, &shared, 16, &mut playing);
        fill(&mut out, &mut ring, &shared, 16, &mut playing);
        assert_eq!((out[3], out[4], shared.underruns.load(Relaxed)), (19, 0, 1));
    }

    #[test]
    fn what_is_too_old_is_skipped() {
        let (mut producer, mut ring) = RingBuffer::new(64);
        let (shared, mut playing) = (Shared::default(), true);
        (0..20).for_each(|n| producer.push(n << 16).unwrap());
        shared.skip.store(10, Relaxed);
        let mut out = [0i16; 2];
        fill(&mut out, &mut ring, &shared, 1, &mut playing);
        assert_eq!(out, [10, 11]);
    }
}
