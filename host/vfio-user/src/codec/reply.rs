//! Answering.

use zerocopy::IntoBytes;

use super::Header;

/// Why a command is refused. Never 0: QEMU takes an error of 0 for success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// There is no such mapping (ENOENT).
    NotFound = 2,
    /// More than was agreed (E2BIG).
    TooBig = 7,
    /// It could not be mapped (ENOMEM).
    NoMemory = 12,
    /// It is there already (EEXIST).
    Exists = 17,
    /// Malformed or out of range (EINVAL).
    Invalid = 22,
    /// All places are taken (ENOSPC).
    NoSpace = 28,
    /// We do not know that command (EOPNOTSUPP).
    Unsupported = 95,
}

/// The right to answer one message. Does nothing if the sender does not want an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    id: u16,
    command: u16,
    wanted: bool,
}

impl Ticket {
    pub(super) fn new(header: Header) -> Self {
        Self { id: header.id, command: header.command, wanted: header.flags & Header::NO_REPLY == 0 }
    }

    /// Whether anybody waits for the answer.
    #[must_use]
    pub fn wanted(self) -> bool {
        self.wanted
    }

    /// Appends a reply with this payload.
    pub fn succeed(self, replies: &mut Vec<u8>, payload: &(impl IntoBytes + zerocopy::Immutable + ?Sized)) {
        let payload = payload.as_bytes();
        if self.wanted {
            self.header(replies, payload.len(), Header::REPLY, 0);
            replies.extend_from_slice(payload);
        }
    }

    /// Appends a reply with this payload and `count` bytes that `fill` writes over (they are 0 before). If nobody
    /// wants the answer `fill` is called all the same: reading may have effects.
    pub fn succeed_with(
        self,
        replies: &mut Vec<u8>,
        payload: &[u8],
        count: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let start = replies.len();
        self.header(replies, payload.len() + count, Header::REPLY, 0);
        replies.extend_from_slice(payload);
        let data = replies.len();
        replies.resize(data + count, 0);
        fill(replies.get_mut(data..).unwrap_or_default());
        if !self.wanted {
            replies.truncate(start);
        }
    }

    /// Appends an error reply: a header alone.
    pub fn refuse(self, replies: &mut Vec<u8>, why: Refusal) {
        if self.wanted {
            self.header(replies, 0, Header::REPLY | Header::ERROR, why as u32);
        }
    }

    fn header(self, replies: &mut Vec<u8>, payload: usize, flags: u32, errno: u32) {
        let size = (Header::BYTES + payload) as u32;
        let header = Header { id: self.id, command: self.command, size, flags, errno };
        replies.extend_from_slice(header.as_bytes());
    }
}
