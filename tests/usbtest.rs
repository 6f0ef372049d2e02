//! The Linux kernel's own test of USB host controllers (drivers/usb/misc/usbtest.c, tools/usb/testusb.c), run by a stock
//! guest on our controller.

mod at_desk;

use anyhow::{Context as _, Result, ensure};
use at_desk::{
    Guest, PATIENCE,
    cases::{BULK_AND_CONTROL, Case, ISOCHRONOUS_AND_INTERRUPT},
};
use lab::{
    Lab, Vm,
    desk::{Function, Speed},
    farbus::Host,
};

/// Runs the cases; each must say that it has passed.
async fn pass(vm: &Vm, cases: &[Case]) -> Result<()> {
    vm.run("modprobe usbtest").await?.success()?;
    let bound = "until ls /sys/bus/usb/drivers/usbtest | grep -q :1; do usleep 20000; done";
    vm.command(bound).timeout(PATIENCE).run().await?.success().context("usbtest finds no gadget")?;
    for Case { numbers, arguments } in cases {
        for number in *numbers {
            let test = format!("testusb -a -t {number} {arguments}");
            let run = vm.command(&test).timeout(PATIENCE).run().await?;
            let said = run.success().with_context(|| test.clone())?.stdout;
            ensure!(said.contains(&format!("test {number},")), "{test}: {said}");
        }
    }
    Ok(())
}

/// A source and sink at the desk, over Noise and TCP.
async fn passes_at_the_desk(speed: Speed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let desk = lab.desk("desk").super_speed(speed == Speed::Super).boot().await?;
    let zero = desk.gadget("zero").speed(speed).function(Function::SourceSink).plug().await?;
    let guest = Guest::start(&lab, &mut host, &desk, &["--usb", zero.id()], &[]).await?;
    pass(&guest.vm, &BULK_AND_CONTROL).await?;
    guest.kernel_is_content().await
}

/// Farbus's own gadget zero.
async fn passes_in_software(speed: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["vm"]).await?;
    let mut remote = host.remote("remote", "vm", &["--gadget-zero", speed])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    let seat = host.seat("vm");
    let vm = lab.vm("vm").usb_socket(seat.usb_socket()).boot().await?;
    let guest = Guest { vm, remote };
    pass(&guest.vm, &ISOCHRONOUS_AND_INTERRUPT).await?;
    pass(&guest.vm, &BULK_AND_CONTROL).await?;
    guest.kernel_is_content().await
}

#[tokio::test]
async fn every_bulk_and_control_case_passes_at_the_desk_at_high_speed() -> Result<()> {
    passes_at_the_desk(Speed::High).await
}

#[tokio::test]
async fn every_bulk_and_control_case_passes_at_the_desk_at_super_speed() -> Result<()> {
    passes_at_the_desk(Speed::Super).await
}

#[tokio::test]
async fn every_case_passes_on_a_gadget_zero_of_software_at_high_speed() -> Result<()> {
    passes_in_software("high").await
}

#[tokio::test]
async fn every_case_passes_on_a_gadget_zero_of_software_at_super_speed() -> Result<()> {
    passes_in_software("super").await
}
