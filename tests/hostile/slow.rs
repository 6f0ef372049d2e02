//! A remote that reads nothing, but goes on saying that it is there.

use std::{fs, future::poll_fn, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use functions::{Pattern, Zero};
use lab::farbus::Host;
use noise_tcp::SecretKey;
use pci::Width;
use tokio::sync::watch;
use xhci::driver::{Driver, EndpointSetup, Event, Host as _, Plan, Trb, code, normal};

use crate::{
    remote::{Remote, connect},
    vmm::Vmm,
};

const SUPER: u8 = 4;
const BULK_OUT: u8 = 4;
/// Transfers that the guest queues, and their length: far more than the host may keep.
const TRANSFERS: u32 = 900;
const LENGTH: u32 = 0x1_0000;
/// What the host's memory may grow by, KiB: what its session keeps, what its lane to the controller holds, and slack.
const MAY_GROW: u64 = 16 << 10;
/// Register reads while the remote reads nothing.
const LOOKS: u32 = 1_000;
/// No event takes so long.
const LONG: Duration = Duration::from_secs(60);

/// Memory of its own that a process holds, KiB.
fn memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The guest's side: a driver with the device configured, and zeros to send.
struct Guest {
    driver: Driver<Vmm>,
    slot: u8,
    zeros: u64,
}

impl Guest {
    fn start(host: &Host) -> Result<Self> {
        let vmm = Vmm::connect(&host.seat("a").usb_socket())?;
        let plan = Plan { event_trbs: 2048, ring_trbs: 1024, ..Plan::at(0, 16 << 20) };
        let mut driver = Driver::start(vmm, plan);
        let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
        let port = (1..=ports).find(|port| driver.port_status(*port) & 1 != 0).context("no device")?;
        driver.reset_port(port);
        let slot = driver.enable_slot();
        ensure!(driver.address_device(slot, port, SUPER, false).code == code::SUCCESS, "Address Device");
        let zeros = driver.allocate(u64::from(LENGTH) * 2).next_multiple_of(u64::from(LENGTH));
        let mut guest = Self { driver, slot, zeros };
        // SET_CONFIGURATION, and the setting that has endpoints.
        guest.control([0, 9, 1, 0, 0, 0, 0, 0])?;
        guest.control([1, 11, 1, 0, 0, 0, 0, 0])?;
        let configured = guest.driver.configure(slot, &[EndpointSetup::bulk(BULK_OUT, 1024)]);
        ensure!(configured.code == code::SUCCESS, "Configure Endpoint: {configured:?}");
        Ok(guest)
    }

    fn control(&mut self, setup: [u8; 8]) -> Result<()> {
        let [.., status] = self.driver.control(self.slot, setup, self.zeros);
        self.ends(status).map(drop)
    }

    /// Waits for the end of the transfer whose last TRB is here.
    fn ends(&mut self, at: u64) -> Result<()> {
        let event = self.driver.await_event(LONG, |event| event.is_transfer() && event.pointer == at);
        let event = event.context("a transfer does not end")?;
        ensure!(event.code == code::SUCCESS, "{event:?}");
        Ok(())
    }

    /// Queues everything; where the last transfer is.
    fn write_much(&mut self) -> u64 {
        for _ in 1..TRANSFERS {
            self.driver.queue(self.slot, BULK_OUT, normal(self.zeros, LENGTH));
        }
        self.driver.transfer(self.slot, BULK_OUT, self.zeros, LENGTH)
    }

    /// Commands and register reads, again and again; the most memory that the host's worker held meanwhile.
    fn looks(&mut self, worker: u32) -> Result<u64> {
        const NO_OP: u8 = 23;
        let mut most = 0;
        for look in 0..LOOKS {
            self.driver.host.read(0, Width::Dword);
            if look % 20 == 0 {
                let done = self.driver.command(Trb::command(NO_OP, 0));
                ensure!(done.code == code::SUCCESS, "a command while the remote reads nothing: {done:?}");
            }
            most = most.max(memory(worker)?);
        }
        Ok(most)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_reads_nothing_costs_a_bounded_sum_and_lets_no_guest_wait() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["a"]).await?;
    let worker = host.workers["a"];
    let (mut remote, _) = Remote::begin(connect(&host, &SecretKey::generate()).await?).await?;
    remote.lend(Zero::new(Pattern::Zeros))?;
    let (reads, mut shall_read) = watch::channel(true);
    let lives = tokio::spawn(async move {
        loop {
            remote.reads = *shall_read.borrow_and_update();
            let life = poll_fn(|cx| match remote.turn(cx) {
                Ok(()) => std::task::Poll::Pending,
                Err(error) => std::task::Poll::Ready(error),
            });
            tokio::select! {
                error = life => bail!("the remote's session ended: {error}"),
                changed = shall_read.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    });
    host.program.wait_for("attached").await?;

    let shown = tokio::task::block_in_place(|| {
        let mut guest = Guest::start(&host)?;
        // What everything takes once is not counted.
        let first = guest.driver.transfer(guest.slot, BULK_OUT, guest.zeros, LENGTH);
        guest.ends(first)?;
        let before = memory(worker)?;
        reads.send_replace(false);
        let last = guest.write_much();
        let most = guest.looks(worker)?;
        ensure!(most < before + MAY_GROW, "from {before} KiB to {most} KiB");
        ensure!(!guest.driver.events().iter().any(Event::is_transfer), "all of it was taken by somebody");
        // It reads on, and nothing is missing.
        reads.send_replace(true);
        guest.ends(last)?;
        println!("{} KiB of transfers, {before} KiB before, {most} KiB at most", TRANSFERS * (LENGTH >> 10));
        anyhow::Ok(())
    });
    shown?;
    ensure!(!lives.is_finished(), "{:?}", lives.await?);
    ensure!(host.program.seen("detached").is_empty() && host.program.seen("link_lost").is_empty());
    drop(reads);
    lives.await?
}
