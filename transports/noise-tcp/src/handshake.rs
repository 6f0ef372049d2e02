//! Who is there: one round trip, with a deadline and a size limit.

use std::{future::poll_fn, io, time::Duration};

use link::{Link, LinkError};
use noise::{
    Caller, Fingerprint, Finished, FirstFrame, Initiator, MAX_HANDSHAKE, MessageError, PublicKey, Responder,
    SecretKey, Suite,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, ToSocketAddrs},
    time::Instant,
};
use wire::{
    DecodeError,
    control::{Answer, Hello, Refusal},
};

use crate::{NoiseTcp, socket};

/// The time that the handshake may take, seen from either side; for [`connect`] the TCP connection is part of it.
pub const DEADLINE: Duration = Duration::from_secs(5);

const PROLOGUE: &[u8] = b"farbus/1 noise-tcp";

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The host cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The host hung up: what one does that cannot read the first message, because it has another key.
    #[error("the host closed the connection during the handshake: is --host-key right?")]
    ClosedByHost,
    /// Whoever answers there has another key than the host had, or says so: anybody on the way may have said it.
    #[error(
        "another key than the host's answers there: the fingerprint of the host's is {pinned}, of that one {found}; somebody may be in between, or the host has a new key: compare with `farbus-host key --fingerprint` there, then `farbus-remote forget HOST:PORT` and pair again"
    )]
    AnotherHost {
        /// Of the key that was expected.
        pinned: Fingerprint,
        /// Of the key that answers.
        found: Fingerprint,
    },
    /// The remote hung up.
    #[error("the remote closed the connection during the handshake")]
    ClosedByRemote,
    /// The peer took too long.
    #[error("the handshake was not finished within {} s", DEADLINE.as_secs())]
    Deadline,
    /// A message longer than [`MAX_HANDSHAKE`].
    #[error("handshake message of {0} bytes is too long")]
    TooLong(usize),
    /// The host cannot read the first message: it is for another key, or it is no handshake.
    #[error("the first message cannot be read: it was written for another host key, or by something else")]
    NotForUs,
    /// The peer's message or first record does not decrypt: a replay, or somebody in between.
    #[error("the peer did not prove its key: {0}")]
    Unproved(String),
    /// What the peer says inside the handshake is malformed.
    #[error("malformed handshake payload: {0}")]
    Payload(#[from] DecodeError),
    /// The host does not want us, and says why.
    #[error("the host refused: {text}")]
    Refused {
        /// Whether a later try may succeed.
        reason: Refusal,
        /// One sentence for people.
        text: String,
    },
}

/// Connects to a host, as `me`. Returns the link and the host's [`Answer::Welcome`].
///
/// # Errors
/// The host cannot be reached, has another key, refuses ([`HandshakeError::Refused`]), or took longer than [`DEADLINE`].
pub async fn connect(
    addr: impl ToSocketAddrs,
    host: PublicKey,
    me: &SecretKey,
    hello: &Hello,
) -> Result<(NoiseTcp, Answer), HandshakeError> {
    connect_with(Suite::best(), addr, host, me, hello).await
}

async fn connect_with(
    suite: Suite,
    addr: impl ToSocketAddrs,
    host: PublicKey,
    me: &SecretKey,
    hello: &Hello,
) -> Result<(NoiseTcp, Answer), HandshakeError> {
    in_time(async {
        let stream = TcpStream::connect(addr).await.map_err(HandshakeError::Connect)?;
        greet(suite, stream, host, me, hello).await
    })
    .await
}

/// Does what [`connect`] does over a connection that there is already.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_over(
    stream: TcpStream,
    host: PublicKey,
    me: &SecretKey,
    hello: &Hello,
) -> Result<(NoiseTcp, Answer), HandshakeError> {
    in_time(greet(Suite::best(), stream, host, me, hello)).await
}

async fn greet(
    suite: Suite,
    mut stream: TcpStream,
    host: PublicKey,
    me: &SecretKey,
    hello: &Hello,
) -> Result<(NoiseTcp, Answer), HandshakeError> {
    socket::tune(&stream);
    let (noise, first) = Initiator::begin(suite, PROLOGUE, host, me, hello)?;
    let asked = Instant::now();
    write_message(&mut stream, first.as_bytes()).await.map_err(closed_by_host)?;
    let message = read_message(&mut stream).await.map_err(closed_by_host)?;
    let round_trip = asked.elapsed();
    let pinned = host.fingerprint();
    match Fingerprint::read(&message) {
        Some(found) if found == pinned => return Err(HandshakeError::ClosedByHost),
        Some(found) => return Err(HandshakeError::AnotherHost { pinned, found }),
        None => {}
    }
    let (answer, finished) = noise.finish(&message)?;
    match answer {
        Answer::Refused { reason, text } => Err(HandshakeError::Refused { reason, text }),
        welcome @ Answer::Welcome { .. } => {
            let mut link = transport(stream, finished);
            link.answered_after(round_trip);
            link.confirm().and(poll_fn(|cx| link.poll_flush(cx)).await).map_err(|error| match error {
                LinkError::Lost(error) => closed_by_host(error),
                other => HandshakeError::Unproved(other.to_string()),
            })?;
            Ok((link, welcome))
        }
    }
}

/// Reads the first handshake message of a connection and nothing more.
///
/// # Errors
/// It is too long, did not come within [`DEADLINE`], or the connection ended.
pub async fn read_first(stream: &mut TcpStream) -> Result<FirstFrame, HandshakeError> {
    in_time(async {
        let message = read_message(stream).await.map_err(closed_by_remote)?;
        Ok(FirstFrame::from_bytes(message)?)
    })
    .await
}

/// Reads who wrote the first message. Pure; costs two Diffie-Hellman operations.
///
/// # Errors
/// The message is not for this key, or what it says is malformed.
pub fn identify(first: &FirstFrame, me: &SecretKey) -> Result<Caller, HandshakeError> {
    Ok(Responder::read(first, PROLOGUE, me)?.1)
}

/// Finishes the handshake with a remote that is welcome: sends `answer`, waits for the remote's first record.
///
/// # Errors
/// The message is not for this key, the remote does not prove its own (a replay), hangs up, or takes longer than
/// [`DEADLINE`].
pub async fn accept(
    mut stream: TcpStream,
    first: FirstFrame,
    me: &SecretKey,
    answer: &Answer,
) -> Result<NoiseTcp, HandshakeError> {
    in_time(async {
        socket::tune(&stream);
        let (message, finished) = Responder::read(&first, PROLOGUE, me)?.0.answer(answer)?;
        write_message(&mut stream, &message).await.map_err(closed_by_remote)?;
        let mut link = transport(stream, finished);
        poll_fn(|cx| link.poll_confirmed(cx)).await.map_err(|error| match error {
            LinkError::Lost(error) => closed_by_remote(error),
            other => HandshakeError::Unproved(other.to_string()),
        })?;
        Ok(link)
    })
    .await
}

/// Tells a remote that it is not welcome, with `answer` as the reason, and hangs up.
///
/// # Errors
/// The message is not for this key, or the remote did not wait for the answer.
pub async fn refuse(
    mut stream: TcpStream,
    first: FirstFrame,
    me: &SecretKey,
    answer: &Answer,
) -> Result<(), HandshakeError> {
    in_time(async {
        let (message, _) = Responder::read(&first, PROLOGUE, me)?.0.answer(answer)?;
        write_message(&mut stream, &message).await.map_err(closed_by_remote)?;
        stream.shutdown().await.map_err(closed_by_remote)
    })
    .await
}

/// Tells a remote whose first message is for another key which key this host has, as a fingerprint, and hangs up.
///
/// # Errors
/// The remote did not wait for it.
pub async fn not_for_us(mut stream: TcpStream, me: &SecretKey) -> Result<(), HandshakeError> {
    let message = me.public().fingerprint().message();
    in_time(async {
        crate::pairing::say(&mut stream, &message).await?;
        stream.shutdown().await.map_err(closed_by_remote)
    })
    .await
}

fn transport(stream: TcpStream, finished: Finished) -> NoiseTcp {
    NoiseTcp::new(stream, finished.transport, finished.peer, finished.binding)
}

/// Writes `u16 len | message` at once.
async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = message.len() as u16;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

pub(crate) async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, ReadError> {
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_HANDSHAKE {
        return Err(ReadError::TooLong(len));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Why a message could not be read or written; whose fault a closed connection is depends on the side.
pub(crate) enum ReadError {
    TooLong(usize),
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) fn closed_by_host(error: impl Into<ReadError>) -> HandshakeError {
    ended(error.into(), HandshakeError::ClosedByHost)
}

pub(crate) fn closed_by_remote(error: impl Into<ReadError>) -> HandshakeError {
    ended(error.into(), HandshakeError::ClosedByRemote)
}

fn ended(error: ReadError, closed: HandshakeError) -> HandshakeError {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        ReadError::TooLong(len) => HandshakeError::TooLong(len),
        ReadError::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            closed
        }
        ReadError::Io(error) => HandshakeError::Io(error),
    }
}

impl From<MessageError> for HandshakeError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::TooLong(len) => Self::TooLong(len),
            MessageError::NotForUs => Self::NotForUs,
            MessageError::Unproved(why) => Self::Unproved(why),
            MessageError::Payload(error) => Self::Payload(error),
        }
    }
}

pub(crate) async fn in_time<T, E: From<HandshakeError>>(
    handshake: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(DEADLINE, handshake).await.unwrap_or(Err(HandshakeError::Deadline.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_host_takes_every_suite() {
        let (host, remote) = (SecretKey::generate(), SecretKey::generate());
        let hello = Hello { version: wire::VERSION, vm: None, name: "x".repeat(200), signalling: false };
        let answer = Answer::Welcome { vm: "a".to_owned() };
        for suite in Suite::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let first = read_first(&mut stream).await.unwrap();
                assert_eq!(first.as_bytes()[0], suite as u8);
                accept(stream, first, &host, &answer).await.unwrap()
            };
            let (there, here) =
                tokio::join!(serve, connect_with(suite, addr, host.public(), &remote, &hello));
            assert_eq!(there.binding(), here.unwrap().0.binding(), "{suite:?}");
        }
    }
}
