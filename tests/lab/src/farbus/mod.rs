//! Farbus itself, run as its users run it: `farbus-host serve` and `farbus-remote connect` as processes whose JSON
//! events a test waits for.

mod cable;
mod host;
mod program;

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

pub use cable::{Cable, Cut};
pub use host::{Host, Seat};
pub use program::{Program, binary};

/// How long an event may take before a test fails: generous, because machines are slow and a pass is quick.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Kills a process that this one started, as a crash would (SIGKILL).
///
/// # Errors
/// The process is gone.
pub fn kill(id: u32) -> Result<()> {
    signal(id, Signal::SIGKILL)
}

fn signal(id: u32, signal: Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(id)?);
    nix::sys::signal::kill(pid, signal).with_context(|| format!("sending {signal} to process {id}"))
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of every `at_ns` in events.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}
