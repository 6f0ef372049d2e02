//! A guest and a remote against the HD Audio controller: registers, verbs, memory that may go away, time, jacks and a
//! microphone's sound, in any order; with two speakers or with eight.

use core::{cell::Cell, time::Duration};
use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use hda::{
    Config, Output, Packet, Speakers,
    driver::{Bare, Buffer, Driver, Host, Kind},
};
use pci::{Cx, Dma, DmaError, Model, Ram, Width};
use wire::audio::{Encoding, Format, Jack, StreamId, ToRemote};

const BYTES: usize = 1 << 20;
const SOUND: u64 = 0x8_0000;
const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
const TAG: u8 = 5;
/// The group, the root and every widget of either codec, one that is a gap, and one that is not there.
const NODES: [u32; 18] = [0, 1, 2, 3, 4, 5, 6, 8, 0x10, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x7f, 0xff];
/// Verbs with a payload of 8 bits, of 12 bits each: those that drivers use, and some that the codec has not.
#[rustfmt::skip]
const NARROW: [u32; 36] = [
    0xf00, 0xf01, 0x701, 0xf02, 0xf03, 0x703, 0xf05, 0x705, 0xf06, 0x706, 0xf07, 0x707,
    0xf08, 0x708, 0xf09, 0x709, 0xf0c, 0x70c, 0xf0d, 0x70d, 0xf15, 0x715, 0xf1c, 0x71c,
    0x71d, 0x71e, 0x71f, 0xf20, 0x720, 0x721, 0x722, 0x723, 0xf2d, 0x72d, 0x7ff, 0x7fe,
];
/// And those with a payload of 16 bits: of 4 bits each.
const WIDE: [u32; 6] = [0x2, 0x3, 0xa, 0xb, 0x4, 0xd];
/// Actions of one run.
const MOST_ACTIONS: usize = 400;
/// 50 ms of 16 channels with 32 bits at 192 kHz, for 4 streams, and packets that were begun; thrice, for the calls of
/// one action.
const MOST_SOUND: usize = 3 * (4 * 64 * 192_000 / 20 + 4 * 64 * 960);

/// Guest memory that can be taken away.
struct Memory {
    ram: Ram,
    gone: Cell<bool>,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        Self { ram: Ram::new(0, bytes), gone: Cell::new(false) }
    }

    fn there(&self) -> core::result::Result<&Ram, DmaError> {
        if self.gone.get() { Err(DmaError::Unmapped) } else { Ok(&self.ram) }
    }
}

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> core::result::Result<(), DmaError> {
        self.there()?.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> core::result::Result<(), DmaError> {
        self.there()?.write(address, data)
    }

    fn observe(&self, address: u64) -> core::result::Result<u32, DmaError> {
        self.there()?.observe(address)
    }

    fn publish(&self, address: u64, value: u32) -> core::result::Result<(), DmaError> {
        self.there()?.publish(address, value)
    }
}

/// Whatever a guest and a remote do: no panic, bounded sound in both directions, a deadline that a tick has done away
/// with, and a remote that knows what it is to record.
pub(crate) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let surround = data.arbitrary().unwrap_or(false);
    let mut bare = playing(if surround { Speakers::Surround71 } else { Speakers::Stereo });
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
    bare.ram.gone.set(false);
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

/// A playback stream to all speakers and a capture stream that run, with everything plugged in.
fn playing(speakers: Speakers) -> Bare<Memory> {
    let config = Config { speakers, ..Config::default() };
    let bare = Bare::with_memory(config, Memory::new(BYTES));
    let mut driver = Driver::start(bare, 0).expect("a fresh controller");
    for jack in [Jack::Headphone, Jack::Microphone] {
        plug(driver.host(), jack, true);
    }
    driver.host().pass(Duration::from_millis(100));
    let pairs = if speakers == Speakers::Surround71 { 4 } else { 1 };
    let played = Format { channels: 2 * pairs, ..FORMAT };
    for pair in 0..pairs {
        let speaker = driver.endpoint(Kind::Speaker, pair).expect("a speaker");
        driver.connect_at(speaker.converter, TAG, 2 * pair, played).expect("a converter");
    }
    for endpoint in [driver.headphone(), driver.microphone()] {
        let endpoint = endpoint.expect("a way out of the codec, or into it");
        driver.connect(endpoint.converter, TAG, FORMAT).expect("a converter");
    }
    driver.host().write(0x08, Width::Dword, 0x101);
    let buffers = [
        Buffer { address: SOUND, length: 960, interrupt: true },
        Buffer { address: SOUND + 960, length: 64, interrupt: false },
    ];
    for (stream, format) in [(0, FORMAT), (4, played)] {
        driver.set_up(stream, TAG, format, &buffers, 1024).expect("a stream");
        driver.run(stream, true);
    }
    core::mem::replace(driver.host(), Bare::with_memory(config, Memory::new(0)))
}

fn plug(bare: &mut Bare<Memory>, jack: Jack, present: bool) {
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.set_jack(&mut cx, jack, present);
}

fn act(bare: &mut Bare<Memory>, data: &mut Unstructured<'_>) -> Result<()> {
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
            bare.ram.ram.publish(at, data.arbitrary()?).expect("memory that exists");
        }
        kind @ (7 | 8) => {
            let verb: u32 = if kind == 7 { data.arbitrary()? } else { plausible(data)? };
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
            match data.int_in_range(0..=3)? {
                0 => bare.hda.set_drift(&cx, data.arbitrary()?),
                1 => bare.hda.reset(&mut cx),
                2 => bare.ram.gone.set(true),
                _ => bare.ram.gone.set(false),
            }
        }
    }
    Ok(())
}

/// A verb to codec 0 that its nodes know, or might.
fn plausible(data: &mut Unstructured<'_>) -> Result<u32> {
    let node = data.choose(&NODES)? << 20;
    Ok(node
        | match data.arbitrary()? {
            true => data.choose(&NARROW)? << 8 | u32::from(data.arbitrary::<u8>()?),
            false => data.choose(&WIDE)? << 16 | u32::from(data.arbitrary::<u16>()?),
        })
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
