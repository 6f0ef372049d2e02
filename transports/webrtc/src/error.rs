//! Why there is no link.

use noise::MessageError;
use wire::control::Refusal;

use crate::{
    handshake::{CONNECT_DEADLINE, DEADLINE},
    sdp::MAX_SDP,
};

/// Why a session description was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// It is longer than [`MAX_SDP`].
    #[error("a session description of {0} bytes is longer than the {MAX_SDP} that are read")]
    TooLong(usize),
    /// It has more of something than anybody needs.
    #[error("a session description with too many lines of `{0}`")]
    TooMany(&'static str),
    /// It names no SHA-256 fingerprint.
    #[error("a session description without a SHA-256 fingerprint")]
    NoFingerprint,
    /// It has no data channels.
    #[error("a session description without data channels")]
    NoDataChannels,
    /// It allows shorter messages than a link needs.
    #[error("a session description that allows messages of {0} bytes only")]
    ShortMessages(u64),
    /// It cannot be read, or does not fit what was said before.
    #[error("a session description that cannot be used: {0}")]
    Malformed(String),
}

/// Why there is no link, or it could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the peer's side of signalling gave is no use.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// An address cannot be bound, a server's URL cannot be read, or the like.
    #[error("cannot set up a connection: {0}")]
    SetUp(#[source] async_rtc::error::Error),
    /// No candidate pair worked, the peer's certificate is not the one of its description, or it left.
    #[error("no connection to the peer came about, or it ended during the handshake")]
    Unreachable,
    /// The peer took too long.
    #[error("not connected within {} s, or the handshake took longer than {} s", CONNECT_DEADLINE.as_secs(), DEADLINE.as_secs())]
    Deadline,
    /// The peer does not prove its key, or the certificates at the two ends are not the same: somebody is in between.
    #[error(transparent)]
    Handshake(#[from] MessageError),
    /// The peer broke the rules before it was known.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(String),
    /// The host does not want us, and says why.
    #[error("the host refused: {text}")]
    Refused {
        /// Whether a later try may succeed.
        reason: Refusal,
        /// One sentence for people.
        text: String,
    },
}

/// A description that the crate below does not take.
pub(crate) fn malformed(error: impl std::fmt::Display) -> Error {
    SdpError::Malformed(error.to_string()).into()
}
