//! A guest and a remote against the HD Audio controller: registers, verbs, memory, time, jacks and a microphone's sound,
//! in any order.

use core::time::Duration;
use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use hda::{
    Config, Output, Packet,
    driver::{Bare, Buffer, Driver, Host},
};
use pci::{Cx, Dma, Model, Width};
use wire::audio::{Encoding, Format, Jack, StreamId, ToRemote};

const MEMORY: usize = 1 << 20;
const SOUND: u64 = 0x8_0000;
const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const TAG: u8 = 5;
/// Actions of one run.
const MOST_ACTIONS: usize = 400;
/// 50 ms of 16 channels with 32 bits at 192 kHz, for 4 streams, and packets that were begun; thrice, for the calls of
/// one action.
const MOST_SOUND: usize = 3 * (4 * 64 * 192_000 / 20 + 4 * 64 * 960);

/// Whatever a guest and a remote do: no panic, bounded sound in both directions, a deadline that a tick has done away
/// with, and a remote that knows what it is to record.
pub(crate) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut bare = playing();
    let mut recording = BTreeMap::new();
    for _ in 0..MOST_ACTIONS {
        if data.is_empty() || act(&mut bare, &mut data).is_err() {
            break;
        }
        let sent: usize = bare.out.drain(..).map(|output| sent(&output, &mut recording)).sum();
        assert!(sent <= MOST_SOUND, "{sent} bytes of sound");
        for stream in 0..8 {
            let waiting = bare.hda.waiting(StreamId(stream));
            assert_eq!(waiting.is_some(), recording.contains_key(&stream), "stream {stream}");
            assert!(waiting <= Some(192_000 * 150 / 1_000), "stream {stream}");
        }
        bare.tick();
        assert!(bare.hda.deadline().is_none_or(|due| due > bare.now), "a tick leaves nothing due");
    }
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    Model::reset(&mut bare.hda, &mut cx);
    Driver::start(bare, 0).expect("a reset makes it well again");
}

/// The bytes of sound that are sent with this; notes what the remote is to record.
fn sent(output: &Output, recording: &mut BTreeMap<u8, u32>) -> usize {
    match output {
        Output::Play(packet) => return packet.pcm.len(),
        Output::Audio(ToRemote::Record { stream, run, .. }) => {
            // A remote that has just come was told nothing yet: it may hear this a second time.
            let before = recording.insert(stream.0, *run);
            assert!(before.is_none_or(|before| before < *run), "a new number for each recording");
        }
        Output::Audio(ToRemote::StopRecord { stream, run }) => {
            assert_eq!(recording.remove(&stream.0), Some(*run), "the recording that there is");
        }
        Output::Audio(_) | Output::Interrupt(_) => {}
    }
    0
}

/// A playback stream and a capture stream that run, with everything plugged in.
fn playing() -> Bare {
    let mut driver = Driver::start(Bare::new(Config::default(), MEMORY), 0).expect("a fresh controller");
    for jack in [Jack::Headphone, Jack::Microphone] {
        plug(driver.host(), jack, true);
    }
    driver.host().pass(Duration::from_millis(100));
    for endpoint in [driver.speaker(), driver.headphone(), driver.microphone()] {
        let endpoint = endpoint.expect("a way out of the codec, or into it");
        driver.connect(endpoint.converter, TAG, FORMAT).expect("a converter");
    }
    driver.host().write(0x08, Width::Dword, 0x101);
    let buffers = [
        Buffer { address: SOUND, length: 960, interrupt: true },
        Buffer { address: SOUND + 960, length: 64, interrupt: false },
    ];
    for stream in [0, 4] {
        driver.set_up(stream, TAG, FORMAT, &buffers, 1024).expect("a stream");
        driver.run(stream, true);
    }
    core::mem::replace(driver.host(), Bare::new(Config::default(), 0))
}

fn plug(bare: &mut Bare, jack: Jack, present: bool) {
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.set_jack(&mut cx, jack, present);
}

fn act(bare: &mut Bare, data: &mut Unstructured<'_>) -> Result<()> {
    match data.int_in_range(0..=15)? {
        0..=3 => {
            let (offset, width) = place(data)?;
            bare.write(offset, width, value(data)? & width.mask());
        }
        4 => {
            let (offset, width) = place(data)?;
            assert_eq!(bare.read(offset, width) & !width.mask(), 0, "more than was read");
        }
        5 | 6 => {
            let at = data.int_in_range(0..=0x5fff_u64)? & !3;
            bare.ram.publish(at, data.arbitrary()?).expect("memory that exists");
        }
        7 | 8 => {
            let verb: u32 = data.arbitrary()?;
            bare.write(0x60, Width::Dword, verb.into());
            bare.write(0x68, Width::Word, 1);
        }
        9 | 10 => {
            bare.now += Duration::from_nanos(match data.arbitrary()? {
                true => data.int_in_range(0..=3_000_000)?,
                false => data.arbitrary::<u64>()? >> 8,
            });
            bare.tick();
        }
        12 => plug(bare, *data.choose(&[Jack::Headphone, Jack::Microphone])?, data.arbitrary()?),
        13 | 14 => {
            let (stream, run) = (StreamId(data.int_in_range(0..=7)?), data.int_in_range(0..=9)?);
            let position = if data.arbitrary()? { data.arbitrary()? } else { data.int_in_range(0..=2_000)? };
            let pcm = vec![1; data.int_in_range(0..=5_000)?].into();
            let packet = Packet { stream, run, position, format: FORMAT, pcm };
            bare.hda.captured(&packet);
        }
        15 => {
            let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
            bare.hda.remote_came(&mut cx);
        }
        _ => {
            let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
            match data.arbitrary()? {
                true => bare.hda.reset(&mut cx),
                false => bare.hda.set_drift(&cx, data.arbitrary()?),
            }
        }
    }
    Ok(())
}

fn place(data: &mut Unstructured<'_>) -> Result<(u64, Width)> {
    let width = *data.choose(&[Width::Dword, Width::Dword, Width::Word, Width::Byte, Width::Qword])?;
    let offset: u64 = match data.int_in_range(0..=9)? {
        0..=3 => data.int_in_range(0..=0x7f)?,
        4..=8 => data.int_in_range(0x80..=0x17f)?,
        _ => data.int_in_range(0..=0x3fff)?,
    };
    Ok((offset & !(width.bytes() as u64 - 1), width))
}

fn value(data: &mut Unstructured<'_>) -> Result<u64> {
    match data.int_in_range(0..=4)? {
        0 => Ok(1 << data.int_in_range(0..=31)?),
        1 => Ok(data.int_in_range(0..=63)? * 0x80),
        2 => data.int_in_range(0..=63),
        3 => Ok(0x0050_001e),
        _ => data.arbitrary(),
    }
}
