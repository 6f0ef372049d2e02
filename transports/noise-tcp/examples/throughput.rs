//! How fast bulk messages go through session, driver and Noise-TCP and out again, beside a bare TCP copy of as many
//! bytes. Loopback, both ends in this process. `cargo run --release -p noise-tcp --example throughput`
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;
use link::Link;
use session::{Config, Event, Role, Session};
use tokio::sync::mpsc;
use wire::{Lane, Message};

#[path = "../tests/common/mod.rs"]
mod common;

const TOTAL: usize = 1 << 30;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for write in [16 << 10, 64 << 10] {
        println!("raw TCP, {:>2} KiB writes                      {:>7.0} MB/s", write >> 10, rate(raw_copy(write)));
    }
    for max_chunk in [16 * 1024 + 64, 32 * 1024 + 64, 60 * 1024] {
        for size in [16 << 10, 64 << 10, 1 << 20] {
            let took = runtime.block_on(through_sessions(size, max_chunk));
            println!(
                "session over noise-tcp, {:>4} KiB messages in chunks of {max_chunk:>5} {:>7.0} MB/s",
                size >> 10,
                rate(took)
            );
        }
    }
}

fn rate(took: Duration) -> f64 {
    TOTAL as f64 / took.as_secs_f64() / 1e6
}

fn raw_copy(write: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut input, _) = listener.accept().unwrap();
    let start = Instant::now();
    let writer = std::thread::spawn(move || {
        let bytes = vec![1; write];
        (0..TOTAL / write).for_each(|_| out.write_all(&bytes).unwrap());
    });
    let (mut bytes, mut left) = (vec![0; 256 << 10], TOTAL);
    while left > 0 {
        left -= input.read(&mut bytes).unwrap();
    }
    writer.join().unwrap();
    start.elapsed()
}

async fn through_sessions(size: usize, max_chunk: usize) -> Duration {
    let (remote, host) = common::pair().await;
    let config = Config { max_chunk, ..Config::default() };
    let start = Instant::now();
    let source = tokio::spawn(run(Box::new(remote), Role::Remote, config.clone(), size, TOTAL / size));
    run(Box::new(host), Role::Host, config, size, 0).await;
    source.await.unwrap();
    start.elapsed()
}

/// One end: sends so many messages, or receives until the peer closes.
async fn run(link: Box<dyn Link>, role: Role, config: Config, size: usize, mut send: usize) {
    let (outbound, from_session) = mpsc::channel(4);
    let (to_session, mut inbound) = mpsc::channel(64);
    let driver = tokio::spawn(link::drive(link, from_session, to_session));
    let (mut session, start, body) = (Session::new(role, config), Instant::now(), Bytes::from(vec![7; size - 32]));
    let mut frames = Vec::new();
    while !session.closed() {
        while send > 0 && session.room(Lane::Bulk) >= size {
            session.send(Message { lane: Lane::Bulk, head: Bytes::from_static(&[1; 32]), body: body.clone() }).unwrap();
            send -= 1;
            if send == 0 {
                session.close("done");
            }
        }
        while let Ok(permit) = outbound.try_reserve() {
            let Some(frame) = session.poll_transmit(start.elapsed()) else { break };
            permit.send(frame);
        }
        tokio::select! {
            _ = outbound.reserve(), if outbound.capacity() == 0 => {}
            _ = inbound.recv_many(&mut frames, 16) => {}
            () = tokio::time::sleep(Duration::from_millis(10)) => session.on_timeout(start.elapsed()),
        }
        for (lane, bytes) in frames.drain(..) {
            session.receive(start.elapsed(), lane, bytes).unwrap();
        }
        while let Some(event) = session.poll_event() {
            if let Event::Message(lane, bytes) = event {
                session.consumed(lane, bytes.len());
            }
        }
    }
    drop((outbound, inbound));
    driver.await.unwrap();
}
