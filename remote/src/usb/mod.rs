//! The USB devices of this computer: which are lent, where they are, and how they are driven, through libusb.
//!
//! ```text
//!   Bus ── what comes and goes ── which: what is lent, and why not
//!   Device ── what a port drives ── Claims: interfaces taken and given back
//!     └─ Queue ── requests and their ends ── credit
//!         └─ Engine ── transfers in flight (unsafe inside) ── the event thread of the bus
//! ```

pub(crate) mod bus;
mod carrier;
mod claims;
mod credit;
mod describe;
mod device;
pub(crate) mod keeper;
mod kernel;
#[cfg(test)]
mod log;
mod pipe;
mod profile;
mod queue;
mod request;
mod selector;
mod sole;
mod standard;
mod transfer;
pub(crate) mod trouble;
pub(crate) mod which;

pub(crate) use device::Device;
