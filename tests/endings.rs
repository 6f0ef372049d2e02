//! What happens when something ends: a remote, a VM, QEMU. The guest sees what hardware would show, nothing leaks.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Vm,
    farbus::{self, Host, Seat},
};

const LONG: Duration = Duration::from_secs(120);
/// Waits until the guest has exactly so many disks.
fn disks(count: usize) -> String {
    format!("until [ $(ls -d /sys/block/sd* 2>/dev/null | wc -l) = {count} ]; do usleep 10000; done")
}

async fn boot(lab: &Lab, host: &Host) -> Result<Vm> {
    let seat = host.seat("a");
    lab.vm("a").usb_socket(seat.usb_socket()).hda_socket(seat.hda_socket()).boot().await
}

#[tokio::test]
async fn a_remote_that_dies_in_the_middle_of_a_transfer_is_an_unplug_after_its_time_and_its_return_a_plug()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    fs::File::create(&image)?.set_len(1 << 30)?;
    let disk = image.display().to_string();
    let lab = Lab::open().await?;
    // Longer than what is under way needs; the longer ones of every day are the business of `resume`.
    let extra = "hold = { storage = 3.0 }\n".to_owned();
    let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra };
    let host = Host::start_with(folder.path(), vec![seat]).await?;
    let mut remote = host.remote("remote", "a", &["--disk", &disk])?;
    remote.wait_for("connected").await?;
    let vm = boot(&lab, &host).await?;
    vm.run(&disks(1)).await?.success().context("the guest does not see the disk")?;

    // The read is under way when its first block has come; a gigabyte takes far longer than the kill.
    let mut read = vm
        .command("dd if=/dev/sda bs=64k count=1 2>&1 >/dev/null; echo BEGUN; echo READ $(dd if=/dev/sda bs=64k skip=1 2>/dev/null | wc -c)")
        .timeout(LONG)
        .spawn()
        .await?;
    read.expect("BEGUN", LONG).await?;
    farbus::kill(remote.id().context("the remote runs")?)?;
    // It ends by an error, or, if Linux has already forgotten how large the disk was, as if the disk did.
    let read = read.expect("READ", LONG).await?;
    let bytes: u64 = read.trim_start_matches("READ ").parse()?;
    ensure!(bytes < (1 << 30) - (64 << 10), "all of a disk that is gone was read");
    vm.run(&disks(0)).await?.success().context("the guest still has the disk")?;
    let log = vm.run("dmesg").await?.stdout;
    ensure!(log.contains("USB disconnect"), "no disconnect in the guest's log:\n{log}");
    for trouble in ["HC died", "not responding", "WARN"] {
        ensure!(!log.contains(trouble), "the controller itself looked broken ({trouble}):\n{log}");
    }

    let mut remote = host.remote("remote", "a", &["--disk", &disk])?;
    remote.wait_for("connected").await?;
    vm.run(&disks(1)).await?.success().context("the disk does not come back")?;
    vm.run("dd if=/dev/sda of=/dev/null bs=64k count=16").await?.success()?;
    Ok(())
}

#[tokio::test]
async fn a_vm_that_resets_and_a_new_qemu_find_their_devices_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let host = Host::start(folder.path(), &["a"]).await?;
    let mut remote = host.remote("remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;

    let vm = boot(&lab, &host).await?;
    let see = "until lsusb -t | grep -q Driver=usbhid && aplay -l | grep -q 'card 0'; do usleep 100000; done";
    vm.run(see).await?.success().context("at the first boot")?;
    vm.reset().await?;
    vm.run(see).await?.success().context("after a reset")?;
    vm.kill().await?;
    drop(vm);
    let vm = boot(&lab, &host).await.context("a new QEMU on the same sockets")?;
    vm.run(see).await?.success().context("in a new QEMU")?;
    Ok(())
}

#[tokio::test]
async fn fifty_cycles_of_remotes_and_vmms_leak_nothing() -> Result<()> {
    const WARM_UP: usize = 5;
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let worker = host.workers["a"];
    let mut first = None;
    for cycle in 0..WARM_UP + 50 {
        let qtest = lab.qtest("cycle").vfio_user(4, host.seat("a").usb_socket()).start().await?;
        let mut remote = host.remote("remote", "a", &["--keyboard"])?;
        remote.wait_for("connected").await?;
        host.program.wait_for("attached").await?;
        qtest.kill().await?;
        farbus::kill(remote.id().context("the remote runs")?)?;
        host.program.wait_for("detached").await?;
        if cycle + 1 == WARM_UP {
            first = Some(usage(worker)?);
        }
    }
    let (first, last) = (first.context("a warm-up")?, usage(worker)?);
    ensure!(last.threads <= first.threads, "threads leak: {first:?} -> {last:?}");
    ensure!(last.descriptors <= first.descriptors, "descriptors leak: {first:?} -> {last:?}");
    ensure!(last.resident_kib < first.resident_kib + 4096, "memory leaks: {first:?} -> {last:?}");
    Ok(())
}

/// What a process holds.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

fn usage(process: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(Usage {
        descriptors: fs::read_dir(format!("/proc/{process}/fd"))?.count(),
        threads: fs::read_dir(format!("/proc/{process}/task"))?.count(),
        resident_kib: line.trim().trim_end_matches(" kB").parse()?,
    })
}

/// A VMM has no way back to a server that is gone. What it does then is its own: QEMU 11.1 ends, by an assertion that fails.
#[tokio::test]
async fn a_vm_whose_worker_died_has_its_devices_again_when_it_is_started_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut remote = host.remote("remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    let vm = boot(&lab, &host).await?;
    let keyboard = "until lsusb -t | grep -q Driver=usbhid; do usleep 100000; done";
    vm.run(keyboard).await?.success().context("at the first boot")?;
    farbus::kill(host.workers["a"])?;
    host.program.wait_where("worker_ended", |event| event["vm"] == "a").await?;
    let gone = "until dmesg | grep -q 'HC died'; do lsusb -v >/dev/null 2>&1; usleep 100000; done";
    if let Err(ended) = vm.command(gone).timeout(LONG).run().await {
        ensure!(format!("{ended:#}").contains("QEMU ended"), "the guest does not notice: {ended:#}");
    }
    drop(vm);
    host.program.wait_where("vm_ready", |event| event["vm"] == "a").await?;
    remote.wait_for("connected").await.context("the new worker does not take the remote on")?;
    let vm = boot(&lab, &host).await?;
    vm.run(keyboard).await?.success().context("after the restart")?;
    Ok(())
}
