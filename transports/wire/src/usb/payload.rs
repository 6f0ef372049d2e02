//! The bytes of a request: what is asked to move, and what did.

use core::fmt;

use bytes::Bytes;

/// The data of a request. The direction is in the type, so an IN with data cannot be said. What is shown of it for
/// debugging is its length.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// Bytes for the device.
    Out(Bytes),
    /// Room for bytes from the device.
    In {
        /// The most bytes that may come back, at most [`crate::MAX_BODY`].
        max: u32,
    },
}

impl Payload {
    /// The number of bytes asked to move.
    #[must_use]
    pub fn requested(&self) -> u32 {
        match self {
            Self::Out(data) => u32::try_from(data.len()).unwrap_or(u32::MAX),
            Self::In { max } => *max,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out(data) => write!(f, "Out({} bytes)", data.len()),
            Self::In { max } => write!(f, "In(at most {max} bytes)"),
        }
    }
}

/// What did move. What is shown of it for debugging is its length.
#[derive(Clone, PartialEq, Eq)]
pub enum Moved {
    /// Bytes that the device took.
    Out(u32),
    /// Bytes that the device gave.
    In(Bytes),
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out(length) => write!(f, "Out({length} bytes)"),
            Self::In(data) => write!(f, "In({} bytes)", data.len()),
        }
    }
}

impl Moved {
    /// The number of bytes that moved.
    #[must_use]
    pub fn len(&self) -> u32 {
        match self {
            Self::Out(n) => *n,
            Self::In(data) => u32::try_from(data.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether nothing moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
