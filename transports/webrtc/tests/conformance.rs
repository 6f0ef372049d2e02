//! WebRTC passes the suite of all links: as it is, from either end, and under faults.

use std::{collections::VecDeque, time::Duration};

use link::{Faults, Faulty, Link, conformance::suite};
use tokio::task::JoinHandle;
use webrtc::WebRtc;

mod common;

/// Connections that come about at the same time: each takes its time, but little of ours.
const AHEAD: usize = 16;

/// Makes pairs ahead of time.
struct Pairs(VecDeque<JoinHandle<(WebRtc, WebRtc)>>);

impl Pairs {
    fn new() -> Self {
        Self(VecDeque::new())
    }

    async fn next(&mut self) -> (WebRtc, WebRtc) {
        while self.0.len() < AHEAD {
            self.0.push_back(tokio::spawn(common::pair()));
        }
        self.0.pop_front().unwrap().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webrtc_conforms() {
    let mut pairs = Pairs::new();
    suite(async || {
        let (remote, host) = pairs.next().await;
        (Box::new(remote) as Box<dyn Link>, Box::new(host) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_end_conforms_as_well() {
    let mut pairs = Pairs::new();
    suite(async || {
        let (remote, host) = pairs.next().await;
        (Box::new(host) as Box<dyn Link>, Box::new(remote) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webrtc_conforms_under_faults() {
    let (mut pairs, mut seed) = (Pairs::new(), 0);
    suite(async || {
        seed += 1;
        let faults = Faults {
            seed,
            loss_percent: 10,
            duplicate_percent: 10,
            delay: Some(Duration::ZERO..Duration::from_micros(200)),
            shuffle_lanes: true,
            cut: None,
        };
        let (remote, host) = pairs.next().await;
        let (remote, host) = (Faulty::new(remote, faults.clone()), Faulty::new(host, faults));
        (Box::new(remote) as Box<dyn Link>, Box::new(host) as Box<dyn Link>)
    })
    .await;
}
