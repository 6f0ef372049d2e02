//! A QEMU that has vfio-user-pci.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, bail};

use super::apt::Archive;
use super::{Cache, foreign, key, run};

/// Names a QEMU to be used instead of any that would be found.
const QEMU_VARIABLE: &str = "FARBUS_QEMU";
const PROGRAM: &str = "qemu-system-x86_64";

/// Where a private QEMU comes from: the oldest Debian release with a QEMU >= 10.1 among its backports.
const RELEASE: &str = "trixie";
const SUITE: &str = "trixie-backports";
/// `qemu-system-common` has the qtest accelerator, a module.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "seabios", "ovmf"];

/// A QEMU for x86-64 machines, known to have the device `vfio-user-pci`.
#[derive(Clone, Debug)]
pub struct Qemu {
    origin: Origin,
    version: String,
}

#[derive(Clone, Debug)]
enum Origin {
    /// A program of the system's.
    System(PathBuf),
    /// One unpacked below this root.
    Private(PathBuf),
}

impl Qemu {
    /// The QEMU named by `FARBUS_QEMU`, else the one on `PATH`, if it has vfio-user-pci, else a private one, unpacked
    /// from Debian's packages if it is not there yet.
    ///
    /// # Errors
    /// If `FARBUS_QEMU` names an unfit one, or the packages cannot be fetched.
    pub fn find(cache: &Cache) -> Result<Self> {
        if let Some(program) = env::var_os(QEMU_VARIABLE).filter(|program| !program.is_empty()) {
            let named = Origin::System(program.into());
            return Self::probe(named)
                .ok_or_else(|| anyhow!("{QEMU_VARIABLE} names no QEMU with vfio-user-pci"));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let found =
            env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|program| program.is_file());
        match found.and_then(|program| Self::probe(Origin::System(program))) {
            Some(qemu) => Ok(qemu),
            None => Self::private(cache),
        }
    }

    fn private(cache: &Cache) -> Result<Self> {
        let name = format!("qemu-{}", key([RELEASE, SUITE].into_iter().chain(PACKAGES)));
        let root = cache.tree(&name, "a private QEMU", |root| {
            Archive::open(cache, RELEASE)?.unpack(SUITE, &PACKAGES, root)?;
            match Self::probe(Origin::Private(root.to_owned())) {
                Some(_) => Ok(()),
                None => bail!("the QEMU of {SUITE} does not run here, or has no vfio-user-pci"),
            }
        })?;
        // Its version is known from its making: no need to run it again.
        let packages = std::fs::read_to_string(root.join(".packages"))?;
        let version =
            packages.lines().find_map(|line| line.split_once(" qemu-system-x86_")?.1.split('_').next());
        let version = version.unwrap_or_default().replace("%3a", ":");
        Ok(Self { version, origin: Origin::Private(root) })
    }

    /// `origin` as a QEMU, if it runs and has vfio-user-pci.
    fn probe(origin: Origin) -> Option<Self> {
        let mut qemu = Self { origin, version: String::new() };
        let devices = run(qemu.command().args(["-device", "help"])).ok()?;
        if !devices.contains("\"vfio-user-pci\"") {
            return None;
        }
        let version = run(qemu.command().arg("--version")).ok()?;
        qemu.version = version.lines().next()?.trim_start_matches("QEMU emulator version ").to_owned();
        Some(qemu)
    }

    /// What it calls its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A command that starts it, to which the arguments of a machine are added.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.origin {
            Origin::System(program) => Command::new(program),
            Origin::Private(root) => {
                let mut command = foreign(root, "usr/bin/qemu-system-x86_64", PROGRAM);
                command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
                for folder in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(root.join(folder));
                }
                command
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// The UEFI firmware's code, and the initial content of its variables.
    ///
    /// # Errors
    /// If it is not there: a system's QEMU comes without.
    pub fn ovmf(&self) -> Result<(PathBuf, PathBuf)> {
        let root = match &self.origin {
            Origin::System(_) => Path::new("/"),
            Origin::Private(root) => root,
        };
        let of = |name: &str| root.join("usr/share/OVMF").join(name);
        let files = (of("OVMF_CODE_4M.fd"), of("OVMF_VARS_4M.fd"));
        if files.0.exists() && files.1.exists() {
            Ok(files)
        } else {
            bail!("{} is missing: install the package ovmf", files.0.display())
        }
    }
}
