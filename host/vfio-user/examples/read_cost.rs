//! What a register read costs beside a bare ping-pong of the same bytes over a Unix socket, without a VMM.
//!
//! `cargo run --release -p vfio-user --example read_cost`
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use pci::{Function, Layout, Region};
use vfio_user::codec::{Command, Header, RegionAccess, Version};
use vfio_user::{Options, Server};
use zerocopy::IntoBytes;

const ROUNDS: usize = 100_000;

struct Zeros;

impl Function for Zeros {
    fn read(&mut self, _: Region, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: Region, _: u64, _: &[u8]) {}
    fn reset(&mut self) {}
}

fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let size = (Header::BYTES + payload.len()) as u32;
    let header = Header { id: 1, command: command as u16, size, flags: 0, errno: 0 };
    [header.as_bytes(), payload].concat()
}

fn measure(name: &str, mut round: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| round());
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed()
        })
        .collect();
    times.sort();
    let [p50, p99] = [50, 99].map(|percent| times[ROUNDS * percent / 100]);
    println!("{name:<16} p50 {p50:>8.1?}  p99 {p99:>8.1?}");
}

fn main() -> std::io::Result<()> {
    let (mut client, mut server) = UnixStream::pair()?;
    let echo = thread::spawn(move || {
        let (mut request, reply) = ([0; 32], [0; 40]);
        while server.read_exact(&mut request).is_ok() && server.write_all(&reply).is_ok() {}
    });
    let mut reply = [0; 40];
    measure("bare ping-pong", || {
        client.write_all(&[0; 32]).unwrap();
        client.read_exact(&mut reply).unwrap();
    });
    drop(client);
    echo.join().unwrap();

    let directory = tempfile::tempdir()?;
    let path = directory.path().join("device.sock");
    let server = Server::bind(
        &path,
        Layout { bars: [4096, 0, 0, 0, 0, 0], msi: 1, msix: 0, intx: false },
        Options::default(),
    )?;
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bus = server.into_bus().unwrap();
            while let Some(transaction) = bus.transactions.next().await {
                transaction.perform(&mut Zeros);
            }
        });
    });
    let mut client = UnixStream::connect(&path)?;
    client.write_all(&message(Command::Version, Version { major: 0, minor: 0 }.as_bytes()))?;
    client.read_exact(&mut vec![0; 20 + "{\"capabilities\":{}}\0".len()])?;
    let read = message(Command::RegionRead, RegionAccess { offset: 8, region: 0, count: 8 }.as_bytes());
    measure("register read", || {
        client.write_all(&read).unwrap();
        client.read_exact(&mut reply).unwrap();
    });
    Ok(())
}
