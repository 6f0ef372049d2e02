//! How a parent notices that a child has ended: drop is the only code that runs on every end.

use actix::{WeakRecipient, prelude::*};

use crate::{Child, VmSession};

/// A child has ended, for whatever reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Ended {
    /// Which.
    pub child: Child,
    /// Which start of it.
    pub generation: u32,
    /// Whether it was a panic.
    pub panicked: bool,
}

/// Held by a child, dropped with it. Its hold on the parent is weak: else each would keep the other alive.
pub struct Tether {
    parent: WeakRecipient<Ended>,
    child: Child,
    generation: u32,
}

impl Tether {
    /// A tether for this start of a child.
    #[must_use]
    pub fn new(parent: &Addr<VmSession>, child: Child, generation: u32) -> Self {
        Self { parent: parent.clone().recipient().downgrade(), child, generation }
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        let Some(parent) = self.parent.upgrade() else { return };
        let (child, generation, panicked) = (self.child, self.generation, std::thread::panicking());
        parent.do_send(Ended { child, generation, panicked });
    }
}
