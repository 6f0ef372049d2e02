//! Gives devices back to the kernel's drivers when this process cannot any more, because it was killed.
//!
//! ```text
//!   farbus-remote ──"take interface BUS ADDRESS NUMBER"──► farbus-remote give-back   (a process that only waits)
//!        ╳ killed: its pipe ends ────────────────────────►  gives back what is left, and ends
//! ```
//! The kernel takes a dead process's claims away by itself, but does not look for a driver then, nor for the
//! configuration that it had chosen. What is taken is said before it is: what is given back and was not taken is no
//! harm. A device that another process has taken by then, perhaps the next farbus-remote, is that one's.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Write},
    os::unix::process::{CommandExt as _, parent_id},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rusb::{Context, Device, UsbContext};

use super::kernel::Kernel;

/// The subcommand of this program that waits.
const COMMAND: &str = "give-back";
/// How often, and how far apart, the waiting process looks: its parent ends after its pipe, when the kernel has taken back
/// what was under way, for which a controller on a busy computer may need long; and a driver may not be ready.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);
/// More than one computer has.
const MOST: usize = 1024;

/// What is taken of a device, in the order in which it goes back: a reset keeps the configuration, and with that the
/// kernel finds drivers for all interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// It was as it comes; to be so again, it must be reset.
    Untouched,
    /// It had the configuration with this value.
    Configuration(u8),
    /// A driver has it, or would have.
    Interface(u8),
}

/// Bus, address, and what is taken there.
type Taken = (u8, u8, What);

/// This is about to be taken.
pub(super) fn take<T: UsbContext>(device: &Device<T>, what: What) {
    let taken = (device.bus_number(), device.address(), what);
    told(|keeper| keeper.take(taken, start));
}

/// It was given back.
pub(super) fn given_back<T: UsbContext>(device: &Device<T>, what: What) {
    let taken = (device.bus_number(), device.address(), what);
    told(|keeper| keeper.give(taken, start));
}

fn told(tell: impl FnOnce(&mut Keeper<Waiter>) -> Result<()>) {
    static KEEPER: Mutex<Keeper<Waiter>> = Mutex::new(Keeper { pipe: None, taken: BTreeSet::new() });
    if let Err(error) = tell(&mut KEEPER.lock().unwrap_or_else(PoisonError::into_inner)) {
        tracing::warn!("a killed farbus-remote could not give devices back: {error:#}");
    }
}

/// What is taken, and the pipe to the process that knows it, once something was.
#[derive(Debug)]
struct Keeper<W> {
    pipe: Option<W>,
    taken: BTreeSet<Taken>,
}

impl<W: Write> Keeper<W> {
    fn take(&mut self, taken: Taken, start: impl FnOnce() -> Result<W>) -> Result<()> {
        self.taken.insert(taken);
        self.tell("take", taken, start)
    }

    fn give(&mut self, taken: Taken, start: impl FnOnce() -> Result<W>) -> Result<()> {
        if self.taken.remove(&taken) { self.tell("give", taken, start) } else { Ok(()) }
    }

    /// Says what changed, or, to a new process, what is.
    fn tell(&mut self, verb: &str, taken: Taken, start: impl FnOnce() -> Result<W>) -> Result<()> {
        if let Some(pipe) = &mut self.pipe
            && say(pipe, verb, taken).is_ok()
        {
            return Ok(());
        }
        // The one before has died, whoever killed it.
        self.pipe = None;
        let pipe = self.pipe.insert(start()?);
        Ok(self.taken.iter().try_for_each(|taken| say(pipe, "take", *taken))?)
    }
}

/// Says a line, at once: whoever is killed has said all of it or nothing.
fn say(pipe: &mut impl Write, verb: &str, (bus, address, what): Taken) -> io::Result<()> {
    let line = match what {
        What::Untouched => format!("{verb} untouched {bus} {address} 0\n"),
        What::Configuration(value) => format!("{verb} configuration {bus} {address} {value}\n"),
        What::Interface(number) => format!("{verb} interface {bus} {address} {number}\n"),
    };
    pipe.write_all(line.as_bytes())
}

/// The process that waits.
#[derive(Debug)]
struct Waiter(Child);

impl Write for Waiter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Waiter {
    /// Only one that has died is dropped.
    fn drop(&mut self) {
        let _ = self.0.try_wait();
    }
}

fn start() -> Result<Waiter> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C is for its parent.
    command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    Ok(Waiter(command.spawn().context("starting the process that gives devices back")?))
}

/// What the waiting process does: reads until the pipe ends, then gives back what is left.
pub(crate) fn wait(input: impl BufRead) -> ExitCode {
    let parent = parent_id();
    let left = remaining(input);
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    match give_all_back(left, parent) {
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
        let (verb, kind) = (words.next(), words.next());
        let numbers: Vec<u8> = words.map_while(|word| word.parse().ok()).collect();
        let [bus, address, number] = numbers[..] else { continue };
        let what = match kind {
            Some("untouched") => What::Untouched,
            Some("configuration") => What::Configuration(number),
            Some("interface") => What::Interface(number),
            _ => continue,
        };
        match verb {
            Some("take") if taken.len() < MOST => taken.insert((bus, address, what)),
            Some("give") => taken.remove(&(bus, address, what)),
            _ => false,
        };
    }
    taken
}

#[expect(clippy::disallowed_methods, reason = "this process has no runtime, and nothing else to do")]
fn give_all_back(taken: BTreeSet<Taken>, parent: u32) -> Result<()> {
    let mut left: BTreeMap<(u8, u8), BTreeSet<What>> = BTreeMap::new();
    for (bus, address, what) in taken {
        left.entry((bus, address)).or_default().insert(what);
    }
    // Before this process has another parent, what the old one had may still be claimed; after, it is not.
    for _ in (0..TRIES).take_while(|_| parent_id() == parent) {
        std::thread::sleep(PAUSE);
    }
    let context = Context::new()?;
    for _ in 0..TRIES {
        let devices = context.devices()?;
        left.retain(|key, left| {
            let device = devices.iter().find(|d| (d.bus_number(), d.address()) == *key);
            // One that is gone needs nothing.
            let Some(handle) = device.map(|device| device.open()) else { return false };
            match handle {
                Ok(handle) => give_device_back(&handle, left),
                Err(error) => !is_over(Err(error)),
            }
        });
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("{} devices are still not what they were", left.len())
}

/// Gives back what is left of a device, unless another process has it. Whether to try again.
fn give_device_back(kernel: &impl Kernel, left: &mut BTreeSet<What>) -> bool {
    let mut claimed = Vec::new();
    for interface in kernel.interfaces() {
        match kernel.claim(interface) {
            Ok(()) => claimed.push(interface),
            Err(rusb::Error::Busy) if !kernel.drives(interface).unwrap_or(true) => {
                left.clear();
                break;
            }
            // A driver of this computer has it already; or it is gone.
            Err(_) => {}
        }
    }
    // Nobody else gets in before the reset is done, but for the instant in which libusb lets go to reset it.
    if left.contains(&What::Untouched) && is_over(give_back(kernel, What::Untouched)) {
        left.remove(&What::Untouched);
    }
    for interface in claimed {
        let _ = kernel.release(interface);
    }
    // Of what another process claims from here on, the kernel refuses the rest.
    left.retain(|what| *what == What::Untouched || !is_over(give_back(kernel, *what)));
    !left.is_empty()
}

/// Without a driver for it, or without the interface, there is nothing to give.
fn is_over(given: rusb::Result<()>) -> bool {
    let over = [rusb::Error::NotFound, rusb::Error::InvalidParam, rusb::Error::NoDevice];
    given.err().is_none_or(|error| over.contains(&error))
}

/// Gives something back, unless its own computer has it already.
pub(super) fn give_back(kernel: &impl Kernel, what: What) -> rusb::Result<()> {
    match what {
        What::Untouched => kernel.reset(),
        What::Configuration(value) if kernel.configuration()? == value => Ok(()),
        What::Configuration(value) => kernel.configure(value),
        What::Interface(number) if kernel.drives(number)? => Ok(()),
        What::Interface(number) => kernel.attach(number),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::{super::log::Log, *};

    #[test]
    fn what_another_process_has_taken_meanwhile_is_left_alone() {
        let kernel = Log::new(&[]);
        kernel.theirs.lock().unwrap().insert(1);
        let mut left: BTreeSet<_> = [What::Untouched, What::Interface(0), What::Interface(1)].into();
        assert!(!give_device_back(&*kernel, &mut left), "once and for all");
        assert_eq!(kernel.said(), ["claim 0", "claim 1", "release 0"]);
    }

    #[test]
    fn a_device_that_nobody_has_is_held_over_its_reset_and_then_given_to_its_drivers() {
        let kernel = Log::new(&[0]);
        let mut left: BTreeSet<_> = [What::Untouched, What::Interface(0), What::Interface(1)].into();
        assert!(!give_device_back(&*kernel, &mut left));
        let said = ["claim 0", "claim 1", "reset", "release 1", "attach 1"];
        assert_eq!(kernel.said(), said, "one of its interfaces has its driver already");
    }

    #[test]
    fn what_was_taken_and_not_given_back_remains_whatever_else_is_said() {
        let said = "take interface 1 2 0\ntake interface 1 2 1\ntake configuration 1 2 1\ntake untouched 1 2 0\nnonsense\ntake 1\ngive interface 1 2 0\ntake interface 300 1 1\ntake thing 1 1 1\ngive interface 9 9 9\n";
        let remains = [What::Untouched, What::Configuration(1), What::Interface(1)].map(|what| (1, 2, what));
        assert_eq!(remaining(said.as_bytes()).into_iter().collect::<Vec<_>>(), remains);
    }

    /// A pipe to a process that dies when it is told to.
    #[derive(Clone, Default)]
    struct Pipe(Rc<RefCell<(Vec<u8>, bool)>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (heard, dead) = &mut *self.0.borrow_mut();
            if *dead { Err(io::ErrorKind::BrokenPipe.into()) } else { heard.write(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Pipe {
        fn remaining(&self) -> Vec<Taken> {
            remaining(&self.0.borrow().0[..]).into_iter().collect()
        }
    }

    #[test]
    fn a_process_that_takes_the_place_of_a_dead_one_knows_everything() {
        let (first, second) = (Pipe::default(), Pipe::default());
        let [a, b, c] = [0, 1, 2].map(|number| (1, 2, What::Interface(number)));
        let mut keeper = Keeper { pipe: None, taken: BTreeSet::new() };
        keeper.take(a, || Ok(first.clone())).unwrap();
        keeper.take(b, || unreachable!("it lives")).unwrap();
        assert_eq!(first.remaining(), [a, b]);
        first.0.borrow_mut().1 = true;
        assert!(keeper.take(c, || anyhow::bail!("no process")).is_err());
        keeper.give(a, || Ok(second.clone())).unwrap();
        assert_eq!(second.remaining(), [b, c]);
        keeper.give(a, || unreachable!("it lives")).unwrap();
        keeper.give(b, || unreachable!("it lives")).unwrap();
        assert_eq!(second.remaining(), [c]);
    }
}
