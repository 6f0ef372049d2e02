//! A mass-storage disk, Bulk-Only. USB Mass Storage Class Bulk-Only Transport 1.0 ("BOT").
//!
//! ```text
//!             CBW                  all data moved (or none)          CSW read
//!   Command ──────► DataIn/DataOut ─────────────────────────► Status ────────► Command
//!      │ not a CBW: both endpoints stall until a Bulk-Only Reset (BOT §6.6.1)
//!      └───────────────────────────────────────────────────────────────► Broken
//! ```

mod scsi;

use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use wire::usb::{Direction, Endpoint, Moved, Payload, Request, Setup, Speed};

use crate::{
    descriptors::{Description, EndpointSpec, Identity},
    device::{Answer, Class, Device, Done, as_function},
};
use scsi::{Plan, Scsi};

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;
/// Bulk IN 1 and bulk OUT 2.
const IN_ADDRESS: u8 = 0x81;
const OUT_ADDRESS: u8 = 0x02;
/// BOT §5.1: the length and signature of a command block wrapper.
const CBW_LEN: usize = 31;
const CBW_SIGNATURE: [u8; 4] = *b"USBC";
/// BOT §5.2: of a command status wrapper.
const CSW_SIGNATURE: [u8; 4] = *b"USBS";

/// Where a disk's bytes are.
pub trait Medium {
    /// Bytes; what is not a whole sector at the end is not reachable.
    fn size(&self) -> u64;

    /// Whether nothing may be written.
    fn read_only(&self) -> bool;

    /// `length` bytes from this byte on, at most [`wire::MAX_BODY`]. They travel as they are, so a medium that has them
    /// in memory gives a slice, and a file reads into a buffer that nobody fills before.
    ///
    /// # Errors
    /// It cannot be read, or not all of it; the host hears of a medium error.
    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError>;

    /// Writes `data` from this byte on.
    ///
    /// # Errors
    /// It cannot be written; the host hears of a medium error.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError>;

    /// Makes everything written so far survive a loss of power.
    ///
    /// # Errors
    /// It cannot; the host hears of a medium error.
    fn flush(&mut self) -> Result<(), MediumError>;
}

/// The medium failed.
#[derive(Debug, thiserror::Error)]
#[error("the medium failed: {0}")]
pub struct MediumError(pub String);

/// The disk.
#[derive(Debug)]
pub struct Disk<M>(Device<BulkOnly<M>>);

#[derive(Debug)]
struct BulkOnly<M> {
    description: Description,
    scsi: Scsi<M>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Command,
    /// Data for the host: what is left of the command's, and of what the host asked for.
    DataIn {
        csw: Csw,
        source: Source,
    },
    /// Data from the host goes here; the rest of what it announced is swallowed.
    DataOut {
        csw: Csw,
        target: Option<Target>,
        announced: u64,
    },
    /// The next IN is the status. The IN endpoint stalls first if `stall`: the host waits for data that never come.
    Status {
        csw: Csw,
        stall: Option<Direction>,
    },
    /// A CBW that was none: nothing works until a Bulk-Only Reset.
    Broken,
}

/// Where data of the host go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    offset: u64,
    left: u64,
    /// Whether it must survive a loss of power before the host hears that it is written.
    durable: bool,
}

/// Where data for the host come from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Memory(Bytes),
    Medium { offset: u64, left: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Csw {
    tag: [u8; 4],
    /// What the host announced and did not get, or give.
    residue: u64,
    /// 0 passed, 1 failed, 2 phase error.
    status: u8,
}

impl<M: Medium> Disk<M> {
    /// A SuperSpeed disk with this medium in it; the serial number tells disks apart.
    #[must_use]
    pub fn new(medium: M, serial: &str) -> Self {
        Self::of_speed(medium, serial, Speed::Super, 1024)
    }

    /// The same at high speed, for hosts without USB 3.
    #[must_use]
    pub fn high_speed(medium: M, serial: &str) -> Self {
        Self::of_speed(medium, serial, Speed::High, 512)
    }

    fn of_speed(medium: M, serial: &str, speed: Speed, max_packet: u16) -> Self {
        let identity =
            Identity { vendor: 0x1209, product: 0xfa02, name: "Farbus Disk", serial: serial.to_owned() };
        let bulk = |address| EndpointSpec { address, attributes: 2, max_packet, interval: 0 };
        let description = Description {
            identity,
            speed,
            // SCSI transparent command set, Bulk-Only.
            class: [8, 6, 0x50],
            extra: Vec::new(),
            settings: vec![vec![bulk(IN_ADDRESS), bulk(OUT_ADDRESS)]],
        };
        let scsi = Scsi::new(medium, serial.to_owned());
        Self(Device::new(BulkOnly { description, scsi, state: State::Command }))
    }
}

impl<M: Medium> BulkOnly<M> {
    fn output(&mut self, data: &Bytes) -> Option<Done> {
        match &mut self.state {
            State::Command => return Some(self.command(data)),
            State::DataOut { csw, target, announced } => {
                *announced = announced.saturating_sub(data.len() as u64);
                write(&mut self.scsi, csw, target, data);
                // A short packet ends the phase early: the host has no more.
                let packet = usize::from(self.description.max_packet(OUT_ADDRESS));
                let short = data.is_empty() || !data.len().is_multiple_of(packet);
                if *announced == 0 || short {
                    if target.is_some_and(|target| target.durable) && self.scsi.flush().is_err() {
                        csw.status = 1;
                    }
                    self.state = State::Status { csw: *csw, stall: None };
                }
            }
            State::Broken => return Some(Done::Halt(Moved::Out(0))),
            // The host speaks out of turn: it waits, as it would at a device that NAKs.
            State::DataIn { .. } | State::Status { .. } => return None,
        }
        Some(Done::Moved(Moved::Out(u32::try_from(data.len()).unwrap_or(u32::MAX))))
    }

    /// BOT §6.2: a CBW that is valid and meaningful, or nothing works any more.
    fn command(&mut self, data: &Bytes) -> Done {
        let Some(cbw) =
            <&[u8; CBW_LEN]>::try_from(&data[..]).ok().filter(|cbw| cbw.starts_with(&CBW_SIGNATURE))
        else {
            self.state = State::Broken;
            return Done::Halt(Moved::Out(0));
        };
        let [_, _, _, _, t0, t1, t2, t3, l0, l1, l2, l3, flags, lun, length, block @ ..] = cbw;
        let announced = u64::from(u32::from_le_bytes([*l0, *l1, *l2, *l3]));
        let input = flags & 0x80 != 0;
        let csw = Csw { tag: [*t0, *t1, *t2, *t3], residue: announced, status: 0 };
        let block = block.get(..usize::from(*length & 0x1f).min(16)).unwrap_or_default();
        let plan = if *lun & 0x0f == 0 { self.scsi.command(block) } else { self.scsi.no_such_unit() };
        self.state = phase(csw, announced, input, plan);
        Done::Moved(Moved::Out(CBW_LEN as u32))
    }

    fn input(&mut self, max: u64) -> Option<Done> {
        match &mut self.state {
            State::DataIn { csw, source } => {
                let Ok(data) = source.take(max, csw.residue, &mut self.scsi) else {
                    let csw = Csw { status: 1, ..*csw };
                    self.state = State::Status { csw, stall: None };
                    return Some(Done::Halt(Moved::In(Bytes::new())));
                };
                csw.residue -= data.len() as u64;
                let short = (data.len() as u64) < max;
                if source.is_empty() || csw.residue == 0 {
                    // A short packet says that there is no more; else only a stall can. BOT §6.7.2.
                    let stall = (csw.residue > 0 && !short).then_some(Direction::In);
                    self.state = State::Status { csw: *csw, stall };
                }
                Some(Done::Moved(Moved::In(data)))
            }
            State::Status { csw, stall: None } => {
                let data = csw.bytes();
                self.state = State::Command;
                let length = (data.len() as u64).min(max) as usize;
                Some(Done::Moved(Moved::In(data.slice(..length))))
            }
            State::Broken => Some(Done::Halt(Moved::In(Bytes::new()))),
            State::Command | State::DataOut { .. } | State::Status { .. } => None,
        }
    }
}

/// The thirteen cases of BOT §6.7: what the host announced (Hn, Hi, Ho) against what the device has (Dn, Di, Do).
fn phase(csw: Csw, announced: u64, input: bool, plan: Plan) -> State {
    let failed = Csw { status: 1, ..csw };
    let confused = Csw { status: 2, ..csw };
    let stall = |csw, direction| State::Status { csw, stall: Some(direction) };
    let towards = if input { Direction::In } else { Direction::Out };
    match (plan, announced) {
        (Plan::Failed, 0) => State::Status { csw: failed, stall: None },
        (Plan::Failed, _) => stall(failed, towards),
        // (1) Hn = Dn
        (Plan::Nothing, 0) => State::Status { csw, stall: None },
        // (4) Hi > Dn, (9) Ho > Dn
        (Plan::Nothing, _) => stall(csw, towards),
        // (2) Hn < Di, (3) Hn < Do
        (_, 0) => State::Status { csw: confused, stall: None },
        // (5) Hi > Di, (6) Hi = Di, (7) Hi < Di: what is too much is not sent
        (Plan::Memory(data), _) if input => {
            let csw = if data.len() as u64 > announced { confused } else { csw };
            State::DataIn { csw, source: Source::Memory(data) }
        }
        (Plan::Read { offset, length }, _) if input => {
            let csw = if length > announced { confused } else { csw };
            State::DataIn { csw, source: Source::Medium { offset, left: length } }
        }
        // (11) Ho > Do, (12) Ho = Do, (13) Ho < Do
        (Plan::Write(_), _) if input => stall(confused, Direction::In),
        (Plan::Write(target), _) if target.left > announced => stall(confused, Direction::Out),
        (Plan::Write(target), _) => State::DataOut { csw, target: Some(target), announced },
        // (8) Hi <> Do, (10) Ho <> Di
        (Plan::Memory(_) | Plan::Read { .. }, _) => stall(confused, Direction::Out),
    }
}

/// Writes what the command wants of these bytes. The first write that fails is the last.
fn write<M: Medium>(scsi: &mut Scsi<M>, csw: &mut Csw, target: &mut Option<Target>, data: &[u8]) {
    let Some(Target { offset, left, .. }) = target else { return };
    let length = (data.len() as u64).min(*left);
    let wanted = data.get(..length as usize).unwrap_or_default();
    if wanted.is_empty() {
        return;
    }
    if scsi.write(*offset, wanted).is_err() {
        csw.status = 1;
        *target = None;
        return;
    }
    *offset += length;
    *left -= length;
    csw.residue = csw.residue.saturating_sub(length);
}

impl Source {
    fn is_empty(&self) -> bool {
        match self {
            Self::Memory(data) => data.is_empty(),
            Self::Medium { left, .. } => *left == 0,
        }
    }

    /// The next bytes: at most what this request has room for and what the command still may send.
    fn take<M: Medium>(&mut self, max: u64, allowed: u64, scsi: &mut Scsi<M>) -> Result<Bytes, MediumError> {
        match self {
            Self::Memory(data) => {
                let length = (data.len() as u64).min(max).min(allowed) as usize;
                Ok(data.split_to(length))
            }
            Self::Medium { offset, left } => {
                let length = (*left).min(max).min(allowed);
                let data = scsi.read(*offset, length as usize)?;
                *offset += length;
                *left -= length;
                Ok(data)
            }
        }
    }
}

impl Csw {
    fn bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(13);
        bytes.put_slice(&CSW_SIGNATURE);
        bytes.put_slice(&self.tag);
        bytes.put_u32_le(u32::try_from(self.residue).unwrap_or(u32::MAX));
        bytes.put_u8(self.status);
        bytes.freeze()
    }
}

impl<M: Medium> Class for BulkOnly<M> {
    fn description(&self) -> &Description {
        &self.description
    }

    fn bulk_only(&self) -> Vec<wire::control::BulkOnly> {
        let endpoints = Endpoint::from_address(OUT_ADDRESS).zip(Endpoint::from_address(IN_ADDRESS));
        endpoints.map(|(out, input)| wire::control::BulkOnly { out, input }).into_iter().collect()
    }

    /// BOT §3.1, §3.2.
    fn control(&mut self, setup: Setup, _: &[u8]) -> Answer {
        match (setup.request_type, setup.request) {
            (0x21, 0xff) if setup.value == 0 => {
                self.state = State::Command;
                Answer::Ack
            }
            (0xa1, 0xfe) => Answer::Data(vec![0]),
            _ => Answer::Stall,
        }
    }

    fn transfer(&mut self, _: Duration, request: &Request) -> Option<Done> {
        match &request.payload {
            Payload::Out(data) => self.output(data),
            Payload::In { max } => self.input(u64::from(*max)),
        }
    }

    fn wants_halt(&mut self, endpoint: Endpoint) -> bool {
        match &mut self.state {
            State::Status { stall, .. } if *stall == Some(endpoint.direction()) => {
                *stall = None;
                true
            }
            State::Broken => true,
            _ => false,
        }
    }

    /// BOT §6.6.1: after a CBW that was none only a Bulk-Only Reset helps.
    fn may_clear_halt(&self, _: Endpoint) -> bool {
        self.state != State::Broken
    }

    fn reset(&mut self) {
        self.state = State::Command;
    }
}

as_function!([M: Medium] Disk<M>);
