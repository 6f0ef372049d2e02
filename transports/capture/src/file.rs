//! The file: a section, an interface, records, and at the end how many there were.

use std::{
    io::{self, Write},
    time::Duration,
};

use wire::usb::{Completion, Request};

use crate::{
    block,
    usbmon::{self, Asked, MAX_HEAD_LEN, Record},
};

/// The most bytes of data that a record keeps, unless told otherwise.
pub const SNAP: usize = 64 << 10;

/// A capture that is being written. Times are counted from the beginning of 1970.
#[derive(Debug)]
pub struct Capture<W> {
    out: W,
    snap: usize,
    records: u64,
}

impl<W: Write> Capture<W> {
    /// Begins a file: `name` says where it was recorded, and records keep at most `snap` bytes of data.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut out: W, name: &str, snap: usize) -> io::Result<Self> {
        let longest = u32::try_from(snap.saturating_add(MAX_HEAD_LEN)).unwrap_or(u32::MAX);
        out.write_all(&block::section_header())?;
        out.write_all(&block::interface(name, longest))?;
        Ok(Self { out, snap, records: 0 })
    }

    /// A request goes out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn submitted(&mut self, at: Duration, request: &Request) -> io::Result<()> {
        self.write(at, &usbmon::submitted(at, request, self.snap))
    }

    /// A request has ended.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ended(&mut self, at: Duration, asked: Asked, end: &Completion) -> io::Result<()> {
        self.write(at, &usbmon::ended(at, asked, end, self.snap))
    }

    /// Makes everything so far reach the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the file: so many records should be in it and are not. How many are.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, at: Duration, dropped: u64) -> io::Result<u64> {
        self.out.write_all(&block::statistics(at, self.records + dropped, dropped))?;
        self.out.flush()?;
        Ok(self.records)
    }

    fn write(&mut self, at: Duration, record: &Record<'_>) -> io::Result<()> {
        let packet = [&record.head[..], record.data].concat();
        self.out.write_all(&block::packet(at, &packet, record.missing))?;
        self.records += 1;
        Ok(())
    }
}
