//! Noise over TCP passes the suite of all links: as it is, under faults, and while its keys change all the time.

use std::time::Duration;

use link::{Faults, Faulty, Link, conformance::suite};

mod common;

#[tokio::test]
async fn noise_tcp_conforms() {
    suite(async || {
        let (remote, host) = common::pair().await;
        (Box::new(remote) as Box<dyn Link>, Box::new(host) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_end_conforms_as_well() {
    suite(async || {
        let (remote, host) = common::pair().await;
        (Box::new(host) as Box<dyn Link>, Box::new(remote) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test]
async fn noise_tcp_conforms_while_its_keys_change() {
    let mut links = 0;
    suite(async || {
        links += 1;
        let (mut remote, mut host) = common::pair().await;
        // Every record, every third, or by bytes: each frame of the suite crosses some change.
        remote.rekey_after(1 + links % 3, 1 << 30);
        host.rekey_after(u64::MAX, 20_000);
        (Box::new(remote) as Box<dyn Link>, Box::new(host) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test]
async fn noise_tcp_conforms_under_faults() {
    let mut seed = 0;
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
        let (remote, host) = common::pair().await;
        let (remote, host) = (Faulty::new(remote, faults.clone()), Faulty::new(host, faults));
        (Box::new(remote) as Box<dyn Link>, Box::new(host) as Box<dyn Link>)
    })
    .await;
}
