//! The jitter buffer, in two parts that know nothing of samples: what waits ([`Queue`]) and how much should wait
//! ([`Delays`], [`Target`]).
//!
//! A packet's place is the index of its first frame, never its order of arrival: reordering costs nothing, a second copy
//! is told from the first, and what is missing is known by its length.

mod delay;
mod queue;
mod target;

use core::time::Duration;

pub use delay::Delays;
pub use queue::{Arrival, Next, Queue};
pub use target::Target;

/// What may wait at most, measured after an arrival; above it, time is cut out.
pub const CAP: Duration = Duration::from_millis(150);
/// A stall longer than this is not caught up with: the newest sound plays.
pub const STALL: Duration = Duration::from_millis(250);
/// What waits at first between ends that are known to be near.
pub const START_NEAR: Duration = Duration::from_millis(15);
/// A round trip that is near is shorter than this.
pub const NEAR: Duration = Duration::from_millis(5);
/// What waits at first on a local network.
pub const START_LAN: Duration = Duration::from_millis(20);
/// What waits at first on any other.
pub const START_WAN: Duration = Duration::from_millis(60);
