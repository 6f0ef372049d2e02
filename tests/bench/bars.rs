//! What Farbus costs, as ratios measured in one run against a named baseline. `make bench` runs it.
//!
//! The machine is noisy, so nothing here is a test: it prints, says which bars were reached, and always ends with 0.

#[path = "vmm.rs"]
mod vmm;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Devfn, Lab, farbus};
use pci::Width;
use vmm::Vmm;
use xhci::driver::{Driver, EndpointSetup, Host as _, Plan, Trb, code, normal};

/// How long a measurement repeats.
const ROUNDS: usize = 5_000;
/// Bytes that are copied.
const COPY: usize = 512 << 20;
/// The data of one command of the disk.
const CHUNK: usize = 1 << 20;
const BAR0: u64 = 0xe000_0000;

fn main() -> Result<()> {
    // Cargo passes flags for the built-in harness; there are none here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    println!("registers");
    let bare = Times::of(unix_ping_pong()?);
    println!("  bare Unix-socket ping-pong        {bare}");
    let (read, write) = runtime.block_on(qemu(folder.path()))?;
    println!("  register read, through QEMU       {read}");
    println!("  posted write, through QEMU        {write}");
    bar("register read p50 <= 2.5 x ping-pong", read.p50.div_duration_f64(bare.p50), 2.5);

    println!("control transfers");
    let tcp = Times::of(tcp_ping_pong()?);
    println!("  raw TCP ping-pong                 {tcp}");
    let image = folder.path().join("bench.img");
    std::fs::File::create(&image)?.set_len(64 << 20)?;
    let mut rig = runtime.block_on(Rig::start(folder.path(), &image))?;
    let control = Times::of(rig.control_round_trips()?);
    println!("  GET_DESCRIPTOR, ring to ring      {control}");
    bar("control round trip p50 <= 4 x ping-pong", control.p50.div_duration_f64(tcp.p50), 4.0);

    println!("bulk");
    let raw: Vec<_> =
        [16 << 10, 64 << 10].into_iter().map(|chunk| Ok((chunk, raw_copy(chunk)?))).collect::<Result<_>>()?;
    for (chunk, rate) in &raw {
        println!("  raw TCP copy, {:>2} KiB writes       {rate:>7.0} MB/s", chunk >> 10);
    }
    let (rate, reads) = rig.bulk_reads()?;
    println!("  disk read, ring to ring           {rate:>7.0} MB/s");
    let reads = Times::of(reads);
    println!("  register read meanwhile           {reads}");
    let best = raw.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    bar("raw TCP copy <= 2.5 x bulk (that is, bulk >= 40 %)", best / rate, 2.5);
    bar("register read p99 under bulk / 300 us", reads.p99.div_duration_f64(Duration::from_micros(300)), 1.0);
    runtime.block_on(rig.stop())
}

fn bar(name: &str, ratio: f64, limit: f64) {
    let verdict = if ratio <= limit { "reached" } else { "MISSED" };
    println!("  -> {name}: {ratio:.2} (bar {limit}) {verdict}");
}

struct Times {
    p50: Duration,
    p99: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |percent| times[times.len() * percent / 100];
        Self { p50: at(50), p99: at(99) }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        write!(f, "p50 {:>7.1} us  p99 {:>7.1} us", us(self.p50), us(self.p99))
    }
}

fn repeat(rounds: usize, mut round: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    (0..rounds / 10).try_for_each(|_| round())?;
    let timed = |_| {
        let start = Instant::now();
        round()?;
        Ok(start.elapsed())
    };
    (0..rounds).map(timed).collect()
}

/// Thirty-two bytes there, forty back, as a register read has them.
fn unix_ping_pong() -> Result<Vec<Duration>> {
    let (mut near, mut far) = UnixStream::pair()?;
    thread::spawn(move || {
        let (mut request, reply) = ([0; 32], [0; 40]);
        while far.read_exact(&mut request).is_ok() && far.write_all(&reply).is_ok() {}
    });
    repeat(ROUNDS, || {
        near.write_all(&[0; 32])?;
        Ok(near.read_exact(&mut [0; 40])?)
    })
}

fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn tcp_ping_pong() -> Result<Vec<Duration>> {
    let (mut near, mut far) = tcp_pair()?;
    thread::spawn(move || {
        let mut message = [0; 64];
        while far.read_exact(&mut message).is_ok() && far.write_all(&message).is_ok() {}
    });
    repeat(ROUNDS, || {
        near.write_all(&[0; 64])?;
        Ok(near.read_exact(&mut [0; 64])?)
    })
}

/// MB/s of a plain copy from one thread to another.
fn raw_copy(chunk: usize) -> Result<f64> {
    let (mut near, mut far) = tcp_pair()?;
    let writer = thread::spawn(move || {
        let bytes = vec![0x5a; chunk];
        (0..COPY / chunk).try_for_each(|_| far.write_all(&bytes))
    });
    let mut buffer = vec![0; chunk];
    let start = Instant::now();
    (0..COPY / chunk).try_for_each(|_| near.read_exact(&mut buffer))?;
    let rate = COPY as f64 / start.elapsed().as_secs_f64() / 1e6;
    writer.join().ok().context("the writer")??;
    Ok(rate)
}

/// Register reads and posted writes of a real QEMU on a real worker, each a burst of 64 quadwords; times for one.
async fn qemu(folder: &Path) -> Result<(Times, Times)> {
    const FUNCTION: Devfn = Devfn::new(4, 0);
    const BURST: u32 = 64;
    let folder = folder.join("qemu");
    std::fs::create_dir(&folder)?;
    let mut host = farbus::Host::start(&folder, &["bench"]).await?;
    let lab = Lab::open().await?;
    let qtest = lab.qtest("bench").vfio_user(4, host.seat("bench").usb_socket()).start().await?;
    qtest.config_write(FUNCTION, 0x10, BAR0 as u32).await?;
    qtest.config_write(FUNCTION, 0x14, 0).await?;
    qtest.config_writew(FUNCTION, 0x04, 6).await?;
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let bytes = vec![0; 8 * BURST as usize];
    for _ in 0..200 {
        let start = Instant::now();
        qtest.read(BAR0, bytes.len()).await?;
        reads.push(start.elapsed() / BURST);
        // The end of the BAR has no registers: writes there change nothing.
        let start = Instant::now();
        qtest.write(BAR0 + 0xf000, &bytes).await?;
        writes.push(start.elapsed() / BURST);
        // The reads that follow must not wait for these.
        qtest.readl(BAR0).await?;
    }
    qtest.kill().await?;
    host.program.stop().await?;
    Ok((Times::of(reads), Times::of(writes)))
}

/// A host, a remote with a disk, and a driver on the controller.
struct Rig {
    host: farbus::Host,
    remote: farbus::Program,
    driver: Driver<Vmm>,
    slot: u8,
    buffer: u64,
}

const BULK_IN: u8 = 3;
const BULK_OUT: u8 = 4;
/// Protocol speed id of SuperSpeed.
const SUPER: u8 = 4;

impl Rig {
    async fn start(folder: &Path, image: &Path) -> Result<Self> {
        let mut host = farbus::Host::start(folder, &["bench"]).await?;
        let mut remote = host.remote("remote", "bench", &["--disk", &image.display().to_string()])?;
        remote.wait_for("connected").await?;
        host.program.wait_for("attached").await?;
        let vmm = Vmm::connect(&host.seat("bench").usb_socket())?;
        let plan = Plan { event_trbs: 1024, ..Plan::at(0, 16 << 20) };
        let mut driver = Driver::start(vmm, plan);
        let ports = (driver.host.read(4, Width::Dword) >> 24) as u8;
        let port =
            (1..=ports).find(|port| driver.port_status(*port) & 1 != 0).context("no device on a port")?;
        driver.reset_port(port);
        let slot = driver.enable_slot();
        ensure!(driver.address_device(slot, port, SUPER, false).code == code::SUCCESS, "Address Device");
        let buffer = driver.allocate(3 << 20);
        let mut rig = Self { host, remote, driver, slot, buffer };
        rig.control([0, 9, 1, 0, 0, 0, 0, 0])?;
        let endpoints = [EndpointSetup::bulk(BULK_IN, 1024), EndpointSetup::bulk(BULK_OUT, 1024)];
        let configured = rig.driver.configure(slot, &endpoints);
        ensure!(configured.code == code::SUCCESS, "Configure Endpoint: {configured:?}");
        Ok(rig)
    }

    async fn stop(mut self) -> Result<()> {
        self.remote.stop().await?;
        self.host.program.stop().await.map(drop)
    }

    fn await_transfer(&mut self, at: u64) -> Result<()> {
        let event = self
            .driver
            .await_event(Duration::from_secs(5), |event| event.is_transfer() && event.pointer == at);
        let event = event.context("a transfer does not end")?;
        ensure!(event.code == code::SUCCESS || event.code == code::SHORT_PACKET, "{event:?}");
        Ok(())
    }

    fn control(&mut self, setup: [u8; 8]) -> Result<()> {
        let [.., status] = self.driver.control(self.slot, setup, self.buffer);
        self.await_transfer(status)
    }

    fn control_round_trips(&mut self) -> Result<Vec<Duration>> {
        repeat(ROUNDS / 5, || self.control([0x80, 6, 0, 1, 0, 0, 18, 0]))
    }

    /// MB/s of sequential reads with two commands under way, and what register reads take meanwhile.
    fn bulk_reads(&mut self) -> Result<(f64, Vec<Duration>)> {
        let mut reads = Vec::new();
        let start = Instant::now();
        let mut earlier = self.read_command(0)?;
        for command in 1..(COPY / CHUNK) as u32 {
            let csw = self.read_command(command)?;
            // One timed access for each command, while its data are on their way.
            let access = Instant::now();
            self.driver.host.read(0, Width::Dword);
            reads.push(access.elapsed());
            self.await_transfer(earlier)?;
            earlier = csw;
        }
        self.await_transfer(earlier)?;
        Ok((COPY as f64 / start.elapsed().as_secs_f64() / 1e6, reads))
    }

    /// Queues command, data and status of one read of a mebibyte; where the status is. Two commands may be queued: the
    /// disk takes the second when the first is done.
    fn read_command(&mut self, number: u32) -> Result<u64> {
        let (mebibyte, data) = (number % 32, self.buffer + u64::from(number % 2) * CHUNK as u64);
        let sectors = (CHUNK / 512) as u16;
        let mut cbw = b"USBC\x01\x00\x00\x00".to_vec();
        cbw.extend((CHUNK as u32).to_le_bytes());
        cbw.extend([0x80, 0, 10, 0x28, 0]);
        cbw.extend((mebibyte * u32::from(sectors)).to_be_bytes());
        cbw.push(0);
        cbw.extend(sectors.to_be_bytes());
        cbw.resize(31, 0);
        let wrappers = self.buffer + (2 << 20) + u64::from(number % 2) * 8192;
        self.driver.host.store(wrappers, &cbw);
        self.driver.transfer(self.slot, BULK_OUT, wrappers, 31);
        let pieces = CHUNK as u64 / 0x1_0000;
        for piece in 0..pieces {
            let last = piece + 1 == pieces;
            let trb = normal(data + piece * 0x1_0000, 0x1_0000);
            self.driver.queue(self.slot, BULK_IN, trb.with(if last { 0 } else { Trb::CHAIN }));
        }
        Ok(self.driver.transfer(self.slot, BULK_IN, wrappers + 4096, 13))
    }
}
