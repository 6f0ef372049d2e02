//! The protocol, without a socket: bytes in, one action and reply bytes out.
//!
//! ```text
//!  socket ──bytes, descriptors──► Inbox ──message──► Protocol::step ──► Action ──► the server carries it out
//!                                                          │               └─Ticket──► success or refusal ─┐
//!                                                          └──► replies that need nobody else ─────────────┴──► socket
//! ```
//!
//! Deterministic: no clock, no descriptor, no allocation of a size that the peer names. Nothing here panics on any
//! bytes whatever; `step` is what is fuzzed.
//!
//! Two clients exist, and the answers respect both: QEMU takes a reply longer than its request for an error, Cloud
//! Hypervisor reads a fixed number of bytes for each command and waits for ever if an error reply is shorter.

mod inbox;
mod message;
mod reply;
mod step;
mod version;

pub use inbox::{Broken, Inbox};
pub use message::{
    Command, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, RegionAccess, RegionInfo, SetIrqs, SmallWrite,
    Version,
};
pub use reply::{Refusal, Ticket};
pub use step::{Action, Irq, Protocol, Signal, region};
pub use version::Client;

/// The most data in one region access, bytes.
pub const MAX_DATA: u32 = 1 << 20;
/// The most bytes of one message.
pub const MAX_MESSAGE: usize = Header::BYTES + size_of::<RegionAccess>() + MAX_DATA as usize;
/// The most descriptors with one message.
pub const MAX_FDS: usize = 16;
/// The most DMA mappings at a time.
pub const MAX_MAPS: usize = 65535;
/// The granularity of DMA mappings, bytes.
pub const PAGE: u64 = 4096;
