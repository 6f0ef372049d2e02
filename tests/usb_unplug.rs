//! Disks that are pulled out while a guest reads them, from controllers that end what they cancel.

mod at_desk;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use at_desk::{Guest, ID, IDS, PATIENCE, bound, random_file, sha256};
use lab::{
    Lab,
    desk::{Desk, Function, Speed},
    farbus::Host,
};
use serde_json::{Value, json};

/// Reads a disk until that fails.
const READ_ON: &str = "dd if=/dev/sda of=/dev/null bs=1M count=1 iflag=direct; echo BUSY
    while dd if=/dev/sda of=/dev/null bs=1M iflag=direct; do :; done";

fn uas_disk() -> Value {
    json!({ "driver": "scsi-hd", "id": "disk", "bus": "uas.0", "drive": "stick" })
}

/// A desk whose own kernel leaves disks alone. QEMU's UAS device does not survive that a driver is taken from it while it
/// looks for the disk: it loses a command of the next driver, or ends QEMU by an assertion in `hw/usb/core.c`. That a
/// driver of the desk gives way is shown with a gadget.
async fn desk_with_uas_bus(lab: &Lab, image: &Path) -> Result<Desk> {
    let medium = format!("driver=file,node-name=stick,cache.no-flush=on,filename={}", image.display());
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(["-blockdev", &medium]).boot().await?;
    desk.command("rmmod uas usb_storage").run().await?.success()?;
    Ok(desk)
}

/// Plugs in a UAS device of QEMU's with its disk, which is found when both are there.
async fn plug_uas(desk: &Desk) -> Result<()> {
    desk.qmp("device_add", json!({ "driver": "usb-uas", "id": "uas", "bus": "xhci.0" })).await?;
    desk.qmp("device_add", uas_disk()).await?;
    let attached = json!({ "path": "/machine/peripheral/uas", "property": "attached", "value": true });
    desk.qmp("qom-set", attached).await.map(drop)
}

#[tokio::test]
async fn a_gadget_disk_pulled_in_the_middle_of_a_read_is_gone_and_reads_right_when_it_is_back() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, 32 << 20)?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).disk(&image).boot().await?;
    let disk = Function::MassStorage { file: "/dev/vda".to_owned(), read_only: false };
    let disk = desk.gadget("disk").ids(IDS.0, IDS.1).speed(Speed::High).function(disk).plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &[]).await?;
    for _ in 0..3 {
        guest.has("[ -b /dev/sda ]").await?;
        let mut reader = guest.spawn(READ_ON).await?;
        reader.expect("BUSY", PATIENCE).await?;
        disk.unplug().await?;
        reader.wait(PATIENCE).await.context("something hangs in the guest")?;
        guest.has("[ ! -b /dev/sda ]").await?;
        disk.plug().await?;
    }
    guest.has("[ -b /dev/sda ]").await?;
    let sum = guest.run("sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "the guest reads something else: {sum}");
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_uas_disk_pulled_in_the_middle_of_a_read_is_gone_and_reads_right_when_it_is_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, 32 << 20)?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = desk_with_uas_bus(&lab, &image).await?;
    plug_uas(&desk).await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    for _ in 0..5 {
        guest.has("[ -b /dev/sda ]").await?;
        guest.run(&bound("uas", 1)).await?;
        let mut reader = guest.spawn(READ_ON).await?;
        reader.expect("BUSY", PATIENCE).await?;
        desk.qmp("device_del", json!({ "id": "uas" })).await?;
        reader.wait(PATIENCE).await.context("something hangs in the guest")?;
        guest.has(&format!("[ ! -b /dev/sda ] && {}", bound("uas", 0))).await?;
        plug_uas(&desk).await?;
    }
    guest.has("[ -b /dev/sda ]").await?;
    let sum = guest.run("sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "the guest reads something else: {sum}");
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_uas_box_whose_disk_is_pulled_out_of_it_in_the_middle_of_a_read_takes_it_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, 32 << 20)?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = desk_with_uas_bus(&lab, &image).await?;
    plug_uas(&desk).await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    // What is under way is never answered, and the guest's driver takes it back when time is up.
    guest.run("echo 2 > /sys/block/sda/device/timeout").await?;
    let mut reader = guest.spawn(READ_ON).await?;
    reader.expect("BUSY", PATIENCE).await?;
    desk.qmp("device_del", json!({ "id": "disk" })).await?;
    reader.wait(PATIENCE).await.context("something hangs in the guest")?;
    desk.qmp("device_add", uas_disk()).await?;
    guest.run("echo 1 > /sys/block/sda/device/delete").await?;
    guest
        .has("for scan in /sys/class/scsi_host/host*/scan; do echo - - - > $scan; done; [ -b /dev/sda ]")
        .await?;
    let sum = guest.run("sha256sum /dev/sda").await?;
    ensure!(sum.starts_with(&sha256(&image)?), "the guest reads something else: {sum}");
    guest.kernel_does_not_complain().await
}
