//! A running virtual machine.

mod agent;
mod background;
mod boot;
mod command;

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::console::Console;
use crate::machine::Machine;
use crate::qmp::Qmp;
use agent::Agent;
pub use agent::Event;
pub(crate) use agent::Events;
pub(crate) use background::Background;
pub use boot::{Firmware, VmBuilder};
pub use command::{Command, Output, Running, TimedOut};

/// How long QEMU may go on once its machine was told to end.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// How long QEMU may take to reset the machine.
const RESETS_WITHIN: Duration = Duration::from_secs(120);
/// How long an archive may take to get into the guest.
const UNPACKS_WITHIN: Duration = Duration::from_secs(120);
/// How long the news of QEMU's end may lag behind the end of its channels.
const NEWS_WITHIN: Duration = Duration::from_secs(5);

/// A VM, running until it is told otherwise or dropped. When a test fails while it has one, its console is shown.
#[derive(Debug)]
pub struct Vm {
    machine: Machine,
    /// None if the machine boots from its own disks, where no agent of ours is.
    agent: Option<Arc<Agent>>,
    console: Console,
    firmware_log: Console,
    boot_limit: Duration,
}

impl Vm {
    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Runs a shell script in the guest, as root, for up to two minutes.
    ///
    /// # Errors
    /// [`TimedOut`], or the guest was reset or ended. A script that fails is not an error: see [`Output::success`].
    pub async fn run(&self, script: &str) -> Result<Output> {
        self.command(script).run().await
    }

    /// Starts a shell script in the guest, to be read while it runs.
    ///
    /// # Errors
    /// If the guest's agent is not there.
    pub async fn spawn(&self, script: &str) -> Result<Running<'_>> {
        self.command(script).spawn().await
    }

    /// A shell script for the guest, with more to be said about it.
    pub fn command(&self, script: &str) -> Command<'_> {
        Command::new(self, script)
    }

    /// Copies a file into the guest, with its permissions.
    ///
    /// # Errors
    /// If it cannot be read here or written there.
    pub async fn put_file(&self, from: impl AsRef<Path>, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let from = from.as_ref();
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.put(content, to).await?;
        self.run(&format!("chmod {mode:o} {}", quoted(to))).await?.success().map(drop)
    }

    /// Makes a file in the guest, and the folders it is in.
    ///
    /// # Errors
    /// If it cannot be written there.
    pub async fn put(&self, content: impl Into<Vec<u8>>, to: &str) -> Result<()> {
        let to = quoted(to);
        let put = self.command(&format!("mkdir -p \"$(dirname {to})\" && cat > {to}")).stdin(content);
        let put = put.run().await.and_then(Output::success);
        put.map(drop).with_context(|| format!("writing {to} in the guest"))
    }

    /// Unpacks a cpio archive in the guest's root.
    ///
    /// # Errors
    /// If it cannot be unpacked there.
    pub async fn unpack(&self, archive: impl Into<Vec<u8>>) -> Result<()> {
        let unpack = self.command("cd / && cpio -idmu 2>/dev/null").stdin(archive).timeout(UNPACKS_WITHIN);
        unpack.run().await.and_then(Output::success).map(drop).context("unpacking in the guest")
    }

    /// The content of a file in the guest.
    ///
    /// # Errors
    /// If it cannot be read there.
    pub async fn file(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.run(&format!("cat {}", quoted(path))).await.and_then(Output::success);
        Ok(file.with_context(|| format!("reading {path} in the guest"))?.bytes)
    }

    /// The serial console, COM1: the kernel's messages, or what the firmware and a boot sector print there.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// What SeaBIOS says of itself at its debug port.
    #[must_use]
    pub fn firmware_log(&self) -> &Console {
        &self.firmware_log
    }

    /// Has QEMU carry out a QMP command.
    ///
    /// # Errors
    /// QEMU's own; its end; no answer in time.
    pub async fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        self.machine.qmp().execute(command, arguments).await.with_context(|| self.context())
    }

    /// QEMU's events from now on; to be waited for with [`Qmp::event`].
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Value> {
        self.machine.qmp().events()
    }

    /// Process id of its QEMU.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.machine.process().id()
    }

    /// Presses the reset button and waits until the guest is up again. Commands that ran are lost.
    ///
    /// # Errors
    /// If the guest does not come up in the time it has to boot.
    pub async fn reset(&self) -> Result<()> {
        self.up_again(async { self.qmp("system_reset", json!({})).await.map(drop) }).await
    }

    /// Has the guest's kernel reboot and waits until it is up again. Commands that ran are lost.
    ///
    /// # Errors
    /// If the guest's agent is not there, or does not come back in the time it has to boot.
    pub async fn reboot(&self) -> Result<()> {
        // It ends in the middle of the command.
        self.up_again(async { self.spawn("sync; reboot -f").await.map(drop) }).await
    }

    async fn up_again(&self, restart: impl Future<Output = Result<()>>) -> Result<()> {
        let mut events = self.events();
        let mut lives = self.agent.as_ref().map(|agent| agent.lives());
        restart.await?;
        Qmp::event(&mut events, "RESET", RESETS_WITHIN).await.with_context(|| self.context())?;
        if let Some(lives) = &mut lives {
            // Whoever listens to the same event has the agent forget; the greeting to wait for is the one after that.
            let forgotten = timeout(RESETS_WITHIN, lives.changed()).await;
            forgotten.context("the agent's channel is stuck")??;
            self.up().await?;
        }
        Ok(())
    }

    /// Has the guest switch itself off and waits for the end of QEMU.
    ///
    /// # Errors
    /// If the guest's agent is not there, or the machine goes on.
    pub async fn shutdown(self) -> Result<ExitStatus> {
        // It ends in the middle of the command.
        drop(self.spawn("sync; poweroff -f").await?);
        self.ended(ENDS_WITHIN).await
    }

    /// Ends QEMU as a crash would.
    ///
    /// # Errors
    /// If its end cannot be seen.
    pub async fn kill(&self) -> Result<()> {
        self.machine.kill().await
    }

    /// How its QEMU ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        self.machine.process().exited()
    }

    /// Waits for the end of QEMU.
    ///
    /// # Errors
    /// If it goes on for `limit`.
    pub async fn ended(&self, limit: Duration) -> Result<ExitStatus> {
        let ended = timeout(limit, self.machine.process().wait()).await;
        Ok(ended.map_err(|_| anyhow!("it went on for {limit:?}")).with_context(|| self.context())??)
    }

    /// Waits until the guest's agent is there.
    async fn up(&self) -> Result<()> {
        let up = async {
            tokio::select! {
                ready = timeout(self.boot_limit, self.agent()?.ready()) => {
                    ready.map_err(|_| anyhow!("the guest is not up after {:?}", self.boot_limit))?
                }
                panic = self.console.wait_for("end Kernel panic", self.boot_limit) => {
                    panic?;
                    Err(anyhow!("the guest's kernel panicked"))
                }
                status = self.machine.process().wait() => Err(anyhow!("QEMU ended ({})", status?)),
            }
        };
        up.await.with_context(|| self.context())
    }

    fn agent(&self) -> Result<&Agent> {
        self.agent.as_deref().ok_or_else(|| anyhow!("no agent is in a machine that boots from its own disks"))
    }

    /// What became of a guest that lost its commands.
    async fn fate(&self) -> String {
        match timeout(NEWS_WITHIN, self.machine.process().wait()).await {
            Ok(Ok(status)) => format!("QEMU ended ({status})"),
            _ => "the guest was reset, or its agent restarted".to_owned(),
        }
    }

    /// What to tell about the VM when something went wrong in it.
    fn context(&self) -> String {
        format!("in VM {}{}{}", self.name(), self.machine.said(), self.console.tail())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("lab: what there is to know of the test's VM: {}", self.context());
        }
    }
}

/// A word for the shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
