//! What links go through: urgent frames beside bulk, losses, a restart, a death, an end.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use common::{
    config,
    network::{BadNetwork, Faults},
    pair_with,
};
use link::{Frame, Link, LinkError};
use webrtc::{Config, WebRtc};
use wire::Lane;

mod common;

/// Anything here takes less, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn on(faults: &Arc<Faults>) -> Config {
    Config { runtime: Arc::new(BadNetwork(faults.clone())), ..config() }
}

/// A pair whose remote is on a network with faults.
async fn pair_on(faults: &Arc<Faults>) -> (WebRtc, WebRtc) {
    let (remote, host) = pair_with(&on(faults), &config()).await;
    (remote.unwrap(), host.unwrap())
}

fn frame(lane: Lane, len: usize) -> Frame {
    Frame { lane, head: Bytes::new(), body: vec![7; len].into() }
}

async fn send(link: &mut WebRtc, frame: Frame) {
    poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
    link.send(frame).unwrap();
}

async fn receive(link: &mut WebRtc) -> Result<(Lane, Bytes), LinkError> {
    let next = tokio::time::timeout(PATIENCE, poll_fn(|cx| link.poll_receive(cx)));
    next.await.expect("something comes, or the end")
}

/// A frame there, and one back.
async fn round_trip(a: &mut WebRtc, b: &mut WebRtc, lane: Lane) {
    send(a, frame(lane, 10)).await;
    assert_eq!(receive(b).await.unwrap().0, lane);
    send(b, frame(lane, 10)).await;
    assert_eq!(receive(a).await.unwrap().0, lane);
}

#[tokio::test]
async fn sockets_get_room_and_drivers_run_on_the_pool() {
    let faults = Arc::new(Faults::default());
    let _pair = pair_on(&faults).await;
    assert_eq!(faults.pooled.load(Ordering::SeqCst), 1);
    assert_eq!(*faults.buffers.lock().unwrap(), [webrtc::udp_buffer().unwrap()]);
}

#[tokio::test]
async fn a_channel_that_only_sends_does_not_stop_what_comes_on_the_others() {
    // Each round empties the send buffer of BULK, which is an event that somebody has to take: 256 fit.
    let (mut a, mut b) = common::pair().await;
    for _ in 0..600 {
        send(&mut a, frame(Lane::Bulk, 1000)).await;
        assert_eq!(receive(&mut b).await.unwrap().0, Lane::Bulk);
        round_trip(&mut a, &mut b, Lane::Int).await;
    }
}

#[tokio::test]
async fn an_urgent_frame_does_not_wait_for_bulk_that_nobody_takes() {
    let faults = Arc::new(Faults::default());
    let (mut a, mut b) = pair_on(&faults).await;
    // As much as a session has credit for, at once.
    for _ in 0..256 {
        let ready = poll_fn(|cx| std::task::Poll::Ready(a.poll_ready(cx))).await;
        assert!(ready.is_ready(), "room without waiting");
        a.send(frame(Lane::Bulk, 16 << 10)).unwrap();
    }
    send(&mut a, frame(Lane::Int, 10)).await;
    let (mut before, mut bulk) = (0, 0);
    let flush = tokio::spawn(async move {
        poll_fn(|cx| a.poll_flush(cx)).await.unwrap();
        a
    });
    while bulk < 256 {
        match receive(&mut b).await.unwrap().0 {
            Lane::Int => before = bulk,
            _ => bulk += 1,
        }
    }
    assert!(before < 128, "{before} frames of BULK came before one of INT");
    drop(flush.await.unwrap());
}

#[tokio::test]
async fn a_lone_frame_that_is_lost_does_not_wait_for_the_timer_of_sctp() {
    // That timer is a second at least.
    let faults = Arc::new(Faults::default());
    let (mut a, mut b) = pair_on(&faults).await;
    round_trip(&mut a, &mut b, Lane::Bulk).await;
    for lane in [Lane::Bulk, Lane::Int] {
        let mut in_time = false;
        // A busy machine may be late once; SCTP would be late always.
        for _ in 0..5 {
            faults.lose_next.store(1, Ordering::SeqCst);
            let sent = tokio::time::Instant::now();
            send(&mut a, frame(lane, 800)).await;
            assert_eq!(receive(&mut b).await.unwrap().0, lane);
            assert_eq!(faults.lose_next.load(Ordering::SeqCst), 0, "it was lost");
            in_time |= sent.elapsed() < Duration::from_millis(900);
            if in_time {
                break;
            }
        }
        assert!(in_time, "{lane:?}");
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_is_missed() {
    let faults = Arc::new(Faults::default());
    let (remote, mut host) = pair_on(&faults).await;
    faults.cut.store(true, Ordering::SeqCst);
    let end = receive(&mut host).await;
    assert!(matches!(end, Err(LinkError::Lost(_))), "{end:?}");
    let ready = poll_fn(|cx| host.poll_ready(cx)).await;
    assert!(matches!(ready, Err(LinkError::Lost(_))), "{ready:?}");
    drop(remote);
}

#[tokio::test]
async fn a_restart_moves_the_link_to_other_sockets() {
    let (mut remote, mut host) = common::pair().await;
    round_trip(&mut remote, &mut host, Lane::Int).await;
    for _ in 0..2 {
        let offer = remote.control().restart().await.unwrap();
        assert!(offer.contains("a=candidate:"), "{offer}");
        let answer = host.control().answer_restart(&offer).await.unwrap();
        assert!(answer.contains("a=candidate:"), "{answer}");
        remote.control().finish_restart(&answer).await.unwrap();
        for lane in [Lane::Ctl, Lane::Bulk] {
            round_trip(&mut remote, &mut host, lane).await;
        }
    }
    let nonsense = host.control().answer_restart("v=0").await;
    assert!(nonsense.is_err(), "and survives nonsense");
    round_trip(&mut remote, &mut host, Lane::Int).await;
}

#[tokio::test]
async fn links_come_about_on_a_network_that_loses() {
    for seed in 0..4 {
        let faults = Arc::new(Faults::default());
        faults.loss.store(50, Ordering::SeqCst);
        // A failure is an answer as well: set-up is tried again.
        let mut tries = 0;
        let (mut remote, mut host) = loop {
            tries += 1;
            match pair_with(&on(&faults), &config()).await {
                (Ok(remote), Ok(host)) => break (remote, host),
                (remote, host) => assert!(tries < 5, "{seed}: {:?} {:?}", remote.err(), host.err()),
            }
        };
        for _ in 0..20 {
            round_trip(&mut remote, &mut host, Lane::Int).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_links_leave_nothing_behind() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    drop(common::pair().await);
    let before = (open(), tasks());
    for round in 0..20 {
        let pairs: Vec<_> = (0..10).map(|_| tokio::spawn(common::pair())).collect();
        for pair in pairs {
            let (mut a, mut b) = pair.await.unwrap();
            // Half of them are closed, half dropped.
            if round % 2 == 0 {
                a.close("enough");
                let closed = poll_fn(|cx| a.poll_close(cx));
                let (closed, end) = tokio::join!(closed, receive(&mut b));
                assert!(closed.is_ok() && matches!(end, Err(LinkError::Closed(_))), "{closed:?} {end:?}");
            }
        }
    }
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        // One pair's worth of slack: the first one may have gone after it was counted.
        while open() > before.0 + 4 || tasks() > before.1 + 40 {
            look.tick().await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "{:?} descriptors and tasks, before {before:?}", (open(), tasks()));
}
