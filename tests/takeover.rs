//! A second remote with the key of one that has a VM, from another process and address.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{self, Cable, Host};

/// Where the second one comes from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// What a remote ends with that a host has sent away for good.
const SENT_AWAY: i32 = 3;

#[tokio::test]
async fn a_second_remote_with_the_same_key_takes_the_vm_over_and_the_first_one_is_sent_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut first = host.remote("desk", "a", &["--keyboard"])?;
    first.wait_for("connected").await?;
    let had = host.program.wait_for("linked").await?;
    host.program.wait_for("attached").await?;

    let cable = Cable::from(ELSEWHERE, &host.address).await?;
    let mut second = host.remote_by(&cable, "desk", "a", &["--keyboard"])?;
    second.wait_for("connected").await.context("the second one does not get the VM")?;
    let refused = first.wait_for("refused").await.context("the first one is not told")?;
    ensure!(refused["again"] == false && refused["text"] == "the host ends this session", "{refused}");
    ensure!(first.ended().await?.code() == Some(SENT_AWAY));

    let left = host.program.wait_for("link_lost").await?;
    ensure!(left["reason"].as_str().is_some_and(|reason| reason.contains("took the VM over")), "{left}");
    let has = host.program.wait_for("linked").await?;
    ensure!(has["remote"] == had["remote"], "another key: {had}, {has}");
    host.program.wait_for("attached").await.context("what the second one lends is not plugged in")?;
    ensure!(second.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_remote_that_is_killed_and_started_again_with_its_key_begins_anew_while_its_devices_are_held()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let mut first = host.remote("desk", "a", &["--keyboard"])?;
    first.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    farbus::kill(first.id().context("the remote runs")?)?;
    host.program.wait_for("detached").await?;
    ensure!(host.program.seen("link_lost").is_empty(), "its devices are not held");

    let mut again = host.remote("desk", "a", &["--keyboard"])?;
    again.wait_for("connected").await?;
    // What it had lent is unplugged, and what it lends now is plugged in.
    let left = host.program.wait_for("link_lost").await?;
    ensure!(left["reason"].as_str().is_some_and(|reason| reason.contains("took the VM over")), "{left}");
    host.program.wait_for("attached").await?;
    ensure!(host.program.seen("resumed").is_empty(), "a new process cannot go on with a session");
    ensure!(again.stop().await?.success());
    Ok(())
}
