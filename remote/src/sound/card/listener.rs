//! The microphone of a sound card.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ::sound::jitter::CAP;
use anyhow::{Context as _, Result};
use cpal::{
    Device, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, StreamTrait},
};
use rtrb::{Consumer, Producer, RingBuffer};
use wire::audio::{Encoding, Format};

use super::{Shared, Way, choose, name, nearest, on_error, samples};
use crate::sound::Source;

/// A microphone that is open.
pub(crate) struct Listener {
    format: Format,
    /// Samples at the top of 32 bits; only whole frames are in it at any time.
    samples: Consumer<i32>,
    shared: Arc<Shared>,
    /// Listens until it is dropped.
    _stream: Stream,
}

impl Listener {
    /// Opens the card with this in its name, or the default one, in this format or the nearest that it has.
    pub(crate) fn open(wanted: Option<&str>, format: Format) -> Result<Self> {
        let device = choose(wanted, Way::In)?;
        let opening = || format!("opening {} with {format:?}", name(&device));
        let configs = device.supported_input_configs().with_context(opening)?;
        let (sample, config) = nearest(configs, format).context("it hears nothing").with_context(opening)?;
        let channels = u8::try_from(config.channels).context("too many channels").with_context(opening)?;
        let encoding = match sample {
            SampleFormat::I16 => Encoding::S16,
            SampleFormat::I32 => Encoding::S32,
            // What a float has without loss.
            _ => Encoding::S24,
        };
        let format = Format { rate: config.sample_rate, encoding, channels };
        let (room, heard) = RingBuffer::new(samples(format, CAP) * 2);
        let shared = Arc::new(Shared::default());
        let stream = match sample {
            SampleFormat::I16 => build::<i16>(&device, config, room, &shared),
            SampleFormat::I32 => build::<i32>(&device, config, room, &shared),
            _ => build::<f32>(&device, config, room, &shared),
        };
        let stream = stream.with_context(opening)?;
        stream.play().context("starting the microphone")?;
        Ok(Self { format, samples: heard, shared, _stream: stream })
    }
}

impl Source for Listener {
    fn format(&self) -> Format {
        self.format
    }

    fn pull(&mut self, _: Duration, into: &mut Vec<i32>) -> Result<u64> {
        anyhow::ensure!(!self.shared.failed.load(Relaxed), "the microphone is gone");
        if let Ok(heard) = self.samples.read_chunk(self.samples.slots()) {
            into.extend(heard);
        }
        Ok(self.shared.lost.swap(0, Relaxed) / u64::from(self.format.channels))
    }

    fn xruns(&self) -> u64 {
        self.shared.xruns.load(Relaxed)
    }
}

fn build<T>(
    device: &Device,
    config: StreamConfig,
    mut room: Producer<i32>,
    shared: &Arc<Shared>,
) -> Result<Stream>
where
    T: SizedSample + Send + 'static,
    i32: FromSample<T>,
{
    let (heard, failed) = (Arc::clone(shared), on_error(shared));
    let listen = move |samples: &[T], _: &cpal::InputCallbackInfo| keep(samples, &mut room, &heard);
    Ok(device.build_input_stream(config, listen, failed, None)?)
}

/// The callback: it runs on the card's thread and never waits. What finds no room is lost as a whole: frames stay whole.
fn keep<T: SizedSample>(samples: &[T], room: &mut Producer<i32>, shared: &Shared)
where
    i32: FromSample<T>,
{
    match room.write_chunk_uninit(samples.len()) {
        Ok(chunk) => drop(chunk.fill_from_iter(samples.iter().map(|sample| i32::from_sample_(*sample)))),
        Err(_) => {
            shared.lost.fetch_add(samples.len() as u64, Relaxed);
            shared.xruns.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_kept_as_they_are_and_what_finds_no_room_is_counted() {
        let (mut room, mut heard) = RingBuffer::new(4);
        let shared = Shared::default();
        keep(&[i16::MIN, -1, 1, i16::MAX], &mut room, &shared);
        keep(&[5i16, 6], &mut room, &shared);
        let kept: Vec<i32> = heard.read_chunk(4).unwrap().into_iter().collect();
        assert_eq!(kept, [i16::MIN, -1, 1, i16::MAX].map(|sample| i32::from(sample) << 16));
        assert_eq!((shared.lost.load(Relaxed), shared.xruns.load(Relaxed)), (2, 1));
    }
}
