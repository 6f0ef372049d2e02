//! What no honest peer does.

use wire::Lane;

/// What the peer did that no honest peer does. The link is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Fewer bytes than a header has.
    #[error("frame of {0} bytes is shorter than its header")]
    Short(usize),
    /// A kind that this version does not know.
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// Bits that must be zero are not, or a kind has what it must not have.
    #[error("malformed header of a frame of kind {0:#04x}")]
    Header(u8),
    /// A frame of our own comes back to us.
    #[error("frame comes from our own side")]
    Mirrored,
    /// A frame of this kind does not belong on this lane.
    #[error("frame of kind {kind:#04x} does not belong on lane {lane:?}")]
    Lane {
        /// The kind.
        kind: u8,
        /// The lane.
        lane: Lane,
    },
    /// A frame is missing, doubled or out of order on a reliable lane.
    #[error("lane {lane:?}: frame at offset {found}, expected {expected}")]
    Sequence {
        /// The lane.
        lane: Lane,
        /// The offset that had to come.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// The peer sent more than it had credit for.
    #[error("lane {lane:?}: frame ends at offset {end}, the limit is {limit}")]
    Window {
        /// The lane.
        lane: Lane,
        /// Where the frame ends.
        end: u64,
        /// The limit that was announced.
        limit: u64,
    },
    /// The peer acknowledges what was never sent.
    #[error("lane {lane:?}: offset {found} acknowledged, {sent} sent")]
    Ack {
        /// The lane.
        lane: Lane,
        /// The offset acknowledged.
        found: u64,
        /// The offset sent so far.
        sent: u64,
    },
    /// Chunks that are no message: a second first one, a later one without a first, or an empty one in the middle.
    #[error("lane {0:?}: chunks do not make a message")]
    Fragments(Lane),
    /// A message longer than [`crate::MAX_MESSAGE`].
    #[error("lane {0:?}: message is too long")]
    TooLong(Lane),
    /// The bytes of a frame that attaches a link are not what its kind has: truncated, too long, or out of range.
    #[error("frame of kind {kind:#04x} with {len} bytes that make no sense")]
    Body {
        /// The kind.
        kind: u8,
        /// How many bytes follow the header.
        len: usize,
    },
    /// A frame of this kind does not belong on a link in this state: one that is not attached yet, or a hello to a
    /// session that has begun.
    #[error("frame of kind {0:#04x} before the link is attached, or after")]
    Unexpected(u8),
    /// An ATTACH of an epoch that has passed: a replay, or the slower of two.
    #[error("attach with epoch {found}, the session is in {current}")]
    Epoch {
        /// The epoch asked for.
        found: u32,
        /// The epoch that has been reached, or that we have asked for.
        current: u32,
    },
    /// The sender of an ATTACH or ATTACHED does not have the secret of the session, or it was made for another link.
    #[error("the peer does not prove to own the session")]
    Proof,
    /// More frames in front of the answer to an ATTACH than may be.
    #[error("{0} bytes came before the link was attached")]
    Early(usize),
}
