//! The socket of a connection: none of its calls waits.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use crate::codec::{Inbox, MAX_FDS};

/// Room for more descriptors than any message may have, so that one too many can be refused and not just lost.
const FDS: usize = 2 * MAX_FDS;

/// A connected socket. It is watched for input only: the kernel reports room for output each time the client has read
/// a reply, which would wake this thread once more for each register read. Output is watched while it is stuck.
pub(crate) struct Socket {
    input: AsyncFd<OwnedFd>,
    stuck: Option<AsyncFd<OwnedFd>>,
}

/// What a read has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// There may be more bytes.
    Some,
    /// The other end has closed, and everything was read.
    End,
}

impl Socket {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        let input = watch(socket.into_std()?.into(), Interest::READABLE)?;
        Ok(Self { input, stuck: None })
    }

    /// Reads once, when there is something to read.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox<OwnedFd>,
    ) -> Poll<io::Result<Input>> {
        let mut guard = ready!(self.input.poll_read_ready(cx))?;
        let space = inbox.space();
        let room = space.len();
        Poll::Ready(match receive(guard.get_inner(), space) {
            Ok((0, _)) => Ok(Input::End),
            Ok((bytes, descriptors)) => {
                // A read that was not filled has emptied the socket, and what comes later rings again: to say so here
                // saves the system call that would find it empty. Descriptors end a read early, though.
                if bytes < room && descriptors.is_empty() {
                    guard.clear_ready();
                }
                inbox.received(bytes, descriptors);
                Ok(Input::Some)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    Ok(Input::Some)
                }
                io::ErrorKind::Interrupted => Ok(Input::Some),
                io::ErrorKind::ConnectionReset => Ok(Input::End),
                _ => Err(error),
            },
        })
    }

    /// Sends as much as the socket takes; the rest stays. Answers whether there was room at all.
    pub(crate) fn send(&self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        match send(self.input.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            .map_err(io::Error::from)
        {
            Ok(sent) if sent >= bytes.len() => bytes.clear(),
            Ok(sent) => drop(bytes.drain(..sent)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(false),
                io::ErrorKind::Interrupted => {}
                // Whoever has closed before hearing the answer is gone; reading will tell.
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => bytes.clear(),
                _ => return Err(error),
            },
        }
        Ok(true)
    }

    /// Sends everything, as the socket takes it.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            if self.stuck.is_none() {
                self.stuck = Some(watch(self.input.get_ref().try_clone()?, Interest::WRITABLE)?);
            }
            if let Some(stuck) = &self.stuck {
                let mut guard = ready!(stuck.poll_write_ready(cx))?;
                if !self.send(bytes)? {
                    guard.clear_ready();
                }
            }
        }
        self.stuck = None;
        Poll::Ready(Ok(()))
    }

    /// Whether the other end has closed, however much of what it sent is still unread.
    pub(crate) fn hung_up(&self) -> bool {
        let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        let mut polled = [PollFd::new(self.input.get_ref(), PollFlags::RDHUP)];
        poll(&mut polled, Some(&Timespec::default())).is_ok()
            && polled.iter().any(|fd| fd.revents().intersects(ended))
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for the sake of types whose descriptor can change; this one's cannot"
)]
fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

fn receive(socket: impl AsFd, space: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [io::IoSliceMut::new(space)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        // Some are lost, and nobody can tell which.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors at once"));
    }
    Ok((message.bytes, descriptors))
}
