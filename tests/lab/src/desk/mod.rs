//! The desk: a VM that is the remote computer, with real USB in it and Farbus's remote running inside.
//!
//! ```text
//!  desk VM ┬─ qemu-xhci, usb-ehci, ... ◄── QEMU's usb-storage, usb-uas, usb-audio, usb-kbd, usb-tablet
//!          ├─ dummy_hcd ◄───────────────── gadgets: a source and sink, disks, keyboards, serial lines, networks
//!          ├─ farbus-remote ◄── libusb ◄── all of these
//!          └─ eth0 ──► netem ──► QEMU's user network: 10.0.2.2 is this computer's loopback
//! ```
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! use lab::desk::{Function, Speed};
//! let lab = lab::Lab::open().await?;
//! let host = lab::farbus::Host::start(folder.path(), &["vm"]).await?;
//! let desk = lab.desk("desk").boot().await?;
//! let zero = desk.gadget("zero").speed(Speed::High).function(Function::SourceSink).plug().await?;
//! desk.netem("delay 20ms").await?;
//! let mut remote = desk.remote(&host, "remote", "vm", &["--usb", zero.id()]).await?;
//! remote.wait_for("attached").await?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod function;
mod gadget;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::farbus::{Host, Program, binary};
use crate::provision::pack;
use crate::vm::{Vm, quoted};

pub use builder::{Controller, DeskBuilder};
pub use function::{Function, KeyReport};
pub use gadget::{Gadget, GadgetBuilder, Speed};

/// This computer, seen from a VM with QEMU's user network.
pub const HOST_ADDRESS: &str = "10.0.2.2";
/// The desk's network interface.
const INTERFACE: &str = "eth0";
/// What QEMU calls the network behind it.
const NETWORK: &str = "net";
const REMOTE: &str = "farbus-remote";

/// A running desk. It is a [`Vm`], and can be used as one; but a reset takes its network and its gadgets away.
#[derive(Debug)]
pub struct Desk {
    vm: Vm,
    /// Programs that are there already.
    installed: Mutex<BTreeSet<String>>,
    /// The number of the port that the next gadget is plugged into, of so many.
    ports: Mutex<std::ops::Range<u32>>,
}

impl Deref for Desk {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl Desk {
    /// Makes a program of the workspace a command in the desk, once; it is built first if it is not there.
    ///
    /// # Errors
    /// If it cannot be built, lacks a library, or cannot be copied.
    pub async fn install(&self, program: &str) -> Result<()> {
        let mut installed = self.installed.lock().await;
        if installed.contains(program) {
            return Ok(());
        }
        let name = program.to_owned();
        let archive = spawn_blocking(move || pack(&binary(&name)?)).await?;
        self.unpack(archive?).await.with_context(|| format!("installing {program} in the desk"))?;
        installed.insert(program.to_owned());
        Ok(())
    }

    /// Starts a remote for a VM, with a key of its own, in the desk, and does not wait. `name` names its key and its
    /// log, which is kept in the host's folder. The times of its events (`at_ns`) are those of the desk's clock.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn remote(&self, host: &Host, name: &str, vm: &str, arguments: &[&str]) -> Result<Program> {
        self.install(REMOTE).await?;
        let (_, port) =
            host.address.rsplit_once(':').ok_or_else(|| anyhow!("the host's address has no port"))?;
        let address = format!("{HOST_ADDRESS}:{port}");
        let arguments = host.connect_arguments(&address, Path::new("/root"), name, vm, arguments);
        self.program(name, REMOTE, &arguments, host.folder()).await
    }

    /// Starts a program in the desk whose events are read from its standard output; its log goes to a file in
    /// `folder`, on this computer.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn program(
        &self,
        name: &str,
        program: &str,
        arguments: &[String],
        folder: &Path,
    ) -> Result<Program> {
        let words: Vec<_> = arguments.iter().map(|word| quoted(word)).collect();
        let script = format!("exec {} {}", quoted(program), words.join(" "));
        Program::in_vm(name, self.background(&script).await?, folder)
    }

    /// Opens a port of this computer's loopback that leads to a TCP port in the desk; its number.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub async fn forward(&self, port: u16) -> Result<u16> {
        // QEMU takes no 0 here: a port that is free now has to do.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let command = format!("hostfwd_add {NETWORK} tcp:127.0.0.1:{free}-:{port}");
        let said = self.qmp("human-monitor-command", json!({ "command-line": command })).await?;
        ensure!(said.as_str().is_some_and(str::is_empty), "forwarding port {free} to {port}: {said}");
        Ok(free)
    }

    /// What `farbus-remote devices --json` says in the desk.
    ///
    /// # Errors
    /// If it fails.
    pub async fn devices(&self) -> Result<serde_json::Value> {
        self.install(REMOTE).await?;
        let said = self.run(&format!("{REMOTE} devices --json")).await?.success()?;
        serde_json::from_str(&said.stdout).with_context(|| format!("reading {}", said.stdout))
    }

    /// Spoils what the desk sends, as `tc qdisc ... netem` takes it (`delay 20ms loss 1%`): a round trip takes that
    /// much longer. Replaces what was said before; nothing (`""`) makes the network good again.
    ///
    /// # Errors
    /// If `tc` does not understand it.
    pub async fn netem(&self, faults: &str) -> Result<()> {
        self.run(&builder::netem(faults)).await?.success().map(drop)
    }

    /// Spoils what the desk receives, in the same words; from now on.
    ///
    /// # Errors
    /// If `tc` does not understand it.
    pub async fn netem_of_what_comes(&self, faults: &str) -> Result<()> {
        self.run(&builder::netem_of_what_comes(faults)).await?.success().map(drop)
    }
}
