//! What every link has to pass, whatever carries it.
//!
//! ```no_run
//! # async fn test() {
//! link::conformance::suite(async || {
//!     let (a, b) = link::pair();
//!     (Box::new(a) as Box<dyn link::Link>, Box::new(b) as Box<dyn link::Link>)
//! })
//! .await;
//! # }
//! ```
//! A rule that is broken is a panic with the rule in its message. A link that hangs breaks the rule it hangs in.

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use wire::Lane;

use crate::{Frame, Link, LinkError, Profile, drive};

/// The two ends of a fresh link.
pub type Pair = (Box<dyn Link>, Box<dyn Link>);

/// The time within which the end of a peer is noticed, and within which each rule is to be shown.
const PATIENCE: Duration = Duration::from_secs(20);
/// Peer death is noticed within this time.
const NOTICE: Duration = Duration::from_secs(3);
/// A link that had no room for so long is full, whatever moves frames below it.
const QUIET: Duration = Duration::from_millis(100);
/// More than any link may hold on its way, bytes.
const ON_THE_WAY: usize = 64 << 20;
/// Links that are made and closed in a row.
const LINKS: usize = 200;

/// Runs every rule on links that `make` makes.
///
/// # Panics
/// The links break a rule.
pub async fn suite(mut make: impl AsyncFnMut() -> Pair) {
    macro_rules! rules {
        ($($rule:ident),* $(,)?) => {$(
            let (a, b) = make().await;
            let shown = tokio::time::timeout(PATIENCE, $rule(a, b)).await;
            assert!(shown.is_ok(), "{}: not shown within {PATIENCE:?}", stringify!($rule));
        )*};
    }
    rules![
        both_ends_share_a_binding,
        every_size_arrives_whole_and_lanes_keep_their_order,
        a_frame_that_is_too_long_is_refused_and_harmless,
        nothing_is_taken_without_room,
        a_reader_that_stops_stops_the_writer,
        both_directions_flow_at_once,
        what_was_sent_before_a_close_arrives,
        a_closed_end_carries_nothing_more,
        the_death_of_a_peer_is_noticed,
        the_driver_carries_frames_and_closes_in_good_order,
    ];
    let mut bindings = std::collections::HashSet::new();
    for _ in 0..LINKS {
        let (mut a, b) = make().await;
        assert!(bindings.insert(a.binding()), "two links have one binding");
        a.close("enough");
        tokio::join!(close(a), ended(b));
    }
}

async fn both_ends_share_a_binding(a: Box<dyn Link>, b: Box<dyn Link>) {
    assert_eq!(a.binding(), b.binding(), "both ends have the same binding");
    assert_eq!(a.profile(), b.profile(), "both ends have the same profile");
    assert_ne!(a.peer(), b.peer(), "each end names the other");
}

async fn every_size_arrives_whole_and_lanes_keep_their_order(mut a: Box<dyn Link>, b: Box<dyn Link>) {
    let max = a.profile().max_frame;
    let sizes = [0, 1, 2, 31, 32, 33, 255, 1000, 4096, a.profile().good_frame, max / 2, max - 1, max];
    let frames: Vec<Frame> = sizes
        .iter()
        .enumerate()
        .flat_map(|(at, size)| Lane::ALL.map(|lane| frame(lane, at, *size)))
        .collect();
    let expected = frames.clone();
    let send = async {
        for frame in frames {
            send(&mut *a, frame).await;
        }
        flush(&mut *a).await;
        a.close("done");
        close(a).await;
    };
    let (received, ()) = tokio::join!(receive_all(b), send);
    for lane in Lane::ALL {
        let sent: Vec<_> = expected.iter().filter(|f| f.lane == lane).map(whole).collect();
        let came: Vec<_> =
            received.frames.iter().filter(|(l, _)| *l == lane).map(|(_, f)| f.clone()).collect();
        match (received.lossy(lane), received.profile.ordered(lane)) {
            (false, true) => assert_eq!(came, sent, "{lane:?}: all frames, in order"),
            (false, false) => assert_eq!(sorted(&came), sorted(&sent), "{lane:?}: all frames"),
            (true, true) => assert!(is_thinned(&came, &sent), "{lane:?}: only what was sent, in order"),
            (true, false) => {
                assert!(is_thinned(&sorted(&came), &sorted(&sent)), "{lane:?}: only what was sent");
            }
        }
    }
}

async fn a_frame_that_is_too_long_is_refused_and_harmless(mut a: Box<dyn Link>, b: Box<dyn Link>) {
    let max = a.profile().max_frame;
    ready(&mut *a).await;
    match a.send(frame(Lane::Ctl, 0, max + 1)) {
        Err(LinkError::TooLong { len, max: limit }) => assert_eq!((len, limit), (max + 1, max)),
        other => panic!("a frame of {} bytes: {other:?}", max + 1),
    }
    send(&mut *a, frame(Lane::Ctl, 1, 100)).await;
    flush(&mut *a).await;
    assert_eq!(a.stats().sent_frames, 1, "what was refused is not counted");
    let mut b = b;
    assert_eq!(receive(&mut *b).await.ok(), Some((Lane::Ctl, whole(&frame(Lane::Ctl, 1, 100)))));
}

async fn nothing_is_taken_without_room(mut a: Box<dyn Link>, b: Box<dyn Link>) {
    let size = a.profile().good_frame;
    let (sent, _) = fill(&mut *a, size).await;
    let refused = a.send(frame(Lane::Bulk, 0, size));
    assert!(matches!(refused, Err(LinkError::NotReady)), "a frame without room: {refused:?}");
    let mut b = b;
    for at in 0..sent {
        let came = receive_beside(&mut *a, &mut *b).await;
        assert_eq!(came, (Lane::Bulk, whole(&frame(Lane::Bulk, at, size))), "frame {at} after a refusal");
    }
}

async fn a_reader_that_stops_stops_the_writer(mut a: Box<dyn Link>, mut b: Box<dyn Link>) {
    let size = a.profile().good_frame;
    let (sent, bytes) = fill(&mut *a, size).await;
    assert!(bytes <= ON_THE_WAY, "{bytes} bytes are on the way to a reader that does not read");
    for _ in 0..sent {
        receive_beside(&mut *a, &mut *b).await;
    }
    send(&mut *a, frame(Lane::Bulk, sent, size)).await;
    flush(&mut *a).await;
    assert_eq!(receive(&mut *b).await.ok(), Some((Lane::Bulk, whole(&frame(Lane::Bulk, sent, size)))));
}

async fn both_directions_flow_at_once(a: Box<dyn Link>, b: Box<dyn Link>) {
    const FRAMES: usize = 600;
    async fn exchange(mut link: Box<dyn Link>) -> Box<dyn Link> {
        let size = link.profile().good_frame;
        let (mut sent, mut came) = (0, 0);
        poll_fn(|cx| {
            while sent < FRAMES && poll_ok(link.poll_ready(cx)) {
                link.send(frame(Lane::Bulk, sent, size)).expect("there was room");
                sent += 1;
            }
            let flushed = sent == FRAMES && poll_ok(link.poll_flush(cx));
            while came < FRAMES
                && let Poll::Ready(next) = link.poll_receive(cx)
            {
                let (lane, bytes) = next.expect("the link lives");
                assert_eq!((lane, &bytes), (Lane::Bulk, &whole(&frame(Lane::Bulk, came, size))));
                came += 1;
            }
            if flushed && came == FRAMES { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let stats = link.stats();
        let bytes = (FRAMES * size) as u64;
        assert_eq!((stats.sent_frames, stats.received_frames), (FRAMES as u64, FRAMES as u64));
        assert_eq!((stats.sent_bytes, stats.received_bytes), (bytes, bytes));
        // It lives until the other end is through as well.
        link
    }
    tokio::join!(exchange(a), exchange(b));
}

async fn what_was_sent_before_a_close_arrives(mut a: Box<dyn Link>, b: Box<dyn Link>) {
    let reason = "é".repeat(200);
    let close = async {
        for at in 0..10 {
            send(&mut *a, frame(Lane::Int, at, 1000)).await;
        }
        a.close(&reason);
        close(a).await;
    };
    let (received, ()) = tokio::join!(receive_all(b), close);
    assert_eq!(received.frames.len(), 10, "frames before the close");
    match received.end {
        LinkError::Closed(told) => assert_eq!(told, "é".repeat(128), "the reason, cut to 256 bytes"),
        other => panic!("a close in good order reads as {other:?}"),
    }
}

async fn a_closed_end_carries_nothing_more(mut a: Box<dyn Link>, mut b: Box<dyn Link>) {
    a.close("no more");
    let refused = a.send(frame(Lane::Ctl, 0, 1));
    assert!(matches!(refused, Err(LinkError::ClosedHere)), "send: {refused:?}");
    let ready = poll_fn(|cx| a.poll_ready(cx)).await;
    assert!(matches!(ready, Err(LinkError::ClosedHere)), "poll_ready: {ready:?}");
    let next = receive(&mut *a).await;
    assert!(matches!(next, Err(LinkError::ClosedHere)), "poll_receive: {next:?}");
    let closed = async {
        for _ in 0..2 {
            let next = receive(&mut *b).await;
            assert!(
                matches!(&next, Err(LinkError::Closed(reason)) if reason == "no more"),
                "the peer: {next:?}"
            );
        }
        drop(b);
    };
    tokio::join!(close(a), closed);
}

async fn the_death_of_a_peer_is_noticed(mut a: Box<dyn Link>, b: Box<dyn Link>) {
    drop(b);
    let end = tokio::time::timeout(NOTICE, receive(&mut *a)).await;
    assert!(matches!(end, Ok(Err(LinkError::Lost(_)))), "reading from a dead peer: {end:?}");
    let write = poll_fn(|cx| {
        loop {
            match a.poll_ready(cx) {
                Poll::Ready(Ok(())) => drop(a.send(frame(Lane::Bulk, 0, 1000))),
                Poll::Ready(Err(error)) => break Poll::Ready(error),
                Poll::Pending => break Poll::Pending,
            }
            if let Poll::Ready(Err(error)) = a.poll_flush(cx) {
                break Poll::Ready(error);
            }
        }
    });
    let end = tokio::time::timeout(NOTICE, write).await;
    assert!(matches!(end, Ok(LinkError::Lost(_))), "writing to a dead peer: {end:?}");
}

async fn the_driver_carries_frames_and_closes_in_good_order(a: Box<dyn Link>, b: Box<dyn Link>) {
    const FRAMES: usize = 100;
    let (to_a, out_a) = mpsc::channel(4);
    let (in_a, from_a) = mpsc::channel(4);
    let (_to_b, out_b) = mpsc::channel(4);
    let (in_b, mut from_b) = mpsc::channel(4);
    let feed = async move {
        for at in 0..FRAMES {
            to_a.send(frame(Lane::Bulk, at, 500)).await.expect("the driver runs");
        }
        // Both channels end while the last frames still wait in one of them.
        drop((to_a, from_a));
    };
    let check = async move {
        for at in 0..FRAMES {
            assert_eq!(from_b.recv().await, Some((Lane::Bulk, whole(&frame(Lane::Bulk, at, 500)))));
        }
        assert_eq!(from_b.recv().await, None, "the channel ends with the link");
    };
    let (end_a, end_b, (), ()) = tokio::join!(drive(a, out_a, in_a), drive(b, out_b, in_b), feed, check);
    assert!(matches!(end_a.error, LinkError::ClosedHere), "{end_a}");
    assert!(matches!(end_b.error, LinkError::Closed(_)), "{end_b}");
    assert_eq!((end_a.stats.sent_frames, end_b.stats.received_frames), (FRAMES as u64, FRAMES as u64));
}

/// What came over a link until it ended.
struct Received {
    frames: Vec<(Lane, Bytes)>,
    end: LinkError,
    profile: Profile,
}

impl Received {
    fn lossy(&self, lane: Lane) -> bool {
        self.profile.lossy(lane)
    }
}

async fn receive_all(mut link: Box<dyn Link>) -> Received {
    let (mut frames, profile) = (Vec::new(), link.profile().clone());
    loop {
        match receive(&mut *link).await {
            Ok(frame) => frames.push(frame),
            Err(end) => return Received { frames, end, profile },
        }
    }
}

async fn ended(link: Box<dyn Link>) {
    let received = receive_all(link).await;
    assert!(matches!(received.end, LinkError::Closed(_)), "{}", received.end);
}

/// Sends until the link has had no room for a while. Returns frames and bytes that it took.
async fn fill(link: &mut dyn Link, size: usize) -> (usize, usize) {
    let (mut frames, mut bytes) = (0, 0);
    while bytes <= ON_THE_WAY && tokio::time::timeout(QUIET, ready(link)).await.is_ok() {
        link.send(frame(Lane::Bulk, frames, size)).expect("there was room");
        (frames, bytes) = (frames + 1, bytes + size);
    }
    (frames, bytes)
}

/// Receives at one end while the other writes what it holds.
async fn receive_beside(a: &mut dyn Link, b: &mut dyn Link) -> (Lane, Bytes) {
    poll_fn(|cx| {
        let _ = poll_ok(a.poll_flush(cx));
        b.poll_receive(cx)
    })
    .await
    .expect("the link lives")
}

async fn send(link: &mut dyn Link, frame: Frame) {
    ready(link).await;
    link.send(frame).expect("there was room");
}

async fn ready(link: &mut dyn Link) {
    poll_fn(|cx| link.poll_ready(cx)).await.expect("the link lives");
}

async fn flush(link: &mut dyn Link) {
    poll_fn(|cx| link.poll_flush(cx)).await.expect("the link lives");
}

async fn receive(link: &mut dyn Link) -> Result<(Lane, Bytes), LinkError> {
    poll_fn(|cx| link.poll_receive(cx)).await
}

async fn close(mut link: Box<dyn Link>) {
    poll_fn(|cx| link.poll_close(cx)).await.expect("closing");
}

fn poll_ok(poll: Poll<Result<(), LinkError>>) -> bool {
    match poll {
        Poll::Ready(result) => {
            result.expect("the link lives");
            true
        }
        Poll::Pending => false,
    }
}

/// A frame of `size` bytes that tells which one it is, in a head and a body of uneven lengths.
fn frame(lane: Lane, at: usize, size: usize) -> Frame {
    let bytes: Bytes =
        (0..size).map(|i| (i.wrapping_mul(31) ^ at.wrapping_mul(7) ^ lane as usize) as u8).collect();
    let head = size.min(37);
    Frame { lane, head: bytes.slice(..head), body: bytes.slice(head..) }
}

fn whole(frame: &Frame) -> Bytes {
    [&frame.head[..], &frame.body[..]].concat().into()
}

fn sorted(frames: &[Bytes]) -> Vec<Bytes> {
    let mut frames = frames.to_vec();
    frames.sort_unstable();
    frames
}

/// Whether `came` is `sent` with some left out or doubled.
fn is_thinned(came: &[Bytes], sent: &[Bytes]) -> bool {
    let mut sent = sent.iter().peekable();
    came.iter().all(|frame| {
        while sent.peek().is_some_and(|next| *next != frame) {
            sent.next();
        }
        sent.peek().is_some()
    })
}
