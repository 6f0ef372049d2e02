//! A minimal driver: what a guest does to find the speaker and to play, in its order. For tests, benches and examples
//! over anything that has the controller's registers and memory: the bare model ([`Bare`]), or a whole bus.
//!
//! It takes nothing from the model's inside: offsets, bits and verbs are written down here a second time, from the
//! specification, so that a mistake on one side shows.

mod bare;
mod codec;

use core::time::Duration;

use pci::{Dma, DmaError, Width};
use wire::audio::Format;

pub use bare::Bare;
pub use codec::{Endpoint, Kind};

use crate::stream::RawFormat;

/// The machine that the driver runs on.
pub trait Host {
    /// Reads a register of BAR 0.
    fn read(&mut self, offset: u64, width: Width) -> u64;

    /// Writes a register of BAR 0.
    fn write(&mut self, offset: u64, width: Width, value: u64);

    /// Memory, at the addresses that the controller sees.
    fn memory(&self) -> &dyn Dma;
}

/// Why the controller cannot be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// A bit did not change: the register's offset.
    Timeout(u64),
    /// No codec announced itself.
    NoCodec,
    /// A command was not answered.
    NoResponse,
    /// There is no such pin, or no way between a converter and it.
    NoEndpoint(Kind),
    /// The format cannot be written in the controller's way.
    Format,
    /// The driver's own memory is not there.
    Memory(DmaError),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Timeout(offset) => write!(f, "register {offset:#x} does not change"),
            Self::NoCodec => f.write_str("no codec on the link"),
            Self::NoResponse => f.write_str("the codec does not answer"),
            Self::NoEndpoint(kind) => write!(f, "the codec has no {kind:?}"),
            Self::Format => f.write_str("the format is not one of HD Audio's"),
            Self::Memory(error) => write!(f, "the driver's memory: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<DmaError> for Error {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// A piece of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub length: u32,
    /// Whether its completion interrupts.
    pub interrupt: bool,
}

/// A controller that was found and started. Drives codec 0.
#[derive(Debug)]
pub struct Driver<H> {
    host: H,
    memory: u64,
    written: u8,
    answered: u8,
}

const GCTL: u64 = 0x08;
const STATESTS: u64 = 0x0e;
const INTCTL: u64 = 0x20;
const INTSTS: u64 = 0x24;
const CORB: u64 = 0x40;
const RIRB: u64 = 0x50;
const DPLBASE: u64 = 0x70;

/// Where the driver's memory is used for what.
const POSITIONS: u64 = 0x0c00;
const LISTS: u64 = 0x1000;
const POLLS: usize = 1_000;

impl<H: Host> Driver<H> {
    /// The bytes of memory that the driver keeps its rings in.
    pub const MEMORY_BYTES: usize = LISTS as usize + 30 * 4096;

    /// Resets the controller, finds the codec, starts the command rings, and enables interrupts and positions.
    /// `memory`: [`Self::MEMORY_BYTES`] from here on are the driver's; a multiple of 4096. HDA 1.0a §4.2, §4.3, §4.4.
    ///
    /// # Errors
    /// [`Error`].
    pub fn start(host: H, memory: u64) -> Result<Self, Error> {
        let mut this = Self { host, memory, written: 0, answered: 0 };
        this.host.write(GCTL, Width::Dword, 0);
        this.wait(GCTL, 1, 0)?;
        this.host.write(GCTL, Width::Dword, 1);
        this.wait(GCTL, 1, 1)?;
        if this.host.read(STATESTS, Width::Word) & 1 == 0 {
            return Err(Error::NoCodec);
        }
        this.host.write(STATESTS, Width::Word, 0x7fff);
        this.start_rings()?;
        this.set_address(DPLBASE, (memory + POSITIONS) | 1);
        this.host.write(INTCTL, Width::Dword, 0xffff_ffff);
        Ok(this)
    }

    fn start_rings(&mut self) -> Result<(), Error> {
        self.set_address(CORB, self.memory);
        self.set_address(RIRB, self.memory + 0x400);
        self.host.write(CORB + 8, Width::Word, 0);
        self.host.write(CORB + 10, Width::Word, 0x8000);
        self.wait(CORB + 10, 0x8000, 0x8000)?;
        self.host.write(CORB + 10, Width::Word, 0);
        self.wait(CORB + 10, 0x8000, 0)?;
        self.host.write(RIRB + 8, Width::Word, 0x8000);
        self.host.write(RIRB + 10, Width::Word, 1);
        self.host.write(RIRB + 12, Width::Byte, 0b011);
        self.host.write(CORB + 12, Width::Byte, 0b011);
        self.wait(CORB + 12, 0b10, 0b10)
    }

    /// Resets a stream and sets it up with a ring; it does not run yet. `cyclic` is CBL, usually the sum of the
    /// buffers' lengths; of the buffers, the first 256 are taken. HDA 1.0a §4.5.3.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_up(
        &mut self,
        stream: u8,
        tag: u8,
        format: Format,
        buffers: &[Buffer],
        cyclic: u32,
    ) -> Result<(), Error> {
        let raw = RawFormat::of(format).ok_or(Error::Format)?;
        self.reset_stream(stream)?;
        let list = self.memory + LISTS + 4096 * u64::from(stream);
        for (entry, buffer) in (0..256u64).zip(buffers) {
            self.host.memory().write(list + 16 * entry, &buffer.address.to_le_bytes())?;
            self.host.memory().write(list + 16 * entry + 8, &buffer.length.to_le_bytes())?;
            self.host.memory().write(list + 16 * entry + 12, &u32::from(buffer.interrupt).to_le_bytes())?;
        }
        let base = Self::base(stream);
        let last = buffers.len().clamp(1, 256) - 1;
        self.host.write(base, Width::Dword, u64::from(tag & 0xf) << 20 | 0x1c);
        self.host.write(base + 0x08, Width::Dword, cyclic.into());
        self.host.write(base + 0x0c, Width::Word, last as u64);
        self.host.write(base + 0x12, Width::Word, raw.raw_value().into());
        self.set_address(base + 0x18, list);
        Ok(())
    }

    /// Resets a stream. HDA 1.0a §3.3.35.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn reset_stream(&mut self, stream: u8) -> Result<(), Error> {
        let base = Self::base(stream);
        self.run(stream, false);
        self.host.write(base, Width::Byte, 1);
        self.wait(base, 1, 1)?;
        self.host.write(base, Width::Byte, 0);
        self.wait(base, 1, 0)
    }

    /// Starts a stream or pauses it.
    pub fn run(&mut self, stream: u8, run: bool) {
        let base = Self::base(stream);
        let control = self.host.read(base, Width::Byte) & !2;
        self.host.write(base, Width::Byte, control | if run { 2 } else { 0 });
    }

    /// The position in the ring as the position buffer has it: no register is touched.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn position(&self, stream: u8) -> Result<u32, Error> {
        Ok(self.host.memory().observe(self.memory + POSITIONS + 8 * u64::from(stream))?)
    }

    /// The position in the ring as the register LPIB has it.
    pub fn link_position(&mut self, stream: u8) -> u32 {
        self.host.read(Self::base(stream) + 4, Width::Dword) as u32
    }

    /// The wall clock, 24 MHz.
    pub fn wall_clock(&mut self) -> u32 {
        self.host.read(0x30, Width::Dword) as u32
    }

    /// What an interrupt handler does: reads INTSTS, and acknowledges each stream that is named there. Answers with
    /// INTSTS and with the status of each of them.
    pub fn acknowledge(&mut self) -> (u32, Vec<(u8, u8)>) {
        let status = self.host.read(INTSTS, Width::Dword) as u32;
        let mut streams = Vec::new();
        for stream in (0..30).filter(|stream| status >> stream & 1 == 1) {
            let at = Self::base(stream) + 3;
            let seen = self.host.read(at, Width::Byte);
            self.host.write(at, Width::Byte, seen & 0x1c);
            streams.push((stream, seen as u8));
        }
        (status, streams)
    }

    /// The machine.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The playback stream with this number among them; capture streams come first. HDA 1.0a §3.3.2.
    pub fn output(&mut self, number: u8) -> u8 {
        (self.host.read(0, Width::Word) >> 8 & 0xf) as u8 + number
    }

    fn base(stream: u8) -> u64 {
        0x80 + 0x20 * u64::from(stream)
    }

    fn set_address(&mut self, offset: u64, address: u64) {
        self.host.write(offset + 4, Width::Dword, address >> 32);
        self.host.write(offset, Width::Dword, address & 0xffff_ffff);
    }

    /// Looks at a register until masked bits have a value. The controller answers at once or never.
    fn wait(&mut self, offset: u64, mask: u64, value: u64) -> Result<(), Error> {
        let mut looks = (0..POLLS).map(|_| self.host.read(offset, Width::Word));
        if looks.any(|seen| seen & mask == value) { Ok(()) } else { Err(Error::Timeout(offset)) }
    }
}

/// The time of this many frames, rounded up.
#[must_use]
pub fn duration(format: Format, frames: u64) -> Duration {
    let nanoseconds = (u128::from(frames) * 1_000_000_000).div_ceil(u128::from(format.rate.max(1)));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
