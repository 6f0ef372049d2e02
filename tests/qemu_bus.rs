//! The vfio-user server under a real QEMU without a guest: configuration space, BARs, memory, interrupts, reset,
//! and QEMU's end.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt;
use lab::{Devfn, Lab, Qtest, farbus::PATIENCE};
use pci::{ConfigSpace, Cx, Device, Identity, Model, Width};
use serde_json::json;
use tokio::{task::LocalSet, time::Instant};
use vfio_user::{Options, Server};

const FUNCTION: Devfn = Devfn::new(4, 0);
const BAR0: u64 = 0xe000_0000;
/// PCI 3.0 §6.2.2: Memory Space and Bus Master.
const MEMORY_AND_MASTER: u16 = 0x0006;
/// PCI 3.0 §6.8.1: the capability id of MSI.
const MSI: u8 = 0x05;
/// Where the guest would like its interrupt: plain memory, so that the message can be read.
const MAILBOX: u32 = 0x0010_0000;

/// A page of memory with two doorbells: 0x10 interrupts, 0x20 copies its value to the address in 0x18.
struct Page {
    bytes: [u8; 4096],
}

impl Model for Page {
    /// An interrupt on vector 0.
    type Output = ();

    fn read(&mut self, _: &mut Cx<'_, ()>, offset: u64, width: Width) -> u64 {
        let mut value = [0; 8];
        value[..width.bytes()].copy_from_slice(&self.bytes[offset as usize..][..width.bytes()]);
        u64::from_le_bytes(value)
    }

    fn write(&mut self, cx: &mut Cx<'_, ()>, offset: u64, width: Width, value: u64) {
        self.bytes[offset as usize..][..width.bytes()].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        match offset {
            0x10 => cx.emit(()),
            0x20 => {
                let address = self.read(cx, 0x18, Width::Qword);
                let published = cx.dma.publish(address, value as u32);
                self.bytes[0x28] = u8::from(published.is_err());
            }
            _ => {}
        }
    }

    fn reset(&mut self, _: &mut Cx<'_, ()>) {
        self.bytes.fill(0);
    }

    fn tick(&mut self, _: &mut Cx<'_, ()>) {}

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn read_failed(_: u64, _: Width) -> u64 {
        u64::MAX
    }
}

/// Serves the page on this thread for as long as the test lives.
fn serve(socket: &Path) -> Result<()> {
    let identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 3,
        class: 0xff_00_00,
        subsystem_vendor: 0,
        subsystem: 0,
    };
    let config = ConfigSpace::builder(identity).bar64(0, 4096).pm(0x50).msi(0x60, 1).build();
    let mut device = Device::new(config, || Page { bytes: [0; 4096] });
    let mut bus = Server::bind(socket, device.layout(), Options::default())?.into_bus()?;
    let start = Instant::now();
    tokio::task::spawn_local(async move {
        let mut interrupts = Vec::new();
        while let Some(transaction) = bus.transactions.next().await {
            transaction.perform(&mut device.turn(start.elapsed(), &*bus.dma, &mut interrupts));
            interrupts.drain(..).for_each(|()| bus.interrupts.raise(0));
        }
    });
    Ok(())
}

async fn bring_up(qtest: &Qtest) -> Result<()> {
    qtest.config_write(FUNCTION, 0x10, BAR0 as u32).await?;
    qtest.config_write(FUNCTION, 0x14, 0).await?;
    qtest.config_writew(FUNCTION, 0x04, MEMORY_AND_MASTER).await
}

/// Runs a story with the served page in slot 4 of a QEMU.
async fn with_qemu(story: impl AsyncFnOnce(&Lab, &Path, &Qtest) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("page.sock");
    LocalSet::new()
        .run_until(async {
            let lab = Lab::open().await?;
            serve(&socket)?;
            let qtest = lab.qtest("page").vfio_user(4, &socket).start().await?;
            story(&lab, &socket, &qtest).await
        })
        .await
}

#[tokio::test]
async fn configuration_space_is_the_functions_own() -> Result<()> {
    with_qemu(async |_, _, qtest| {
        ensure!(qtest.config_read(FUNCTION, 0x00).await? == 0x5678_1234);
        ensure!(qtest.config_read(FUNCTION, 0x08).await? == 0xff00_0003);
        ensure!(qtest.capability(FUNCTION, MSI).await? == Some(0x60));
        // PCI 3.0 §6.2.5.1: all ones written, the size read back; 64-bit memory.
        qtest.config_write(FUNCTION, 0x10, u32::MAX).await?;
        qtest.config_write(FUNCTION, 0x14, u32::MAX).await?;
        ensure!(qtest.config_read(FUNCTION, 0x10).await? == 0xffff_f004);
        ensure!(qtest.config_read(FUNCTION, 0x14).await? == 0xffff_ffff);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn registers_are_read_as_written_in_every_size_once_the_bar_is_set() -> Result<()> {
    with_qemu(async |_, _, qtest| {
        bring_up(qtest).await?;
        qtest.writeq(BAR0 + 0x100, 0x8877_6655_4433_2211).await?;
        ensure!(qtest.readb(BAR0 + 0x101).await? == 0x22);
        ensure!(qtest.readw(BAR0 + 0x102).await? == 0x4433);
        ensure!(qtest.readl(BAR0 + 0x104).await? == 0x8877_6655);
        ensure!(qtest.readq(BAR0 + 0x100).await? == 0x8877_6655_4433_2211);
        // A burst of posted writes, then a read that must see them all.
        let burst: Vec<u8> = (0..=255).cycle().take(2048).collect();
        qtest.write(BAR0 + 0x800, &burst).await?;
        ensure!(qtest.read(BAR0 + 0x800, 2048).await? == burst);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn memory_is_reached_only_while_the_function_is_bus_master() -> Result<()> {
    with_qemu(async |_, _, qtest| {
        bring_up(qtest).await?;
        qtest.writeq(BAR0 + 0x18, u64::from(MAILBOX)).await?;
        qtest.writel(BAR0 + 0x20, 0x1234_5678).await?;
        ensure!(qtest.readb(BAR0 + 0x28).await? == 0, "the write failed");
        ensure!(qtest.readl(u64::from(MAILBOX)).await? == 0x1234_5678);
        qtest.config_writew(FUNCTION, 0x04, 0x0002).await?;
        qtest.writel(BAR0 + 0x20, 0x9999_9999).await?;
        ensure!(qtest.readb(BAR0 + 0x28).await? == 1, "a function that is no bus master wrote to memory");
        ensure!(qtest.readl(u64::from(MAILBOX)).await? == 0x1234_5678);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_msi_is_delivered_to_where_the_guest_asked_for_it() -> Result<()> {
    with_qemu(async |_, _, qtest| {
        bring_up(qtest).await?;
        let msi = qtest.capability(FUNCTION, MSI).await?.context("an MSI capability")?;
        qtest.config_write(FUNCTION, msi + 4, MAILBOX).await?;
        qtest.config_write(FUNCTION, msi + 8, 0).await?;
        qtest.config_writew(FUNCTION, msi + 12, 0x4242).await?;
        qtest.config_writew(FUNCTION, msi + 2, 0x0001).await?;
        qtest.writel(BAR0 + 0x10, 1).await?;
        // The message is written by QEMU's main loop when it sees the eventfd; qtest's answers come from the same loop.
        let delivered = async {
            while qtest.readl(u64::from(MAILBOX)).await? != 0x4242 {}
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, delivered).await.context("no MSI came")?
    })
    .await
}

#[tokio::test]
async fn a_system_reset_resets_the_function_and_a_new_qemu_finds_it_reset() -> Result<()> {
    with_qemu(async |lab, socket, qtest| {
        bring_up(qtest).await?;
        qtest.writel(BAR0 + 0x100, 7).await?;
        qtest.qmp().execute("system_reset", json!({})).await?;
        let reset = async {
            while qtest.config_read(FUNCTION, 0x04).await? & 0x6 != 0 {}
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, reset).await.context("no reset")??;
        bring_up(qtest).await?;
        ensure!(qtest.readl(BAR0 + 0x100).await? == 0, "a register survived a reset");

        qtest.writel(BAR0 + 0x100, 8).await?;
        qtest.kill().await?;
        let second = lab.qtest("second").vfio_user(4, socket).start().await?;
        bring_up(&second).await?;
        ensure!(second.readl(BAR0 + 0x100).await? == 0, "a register survived into another VM");
        Ok(())
    })
    .await
}
