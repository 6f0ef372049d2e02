//! Who may make or remove a socket of this name: one at a time, by a lock on a file beside it.
//!
//! To look whether a socket was left behind, to remove it and to make another one are three steps. Two programs that take
//! them side by side could each find the socket of the other one left behind: one that is made and not listened to yet
//! looks just so. So nobody takes them without a claim, and whoever listens keeps it. The kernel gives back the claim of
//! a program that dies.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// A lock on a file that goes with it.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Of the socket with this path; `None` while somebody else has it.
    pub(crate) fn of(socket: &Path) -> io::Result<Option<Self>> {
        let path = socket.with_added_extension("lock");
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
            let lock = options.open(&path)?;
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
                // Whoever had it before may have removed the file since it was opened: that lock says nothing.
                Ok(()) if is_at(&lock, &path)? => return Ok(Some(Self { path, _lock: lock })),
                Ok(()) => {}
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "removing {}", self.path.display());
        }
    }
}

/// Whether this file is the one with this path, and not one that has taken its place.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let of = |found: fs::Metadata| (found.dev(), found.ino());
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(of(found) == of(file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_claim_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let claim = Claim::of(&socket).unwrap().unwrap();
        assert!(Claim::of(&socket).unwrap().is_none());
        drop(claim);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::write(socket.with_added_extension("lock"), "").unwrap();
        assert!(Claim::of(&socket).unwrap().is_some(), "whoever died with it has none");
    }

    #[test]
    fn many_that_take_it_and_give_it_back_never_have_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..500 {
                        let Some(claim) = Claim::of(&socket).unwrap() else { continue };
                        File::create_new(&socket).expect("nobody else has the claim");
                        fs::remove_file(&socket).unwrap();
                        drop(claim);
                    }
                });
            }
        });
    }
}
