//! The claim, end to end over real sockets: two VMs, two remotes, stock drivers; and what one pair's death is to the
//! other.

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab,
    farbus::{self, Host},
    story::{Pair, Sequence},
};

#[tokio::test]
async fn a_key_makes_its_own_vm_play_and_only_its_own_remote_hears_it() -> Result<()> {
    claim("noise-tcp").await
}

#[tokio::test]
async fn by_webrtc_a_key_makes_its_own_vm_play_and_only_its_own_remote_hears_it() -> Result<()> {
    claim("webrtc").await
}

async fn claim(transport: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a", "b"]).await?;

    let mut a = Pair::start_by(transport, &lab, &mut host, "a", folder.path()).await?;
    let usb = a.vm.run("lsusb -t").await?.success()?.stdout;
    ensure!(usb.contains("Driver=usbhid"), "the stock driver does not drive the keyboard:\n{usb}");
    let alone = a.answer_key_with(&Sequence::new(48_000, 1)).await.context("pair A alone")?;
    ensure!(alone.bit_exact(), "A was not bit-exact: {alone:?}");

    // B starts while A plays, and both play at once.
    let long = Sequence::new(10 * 48_000, 2);
    let play_a = a.answer_key_with(&long);
    let start_b = Pair::start_by(transport, &lab, &mut host, "b", folder.path());
    let (heard_a, b) = tokio::join!(play_a, start_b);
    let (heard_a, mut b) = (heard_a.context("A while B starts")?, b?);
    ensure!(heard_a.bit_exact(), "A was disturbed by B's start: {heard_a:?}");

    let (first, second) = (Sequence::new(96_000, 3), Sequence::new(96_000, 4));
    let (heard_a, heard_b) = tokio::join!(a.answer_key_with(&first), b.answer_key_with(&second));
    let (heard_a, heard_b) = (heard_a.context("A beside B")?, heard_b.context("B beside A")?);
    ensure!(heard_a.bit_exact() && heard_b.bit_exact(), "not bit-exact: {heard_a:?} {heard_b:?}");
    ensure!(a.frames_received()? == 0 && b.frames_received()? == 0, "a remote heard what was not its own");

    Ok(())
}

#[tokio::test]
async fn killing_one_pairs_worker_does_not_disturb_the_other_pairs_stream() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::open().await?;
    let mut host = Host::start(folder.path(), &["a", "b"]).await?;
    let mut b = Pair::start(&lab, &mut host, "b", folder.path()).await?;
    let mut remote_a = host.remote("remote-a", "a", &["--keyboard"])?;
    remote_a.wait_for("connected").await?;
    let worker_a = host.workers["a"];

    // The kill comes while B plays: A's worker dies as soon as B's first frame was heard.
    let sequence = Sequence::new(5 * 48_000, 5);
    let heard = b.answer_key_meanwhile(&sequence, || farbus::kill(worker_a)).await.context("pair B")?;
    ensure!(heard.bit_exact(), "B was disturbed: {heard:?}");

    // A comes back by itself: a new worker, and its remote connects again.
    host.program.wait_where("worker_ended", |event| event["vm"] == "a").await?;
    host.program.wait_where("vm_ready", |event| event["vm"] == "a").await?;
    remote_a.wait_for("connected").await.context("A's remote does not come back")?;
    Ok(())
}
