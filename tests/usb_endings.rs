//! Devices that come, go and are taken away while a guest uses them.

mod at_desk;

use anyhow::{Context as _, Result, ensure};
use at_desk::{Guest, ID, IDS, PATIENCE, impatient_host};
use lab::{
    Lab,
    desk::{Desk, Function, Speed},
    farbus::Host,
};

/// How often a device is lent and returned while another works, in how many storms, and how often it is plugged in and
/// out beside. A storm takes at least the 2 s after which Linux gives up a port that is not stable.
const STORM: usize = 500;
const STORMS: usize = 10;
const RATTLES: usize = 100;
/// How often the guest's driver lets go of the controller and takes it again.
const REBINDS: usize = 50;
const REBOOTS: usize = 5;

/// Prints the id of the remote in the desk: not of the process that gives devices back when it cannot.
const REMOTE: &str = "ps | awk '/farbus-remote.* connec[t]/ { print $1 }'";
/// Where the gadget of the storm is plugged in.
const UDC: &str = "/sys/kernel/config/usb_gadget/other/UDC";

/// A desk with a disk of QEMU's.
const DISK: [&str; 4] = [
    "-blockdev",
    "driver=null-co,node-name=stick,size=67108864,read-zeroes=on",
    "-device",
    "usb-storage,id=disk,bus=xhci.0,drive=stick",
];

/// What a process holds: threads, open files, resident MiB.
#[derive(Debug, Clone, Copy)]
struct Held([u64; 3]);

/// Prints it, of the process `$id`.
const HELD: &str = "ls /proc/$id/task | wc -l; ls /proc/$id/fd | wc -l
    awk '/VmRSS/ { print int($2 / 1024) }' /proc/$id/status";
/// Allocators keep some of what is free.
const SLACK_MIB: u64 = 16;

impl Held {
    /// By the worker of this computer.
    fn by_worker(host: &Host) -> Result<Self> {
        let script = format!("id={}; {HELD}", host.workers["vm"]);
        let said = std::process::Command::new("sh").args(["-c", &script]).output()?;
        Self::parse(&String::from_utf8(said.stdout)?)
    }

    /// By the remote in the desk.
    async fn by_remote(desk: &Desk) -> Result<Self> {
        Self::parse(&desk.run(&format!("id=$({REMOTE}); {HELD}")).await?.success()?.stdout)
    }

    fn parse(said: &str) -> Result<Self> {
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        Ok(Self(numbers.try_into().ok().with_context(|| format!("not three numbers: {said:?}"))?))
    }

    /// Fails if something was left since then.
    fn is_no_more_than(self, before: Self) -> Result<()> {
        let (Self([threads, files, mib]), Self([threads_before, files_before, mib_before])) = (self, before);
        let none = threads <= threads_before && files <= files_before && mib <= mib_before + SLACK_MIB;
        ensure!(none, "threads, files or memory were left: {before:?} became {self:?}");
        Ok(())
    }
}

#[tokio::test]
async fn five_hundred_attaches_and_detaches_disturb_no_disk_that_works_meanwhile() -> Result<()> {
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
    other.plug().await?;
    guest.has(&format!("lsusb -d {ID}")).await?;
    let before = (Held::by_worker(&host)?, Held::by_remote(&desk).await?);

    // The disk reads all the time, and every sector is what it was: zero.
    let mut reader = guest
        .spawn(
            "until [ -e /tmp/enough ]; do
                 cmp -n 16777216 /dev/sda /dev/zero || exit 1
                 echo 1 > /proc/sys/vm/drop_caches
             done",
        )
        .await?;
    // As fast as can be: neither side waits for the other to notice.
    let rattle = format!("echo > {UDC} && echo dummy_udc.0 > {UDC}");
    desk.command(&repeat(RATTLES, &rattle)).timeout(PATIENCE).run().await?.success().context("the rattle")?;
    desk.run(&format!("until farbus-remote status | grep -q {ID}; do usleep 20000; done"))
        .await?
        .success()?;
    let storm = format!("farbus-remote return {ID} && farbus-remote lend {ID}");
    let storm = repeat(STORM / STORMS, &storm);
    let storm = format!("end=$(($(date +%s) + 3)); until {storm}; [ $(date +%s) -ge $end ]; do :; done");
    for number in 1..=STORMS {
        desk.command(&storm).timeout(PATIENCE).run().await?.success().context("a storm")?;
        let there = guest.has(&format!("lsusb -d {ID}")).await;
        there.with_context(|| format!("after storm {number} the device is not there"))?;
    }
    let attached = host.program.seen("attached").len();
    ensure!(attached >= STORM, "it was attached only {attached} times");
    guest.run("touch /tmp/enough").await?;
    let read = reader.wait(PATIENCE).await?;
    ensure!(read.status == 0, "the disk was disturbed: {read:?}");

    Held::by_worker(&host)?.is_no_more_than(before.0).context("at the host")?;
    Held::by_remote(&desk).await?.is_no_more_than(before.1).context("at the desk")?;
    guest.kernel_is_content().await
}

/// A script that does something so often, and fails when that does.
fn repeat(times: usize, what: &str) -> String {
    format!("n=0; while [ $n -lt {times} ]; do {{ {what}; }} > /dev/null || exit 1; n=$((n+1)); done")
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
    // Its driver tries to reset a disk that does not answer, before it hears that it is gone.
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_killed_remotes_devices_go_back_to_the_desks_own_drivers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = impatient_host(folder.path()).await?;
    let desk = lab.desk("desk").qemu_args(DISK).boot().await?;
    desk.run("until [ -b /dev/sda ]; do usleep 20000; done").await?.success()?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    desk.run("[ ! -b /dev/sda ]").await?.success().context("both have it")?;

    desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
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
    guest.has(&format!("[ -b /dev/sda ] && lsusb -d {ID}")).await?;
    let before = (Held::by_worker(&host)?, Held::by_remote(&desk).await?);
    guest.vm.command(&rebind).timeout(PATIENCE * 4).run().await?.success()?;
    Held::by_worker(&host)?.is_no_more_than(before.0).context("at the host")?;
    Held::by_remote(&desk).await?.is_no_more_than(before.1).context("at the desk")?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn five_times_the_guest_reboots_and_finds_its_devices_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").qemu_args(DISK).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    guest.run("dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct").await?;
    let before = (Held::by_worker(&host)?, Held::by_remote(&desk).await?);
    for _ in 0..REBOOTS {
        guest.has("[ -b /dev/sda ]").await?;
        guest.run("dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct").await?;
        guest.kernel_is_content().await?;
        guest.vm.reboot().await?;
    }
    guest.has("[ -b /dev/sda ]").await?;
    guest.run("dd if=/dev/sda of=/dev/null bs=1M count=8 iflag=direct").await?;
    Held::by_worker(&host)?.is_no_more_than(before.0).context("at the host")?;
    Held::by_remote(&desk).await?.is_no_more_than(before.1).context("at the desk")?;
    guest.kernel_is_content().await
}
