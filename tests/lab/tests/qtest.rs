//! A machine without a guest: its bus as the tests of the vfio-user server and the benchmarks drive it.

use std::time::Duration;

use anyhow::Result;
use lab::{Devfn, Lab, Qtest};
use serde_json::json;

const XHCI: Devfn = Devfn::new(4, 0);
/// Capability id of MSI-X (PCI 3.0 appendix H).
const MSI_X: u8 = 0x11;
/// An address for BAR 0, within the window of q35.
const BAR0: u32 = 0xe000_0000;

async fn machine() -> Result<Qtest> {
    let lab = Lab::open().await?;
    lab.qtest("qtest").device(json!({ "driver": "qemu-xhci", "addr": "4" })).start().await
}

#[tokio::test]
async fn memory_is_read_as_it_was_written_in_every_size() -> Result<()> {
    let machine = machine().await?;
    let bytes: Vec<u8> = (0..=255).collect();
    machine.write(0x1000, &bytes).await?;
    assert_eq!(machine.read(0x1000, 256).await?, bytes);
    assert_eq!(machine.readb(0x1004).await?, 0x04);
    assert_eq!(machine.readw(0x1004).await?, 0x0504);
    assert_eq!(machine.readl(0x1004).await?, 0x0706_0504);
    assert_eq!(machine.readq(0x1004).await?, 0x0b0a_0908_0706_0504);
    machine.writeq(0x2000, 0x8877_6655_4433_2211).await?;
    assert_eq!(machine.read(0x2000, 8).await?, [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    Ok(())
}

#[tokio::test]
async fn a_function_is_configured_and_its_registers_answer() -> Result<()> {
    let machine = machine().await?;
    assert_eq!(machine.config_read(XHCI, 0).await?, 0x000d_1b36, "device and vendor of qemu-xhci");
    assert_eq!(machine.config_read(Devfn::new(9, 0), 0).await?, u32::MAX, "an empty slot");
    assert!(machine.capability(XHCI, MSI_X).await?.is_some());
    assert_eq!(machine.capability(XHCI, 0xee).await?, None);
    assert!(machine.config_read(XHCI, 0x102).await.is_err(), "not a register");

    machine.config_write(XHCI, 0x10, BAR0).await?;
    machine.config_write(XHCI, 0x14, 0).await?;
    machine.config_writew(XHCI, 0x04, 0x0006).await?;
    let capabilities = machine.readl(BAR0.into()).await?;
    assert_eq!(capabilities >> 16, 0x0100, "xHCI 1.2 §5.3.2: HCIVERSION");

    machine.enable_ecam().await?;
    assert_eq!(machine.readl(Qtest::ecam(XHCI, 0)).await?, 0x000d_1b36);
    Ok(())
}

#[tokio::test]
async fn a_machine_that_ends_is_noticed() -> Result<()> {
    let machine = machine().await?;
    machine.kill().await?;
    assert!(machine.readl(0).await.is_err());
    assert!(machine.qmp().execute("query-status", json!({})).await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_access_that_is_never_answered_ends_at_its_deadline() -> Result<()> {
    let lab = Lab::open().await?;
    let machine = lab.qtest("stuck").deadline(Duration::from_millis(200)).start().await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(machine.id()), nix::sys::signal::Signal::SIGSTOP)?;
    let error = machine.readl(0).await.expect_err("QEMU is stopped");
    assert!(format!("{error:#}").contains("no answer within 200ms"), "{error:#}");
    Ok(())
}
