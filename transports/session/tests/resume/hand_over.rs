//! What a hand-over costs in time: two links that take their time, and a clock that moves when a test says so.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use session::{Config, Event, LinkId, LinkKind, Session};
use wire::{Lane, Message};

use crate::{
    frames::{joined, message},
    rules::{carry, events, join, pair, settle, sizes, streams},
    security::nearly_right,
    world::{CHANNELS, HOST, KINDS, REMOTE},
};

const MS: Duration = Duration::from_millis(1);
const OLD: LinkId = LinkId(1);
const NEW: LinkId = LinkId(2);
const START: Duration = Duration::from_secs(100);
/// Messages each way on each lane, one in each millisecond; the move begins after half of them.
const MESSAGES: u32 = 1_000;
const LANES: [Lane; 2] = [Lane::Int, Lane::Bulk];

/// A link that takes so long each way, and keeps the order.
struct Slow {
    id: LinkId,
    one_way: Duration,
    to: [VecDeque<(Duration, Lane, Bytes)>; 2],
}

impl Slow {
    fn new(id: LinkId, one_way: Duration) -> Self {
        Self { id, one_way, to: Default::default() }
    }

    /// Takes what the ends have to send, and brings what is due.
    fn carry(&mut self, now: Duration, ends: &mut [Session; 2]) {
        for end in [HOST, REMOTE] {
            while let Some(frame) = ends[end].poll_transmit_on(now, self.id) {
                self.to[1 - end].push_back((now + self.one_way, frame.lane, joined(frame)));
            }
            while let Some((_, lane, frame)) = self.to[end].pop_front_if(|(due, ..)| *due <= now) {
                ends[end].receive_on(now, self.id, lane, frame).unwrap();
            }
        }
    }
}

/// How long each message took that was sent from the move on, and which it was, by the end that it came to. Anything
/// that is lost, doubled or out of order is a panic.
fn hand_over(kinds: [LinkKind; 2], one_way: [Duration; 2]) -> [Vec<(Duration, Duration)>; 2] {
    let (host, remote) = pair(kinds[0], &Config::default());
    let mut ends = [host, remote];
    let start = Duration::from_secs(200);
    let mut links = vec![Slow::new(OLD, one_way[0])];
    let mut came = [[0; LANES.len()]; 2];
    let mut delays = [Vec::new(), Vec::new()];
    for tick in 0..2 * MESSAGES {
        let now = start + MS * tick;
        if tick == MESSAGES / 2 {
            let [host, remote] = &mut ends;
            join(now, NEW, kinds[1], host, remote);
            links.push(Slow::new(NEW, one_way[1]));
        }
        for end in &mut ends {
            end.on_timeout(now);
            for lane in LANES.into_iter().filter(|_| tick < MESSAGES) {
                let body = Bytes::copy_from_slice(&tick.to_le_bytes());
                end.send(Message { lane, head: Bytes::new(), body }).unwrap();
            }
        }
        links.iter_mut().for_each(|link| link.carry(now, &mut ends));
        for (at, end) in ends.iter_mut().enumerate() {
            while let Some(event) = end.poll_event() {
                let Event::Message(lane, bytes) = event else { continue };
                end.consumed(lane, bytes.len());
                let number = u32::from_le_bytes(bytes[..].try_into().unwrap());
                let next = &mut came[at][usize::from(lane == Lane::Bulk)];
                assert_eq!(number, std::mem::replace(next, number + 1), "the next one of {lane:?} at {at}");
                delays[at].push((now - start - MS * number, MS * number));
            }
        }
    }
    assert_eq!(came, [[MESSAGES; 2]; 2], "all have come");
    assert!(ends.iter().all(|end| end.link() == Some(NEW)));
    assert!(ends.iter().all(|end| end.stats().hand_overs == 1));
    delays
}

#[test]
fn a_hand_over_delays_no_message() {
    for kinds in [
        [LinkKind::STREAM, LinkKind::STREAM],
        [LinkKind::STREAM, CHANNELS],
        [CHANNELS, LinkKind::STREAM],
        [CHANNELS, CHANNELS],
    ] {
        for one_way in [[10, 10], [10, 50], [50, 10], [1, 200], [200, 1]] {
            let one_way = one_way.map(|ms| MS * ms);
            for (end, delays) in hand_over(kinds, one_way).into_iter().enumerate() {
                let (longest, sent) = delays.into_iter().max().unwrap();
                let bound = one_way.into_iter().max().unwrap();
                assert!(
                    longest <= bound,
                    "{kinds:?} {one_way:?}: {longest:?} to {end} for what was sent after {sent:?}"
                );
            }
        }
    }
}

#[test]
fn a_peer_hears_at_once_over_the_old_link_that_the_new_one_is_lost() {
    let (mut host, mut remote) = streams();
    join(START, NEW, LinkKind::STREAM, &mut host, &mut remote);
    carry(START, NEW, &mut remote, &mut host);
    host.link_down(START, NEW);
    assert!(carry(START, OLD, &mut host, &mut remote));
    assert_eq!(remote.link(), None);
}

#[test]
fn an_answer_that_comes_after_the_detach_takes_the_session_on() {
    let (mut host, mut remote) = streams();
    join(START, NEW, LinkKind::STREAM, &mut host, &mut remote);
    carry(START, NEW, &mut remote, &mut host);
    let answer = host.poll_transmit_on(START, NEW).unwrap();
    host.on_timeout(START);
    let now = START + 500 * MS;
    host.on_timeout(now);
    carry(now, OLD, &mut host, &mut remote);
    remote.send(message(Lane::Int, 1, 100)).unwrap();
    remote.receive_on(now + MS, NEW, answer.lane, joined(answer)).unwrap();
    let attached = Event::Attached { link: NEW, epoch: 1, resumed: true };
    assert_eq!(events(&mut remote), [Event::Detached, attached]);
    assert_eq!((remote.stats().resumes, remote.stats().detached), (1, MS));
    settle(now + MS, NEW, &mut remote, &mut host);
    assert_eq!(sizes(&events(&mut host)), [(Lane::Int, 100)]);
}

#[test]
fn what_is_on_its_way_over_the_old_link_is_taken_when_it_comes_and_not_again() {
    for (old, new) in [(LinkKind::STREAM, CHANNELS), (CHANNELS, LinkKind::STREAM)] {
        let (mut host, mut remote) = pair(old, &Config::default());
        join(START, NEW, new, &mut host, &mut remote);
        let of = |remote: &mut Session, number: u32| {
            remote.send(message(Lane::Int, number, 100 + number as usize)).unwrap();
            std::iter::from_fn(|| remote.poll_transmit_on(START, OLD)).collect::<Vec<Message>>()
        };
        // The host is on the new link, and its answer on the way.
        let mut late = of(&mut remote, 1);
        carry(START, NEW, &mut remote, &mut host);
        late.extend(of(&mut remote, 2));
        let answer: Vec<Message> = std::iter::from_fn(|| host.poll_transmit_on(START, NEW)).collect();
        assert_eq!(sizes(&events(&mut host)), []);
        let deliver = |host: &mut Session, frames: &[Message]| {
            for frame in frames {
                host.receive_on(START, OLD, frame.lane, joined(frame.clone())).unwrap();
            }
        };
        deliver(&mut host, &late);
        assert_eq!(sizes(&events(&mut host)), [(Lane::Int, 101), (Lane::Int, 102)]);
        // A third one is later than its second copy.
        let later = of(&mut remote, 3);
        for frame in answer {
            remote.receive_on(START, NEW, frame.lane, joined(frame)).unwrap();
        }
        settle(START, NEW, &mut remote, &mut host);
        assert_eq!(sizes(&events(&mut host)), [(Lane::Int, 103)]);
        assert_eq!(host.stats().lane(Lane::Int).duplicate_frames, 2);
        deliver(&mut host, &[late, later].concat());
        assert_eq!(sizes(&events(&mut host)), []);
        assert_eq!(host.stats().lane(Lane::Int).duplicate_frames, 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_over_a_link_that_was_left_move_a_session_or_make_it_panic(
        of_host: bool,
        kinds in (0usize..3, 0usize..3),
        frames in proptest::collection::vec((0u8..5, nearly_right()), 0..40),
    ) {
        let (mut host, mut remote) = pair(KINDS[kinds.0], &Config::default());
        join(START, NEW, KINDS[kinds.1], &mut host, &mut remote);
        settle(START, NEW, &mut remote, &mut host);
        let session = if of_host { &mut host } else { &mut remote };
        events(session);
        for (lane, frame) in frames {
            while session.poll_transmit_on(START, NEW).is_some() {}
            let lane = Lane::from_wire(lane).expect("five lanes");
            if session.receive_on(START, OLD, lane, frame).is_err() {
                session.link_down(START, OLD);
            }
        }
        prop_assert_eq!((session.link(), session.epoch(), session.closed()), (Some(NEW), 1, false));
        let told = events(session);
        prop_assert!(told.iter().all(|event| matches!(event, Event::Message(..))), "{:?}", told);
    }
}
