//! What is measured: the same in every guest, by programs that run in it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::{Running, Vm};
use nix::sys::signal::Signal;

use crate::stacks::{Cpu, DISK, Pair, place_of};

/// Added to what the desk sends, and so to every round trip, milliseconds; and how much is measured then.
pub(crate) const DELAYS: [Delay; 2] =
    [Delay { ms: 20, mebibytes: 16, sectors: 40, round_trips: 20 }, NO_DELAY];
pub(crate) const NO_DELAY: Delay = Delay { ms: 0, mebibytes: 48, sectors: 500, round_trips: 200 };
/// How often the device is lent under each delay; the fastest counts.
const ATTACHES: u32 = 3;
/// How long the guest may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the program for single round trips is in the guest.
const ROUND_TRIPS: &str = "/usr/bin/round-trips";

pub(crate) struct Delay {
    pub(crate) ms: u32,
    mebibytes: u32,
    /// Of 4 KiB.
    sectors: u32,
    round_trips: u32,
}

/// What one figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// From the command that lends the device until its driver is bound.
    Attach,
    /// Of that, from the kernel's first word of the device on.
    Enumerate,
    Control,
    /// A bulk OUT, then the bulk IN that it makes the device answer.
    Bulk,
    ReadMebibytes,
    WriteMebibytes,
    ReadSectors,
    WriteSectors,
}

/// How long one operation took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) delay_ms: u32,
    pub(crate) what: What,
    pub(crate) seconds: f64,
    /// Processor time of one operation, where it was measured.
    pub(crate) cpu: Option<Cpu>,
}

/// Everything, on one pair, under each of these delays.
pub(crate) async fn measure(pair: &mut Pair, round_trips: &Path, delays: &[Delay]) -> Result<Vec<Figure>> {
    pair.guest.put_file(round_trips, ROUND_TRIPS).await?;
    let mut figures = Vec::new();
    for delay in delays {
        let faults = if delay.ms > 0 { format!("delay {}ms", delay.ms) } else { String::new() };
        pair.lender.desk.netem(&faults).await?;
        let mut add = |what, seconds, cpu| figures.push(Figure { delay_ms: delay.ms, what, seconds, cpu });
        for number in 1..=ATTACHES {
            let (attach, enumerate) = attach(pair).await.context("attaching")?;
            add(What::Attach, attach, None);
            add(What::Enumerate, enumerate, None);
            if number < ATTACHES {
                detach(pair).await.context("detaching")?;
            }
        }
        for (what, direction, size, count) in [
            (What::ReadMebibytes, "if=$disk of=/dev/null iflag=direct", "1M", delay.mebibytes),
            (What::WriteMebibytes, "if=/dev/zero of=$disk oflag=direct", "1M", delay.mebibytes),
            (What::ReadSectors, "if=$disk of=/dev/null iflag=direct", "4k", delay.sectors),
            (What::WriteSectors, "if=/dev/zero of=$disk oflag=direct", "4k", delay.sectors),
        ] {
            let copy = format!("{direction} bs={size} count={count}");
            let (seconds, cpu) = dd(pair, &copy, count).await.with_context(|| format!("dd {copy}"))?;
            add(what, seconds, Some(cpu));
        }
        for (what, seconds) in single(&pair.guest, delay.round_trips).await.context("single round trips")? {
            add(what, seconds, None);
        }
        detach(pair).await.context("detaching")?;
    }
    Ok(figures)
}

/// Lends the device and waits for its disk. Seconds from the command until the driver is bound, and from the kernel's
/// first word until then.
async fn attach(pair: &mut Pair) -> Result<(f64, f64)> {
    let mut log = Log::open(&pair.guest).await?;
    let start = Instant::now();
    let watch = async {
        let found = log.until("new SuperSpeed USB device").await?;
        let bound = log.until(": usb-storage ").await?;
        let seconds = (start.elapsed().as_secs_f64(), bound - found);
        log.until("Attached SCSI").await?;
        anyhow::Ok(seconds)
    };
    let ((), seconds) = tokio::try_join!(pair.lender.attach(&pair.guest), watch)?;
    log.close().await?;
    Ok(seconds)
}

async fn detach(pair: &mut Pair) -> Result<()> {
    let mut log = Log::open(&pair.guest).await?;
    let gone = log.until("USB disconnect");
    tokio::try_join!(pair.lender.detach(&pair.guest), gone)?;
    log.close().await
}

/// The kernel's messages from now on (Linux, `Documentation/ABI/testing/dev-kmsg`).
struct Log<'vm>(Running<'vm>);

impl<'vm> Log<'vm> {
    async fn open(guest: &'vm Vm) -> Result<Self> {
        // All that was said before is read again, up to the last of these.
        let mark = format!("mark {}", lab::farbus::monotonic_ns());
        let mut log = Self(guest.spawn(&format!("echo {mark} > /dev/kmsg; exec cat /dev/kmsg")).await?);
        log.until(&mark).await?;
        Ok(log)
    }

    /// Waits for a message; when the kernel said it, in seconds since its start.
    async fn until(&mut self, words: &str) -> Result<f64> {
        let line = self.0.expect(words, PATIENCE).await?;
        // `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`
        let time = line.split(',').nth(2).and_then(|time| time.parse::<f64>().ok());
        Ok(time.with_context(|| format!("no time in {line:?}"))? / 1e6)
    }

    async fn close(self) -> Result<()> {
        self.0.signal(Signal::SIGKILL).await
    }
}

/// Seconds and processor time of one of `count` blocks. The guest's clock has hundredths of a second, and the start of dd
/// takes one or two: little in a second or more.
async fn dd(pair: &Pair, copy: &str, count: u32) -> Result<(f64, Cpu)> {
    let location = place_of(DISK);
    let script = format!(
        "set -e; disk=/dev/$(ls -d /sys/bus/usb/devices/$({location}):*/host*/target*/*/block/* | xargs basename)
         read before idle < /proc/uptime
         dd {copy} 2> /dev/null
         read after idle < /proc/uptime
         echo $before $after"
    );
    let before = pair.cpu()?;
    let said = pair.guest.command(&script).timeout(PATIENCE).run().await?.success()?.stdout;
    let after = pair.cpu()?;
    let [started, ended] = numbers(&said)?;
    let one = |after: f64, before: f64| (after - before) / f64::from(count);
    let cpu = Cpu {
        desk: one(after.desk, before.desk),
        guest: one(after.guest, before.guest),
        host: one(after.host, before.host),
    };
    Ok((one(ended, started), cpu))
}

/// Medians of single round trips, without the driver, which is not bound afterwards.
async fn single(guest: &Vm, count: u32) -> Result<Vec<(What, f64)>> {
    let location = place_of(DISK);
    let script = format!(
        "set -e; at=$({location}); cd /sys/bus/usb/devices/$at
         echo $at:1.0 > driver-of/unbind
         exec {ROUND_TRIPS} $(printf /dev/bus/usb/%03d/%03d $(cat busnum) $(cat devnum)) {count}"
    )
    .replace("driver-of", "/sys/bus/usb/drivers/usb-storage");
    let said = guest.command(&script).timeout(PATIENCE).run().await?.success()?.stdout;
    let [control, out, r#in] = numbers(&said)?;
    Ok(vec![(What::Control, control), (What::Bulk, out + r#in)])
}

/// Reads exactly so many numbers.
pub(crate) fn numbers<const N: usize>(said: &str) -> Result<[f64; N]> {
    let numbers: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .with_context(|| format!("{N} numbers, not {said:?}"))
}
