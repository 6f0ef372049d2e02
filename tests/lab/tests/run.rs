//! The command line, as scripts use it.

use std::process::{Command, Output, Stdio};

use anyhow::Result;

fn lab(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).stdin(Stdio::null()).output()?)
}

#[test]
fn run_prints_what_the_script_prints_and_exits_with_its_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let script = file("script", "cat /srv/note; echo also >&2; lsmod | grep -q usbtest && exit 42")?;
    let note = format!("{}:/srv/note", file("note", "noted")?);
    let arguments = ["run", "--without-farbus", "--guest-script", &script, "--guest-file", &note];
    let output = lab(&[&arguments[..], &["--modules", "usbtest", "--", "-device", "qemu-xhci"]].concat())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "noted", "{stderr}");
    assert!(stderr.contains("also\n"), "{stderr}");
    assert_eq!(output.status.code(), Some(42), "{stderr}");

    let endless = file("endless", "#!/bin/sh\necho begun\nsleep 1000\n")?;
    let output = lab(&["run", "--without-farbus", "--guest-script", &endless, "--timeout", "1"])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "begun\n");
    assert_eq!(output.status.code(), Some(124), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn the_desks_script_runs_first_and_goes_on_beside_the_guests_and_the_remote_runs_in_the_desk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let guest =
        file("guest", "until [ -b /dev/sda ]; do usleep 100000; done; cat /sys/block/sda/size; exit 7")?;
    // Ends with the guest's script, not before.
    let desk = "until lsusb | grep -o 'QEMU USB Tablet'; do usleep 100000; done
        tc qdisc show dev eth0 | grep -o 'delay 20ms'
        truncate -s 1M /root/only-in-the-desk.img
        echo READY
        sleep 100000";
    let desk = file("desk", desk)?;
    let disk = "--disk /root/only-in-the-desk.img";
    let arguments = ["run", "--guest-script", &guest, "--desk-script", &desk, "--remote", disk];
    let network = ["--desk", "-device usb-tablet,bus=xhci.0", "--netem", "delay 20ms"];
    let output = lab(&[&arguments[..], &network].concat())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2048\n", "{stderr}");
    for said in ["QEMU USB Tablet\n", "delay 20ms\n", "READY\n"] {
        assert!(stderr.contains(said), "{stderr}");
    }
    assert_eq!(output.status.code(), Some(7), "{stderr}");

    let fails = file("fails", "exit 9")?;
    let output = lab(&["run", "--guest-script", &guest, "--desk", "", "--desk-script", &fails])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("the desk's script failed with exit code 9"),
        "{stderr}"
    );
    Ok(())
}
