//! Real virtual machines for tests, the demo and people.
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! let lab = lab::Lab::open().await?;
//! let vm = lab.vm("a").usb_socket("/run/a/usb.sock").hda_socket("/run/a/hda.sock").boot().await?;
//! let devices = vm.run("lsusb -t").await?.success()?.stdout;
//! assert!(devices.contains("Driver=usbhid"), "{devices}");
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  test ──► Lab ──► provision: QEMU, a stock kernel, an initramfs with the agent (made once, kept in the cache)
//!            ├────► VmBuilder ──boot──► Vm ─┬─ agent: commands, files          (virtio-console port)
//!            │                              ├─ Console: what guest and firmware print (COM1, port 0x402)
//!            │                              └─ Qmp: QEMU itself
//!            ├────► DeskBuilder ─boot──► Desk: a Vm with USB devices and a remote of Farbus's in it
//!            └────► QtestBuilder ──start──► Qtest ─┬─ the bus: memory, ports, PCI configuration
//!                                                  └─ Qmp
//! ```
//! Everything that can be waited for is an event: a frame, a line, the end of a process. Nothing sleeps.
//! A machine ends with the value that stands for it, and with the process that holds that.

#![forbid(unsafe_code)]

mod console;
pub mod desk;
pub mod farbus;
#[path = "../agent/frame.rs"]
mod frame;
mod lab;
mod machine;
mod process;
pub mod provision;
mod qmp;
mod qtest;
pub mod story;
mod vm;

pub use console::Console;
pub use lab::Lab;
pub use qmp::Qmp;
pub use qtest::{Devfn, Qtest, QtestBuilder};
pub use vm::{Command, Event, Firmware, Output, Running, TimedOut, Vm, VmBuilder};
