//! Disks lent from a desk: what is read is what is there, and what is written stays.

mod at_desk;

use std::path::Path;

use anyhow::{Result, ensure};
use at_desk::{Guest, ID, IDS, sha256};
use lab::{
    Lab,
    desk::{Function, Speed},
    farbus::Host,
};

const MIB: usize = 1 << 20;
/// The known image.
const IMAGE: usize = 64 * MIB;

/// A file with bytes that do not repeat.
fn known(path: &Path) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    Ok(std::fs::write(path, words.take(IMAGE / 8).flatten().collect::<Vec<u8>>())?)
}

/// A kind of disk at the desk.
struct Case {
    name: &'static str,
    kind: Kind,
    /// What `--usb` takes.
    selector: &'static str,
    /// The guest's driver.
    driver: &'static str,
}

enum Kind {
    /// QEMU's device, by its arguments.
    Qemu(&'static [&'static str]),
    /// A mass-storage gadget.
    Gadget(Speed),
}

/// Reads the known image of a disk, then writes a file system on another, and finds what it wrote after a remount.
async fn reads_and_writes(case: Case) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    known(&image)?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", image.display());
    let desk = lab.desk("desk");
    let desk = match case.kind {
        Kind::Qemu(devices) => desk.qemu_args(["-drive", &drive]).qemu_args(devices.iter().copied()),
        Kind::Gadget(speed) => desk.disk(&image).super_speed(speed == Speed::Super),
    };
    let desk = desk.boot().await?;
    let mut gadget = None;
    if let Kind::Gadget(speed) = case.kind {
        let disk = Function::MassStorage { file: "/dev/vda".to_owned(), read_only: false };
        let built = desk.gadget("disk").ids(IDS.0, IDS.1).speed(speed).function(disk);
        gadget = Some(built.plug().await?);
    }
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", case.selector], &["vfat"]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    let tree = guest.run("lsusb -t").await?;
    ensure!(
        tree.contains(&format!("Driver={}", case.driver)),
        "{}: the driver is another:\n{tree}",
        case.name
    );
    let sum = guest.run("sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "{}: the guest read something else: {sum}", case.name);
    let kept = guest
        .run(
            "set -e
             mkfs.vfat /dev/sda > /dev/null; mount /dev/sda /mnt
             head -c 9000000 /dev/urandom > /mnt/file; sha256sum < /mnt/file
             umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount /dev/sda /mnt
             sha256sum < /mnt/file; umount /mnt",
        )
        .await?;
    let (before, after) = kept.split_once('\n').unwrap_or_default();
    ensure!(before == after.trim_end() && !before.is_empty(), "{}: a file changed: {kept}", case.name);
    let sum = guest.run("sync; sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "{}: the desk's disk holds something else", case.name);
    drop(gadget);
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_disk_reads_back_by_usb_storage_at_super_speed() -> Result<()> {
    let device = &["-device", "usb-storage,bus=xhci.0,drive=stick"];
    let kind = Kind::Qemu(device);
    reads_and_writes(Case { name: "usb-storage", kind, selector: "class=storage", driver: "usb-storage" })
        .await
}

#[tokio::test]
async fn a_mass_storage_gadget_reads_back_at_high_speed() -> Result<()> {
    let kind = Kind::Gadget(Speed::High);
    reads_and_writes(Case { name: "gadget", kind, selector: ID, driver: "usb-storage" }).await
}

#[tokio::test]
async fn a_mass_storage_gadget_reads_back_at_super_speed() -> Result<()> {
    let kind = Kind::Gadget(Speed::Super);
    reads_and_writes(Case { name: "gadget", kind, selector: ID, driver: "usb-storage" }).await
}

#[tokio::test]
async fn a_disk_reads_back_by_uas_with_streams() -> Result<()> {
    let kind =
        Kind::Qemu(&["-device", "usb-uas,id=uas,bus=xhci.0", "-device", "scsi-hd,bus=uas.0,drive=stick"]);
    reads_and_writes(Case { name: "uas", kind, selector: "class=storage", driver: "uas" }).await
}
