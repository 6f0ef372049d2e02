//! Farbus beside the two stacks that Debian has for USB over a network: usb-redir with usbredirect, and usbip. All lend the
//! same device of QEMU's, a SuperSpeed usb-storage in the desk VM, to a guest of their own. `make bench` runs it; alone it
//! is `cargo bench -p farbus --bench incumbents`, which measures the release programs as they were last built.
//!
//! ```text
//!                    desk VM                                              guest VM
//!   farbus     usb-storage ── farbus-remote ── netem ──► farbus-host ──► xHCI by vfio-user
//!   usb-redir  usb-storage ── usbredirect ──── netem ──────────────────► qemu-xhci, usb-redir
//!   usbip      usb-storage ── usbip_host ───── netem ──────────────────► vhci_hcd
//!   (for comparison, what cannot be beaten)                              qemu-xhci, usb-storage
//! ```
//! Each is measured in turn, several rounds, and the best counts: the machine is noisy. For the same reason a missed bar
//! is no failure; a stack that does not work is.

#[path = "../../at_desk/cases.rs"]
#[expect(dead_code, reason = "the measurement needs some of the cases")]
mod cases;
mod conformance;
mod floor;
mod report;
mod stacks;
mod workload;

use std::{fs::File, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use floor::Floor;
use lab::Lab;
use report::Board;
use stacks::{Device, Pair, Stack};
use workload::{DELAYS, NO_DELAY};

const ROUNDS: u32 = 2;
/// The disk, bytes.
const IMAGE: u64 = 64 << 20;
const ROUND_TRIPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/incumbents/round_trips.c");
const RAW_TCP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/incumbents/raw_tcp.c");

fn main() -> Result<()> {
    // Cargo passes flags for the built-in harness; there are none here.
    ensure!(!cfg!(debug_assertions), "this measures release programs: cargo bench -p farbus");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let start = Instant::now();
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    File::create(&image)?.set_len(IMAGE)?;
    let [round_trips, raw_tcp] = ["round-trips", "raw-tcp"].map(|name| folder.path().join(name));
    compile(ROUND_TRIPS.as_ref(), &round_trips)?;
    compile(RAW_TCP.as_ref(), &raw_tcp)?;
    let lab = Lab::open().await?;
    let incumbents = lab.incumbents().await?;

    println!("USB over a network: load average before {}", report::load()?);
    let mut board = Board::default();
    for round in 1..=ROUNDS {
        for stack in Stack::ALL.into_iter().chain([Stack::Local]) {
            let delays: &[_] = if stack == Stack::Local { &[NO_DELAY] } else { &DELAYS };
            let since = start.elapsed().as_secs();
            eprintln!("  {since:>4} s: {stack}, round {round} of {ROUNDS}");
            let figures = async {
                let mut pair = Pair::boot(&lab, stack, Device::Disk(&image), &incumbents).await?;
                workload::measure(&mut pair, &round_trips, delays).await
            };
            board.take(stack, figures.await.with_context(|| format!("{stack} does not work"))?);
        }
    }
    print!("{board}{}", Floor::measure(&lab, &raw_tcp).await?);
    println!("testusb against a source and sink at high speed");
    for stack in Stack::ALL {
        println!("{}", conformance::judge(&lab, stack, &incumbents).await?);
    }
    println!("load average after {}; it took {} s", report::load()?, start.elapsed().as_secs());
    Ok(())
}

/// A static program, so that it runs in any guest.
fn compile(source: &Path, program: &Path) -> Result<()> {
    let mut cc = Command::new("cc");
    let status = cc.args(["-O2", "-static", "-o"]).args([program, source]).status().context("running cc")?;
    ensure!(status.success(), "{} does not compile", source.display());
    Ok(())
}
