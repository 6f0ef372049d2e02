//! One message, one step.

use pci::{Layout, Region};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    Client, Command, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, MAX_DATA, PAGE, Refusal, RegionAccess,
    RegionInfo, SetIrqs, SmallWrite, Ticket, version,
};

const REGIONS: u32 = 9;
const IRQS: u32 = 5;
const CONFIG_REGION: u32 = 7;
const RESETTABLE_PCI: u32 = 3;
const READABLE_WRITABLE: u32 = 3;
const BY_EVENTFD: u32 = 1;
const MASKABLE: u32 = 2;
const AUTOMASKED: u32 = 4;
const UNMAP_ALL: u32 = 2;

/// What the server has to carry out. What needs only the protocol has been answered already.
#[derive(Debug, PartialEq)]
pub enum Action<'m> {
    /// Nothing: answered, or not worth an answer.
    Done,
    /// A new client has introduced itself (and was answered): the function is reset.
    Greeted,
    /// Send what is to be sent, then close the connection.
    Close(&'static str),
    /// Guest memory appears; the size is not 0 and nothing wraps. The reply has no payload.
    Map(DmaMap, Ticket),
    /// Guest memory goes. [`Protocol::unmapped`] answers.
    Unmap(DmaUnmap, Ticket),
    /// All guest memory goes. [`Protocol::unmapped`] answers.
    UnmapAll(DmaUnmap, Ticket),
    /// Interrupts are wired. The reply has no payload.
    Wire(Irq, Signal<'m>, Ticket),
    /// Read a region; the reply is the payload again, then the data.
    Read(RegionAccess, Ticket),
    /// Write a region; the reply is the payload without the data.
    Write(RegionAccess, &'m [u8], Ticket),
    /// Write much, a little at a time: [`SmallWrite`]s one after the other. The reply is their number (u64).
    WriteMany(&'m [u8], Ticket),
    /// Reset the function. The reply has no payload.
    Reset(Ticket),
}

/// The interrupt types that there are any of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irq {
    /// Message-signalled interrupts.
    Msi,
    /// The extended kind.
    MsiX,
    /// The interrupt pin: one, with a level.
    IntX,
}

/// What becomes of some interrupt vectors of one type. `first` and `count` are inside what the type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal<'m> {
    /// Those from `first` on are wired to the descriptors of the message, one each.
    Connect {
        /// The first vector.
        first: u16,
    },
    /// These are not wired any more.
    Disconnect {
        /// The first vector.
        first: u16,
        /// How many.
        count: u16,
    },
    /// None of this type is wired any more.
    DisconnectAll,
    /// These fire once, as far as they are wired: all of them, or those whose byte is not 0.
    Fire {
        /// The first vector.
        first: u16,
        /// How many.
        count: u16,
        /// Which of them.
        chosen: Option<&'m [u8]>,
    },
    /// The pin does not fire until it is unmasked. It masks itself each time that it fires.
    Mask,
    /// The pin fires as soon as it is driven.
    Unmask,
}

/// The region that a number stands for, if a function has such a one.
#[must_use]
pub fn region(number: u32) -> Option<Region> {
    match number {
        0..=5 => Some(Region::Bar(number as u8)),
        CONFIG_REGION => Some(Region::Config),
        _ => None,
    }
}

/// The state of one connection.
///
/// ```text
///   connected ──VERSION──► greeted ──any other command, in order──► greeted
///       └──anything else, or a bad VERSION──► refused, closed
/// ```
#[derive(Debug)]
pub struct Protocol {
    layout: Layout,
    write_multiple: bool,
    client: Option<Client>,
}

impl Protocol {
    /// A connection on which nothing has been said. `write_multiple`: offer REGION_WRITE_MULTI (it is understood
    /// in any case; QEMU 10 becomes slower if it is offered).
    #[must_use]
    pub fn new(layout: Layout, write_multiple: bool) -> Self {
        Self { layout, write_multiple, client: None }
    }

    /// Who is at the other end, once it has said so.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.client
    }

    /// Takes one message (header included, as long as its header says) that came with so many descriptors.
    /// Replies that need nobody else are appended to `replies`.
    pub fn step<'m>(&mut self, message: &'m [u8], fds: usize, replies: &mut Vec<u8>) -> Action<'m> {
        let Ok((header, payload)) = Header::read_from_prefix(message) else {
            return Action::Close("a message without a header");
        };
        // We send no commands, so nothing can be a reply; answering one would confuse everybody.
        if header.flags & Header::TYPE != Header::COMMAND {
            return Action::Done;
        }
        let ticket = Ticket::new(header);
        let command = Command::from_number(header.command);
        match (self.client, command) {
            (None, Some(Command::Version)) if fds == 0 => self.greet(payload, ticket, replies),
            (None, _) => {
                ticket.refuse(replies, Refusal::Invalid);
                Action::Close("a connection must begin with VERSION")
            }
            (Some(_), None) => {
                ticket.refuse(replies, Refusal::Unsupported);
                Action::Done
            }
            (Some(_), Some(command)) => {
                self.command(command, payload, fds, ticket, replies).unwrap_or_else(|why| {
                    ticket.refuse(replies, why);
                    Action::Done
                })
            }
        }
    }

    /// Answers DMA_UNMAP. A client that would wait for ever for the rest of an error reply is told that the memory
    /// is gone, which is true of memory that was not there.
    pub fn unmapped(
        &self,
        what: DmaUnmap,
        result: Result<(), Refusal>,
        ticket: Ticket,
        replies: &mut Vec<u8>,
    ) {
        match result {
            Err(why) if self.client.is_none_or(Client::understands_errors) => ticket.refuse(replies, why),
            _ => ticket.succeed(replies, &what),
        }
    }

    fn greet<'m>(&mut self, payload: &[u8], ticket: Ticket, replies: &mut Vec<u8>) -> Action<'m> {
        match version::negotiate(payload, self.write_multiple) {
            Ok((client, reply)) => {
                self.client = Some(client);
                ticket.succeed(replies, &reply[..]);
                Action::Greeted
            }
            Err(why) => {
                ticket.refuse(replies, why);
                Action::Close("the client's VERSION was refused")
            }
        }
    }

    fn command<'m>(
        &self,
        command: Command,
        payload: &'m [u8],
        fds: usize,
        ticket: Ticket,
        replies: &mut Vec<u8>,
    ) -> Result<Action<'m>, Refusal> {
        let most_fds = match command {
            Command::DmaMap => 1,
            Command::SetIrqs => super::MAX_FDS,
            _ => 0,
        };
        if fds > most_fds {
            return Err(Refusal::Invalid);
        }
        match command {
            Command::RegionRead => read(payload, ticket),
            Command::RegionWrite => write(payload, ticket),
            Command::RegionWriteMulti => write_many(payload, ticket),
            Command::GetInfo => {
                ticket.succeed(replies, &device_info(payload)?);
                Ok(Action::Done)
            }
            Command::GetRegionInfo => {
                ticket.succeed(replies, &self.region_info(payload)?);
                Ok(Action::Done)
            }
            Command::GetIrqInfo => {
                ticket.succeed(replies, &self.irq_info(payload)?);
                Ok(Action::Done)
            }
            Command::SetIrqs => self.set_irqs(payload, fds, ticket),
            Command::DmaMap => map(payload, ticket),
            Command::DmaUnmap => unmap(payload, ticket),
            Command::DeviceReset => Ok(Action::Reset(ticket)),
            Command::Version => Err(Refusal::Invalid),
        }
    }

    fn region_info(&self, payload: &[u8]) -> Result<RegionInfo, Refusal> {
        let asked: RegionInfo = argument(payload, |asked: &RegionInfo| asked.argsz)?;
        if asked.index >= REGIONS {
            return Err(Refusal::Invalid);
        }
        let size = match region(asked.index) {
            Some(Region::Bar(bar)) => self.layout.bars.get(usize::from(bar)).copied().unwrap_or(0),
            Some(Region::Config) => pci::CONFIG_BYTES as u64,
            None => 0,
        };
        let flags = if size > 0 { READABLE_WRITABLE } else { 0 };
        let argsz = size_of::<RegionInfo>() as u32;
        Ok(RegionInfo { argsz, flags, index: asked.index, capabilities: 0, size, offset: 0 })
    }

    fn irq_info(&self, payload: &[u8]) -> Result<IrqInfo, Refusal> {
        let asked: IrqInfo = argument(payload, |asked: &IrqInfo| asked.argsz)?;
        if asked.index >= IRQS {
            return Err(Refusal::Invalid);
        }
        let count = self.vectors(asked.index).map_or(0, |(_, vectors)| vectors.into());
        let flags = match asked.index {
            _ if count == 0 => 0,
            0 => BY_EVENTFD | MASKABLE | AUTOMASKED,
            _ => BY_EVENTFD,
        };
        Ok(IrqInfo { argsz: size_of::<IrqInfo>() as u32, flags, index: asked.index, count })
    }

    fn vectors(&self, index: u32) -> Option<(Irq, u16)> {
        match index {
            0 => Some((Irq::IntX, self.layout.intx.into())),
            1 => Some((Irq::Msi, self.layout.msi)),
            2 => Some((Irq::MsiX, self.layout.msix)),
            _ => None,
        }
    }

    fn set_irqs<'m>(&self, payload: &'m [u8], fds: usize, ticket: Ticket) -> Result<Action<'m>, Refusal> {
        const NONE: u32 = 1;
        const BOOLS: u32 = 2;
        const EVENTFDS: u32 = 4;
        const MASK: u32 = 8;
        const UNMASK: u32 = 0x10;
        const TRIGGER: u32 = 0x20;
        let asked: SetIrqs = argument(payload, |asked: &SetIrqs| asked.argsz)?;
        let (irq, vectors) = self.vectors(asked.index).ok_or(Refusal::Invalid)?;
        let end = asked.start.checked_add(asked.count).filter(|end| *end <= vectors.into());
        if end.is_none() || (fds > 0 && asked.flags != EVENTFDS | TRIGGER) {
            return Err(Refusal::Invalid);
        }
        let (first, count) = (asked.start as u16, asked.count as u16);
        // Masking is offered for the pin only (GET_IRQ_INFO says so): messages are masked where they arrive.
        let pin = irq == Irq::IntX && count == 1;
        let signal = match asked.flags {
            flags if flags == NONE | TRIGGER && count == 0 => Signal::DisconnectAll,
            flags if flags == NONE | TRIGGER => Signal::Fire { first, count, chosen: None },
            flags if flags == NONE | MASK && pin => Signal::Mask,
            flags if flags == NONE | UNMASK && pin => Signal::Unmask,
            flags if flags == BOOLS | TRIGGER => {
                let bools = payload.get(size_of::<SetIrqs>()..).and_then(|bools| bools.get(..count.into()));
                Signal::Fire { first, count, chosen: Some(bools.ok_or(Refusal::Invalid)?) }
            }
            flags if flags == EVENTFDS | TRIGGER && fds == 0 => Signal::Disconnect { first, count },
            flags if flags == EVENTFDS | TRIGGER && fds == usize::from(count) => Signal::Connect { first },
            _ => return Err(Refusal::Invalid),
        };
        Ok(Action::Wire(irq, signal, ticket))
    }
}

/// Reads a payload that says its own size: not shorter than it should be, nor claiming to be.
fn argument<T: FromBytes + Immutable + KnownLayout>(
    payload: &[u8],
    claimed: impl FnOnce(&T) -> u32,
) -> Result<T, Refusal> {
    let (asked, _) = T::read_from_prefix(payload).map_err(|_| Refusal::Invalid)?;
    if (claimed(&asked) as usize) < size_of::<T>() { Err(Refusal::Invalid) } else { Ok(asked) }
}

fn device_info(payload: &[u8]) -> Result<DeviceInfo, Refusal> {
    let _: DeviceInfo = argument(payload, |asked: &DeviceInfo| asked.argsz)?;
    let argsz = size_of::<DeviceInfo>() as u32;
    Ok(DeviceInfo { argsz, flags: RESETTABLE_PCI, regions: REGIONS, irqs: IRQS })
}

fn read<'m>(payload: &[u8], ticket: Ticket) -> Result<Action<'m>, Refusal> {
    let access = RegionAccess::read_from_bytes(payload).map_err(|_| Refusal::Invalid)?;
    if access.count > MAX_DATA { Err(Refusal::TooBig) } else { Ok(Action::Read(access, ticket)) }
}

fn write(payload: &[u8], ticket: Ticket) -> Result<Action<'_>, Refusal> {
    let (access, data) = RegionAccess::read_from_prefix(payload).map_err(|_| Refusal::Invalid)?;
    if access.count as usize != data.len() {
        return Err(Refusal::Invalid);
    }
    Ok(Action::Write(access, data, ticket))
}

fn write_many(payload: &[u8], ticket: Ticket) -> Result<Action<'_>, Refusal> {
    let (count, writes) = u64::read_from_prefix(payload).map_err(|_| Refusal::Invalid)?;
    let (whole, rest) = writes.as_chunks::<{ size_of::<SmallWrite>() }>();
    if count != whole.len() as u64 || !rest.is_empty() {
        return Err(Refusal::Invalid);
    }
    Ok(Action::WriteMany(writes, ticket))
}

fn map<'m>(payload: &[u8], ticket: Ticket) -> Result<Action<'m>, Refusal> {
    let asked: DmaMap = argument(payload, |asked: &DmaMap| asked.argsz)?;
    let aligned = [asked.address, asked.offset, asked.size].iter().all(|value| value.is_multiple_of(PAGE));
    // The last byte of the address space can be mapped, the one behind it cannot.
    let fits = |start: u64| asked.size > 0 && start.checked_add(asked.size - 1).is_some();
    if !aligned || !fits(asked.address) || !fits(asked.offset) || !matches!(asked.flags, 1..=3) {
        return Err(Refusal::Invalid);
    }
    Ok(Action::Map(asked, ticket))
}

fn unmap<'m>(payload: &[u8], ticket: Ticket) -> Result<Action<'m>, Refusal> {
    let asked: DmaUnmap = argument(payload, |asked: &DmaUnmap| asked.argsz)?;
    match asked.flags {
        0 => Ok(Action::Unmap(asked, ticket)),
        UNMAP_ALL if asked.address == 0 && asked.size == 0 => Ok(Action::UnmapAll(asked, ticket)),
        UNMAP_ALL => Err(Refusal::Invalid),
        _ => Err(Refusal::Unsupported),
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
