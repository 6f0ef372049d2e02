//! Devices that come, go and are taken away while a guest uses them.

mod at_desk;

use anyhow::{Context as _, Result, ensure};
use at_desk::{Guest, ID, IDS, PATIENCE};
use lab::{
    Lab,
    desk::{Function, Speed},
    farbus::Host,
};

/// How often a device is plugged in and out while another works.
const STORM: usize = 500;
/// How often the guest's driver lets go of the controller and takes it again.
const REBINDS: usize = 50;
const REBOOTS: usize = 5;

/// A desk with a disk of QEMU's.
const DISK: [&str; 4] = [
    "-blockdev",
    "driver=null-co,node-name=stick,size=67108864,read-zeroes=on",
    "-device",
    "usb-storage,id=disk,bus=xhci.0,drive=stick",
];

/// Threads, open files and resident MiB of a process of this computer.
fn held(process: u32) -> Result<(usize, usize, u64)> {
    let count = |what: &str| anyhow::Ok(std::fs::read_dir(format!("/proc/{process}/{what}"))?.count());
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = statm.split_whitespace().nth(1).context("no resident size")?.parse()?;
    anyhow::Ok((count("task")?, count("fd")?, pages >> 8))
}

#[tokio::test]
async fn five_hundred_plugs_and_unplugs_disturb_no_disk_that_works_meanwhile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(DISK).boot().await?;
    let other = desk.gadget("other").ids(IDS.0, IDS.1).speed(Speed::High);
    let other = other.function(Function::SourceSink).make().await?;
    let lent = ["--usb", "class=storage", "--usb", ID];
    let guest = Guest::start(&lab, &mut host, &desk, &lent, &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    // What the busiest moments need is there before the storm.
    guest.run("cmp -n 33554432 /dev/sda /dev/zero").await?;
    let before = held(host.workers["vm"])?;

    // The disk reads all the time, and every sector is what it was: zero.
    let mut reader = guest
        .spawn(
            "until [ -e /tmp/enough ]; do
                 cmp -n 16777216 /dev/sda /dev/zero || exit 1
                 echo 1 > /proc/sys/vm/drop_caches
             done",
        )
        .await?;
    // As fast as the desk's kernel can: neither side waits for the other to notice.
    let storm = format!(
        "n=0; while [ $n -lt {STORM} ]; do
             echo dummy_udc.0 > {udc} && echo > {udc} || exit 1
             n=$((n+1))
         done",
        udc = "/sys/kernel/config/usb_gadget/other/UDC"
    );
    desk.command(&storm).timeout(PATIENCE * 3).run().await?.success().context("the storm")?;
    other.plug().await?;
    guest.has("lsusb -d 1209:fab0").await.context("after the storm the device is not there")?;
    guest.run("touch /tmp/enough").await?;
    let read = reader.wait(PATIENCE).await?;
    ensure!(read.status == 0, "the disk was disturbed: {read:?}");

    let after = held(host.workers["vm"])?;
    ensure!(after.0 <= before.0 && after.1 <= before.1, "threads or files were left: {before:?}, {after:?}");
    ensure!(after.2 <= before.2 + 16, "memory was left: {before:?}, {after:?}");
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_device_unplugged_in_the_middle_of_a_transfer_is_gone_and_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").qemu_args(DISK).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    for _ in 0..3 {
        guest.has("[ -b /dev/sda ]").await?;
        let mut reader = guest
            .spawn("dd if=/dev/sda of=/dev/null bs=1M count=1 iflag=direct; echo BUSY; exec dd if=/dev/sda of=/dev/null bs=1M iflag=direct")
            .await?;
        reader.expect("BUSY", PATIENCE).await?;
        desk.qmp("device_del", serde_json::json!({ "id": "disk" })).await?;
        ensure!(reader.wait(PATIENCE).await?.status != 0, "a disk that is gone was read to its end");
        guest.has("[ ! -b /dev/sda ]").await.context("the guest does not see that it is gone")?;
        let again =
            serde_json::json!({ "driver": "usb-storage", "id": "disk", "bus": "xhci.0", "drive": "stick" });
        desk.qmp("device_add", again).await?;
    }
    guest.has("[ -b /dev/sda ]").await?;
    guest.run("dd if=/dev/sda of=/dev/null bs=1M iflag=direct").await?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_killed_remotes_devices_go_back_to_the_desks_own_drivers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").qemu_args(DISK).boot().await?;
    desk.run("until [ -b /dev/sda ]; do usleep 20000; done").await?.success()?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    desk.run("[ ! -b /dev/sda ]").await?.success().context("both have it")?;

    // Not the process that gives devices back when this one cannot.
    let kill = "kill -9 $(ps | awk '/farbus-remote.* connec[t]/ { print $1 }')";
    desk.run(kill).await?.success()?;
    guest.has("[ ! -b /dev/sda ]").await?;
    let back = desk
        .command("until [ -b /dev/sda ]; do usleep 20000; done; dd if=/dev/sda of=/dev/null bs=1M count=1");
    back.timeout(PATIENCE).run().await?.success().context("the desk's own driver does not have it back")?;

    // The same when it ends in good order.
    guest.remote = desk.remote(&host, "remote", "vm", &["--usb", "class=storage"]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    guest.remote.stop().await?;
    let back = desk.command("until [ -b /dev/sda ]; do usleep 20000; done");
    back.timeout(PATIENCE).run().await?.success().context("it was not given back")?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn fifty_times_the_guests_driver_lets_go_of_the_controller_and_finds_its_devices_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(DISK).boot().await?;
    let zero = desk.gadget("zero").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::SourceSink);
    let _zero = zero.plug().await?;
    let lent = ["--usb", "class=storage", "--usb", ID];
    let guest = Guest::start(&lab, &mut host, &desk, &lent, &[]).await?;
    let rebind = format!(
        "cd /sys/bus/pci/drivers/xhci_hcd; function=$(ls -d 0000:* | head -1)
         n=0; while [ $n -lt {REBINDS} ]; do
             until [ -b /dev/sda ] && lsusb -d {ID} > /dev/null; do usleep 20000; done
             echo $function > unbind; echo $function > bind || exit 1
             n=$((n+1))
         done
         until [ -b /dev/sda ] && lsusb -d {ID} > /dev/null; do usleep 20000; done
         dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct"
    );
    guest.vm.command(&rebind).timeout(PATIENCE * 4).run().await?.success()?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn five_times_the_guest_reboots_and_finds_its_devices_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").qemu_args(DISK).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    for _ in 0..REBOOTS {
        guest.has("[ -b /dev/sda ]").await?;
        guest.run("dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct").await?;
        guest.kernel_is_content().await?;
        guest.vm.reset().await?;
    }
    guest.has("[ -b /dev/sda ]").await
}
