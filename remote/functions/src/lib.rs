//! USB functions made of software: what a remote lends beside real devices.
//!
//! ```text
//!   Request ──► Device<C>: chapter 9, a queue for each endpoint ──► C: Class ── Keyboard's keys, Disk's sectors
//!   Completion ◄──┘
//! ```
//!
//! Pure: no clock, no file, no thread. A disk's bytes come from whoever implements [`Medium`], keys from whoever calls
//! [`Keyboard::press`]. Every request has exactly one completion, whatever the host asks for.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod descriptors;
mod device;
mod disk;
mod keyboard;

use core::time::Duration;

use wire::usb::{Completion, Endpoint, Request, RequestId, Speed};

pub use descriptors::Identity;
pub use disk::{Disk, Medium, MediumError};
pub use keyboard::{Full, Keyboard, Stroke};

/// A USB device made of software, as its port drives it.
pub trait Function {
    /// `idVendor` and `idProduct`.
    fn id(&self) -> (u16, u16);

    /// The speed it runs at.
    fn speed(&self) -> Speed;

    /// Takes a transfer. Requests of one endpoint end in order; those that the device has nothing for wait.
    fn submit(&mut self, now: Duration, request: Request, out: &mut Vec<Completion>);

    /// Cancels the endpoint's requests up to and including `through`, newest first; one that comes later with such an
    /// id is cancelled at once ([`wire::usb::ToRemote::Cancel`]).
    fn cancel(&mut self, now: Duration, endpoint: Endpoint, through: RequestId, out: &mut Vec<Completion>);

    /// The port is reset: every request that waits is cancelled, and those up to `through` that come later; the device
    /// is unconfigured.
    fn reset(&mut self, now: Duration, through: RequestId, out: &mut Vec<Completion>);

    /// When [`Self::tick`] wants to be called, if at all.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Time has come.
    fn tick(&mut self, _now: Duration, _out: &mut Vec<Completion>) {}
}
