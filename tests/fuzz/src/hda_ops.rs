//! A guest against the HD Audio controller: registers, verbs, memory and time, in any order.

use core::time::Duration;

use arbitrary::{Result, Unstructured};
use hda::{
    Config, Output,
    driver::{Bare, Buffer, Driver, Host},
};
use pci::{Cx, Dma, Model, Width};
use wire::audio::{Encoding, Format, StreamId, ToHost, ToRemote};

const MEMORY: usize = 1 << 20;
const SOUND: u64 = 0x8_0000;
const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const TAG: u8 = 5;
/// Actions of one run.
const MOST_ACTIONS: usize = 400;
/// 50 ms of 16 channels with 32 bits at 192 kHz, for 4 streams, and packets that were begun; thrice, for the calls of
/// one action.
const MOST_SOUND: usize = 3 * (4 * 64 * 192_000 / 20 + 4 * 64 * 960);

/// Whatever a guest does: no panic, bounded sound, and a deadline that a tick has done away with.
pub(crate) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut bare = playing();
    for _ in 0..MOST_ACTIONS {
        if data.is_empty() || act(&mut bare, &mut data).is_err() {
            break;
        }
        let sent = |output: &Output| match output {
            Output::Audio(ToRemote::Play(packet)) => packet.pcm.len(),
            _ => 0,
        };
        let sent: usize = bare.out.drain(..).map(|output| sent(&output)).sum();
        assert!(sent <= MOST_SOUND, "{sent} bytes of sound");
        bare.tick();
        assert!(bare.hda.deadline().is_none_or(|due| due > bare.now), "a tick leaves nothing due");
        bare.out.clear();
    }
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    Model::reset(&mut bare.hda, &mut cx);
    Driver::start(bare, 0).expect("a reset makes it well again");
}

/// A playback and a capture stream that run.
fn playing() -> Bare {
    let mut driver = Driver::start(Bare::new(Config::default(), MEMORY), 0).expect("a fresh controller");
    let speaker = driver.speaker().expect("a speaker");
    driver.connect(speaker.converter, TAG, FORMAT).expect("a converter");
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

fn act(bare: &mut Bare, data: &mut Unstructured<'_>) -> Result<()> {
    match data.int_in_range(0..=11)? {
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
        _ => {
            let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
            match data.arbitrary()? {
                true => bare.hda.reset(&mut cx),
                false => {
                    let (run, position, queued) = (data.arbitrary()?, data.arbitrary()?, data.arbitrary()?);
                    bare.hda.report(
                        &mut cx,
                        ToHost::Played { stream: StreamId(data.arbitrary()?), run, position, queued },
                    );
                }
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
