//! The speakers of a sound card.
//!
//! ```text
//!   frames of the run ─► (resample: the card lacks the rate) ─► ring, at the card's rate ─► the card's callback
//! ```
//! What is asked for, and what waits, is counted in frames of the run.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ::sound::appetite::{Appetite, LARGEST, LONGEST, PERIOD};
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
/// The most channels of a format of HD Audio.
const CHANNELS: usize = 16;
/// What the ring has room for beyond what it is asked for: the end of the sound that a filter keeps, and roundings.
const SPARE: Duration = Duration::from_millis(20);

/// The sink of one run.
pub(crate) struct Card {
    format: Format,
    /// The card's, where it is not the run's, and the way there.
    rate: Option<(u32, Rate)>,
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
        Ok((Self { format, rate, samples, shared, appetite, stream: None }, ring))
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
        EVENLY
    }

    fn wants(&mut self, now: Duration) -> Result<usize> {
        self.check()?;
        let frames = self.appetite.wants(now, self.waiting());
        Ok(usize::try_from(frames).unwrap_or(0))
    }

    fn needs(&self, _: usize) -> usize {
        let (since, taken) = self.shared.last.taken();
        let needs = self.appetite.needs(self.waiting(), (since, self.of_run(taken).0));
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
            None => self.put(samples),
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
mod tests {
    use std::f64::consts::TAU;

    use cpal::Sample;
    use wire::audio::Encoding;

    use super::*;

    fn player(channels: usize, card_channels: usize) -> (Producer<i32>, Player) {
        let (producer, ring) = RingBuffer::new(64);
        let shared = Arc::new(Shared::default());
        (producer, Player { ring, shared, channels, card_channels, target: 16, most: 48, playing: false })
    }

    fn push(producer: &mut Producer<i32>, samples: Range<i32>) {
        samples.for_each(|n| producer.push(n << 16).unwrap());
    }

    /// What a card of this rate, which takes ten milliseconds at once, hears of a sine of one second at another.
    fn hear(from: u32, to: u32, frames: usize) -> (Vec<f64>, Card) {
        let format = Format { rate: from, encoding: Encoding::S32, channels: 2 };
        let (mut card, ring) = Card::new(format, to).unwrap();
        let (channels, target) = (2, samples(Format { rate: to, ..format }, PERIOD));
        let shared = Arc::clone(&card.shared);
        let mut player =
            Player { ring, shared, channels, card_channels: 2, target, most: usize::MAX, playing: false };
        let (mut given, mut heard) = (0, Vec::new());
        card.begin();
        for ms in 0..1_500u32 {
            // The ring is filled to where it should be, in pieces of any length, as packets come.
            let period = samples(Format { channels: 1, ..format }, PERIOD) as u64;
            let wants = card.wants(Duration::from_millis(1) * ms).unwrap();
            let room = (period + u64::from(ms % 7)).saturating_sub(card.waiting());
            let piece = given..(given + wants.max(usize::try_from(room).unwrap())).min(frames);
            given = piece.end;
            let sine = |n: usize| ((n as f64 * 997.0 * TAU / f64::from(from)).sin() * 1e9) as i32;
            if piece.start == frames {
                card.drain();
            } else {
                card.take(&piece.flat_map(|n| [sine(n), 0]).collect::<Vec<_>>(), &[]).unwrap();
            }
            if ms.is_multiple_of(10) {
                let mut out = vec![1i32; to as usize / 100 * 2];
                player.fill(&mut out);
                assert!(out.iter().skip(1).step_by(2).all(|sample| *sample == 0), "channels stay apart");
                heard.extend(out.iter().step_by(2).map(|sample| f64::from(*sample) / 1e9));
            }
        }
        (heard, card)
    }

    #[test]
    fn a_run_whose_rate_the_card_lacks_is_heard_as_long_and_as_high_as_it_was() {
        for (from, to) in [(44_100, 48_000), (192_000, 48_000), (11_025, 44_100)] {
            let (heard, card) = hear(from, to, from as usize);
            assert_eq!((card.resampled_to(), card.xruns(), card.waiting()), (Some(to), 0, 0), "{from}");
            let loud = |sample: &f64| sample.abs() > 0.2;
            let (first, last) = (heard.iter().position(loud).unwrap(), heard.iter().rposition(loud).unwrap());
            assert!((last - first).abs_diff(to as usize) < 20, "{from}: {} frames", last - first);
            let sound = &heard[first + 500..last - 500];
            let crossings = sound.windows(2).filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0)).count();
            let due = sound.len() as f64 * 2.0 * 997.0 / f64::from(to);
            assert!((crossings as f64 - due).abs() < 1.5, "{from}: {crossings} for {due}");
            // Of any sine: x(n-1) + x(n+1) = 2 cos(w) x(n); nothing is lost between the pieces.
            let twice_cos = 2.0 * (997.0 * TAU / f64::from(to)).cos();
            let wrong = sound.windows(3).map(|w| (w[0] + w[2] - twice_cos * w[1]).abs());
            assert!(wrong.fold(0.0, f64::max) < 1e-4, "{from}");
        }
    }

    #[test]
    fn a_run_at_the_rate_of_the_card_is_heard_bit_by_bit() {
        let (heard, card) = hear(48_000, 48_000, 48_000);
        assert_eq!((card.resampled_to(), card.xruns()), (None, 0));
        let sine = (0..48_000).map(|n| ((f64::from(n) * 997.0 * TAU / 48_000.0).sin() * 1e9) as i32);
        let first = heard.iter().position(|sample| *sample != 0.0).unwrap() - 1;
        assert!(sine.zip(&heard[first..]).all(|(said, heard)| f64::from(said) / 1e9 == *heard));
    }

    #[test]
    fn sixteen_bits_pass_through_the_ring_unchanged() {
        for value in [i16::MIN, -1, 0, 1, 257, i16::MAX] {
            assert_eq!(i16::from_sample(i32::from(value) << 16), value);
        }
    }

    #[test]
    fn the_card_gets_silence_until_enough_waits_and_counts_what_it_lacks() {
        let (mut producer, mut player) = player(2, 2);
        let mut out = [1i16; 8];
        player.fill(&mut out);
        assert_eq!((out, player.shared.xruns.load(Relaxed)), ([0; 8], 0));
        push(&mut producer, 0..20);
        player.fill(&mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
        player.fill(&mut out);
        player.fill(&mut out);
        assert_eq!((out[3], out[4], player.shared.xruns.load(Relaxed)), (19, 0, 1));
    }

    #[test]
    fn a_card_starts_when_all_that_it_takes_at_once_is_there() {
        let (mut producer, mut player) = player(2, 2);
        let mut out = [1i16; 40];
        push(&mut producer, 0..38);
        player.fill(&mut out);
        assert_eq!(out, [0; 40]);
        push(&mut producer, 38..40);
        player.fill(&mut out);
        assert_eq!((out[1], out[39], player.shared.last.most()), (1, 39, 20));
        // More than there may ever be is not waited for.
        push(&mut producer, 40..88);
        player.playing = false;
        let mut out = [1i16; 200];
        player.fill(&mut out);
        assert_eq!((out[0], out[47], out[48]), (40, 87, 0));
    }

    #[test]
    fn half_a_frame_is_never_played() {
        let (mut producer, mut player) = player(2, 2);
        player.playing = true;
        push(&mut producer, 0..17);
        let mut out = [1i16; 32];
        player.fill(&mut out);
        assert_eq!((out[15], out[16]), (15, 0));
        player.playing = true;
        push(&mut producer, 17..34);
        player.fill(&mut out);
        assert_eq!(out[..3], [16, 17, 18], "channels stay where they are");
    }

    #[test]
    fn a_card_with_other_channels_hears_what_it_can() {
        for (channels, card_channels, heard) in
            [(1, 2, [0, 0, 1, 1]), (2, 4, [0, 1, 0, 0]), (4, 2, [0, 1, 4, 5])]
        {
            let (mut producer, mut player) = player(channels, card_channels);
            push(&mut producer, 0..16);
            let mut out = [9i16; 4];
            player.fill(&mut out);
            assert_eq!(out, heard, "{channels} on {card_channels}");
        }
    }
}
