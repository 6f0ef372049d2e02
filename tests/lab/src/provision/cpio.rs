//! Writes what the Linux kernel unpacks as its first root file system: a cpio archive in the "newc" format, which
//! `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel describes.
//! Owners are root and times are zero, whoever makes it and when.

use std::collections::BTreeSet;
use std::io::{self, Write};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under way.
pub(super) struct Cpio<W> {
    out: W,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Cpio<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0, folders: BTreeSet::new() }
    }

    /// A folder and those above it, each written once.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        self.folder(parent(path))?;
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER | 0o755, (0, 0), &[])
    }

    /// A file, executable or not.
    pub(super) fn file(&mut self, path: &str, executable: bool, content: &[u8]) -> io::Result<()> {
        self.folder(parent(path))?;
        self.entry(path, FILE | if executable { 0o755 } else { 0o644 }, (0, 0), content)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folder(parent(path))?;
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device by its numbers.
    pub(super) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.folder(parent(path))?;
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive and hands back what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_long = |_| io::Error::other(format!("{path} is too long for cpio"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
        // inode, mode, owner, group, links, time, size, device of the file, numbers of a device, length of the name,
        // and a checksum that this format does not use.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        fields.iter().for_each(|field| header.push_str(&format!("{field:08x}")));
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Name and content each end on a multiple of four bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_aligned_and_folders_precede_what_is_in_them() -> io::Result<()> {
        let mut cpio = Cpio::new(Vec::new());
        cpio.file("a/b/c", true, b"12345")?;
        cpio.link("a/l", "b/c")?;
        let bytes = cpio.finish()?;
        assert_eq!(bytes.len() % 4, 0);
        let at: Vec<usize> =
            bytes.windows(6).enumerate().filter(|(_, w)| w == b"070701").map(|(at, _)| at).collect();
        assert_eq!(at.len(), 5, "a, a/b, a/b/c, a/l and the trailer");
        assert!(at.iter().all(|at| at % 4 == 0));
        let field = |entry: usize, number: usize| &bytes[at[entry] + 6 + number * 8..][..8];
        assert_eq!(field(0, 1), b"000041ed", "a folder, 0755");
        assert_eq!(field(2, 1), b"000081ed", "a file, 0755");
        assert_eq!(
            (field(2, 6), field(2, 11)),
            (&b"00000005"[..], &b"00000006"[..]),
            "sizes of content and name"
        );
        Ok(())
    }
}
