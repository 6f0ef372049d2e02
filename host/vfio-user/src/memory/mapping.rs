//! One mapped file.
#![expect(unsafe_code, reason = "mapping guest memory and copying from and to it is what this module is")]
// UNSAFETY: mmap and munmap of files that the VMM gave us, and copies between that memory and our own. The memory
// is shared with a guest that writes to it whenever it likes, so no reference into it is ever made: bytes are moved
// by volatile accesses, dwords that order others by atomics. A file that is truncated under us is dealt with by
// `guard`.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::guard::Guard;

/// A file, mapped from its first byte on. All positions are offsets into it and checked.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    writable: bool,
    guard: Guard,
}

impl Mapping {
    /// Maps `length` bytes of a file.
    ///
    /// # Errors
    /// What `mmap` says (a length of 0, a file that is open for reading only), or that there are too many mappings
    /// in this process to guard another.
    pub(super) fn new(file: impl AsFd, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address that the kernel chooses overlaps nothing of ours.
        let base = unsafe { mmap(core::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::Other)?;
        let Some(guard) = Guard::new(base.as_ptr() as usize, length) else {
            // SAFETY: just mapped, and nobody knows of it.
            unsafe { munmap(base.as_ptr().cast(), length)? };
            return Err(io::Error::other("too many mappings to guard"));
        };
        // SAFETY: the range is ours. The advice keeps the guest's memory out of our core dumps, nothing else.
        let _ = unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxDontDump) };
        Ok(Self { base, length, writable, guard })
    }

    /// Whether it may be written to.
    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    /// Whether a range lies in it.
    pub(super) fn covers(&self, at: usize, length: usize) -> bool {
        at.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// Whether the file was truncated and we have touched the hole: what was read is not the guest's.
    pub(super) fn lost(&self) -> bool {
        self.guard.hit()
    }

    /// Copies out.
    pub(super) fn read(&self, at: usize, data: &mut [u8]) -> Option<()> {
        let mut from = self.range(at, data.len())?;
        let head = data.len().min(from.align_offset(8));
        let (head, rest) = data.split_at_mut_checked(head)?;
        let (words, tail) = rest.as_chunks_mut::<8>();
        let bytes = |data: &mut [u8], mut from: *const u8| {
            for byte in data {
                // SAFETY: `range` has checked that all of `data` lies in the mapping, which lives as long as self.
                unsafe {
                    *byte = from.read_volatile();
                    from = from.add(1);
                }
            }
            from
        };
        from = bytes(head, from).cast_mut();
        for word in words {
            // SAFETY: as above, and `from` was aligned by the head.
            unsafe {
                *word = from.cast::<u64>().read_volatile().to_ne_bytes();
                from = from.add(8);
            }
        }
        bytes(tail, from);
        Some(())
    }

    /// Copies in.
    pub(super) fn write(&self, at: usize, data: &[u8]) -> Option<()> {
        let mut to = self.range(at, data.len()).filter(|_| self.writable)?;
        let (head, rest) = data.split_at_checked(data.len().min(to.align_offset(8)))?;
        let (words, tail) = rest.as_chunks::<8>();
        let bytes = |data: &[u8], mut to: *mut u8| {
            for byte in data {
                // SAFETY: `range` has checked that all of `data` lies in the mapping, which lives as long as self
                // and is writable.
                unsafe {
                    to.write_volatile(*byte);
                    to = to.add(1);
                }
            }
            to
        };
        to = bytes(head, to);
        for word in words {
            // SAFETY: as above, and `to` was aligned by the head.
            unsafe {
                to.cast::<u64>().write_volatile(u64::from_ne_bytes(*word));
                to = to.add(8);
            }
        }
        bytes(tail, to);
        Some(())
    }

    /// Loads an aligned dword; later accesses stay behind it.
    pub(super) fn load(&self, at: usize) -> Option<u32> {
        Some(self.dword(at)?.load(Ordering::Acquire))
    }

    /// Stores an aligned dword; earlier accesses stay before it.
    pub(super) fn store(&self, at: usize, value: u32) -> Option<()> {
        if !self.writable {
            return None;
        }
        self.dword(at)?.store(value, Ordering::Release);
        Some(())
    }

    fn dword(&self, at: usize) -> Option<&AtomicU32> {
        let pointer = self.range(at, 4).filter(|_| at.is_multiple_of(4))?;
        // SAFETY: in the mapping, which lives as long as self, and aligned, as mappings begin at a page.
        Some(unsafe { AtomicU32::from_ptr(pointer.cast()) })
    }

    fn range(&self, at: usize, length: usize) -> Option<*mut u8> {
        if !self.covers(at, length) {
            return None;
        }
        // SAFETY: not beyond the end of the mapping.
        Some(unsafe { self.base.as_ptr().add(at) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard.release();
        // SAFETY: mapped by `new`, and pointers into it do not leave this module's calls.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "guest memory could not be unmapped");
        }
    }
}
