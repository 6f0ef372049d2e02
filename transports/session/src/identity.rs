//! Who a session is, and the proof of being one of its two ends.

use std::fmt;

use zeroize::Zeroize;

/// The name of a session: 16 bytes that were never used before, chosen at random by the host. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What only the two ends of a session know: 32 bytes from the system's source of randomness. It is wiped when
/// dropped, and never printed.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes these bytes; wipe your copy.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Who a session is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub id: SessionId,
    /// What proves to own it.
    pub secret: Secret,
}
