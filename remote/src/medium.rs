//! A file, or a block device, as a disk's medium.

use std::{
    fs::{File, TryLockError},
    io::{Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use functions::{Medium, MediumError};
use rustix::buffer::spare_capacity;

use crate::cli::Disk;

/// The shortest medium: one sector.
const SECTOR: u64 = 512;

/// The file. It is locked while it is lent: against everybody to write it, against writers to read it.
#[derive(Debug)]
pub(crate) struct FileMedium {
    file: File,
    size: u64,
    read_only: bool,
}

impl FileMedium {
    /// Opens the file that is lent as a disk.
    ///
    /// # Errors
    /// It cannot be opened for what it is lent for, somebody else uses it, or it is too short.
    pub(crate) fn open(disk: &Disk) -> Result<Self> {
        let path = disk.file.display();
        let mut file =
            File::options().read(true).write(!disk.read_only).open(&disk.file).with_context(|| {
                let how = if disk.read_only { "reading" } else { "writing (add :ro to lend it read-only)" };
                format!("opening the disk {path} for {how}")
            })?;
        match if disk.read_only { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "the disk {path} is lent already; a file may be lent several times only if each time has :ro"
            ),
            // Not every file system has locks.
            Err(TryLockError::Error(error)) => tracing::debug!(%error, "{path} cannot be locked"),
        }
        // A block device has no length, but an end.
        let size = file.seek(SeekFrom::End(0)).with_context(|| format!("the size of {path}"))?;
        anyhow::ensure!(size >= SECTOR, "the disk {path} has not even one sector of {SECTOR} bytes");
        Ok(Self { file, size, read_only: disk.read_only })
    }
}

fn failed(error: std::io::Error) -> MediumError {
    tracing::warn!(%error, "a disk's file");
    MediumError(error.to_string())
}

impl Medium for FileMedium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError> {
        let mut data = Vec::with_capacity(length);
        // Into the spare room of the buffer: nothing is zeroed before, and the bytes travel as they are.
        while data.len() < length {
            let at = offset + data.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut data), at) {
                Ok(0) => return Err(MediumError("the file has become shorter".into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        data.truncate(length);
        Ok(data.into())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        self.file.write_all_at(data, offset).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.file.sync_data().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: usize) -> (tempfile::NamedTempFile, Disk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; bytes]).unwrap();
        let disk = Disk { file: file.path().into(), read_only: false };
        (file, disk)
    }

    #[test]
    fn it_reads_what_was_written_and_fails_where_the_file_ends() {
        let (file, disk) = disk(2048);
        let mut medium = FileMedium::open(&disk).unwrap();
        assert_eq!(medium.size(), 2048);
        medium.write(512, &[1; 512]).unwrap();
        medium.flush().unwrap();
        assert_eq!(medium.read(500, 24).unwrap(), [[7; 12], [1; 12]].concat());
        file.as_file().set_len(1000).unwrap();
        assert!(medium.read(512, 512).is_err());
    }

    #[test]
    fn a_file_is_written_by_one_disk_or_read_by_many() {
        let (_file, writable) = disk(512);
        let read_only = Disk { read_only: true, ..writable.clone() };
        let one = FileMedium::open(&writable).unwrap();
        for disk in [&writable, &read_only] {
            assert!(FileMedium::open(disk).unwrap_err().to_string().contains("lent already"));
        }
        drop(one);
        let _readers = [FileMedium::open(&read_only).unwrap(), FileMedium::open(&read_only).unwrap()];
        assert!(FileMedium::open(&writable).is_err());
    }

    #[test]
    fn an_empty_file_is_no_disk() {
        let (_file, disk) = disk(100);
        assert!(FileMedium::open(&disk).unwrap_err().to_string().contains("sector"));
    }
}
