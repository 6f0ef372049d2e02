//! The driver's talk with the codec: verbs, and the ways between converters and pins.

use pci::Width;
use wire::audio::Format;

use super::{CORB, Driver, Error, Host, RIRB};
use crate::stream::RawFormat;

/// What a pin is for: its Default Device. HDA 1.0a §7.3.3.31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Speakers.
    Speaker = 0x1,
    /// Headphones.
    Headphone = 0x2,
    /// A microphone.
    Microphone = 0xa,
}

/// How the world outside is reached: a converter's and a pin's node ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The DAC or the ADC.
    pub converter: u8,
    /// The pin.
    pub pin: u8,
}

impl<H: Host> Driver<H> {
    /// Sends a verb (20 bits with its payload) to a node and waits for the answer. HDA 1.0a §4.4.1.4.
    ///
    /// # Errors
    /// [`Error`].
    pub fn verb(&mut self, node: u8, verb: u32) -> Result<u32, Error> {
        self.written = self.written.wrapping_add(1);
        let command = u32::from(node) << 20 | verb & 0xf_ffff;
        let slot = self.memory + 4 * u64::from(self.written);
        self.host.memory().publish(slot, command)?;
        self.host.write(CORB + 8, Width::Word, self.written.into());
        let next = self.answered.wrapping_add(1);
        self.wait(RIRB + 8, 0xff, next.into()).map_err(|_| Error::NoResponse)?;
        self.answered = next;
        self.host.write(RIRB + 13, Width::Byte, 0b101);
        Ok(self.host.memory().observe(self.memory + 0x400 + 8 * u64::from(next))?)
    }

    /// Sends a verb without the rings. HDA 1.0a §3.4.
    ///
    /// # Errors
    /// [`Error`].
    pub fn immediate(&mut self, node: u8, verb: u32) -> Result<u32, Error> {
        self.wait(0x68, 1, 0)?;
        self.host.write(0x68, Width::Word, 2);
        self.host.write(0x60, Width::Dword, u64::from(u32::from(node) << 20 | verb & 0xf_ffff));
        self.host.write(0x68, Width::Word, 1);
        self.wait(0x68, 3, 2).map_err(|_| Error::NoResponse)?;
        Ok(self.host.read(0x64, Width::Dword) as u32)
    }

    /// Looks for a speaker, and switches everything on the way to it on, at 0 dB.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`], and others.
    pub fn speaker(&mut self) -> Result<Endpoint, Error> {
        self.endpoint(Kind::Speaker, 0)
    }

    /// Looks for headphones, and switches everything on the way to them on, at 0 dB.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`], and others.
    pub fn headphone(&mut self) -> Result<Endpoint, Error> {
        self.endpoint(Kind::Headphone, 0)
    }

    /// Looks for a microphone, and switches everything on the way from it on, at 0 dB.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`], and others.
    pub fn microphone(&mut self) -> Result<Endpoint, Error> {
        self.endpoint(Kind::Microphone, 0)
    }

    /// Looks through the codec's nodes for a pin of this kind and of this place in its association, as a generic
    /// driver does, and switches everything between it and its converter on, at 0 dB. HDA 1.0a §7.3.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`], and others.
    pub fn endpoint(&mut self, kind: Kind, sequence: u8) -> Result<Endpoint, Error> {
        let group = (self.verb(0, 0xf0004)? >> 16) as u8;
        self.verb(group, 0x70500)?;
        let nodes = self.verb(group, 0xf0004)?;
        let (first, count) = ((nodes >> 16) as u8, nodes as u8);
        for pin in first..first.saturating_add(count) {
            let widget = self.verb(pin, 0xf0009)? >> 20 & 0xf;
            let configuration = self.verb(pin, 0xf1c00)?;
            let connected = configuration >> 30 != 1 && configuration & 0xf == sequence.into();
            if widget != 4 || configuration >> 20 & 0xf != kind as u32 || !connected {
                continue;
            }
            let Some(converter) = self.converter(pin, kind, first..first.saturating_add(count))? else {
                continue;
            };
            self.switch_on(pin, converter, kind)?;
            return Ok(Endpoint { converter, pin });
        }
        Err(Error::NoEndpoint(kind))
    }

    /// The DAC that the pin gets its sound from, or the ADC that gets it from there.
    fn converter(
        &mut self,
        pin: u8,
        kind: Kind,
        mut nodes: core::ops::Range<u8>,
    ) -> Result<Option<u8>, Error> {
        if kind != Kind::Microphone {
            let count = self.verb(pin, 0xf000e)? & 0x7f;
            return Ok(if count == 0 { None } else { Some(self.verb(pin, 0xf0200)? as u8) });
        }
        nodes.try_fold(None, |found, node| {
            let hears = self.verb(node, 0xf0009)? >> 20 & 0xf == 1 && self.verb(node, 0xf0200)? as u8 == pin;
            Ok(found.or(hears.then_some(node)))
        })
    }

    fn switch_on(&mut self, pin: u8, converter: u8, kind: Kind) -> Result<(), Error> {
        let (control, parameter, amplifier) = match kind {
            Kind::Speaker => (0x40, 0xf0012, 0x3b000),
            Kind::Headphone => (0xc0, 0xf0012, 0x3b000),
            Kind::Microphone => (0x24, 0xf000d, 0x37000),
        };
        self.verb(pin, 0x70500)?;
        self.verb(pin, 0x70700 | control)?;
        self.verb(pin, 0x70c02)?;
        self.verb(converter, 0x70500)?;
        let unity = self.verb(converter, parameter)? & 0x7f;
        self.verb(converter, amplifier | unity)?;
        Ok(())
    }

    /// Connects a converter with a stream's tag.
    ///
    /// # Errors
    /// [`Error`].
    pub fn connect(&mut self, converter: u8, tag: u8, format: Format) -> Result<(), Error> {
        self.connect_at(converter, tag, 0, format)
    }

    /// The same from another channel of the stream on.
    ///
    /// # Errors
    /// [`Error`].
    pub fn connect_at(&mut self, converter: u8, tag: u8, channel: u8, format: Format) -> Result<(), Error> {
        let raw = RawFormat::of(format).ok_or(Error::Format)?;
        self.verb(converter, 0x20000 | u32::from(raw.raw_value()))?;
        self.verb(converter, 0x70600 | u32::from(tag & 0xf) << 4 | u32::from(channel & 0xf))?;
        Ok(())
    }
}
