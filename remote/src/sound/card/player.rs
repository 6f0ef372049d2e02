//! The speakers of a sound card.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, Result};
use cpal::{
    Device, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, StreamTrait},
};
use rtrb::{Consumer, Producer, RingBuffer};
use wire::audio::Format;

use super::{
    Shared, Way,
    appetite::{Appetite, LARGEST, PERIOD},
    choose, name, nearest, on_error, samples,
};
use crate::sound::Sink;

/// The ring is filled as evenly as may be, so that the receiver needs to have no more than this beyond what is due.
const EVENLY: Duration = Duration::from_millis(1);
/// The most channels of a format of HD Audio.
const CHANNELS: usize = 16;

/// The sink of one run.
pub(crate) struct Card {
    format: Format,
    /// Samples as 32 bits, the significant ones on top: every format of HD Audio fits without loss. Only whole frames
    /// are in it at any time.
    samples: Producer<i32>,
    shared: Arc<Shared>,
    appetite: Appetite,
    /// Plays until it is dropped.
    _stream: Stream,
}

impl Card {
    /// Opens the card with this in its name, or the default one.
    pub(crate) fn open(wanted: Option<&str>, format: Format) -> Result<Self> {
        let device = choose(wanted, Way::Out)?;
        let (samples_in, samples_out) = RingBuffer::new(samples(format, LARGEST));
        let shared = Arc::new(Shared::default());
        let stream = open(&device, format, samples_out, &shared)
            .with_context(|| format!("opening {} with {format:?}", name(&device)))?;
        stream.play().context("starting the sound card")?;
        let appetite = Appetite::new(format.rate);
        Ok(Self { format, samples: samples_in, shared, appetite, _stream: stream })
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
        usize::try_from(self.appetite.needs(self.waiting(), (since, taken as u64))).unwrap_or(0)
    }

    fn begin(&mut self) -> Option<(Duration, Duration, u64)> {
        let waiting = self.waiting();
        let (since, _) = self.shared.last.taken();
        Some(self.appetite.begin(waiting, self.shared.last.most() as u64, since))
    }

    fn outgrown(&self) -> bool {
        self.appetite.outgrown(self.shared.last.most() as u64)
    }

    fn take(&mut self, samples: &[i32], _: &[Range<usize>]) -> Result<()> {
        self.shared.draining.store(false, Relaxed);
        self.appetite.got((samples.len() / usize::from(self.format.channels)) as u64);
        // No more than it wanted: there is room.
        if let Ok(chunk) = self.samples.write_chunk_uninit(samples.len()) {
            chunk.fill_from_iter(samples.iter().copied());
        }
        Ok(())
    }

    fn keeps_all(&self) -> bool {
        false
    }

    fn drain(&mut self) {
        self.shared.draining.store(true, Relaxed);
    }

    fn waiting(&self) -> u64 {
        let samples = self.samples.buffer().capacity() - self.samples.slots();
        samples as u64 / u64::from(self.format.channels)
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
}

/// Opens the card. The rate must be one of its own: sound servers and ALSA's `default` have all of them.
fn open(device: &Device, format: Format, ring: Consumer<i32>, shared: &Arc<Shared>) -> Result<Stream> {
    let best = nearest(device.supported_output_configs()?, format);
    let best = best.filter(|(_, stream)| stream.sample_rate == format.rate);
    let (sample, stream) = best.context("the card cannot play this rate")?;
    match sample {
        SampleFormat::I16 => build::<i16>(device, stream, format, ring, shared),
        SampleFormat::I32 => build::<i32>(device, stream, format, ring, shared),
        _ => build::<f32>(device, stream, format, ring, shared),
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
    playing: bool,
}

impl Player {
    /// Fills the card's buffer.
    fn fill<T: SizedSample + FromSample<i32>>(&mut self, out: &mut [T]) {
        self.shared.last.take(out.len() / self.card_channels);
        let draining = self.shared.draining.load(Relaxed);
        let (waiting, wanted) = (self.ring.slots(), out.len() / self.card_channels);
        // What it takes at once has to be there as a whole, unless that is more than there may ever be.
        let enough = self.target.max(wanted * self.channels).min(self.ring.buffer().capacity());
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
    use cpal::Sample;

    use super::*;

    fn player(channels: usize, card_channels: usize) -> (Producer<i32>, Player) {
        let (producer, ring) = RingBuffer::new(64);
        let shared = Arc::new(Shared::default());
        (producer, Player { ring, shared, channels, card_channels, target: 16, playing: false })
    }

    fn push(producer: &mut Producer<i32>, samples: Range<i32>) {
        samples.for_each(|n| producer.push(n << 16).unwrap());
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
        push(&mut producer, 40..104);
        player.playing = false;
        let mut out = [1i16; 200];
        player.fill(&mut out);
        assert_eq!((out[0], out[63], out[64]), (40, 103, 0));
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
