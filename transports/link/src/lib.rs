//! A link: one authenticated attachment to a peer that carries frames on lanes.
//!
//! A link knows nothing of messages, numbers or credit; the session above it knows nothing of sockets. It is
//! *pulled*: who has frames waits for [`Link::poll_ready`] and only then chooses the most urgent one, so that
//! nothing queues below the place where urgency is known.
//!
//! ```text
//!  session ──frame──► outbound ─┐                  ┌─ the peer's drive ─► inbound ──► session
//!          (chosen late)        drive ── Link ─────┤
//!  session ◄── (lane, bytes) ◄── inbound           └─ ...
//! ```
//!
//! Links: [`pair`] in memory, `noise-tcp`, `webrtc`. Decorators for any of them: [`Faulty`], [`Recorder`].
//! Every link passes [`conformance::suite`].
#![forbid(unsafe_code)]

mod buffers;
pub mod conformance;
mod drive;
mod driven;
mod faulty;
mod memory;
mod recorder;

use std::{
    fmt, io,
    task::{Context, Poll},
};

use bytes::Bytes;
use wire::Lane;

pub use buffers::keep_buffers;
pub use drive::{LinkEnd, drive};
pub use driven::{Driven, Filled, Inbound, Outbound};
pub use faulty::{Cut, Faults, Faulty};
pub use memory::{Memory, MemoryConfig, pair, pair_with};
pub use recorder::{Entry, Recorder, Recording, Way};

/// A frame to send: two pieces that the link writes one after the other, so that a payload is not copied behind
/// its header. Received frames are contiguous.
pub type Frame = wire::Message;

/// What a kind of link can do; it does not change while the link lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The kind, as people write it: `noise-tcp`.
    pub name: &'static str,
    /// The longest frame, bytes, head and body together.
    pub max_frame: usize,
    /// The frame size up to which an urgent frame behind a long one still leaves soon, bytes.
    pub good_frame: usize,
    /// Whether frames of a lane arrive in the order they were sent, indexed by lane.
    pub ordered: [bool; Lane::ALL.len()],
    /// Whether frames of a lane may be lost although the link lives, indexed by lane.
    pub lossy: [bool; Lane::ALL.len()],
}

impl Profile {
    /// Whether frames of this lane arrive in the order they were sent.
    #[must_use]
    pub fn ordered(&self, lane: Lane) -> bool {
        self.ordered[lane as usize]
    }

    /// Whether frames of this lane may be lost although the link lives.
    #[must_use]
    pub fn lossy(&self, lane: Lane) -> bool {
        self.lossy[lane as usize]
    }
}

/// The X25519 public key that the peer proved to own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PeerKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// What a link has carried since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames accepted for sending.
    pub sent_frames: u64,
    /// Their bytes, framing not counted.
    pub sent_bytes: u64,
    /// Frames handed out.
    pub received_frames: u64,
    /// Their bytes, framing not counted.
    pub received_bytes: u64,
}

impl Stats {
    /// Counts a frame of `len` bytes that was accepted for sending.
    pub fn count_sent(&mut self, len: usize) {
        self.sent_frames += 1;
        self.sent_bytes += len as u64;
    }

    /// Counts a frame of `len` bytes that was handed out.
    pub fn count_received(&mut self, len: usize) {
        self.received_frames += 1;
        self.received_bytes += len as u64;
    }
}

/// Why a link can carry no more, or did not take a frame.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed it in good order, with this reason; every frame it sent before has arrived.
    #[error("the peer closed the link: {0}")]
    Closed(String),
    /// It was closed by us.
    #[error("the link is closed")]
    ClosedHere,
    /// It broke: the network, or a peer that vanished. Attach again.
    #[error("the link broke: {0}")]
    Lost(#[from] io::Error),
    /// The peer broke the rules of the link, or somebody tampered with it.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(String),
    /// The frame is longer than [`Profile::max_frame`]. The link lives on.
    #[error("frame of {len} bytes is longer than the {max} that fit")]
    TooLong {
        /// Its length, bytes.
        len: usize,
        /// The profile's limit, bytes.
        max: usize,
    },
    /// [`Link::send`] without [`Link::poll_ready`] having said so. The link lives on.
    #[error("the link has no room for a frame")]
    NotReady,
}

/// One authenticated attachment to a peer.
///
/// All methods are to be called from one task: a poll that returns `Pending` wakes that task. Errors other than
/// [`LinkError::TooLong`] and [`LinkError::NotReady`] are final.
pub trait Link: Send {
    /// What this link can do.
    fn profile(&self) -> &Profile;

    /// The key that the peer proved to own.
    fn peer(&self) -> PeerKey;

    /// A value that both ends of this link, and no other link, have: for binding what is said over it to it. Not secret.
    fn binding(&self) -> [u8; 32];

    /// Whether there is room for one more frame. Choose the frame only when there is.
    ///
    /// # Errors
    /// The link has ended.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// Takes a frame; it may stay here until [`Self::poll_flush`] or the next [`Self::poll_ready`].
    ///
    /// # Errors
    /// The frame is too long, there was no room, or the link has ended.
    fn send(&mut self, frame: Frame) -> Result<(), LinkError>;

    /// Gets everything on its way that was sent.
    ///
    /// # Errors
    /// The link has ended.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// The next frame of the peer.
    ///
    /// # Errors
    /// The link has ended; all frames that arrived before that were handed out.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>>;

    /// Closes it from this side: what was sent before still arrives, then the peer reads [`LinkError::Closed`] with
    /// this reason (cut to 256 bytes). Nothing can be sent or received here any more; [`Self::poll_close`] carries it out.
    fn close(&mut self, reason: &str);

    /// Flushes, and ends what is below. Dropping the link without it looks like a broken link to the peer.
    ///
    /// # Errors
    /// The link broke before everything was on its way.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// What it has carried.
    fn stats(&self) -> Stats;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn profile(&self) -> &Profile {
        (**self).profile()
    }

    fn peer(&self) -> PeerKey {
        (**self).peer()
    }

    fn binding(&self) -> [u8; 32] {
        (**self).binding()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        (**self).poll_ready(cx)
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        (**self).send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        (**self).poll_flush(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        (**self).poll_receive(cx)
    }

    fn close(&mut self, reason: &str) {
        (**self).close(reason);
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        (**self).poll_close(cx)
    }

    fn stats(&self) -> Stats {
        (**self).stats()
    }
}

/// The longest reason that travels with a close, bytes.
pub const MAX_REASON: usize = 256;

/// The reason, cut to [`MAX_REASON`] bytes at a character boundary.
#[must_use]
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}
