//! A remote that is gone without a word: its connection stays half open.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::farbus::{Cable, Cut, Host, PATIENCE, Seat, monotonic_ns};
use pci::Width;
use xhci::driver::{Driver, Host as _, Plan};

use crate::vmm::Vmm;

/// How long a keyboard stays plugged in without a link, seconds.
const HOLD: u64 = 2;
/// Nothing was heard for so long when a peer counts as gone; a heartbeat comes each second.
const SILENT: u64 = 3;
const HEARTBEAT: u64 = 1;
const SECOND: u64 = 1_000_000_000;
/// PORTSC: all changes, and the port's power, which has to stay. xHCI 1.2 §5.4.8.
const CHANGES: u32 = 0x00fe_0000;
const POWER: u32 = 0x200;

/// Whether a device is on any port.
fn plugged(driver: &mut Driver<Vmm>) -> bool {
    let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
    (1..=ports).any(|port| driver.port_status(port) & 1 != 0)
}

/// Waits for changes of ports until this is so.
fn until_plugged(driver: &mut Driver<Vmm>, wanted: bool) -> Result<()> {
    let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
    loop {
        // Acknowledged, so that the next change is told.
        (1..=ports).for_each(|port| driver.write_port(port, CHANGES | POWER));
        if plugged(driver) == wanted {
            return Ok(());
        }
        let change = driver.await_event(PATIENCE, |event| event.port().is_some());
        change.with_context(|| format!("plugged in: {wanted}, and never"))?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_vanishes_without_a_word_is_missed_its_devices_held_and_then_unplugged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let extra = format!("hold = {{ hid = {HOLD}.0 }}\n");
    let seat = Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra };
    let mut host = Host::start_with(folder.path(), vec![seat]).await?;
    let cable = Cable::to(&host.address).await?;
    let mut remote = host.remote_by(&cable, "remote", "a", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    host.program.wait_for("attached").await?;
    let vmm = Vmm::connect(&host.seat("a").usb_socket())?;
    let mut driver = Driver::start(vmm, Plan::at(0, 16 << 20));
    tokio::task::block_in_place(|| until_plugged(&mut driver, true))?;

    let cut = monotonic_ns();
    cable.set(Cut::Silent);
    let detached = host.program.wait_for("detached").await?;
    let missed = detached["at_ns"].as_u64().context("a time")?;
    ensure!(detached["reason"].as_str().is_some_and(|reason| reason.contains("silent")), "{detached}");
    // Counted from the last word, which may have come a heartbeat before the cut.
    ensure!(missed - cut >= (SILENT - HEARTBEAT) * SECOND - SECOND / 4, "too early: {} ns", missed - cut);
    tokio::task::block_in_place(|| until_plugged(&mut driver, false))?;
    let held = monotonic_ns() - missed;
    ensure!(held >= HOLD * SECOND - SECOND / 4, "the keyboard was not held: {held} ns");
    println!(
        "missed {:?} after the cut, unplugged {:?} after that",
        Duration::from_nanos(missed - cut),
        Duration::from_nanos(held)
    );

    cable.set(Cut::Whole);
    tokio::task::block_in_place(|| until_plugged(&mut driver, true)).context("it does not come back")?;
    ensure!(remote.stop().await?.success());
    Ok(())
}
