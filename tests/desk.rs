//! The desk, the lab's VM that is a remote computer: what the tests of USB rely on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::desk::{Controller, Desk, Function, Gadget, KeyReport, Speed};
use lab::{Lab, farbus::Host};

/// Waits until the desk's kernel has found a device of QEMU's with this vendor and product.
async fn found(desk: &Desk, id: &str) -> Result<()> {
    desk.run(&format!("until lsusb -d {id}; do usleep 10000; done")).await?.success().map(drop)
}

/// One file of a gadget's in the sysfs of the desk's own kernel.
async fn sysfs(desk: &Desk, gadget: &Gadget<'_>, file: &str) -> Result<String> {
    let path = format!("/sys/bus/usb/devices/{}/{file}", gadget.location().await?);
    Ok(String::from_utf8(desk.file(&path).await?)?.trim().to_owned())
}

#[tokio::test]
async fn gadgets_and_qemus_devices_are_there_at_their_speeds_and_the_remote_in_the_desk_lists_them()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let (stick, image) = (folder.path().join("stick.img"), folder.path().join("image.img"));
    std::fs::write(&stick, vec![0; 1 << 20])?;
    std::fs::write(&image, vec![0xa5; 1 << 20])?;
    let lab = Lab::open().await?;
    let drive = format!("if=none,id=stick,format=raw,file={}", stick.display());
    let desk = lab
        .desk("desk")
        .controllers([Controller::Xhci, Controller::Ehci, Controller::Uhci])
        .disk(&image)
        .qemu_args(["-drive", &drive, "-device", "usb-storage,bus=xhci.0,drive=stick"])
        .qemu_args(["-device", "usb-tablet,bus=ehci.0", "-device", "usb-kbd,bus=uhci.0"])
        .boot()
        .await?;

    let high = desk.gadget("high").speed(Speed::High).function(Function::SourceSink).plug().await?;
    let fast = desk.gadget("fast").ids(0x0525, 0xa4a0).function(Function::SourceSink).plug().await?;
    let disk = Function::MassStorage { file: "/dev/vda".to_owned(), read_only: true };
    let disk = desk.gadget("disk").speed(Speed::High).function(disk).plug().await?;
    for (gadget, id, mbit, speed) in [
        (&high, "0525:a4a0", "480", "high-speed"),
        (&fast, "0525:a4a0", "5000", "super-speed"),
        (&disk, "0525:a4a5", "480", "high-speed"),
    ] {
        assert_eq!(gadget.id(), id);
        assert_eq!(sysfs(&desk, gadget, "speed").await?, mbit, "{gadget:?}");
        assert_eq!(gadget.current_speed().await?, speed, "{gadget:?}");
    }
    // A source and sink is left to whoever wants it; a disk is taken by the desk's own driver.
    assert!(!desk.run("lsmod").await?.success()?.stdout.contains("usbtest"));
    let driver = format!("/sys/bus/usb/devices/{}:1.0/driver", disk.location().await?);
    let bound = format!("until [ -e {driver} ]; do usleep 10000; done; basename $(readlink {driver})");
    assert_eq!(desk.run(&bound).await?.success()?.stdout, "usb-storage\n");

    let qemus = ["46f4:0001", "0627:0001"];
    for id in qemus {
        found(&desk, id).await?;
    }
    let read =
        "until [ -b /dev/sdb ]; do usleep 10000; done; cat /dev/sda /dev/sdb | tr -d '\\0' | sha256sum";
    let theirs = desk.run(read).await?.success()?.stdout;
    let ours = desk.run("sha256sum < /dev/vda").await?.success()?.stdout;
    assert_eq!(theirs, ours, "the gadget's disk is not the image, or QEMU's is not empty");

    let listed = desk.devices().await?;
    let listed: Vec<_> =
        listed["usb"].as_array().context("no list")?.iter().filter_map(|usb| usb["id"].as_str()).collect();
    for id in qemus.into_iter().chain(["0525:a4a0", "0525:a4a5"]) {
        assert!(listed.contains(&id), "{id} is not in {listed:?}");
    }
    assert_eq!(listed.iter().filter(|id| **id == "0525:a4a0").count(), 2, "{listed:?}");

    // Out and in again.
    high.unplug().await?;
    ensure!(!desk.run("lsusb -v -d 0525:a4a0").await?.stdout.contains("high"), "still there");
    high.plug().await?;
    assert_eq!(sysfs(&desk, &high, "speed").await?, "480");
    Ok(())
}

#[tokio::test]
async fn a_gadget_keyboard_a_serial_line_and_a_network_work_against_the_desks_own_drivers() -> Result<()> {
    let lab = Lab::open().await?;
    let desk = lab.desk("desk").modules(["cdc_acm", "cdc_ncm"]).super_speed(false).boot().await?;

    let keyboard = desk.gadget("keys").speed(Speed::High).function(Function::Keyboard).plug().await?;
    let find = "until grep -l 'Farbus lab gadget' /sys/class/input/event*/device/name; do usleep 10000; done";
    let event = desk.run(find).await?.success()?.stdout;
    let event =
        event.split('/').find(|part| part.starts_with("event")).context("an input device")?.to_owned();
    let mut listener = desk.spawn(&format!("exec evtest /dev/input/{event}")).await?;
    let patience = Duration::from_secs(120);
    listener.expect("Testing ...", patience).await?;
    // HID Usage Tables, page 7: 4 is the key A, 5 the key B.
    let keys: [KeyReport; 4] = [[0, 0, 4, 0, 0, 0, 0, 0], [0; 8], [0, 0, 5, 0, 0, 0, 0, 0], [0; 8]];
    keyboard.press(&keys).await?;
    for key in ["(KEY_A), value 1", "(KEY_A), value 0", "(KEY_B), value 1", "(KEY_B), value 0"] {
        let line = listener.expect("EV_KEY", patience).await?;
        assert!(line.contains(key), "{line} is not {key}");
    }

    let both = desk.gadget("both").speed(Speed::High).function(Function::Acm).function(Function::Ncm);
    let _both = both.plug().await?;
    let talk = "until [ -c /dev/ttyACM0 ] && [ -c /dev/ttyGS0 ]; do usleep 10000; done
        stty -F /dev/ttyACM0 raw -echo; stty -F /dev/ttyGS0 raw -echo
        exec 3</dev/ttyACM0
        echo through the line > /dev/ttyGS0
        head -n 1 <&3
        until ip -brief link | grep -q -e usb1 -e enx -e eth1; do usleep 10000; done
        ip -brief link";
    let said = desk.run(talk).await?.success()?.stdout;
    assert!(said.starts_with("through the line\n"), "{said}");
    assert!(said.contains("usb0"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_kernels_own_usb_test_passes_against_a_source_and_sink() -> Result<()> {
    let lab = Lab::open().await?;
    let desk = lab.desk("desk").modules(["usbtest"]).boot().await?;
    for (name, speed) in [("high", Speed::High), ("fast", Speed::Super)] {
        let zero = desk.gadget(name).speed(speed).function(Function::SourceSink).plug().await?;
        let driver = format!("/sys/bus/usb/devices/{}:1.0/driver", zero.location().await?);
        desk.run(&format!("until [ -e {driver} ]; do usleep 10000; done")).await?.success()?;
        // Control messages, bulk transfers both ways, and those that are taken back from the middle of a queue.
        for case in [0, 1, 2, 9, 10, 24] {
            let test = format!("testusb -a -t {case} -c 20 -s 1024 -v 421 -g 8");
            let said = desk.run(&test).await?.success()?.stdout;
            assert!(said.contains(&format!("test {case},")) && said.contains("secs"), "{said}");
        }
        zero.unplug().await?;
    }
    Ok(())
}

/// The shortest of some round trips to this computer, in milliseconds.
async fn round_trip(desk: &Desk) -> Result<f64> {
    let said =
        desk.run("ping -q -c 5 -i 0.2 10.0.2.2 | sed -n 's/^round-trip.*= *\\([0-9.]*\\).*/\\1/p'").await?;
    said.success()?.stdout.trim().parse().context("ping says no time")
}

#[tokio::test]
async fn network_faults_are_applied_replaced_and_taken_back() -> Result<()> {
    let lab = Lab::open().await?;
    let desk = lab.desk("desk").gadget_ports(0).boot().await?;
    let good = round_trip(&desk).await?;
    desk.netem("delay 400ms").await?;
    let slow = round_trip(&desk).await?;
    assert!(slow >= 400.0 && slow > good, "{good} ms became {slow} ms");
    desk.netem("loss 100%").await?;
    ensure!(desk.run("ping -q -c 2 -W 1 10.0.2.2").await?.status != 0, "something came through");
    desk.netem("").await?;
    let again = round_trip(&desk).await?;
    assert!(again < slow, "{slow} ms became {again} ms");
    Ok(())
}

#[tokio::test]
async fn a_remote_in_the_desk_connects_types_and_ends_when_asked_or_dropped() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").gadget_ports(0).boot().await?;
    let mut remote = desk.remote(&host, "remote", "vm", &["--keyboard"]).await?;
    remote.wait_for("connected").await?;
    host.program.wait_where("linked", |event| event["vm"] == "vm").await?;
    host.program.wait_for("attached").await?;
    remote.say("type f").await?;
    remote.wait_for("key").await?;
    assert!(remote.stop().await?.success(), "{}", remote.last_words());
    host.program.wait_for("link_lost").await?;

    let dropped = desk.remote(&host, "dropped", "vm", &[]).await?;
    host.program.wait_for("linked").await?;
    drop(dropped);
    host.program.wait_for("detached").await?;
    Ok(())
}
