//! A PCI function with one page of scratch registers, for trying a VMM against the server by hand. A write to
//! offset 0x10 raises MSI vector 0, a write to offset 0x20 copies its value to the guest address in register 0x18.
//!
//! `cargo run -p vfio-user --example scratch -- /tmp/scratch.sock`
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use pci::{ConfigSpace, Cx, Device, Identity, Model, Width};
use vfio_user::{Options, Server};

struct Scratch {
    registers: [u8; 4096],
}

struct Raise;

impl Model for Scratch {
    type Output = Raise;

    fn read(&mut self, _: &mut Cx<'_, Raise>, offset: u64, width: Width) -> u64 {
        let mut value = [0; 8];
        value[..width.bytes()].copy_from_slice(&self.registers[offset as usize..][..width.bytes()]);
        u64::from_le_bytes(value)
    }

    fn write(&mut self, cx: &mut Cx<'_, Raise>, offset: u64, width: Width, value: u64) {
        self.registers[offset as usize..][..width.bytes()]
            .copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        match offset {
            0x10 => cx.emit(Raise),
            0x20 => {
                let address = self.read(cx, 0x18, Width::Qword);
                if let Err(error) = cx.dma.publish(address, value as u32) {
                    eprintln!("{address:#x}: {error}");
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self, _: &mut Cx<'_, Raise>) {
        self.registers.fill(0);
    }

    fn tick(&mut self, _: &mut Cx<'_, Raise>) {}

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn read_failed(_: u64, _: Width) -> u64 {
        u64::MAX
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let path = std::env::args().nth(1).unwrap_or_else(|| "/tmp/scratch.sock".into());
    let identity = Identity {
        vendor: 0x1234,
        device: 0x11e8,
        revision: 1,
        class: 0xff_00_00,
        subsystem_vendor: 0,
        subsystem: 0,
    };
    let config = ConfigSpace::builder(identity).bar64(0, 4096).pm(0x50).msi(0x60, 4).express(0x70).build();
    let mut device = Device::new(config, || Scratch { registers: [0; 4096] });
    let mut bus = Server::bind(path, device.layout(), Options::default())?.into_bus()?;
    let start = Instant::now();
    let mut effects = Vec::new();
    while let Some(transaction) = bus.transactions.next().await {
        transaction.perform(&mut device.turn(start.elapsed(), &*bus.dma, &mut effects));
        for Raise in effects.drain(..) {
            bus.interrupts.raise(0);
        }
    }
    Ok(())
}
