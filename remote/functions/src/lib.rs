//! USB functions made of software: what a remote lends beside real devices.
//!
//! ```text
//!   submit(request) ──► Device<C>: chapter 9, a queue for each endpoint ──► C: Class ── Keyboard's keys, Disk's sectors,
//!                                                                              Zero's pattern
//!   poll(lane) ──► completion ◄──┘  (what waits is carried out only when somebody has room for its end)
//! ```
//!
//! Of real devices there is only [`configuration`]: what their descriptors say.
//!
//! Pure: no clock, no file, no thread. A disk's bytes come from whoever implements [`Medium`], keys from whoever calls
//! [`Keyboard::press`]. Every request has exactly one completion, whatever the host asks for, and what may wait is
//! bounded.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod configuration;
mod descriptors;
mod device;
mod disk;
mod keyboard;
mod zero;

use core::time::Duration;

use wire::{
    Lane,
    control::Profile,
    usb::{Completion, Endpoint, Failure, Request, RequestId, Speed},
};

pub use disk::{Disk, Medium, MediumError};
pub use keyboard::{CannotType, Full, Keyboard, NoKey, Stroke};
pub use zero::{Pattern, Zero};

/// A USB device made of software, as its port drives it.
///
/// It is *pulled*: a transfer that waits is carried out only when [`Self::poll`] asks for the end of one, so that
/// nothing piles up behind a slow link. After every other call, poll each lane there is room for until it has no more.
pub trait Function {
    /// `idVendor` and `idProduct`.
    fn id(&self) -> (u16, u16);

    /// The speed it runs at.
    fn speed(&self) -> Speed;

    /// What a host may know of it beforehand.
    fn profile(&self) -> Profile;

    /// Takes a transfer. Requests of one endpoint end in order; those that the device has nothing for wait.
    fn submit(&mut self, request: Request);

    /// Cancels the endpoint's requests up to and including `through`, newest first; one that comes later with such an
    /// id is cancelled at once ([`wire::usb::ToRemote::Cancel`]).
    fn cancel(&mut self, endpoint: Endpoint, through: RequestId);

    /// Gives bulk endpoints streams, or takes them away ([`wire::usb::ToRemote::Streams`]); ends under `id`, on the
    /// control lane.
    fn streams(&mut self, id: RequestId, endpoints: &[Endpoint], count: u16);

    /// The port is reset: every request that waits is cancelled, and those up to `through` that come later; the device
    /// is unconfigured.
    ///
    /// # Errors
    /// The device did not survive it, or is not what it was. The requests are cancelled all the same.
    fn reset(&mut self, through: RequestId) -> Result<(), Failure>;

    /// The device is plugged into another host: unconfigured, every request so far is forgotten without an end, and
    /// ids start over.
    fn replug(&mut self);

    /// The next request of this lane that has ended, carrying out a transfer for it if one can go on.
    fn poll(&mut self, now: Duration, lane: Lane) -> Option<Completion>;

    /// When to poll again although nothing was called, if at all.
    fn deadline(&self) -> Option<Duration>;
}
