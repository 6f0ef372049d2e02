//! Who is there: Noise IK over the channel of the link, before any frame.

use std::time::Duration;

use bytes::Bytes;
use link::PeerKey;
use noise::{Caller, Finished, FirstFrame, Initiator, MessageError, PublicKey, Responder, SecretKey, Suite};
use tokio::time::Instant;
use wire::control::{Answer, Hello};

use crate::{
    Error,
    line::{Event, Line},
    message::Outgoing,
};

/// The time that the handshake may take once the channels are open, seen from either side.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The time from the two descriptions to open channels: lossy paths need a few tries.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

const PROLOGUE: &[u8] = b"farbus/1 webrtc";

/// What a handshake has shown.
pub(crate) struct Met {
    /// The peer's key.
    pub(crate) peer: PeerKey,
    /// What both ends have, and no others.
    pub(crate) binding: [u8; 32],
    /// How long the peer's answer took, at the end that asked.
    pub(crate) round_trip: Option<Duration>,
}

/// What both ends have to have seen: the certificate of the offerer, and that of the answerer.
pub(crate) fn prologue(offerer: [u8; 32], answerer: [u8; 32]) -> Vec<u8> {
    [PROLOGUE, &offerer, &answerer].concat()
}

/// Waits until all channels are open, and the peer's as well.
///
/// What comes before our channels are open, the crate below drops, or makes an ordered stream for it. So each end says
/// when its are, on the channel of the link, where order does no harm. One of the two hears the other, as the later one
/// speaks to channels that are open, and answers.
pub(crate) async fn opened(line: &mut Line) -> Result<(), Error> {
    let all = async {
        while !(line.opened && line.ready) {
            next(line).await?;
        }
        Ok(())
    };
    in_time(CONNECT_DEADLINE, all).await
}

/// The remote's side.
pub(crate) async fn initiate(
    line: &mut Line,
    host: PublicKey,
    me: &SecretKey,
    hello: &Hello,
) -> Result<(Answer, Met), Error> {
    let prologue = prologue(line.peer.fingerprint, line.peer.remote_fingerprint().await?);
    let (noise, first) = Initiator::begin(Suite::best(), &prologue, host, me, hello)?;
    let shake = async {
        let asked = Instant::now();
        send(line, first.as_bytes());
        let message = receive(line).await?;
        let round_trip = Some(asked.elapsed());
        let (answer, mut finished) = noise.finish(&message)?;
        if let Answer::Refused { reason, text } = answer {
            return Err(Error::Refused { reason, text });
        }
        send(line, &confirmation(&mut finished)?);
        Ok((answer, Met { peer: finished.peer, binding: finished.binding, round_trip }))
    };
    in_time(DEADLINE, shake).await
}

/// The host's side, as far as it tells who is there.
pub(crate) async fn identify(line: &mut Line, me: &SecretKey) -> Result<(Responder, Caller), Error> {
    let prologue = prologue(line.peer.remote_fingerprint().await?, line.peer.fingerprint);
    let message = in_time(DEADLINE, receive(line)).await?;
    Ok(Responder::read(&FirstFrame::from_bytes(message.to_vec())?, &prologue, me)?)
}

/// The rest of the host's side: the answer, and the proof that the remote owns its key.
pub(crate) async fn respond(line: &mut Line, responder: Responder, answer: &Answer) -> Result<Met, Error> {
    let (message, mut finished) = responder.answer(answer)?;
    let shake = async {
        send(line, &message);
        let proof = receive(line).await?;
        let mut plain = vec![0; proof.len()];
        let read = finished.transport.read_message(&proof, &mut plain);
        read.map_err(|error| MessageError::Unproved(error.to_string()))?;
        Ok(Met { peer: finished.peer, binding: finished.binding, round_trip: None })
    };
    in_time(DEADLINE, shake).await
}

/// Tells a remote why it is not welcome, and waits until it has gone.
pub(crate) async fn refuse(line: &mut Line, responder: Responder, answer: &Answer) -> Result<(), Error> {
    let (message, _) = responder.answer(answer)?;
    send(line, &message);
    // It hangs up, however that looks.
    let gone = async { while next(line).await.is_ok() {} };
    let _ = tokio::time::timeout(DEADLINE, gone).await;
    Ok(())
}

fn confirmation(finished: &mut Finished) -> Result<Vec<u8>, Error> {
    let mut message = vec![0; 64];
    let len = finished.transport.write_message(&[], &mut message);
    message.truncate(len.map_err(|error| MessageError::Unproved(error.to_string()))?);
    Ok(message)
}

fn send(line: &Line, message: &[u8]) {
    line.send(Outgoing::Handshake(Bytes::copy_from_slice(message)));
}

async fn receive(line: &mut Line) -> Result<Bytes, Error> {
    loop {
        if let Some(message) = line.handshake.pop_front() {
            return Ok(message);
        }
        next(line).await?;
    }
}

/// Takes note of what happens next, unless it is the end of the connection.
async fn next(line: &mut Line) -> Result<(), Error> {
    let event = line.events.recv().await;
    match event {
        Some(Event::Opened) => {
            line.opened = true;
            line.send(Outgoing::Ready);
        }
        Some(Event::Ready { asks }) => {
            line.ready = true;
            if asks {
                line.send(Outgoing::Heard);
            }
        }
        // It may be here before our channels have opened.
        Some(Event::Handshake(message)) => line.handshake.push_back(message),
        Some(Event::Misbehaved(what)) => return Err(Error::Misbehaved(what)),
        Some(Event::Sent(..) | Event::Closed) => {}
        None | Some(Event::Failed | Event::Ended | Event::Close { .. }) => return Err(Error::Unreachable),
    }
    Ok(())
}

async fn in_time<T>(limit: Duration, handshake: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(Error::Deadline))
}
