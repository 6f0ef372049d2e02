//! USB traffic as a file that Wireshark opens: pcapng with the packets of Linux's usbmon.
//!
//! ```text
//!   data path ──Tap──► bounded queue ──► a thread of its own: Capture ──► FILE.pcapng
//!             (never waits: what finds no room is counted, not recorded)
//! ```
//! [`Capture`] writes what it is given, at the times it is given, and knows no clock. Host and remote name a request by
//! the same id, device and endpoint, so that their captures can be laid side by side.
//!
//! Not recorded: cancellations, port resets and changes of streams, which usbmon has no record for; what a cancelled
//! request came to is its end.
#![forbid(unsafe_code)]

mod block;
mod file;
mod tap;
mod usbmon;

pub use file::{Capture, SNAP};
pub use tap::{Tap, Totals, Writer, record, record_into};
pub use usbmon::Asked;
