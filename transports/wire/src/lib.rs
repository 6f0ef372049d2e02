//! The nouns that a host and a remote exchange, and how they are written.
//!
//! One vocabulary, two encodings. Control messages are rmp-serde maps with named fields behind a kind byte.
//! USB and audio payloads travel behind a fixed 32-byte little-endian header as raw [`Bytes`] that never
//! pass through serde: they are sliced, not copied.
//!
//! ```text
//! message on a lane:   kind u8 | rest of the head | body (raw bytes, may be empty)
//! ```
//!
//! A message is written as two pieces ([`Message`]) so that a payload taken from guest memory is not copied
//! again behind its header; it is read back from one contiguous [`Bytes`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod audio;
mod codec;
pub mod control;
mod lane;
pub mod usb;

use bytes::Bytes;

pub use codec::{DecodeError, HEAD_LEN, ToHost, ToRemote};
pub use lane::Lane;

/// The version of everything in this crate, fixed in the handshake and not repeated in any message.
pub const VERSION: u16 = 7;

/// The longest body of one message, in bytes. Longer transfers are split where they are built.
pub const MAX_BODY: usize = 1 << 20;

/// An encoded message: a head of at most a few hundred bytes and a body that is shared, not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The lane it has to travel on: order is kept within a lane only.
    pub lane: Lane,
    /// The kind byte and what belongs to the kind.
    pub head: Bytes,
    /// The payload as it is. At most [`MAX_BODY`] bytes.
    pub body: Bytes,
}

impl Message {
    /// Bytes on the wire, framing not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether nothing would be written; no message of this crate is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
