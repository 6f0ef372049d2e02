//! The desk of `lab run`: the remote's own VM, and the script that runs in it.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lab::desk::Desk;
use lab::{Event, Lab, Running};

use super::{call, words};

/// Where the script is put in the desk.
const SCRIPT: &str = "/root/script";
/// The line by which the script says that the rest may begin.
const READY: &[u8] = b"READY\n";
/// Name of the one desk.
const DESK: &str = "desk";

/// What the desk is made of.
#[derive(Args, Debug)]
pub(super) struct DeskArguments {
    /// Run the remote in a VM of its own, the desk, with these arguments for QEMU, in one string that may be empty.
    /// Its controller for QEMU's USB devices is xhci.0: "-device usb-kbd,bus=xhci.0"
    #[arg(long, value_name = "QEMU ARGS", allow_hyphen_values = true, conflicts_with = "without_farbus")]
    desk: Option<String>,
    /// A script to run in the desk. It runs first: the remote and the guest start when it has ended well, or has
    /// printed the line READY; then it goes on beside the guest's script, and is ended with it. Gadgets can be made in
    /// /sys/kernel/config/usb_gadget for dummy_udc.0 to dummy_udc.3. What it prints comes to standard error
    #[arg(long, value_name = "FILE", requires = "desk")]
    desk_script: Option<PathBuf>,
    /// Faults of the network between remote and host, as `tc qdisc ... netem` takes them: "delay 20ms loss 1%".
    /// They are applied to what the desk sends, so a round trip takes that much longer
    #[arg(long, value_name = "FAULTS", requires = "desk")]
    netem: Option<String>,
}

impl DeskArguments {
    /// Boots the desk, if there is to be one.
    pub(super) async fn boot(&self, lab: &Lab) -> Result<Option<Desk>> {
        let Some(qemu) = &self.desk else { return Ok(None) };
        let desk = lab.desk(DESK).qemu_args(words(qemu)?).netem(self.netem.as_deref().unwrap_or_default());
        Ok(Some(desk.boot().await?))
    }

    /// Starts the script, if there is one, and waits until the rest may begin.
    pub(super) async fn begin<'desk>(&self, desk: Option<&'desk Desk>) -> Result<Script<'desk>> {
        let (Some(desk), Some(file)) = (desk, &self.desk_script) else { return Ok(Script(None)) };
        let script = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let call = call(&script, SCRIPT);
        desk.put(script, SCRIPT).await?;
        let mut running = desk.spawn(&call).await?;
        let mut said = Vec::<u8>::new();
        loop {
            let event = running.next().await?;
            if let Event::Stdout(bytes) = &event {
                said.extend(bytes);
            }
            match pass_on(event)? {
                Some(0) => return Ok(Script(None)),
                Some(code) => bail!("the desk's script failed with exit code {code}"),
                None if said.split_inclusive(|byte| *byte == b'\n').any(|line| line == READY) => {
                    return Ok(Script(Some(running)));
                }
                None => {}
            }
        }
    }
}

/// The desk's script, which may have ended.
pub(super) struct Script<'desk>(Option<Running<'desk>>);

impl Script<'_> {
    /// Passes on what the script says for as long as this is polled.
    ///
    /// # Errors
    /// If the desk is gone.
    pub(super) async fn go_on(&mut self) -> Result<std::convert::Infallible> {
        while let Some(running) = &mut self.0 {
            if let Some(code) = pass_on(running.next().await?)? {
                self.0 = None;
                if code != 0 {
                    eprintln!("lab: the desk's script failed with exit code {code}");
                }
            }
        }
        std::future::pending().await
    }
}

/// Prints what the script says; its exit code, once there is one.
fn pass_on(event: Event) -> Result<Option<i32>> {
    match event {
        Event::Stdout(bytes) | Event::Stderr(bytes) => {
            io::stderr().lock().write_all(&bytes).context("writing to standard error")?;
            Ok(None)
        }
        Event::Exit(code) => Ok(Some(code)),
    }
}
