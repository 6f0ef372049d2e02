//! What the machine's firmware does with lent devices, before any operating system.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Firmware, Lab, farbus::Host};

/// Firmware under TCG, with all its waiting for keys.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(240);

#[tokio::test]
async fn ovmf_reaches_its_shell_and_obeys_what_is_typed_at_the_remote() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut remote = host.remote("remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    let vm = lab
        .vm("a")
        .usb_socket(host.seat("a").usb_socket())
        .firmware(Firmware::Ovmf)
        .kernel_boot(false)
        .boot()
        .await?;
    let console = vm.console();
    console.wait_for("UEFI Interactive Shell", FIRMWARE_LIMIT).await.context("the shell does not start")?;
    remote.say("key ESC").await?;
    console.wait_for("Shell>", FIRMWARE_LIMIT).await.context("the shell does not prompt")?;
    // The answer is not what was typed: the shell has understood it.
    remote.say("type set -v answer forty-two").await?;
    remote.say("key ENTER").await?;
    remote.say("type echo it-is-%answer%").await?;
    remote.say("key ENTER").await?;
    console.wait_for("it-is-forty-two", FIRMWARE_LIMIT).await.context("the shell does not obey")?;
    Ok(())
}
