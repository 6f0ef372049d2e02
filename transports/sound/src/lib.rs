//! The audio path between the ends of a session, used by both: playback towards the remote, microphone towards the host.
//!
//! ```text
//!   frames ─► Sender ── codec ── redundancy ─► packets ~~~ link ~~~► Receiver ── jitter queue ── codec ─► frames
//!               ▲                                                      │  conceal · cut · resample    ▲
//!            choice ◄──────────── Reception, ten times a second ◄──────┤                        the device asks
//!            clock  ◄───────────────────────────────────────────────────┘
//! ```
//! Pure: no clock, no socket, no thread, nothing random. Time is an argument: a [`Duration`](core::time::Duration) since
//! whatever start the caller likes. The rules:
//!
//! - **One owner of latency**: the [`Receiver`]. It plays at the pace of its device, holds at most [`jitter::CAP`] and, if
//!   the device has a ring ([`appetite`]), what it takes from it at once: both places together. It never waits for what
//!   is late. What a peer sends decides neither its memory nor its time.
//! - **The clean path is exact**: PCM on a link that loses nothing comes out sample for sample, each once, in order, as
//!   long as the sender's clock follows ([`clock`]) and nothing is resampled.
//! - **A stall is a slip, a loss is a hole**: if nothing has come, the time line waits and nothing is lost; if something
//!   later has come already, what is missing is made up ([`conceal`]) and the time line goes on. What a stall has added to
//!   the latency goes with the next silence, or else slowly, by the clock.
//!
//! Not done here: mixing of streams, time stretching, forward error correction over several packets (Reed-Solomon).
//! Volume is applied where the guest's amplifiers are, in `hda`; it only travels as [`wire::audio::Volume`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod appetite;
pub mod choice;
pub mod clock;
pub mod codec;
pub mod conceal;
pub mod jitter;
mod receiver;
pub mod redundancy;
pub mod resample;
pub mod samples;
mod sender;
mod splice;

pub use receiver::{Clocking, Config, Counters, Receiver};
pub use sender::Sender;

/// Frames that fit into a time, rounded down.
#[must_use]
pub fn frames_in(time: core::time::Duration, rate: u32) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The time that frames take, rounded down to nanoseconds. A rate of 0 is taken for 1.
#[must_use]
pub fn time_of(frames: u64, rate: u32) -> core::time::Duration {
    let nanoseconds = u128::from(frames) * 1_000_000_000 / u128::from(rate.max(1));
    core::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
