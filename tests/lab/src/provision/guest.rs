//! What a guest boots into: programs, modules and the agent, in one initramfs.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Archive;
use super::cpio::Cpio;
use super::kernel::{Kernel, depmod};
use super::testusb::testusb;
use super::{Cache, key, run, walk};

/// The Debian release of the guest's programs and of its kernel.
pub(super) const RELEASE: &str = "bookworm";

/// The programs, with the libraries they depend on; the last two unpack kernels, here. `dash` is the shell because that of busybox prefers busybox's own
/// applets to real programs of the same name.
const PACKAGES: [&str; 10] = [
    "busybox-static",
    "dash",
    "kmod",
    "alsa-utils",
    "usbutils",
    "dosfstools",
    "evtest",
    "iproute2",
    "xz-utils",
    "zstd",
];

/// Parts of those packages that no guest needs.
const LEFT_OUT: [&str; 10] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/sounds",
    "usr/share/initramfs-tools",
    "usr/share/debianutils",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/systemd",
];

/// Modules that every guest loads when it starts: those of the devices Farbus presents and of what hangs on them.
/// No udev runs in the guest, so what may be plugged in later is loaded beforehand.
pub const DEFAULT_MODULES: [&str; 9] = [
    "xhci_pci",
    "usbhid",
    "hid_generic",
    "usb_storage",
    "uas",
    "sd_mod",
    "evdev",
    "snd_hda_codec_generic",
    "snd_hda_intel",
];

/// Modules that are there to be loaded by whoever wants them.
const AT_HAND: [&str; 38] = [
    // File systems for lent disks.
    "ext4",
    "crc32c_generic",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    // What may be lent, and the driver that tests controllers.
    "usbtest",
    "cdc_acm",
    "cdc_ncm",
    "snd_usb_audio",
    "snd_pcm_oss",
    "snd_aloop",
    "usbmon",
    // What a desk is made of: a network that can be spoilt, a disk of ours, controllers for QEMU's USB devices.
    "virtio_net",
    "e1000e",
    "sch_netem",
    "sch_ingress",
    "cls_matchall",
    "act_mirred",
    "ifb",
    "virtio_blk",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
    // USB devices made of software, by the kernel's gadget framework and by USB over IP.
    "dummy_hcd",
    "libcomposite",
    "usb_f_ss_lb",
    "usb_f_mass_storage",
    "usb_f_hid",
    "usb_f_acm",
    "usb_f_serial",
    "usb_f_ncm",
    "usb_f_fs",
    "usbip_core",
    "usbip_host",
    "usbip_vudc",
    "vhci_hcd",
];

/// Modules that lead to the agent's port.
const AGENT_MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];

const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
const SETUP: &str = include_str!("../../guest/setup");
const INITTAB: &str = include_str!("../../guest/inittab");

/// Where the guest's programs are unpacked.
pub(super) fn root(cache: &Cache) -> Result<PathBuf> {
    let name = format!("guest-{}", key([RELEASE].into_iter().chain(PACKAGES)));
    cache.tree(&name, "the guest's programs", |root| {
        Archive::open(cache, RELEASE)?.unpack(RELEASE, &PACKAGES, root)
    })
}

/// The first and only root file system of a guest.
#[derive(Clone, Debug)]
pub struct Initramfs {
    path: PathBuf,
}

impl Initramfs {
    /// The initramfs for a kernel, with `modules` beside [`DEFAULT_MODULES`].
    ///
    /// # Errors
    /// If the kernel has no such module, or the guest's programs cannot be fetched.
    pub fn build(cache: &Cache, kernel: &Kernel, modules: &[&str]) -> Result<Self> {
        let guest = root(cache)?;
        let testusb = testusb(cache, &guest)?;
        // Kernels for special purposes do without some of what a guest usually has, unless it is asked for.
        let usual: Vec<&str> = DEFAULT_MODULES.into_iter().chain(AT_HAND).collect();
        let mut wanted: Vec<&str> = AGENT_MODULES.into_iter().chain(modules.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        kernel.closure(&wanted, &[])?;
        // What is there in any case makes no initramfs of its own.
        wanted.retain(|name| !usual.contains(name));
        let parts = [SETUP, INITTAB].map(str::as_bytes).into_iter().chain([AGENT]);
        let trees = [&guest, &kernel.root, &testusb].map(|tree| tree.as_os_str().as_encoded_bytes());
        let name = format!(
            "initramfs-{}",
            key(usual.iter().chain(&wanted).map(|name| name.as_bytes()).chain(parts).chain(trees))
        );
        let tree = cache.tree(&name, &format!("an initramfs for {}", kernel.release()), |tree| {
            let modules = indexed_modules(&guest, kernel, (&wanted, &usual), &tree.join("staged"))?;
            write(&guest, &modules, &testusb, &tree.join("initramfs"))?;
            fs::remove_dir_all(tree.join("staged")).context("removing the staged modules")
        })?;
        Ok(Self { path: tree.join("initramfs") })
    }

    /// What QEMU's `-initrd` takes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a folder with the wanted modules alone, and an index of exactly those.
fn indexed_modules(
    guest: &Path,
    kernel: &Kernel,
    (wanted, usual): (&[&str], &[&str]),
    stage: &Path,
) -> Result<PathBuf> {
    let from = kernel.modules();
    let to = stage.join("lib/modules").join(kernel.release());
    let lists = ["modules.order", "modules.builtin", "modules.builtin.modinfo"].map(str::to_owned);
    for file in kernel.closure(wanted, usual)?.into_iter().chain(lists) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap_or(&to))?;
        fs::copy(from.join(&file), target).with_context(|| format!("copying {file}"))?;
    }
    depmod(guest, stage, kernel.release())?;
    Ok(stage.to_owned())
}

fn write(guest: &Path, modules: &Path, testusb: &Path, target: &Path) -> Result<()> {
    let mut cpio = Cpio::new(BufWriter::new(File::create(target)?));
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "mnt", "etc", "var"] {
        cpio.folder(folder)?;
    }
    cpio.character_device("dev/console", 5, 1)?;
    let left_out =
        |path: &Path| LEFT_OUT.iter().any(|out| path.starts_with(out)) || path.starts_with(".manifest");
    copy(&mut cpio, guest, left_out)?;
    copy(&mut cpio, modules, |path| path == Path::new("lib"))?;

    let present = |name: &str| {
        ["bin", "sbin"]
            .iter()
            .any(|folder| guest.join("usr").join(folder).join(name).symlink_metadata().is_ok())
    };
    let applets = run(Command::new(guest.join("usr/bin/busybox")).arg("--list"))?;
    for applet in applets.lines().filter(|name| !present(name) && *name != "sh") {
        cpio.link(&format!("usr/bin/{applet}"), "busybox")?;
    }
    if !present("sh") {
        cpio.link("usr/bin/sh", "dash")?;
    }
    cpio.link("init", "usr/bin/busybox")?;
    cpio.file("usr/bin/testusb", true, &fs::read(testusb)?)?;
    cpio.file("lab/agent", true, AGENT)?;
    cpio.file("lab/setup", true, SETUP.as_bytes())?;
    cpio.file("etc/inittab", false, INITTAB.as_bytes())?;
    cpio.file("etc/passwd", false, b"root::0:0:root:/root:/bin/sh\n")?;
    cpio.file("etc/group", false, b"root:x:0:\naudio:x:29:\n")?;
    cpio.finish()?;
    Ok(())
}

/// Copies a tree. `lib` of the modules' tree is a folder there and a link into `/usr` in the guest.
fn copy(cpio: &mut Cpio<BufWriter<File>>, from: &Path, left_out: impl Fn(&Path) -> bool) -> Result<()> {
    for path in walk(from)? {
        if left_out(&path) {
            continue;
        }
        let file = from.join(&path);
        let kind = fs::symlink_metadata(&file)?;
        let mut name = path.to_string_lossy().into_owned();
        if !kind.is_symlink() && name.starts_with("lib/") {
            name.insert_str(0, "usr/");
        }
        if kind.is_dir() {
            cpio.folder(&name)?;
        } else if kind.is_symlink() {
            cpio.link(&name, &fs::read_link(&file)?.to_string_lossy())?;
        } else {
            use std::os::unix::fs::PermissionsExt as _;
            let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            cpio.file(&name, kind.permissions().mode() & 0o111 != 0, &content)?;
        }
    }
    Ok(())
}
