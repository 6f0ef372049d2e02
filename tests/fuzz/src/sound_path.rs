//! Sound from a stranger: packets of any place, length and content, at any time, into a receiver that a device pulls from.

use core::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use sound::{Clocking, Config, Receiver};
use wire::audio::{Block, Codec, Coded, Encoding, Format, StreamId};

/// Actions of one run.
const MOST_ACTIONS: usize = 200;
/// What one request decodes beyond what it asks for: both ends of a cut, and what is left of blocks there, frames.
const BEYOND: u64 = 48 * (2 * 55 + 20) + 3 * wire::audio::MAX_FRAMES as u64;

/// The first bytes choose the format and who follows whom.
pub(crate) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(mut receiver) = receiver(&mut data) else { return };
    let (mut now, mut actions) = (Duration::ZERO, 0);
    while !data.is_empty() && actions < MOST_ACTIONS && act(&mut data, &mut receiver, &mut now).is_ok() {
        actions += 1;
    }
}

struct Fuzzed {
    receiver: Receiver,
    format: Format,
    played: u64,
}

fn receiver(data: &mut Unstructured<'_>) -> Result<Fuzzed> {
    let rate = *data.choose(&[8_000, 11_025, 44_100, 48_000])?;
    let encoding = *data.choose(&[Encoding::U8, Encoding::S16, Encoding::S24, Encoding::S32])?;
    let format = Format { rate, encoding, channels: data.int_in_range(1..=3)? };
    let clocking = if data.arbitrary()? { Clocking::Resample(48_000) } else { Clocking::SenderFollows };
    let config = Config { clocking, skips_silence: data.arbitrary()?, ..Config::LAN };
    let receiver = Receiver::at(StreamId(1), 1, format, 100, config).expect("rates that can be converted");
    Ok(Fuzzed { receiver, format, played: 100 })
}

fn act(data: &mut Unstructured<'_>, fuzzed: &mut Fuzzed, now: &mut Duration) -> Result<()> {
    match data.int_in_range(0..=9)? {
        0..=4 => fuzzed.receiver.push(*now, &packet(data, fuzzed)?),
        5..=7 => fuzzed.pull(*now, data.int_in_range(0..=2_400)?),
        8 => *now += Duration::from_millis(data.int_in_range(0..=400)?),
        _ => match data.int_in_range(0..=3)? {
            0 => fuzzed.receiver.drain(),
            1 => fuzzed.receiver.resample().expect("a rate that can be converted"),
            2 => fuzzed
                .receiver
                .set_round_trip(data.arbitrary::<Option<u8>>()?.map(|ms| Duration::from_millis(ms.into()))),
            _ => drop(fuzzed.receiver.missing()),
        },
    }
    Ok(())
}

fn packet(data: &mut Unstructured<'_>, fuzzed: &Fuzzed) -> Result<Coded> {
    let block = |data: &mut Unstructured<'_>| {
        let near = fuzzed.played.saturating_add(data.int_in_range(0..=20_000)?).saturating_sub(2_000);
        let position = if data.ratio(1, 20)? { data.arbitrary()? } else { near };
        let frames = *data.choose(&[1, 40, 120, 240, 480, 960, wire::audio::MAX_FRAMES])?;
        let codec = if data.arbitrary()? { Codec::Opus } else { Codec::Pcm };
        let whole = usize::from(frames) * fuzzed.format.frame_bytes() as usize;
        let payload = match codec {
            Codec::Pcm if data.ratio(7, 8)? => vec![data.arbitrary()?; whole],
            _ => {
                let length = data.int_in_range(1..=80)?;
                data.bytes(length.min(data.len()))?.to_vec()
            }
        };
        Ok(Block { position, frames, codec, payload: Bytes::from(payload) })
    };
    let copies = (0..data.int_in_range(0..=2)?).map(|_| block(data)).collect::<Result<_>>()?;
    let again = data.ratio(1, 8)?;
    Ok(Coded { stream: StreamId(1), run: 1, again, format: fuzzed.format, block: block(data)?, copies })
}

impl Fuzzed {
    fn pull(&mut self, now: Duration, frames: u64) {
        let Self { receiver, format, played } = self;
        let before = receiver.counters().decoded;
        receiver.pull(now, &mut vec![0; frames as usize * usize::from(format.channels)]);
        let decoded = receiver.counters().decoded - before;
        // A resampler may want as much again, and a little.
        assert!(decoded <= 2 * frames + BEYOND, "{decoded} frames decoded for {frames}");
        let playing = receiver.playing();
        assert!(playing >= *played, "frame {playing} is played after {played}");
        *played = receiver.playing();
        assert!(receiver.queued() <= 2 * u64::from(format.rate), "{} frames wait", receiver.queued());
        if let Some(report) = receiver.report() {
            assert!(report.target <= sound::jitter::CAP && report.loss <= 1_000_000, "{report:?}");
        }
    }
}
