//! Sessions over links that lose datagrams, and end: every message once, in order.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    config,
    network::{BadNetwork, Faults},
    pair_with,
};
use link::Link;
use session::{Config as Sizes, Event, Identity, LinkId, LinkKind, NewLink, Secret, Session, SessionId};
use webrtc::{Config, WebRtc};
use wire::{Lane, Message};

mod common;

/// Anything here takes less, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGES: usize = 120;

fn message(at: usize) -> Message {
    let lane = [Lane::Ctl, Lane::Int, Lane::Bulk][at % 3];
    let len = [20, 300, 40_000][at % 3];
    Message { lane, head: Bytes::copy_from_slice(&at.to_be_bytes()), body: vec![at as u8; len].into() }
}

/// One end of a session, its link of the moment, and what is to be sent.
struct End {
    session: Session,
    link: Option<WebRtc>,
    name: LinkId,
    start: Instant,
    queue: VecDeque<Message>,
    received: [Vec<usize>; 5],
}

impl End {
    fn new(session: Session) -> Self {
        let queue = (0..MESSAGES).map(message).collect();
        let received = Default::default();
        Self { session, link: None, name: LinkId(0), start: Instant::now(), queue, received }
    }

    fn attach(&mut self, link: WebRtc, opens: bool) {
        let now = self.start.elapsed();
        self.session.link_down(now, self.name);
        self.name = LinkId(self.name.0 + 1);
        let kind = LinkKind { ordered: link.profile().ordered, lossy: link.profile().lossy };
        let link_up = NewLink { id: self.name, kind, binding: link.binding(), opens };
        self.session.link_up(now, link_up).unwrap();
        self.link = Some(link);
    }

    fn done(&self) -> bool {
        self.received.iter().map(Vec::len).sum::<usize>() == MESSAGES
    }

    /// Moves what can be moved.
    fn turn(&mut self, cx: &mut std::task::Context<'_>) {
        let now = self.start.elapsed();
        self.session.on_timeout(now);
        while let Some(next) = self.queue.front()
            && self.session.room(next.lane) >= next.len()
        {
            self.session.send(self.queue.pop_front().unwrap()).unwrap();
        }
        let Some(link) = &mut self.link else { return };
        while link.poll_ready(cx).map(|ready| ready.unwrap()).is_ready() {
            let Some(frame) = self.session.poll_transmit_on(now, self.name) else { break };
            link.send(frame).unwrap();
        }
        let _ = link.poll_flush(cx);
        while let Poll::Ready(next) = link.poll_receive(cx) {
            let (lane, frame) = next.unwrap();
            self.session.receive_on(now, self.name, lane, frame).unwrap();
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(lane, bytes) => {
                    self.session.consumed(lane, bytes.len());
                    let at = usize::from_be_bytes(bytes[..8].try_into().unwrap());
                    assert_eq!(bytes.len(), message(at).len());
                    self.received[lane as usize].push(at);
                }
                // SCTP backs off for seconds where much is lost.
                Event::PeerQuiet | Event::PeerSilent => {}
                Event::Attached { .. } | Event::Detached | Event::Retired(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Runs both ends until `until`.
async fn run(host: &mut End, remote: &mut End, until: impl Fn(&End, &End) -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    let all = poll_fn(|cx| {
        while tick.poll_tick(cx).is_ready() {}
        for _ in 0..2 {
            host.turn(cx);
            remote.turn(cx);
        }
        if until(host, remote) { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::time::timeout(PATIENCE, all).await.expect("the messages come");
}

fn ends() -> (End, End) {
    let identity = Identity { id: SessionId([1; 16]), secret: Secret::new([2; 32]) };
    let host = Session::host(identity, Sizes::default());
    (End::new(host), End::new(Session::remote(Sizes::default())))
}

fn assert_all_in_order(end: &End) {
    for (lane, first) in [(Lane::Ctl, 0), (Lane::Int, 1), (Lane::Bulk, 2)] {
        assert!(end.received[lane as usize].iter().copied().eq((first..MESSAGES).step_by(3)), "{lane:?}");
    }
}

#[tokio::test]
async fn every_message_comes_once_and_in_order_over_links_that_lose_and_end() {
    for (loss, delay) in [(0, 0), (10, 2000), (20, 5000)] {
        let (mut host, mut remote) = ends();
        let faults = Arc::new(Faults::default());
        faults.delay.store(delay, Ordering::SeqCst);
        let bad = Config { runtime: Arc::new(BadNetwork(faults.clone())), ..config() };
        for goal in [MESSAGES / 3, MESSAGES] {
            let (here, there) = pair_with(&bad, &bad).await;
            host.attach(there.unwrap(), false);
            remote.attach(here.unwrap(), true);
            faults.loss.store(loss, Ordering::SeqCst);
            let reached = |end: &End| end.received.iter().map(Vec::len).sum::<usize>() >= goal;
            run(&mut host, &mut remote, |host, remote| reached(host) && reached(remote)).await;
            // The link is dropped as it is; a new one follows.
            faults.loss.store(0, Ordering::SeqCst);
            (host.link, remote.link) = (None, None);
        }
        assert!(host.done() && remote.done());
        assert_all_in_order(&host);
        assert_all_in_order(&remote);
    }
}
