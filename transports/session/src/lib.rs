//! A session: numbered messages on prioritised lanes, over a link that somebody else runs.
//!
//! Pure: no clock, no socket, no thread. Whoever owns a [`Session`] feeds it and drains it:
//!
//! ```text
//!            send(message)                        poll_event() ─► Message(lane, bytes) ... consumed(lane, n)
//!                 │                                     ▲                                      │
//!   queue per lane, bounded bytes           inbox per lane, bounded by credit ◄── credit goes back
//!                 │  cut into chunks                    │  put together again
//!                 ▼                                     │
//!   poll_transmit(now) ─► frame ─► link ─► ... ─► link ─► receive(now, lane, frame)
//!
//!   states:   open ──close()──► closing ──queues empty, CLOSE sent──► closed
//!             open ──CLOSE received──► events of what came before ──► PeerClosed
//!             open ──nothing heard for `dead_after`──► PeerSilent (and open again as soon as something is heard)
//! ```
//!
//! The rules:
//! - **Order** is kept within a lane, never across lanes. CTL, INT and BULK are reliable: every message once, in order.
//!   AUDIO and ISO may lose: what does not fit drops the oldest, what arrives late is dropped.
//! - **Urgency** is decided frame by frame in [`Session::poll_transmit`]: CTL > INT > AUDIO > ISO, then BULK, which has
//!   a twentieth of the bytes reserved while it has something to send. A message never waits behind more than one chunk
//!   of a less urgent lane. A chunk is what the link takes in a millisecond at the rate of the moment, between
//!   16 KiB and [`Config::max_chunk`].
//! - **Credit**: on a reliable lane the peer may send up to an offset that we announced; the offset counts frames with
//!   their headers, so small frames cost what they take. Memory at both ends is bounded whatever the peer does:
//!   window + one message per lane here, the queue there.
//! - **Hostile input** is a [`ProtocolError`]: drop the link. Nothing is allocated by a length that is only announced.
//!
//! # Frames
//! ```text
//! kind u8 | flags u8 | zero u16 | epoch u32 | seq u64 | ack u64 | limit u64 | bytes       (little-endian)
//! ```
//! `seq` is the offset of the frame in its lane, `ack` the offset up to which the lane's other direction was accepted
//! by the application, `limit` the offset up to which the peer may send. `epoch` counts the links of a session: a
//! session has one link so far, and its epoch is 0; frames of another epoch are dropped.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod attach;
mod claim;
mod config;
mod error;
mod frame;
mod identity;
mod lanes;
mod links;
mod liveness;
mod opening;
mod pace;
mod receive;
mod reorder;
mod ring;
mod rx;
mod session;
mod stats;
mod transmit;
mod tx;

pub use claim::{ResetReason, VERSIONS};
pub use config::{Config, LaneConfig, MAX_CHUNK, Role};
pub use error::ProtocolError;
pub use frame::HEADER_LEN;
pub use identity::{Identity, Secret, SessionId};
pub use links::{LinkId, LinkKind, LinkRefused, MAX_LINKS, NewLink};
pub use opening::{Opening, refusal};
pub use session::{Event, SendError, Session};
pub use stats::{LaneStats, Stats};

/// The longest message, bytes.
pub const MAX_MESSAGE: usize = wire::HEAD_LEN + wire::MAX_BODY;
