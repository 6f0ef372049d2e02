//! The channel between the connection manager and a worker: one message a packet over a Unix socket pair
//! (SOCK_SEQPACKET), with the remote's TCP socket attached where there is one.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram as StdSocket,
    },
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixDatagram};
use wire::control::{Answer, Hello};

use crate::{counted::Counted, lent::LentDevice, measured::Measure};

/// The largest packet, bytes: a session description and little beside it.
pub(crate) const MAX_PACKET: usize = webrtc::MAX_SDP + 8192;

/// What the manager tells a worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The attached TCP socket belongs to a remote that may have this VM; this is the first frame it sent.
    Adopt {
        /// The frame as it came.
        first: Vec<u8>,
    },
    /// This remote may not have the VM any more: tell it so, and end what it has.
    SendAway {
        /// Its public key.
        remote: [u8; 32],
        /// Why, for people.
        text: String,
    },
    /// Somebody at the web endpoint signals: see [`Signal`].
    Signal {
        /// Which call it is about.
        call: u64,
        /// The number that [`ToManager::Signalled`] repeats.
        ask: u64,
        /// What is signalled.
        signal: Signal,
    },
    /// What is answered to the remote of a [`ToManager::Called`].
    Judged {
        /// Its call.
        call: u64,
        /// The answer.
        answer: Answer,
    },
    /// End cleanly.
    Stop,
}

/// What a remote signals by the web endpoint. Nothing is known of who it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Signal {
    /// It begins a call; to be answered with a session description.
    Offer {
        /// A session description.
        sdp: String,
        /// Where it is.
        from: SocketAddr,
        /// The address at which it has reached the host.
        near: IpAddr,
    },
    /// More candidates, as a fragment of a session description; nothing is answered.
    Candidates(String),
    /// Another network, as a fragment of a session description; to be answered with one.
    Restart(String),
    /// The call is over.
    HangUp,
}

/// What became of a [`Signal`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Signalled {
    /// It was taken; the answer, if there is one.
    Done(String),
    /// It was of no use; why, for people.
    Useless(String),
    /// There is no such call, or no connection can be set up.
    Failed(String),
}

/// What a worker tells the manager.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToManager {
    /// Both sockets are there: the VM may start.
    Ready,
    /// A remote has proved its key.
    Proved {
        /// Where it is.
        from: SocketAddr,
    },
    /// A remote is linked.
    Linked {
        /// Its public key.
        remote: [u8; 32],
        /// The kind of its link.
        transport: String,
    },
    /// The remote has no link; what it lends is held.
    Detached {
        /// Why.
        reason: String,
    },
    /// The session goes on over another link.
    Resumed {
        /// The kind of the link.
        transport: String,
        /// How long there was none, milliseconds; none if it moved.
        after_ms: Option<u64>,
    },
    /// The remote is gone.
    LinkLost {
        /// Why.
        reason: String,
    },
    /// A device is lent.
    Attached {
        /// Its name.
        name: String,
        /// `idVendor:idProduct`.
        id: String,
    },
    /// What is lent, when that has changed; nothing is after [`Self::LinkLost`].
    Lent(Vec<LentDevice>),
    /// What was counted, once a second while it moves.
    Counted(Box<Counted>),
    /// What the controllers measured, once a second if metrics are asked for.
    Measured(Vec<Measure>),
    /// What became of a signal.
    Signalled {
        /// Its number.
        ask: u64,
        /// The outcome.
        outcome: Signalled,
    },
    /// The remote of a call has said who it is, and waits for [`ToWorker::Judged`]. Its key is not proved yet.
    Called {
        /// The call.
        call: u64,
        /// Its public key.
        remote: [u8; 32],
        /// What it said.
        hello: Hello,
    },
    /// A call is over, whatever became of it.
    HungUp {
        /// The call.
        call: u64,
    },
    /// A controller failed too often.
    GaveUp {
        /// Which.
        controller: String,
    },
}

/// One end of the channel.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixDatagram,
}

/// Makes both ends; the second becomes the worker process's standard input.
///
/// # Errors
/// The system has no descriptors left.
pub(crate) fn pair() -> io::Result<(StdSocket, OwnedFd)> {
    let (own, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((StdSocket::from(own), theirs))
}

/// The worker's end: its standard input.
///
/// # Errors
/// Standard input is not the manager's socket, because somebody started the worker by hand.
pub(crate) fn inherited() -> io::Result<StdSocket> {
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_type(stdin.as_fd()).ok() != Some(SocketType::SEQPACKET) {
        let text = "`farbus-host vm` is started by `farbus-host serve`; run that instead";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(StdSocket::from(stdin.as_fd().try_clone_to_owned()?))
}

impl Channel {
    /// An end that this process holds.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub(crate) fn new(socket: StdSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)? })
    }

    /// Sends a message, with a descriptor if there is one.
    ///
    /// # Errors
    /// The other process is gone.
    pub(crate) async fn send(&self, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = rmp_serde::to_vec_named(message).map_err(io::Error::other)?;
        self.socket.async_io(Interest::WRITABLE, || self.send_packet(&bytes, fd)).await
    }

    fn send_packet(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives the next message; `None` when the other process has gone.
    ///
    /// # Errors
    /// What came is not a message.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let (bytes, fd) = self.socket.async_io(Interest::READABLE, || self.receive_packet()).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let message = rmp_serde::from_slice(&bytes).map_err(io::Error::other)?;
        Ok(Some((message, fd)))
    }

    fn receive_packet(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut buffer = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        let received = match recvmsg(&self.socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            // The other process was killed with packets of ours unread: it is gone all the same.
            Err(rustix::io::Errno::CONNRESET) => return Ok((Vec::new(), None)),
            Err(error) => return Err(error.into()),
        };
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        buffer.truncate(received.bytes);
        Ok((buffer, fd))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_message_arrives_whole_with_its_socket() {
        let (own, theirs) = pair().unwrap();
        let (own, theirs) = (Channel::new(own).unwrap(), Channel::new(theirs.into()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();

        own.send(&ToWorker::Adopt { first: vec![7; 1024] }, Some(server.as_fd())).await.unwrap();
        drop(server);
        let (message, fd) = theirs.receive::<ToWorker>().await.unwrap().unwrap();

        assert_eq!(message, ToWorker::Adopt { first: vec![7; 1024] });
        let mut adopted = std::net::TcpStream::from(fd.unwrap());
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut adopted, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[tokio::test]
    async fn the_longest_session_description_fits() {
        let (own, theirs) = pair().unwrap();
        let (own, theirs) = (Channel::new(own).unwrap(), Channel::new(theirs.into()).unwrap());
        let near = IpAddr::from([127, 0, 0, 1]);
        let signal = Signal::Offer { sdp: "x".repeat(webrtc::MAX_SDP), from: (near, 1).into(), near };
        let message = ToWorker::Signal { call: u64::MAX, ask: u64::MAX, signal };
        own.send(&message, None).await.unwrap();
        assert_eq!(theirs.receive::<ToWorker>().await.unwrap().unwrap().0, message);
    }

    #[tokio::test]
    async fn a_dead_peer_is_an_end_not_an_error() {
        let (own, theirs) = pair().unwrap();
        let own = Channel::new(own).unwrap();
        drop(theirs);
        assert!(own.receive::<ToManager>().await.unwrap().is_none());
    }
}
