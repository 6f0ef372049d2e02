//! A vfio-user server: one PCI function for one VM, over a Unix socket.
//!
//! ```text
//!   QEMU ──socket──► Requests (a stream) ──Transaction──► owner ──perform(function)──► Protocol::step, answers
//!          memory ──► Memory (dyn Dma) ◄────────────────────┤
//!        eventfds ──► Wires (dyn Interrupts) ◄──────────────┘
//! ```
//!
//! [`Server`] binds the socket, [`Server::into_bus`] turns it into a [`pci::Bus`]. Everything of that bus stays on one
//! thread, which is a vCPU's hot path: a register read is one `recvmsg`, one call of the function and one `send`, and
//! nothing is allocated for it but the transaction. The protocol itself is in [`codec`], without a socket.
//!
//! One client at a time; another one is turned away at once. When the client goes its memory and interrupts go with
//! it, and the device keeps its state; a new client, which is a new boot of the VM, resets it.
//!
//! Not done: mmap-able regions (they would switch off posted writes in QEMU), INTx, in-band DMA, migration, and
//! dropping a reply that comes after the client's timeout (a Unix socket does not tell how long a request waited).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod codec;
mod connection;
mod interrupts;
mod memory;
mod requests;
mod server;
mod socket;
mod status;

pub use codec::Client;
pub use server::{Options, Server};
pub use status::Status;
