//! What guests and devices have chosen is nobody's to read in a log: how much there is of it is all that is shown.

use core::{
    fmt,
    ops::{Deref, DerefMut},
};
use std::sync::Arc;

use bytes::Bytes;
use wire::control::Profile;

/// Something that shows no more than its size.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Redacted<T>(pub(crate) T);

/// What has a size.
pub(crate) trait Size {
    /// Bytes.
    fn size(&self) -> usize;
}

impl Size for Bytes {
    fn size(&self) -> usize {
        self.len()
    }
}

impl Size for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }
}

impl Size for Arc<Profile> {
    fn size(&self) -> usize {
        self.descriptors.iter().map(|descriptor| descriptor.data.len()).sum()
    }
}

impl<T: Size> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.size())
    }
}

impl<T> Deref for Redacted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Redacted<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
