//! The Intel HD Audio controller and codec as a pure model: HDA 1.0a behind [`pci::Model`].
//!
//! ```text
//!   registers ──► CORB ──verb──► codec ──answer──► RIRB ──┐
//!       │              jacks ────► │ tag, levels          ├──► interrupt ──► Output::Interrupt
//!       └──RUN──► stream ──engine──┼──► packets           │
//!                   ▲  │           └◄── recorder          │
//!                   │  └── completion ───────────────────►┘
//!   host time ──► clock (WALCLK)          ├──────────────────► Output::Audio
//!                                         └◄───────────────── frames of a microphone
//! ```
//!
//! The order of every step in time is: copy sound, publish the position (memory, then register), set the completion
//! bit, interrupt. Time is the host's, taken from [`pci::Cx`] at each call; it advances all streams on each tick and
//! on each access to a register that moves with time. Whether anybody listens makes no difference. When the host was
//! late, time slips: no frame is lost or repeated.
//!
//! The clock may be told to follow a remote's ([`Hda::set_drift`]).
//!
//! To see it at work, drive it with [`driver`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod clock;
mod codec;
mod controller;
mod corb;
pub mod driver;
mod interrupt;
mod packet;
mod registers;
mod rirb;
mod stream;

pub use arbitrary_int::u4;
pub use controller::{Counters, Hda};
pub use packet::Packet;
use wire::audio::ToRemote;

/// What a controller is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Capture streams; the first in the register file.
    pub inputs: u4,
    /// Playback streams, behind them.
    pub outputs: u4,
    /// The speakers that the guest finds.
    pub speakers: Speakers,
    /// Runs are numbered from the one behind this: who listened to a controller before this one must not take a new run
    /// for an old one.
    pub runs_before: u32,
}

/// The speakers of the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speakers {
    /// Two: what every desk has.
    #[default]
    Stereo,
    /// Eight channels, in the order front, centre and bass, rear, side.
    Surround71,
}

impl Default for Config {
    /// 4 of each, as Intel's own controllers have, and two speakers.
    fn default() -> Self {
        Self { inputs: u4::new(4), outputs: u4::new(4), speakers: Speakers::Stereo, runs_before: 0 }
    }
}

/// What the controller asks its owner to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Frames for the remote to play.
    Play(Packet),
    /// Whatever else is to be said to the remote.
    Audio(ToRemote),
    /// The interrupt with this MSI vector, always 0.
    Interrupt(u16),
}

/// The bytes of BAR 0: the registers, and from 0x2000 on the aliases of positions and wall clock.
pub const BAR_BYTES: u32 = 0x4000;

/// The configuration space of the function: an Intel ICH9 HD Audio controller, because drivers then read positions
/// from memory and need no further capabilities. PCI 3.0 §6.2, Intel ICH9 datasheet §18.1.
///
/// BAR 0 with [`BAR_BYTES`]; HDCTL and TCSEL as the ICH family has them; power management; one MSI vector, and an interrupt pin for
/// drivers that want no messages.
#[must_use]
pub fn config_space() -> pci::ConfigSpace {
    let identity = pci::Identity {
        vendor: 0x8086,
        device: 0x293e,
        revision: 3,
        class: 0x04_03_00,
        subsystem_vendor: 0xfa2b,
        subsystem: 0x0001,
    };
    pci::ConfigSpace::builder(identity)
        .bar64(0, BAR_BYTES.into())
        .byte(0x40, 0x01, 0x00) // HDCTL: the link is HD Audio
        .byte(0x44, 0x00, 0x07) // TCSEL: drivers choose the traffic class
        .intx()
        .pm(0x50)
        .msi(0x60, 1)
        .build()
}
