//! The speakers of a sound card.
//!
//! ```text
//!   frames of the run ─► (resample: the card lacks the rate, or ─► ring, at the card's rate ─► the card's callback
//!                         its clock is not the run's)
//! ```
//! What is asked for, and what waits, is counted in frames of the run: to the receiver, a card that is resampled for is one
//! with another clock. Resampling may begin in the middle of the run; no frame is lost or doubled then.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ::sound::{
    appetite::{Appetite, LARGEST, LONGEST, PERIOD},
    resample::PAST,
};
use anyhow::{Context as _, Result};
use cpal::{
    Device, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, StreamTrait},
};
use rtrb::{Consumer, Producer, RingBuffer};
use wire::audio::Format;

use super::{Shared, Way, choose, name, nearest, on_error, samples};
use crate::sound::{Sink, convert::Rate};

/// The ring is filled as evenly as may be, so that the receiver needs to have no more than this beyond what is due.
const EVENLY: Duration = Duration::from_millis(1);
/// More is needed if its clock is followed here: what a filter keeps, and what the loop leaves.
const LOOSELY: Duration = Duration::from_millis(2);
/// The most channels of a format of HD Audio.
const CHANNELS: usize = 16;
/// What the ring has room for beyond what it is asked for: the end of the sound that a filter keeps, and roundings.
const SPARE: Duration = Duration::from_millis(20);

/// The sink of one run.
pub(crate) struct Card {
    format: Format,
    /// The card's, where it is not the run's, or its clock is not, and the way there.
    rate: Option<(u32, Rate)>,
    /// How much faster than the card plays frames are taken, parts per billion, if its clock is not the run's.
    faster: Option<i32>,
    /// The last frames that went as they came.
    past: Vec<i32>,
    /// Samples as 32 bits, the significant ones on top: every format of HD Audio fits without loss. Only whole frames
    /// are in it at any time.
    samples: Producer<i32>,
    shared: Arc<Shared>,
    appetite: Appetite,
    /// Plays until it is dropped.
    stream: Option<Stream>,
}

impl Card {
    /// Opens the card with this in its name, or the default one.
    pub(crate) fn open(wanted: Option<&str>, format: Format) -> Result<Self> {
        let device = choose(wanted, Way::Out)?;
        let opening = || format!("opening {} with {format:?}", name(&device));
        let configs = device.supported_output_configs().with_context(opening)?;
        let (sample, config) = nearest(configs, format).context("it plays nothing").with_context(opening)?;
        let (mut card, ring) = Self::new(format, config.sample_rate).with_context(opening)?;
        if let Some(rate) = card.resampled_to() {
            tracing::info!("the sound card has no {} Hz: it is given {rate} Hz", format.rate);
        }
        let format = Format { rate: config.sample_rate, ..format };
        let stream = match sample {
            SampleFormat::I16 => build::<i16>(&device, config, format, ring, &card.shared),
            SampleFormat::I32 => build::<i32>(&device, config, format, ring, &card.shared),
            _ => build::<f32>(&device, config, format, ring, &card.shared),
        };
        let stream = stream.with_context(opening)?;
        stream.play().context("starting the sound card")?;
        card.stream = Some(stream);
        Ok(card)
    }

    /// A sink whose card has this rate, and what the card has to play.
    fn new(format: Format, rate: u32) -> Result<(Self, Consumer<i32>)> {
        let of_card = Format { rate, ..format };
        let converter = (rate != format.rate).then(|| Rate::new(format.rate, of_card)).transpose()?;
        let (samples, ring) = RingBuffer::new(samples(of_card, LARGEST + SPARE));
        let (rate, shared) = (converter.map(|converter| (rate, converter)), Arc::new(Shared::default()));
        let appetite = Appetite::new(format.rate);
        let (faster, past) = (None, Vec::new());
        Ok((Self { format, rate, faster, past, samples, shared, appetite, stream: None }, ring))
    }

    /// So many frames of the card in frames of the run: what has to be there for them, and what they are worth if they are.
    fn of_run(&self, frames: usize) -> (u64, u64) {
        let rate = self.rate.as_ref().map_or(self.format.rate, |(rate, _)| *rate);
        let (frames, rate) = (frames as u64 * u64::from(self.format.rate), u64::from(rate.max(1)));
        (frames.div_ceil(rate), frames / rate)
    }

    /// The most that the card took at once.
    fn most(&self) -> u64 {
        self.of_run(self.shared.last.most()).0
    }

    /// What has to be there beyond so many frames of the run, so that the card gets as many of its own: what it takes
    /// faster, and a frame of its own that is begun.
    fn beyond(&self, frames: u64) -> u64 {
        let (Some(faster), Some((rate, _))) = (self.faster, &self.rate) else { return 0 };
        let faster = u64::try_from(faster).unwrap_or(0);
        u64::from(self.format.rate.div_ceil(*rate)) + (frames * faster).div_ceil(1_000_000_000)
    }

    fn keep_past(&mut self, samples: &[i32]) {
        let keep = PAST * usize::from(self.format.channels);
        self.past.extend_from_slice(samples.get(samples.len().saturating_sub(keep)..).unwrap_or_default());
        self.past.drain(..self.past.len().saturating_sub(keep));
    }

    /// No more than was wanted: there should be room.
    fn put(&mut self, samples: &[i32]) {
        match self.samples.write_chunk_uninit(samples.len()) {
            Ok(chunk) => _ = chunk.fill_from_iter(samples.iter().copied()),
            Err(_) => _ = self.shared.xruns.fetch_add(1, Relaxed),
        }
    }
}

impl Sink for Card {
    fn period(&self) -> Duration {
        EVENLY + if self.faster.is_some() { LOOSELY } else { Duration::ZERO }
    }

    fn wants(&mut self, now: Duration) -> Result<usize> {
        self.check()?;
        let frames = self.appetite.wants(now, self.waiting());
        Ok(usize::try_from(frames).unwrap_or(0))
    }

    fn needs(&self, _: usize) -> usize {
        let (since, taken) = self.shared.last.taken();
        let needs = match self.appetite.needs(0, (since, self.of_run(taken).0)) {
            0 => 0,
            period => (period + self.beyond(period)).saturating_sub(self.waiting()),
        };
        usize::try_from(needs).unwrap_or(0)
    }

    fn begin(&mut self) -> Option<(Duration, Duration, u64)> {
        let (waiting, most) = (self.waiting(), self.most());
        let (since, _) = self.shared.last.taken();
        Some(self.appetite.begin(waiting, most, since))
    }

    fn outgrown(&self) -> bool {
        self.appetite.outgrown(self.most())
    }

    fn take(&mut self, samples: &[i32], _: &[Range<usize>]) -> Result<()> {
        self.shared.draining.store(false, Relaxed);
        let channels = usize::from(self.format.channels);
        self.appetite.got((samples.len() / channels) as u64);
        match &mut self.rate {
            None => {
                self.keep_past(samples);
                self.put(samples);
            }
            Some((_, rate)) => {
                let samples = rate.convert(samples, channels);
                self.put(&samples);
            }
        }
        Ok(())
    }

    fn keeps_all(&self) -> bool {
        false
    }

    fn drain(&mut self) {
        let draining = self.shared.draining.swap(true, Relaxed);
        if let Some((_, rate)) = self.rate.as_mut().filter(|_| !draining) {
            let end = rate.finish(self.format.channels.into());
            self.put(&end);
        }
    }

    fn waiting(&self) -> u64 {
        let samples = self.samples.buffer().capacity() - self.samples.slots();
        self.of_run(samples / usize::from(self.format.channels)).1
    }

    fn check(&self) -> Result<()> {
        anyhow::ensure!(!self.shared.failed.load(Relaxed), "the sound card is gone");
        Ok(())
    }

    fn xruns(&self) -> u64 {
        self.shared.xruns.load(Relaxed)
    }

    fn settle(&mut self) -> Result<()> {
        self.drain();
        Ok(())
    }

    fn file(&self) -> Option<String> {
        None
    }

    fn adapt(&mut self, parts_per_billion: i32) {
        let (Format { rate, .. }, past) = (self.format, &self.past);
        if self.rate.is_none() {
            let by_clock = Rate::after(past, self.format);
            let by_clock = by_clock.inspect_err(|error| tracing::debug!("it cannot be resampled: {error:#}"));
            self.rate = by_clock.ok().map(|by_clock| (rate, by_clock));
        }
        if let Some((_, rate)) = &mut self.rate {
            rate.adapt(parts_per_billion);
            self.faster = Some(parts_per_billion);
        }
    }

    fn resampled_to(&self) -> Option<u32> {
        self.rate.as_ref().map(|(rate, _)| *rate)
    }
}

fn build<T: SizedSample + FromSample<i32> + Send + 'static>(
    device: &Device,
    config: StreamConfig,
    format: Format,
    ring: Consumer<i32>,
    shared: &Arc<Shared>,
) -> Result<Stream> {
    let mut player = Player {
        ring,
        shared: Arc::clone(shared),
        channels: usize::from(format.channels),
        card_channels: usize::from(config.channels),
        target: samples(format, PERIOD),
        most: samples(format, LONGEST),
        playing: false,
    };
    let fill = move |out: &mut [T], _: &cpal::OutputCallbackInfo| player.fill(out);
    Ok(device.build_output_stream(config, fill, on_error(shared), None)?)
}

/// The callback's half; it runs on the card's thread and never waits.
struct Player {
    ring: Consumer<i32>,
    shared: Arc<Shared>,
    channels: usize,
    card_channels: usize,
    /// Samples that have to wait before it starts, or more if it takes more.
    target: usize,
    /// But not more than this.
    most: usize,
    playing: bool,
}

impl Player {
    /// Fills the card's buffer.
    fn fill<T: SizedSample + FromSample<i32>>(&mut self, out: &mut [T]) {
        self.shared.last.take(out.len() / self.card_channels);
        let draining = self.shared.draining.load(Relaxed);
        let (waiting, wanted) = (self.ring.slots(), out.len() / self.card_channels);
        // What it takes at once has to be there as a whole, unless that is more than the ring is ever asked for.
        let enough = self.target.max(wanted * self.channels).min(self.most);
        self.playing |= waiting >= enough || (draining && waiting > 0);
        let frames = if self.playing { wanted.min(waiting / self.channels) } else { 0 };
        let (sound, silence) = out.split_at_mut(frames * self.card_channels);
        sound.chunks_exact_mut(self.card_channels).for_each(|frame| self.frame(frame));
        silence.fill(T::EQUILIBRIUM);
        if self.playing && frames < wanted {
            self.playing = false;
            self.shared.xruns.fetch_add(u64::from(!draining), Relaxed);
        }
    }

    /// One frame: channel by channel; one channel goes to all, and a channel that the sound lacks is silent.
    fn frame<T: SizedSample + FromSample<i32>>(&mut self, out: &mut [T]) {
        let mut samples = [0i32; CHANNELS];
        for sample in samples.iter_mut().take(self.channels) {
            *sample = self.ring.pop().unwrap_or(0);
        }
        for (at, place) in out.iter_mut().enumerate() {
            let at = if self.channels == 1 { 0 } else { at };
            *place = T::from_sample(samples.get(at).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests;
