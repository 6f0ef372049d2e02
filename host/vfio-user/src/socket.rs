//! The system calls of a connection: none of them waits.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

/// Room for more descriptors than any message may have, so that one too many can be refused and not just lost.
const FDS: usize = 2 * crate::codec::MAX_FDS;

/// What one read has brought.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Reads once. 0 bytes: the other end has closed.
pub(crate) fn receive(socket: impl AsFd, space: &mut [u8]) -> io::Result<Received> {
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
    Ok(Received { bytes: message.bytes, descriptors })
}

/// Writes once, as much as fits.
pub(crate) fn transmit(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Whether the other end has closed, however much of what it sent is still unread.
pub(crate) fn hung_up(socket: impl AsFd) -> bool {
    let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled.iter().any(|fd| fd.revents().intersects(ended))
}
