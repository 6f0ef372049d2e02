//! A VMM that says anything on its vfio-user socket.

use vfio_user::codec::{Action, Header, Inbox, MAX_MESSAGE, Protocol, Refusal, Ticket, Version};
use zerocopy::{FromBytes, IntoBytes};

const LAYOUT: pci::Layout = pci::Layout { bars: [0x4000, 0, 0x1000, 0, 0, 0], msi: 4, msix: 0, intx: true };
/// Bits of the first byte.
const WRITE_MULTIPLE: u8 = 1;
const GREETED: u8 = 2;
const REFUSE: u8 = 4;

/// The first byte: what was agreed before; the second: in which pieces the rest arrives, as bytes of a socket. No
/// panic, and replies that are whole messages with the id of their command.
pub(crate) fn run(data: &[u8]) {
    let [mode, piece, bytes @ ..] = data else { return };
    let mut protocol = Protocol::new(LAYOUT, mode & WRITE_MULTIPLE != 0);
    let mut inbox = Inbox::<u8>::default();
    if mode & GREETED != 0 {
        let header = Header { id: 0, command: 1, size: 20, flags: 0, errno: 0 };
        let hello = [header.as_bytes(), Version { major: 0, minor: 1 }.as_bytes()].concat();
        assert_eq!(protocol.step(&hello, 0, &mut Vec::new()), Action::Greeted);
    }
    for (number, piece) in bytes.chunks(usize::from(*piece) + 1).enumerate() {
        let mut rest = piece;
        while !rest.is_empty() {
            let space = inbox.space();
            assert!(!space.is_empty() && space.len() <= MAX_MESSAGE, "room, and not too much");
            let length = space.len().min(rest.len());
            space[..length].copy_from_slice(&rest[..length]);
            let descriptors = if number % 3 == 2 { vec![0; number % 5] } else { Vec::new() };
            inbox.received(length, descriptors);
            rest = &rest[length..];
            if !messages(&mut inbox, &mut protocol, mode & REFUSE != 0) {
                return;
            }
        }
    }
}

/// Takes every message that is complete; whether the connection goes on.
fn messages(inbox: &mut Inbox<u8>, protocol: &mut Protocol, refuse: bool) -> bool {
    loop {
        let Ok(ready) = inbox.ready() else { return false };
        let Some(length) = ready else { return true };
        let fds = inbox.take_descriptors().len();
        let message = inbox.front(length).to_vec();
        assert_eq!(message.len(), length);
        inbox.consume(length);
        let mut replies = Vec::new();
        let goes_on = carry_out(protocol, &message, fds, refuse, &mut replies);
        check(&message, &replies);
        if !goes_on {
            return false;
        }
    }
}

fn carry_out(
    protocol: &mut Protocol,
    message: &[u8],
    fds: usize,
    refuse: bool,
    replies: &mut Vec<u8>,
) -> bool {
    let end = |ticket: Ticket, replies: &mut Vec<u8>| match refuse {
        true => ticket.refuse(replies, Refusal::NoMemory),
        false => ticket.succeed(replies, &[0_u8; 0][..]),
    };
    match protocol.step(message, fds, replies) {
        Action::Close(_) => return false,
        Action::Done | Action::Greeted => {}
        Action::Map(map, ticket) => {
            assert!(map.size > 0 && map.address.checked_add(map.size - 1).is_some(), "nothing wraps");
            end(ticket, replies);
        }
        Action::Unmap(what, ticket) | Action::UnmapAll(what, ticket) => {
            let result = if refuse { Err(Refusal::NotFound) } else { Ok(()) };
            protocol.unmapped(what, result, ticket, replies);
        }
        Action::Read(access, ticket) => {
            ticket.succeed_with(replies, access.as_bytes(), access.count as usize, |data| data.fill(1));
        }
        Action::Write(access, data, ticket) => {
            assert_eq!(access.count as usize, data.len());
            ticket.succeed(replies, &access);
        }
        Action::WriteMany(_, ticket) | Action::Wire(_, _, ticket) | Action::Reset(ticket) => {
            end(ticket, replies)
        }
    }
    true
}

/// One reply at most, whole, to this message.
fn check(message: &[u8], replies: &[u8]) {
    if replies.is_empty() {
        return;
    }
    let (asked, _) = Header::read_from_prefix(message).expect("only a message with a header is answered");
    let (reply, _) = Header::read_from_prefix(replies).expect("a reply has a header");
    assert_eq!((reply.size as usize, reply.id), (replies.len(), asked.id));
    assert_eq!(reply.flags & Header::TYPE, Header::REPLY);
}
