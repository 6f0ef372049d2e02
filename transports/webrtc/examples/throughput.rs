//! How fast bulk frames go over WebRTC, and how long an urgent one takes beside them, there and back. Loopback, both ends
//! in this process. `cargo run --release --manifest-path transports/webrtc/Cargo.toml --example throughput`
use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use link::{Frame, Link};
use wire::Lane;

#[path = "../tests/common/mod.rs"]
mod common;

const SPAN: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let buffer = webrtc::udp_buffer().expect("a socket on loopback");
    println!("the system gives UDP sockets {} KiB", buffer >> 10);
    for (in_flight, max) in [(64, 1024), (32, 0), (64, 0), (256, 0), (1024, 0)] {
        let (in_flight, in_flight_max) = (in_flight << 10, max << 10);
        let config = webrtc::Config { in_flight, in_flight_max, ..common::config() };
        let (remote, host) = common::pair_with(&config, &config).await;
        let host = tokio::spawn(echo(host.expect("a link")));
        let (bytes, mut trips) = load(remote.expect("a link")).await;
        host.abort();
        trips.sort_unstable();
        let at = |percent: usize| trips[(trips.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let rate = bytes as f64 / SPAN.as_secs_f64() / 1e6;
        let (p50, p99) = (at(50), at(99));
        let fixed = if in_flight_max == 0 { "fixed" } else { "or more" };
        println!(
            "{:>4} KiB in flight, {fixed:<7} {rate:>6.0} MB/s, p50 {p50:.2} ms, p99 {p99:.2} ms",
            in_flight >> 10
        );
    }
}

fn frame(lane: Lane, body: Bytes) -> Frame {
    Frame { lane, head: Bytes::new(), body }
}

/// Sends back what is urgent.
async fn echo(mut link: webrtc::WebRtc) {
    loop {
        let (lane, bytes) = poll_fn(|cx| link.poll_receive(cx)).await.expect("the link lives");
        if lane == Lane::Int {
            link.send(frame(lane, bytes)).expect("there is room");
        }
    }
}

/// Sends bulk, and an urgent frame whenever the last one has come back. Returns bytes sent and round trips.
async fn load(mut link: webrtc::WebRtc) -> (u64, Vec<Duration>) {
    let (start, mut asked, mut trips) = (Instant::now(), None, Vec::new());
    let bulk = Bytes::from(vec![7; 16 << 10]);
    let mut turn = |cx: &mut Context<'_>| {
        while link.poll_ready(cx).is_ready() {
            if asked.is_none() {
                asked = Some(Instant::now());
                link.send(frame(Lane::Int, Bytes::from_static(&[1; 64]))).expect("there is room");
            }
            if start.elapsed() > SPAN {
                let waiting = 8 << 20;
                return Poll::Ready(link.stats().sent_bytes.saturating_sub(waiting));
            }
            link.send(frame(Lane::Bulk, bulk.clone())).expect("there is room");
        }
        while let Poll::Ready(next) = link.poll_receive(cx) {
            next.expect("the link lives");
            trips.extend(asked.take().map(|asked: Instant| asked.elapsed()));
        }
        Poll::Pending
    };
    let sent = poll_fn(&mut turn).await;
    (sent, trips)
}
