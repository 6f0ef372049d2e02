//! A stock guest and the devices QEMU itself has: what the lab promises to those who test Farbus with it.

use std::time::Instant;

use anyhow::Result;
use lab::{Lab, Vm};
use serde_json::json;

/// A guest with the models of QEMU that Farbus's controllers stand beside.
async fn guest(lab: &Lab) -> Result<Vm> {
    lab.vm("guest")
        .device(json!({ "driver": "qemu-xhci", "id": "xhci" }))
        .device(json!({ "driver": "usb-kbd", "id": "keyboard", "bus": "xhci.0" }))
        .device(json!({ "driver": "intel-hda", "id": "hda" }))
        .device(json!({ "driver": "hda-duplex", "bus": "hda.0", "audiodev": "silence" }))
        .extra_args(["-audiodev", "none,id=silence"])
        .boot()
        .await
}

#[tokio::test]
async fn stock_drivers_bind_and_the_tools_see_what_they_drive() -> Result<()> {
    let lab = Lab::open().await?;
    let started = Instant::now();
    let vm = guest(&lab).await?;
    eprintln!("up after {:?}", started.elapsed());
    let usb = vm.run("lsusb -t").await?.success()?;
    eprintln!("{usb} after {:?}", started.elapsed());
    assert!(usb.stdout.contains("Driver=usbhid"), "{usb}");
    let sound = vm.run("aplay -l").await?.success()?;
    assert!(sound.stdout.contains("card 0: Intel"), "{sound}");
    vm.run("aplay -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 1 /dev/zero").await?.success()?;
    Ok(())
}
