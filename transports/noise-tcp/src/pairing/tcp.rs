//! A pairing's messages on a TCP connection.

use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, ToSocketAddrs},
};
use wire::control::Hello;

use super::{Asking, Code, Frame, PairError, Paired};
use crate::{
    HandshakeError, PublicKey, SecretKey,
    handshake::{closed_by_host, closed_by_remote, in_time, read_message},
};

/// Pairs `me` with the host there, with the code that the host shows. `known` judges the key that the host announces
/// before anything depends on the code: an error of it ends the pairing.
///
/// # Errors
/// The host cannot be reached, expects nobody, does not know the code, or takes longer than [`crate::DEADLINE`].
pub async fn pair(
    addr: impl ToSocketAddrs,
    me: &SecretKey,
    hello: &Hello,
    code: &Code,
    known: impl FnOnce(PublicKey) -> Result<(), HandshakeError>,
) -> Result<Paired, PairError> {
    in_time(async {
        let mut stream = TcpStream::connect(addr).await.map_err(HandshakeError::Connect)?;
        let stream = &mut stream;
        let (asking, ask) = Asking::new(me);
        let offer = asking.offered(&exchange(stream, &ask).await?)?;
        known(offer.host())?;
        let (proving, answer) = offer.accept(code)?;
        let (waiting, proof) = proving.prove(&exchange(stream, &answer).await?, hello)?;
        waiting.told(&exchange(stream, &proof).await?)
    })
    .await
}

/// Says something to the host and reads its answer.
async fn exchange(stream: &mut TcpStream, frame: &[u8]) -> Result<Frame, HandshakeError> {
    stream.write_all(&framed(frame)).await.map_err(closed_by_host)?;
    read_message(stream).await.map_err(closed_by_host)
}

/// Says something to a remote.
///
/// # Errors
/// It is gone.
pub async fn say(stream: &mut TcpStream, frame: &[u8]) -> Result<(), HandshakeError> {
    stream.write_all(&framed(frame)).await.map_err(closed_by_remote)
}

/// Reads a remote's next message. Without a deadline of its own: who calls has one for the whole pairing.
///
/// # Errors
/// It is too long, or the connection has ended.
pub async fn listen(stream: &mut TcpStream) -> Result<Frame, HandshakeError> {
    read_message(stream).await.map_err(closed_by_remote)
}

/// With its length before it, so that it is one write.
fn framed(frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).expect("no message of a pairing is longer than MAX_HANDSHAKE");
    [&len.to_be_bytes(), frame].concat()
}
