//! Guest memory, as the client has mapped it.
//!
//! The client's files are mapped whole, once for each file, and *windows* are laid over them: firmware unmaps and
//! maps all RAM again many times while it toggles the shadowing of its ROM. No pointer and no reference leaves this
//! module: memory is copied in and out, and each call looks the window up anew, so that nothing can outlive an
//! unmapping.

mod guard;
mod mapping;
mod table;

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use pci::{Dma, DmaError};
use rustix::fs::{FileType, fstat};

use crate::Status;
use crate::codec::{DmaMap, Refusal};
use mapping::Mapping;
use table::{Table, Window};

/// Files kept mapped though no window shows them at the moment.
const MAX_IDLE: usize = 8;
/// More than any ROM or frame buffer has, bytes.
const RAM_SIZED: u64 = 64 << 20;
const READABLE: u32 = 1;
const WRITABLE: u32 = 2;

/// All guest memory of one function.
#[derive(Debug)]
pub(crate) struct Memory {
    table: RefCell<Table<Backing>>,
    files: RefCell<Vec<File>>,
    poisoned: Cell<bool>,
    warned: Cell<bool>,
    status: Arc<Status>,
}

/// What a window shows, and what may be done with it.
#[derive(Debug, Clone)]
struct Backing {
    flags: u32,
    /// `None`: the client did not share it, or it is not memory.
    shown: Option<(Rc<Mapping>, usize)>,
}

#[derive(Debug)]
struct File {
    device: u64,
    inode: u64,
    mapping: Rc<Mapping>,
}

impl Memory {
    pub(crate) fn new(status: Arc<Status>) -> Self {
        let (table, files) = (RefCell::default(), RefCell::default());
        Self { table, files, poisoned: Cell::new(false), warned: Cell::new(false), status }
    }

    /// Lays a window. Its bounds have been checked by the codec.
    pub(crate) fn map(&self, asked: DmaMap, file: Option<OwnedFd>) -> Result<(), Refusal> {
        self.table.borrow().admits(asked.address, asked.size)?;
        let shown = match &file {
            Some(file) => self.open(file, asked)?,
            None => None,
        };
        if shown.is_none() {
            self.tell_of_private(asked);
        }
        self.status.mapped(asked.size, shown.is_some());
        self.table.borrow_mut().insert(asked.address, asked.size, Backing { flags: asked.flags, shown })
    }

    /// Removes exactly one window.
    pub(crate) fn unmap(&self, address: u64, size: u64) -> Result<(), Refusal> {
        let backing = self.table.borrow_mut().remove(address, size)?;
        self.status.unmapped(size, backing.shown.is_some());
        Ok(())
    }

    /// Removes all windows.
    pub(crate) fn unmap_all(&self) {
        self.table.borrow_mut().clear();
        self.status.unmapped_all();
    }

    /// Forgets the client and its files.
    pub(crate) fn forget(&self) {
        self.unmap_all();
        self.files.borrow_mut().clear();
        self.poisoned.set(false);
        self.warned.set(false);
    }

    /// The mapping of this file, and where in it the window begins.
    fn open(&self, file: &OwnedFd, asked: DmaMap) -> Result<Option<(Rc<Mapping>, usize)>, Refusal> {
        let known = fstat(file).map_err(|_| Refusal::Invalid)?;
        if FileType::from_raw_mode(known.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let (offset, size) = (asked.offset as usize, asked.size as usize);
        let end = asked.offset.checked_add(asked.size).ok_or(Refusal::Invalid)?;
        if end > u64::try_from(known.st_size).unwrap_or(0) {
            return Err(Refusal::Invalid);
        }
        let (device, inode) = (known.st_dev, known.st_ino);
        let writable = asked.flags & WRITABLE != 0;
        let mut files = self.files.borrow_mut();
        let fits = |entry: &File| {
            (entry.device, entry.inode) == (device, inode)
                && entry.mapping.covers(offset, size)
                && (entry.mapping.writable() || !writable)
        };
        if let Some(entry) = files.iter().find(|entry| fits(entry)) {
            return Ok(Some((entry.mapping.clone(), offset)));
        }
        let mapping = Mapping::new(file, known.st_size as usize, writable).map_err(|error| {
            tracing::warn!(%error, size = known.st_size, "guest memory could not be mapped");
            Refusal::NoMemory
        })?;
        let mapping = Rc::new(mapping);
        let idle = files.iter().filter(|entry| Rc::strong_count(&entry.mapping) == 1).count();
        if idle >= MAX_IDLE
            && let Some(oldest) = files.iter().position(|entry| Rc::strong_count(&entry.mapping) == 1)
        {
            files.remove(oldest);
        }
        files.push(File { device, inode, mapping: mapping.clone() });
        Ok(Some((mapping, offset)))
    }

    /// ROMs and the like are never shared, and the guest can have them mapped as often as it likes. RAM is another
    /// matter: a device that cannot reach it is of no use.
    fn tell_of_private(&self, asked: DmaMap) {
        let (address, size) = (format_args!("{:#x}", asked.address), format_args!("{:#x}", asked.size));
        if asked.size >= RAM_SIZED && !self.warned.replace(true) {
            tracing::warn!(
                address,
                size,
                "the VMM does not share its memory, and the device cannot reach it"
            );
        } else {
            tracing::debug!(address, size, "memory that is not shared");
        }
    }

    /// Calls `part` for each piece of a range: the mapping, where in it, and where in the range.
    fn pieces(
        &self,
        address: u64,
        length: usize,
        need: u32,
        mut part: impl FnMut(&Mapping, usize, core::ops::Range<usize>) -> Option<()>,
    ) -> Result<(), DmaError> {
        if self.poisoned.get() {
            return Err(DmaError::Unmapped);
        }
        let table = self.table.borrow();
        let mut done = 0;
        while done < length {
            let at = address.checked_add(done as u64).ok_or(DmaError::Unmapped)?;
            let Window { start, size, content } = table.at(at).ok_or(DmaError::Unmapped)?;
            let (mapping, base) = content.shown.as_ref().ok_or(DmaError::Unmapped)?;
            if content.flags & need == 0 {
                return Err(DmaError::Protected);
            }
            let inside = at - start;
            let count = (size - inside).min((length - done) as u64) as usize;
            part(mapping, base + inside as usize, done..done + count).ok_or(DmaError::Unmapped)?;
            if mapping.lost() {
                return Err(self.poison());
            }
            done += count;
        }
        Ok(())
    }

    /// The client has taken memory away under us: it cannot be trusted with any more of it.
    fn poison(&self) -> DmaError {
        if !self.poisoned.replace(true) {
            tracing::error!(
                "guest memory was truncated while in use; the device cannot reach memory any more"
            );
            self.status.poison();
        }
        DmaError::Unmapped
    }
}

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.pieces(address, data.len(), READABLE, |mapping, at, range| {
            mapping.read(at, data.get_mut(range)?)
        })
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.pieces(address, data.len(), WRITABLE, |mapping, at, range| mapping.write(at, data.get(range)?))
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        let mut value = 0;
        self.dword(address, READABLE, |mapping, at| {
            value = mapping.load(at)?;
            Some(())
        })?;
        Ok(u32::from_le(value))
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.dword(address, WRITABLE, |mapping, at| mapping.store(at, value.to_le()))
    }
}

impl Memory {
    /// An aligned dword never spans two windows: these are whole pages.
    fn dword(
        &self,
        address: u64,
        need: u32,
        mut access: impl FnMut(&Mapping, usize) -> Option<()>,
    ) -> Result<(), DmaError> {
        if !address.is_multiple_of(4) {
            return Err(DmaError::Misaligned);
        }
        self.pieces(address, 4, need, |mapping, at, _| access(mapping, at))
    }
}

#[cfg(test)]
mod tests;
