//! `--transport auto` with both kinds of links: Noise goes through the cable, WebRTC past it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Cable, Host};

/// Each way; what a slow mobile network has.
const SLOW: Duration = Duration::from_millis(150);

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
    let mut remote = host.remote_by(&cable, "desk", "a", &["--keyboard", "--transport", "auto"])?;
    let first = remote.wait_for("connected").await?;
    ensure!(first["transport"] == "noise-tcp", "on loopback there is nothing to gain by WebRTC: {first}");
    host.program.wait_for("attached").await?;
    cable.delay(SLOW);
    let moved = remote.wait_for("resumed").await.context("it stays on the link that has become slow")?;
    ensure!(moved["transport"] == "webrtc" && moved["after_ms"].is_null(), "there was a gap: {moved}");
    for gone in ["detached", "link_lost", "attached"] {
        ensure!(host.program.seen(gone).is_empty(), "the VM noticed: {gone}");
    }
    ensure!(remote.stop().await?.success());
    Ok(())
}
