//! Links in memory, and their decorators, pass the suite.

use std::time::Duration;

use link::{Cut, Faults, Faulty, Link, LinkError, Recorder, Way, conformance::suite};
use wire::{Lane, Message};

#[tokio::test(start_paused = true)]
async fn memory_conforms() {
    suite(async || {
        let (a, b) = link::pair();
        (Box::new(a) as Box<dyn Link>, Box::new(b) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_delays_conforms() {
    let mut seed = 0;
    suite(async || {
        seed += 1;
        let delay = Some(Duration::ZERO..Duration::from_millis(20));
        let faults = Faults { seed, delay, shuffle_lanes: true, ..Faults::default() };
        let (a, b) = link::pair();
        let (a, b) = (Faulty::new(a, faults.clone()), Faulty::new(b, faults));
        (Box::new(a) as Box<dyn Link>, Box::new(b) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_loses_and_doubles_on_lossy_lanes_conforms() {
    let mut seed = 100;
    suite(async || {
        seed += 1;
        let faults = Faults { seed, loss_percent: 20, duplicate_percent: 20, ..Faults::default() };
        let (a, b) = link::pair();
        let (a, b) = (Faulty::new(a, faults.clone()), Faulty::new(b, faults));
        (Box::new(a) as Box<dyn Link>, Box::new(b) as Box<dyn Link>)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_recorded_link_conforms() {
    suite(async || {
        let (a, b) = link::pair();
        let ((a, _), (b, _)) = (Recorder::new(a, 10), Recorder::new(b, 0));
        (Box::new(a) as Box<dyn Link>, Box::new(b) as Box<dyn Link>)
    })
    .await;
}

fn message(lane: Lane, body: &'static [u8]) -> Message {
    Message { lane, head: "h".into(), body: body.into() }
}

#[tokio::test]
async fn a_recording_holds_both_ways_and_keeps_the_latest() {
    let (a, mut b) = link::pair();
    let (mut a, recording) = Recorder::new(a, 2);
    a.send(message(Lane::Ctl, b"forgotten")).unwrap();
    a.send(message(Lane::Int, b"out")).unwrap();
    b.send(message(Lane::Bulk, b"in")).unwrap();
    std::future::poll_fn(|cx| a.poll_receive(cx)).await.unwrap();
    let seen: Vec<_> = recording.entries().into_iter().map(|e| (e.way, e.lane, e.frame)).collect();
    assert_eq!(seen, [(Way::Sent, Lane::Int, "hout".into()), (Way::Received, Lane::Bulk, "hin".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_comes_after_exactly_the_frames_it_was_told() {
    for frames in 0..5 {
        let (a, mut b) = link::pair();
        let mut a = Faulty::new(a, Faults { cut: Some((frames, Cut::Break)), ..Faults::default() });
        for _ in 0..frames {
            std::future::poll_fn(|cx| a.poll_ready(cx)).await.unwrap();
            a.send(message(Lane::Int, b"x")).unwrap();
        }
        let cut = std::future::poll_fn(|cx| a.poll_ready(cx)).await;
        assert!(matches!(cut, Err(LinkError::Lost(_))), "after {frames}: {cut:?}");
        for _ in 0..frames {
            std::future::poll_fn(|cx| b.poll_receive(cx)).await.unwrap();
        }
        let noticed = std::future::poll_fn(|cx| b.poll_receive(cx)).await;
        assert!(matches!(noticed, Err(LinkError::Lost(_))), "the peer after {frames}: {noticed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_link_says_nothing_to_anybody() {
    let (a, mut b) = link::pair();
    let mut a = Faulty::new(a, Faults { cut: Some((0, Cut::Stall)), ..Faults::default() });
    b.send(message(Lane::Ctl, b"x")).unwrap();
    let wait = Duration::from_secs(3600);
    let hour = tokio::time::timeout(wait, std::future::poll_fn(|cx| a.poll_receive(cx))).await;
    assert!(hour.is_err());
    assert!(tokio::time::timeout(wait, std::future::poll_fn(|cx| a.poll_ready(cx))).await.is_err());
    assert!(tokio::time::timeout(wait, std::future::poll_fn(|cx| b.poll_receive(cx))).await.is_err());
}
