//! Gets what a VM is made of, without touching the system: QEMU, a guest's root file system, a stock kernel.
//!
//! Everything is made of Debian packages, fetched and checked by the system's own `apt` in a world of its own (module
//! `apt`) and unpacked into the user's cache directory (module `cache`). None of it needs root:
//! no maintainer script runs, and nothing is installed.
//!
//! ```text
//! ~/.cache/farbus/
//!   lock                    held while anything is made
//!   apt-RELEASE/            apt's lists and downloads for one Debian release
//!   qemu-KEY/               a private QEMU with its libraries and firmware
//!   guest-KEY/              the guest's programs
//!   kernel-PACKAGE-KEY/     one kernel package, unpacked, with its module indexes
//!   testusb-KEY/            the kernel's program for testing USB controllers
//!   incumbents-KEY/         other stacks for USB over a network, once they are measured
//!   tshark-KEY/             Wireshark, once a capture is to be read
//!   coturn-KEY/             a STUN and TURN server, once a link is to go through one
//!   rustc-KEY/              a Rust compiler that knows wasm32, if the one in use does not
//!   pulseaudio-KEY/         PulseAudio, once it is measured
//!   initramfs-KEY/          what a kernel boots into: guest programs, chosen modules, the lab's agent
//! ```
//! `KEY` is a hash of the recipe, so a lab with another recipe never meets a stale tree. A tree appears under its name
//! only when complete, and carries a manifest of its files.

mod apt;
mod cache;
mod coturn;
mod cpio;
mod guest;
mod incumbents;
mod kernel;
mod programs;
mod pulseaudio;
mod qemu;
mod testusb;
mod tshark;
mod wasm;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub use cache::Cache;
pub(crate) use coturn::coturn;
pub use guest::{DEFAULT_MODULES, Initramfs};
pub(crate) use incumbents::incumbents;
pub use kernel::{DEFAULT_KERNEL, Kernel};
pub(crate) use programs::pack;
pub use pulseaudio::PulseAudio;
pub use qemu::Qemu;
pub(crate) use tshark::tshark;
pub(crate) use wasm::rustc_for_wasm;

/// Everything a default VM needs, made now if it is not there.
///
/// # Errors
/// What is missing on this system and cannot be fetched.
pub fn everything(cache: &Cache) -> Result<(Qemu, Kernel, Initramfs)> {
    let qemu = Qemu::find(cache)?;
    let kernel = Kernel::unpack(cache, DEFAULT_KERNEL)?;
    let initramfs = Initramfs::build(cache, &kernel, &[])?;
    Ok((qemu, kernel, initramfs))
}

/// Tells the person at the terminal what takes so long.
fn progress(message: &str) {
    eprintln!("lab: {message}");
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// If it cannot be started, or ends with a failure; then with everything it said.
fn run(command: &mut Command) -> Result<String> {
    command.stdin(std::process::Stdio::null()).env("LC_ALL", "C.UTF-8");
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        bail!("{name} failed ({}):\n{}", output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A short name for a recipe: changes with any of its parts (FNV-1a, 64 bits).
fn key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        part.as_ref().iter().copied().for_each(&mut eat);
        eat(0xff);
    }
    format!("{hash:016x}")
}

/// All files, links and folders below `folder`, sorted, as paths relative to it.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    fn visit(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        let folder = root.join(below);
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            found.push(path.clone());
            if entry.file_type()?.is_dir() {
                visit(root, &path, found)?;
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(folder, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

/// A command for a program of an unpacked Debian root, run by that root's own loader with its own libraries, so that
/// neither chroot nor the system's C library is needed. `name` is what the program finds as its own name.
fn foreign(root: &Path, program: &str, name: impl AsRef<OsStr>) -> Command {
    let mut command = loader(root);
    command.arg("--argv0").arg(name).arg(root.join(program));
    command
}

/// The loader of an unpacked Debian root, which finds that root's libraries.
fn loader(root: &Path) -> Command {
    let mut libraries = root.join("usr/lib/x86_64-linux-gnu").into_os_string();
    libraries.push(":");
    libraries.push(root.join("lib/x86_64-linux-gnu"));
    let mut command = Command::new(root.join(programs::LOADER.trim_start_matches('/')));
    command.arg("--library-path").arg(libraries);
    command
}
