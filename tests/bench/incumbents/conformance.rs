//! The kernel's own test of host controllers, in a guest of each stack, against the same source and sink at the desk. What a
//! stack does not survive is no failure of the measurement.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Lab, Vm};

use crate::{
    cases::{BULK_AND_CONTROL, Case},
    stacks::{Device, Pair, Stack},
};

/// How long a case may take that passes in seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What became of the cases of a stack.
pub(crate) struct Verdict {
    stack: Stack,
    passed: Vec<u32>,
    failed: Vec<u32>,
    /// It did not end, and nothing was tried behind it.
    hung: Option<u32>,
}

/// Runs every case. Those that are taken back from the middle of a queue come last: they are what a stack dies of.
pub(crate) async fn judge(lab: &Lab, stack: Stack, incumbents: &[u8]) -> Result<Verdict> {
    let mut pair = Pair::boot(lab, stack, Device::SourceSink, incumbents).await?;
    pair.guest.run("modprobe usbtest").await?.success()?;
    pair.lender.attach(&pair.guest).await?;
    let bound = "until ls /sys/bus/usb/drivers/usbtest | grep -q :1; do usleep 20000; done";
    pair.guest.command(bound).timeout(LIMIT).run().await?.success().context("usbtest finds no gadget")?;
    let mut verdict = Verdict { stack, passed: Vec::new(), failed: Vec::new(), hung: None };
    let (last, first): (Vec<_>, Vec<_>) = numbered().partition(|(number, _)| UNLINKING.contains(number));
    for (number, case) in first.into_iter().chain(last) {
        match run(&pair.guest, number, case).await {
            Some(true) => verdict.passed.push(number),
            Some(false) => verdict.failed.push(number),
            None => {
                verdict.hung = Some(number);
                break;
            }
        }
    }
    Ok(verdict)
}

const UNLINKING: [u32; 3] = [11, 12, 24];

fn numbered() -> impl Iterator<Item = (u32, &'static Case)> {
    BULK_AND_CONTROL.iter().flat_map(|case| case.numbers.iter().map(move |number| (*number, case)))
}

/// Whether a case passes; none if it does not end.
async fn run(guest: &Vm, number: u32, case: &Case) -> Option<bool> {
    let test = format!("testusb -a -t {number} {}", case.arguments);
    let run = guest.command(&test).timeout(LIMIT).run().await.ok()?;
    Some(run.status == 0 && run.stdout.contains(&format!("test {number},")))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |cases: &[u32]| cases.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        write!(f, "  {:<12}passed {}", self.stack, list(&self.passed))?;
        if !self.failed.is_empty() {
            write!(f, "; FAILED {}", list(&self.failed))?;
        }
        match self.hung {
            Some(case) => write!(f, "; HUNG in {case}"),
            None => Ok(()),
        }
    }
}
