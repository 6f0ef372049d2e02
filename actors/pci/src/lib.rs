//! What every PCI function of Farbus is made of, and what a bus sees of it.
//!
//! ```text
//!   guest ── VMM ── bus (vfio-user) ──Transaction──► owner ──► dyn Function ── Device<M> ──► M: Model
//!                        ▲  ▲                          │                                       │ Cx
//!                        │  └────── dyn Interrupts ────┘◄───────────── outputs ────────────────┤
//!                        └─────────────────────────── dyn Dma ◄────────────────────────────────┘
//! ```
//!
//! A *model* is a value: registers, rings, state machines. It has no clock, no thread and no socket: time, guest
//! memory and effects reach it through [`Cx`], so that every behaviour can be replayed in a test. A *bus* knows
//! only [`Function`]; whether an actor stands behind it is not the bus's business.
//!
//! Time is a [`core::time::Duration`] since an arbitrary start, the same for all calls on one model.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod bus;
mod config;
mod cx;
mod device;
mod dma;
mod ram;
mod rebuild;

pub use bus::{Bus, Function, Interrupts, Layout, Region, Transaction};
pub use config::{
    Builder, CONFIG_BYTES, Command, ConfigSpace, Identity, MsiControl, MsixControl, MsixPlace, PowerControl,
    PowerState, Status,
};
pub use cx::{Cx, Model, Width};
pub use device::{Device, Ticked, Turn};
pub use dma::{Dma, DmaError};
pub use ram::Ram;
pub use rebuild::{RebuildPolicy, Restarts};
