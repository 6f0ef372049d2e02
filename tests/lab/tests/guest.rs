//! A stock guest and the devices QEMU itself has: what the lab promises to those who test Farbus with it.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::Result;
use lab::{Firmware, Lab, TimedOut, Vm};
use serde_json::json;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
/// Says which input device of the guest is QEMU's keyboard, or fails.
const KEYBOARD: &str = "grep -ls 'QEMU USB Keyboard' /sys/class/input/event*/device/name";

/// A guest with the models of QEMU that Farbus's controllers stand beside, when its drivers have found them: the
/// kernel looks for devices beside everything else that a starting guest does.
async fn guest(name: &str) -> Result<Vm> {
    let lab = Lab::open().await?;
    let vm = lab
        .vm(name)
        .device(json!({ "driver": "qemu-xhci", "id": "xhci" }))
        .device(json!({ "driver": "usb-kbd", "bus": "xhci.0" }))
        .device(json!({ "driver": "intel-hda", "id": "hda" }))
        .device(json!({ "driver": "hda-duplex", "bus": "hda.0", "audiodev": "silence" }))
        .extra_args(["-audiodev", "none,id=silence"])
        .boot()
        .await?;
    let found = format!("until {KEYBOARD} && [ -e /proc/asound/card0/pcm0p ]; do sleep 0.1; done");
    vm.run(&found).await?.success()?;
    Ok(vm)
}

#[tokio::test]
async fn stock_drivers_bind_and_the_tools_see_what_they_drive() -> Result<()> {
    let vm = guest("tools").await?;
    let usb = vm.run("lsusb -t").await?.success()?;
    assert!(usb.stdout.contains("Driver=usbhid"), "{usb}");
    let sound = vm.run("aplay -l").await?.success()?;
    assert!(sound.stdout.contains("card 0: Intel"), "{sound}");
    vm.run("aplay -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 1 /dev/zero").await?.success()?;
    let host_name = vm.run("hostname").await?.success()?;
    assert_eq!(host_name.stdout, "tools\n");
    Ok(())
}

#[tokio::test]
async fn a_key_reaches_a_program_that_waits_for_it() -> Result<()> {
    let vm = guest("key").await?;
    let keyboard = vm.run(KEYBOARD).await?.success()?;
    let event = keyboard.stdout.split('/').find(|part| part.starts_with("event")).expect("an input device");
    let mut evtest = vm.spawn(&format!("evtest /dev/input/{event}")).await?;
    evtest.expect("Testing ...", LONG).await?;
    vm.qmp("send-key", json!({ "keys": [{ "type": "qcode", "data": "f" }] })).await?;
    let line = evtest.expect("EV_KEY", LONG).await?;
    assert!(line.contains("(KEY_F), value 1"), "{line}");
    evtest.signal(nix::sys::signal::Signal::SIGKILL).await?;
    assert_eq!(evtest.wait(LONG).await?.status, 128 + 9);
    Ok(())
}

#[tokio::test]
async fn a_command_has_its_exit_code_and_both_its_outputs_byte_for_byte() -> Result<()> {
    let vm = guest("output").await?;
    let output = vm.run("printf 'a\\0b\\377'; echo oops >&2; exit 3").await?;
    assert_eq!((output.status, &output.bytes[..], &output.stderr[..]), (3, &b"a\0b\xff"[..], "oops\n"));
    assert!(output.success().is_err());
    assert_eq!(vm.run("kill -TERM $$").await?.status, 128 + 15);
    assert_eq!(vm.run("no-such-program").await?.status, 127);
    assert_eq!(vm.command("cat").stdin("fed").run().await?.success()?.stdout, "fed");

    let content: Vec<u8> =
        (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vm.put(content.clone(), "/tmp/a folder/it's a file").await?;
    assert!(vm.file("/tmp/a folder/it's a file").await? == content, "3 MB came back changed");
    Ok(())
}

#[tokio::test]
async fn commands_run_beside_each_other_and_a_line_is_read_when_it_is_printed() -> Result<()> {
    let vm = guest("beside").await?;
    vm.run("mkfifo /tmp/fifo").await?.success()?;
    // Neither could end if the other had to end first.
    let mut reader = vm.spawn("echo started; cat /tmp/fifo; echo read").await?;
    assert_eq!(reader.line().await?.as_deref(), Some("started"));
    vm.run("echo through > /tmp/fifo").await?.success()?;
    assert_eq!(reader.line().await?.as_deref(), Some("through"));
    assert_eq!(reader.line().await?.as_deref(), Some("read"));
    assert_eq!(reader.line().await?, None);
    assert_eq!(reader.wait(LONG).await?.status, 0);
    Ok(())
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children_and_the_guest_goes_on() -> Result<()> {
    let vm = guest("timeout").await?;
    let endless = vm.command("echo begun; sleep 1000 & sleep 1000").timeout(Duration::from_millis(500));
    let error = endless.run().await.expect_err("it has no end");
    let timed_out = error.downcast_ref::<TimedOut>().expect("a timeout");
    assert_eq!(timed_out.said, "begun\n");
    // The agent has sent the signal before it starts this; the processes are gone once they are no longer listed.
    vm.run("while ps | grep '[s]leep 1000'; do :; done").await?.success()?;
    Ok(())
}

#[tokio::test]
async fn a_killed_vm_is_noticed_by_whoever_waits_for_it() -> Result<()> {
    let vm = guest("killed").await?;
    let mut endless = vm.spawn("echo begun; sleep 1000").await?;
    endless.expect("begun", LONG).await?;
    vm.kill().await?;
    let error = endless.wait(LONG).await.expect_err("its guest is gone");
    assert!(format!("{error:#}").contains("QEMU ended (signal: 9"), "{error:#}");
    assert_eq!(vm.exited().and_then(|status| status.signal()), Some(9));
    assert!(vm.run("true").await.is_err());
    assert!(vm.qmp("query-status", json!({})).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_reset_guest_comes_back_without_what_ran_in_it() -> Result<()> {
    let vm = guest("reset").await?;
    let first = vm.file("/proc/sys/kernel/random/boot_id").await?;
    let mut flood = vm.spawn("exec yes").await?;
    flood.expect("y", LONG).await?;
    vm.reset().await?;
    assert!(flood.wait(LONG).await.is_err());
    let second = vm.file("/proc/sys/kernel/random/boot_id").await?;
    assert_ne!(first, second);

    // A guest that restarts itself is the same to us.
    let mut restart = vm.spawn("reboot -f; sleep 1000").await?;
    let error = restart.wait(LONG).await.expect_err("it restarted");
    assert!(format!("{error:#}").contains("the guest was reset"), "{error:#}");
    assert_eq!(vm.exited(), None);
    Ok(())
}

#[tokio::test]
async fn a_guest_that_switches_itself_off_ends_its_machine() -> Result<()> {
    let vm = guest("off").await?;
    assert!(vm.shutdown().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_kernel_that_panics_or_a_qemu_that_refuses_is_told_with_its_words() -> Result<()> {
    let lab = Lab::open().await?;
    let panics = lab.vm("panics").kernel_arguments("rdinit=/absent root=/dev/absent").boot().await;
    let error = format!("{:#}", panics.expect_err("no init"));
    assert!(error.contains("kernel panicked") && error.contains("VFS: Unable to mount root fs"), "{error}");

    let refuses = lab.vm("refuses").extra_args(["-device", "no-such-device"]).boot().await;
    let error = format!("{:#}", refuses.expect_err("no such device"));
    assert!(error.contains("'no-such-device' is not a valid device model name"), "{error}");

    let lacks = lab.vm("lacks").modules(["no_such_module"]).boot().await;
    let error = format!("{:#}", lacks.expect_err("no such module"));
    assert!(error.contains("has no module no_such_module"), "{error}");
    Ok(())
}

#[tokio::test]
async fn modules_asked_for_are_loaded_and_others_are_at_hand() -> Result<()> {
    let lab = Lab::open().await?;
    let vm = lab.vm("modules").modules(["snd_usb_audio"]).load_default_modules(false).boot().await?;
    let loaded = vm.run("lsmod").await?.success()?;
    assert!(loaded.stdout.contains("snd_usb_audio"), "{loaded}");
    assert!(!loaded.stdout.contains("xhci_pci"), "{loaded}");
    vm.run("modprobe xhci_pci && lsmod | grep -q xhci_hcd").await?.success()?;
    Ok(())
}

#[tokio::test]
async fn uefi_firmware_starts_the_same_kernel() -> Result<()> {
    let lab = Lab::open().await?;
    let vm = lab.vm("uefi").firmware(Firmware::Ovmf).boot().await?;
    vm.run("test -d /sys/firmware/efi").await?.success()?;
    Ok(())
}
