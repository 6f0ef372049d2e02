//! How fast bulk messages go through session, driver and Noise-TCP and out again, beside a bare TCP copy of as many
//! bytes. Loopback, both ends in this process. `cargo run --release -p noise-tcp --example throughput`
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use session::{Config, Event, Role, Session};
use tokio::sync::mpsc;
use wire::{Lane, Message};

#[path = "../tests/common/mod.rs"]
mod common;

const TOTAL: usize = 1 << 30;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rate = |start: Instant| TOTAL as f64 / start.elapsed().as_secs_f64() / 1e6;
    for write in [16 << 10, 64 << 10] {
        let start = Instant::now();
        raw_copy(write);
        println!("raw TCP, {:>2} KiB writes                  {:>6.0} MB/s", write >> 10, rate(start));
    }
    for size in [16 << 10, 64 << 10, 1 << 20] {
        let (remote, host) = common::pair().await;
        let start = Instant::now();
        let source = tokio::spawn(run(remote, Role::Remote, size, TOTAL / size));
        run(host, Role::Host, size, 0).await;
        println!("session, noise-tcp, {:>4} KiB messages   {:>6.0} MB/s", size >> 10, rate(start));
        source.await.unwrap();
    }
}

fn raw_copy(write: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut input, _) = listener.accept().unwrap();
    let writer =
        std::thread::spawn(move || (0..TOTAL / write).for_each(|_| out.write_all(&vec![1; write]).unwrap()));
    let (mut bytes, mut left) = (vec![0; 256 << 10], TOTAL);
    while left > 0 {
        left -= input.read(&mut bytes).unwrap();
    }
    writer.join().unwrap();
}

/// One end: sends so many messages and closes, or receives until the peer closes.
async fn run(link: noise_tcp::NoiseTcp, role: Role, size: usize, mut send: usize) {
    let (outbound, to_link) = mpsc::channel(4);
    let (from_link, mut inbound) = mpsc::channel(64);
    let driver = tokio::spawn(link::drive(Box::new(link), to_link, from_link));
    let (mut session, start, mut frames) = (Session::new(role, Config::default()), Instant::now(), vec![]);
    let message = Message { lane: Lane::Bulk, head: vec![1; 32].into(), body: vec![7; size - 32].into() };
    loop {
        while send > 0 && session.room(Lane::Bulk) >= size {
            session.send(message.clone()).unwrap();
            send -= 1;
            if send == 0 {
                session.close("done");
            }
        }
        while let Ok(permit) = outbound.try_reserve() {
            let Some(frame) = session.poll_transmit(start.elapsed()) else { break };
            permit.send(frame);
        }
        if session.closed() {
            break;
        }
        tokio::select! {
            _ = outbound.reserve(), if outbound.capacity() == 0 => {}
            count = inbound.recv_many(&mut frames, 16) => assert!(count > 0, "the link ended early"),
            () = tokio::time::sleep(Duration::from_millis(10)) => session.on_timeout(start.elapsed()),
        }
        for (lane, bytes) in frames.drain(..) {
            session.receive(start.elapsed(), lane, bytes).unwrap();
        }
        while let Some(Event::Message(lane, bytes)) = session.poll_event() {
            session.consumed(lane, bytes.len());
        }
    }
    drop((outbound, inbound));
    println!("  {role:?}: {}", driver.await.unwrap());
}
