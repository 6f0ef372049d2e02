//! `testusb`, the program that has the kernel's usbtest driver test a USB controller: one file of the kernel's own
//! source (`tools/usb/testusb.c`), in which Debian ships it, compiled for the guest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::apt::Archive;
use super::guest::RELEASE;
use super::{Cache, foreign, key, run};

/// The source of the guest's kernel.
const PACKAGE: &str = "linux-source-6.1";
const SOURCE: &str = "tools/usb/testusb.c";
const PROGRAM: &str = "testusb";

/// The static program. Fetching the source takes as long as 140 MB do, once; only the program is kept.
pub(super) fn testusb(cache: &Cache, tools: &Path) -> Result<PathBuf> {
    let name = format!("testusb-{}", key([RELEASE, PACKAGE]));
    let tree = cache.tree(&name, "the kernel's USB test program", |tree| {
        let fetched = tree.join("fetched");
        fs::create_dir(&fetched)?;
        Archive::open(cache, RELEASE)?.unpack_only(RELEASE, &[PACKAGE], PACKAGE, &fetched)?;
        let source = fetched.join("testusb.c");
        let archive = fetched.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
        extract(tools, &archive, &format!("{PACKAGE}/{SOURCE}"), &source)?;
        run(Command::new("cc")
            .args(["-O2", "-static", "-pthread", "-o"])
            .arg(tree.join(PROGRAM))
            .arg(&source))?;
        fs::remove_dir_all(&fetched).context("removing the kernel's source")
    })?;
    Ok(tree.join(PROGRAM))
}

/// Extracts one file of a tar archive packed with xz.
fn extract(tools: &Path, archive: &Path, name: &str, to: &Path) -> Result<()> {
    let mut xz = foreign(tools, "usr/bin/xz", "xz");
    let mut xz = xz.args(["--decompress", "--stdout"]).arg(archive).stdout(Stdio::piped()).spawn()?;
    let Some(unpacked) = xz.stdout.take() else { bail!("xz has no output") };
    // It stops at the first file of this name; xz, which is not done then, ends with its pipe.
    let tar = Command::new("tar")
        .args(["--extract", "--to-stdout", "--occurrence=1", name])
        .stdin(unpacked)
        .stdout(File::create(to)?)
        .output()
        .context("running tar")?;
    xz.wait()?;
    if !tar.status.success() {
        bail!("extracting {name}: {}", String::from_utf8_lossy(&tar.stderr).trim_end());
    }
    Ok(())
}
