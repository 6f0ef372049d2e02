//! For who takes links and has to choose a session for each: what the first frame wants.

use bytes::{Buf, Bytes};
use wire::{Lane, Message};

use crate::{
    HEADER_LEN, ProtocolError, ResetReason, Role, SessionId,
    claim::{self, Claim},
    frame::{Header, Kind},
};

/// What a remote wants that has just connected. Look at its first frame with [`Self::of`], choose a session, say
/// [`crate::Session::link_up`], and feed it the same frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A new session. A session that its key had before is over.
    New,
    /// To go on with this one. Nothing is proved yet.
    Resume(SessionId),
}

impl Opening {
    /// Reads the first frame that came over a link to a host, on this lane.
    ///
    /// # Errors
    /// It is malformed, or nothing that opens a link: drop the link.
    pub fn of(lane: Lane, mut frame: Bytes) -> Result<Self, ProtocolError> {
        let header = Header::decode(&frame, lane, Role::Host)?;
        frame.advance(HEADER_LEN);
        match header.kind {
            Kind::Hello => claim::common_version(&frame).map(|_| Self::New),
            Kind::Attach => Claim::decode(header.kind, &frame).map(|claim| Self::Resume(claim.id)),
            kind => Err(ProtocolError::Unexpected(kind as u8)),
        }
    }
}

/// What a host answers on a link for which it has no session: a RESET. The link is to be closed after it.
#[must_use]
pub fn refusal(reason: ResetReason) -> Message {
    let header = Header::bare(Kind::Reset, Role::Host, 0);
    Message { lane: Lane::Ctl, head: Bytes::copy_from_slice(&header.encode()), body: reason.encode() }
}
