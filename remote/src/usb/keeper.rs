//! Gives devices back to the kernel's drivers when this process cannot any more, because it was killed.
//!
//! ```text
//!   farbus-remote ──"take BUS ADDRESS INTERFACE"──► farbus-remote give-back   (a process that only waits)
//!        ╳ killed: its pipe ends ─────────────────►  re-attaches what was not given back, and ends
//! ```
//! The kernel takes a dead process's claims away by itself, but does not look for a driver then.

use std::{
    collections::BTreeSet,
    io::{BufRead, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rusb::{Context, Device, UsbContext};

/// The subcommand of this program that waits.
const COMMAND: &str = "give-back";
/// How often, and how far apart, the waiting process tries: its parent's claims may end a little after its pipe.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// More than one computer has.
const MOST: usize = 1024;

/// The process that waits, once something was taken.
static KEEPER: Mutex<Option<Child>> = Mutex::new(None);

/// An interface: bus, address, number.
type Taken = (u8, u8, u8);

/// A kernel driver has lost this interface to us.
pub(super) fn taken<T: UsbContext>(device: &Device<T>, interface: u8) {
    tell("take", (device.bus_number(), device.address(), interface));
}

/// It has it again.
pub(super) fn given_back<T: UsbContext>(device: &Device<T>, interface: u8) {
    tell("give", (device.bus_number(), device.address(), interface));
}

fn tell(verb: &str, (bus, address, interface): Taken) {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    let told = start(&mut keeper).and_then(|child| {
        let pipe = child.stdin.as_mut().context("its pipe is closed")?;
        Ok(writeln!(pipe, "{verb} {bus} {address} {interface}")?)
    });
    if let Err(error) = told {
        *keeper = None;
        tracing::warn!("a killed farbus-remote could not give devices back: {error:#}");
    }
}

fn start(keeper: &mut Option<Child>) -> Result<&mut Child> {
    match keeper {
        Some(child) => Ok(child),
        none => {
            let program = std::env::current_exe().context("finding this program")?;
            let mut command = Command::new(program);
            // A group of its own: Ctrl-C is for its parent.
            command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
            Ok(none.insert(command.spawn().context("starting the process that gives devices back")?))
        }
    }
}

/// What the waiting process does: reads until the pipe ends, then gives back what is left.
pub(crate) fn wait(input: impl BufRead) -> ExitCode {
    let left = remaining(input);
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    match give_back(left) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farbus-remote: devices were not given back to their drivers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn remaining(input: impl BufRead) -> BTreeSet<Taken> {
    let mut taken = BTreeSet::new();
    for line in input.lines().map_while(Result::ok) {
        let mut words = line.split_whitespace();
        let verb = words.next();
        let numbers: Vec<u8> = words.map_while(|word| word.parse().ok()).collect();
        let [bus, address, interface] = numbers[..] else { continue };
        match verb {
            Some("take") if taken.len() < MOST => taken.insert((bus, address, interface)),
            Some("give") => taken.remove(&(bus, address, interface)),
            _ => false,
        };
    }
    taken
}

#[expect(clippy::disallowed_methods, reason = "this process has no runtime, and nothing else to do")]
fn give_back(mut left: BTreeSet<Taken>) -> Result<()> {
    let context = Context::new()?;
    for _ in 0..TRIES {
        let devices = context.devices()?;
        left.retain(|(bus, address, interface)| {
            let device = devices.iter().find(|d| (d.bus_number(), d.address()) == (*bus, *address));
            // One that is gone needs nothing.
            let Some(handle) = device.map(|device| device.open()) else { return false };
            let attached = handle.and_then(|handle| match handle.kernel_driver_active(*interface)? {
                true => Ok(()),
                false => handle.attach_kernel_driver(*interface),
            });
            !matches!(attached, Ok(()) | Err(rusb::Error::NotFound | rusb::Error::NoDevice))
        });
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("{} interfaces are still without a driver", left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_and_not_given_back_remains_whatever_else_is_said() {
        let said = "take 1 2 0\ntake 1 2 1\nnonsense\ntake 1\ngive 1 2 0\ntake 300 1 1\ngive 9 9 9\n";
        assert_eq!(remaining(said.as_bytes()), BTreeSet::from([(1, 2, 1)]));
    }
}
