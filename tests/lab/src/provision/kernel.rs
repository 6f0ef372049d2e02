//! A stock kernel, unpacked and never rebuilt.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, bail};

use super::apt::Archive;
use super::guest::{self, RELEASE};
use super::{Cache, foreign, key, run};

/// The package of the kernel that guests run unless told otherwise.
pub const DEFAULT_KERNEL: &str = "linux-image-amd64";

/// Where the kernel's ELF image is put.
const UNPACKED: &str = "boot/vmlinux";

/// Debian releases that have been tried as a source of kernels, oldest first.
const RELEASES: [&str; 2] = [RELEASE, "trixie"];

/// An unpacked kernel with all its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) root: PathBuf,
    release: String,
}

impl Kernel {
    /// The kernel of a Debian package, or of what that package depends on, unpacked if it is not there yet.
    ///
    /// `package` is a name, or `NAME/SUITE` for another suite than the guest's own: `linux-image-amd64/trixie`.
    ///
    /// # Errors
    /// If there is no such package, no such suite, or the package holds no kernel.
    pub fn unpack(cache: &Cache, package: &str) -> Result<Self> {
        let (name, suite) = package.split_once('/').unwrap_or((package, RELEASE));
        let release = RELEASES.into_iter().find(|release| suite.split('-').next() == Some(release));
        let release =
            release.ok_or_else(|| anyhow!("{package}: a suite of {} is wanted", RELEASES.join(" or ")))?;
        let tools = guest::root(cache)?;
        let tree = format!("kernel-{}-{}", package.replace('/', "_"), key(["2", suite, name]));
        let root = cache.tree(&tree, &format!("the kernel {package}"), |root| {
            Archive::open(cache, release)?.unpack_only(suite, &[name], "linux-", root)?;
            let kernel = Self::in_root(root)?;
            depmod(&tools, root, &kernel.release)?;
            let config = fs::read_to_string(root.join("boot").join(format!("config-{}", kernel.release)))?;
            match unpacked(&tools, &fs::read(kernel.image())?)? {
                Some(elf) if config.contains("\nCONFIG_PVH=y\n") => Ok(fs::write(root.join(UNPACKED), elf)?),
                _ => Ok(()),
            }
        })?;
        Self::in_root(&root)
    }

    fn in_root(root: &Path) -> Result<Self> {
        let modules = root.join("lib/modules");
        let mut releases =
            fs::read_dir(&modules).with_context(|| format!("listing {}", modules.display()))?;
        let release =
            releases.next().ok_or_else(|| anyhow!("the package holds no kernel modules"))??.file_name();
        let kernel = Self { root: root.to_owned(), release: release.to_string_lossy().into_owned() };
        if !kernel.image().exists() {
            bail!("the package holds no {}", kernel.image().display());
        }
        Ok(kernel)
    }

    /// The same kernel as the ELF image that is packed into [`Kernel::image`], if it can start from that (by the PVH
    /// entry). Under TCG a guest needs four seconds to unpack it by itself.
    #[must_use]
    pub fn unpacked_image(&self) -> Option<PathBuf> {
        Some(self.root.join(UNPACKED)).filter(|image| image.exists())
    }

    /// The kernel's own name for its version, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// What QEMU's `-kernel` takes.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Where its modules are, and the lists that `depmod` made of them.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The files of the named modules and of all they need, relative to [`Kernel::modules`]; of the optional ones, if
    /// the kernel has them. A module that is part of the kernel's image has no file.
    pub(super) fn closure(&self, names: &[&str], optional: &[&str]) -> Result<BTreeSet<String>> {
        let list = |file: &str| {
            fs::read_to_string(self.modules().join(file)).with_context(|| format!("reading {file}"))
        };
        let (dependencies, builtin) = (list("modules.dep")?, list("modules.builtin")?);
        let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
        let files: HashMap<String, (&str, &str)> = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (module_name(file), (file, needs)))
            .collect();
        let mut closure = BTreeSet::new();
        for name in names.iter().chain(optional) {
            match files.get(&module_name(name)) {
                Some((file, needs)) => {
                    closure.insert((*file).to_owned());
                    closure.extend(needs.split_whitespace().map(ToOwned::to_owned));
                }
                None if builtin.contains(&module_name(name)) || optional.contains(name) => {}
                None => bail!("the kernel {} has no module {name}", self.release),
            }
        }
        Ok(closure)
    }
}

/// Indexes the modules below `root`, with the guest's own tool.
pub(super) fn depmod(tools: &Path, root: &Path, release: &str) -> Result<()> {
    run(foreign(tools, "bin/kmod", "depmod").arg("-b").arg(root).arg(OsString::from(release))).map(drop)
}

/// The ELF image within a bzImage, if it is packed in one of the ways Debian does (Linux, `Documentation/arch/x86/boot.rst`).
fn unpacked(tools: &Path, image: &[u8]) -> Result<Option<Vec<u8>>> {
    /// Offsets in the header: how many sectors of 512 bytes follow the first one before the kernel proper; where in
    /// that the packed image starts, and its length.
    const SETUP_SECTORS: usize = 0x1f1;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    let field = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    let payload = || {
        let start = (usize::from(*image.get(SETUP_SECTORS)?) + 1) * 512 + field(PAYLOAD_OFFSET)?;
        // Its last four bytes are its length when unpacked.
        image.get(start..)?.get(..field(PAYLOAD_LENGTH)?.checked_sub(4)?)
    };
    let payload = payload().ok_or_else(|| anyhow!("the kernel's image is no bzImage"))?;
    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return Ok(None),
    };
    let mut tool = foreign(tools, &format!("usr/bin/{tool}"), tool);
    tool.args(["--decompress", "--stdout"]);
    let packed = tempfile::tempfile().and_then(|mut file| {
        std::io::Write::write_all(&mut file, payload)?;
        std::io::Seek::rewind(&mut file)?;
        Ok(file)
    });
    let output =
        tool.stdin(packed?).stderr(Stdio::inherit()).output().context("unpacking the kernel's image")?;
    Ok(Some(output.stdout).filter(|elf| output.status.success() && elf.starts_with(b"\x7fELF")))
}

/// The module's name, of the name or path of its file: `a/snd-hda-intel.ko.xz` is `snd_hda_intel`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_brings_what_it_needs_and_an_unknown_one_is_an_error() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let kernel = Kernel { root: folder.path().to_owned(), release: "1".to_owned() };
        fs::create_dir_all(kernel.modules())?;
        fs::write(
            kernel.modules().join("modules.dep"),
            "k/snd-a.ko: k/core.ko.xz\nk/core.ko.xz:\nk/other.ko:\n",
        )?;
        fs::write(kernel.modules().join("modules.builtin"), "kernel/drivers/tty/serial-core.ko\n")?;

        let files = kernel.closure(&["snd_a", "serial_core"], &["absent"])?;
        assert_eq!(files.iter().collect::<Vec<_>>(), ["k/core.ko.xz", "k/snd-a.ko"]);
        assert!(kernel.closure(&["absent"], &[]).is_err());
        Ok(())
    }
}
