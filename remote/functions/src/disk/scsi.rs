//! The SCSI commands of a disk: what each wants to move, and the sense data of the last one. SPC-4, SBC-3.

use bytes::Bytes;
use wire::MAX_BODY;

use super::{Medium, MediumError, SECTOR, Target};

/// What a command moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing; it is done.
    Nothing,
    /// It failed; the sense data say why.
    Failed,
    /// These bytes for the host.
    Memory(Bytes),
    /// Bytes of the medium for the host.
    Read { offset: u64, length: u64 },
    /// Bytes of the host for the medium.
    Write(Target),
}

/// Sense key, additional sense code and its qualifier. SPC-4 §4.5.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sense(u8, u8, u8);

impl Sense {
    const NONE: Self = Self(0, 0, 0);
    const WRITE_ERROR: Self = Self(3, 0x0c, 0);
    const UNRECOVERED_READ: Self = Self(3, 0x11, 0);
    const INVALID_COMMAND: Self = Self(5, 0x20, 0);
    const OUT_OF_RANGE: Self = Self(5, 0x21, 0);
    const INVALID_FIELD: Self = Self(5, 0x24, 0);
    const NO_SUCH_UNIT: Self = Self(5, 0x25, 0);
    const SAVING_NOT_SUPPORTED: Self = Self(5, 0x39, 0);
    const WRITE_PROTECTED: Self = Self(7, 0x27, 0);
}

/// The caching page of the mode parameters. SBC-3 §6.5.5.
const CACHING_PAGE: u8 = 0x08;
/// Every mode page.
const ALL_PAGES: u8 = 0x3f;

/// A unit with its medium.
#[derive(Debug)]
pub(super) struct Scsi<M> {
    medium: M,
    serial: String,
    sense: Sense,
}

impl<M: Medium> Scsi<M> {
    pub(super) fn new(medium: M, serial: String) -> Self {
        Self { medium, serial, sense: Sense::NONE }
    }

    fn sectors(&self) -> u64 {
        self.medium.size() / SECTOR
    }

    pub(super) fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError> {
        let data = self.medium.read(offset, length);
        let whole = |data: Bytes| {
            if data.len() == length {
                Ok(data)
            } else {
                Err(MediumError(format!("it gave {} of {length} bytes", data.len())))
            }
        };
        data.and_then(whole).inspect_err(|_| self.sense = Sense::UNRECOVERED_READ)
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        self.medium.write(offset, data).inspect_err(|_| self.sense = Sense::WRITE_ERROR)
    }

    pub(super) fn flush(&mut self) -> Result<(), MediumError> {
        self.medium.flush().inspect_err(|_| self.sense = Sense::WRITE_ERROR)
    }

    pub(super) fn no_such_unit(&mut self) -> Plan {
        self.fail(Sense::NO_SUCH_UNIT)
    }

    fn fail(&mut self, sense: Sense) -> Plan {
        self.sense = sense;
        Plan::Failed
    }

    /// Begins a command.
    pub(super) fn command(&mut self, block: &[u8]) -> Plan {
        let byte = |at: usize| block.get(at).copied().unwrap_or(0);
        let number =
            |at: usize, length: usize| (at..at + length).fold(0u64, |n, i| n << 8 | u64::from(byte(i)));
        // DPO says nothing to a disk without a cache of its own; FUA asks for durability. SBC-3 §5.10, §5.34.
        let durable = byte(1) & 0x08 != 0;
        let operation = byte(0);
        if operation != 0x03 {
            self.sense = Sense::NONE;
        }
        match operation {
            // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
            0x00 | 0x1b | 0x1e => Plan::Nothing,
            0x03 => self.request_sense(byte(4)),
            0x12 => self.inquiry(byte(1), byte(2), number(3, 2)),
            0x1a => self.mode_sense(byte(2), |pages, protection| {
                cut([&[3 + pages.len() as u8, 0, protection, 0], pages].concat(), byte(4).into())
            }),
            0x5a => self.mode_sense(byte(2), |pages, protection| {
                let header = [0, 6 + pages.len() as u8, 0, protection, 0, 0, 0, 0];
                cut([&header, pages].concat(), number(7, 2))
            }),
            0x25 => {
                let last = u32::try_from(self.sectors().saturating_sub(1)).unwrap_or(u32::MAX);
                Plan::Memory([last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat().into())
            }
            // SERVICE ACTION IN (16): READ CAPACITY (16)
            0x9e if byte(1) & 0x1f == 0x10 => self.read_capacity_16(number(10, 4)),
            0xa0 => cut(vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], number(6, 4)),
            0x08 => self.read_plan(number(1, 3) & 0x1f_ffff, six(byte(4))),
            0x28 => self.read_plan(number(2, 4), number(7, 2)),
            0xa8 => self.read_plan(number(2, 4), number(6, 4)),
            0x88 => self.read_plan(number(2, 8), number(10, 4)),
            0x0a => self.write_plan(number(1, 3) & 0x1f_ffff, six(byte(4)), false),
            0x2a => self.write_plan(number(2, 4), number(7, 2), durable),
            0xaa => self.write_plan(number(2, 4), number(6, 4), durable),
            0x8a => self.write_plan(number(2, 8), number(10, 4), durable),
            // SYNCHRONIZE CACHE (10), (16)
            0x35 | 0x91 => self.flush().map_or(Plan::Failed, |()| Plan::Nothing),
            // VERIFY (10), (12), (16) of what is on the medium; comparing it with data (BYTCHK) is not supported.
            0x2f | 0xaf | 0x8f if byte(1) & 0x06 != 0 => self.fail(Sense::INVALID_FIELD),
            0x2f => self.verify(number(2, 4), number(7, 2)),
            0xaf => self.verify(number(2, 4), number(6, 4)),
            0x8f => self.verify(number(2, 8), number(10, 4)),
            _ => self.fail(Sense::INVALID_COMMAND),
        }
    }

    /// The bytes of a range of sectors, if it is on the medium.
    fn range(&self, sector: u64, count: u64) -> Option<(u64, u64)> {
        let end = sector.checked_add(count)?;
        // What is on the medium has a size in bytes, so these do not overflow.
        (end <= self.sectors()).then(|| (sector * SECTOR, count * SECTOR))
    }

    fn read_plan(&mut self, sector: u64, count: u64) -> Plan {
        match self.range(sector, count) {
            Some((_, 0)) => Plan::Nothing,
            Some((offset, length)) => Plan::Read { offset, length },
            None => self.fail(Sense::OUT_OF_RANGE),
        }
    }

    fn write_plan(&mut self, sector: u64, count: u64, durable: bool) -> Plan {
        if self.medium.read_only() {
            return self.fail(Sense::WRITE_PROTECTED);
        }
        match self.range(sector, count) {
            Some((_, 0)) => Plan::Nothing,
            Some((offset, left)) => Plan::Write(Target { offset, left, durable }),
            None => self.fail(Sense::OUT_OF_RANGE),
        }
    }

    /// Reads the sectors and says whether that worked. At most [`MAX_VERIFY`] at a time: a host waits for the answer.
    fn verify(&mut self, sector: u64, count: u64) -> Plan {
        let Some((offset, length)) = self.range(sector, count) else { return self.fail(Sense::OUT_OF_RANGE) };
        if length > MAX_VERIFY {
            return self.fail(Sense::INVALID_FIELD);
        }
        for done in (0..length).step_by(MAX_BODY) {
            if self.read(offset + done, (length - done).min(MAX_BODY as u64) as usize).is_err() {
                return Plan::Failed;
            }
        }
        Plan::Nothing
    }

    /// SPC-4 §6.39: fixed format, and the sense is gone once it was told.
    fn request_sense(&mut self, length: u8) -> Plan {
        let Sense(key, code, qualifier) = core::mem::replace(&mut self.sense, Sense::NONE);
        cut(vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0], u64::from(length))
    }

    /// SPC-4 §6.6, and the vital product data of §7.8.
    fn inquiry(&mut self, flags: u8, page: u8, length: u64) -> Plan {
        let serial: Vec<u8> = self.serial.bytes().take(64).collect();
        let data = match (flags & 1, page) {
            (0, 0) => [&[0, 0, 6, 2, 31, 0, 0, 0][..], b"Farbus  Disk            0001"].concat(),
            (1, 0x00) => vec![0, 0, 0, 3, 0x00, 0x80, 0x83],
            (1, 0x80) => [&[0, 0x80, 0, serial.len() as u8], &serial[..]].concat(),
            // One designator, in ASCII, by vendor and serial number.
            (1, 0x83) => {
                let name = [&b"Farbus  "[..], &serial].concat();
                let designator = [&[2, 1, 0, name.len() as u8], &name[..]].concat();
                [&[0, 0x83, 0, designator.len() as u8], &designator[..]].concat()
            }
            _ => return self.fail(Sense::INVALID_FIELD),
        };
        cut(data, length)
    }

    /// SPC-4 §6.11, §6.12: whether it may be written (and that FUA is understood), and the caching page.
    fn mode_sense(&mut self, page: u8, answer: impl FnOnce(&[u8], u8) -> Plan) -> Plan {
        let (control, page) = (page >> 6, page & 0x3f);
        if control == 3 {
            return self.fail(Sense::SAVING_NOT_SUPPORTED);
        }
        if page != CACHING_PAGE && page != ALL_PAGES {
            return self.fail(Sense::INVALID_FIELD);
        }
        // Nothing is changeable. What is written may wait in the medium's cache until it is flushed: WCE.
        let wce = if control == 1 || self.medium.read_only() { 0 } else { 0x04 };
        let mut caching = vec![CACHING_PAGE, 18, wce];
        caching.resize(20, 0);
        answer(&caching, if self.medium.read_only() { 0x90 } else { 0x10 })
    }

    /// SBC-3 §5.16.
    fn read_capacity_16(&self, length: u64) -> Plan {
        let mut data = self.sectors().saturating_sub(1).to_be_bytes().to_vec();
        data.extend((SECTOR as u32).to_be_bytes());
        data.resize(32, 0);
        cut(data, length)
    }
}

/// The longest range that is verified by one command, bytes.
const MAX_VERIFY: u64 = 64 << 20;

/// A count of 0 means 256 in the six-byte commands.
fn six(count: u8) -> u64 {
    if count == 0 { 256 } else { u64::from(count) }
}

/// Parameter data, cut to the allocation length.
fn cut(mut data: Vec<u8>, allocation: u64) -> Plan {
    data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
    if data.is_empty() { Plan::Nothing } else { Plan::Memory(data.into()) }
}
