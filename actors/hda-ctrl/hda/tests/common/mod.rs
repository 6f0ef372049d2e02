//! A guest that plays a counter, and what was heard of it.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its part")]

use core::time::Duration;
use std::cell::{Cell, RefCell};

use hda::driver::{Bare, Buffer, Driver, Kind};
use hda::{Config, Output, Speakers};
use pci::{Dma, DmaError, Ram};
use wire::audio::{Encoding, Format, ToRemote};

pub const STEREO: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
pub const TAG: u8 = 5;
/// Where the driver's memory begins, and where rings of sound do.
pub const DRIVER: u64 = 0x0004_0000;
pub const SOUND: u64 = 0x0010_0000;
pub const RAM: usize = 0x0100_0000;

/// A started controller whose speakers, two or eight, listen to [`TAG`].
pub fn desk(format: Format) -> (Driver<Bare>, u8) {
    desk_behind(0, format)
}

/// The same, behind so many runs of other controllers.
pub fn desk_behind(runs_before: u32, format: Format) -> (Driver<Bare>, u8) {
    let speakers = if format.channels > 2 { Speakers::Surround71 } else { Speakers::Stereo };
    let config = Config { speakers, runs_before, ..Config::default() };
    let mut driver = Driver::start(Bare::new(config, RAM), DRIVER).unwrap();
    for sequence in 0..format.channels.min(8).div_ceil(2) {
        let speaker = driver.endpoint(Kind::Speaker, sequence).unwrap();
        driver.connect_at(speaker.converter, TAG, 2 * sequence, format).unwrap();
    }
    let stream = driver.output(0);
    (driver, stream)
}

/// Buffers one behind the other from [`SOUND`] on.
pub fn buffers(lengths: &[(u32, bool)]) -> Vec<Buffer> {
    let mut address = SOUND;
    let next = |&(length, interrupt): &(u32, bool)| {
        let buffer = Buffer { address, length, interrupt };
        address += u64::from(length);
        buffer
    };
    lengths.iter().map(next).collect()
}

/// What stock Linux writes for `periods` periods: a first piece of one frame, and a last one that is shorter.
pub fn linux_ring(frame: u32, period: u32, periods: u32) -> Vec<Buffer> {
    let mut lengths = vec![(frame, true)];
    lengths.extend((1..periods).map(|_| (period, true)));
    lengths.push((period - frame, false));
    buffers(&lengths)
}

/// Bytes that differ from lap to lap and tell their place: each 4 bytes are a number.
pub fn counter(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(4) as u32)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b1)).to_le_bytes())
        .take(bytes)
        .collect()
}

/// All sound of one run in order; panics at a gap or an overlap.
pub fn heard(packets: &[hda::Packet]) -> Vec<u8> {
    let mut sound = Vec::new();
    let mut next = packets.first().map_or(0, |packet| packet.position);
    for packet in packets {
        assert_eq!(packet.position, next, "frames are numbered without gaps");
        let frame = packet.format.frame_bytes() as usize;
        assert_eq!(packet.pcm.len() % frame, 0, "whole frames");
        next += (packet.pcm.len() / frame) as u64;
        sound.extend_from_slice(&packet.pcm);
    }
    sound
}

pub fn interrupts(out: &[Output]) -> usize {
    out.iter().filter(|output| matches!(output, Output::Interrupt(_))).count()
}

pub fn pauses(out: &[Output]) -> Vec<(u32, u64)> {
    let pause = |output: &Output| match output {
        Output::Audio(ToRemote::Pause { run, position, .. }) => Some((*run, *position)),
        _ => None,
    };
    out.iter().filter_map(pause).collect()
}

pub fn put(driver: &mut Driver<Bare>, address: u64, bytes: &[u8]) {
    driver.host().ram.write(address, bytes).unwrap();
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The controller is of use again after a reset, whatever was done to it.
pub fn assert_usable(bare: Bare) {
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let stream = driver.output(0);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(ms(50));
    assert_eq!(driver.host().take_played().len(), 20);
}

/// Memory that counts, and that can be taken away.
pub struct Memory {
    pub ram: Ram,
    pub gone: Cell<bool>,
    pub accesses: Cell<u64>,
    pub log: RefCell<Vec<Access>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Access {
    Read(u64),
    Write(u64),
    Publish(u64),
}

impl Memory {
    pub fn new() -> Self {
        let (gone, accesses, log) = (Cell::new(false), Cell::new(0), RefCell::default());
        Self { ram: Ram::new(0, RAM), gone, accesses, log }
    }

    fn note(&self, access: Access) -> Result<(), DmaError> {
        self.accesses.set(self.accesses.get() + 1);
        self.log.borrow_mut().push(access);
        if self.gone.get() { Err(DmaError::Unmapped) } else { Ok(()) }
    }
}

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.note(Access::Read(address))?;
        self.ram.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.note(Access::Write(address))?;
        self.ram.write(address, data)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        self.note(Access::Read(address))?;
        self.ram.observe(address)
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.note(Access::Publish(address))?;
        self.ram.publish(address, value)
    }
}
