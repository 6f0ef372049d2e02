//! What is lent, when, and to whom it belongs afterwards.

mod at_desk;

use anyhow::{Context as _, Result, ensure};
use at_desk::{
    Guest, ID, IDS, PATIENCE, bound, desk_has, impatient_host, listen, random_file, sha256, types,
};
use lab::{
    Lab,
    desk::{Desk, Function, Speed},
    farbus::Host,
};
use serde_json::{Value, json};

/// A disk of QEMU's, its medium apart.
const MEDIUM: [&str; 2] = ["-blockdev", "driver=null-co,node-name=stick,size=67108864,read-zeroes=on"];
const STICK: [&str; 2] = ["-device", "usb-storage,id=disk,bus=xhci.0,drive=stick"];
const STICK_ID: &str = "46f4:0001";
/// What the user of the desk types and points with; they have the same id.
const INPUT: [&str; 4] = ["-device", "usb-kbd,bus=xhci.0", "-device", "usb-tablet,bus=xhci.0"];
const INPUT_ID: &str = "0627:0001";

/// Where a guest begins to write once, where it goes on to write, and where a disk ends, MiB.
const KEPT: u64 = 16;
const WRITTEN: u64 = 17;
const DISK: u64 = 32;

/// Reads a disk that is there.
const READS: &str = "dd if=/dev/sda of=/dev/null bs=1M count=4 iflag=direct 2> /dev/null";

/// Prints the id of the remote in the desk: not of the process that gives devices back when it cannot.
const REMOTE: &str = "ps | awk '/farbus-remote.* connec[t]/ { print $1 }'";

/// What `farbus-remote status --json` says at the desk.
async fn status(desk: &Desk) -> Result<Value> {
    let said = desk.run("farbus-remote status --json").await?.success()?.stdout;
    let said: Value = serde_json::from_str(&said)?;
    said.get("status").cloned().with_context(|| format!("no status: {said}"))
}

/// The ids of all that is lent.
async fn lent(desk: &Desk) -> Result<Vec<String>> {
    let status = status(desk).await?;
    let rows = status["lent"].as_array().context("no list")?;
    Ok(rows.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned).collect())
}

/// What is said of the lent device with this id.
async fn row(desk: &Desk, id: &str) -> Result<Value> {
    let status = status(desk).await?;
    let rows = status["lent"].as_array().context("no list")?;
    rows.iter().find(|row| row["id"] == id).cloned().with_context(|| format!("no {id} in {status}"))
}

#[tokio::test]
async fn what_is_lent_meanwhile_goes_to_the_guest_and_what_is_returned_is_the_desks_own_again() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(MEDIUM).qemu_args(STICK).boot().await?;
    let keys = desk.gadget("keys").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::Keyboard);
    let keys = keys.plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &[], &[]).await?;
    let devices = [(STICK_ID, "usb-storage", "super"), (ID, "usbhid", "high")];
    for (id, driver, speed) in devices {
        desk_has(&desk, &bound(driver, 1)).await?;
        guest.run(&bound(driver, 0)).await?;
        desk.run(&format!("farbus-remote lend {id}")).await?.success()?;
        guest.has(&bound(driver, 1)).await?;
        desk.run(&bound(driver, 0)).await?.success().with_context(|| format!("both have {id}"))?;
        let row = row(&desk, id).await?;
        let known = row["device"].is_u64() && row["bus_port"].is_string() && row["speed"] == speed;
        ensure!(known, "{id}, of {speed} speed, is {row}");
    }

    guest.has("[ -b /dev/sda ]").await?;
    let before = row(&desk, STICK_ID).await?;
    guest.run("dd if=/dev/sda of=/dev/null bs=1M count=4 iflag=direct").await?;
    guest.run("dd if=/dev/zero of=/dev/sda bs=1M count=2 oflag=direct").await?;
    let after = row(&desk, STICK_ID).await?;
    for (field, least) in [("requests", 6), ("bytes_in", 4 << 20), ("bytes_out", 2 << 20)] {
        let grown = after[field].as_u64().zip(before[field].as_u64()).map(|(after, before)| after - before);
        ensure!(grown >= Some(least), "{field} grew by {grown:?}: {before} became {after}");
    }

    // By its number, and by its name.
    let number = after["device"].to_string();
    for ((id, driver, _), what) in devices.into_iter().zip([number.as_str(), ID]) {
        desk.run(&format!("farbus-remote return {what}")).await?.success()?;
        guest.has(&format!("! lsusb -d {id} > /dev/null")).await?;
        desk_has(&desk, &bound(driver, 1)).await?;
    }
    ensure!(lent(&desk).await?.is_empty(), "something is still lent");
    desk_has(&desk, "[ -b /dev/sda ]").await?;
    desk.run("cmp -n 1048576 /dev/sda /dev/zero").await?.success()?;
    types(&keys, &mut listen(&desk, "Farbus lab gadget").await?, [0, 1]).await?;

    desk.run(&format!("farbus-remote lend {ID}")).await?.success()?;
    guest.has(&bound("usbhid", 1)).await.context("what was returned is not lent again")?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_wildcard_takes_the_disk_and_never_the_keyboard_and_the_tablet_in_front_of_the_user() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(MEDIUM).qemu_args(STICK).qemu_args(INPUT);
    let desk = desk.boot().await?;
    desk_has(&desk, &format!("[ -b /dev/sda ] && {}", bound("usbhid", 2))).await?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &[], &[]).await?;
    for wildcard in ["all", "all-but-hid"] {
        let said = desk.run(&format!("farbus-remote devices --json --usb {wildcard}")).await?.success()?;
        let said: Value = serde_json::from_str(&said.stdout)?;
        let verdicts = |id: &str| -> Vec<(bool, String)> {
            let rows = said["usb"].as_array().into_iter().flatten().filter(|row| row["id"] == id);
            rows.map(|row| (row["would_be_lent"] == true, row["reason"].to_string())).collect()
        };
        let (disk, input) = (verdicts(STICK_ID), verdicts(INPUT_ID));
        ensure!(matches!(&disk[..], [(true, _)]), "{wildcard}: the disk would stay: {disk:?}");
        let stay = input.iter().all(|(lent, why)| !lent && why.contains("in front of you"));
        ensure!(input.len() == 2 && stay, "{wildcard}: {input:?}");

        guest.remote.stop().await?;
        guest.remote = desk.remote(&host, "remote", "vm", &["--usb", wildcard]).await?;
        guest.has("[ -b /dev/sda ]").await?;
        let refused = "[ $(farbus-remote status | grep -c 'in front of you') = 2 ]";
        desk_has(&desk, refused).await.with_context(|| wildcard.to_owned())?;
        ensure!(lent(&desk).await? == [STICK_ID], "{wildcard}: {:?} is lent", lent(&desk).await?);
        guest.run(&bound("usbhid", 0)).await?;
        desk.run(&bound("usbhid", 2)).await?.success()?;
        guest.remote.stop().await?;
        guest.has("[ ! -b /dev/sda ]").await?;
    }

    guest.remote = desk.remote(&host, "remote", "vm", &["--usb", INPUT_ID]).await?;
    guest.has(&bound("usbhid", 2)).await?;
    desk.run(&bound("usbhid", 0)).await?.success()?;
    let mut listener = listen(&guest.vm, "USB Tablet").await?;
    let there = json!({ "type": "abs", "data": { "axis": "x", "value": 12345 } });
    desk.qmp("input-send-event", json!({ "events": [there] })).await?;
    listener.expect("(ABS_X), value 12345", PATIENCE).await?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn of_what_is_plugged_in_later_what_was_asked_for_is_lent_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(MEDIUM).boot().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    let other = desk.gadget("other").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::SourceSink);
    let _other = other.plug().await?;
    desk_has(&desk, &format!("farbus-remote status | grep -q '{ID}.*not asked for'")).await?;
    let stick = json!({ "driver": "usb-storage", "id": "disk", "bus": "xhci.0", "drive": "stick" });
    desk.qmp("device_add", stick).await?;
    guest.has("[ -b /dev/sda ]").await?;
    guest.run("cmp -n 1048576 /dev/sda /dev/zero").await?;
    ensure!(lent(&desk).await? == [STICK_ID], "{:?} is lent", lent(&desk).await?);
    guest.run(&format!("! lsusb -d {ID}")).await?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn a_remote_that_is_killed_amid_transfers_of_two_disks_leaves_the_desk_what_was_read_and_written()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let (first, second, mark) = (file("first"), file("second"), file("mark"));
    for (path, mib) in [(&first, DISK), (&second, DISK), (&mark, WRITTEN - KEPT)] {
        random_file(path, mib << 20)?;
    }
    let lab = Lab::open().await?;
    let mut host = impatient_host(folder.path()).await?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", first.display());
    let desk = lab.desk("desk").super_speed(false).disk(&second).qemu_args(["-drive", &drive]);
    let desk = desk.qemu_args(STICK).boot().await?;
    let disk = Function::MassStorage { file: "/dev/vda".to_owned(), read_only: false };
    let _disk = desk.gadget("disk").ids(IDS.0, IDS.1).speed(Speed::High).function(disk).plug().await?;
    let both = "[ -b /dev/sda ] && [ -b /dev/sdb ]";
    desk_has(&desk, both).await?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    guest.vm.put(std::fs::read(&mark)?, "/tmp/mark").await?;
    let work = format!(
        "for disk in sda sdb; do
             dd if=/tmp/mark of=/dev/$disk bs=1M seek={KEPT} oflag=direct || exit 1
             while dd if=/dev/$disk of=/dev/null bs=256k iflag=direct; do :; done > /dev/null 2>&1 &
             while [ -b /dev/$disk ] && dd if=/dev/zero of=/dev/$disk bs=256k seek={} count=32 oflag=direct; do :; done > /dev/null 2>&1 &
             until ! grep -q '^ *0 .* 0$' /sys/block/$disk/inflight; do :; done
         done
         echo BUSY; wait",
        WRITTEN * 4
    );
    let mut sums = Vec::new();
    for path in [&first, &second] {
        let whole = std::fs::read(path)?;
        let start = &whole[..(KEPT << 20) as usize];
        std::fs::write(file("expected"), [start, &std::fs::read(&mark)?].concat())?;
        sums.push(sha256(&file("expected"))?);
    }
    sums.sort();
    for round in 0..3 {
        guest.has(both).await?;
        desk.run("! ls /dev/sd?").await?.success().context("both have a disk")?;
        let mut running = guest.spawn(&work).await?;
        running.expect("BUSY", PATIENCE).await?;
        desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
        running.wait(PATIENCE).await.context("something hangs in the guest")?;
        guest.has("! ls /dev/sd? 2> /dev/null").await?;
        desk_has(&desk, both).await.context("the desk's own driver does not have both back")?;
        let sum =
            format!("for disk in sda sdb; do head -c {} /dev/$disk | sha256sum; done | sort", WRITTEN << 20);
        let said = desk.run(&sum).await?.success()?.stdout;
        let right = said.lines().zip(&sums).filter(|(line, sum)| line.starts_with(sum.as_str())).count();
        ensure!(right == 2, "round {round}: the desk reads something else: {said} is not {sums:?}");
        guest.remote = desk.remote(&host, "remote", "vm", &["--usb", "class=storage"]).await?;
    }
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_killed_remotes_disk_goes_to_a_driver_of_the_desk_that_came_after_it_was_lent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, 16 << 20)?;
    let lab = Lab::open().await?;
    let mut host = impatient_host(folder.path()).await?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", image.display());
    let desk = lab.desk("desk").gadget_ports(0).qemu_args(["-drive", &drive]).boot().await?;
    desk.run("modprobe -r uas usb_storage && ! ls /sys/bus/usb/drivers/usb-storage").await?.success()?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", "class=storage"], &[]).await?;
    let stick = json!({ "driver": "usb-storage", "id": "disk", "bus": "xhci.0", "drive": "stick" });
    desk.qmp("device_add", stick).await?;
    guest.has("[ -b /dev/sda ]").await?;
    let read = "echo BUSY; while dd if=/dev/sda of=/dev/null bs=1M iflag=direct; do :; done";
    let mut reader = guest.spawn(read).await?;
    reader.expect("BUSY", PATIENCE).await?;
    desk.run(&format!("modprobe usb_storage && {}", bound("usb-storage", 0))).await?.success()?;
    desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
    reader.wait(PATIENCE).await.context("something hangs in the guest")?;
    guest.has("[ ! -b /dev/sda ]").await?;
    desk_has(&desk, "[ -b /dev/sda ]").await.context("the desk's own driver does not have it")?;
    let sum = desk.run("sha256sum /dev/sda").await?.success()?.stdout;
    ensure!(sum.starts_with(&sha256(&image)?), "the desk reads something else: {sum}");
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_disk_that_was_returned_and_lent_again_is_the_desks_when_the_remote_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = impatient_host(folder.path()).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(MEDIUM).qemu_args(STICK).boot().await?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", STICK_ID], &[]).await?;
    for _ in 0..3 {
        guest.has(READS).await?;
        let both = format!("farbus-remote return {STICK_ID} && farbus-remote lend {STICK_ID}");
        desk.run(&both).await?.success()?;
        guest.has(READS).await?;
        desk.run(&bound("usb-storage", 0)).await?.success()?;
        desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
        guest.has("! ls /dev/sd? 2> /dev/null").await?;
        desk_has(&desk, "[ -b /dev/sda ]").await.context("the desk's own driver does not have it back")?;
        guest.remote = desk.remote(&host, "remote", "vm", &["--usb", STICK_ID]).await?;
    }
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_remote_that_comes_as_another_is_killed_keeps_what_it_lends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(false).qemu_args(MEDIUM).qemu_args(STICK).boot().await?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", STICK_ID], &[]).await?;
    for _ in 0..3 {
        guest.has(READS).await?;
        desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
        guest.remote = desk.remote(&host, "remote", "vm", &["--usb", STICK_ID]).await?;
        guest.remote.wait_for("attached").await?;
        guest.has(READS).await?;
        // Longer than anybody tries to give anything back.
        guest.run(&format!("for i in $(seq 70); do {READS} || exit 1; usleep 100000; done")).await?;
        desk.run(&bound("usb-storage", 0)).await?.success().context("the desk has what it lends")?;
    }
    guest.kernel_does_not_complain().await
}

#[tokio::test]
async fn a_killed_remotes_keyboard_with_a_disk_in_it_types_at_the_desk_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    random_file(&image, 4 << 20)?;
    let lab = Lab::open().await?;
    let mut host = impatient_host(folder.path()).await?;
    let desk = lab.desk("desk").super_speed(false).disk(&image).boot().await?;
    let disk = Function::MassStorage { file: "/dev/vda".to_owned(), read_only: true };
    let keys = desk.gadget("keys").ids(IDS.0, IDS.1).speed(Speed::High);
    let keys = keys.function(Function::Keyboard).function(disk).plug().await?;
    let mut guest = Guest::start(&lab, &mut host, &desk, &["--usb", ID], &[]).await?;
    for _ in 0..3 {
        guest.has("[ -b /dev/sda ]").await?;
        types(&keys, &mut listen(&guest.vm, "Farbus lab gadget").await?, [5, 1]).await?;
        desk.run(&format!("{} && {}", bound("usbhid", 0), bound("usb-storage", 0))).await?.success()?;
        desk.run(&format!("kill -9 $({REMOTE})")).await?.success()?;
        guest.has(&bound("usbhid", 0)).await?;
        desk_has(&desk, &format!("{} && [ -b /dev/sda ]", bound("usbhid", 1))).await?;
        types(&keys, &mut listen(&desk, "Farbus lab gadget").await?, [0, 25]).await?;
        let sum = desk.run("sha256sum /dev/sda").await?.success()?.stdout;
        ensure!(sum.starts_with(&sha256(&image)?), "the desk reads something else: {sum}");
        guest.remote = desk.remote(&host, "remote", "vm", &["--usb", ID]).await?;
    }
    guest.kernel_is_content().await
}

#[tokio::test]
async fn eight_mebibytes_are_copied_right_over_a_bad_network_and_keys_come_in_order_meanwhile() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let (image, original) = (folder.path().join("image"), folder.path().join("original"));
    random_file(&image, 16 << 20)?;
    std::fs::write(&original, &std::fs::read(&image)?[..8 << 20])?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let drive = format!("if=none,id=stick,format=raw,cache=unsafe,file={}", image.display());
    let desk = lab.desk("desk").super_speed(false).qemu_args(["-drive", &drive]).qemu_args(STICK).boot();
    let desk = desk.await?;
    let keys = desk.gadget("keys").ids(IDS.0, IDS.1).speed(Speed::High).function(Function::Keyboard);
    let keys = keys.plug().await?;
    let lent = ["--usb", "class=storage", "--usb", ID];
    let guest = Guest::start(&lab, &mut host, &desk, &lent, &[]).await?;
    guest.has("[ -b /dev/sda ]").await?;
    let mut listener = listen(&guest.vm, "Farbus lab gadget").await?;
    desk.netem("delay 20ms 2ms loss 1%").await?;
    // From its first half to its second, until all is typed, and once at least.
    let copy = "dd if=/dev/sda of=/dev/sda bs=256k count=32 seek=32 iflag=direct oflag=direct conv=notrunc";
    let copying = format!("echo BUSY; while {copy}; do [ ! -e /tmp/typed ] || exit 0; done; exit 1");
    let mut copying = guest.spawn(&copying).await?;
    copying.expect("BUSY", PATIENCE).await?;
    types(&keys, &mut listener, (0..100_u32).map(|n| ((n * n + n / 7) % 26) as u8)).await?;
    guest.run("touch /tmp/typed").await?;
    let copied = copying.wait(PATIENCE).await?;
    ensure!(copied.status == 0, "the copy failed: {copied}");
    let sum = guest.run("dd if=/dev/sda bs=1M skip=8 iflag=direct | sha256sum").await?;
    ensure!(sum.starts_with(&sha256(&original)?), "the copy is another: {sum}");
    std::fs::write(&original, &std::fs::read(&image)?[8 << 20..])?;
    ensure!(sum.starts_with(&sha256(&original)?), "the desk's disk has another copy than the guest: {sum}");
    guest.kernel_is_content().await
}
