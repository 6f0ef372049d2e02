//! `--transport auto` with both kinds of links: Noise goes through the cable, WebRTC past it.

use std::{process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Cable, Host, binary};

/// Each way; what a slow mobile network has.
const SLOW: Duration = Duration::from_millis(150);

async fn switch(control: &str, to: &str) -> Result<Output> {
    let mut command = tokio::process::Command::new(binary("farbus-remote")?);
    Ok(command.args(["switch", to, "--control", control]).output().await?)
}

#[tokio::test]
async fn a_session_ends_up_on_the_kind_of_link_whose_round_trip_is_shorter() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let cable = Cable::to(&host.address).await?;
    cable.delay(SLOW);
    let mut remote = host.remote_by(&cable, "desk", "a", &["--keyboard", "--transport", "auto"])?;
    let first = remote.wait_for("connected").await?;
    if first["transport"] != "webrtc" {
        let moved = remote.wait_for("resumed").await.context("it stays on the slow link")?;
        ensure!(moved["transport"] == "webrtc" && moved["after_ms"].is_null(), "{moved}");
    }
    host.program.wait_for("attached").await?;
    ensure!(remote.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_session_moves_by_itself_without_a_gap_when_its_link_becomes_slow() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let cable = Cable::to(&host.address).await?;
    let control = folder.path().join("remote.sock").display().to_string();
    let arguments = ["--keyboard", "--transport", "auto", "--control", &control];
    let mut remote = host.remote_by(&cable, "desk", "a", &arguments)?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    // After moves by hand nothing is left of the attempts that every session begins with.
    for to in ["webrtc", "noise-tcp"] {
        let mut said = switch(&control, to).await?;
        if !said.status.success() {
            // One of those attempts has come first; there is no other.
            said = switch(&control, to).await?;
        }
        ensure!(said.status.success(), "{said:?}");
    }
    while remote.wait_for("resumed").await?["transport"] != "noise-tcp" {}
    ensure!(remote.seen("resumed").is_empty(), "it moves by itself on a good link");
    cable.delay(SLOW);
    let moved = remote.wait_for("resumed").await.context("it stays on the link that has become slow")?;
    ensure!(moved["transport"] == "webrtc" && moved["after_ms"].is_null(), "there was a gap: {moved}");
    for gone in ["detached", "link_lost", "attached"] {
        ensure!(host.program.seen(gone).is_empty(), "the VM noticed: {gone}");
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}
