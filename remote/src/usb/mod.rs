//! Real USB devices, through libusb.
//!
//! ```text
//!   Device ── what a port drives ── Claims: interfaces taken and given back
//!     └─ Engine ── transfers in flight (unsafe inside) ── the event thread of the context
//! ```

mod claims;
mod configuration;
mod credit;
mod device;
pub(crate) mod keeper;
mod profile;
mod request;
mod standard;
mod transfer;

pub(crate) use device::Device;
