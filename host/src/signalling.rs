//! A link over WebRTC whose offer and answer go over a link that is there already: who is at its other end is known.

use std::{future::poll_fn, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use link::{Frame, Link};
use noise_tcp::{NoiseTcp, SecretKey};
use tokio::time::timeout;
use webrtc::{Answerer, WebRtc};
use wire::{Lane, control::Answer};

/// How long a remote may take for its offer. It was made before this link was.
const OFFER: Duration = Duration::from_secs(5);

/// Takes the remote's offer from this link, answers it there, and waits for the other link.
///
/// # Errors
/// The offer is no use, no connection comes about, or somebody else is at the other end of it.
pub(crate) async fn answer(
    mut link: NoiseTcp,
    key: &SecretKey,
    answer: &Answer,
    config: &webrtc::Config,
) -> Result<WebRtc> {
    let offer = timeout(OFFER, poll_fn(|cx| link.poll_receive(cx))).await.context("no offer came")?;
    let (lane, offer) = offer.context("waiting for an offer")?;
    ensure!(lane == Lane::Ctl, "an offer on lane {lane:?}");
    let offer = str::from_utf8(&offer).context("an offer that is no text")?;
    let answerer = Answerer::new(config, offer).await?;
    let frame =
        Frame { lane: Lane::Ctl, head: answerer.answer().to_owned().into(), body: Default::default() };
    let say = async {
        poll_fn(|cx| link.poll_ready(cx)).await?;
        link.send(frame)?;
        poll_fn(|cx| link.poll_flush(cx)).await
    };
    timeout(OFFER, say).await.context("the remote does not take the answer")??;
    let incoming = answerer.caller(key).await?;
    if incoming.caller().key.0 != link.peer().0 {
        bail!("another remote came by WebRTC than the one that had offered it");
    }
    Ok(incoming.accept(answer).await?)
}
