//! What was said once, and what was never right.

use std::future::poll_fn;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use functions::Keyboard;
use lab::farbus::{Host, PATIENCE};
use link::{Entry, Frame, Link, Way};
use noise_tcp::{HandshakeError, SecretKey};
use tokio::time::timeout;
use wire::{Lane, control::Refusal};

use crate::remote::{Remote, connect};

/// Says these frames over a link that is in no session, and hears all until the host hangs up.
async fn play(host: &Host, key: &SecretKey, frames: &[(Lane, Bytes)]) -> Result<Vec<(Lane, Bytes)>> {
    let mut link = connect(host, key).await?;
    for (lane, frame) in frames {
        // A host that has hung up does not listen any more.
        if poll_fn(|cx| link.poll_ready(cx)).await.is_err() {
            break;
        }
        let _ = link.send(Frame { lane: *lane, head: Bytes::new(), body: frame.clone() });
        let _ = poll_fn(|cx| link.poll_flush(cx)).await;
    }
    let mut heard = Vec::new();
    let all = async {
        while let Ok(frame) = poll_fn(|cx| link.poll_receive(cx)).await {
            heard.push(frame);
        }
    };
    timeout(PATIENCE, all).await.context("the host does not hang up")?;
    Ok(heard)
}

fn said(entries: Vec<Entry>) -> Vec<(Lane, Bytes)> {
    entries
        .into_iter()
        .filter(|entry| entry.way == Way::Sent)
        .map(|entry| (entry.lane, entry.frame))
        .collect()
}

/// The session goes on: what its remote lends arrives.
async fn is_unharmed(host: &mut Host, remote: &mut Remote) -> Result<()> {
    remote.lend(Keyboard::new())?;
    remote.beside(host.program.wait_for("attached")).await?;
    ensure!(host.program.seen("link_lost").is_empty(), "its session has ended");
    Ok(())
}

#[tokio::test]
async fn a_resumption_that_is_played_again_resumes_nothing_over_any_link_and_harms_nobody() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let key = SecretKey::generate();
    let (mut remote, begun) = Remote::begin(connect(&host, &key).await?).await?;
    host.program.wait_for("linked").await?;
    let resumed = remote.go_on(connect(&host, &key).await?).await?;
    host.program.wait_for("resumed").await?;
    let (hello, attach) = (said(begun.entries()), said(resumed.entries()));
    ensure!(!hello.is_empty() && !attach.is_empty());

    // Over links of the same key, which is the best that a thief of frames can have.
    for frames in [&attach[..1], &attach[..]] {
        let heard = remote.beside(play(&host, &key, frames)).await?;
        ensure!(heard.is_empty(), "the host answers {heard:?}");
    }
    // What belongs to the session, but opens none.
    if hello.len() > 1 {
        ensure!(remote.beside(play(&host, &key, &hello[1..])).await?.is_empty());
    }
    // Anybody else does not even get a link while the VM is taken.
    let stranger = connect(&host, &SecretKey::generate()).await;
    ensure!(
        matches!(stranger, Err(HandshakeError::Refused { reason: Refusal::Busy, .. })),
        "{:?}",
        stranger.err()
    );
    ensure!(host.program.seen("resumed").is_empty() && host.program.seen("detached").len() <= 1);
    is_unharmed(&mut host, &mut remote).await
}

#[tokio::test]
async fn links_that_begin_with_truncated_oversized_or_changed_frames_are_closed_and_harm_nobody() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let key = SecretKey::generate();
    let (mut remote, _) = Remote::begin(connect(&host, &key).await?).await?;
    host.program.wait_for("linked").await?;
    let resumed = remote.go_on(connect(&host, &key).await?).await?;
    host.program.wait_for("resumed").await?;
    let (_, attach) = said(resumed.entries()).swap_remove(0);
    let longest = noise_tcp::PROFILE.max_frame;
    let mut frames: Vec<Bytes> = [0, 1, 31, 32, attach.len() - 1].map(|len| attach.slice(..len)).into();
    for longer in [attach.len() + 1, longest] {
        let mut bytes = attach.to_vec();
        bytes.resize(longer, 0);
        frames.push(bytes.into());
    }
    // The kind, the epoch, the proof, and the last place.
    for at in [0, 4, 32 + 16, attach.len() - 1] {
        let mut bytes = attach.to_vec();
        bytes[at] ^= 0x55;
        frames.push(bytes.into());
    }
    for frame in frames {
        for lane in [Lane::Ctl, Lane::Bulk] {
            let heard = remote.beside(play(&host, &key, &[(lane, frame.clone())])).await?;
            ensure!(heard.is_empty(), "{} bytes on {lane:?}: the host answers {heard:?}", frame.len());
        }
    }
    is_unharmed(&mut host, &mut remote).await
}
