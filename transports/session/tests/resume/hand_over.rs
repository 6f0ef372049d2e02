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
    world::{CHANNELS, DATA, HOST, KINDS, REMOTE},
};

const MS: Duration = Duration::from_millis(1);
const OLD: LinkId = LinkId(1);
const NEW: LinkId = LinkId(2);
const START: Duration = Duration::from_secs(100);
/// Messages each way on each lane, one in each millisecond; the move begins after half of them.
const MESSAGES: u32 = 1_000;
const LANES: [Lane; 2] = [Lane::Int, Lane::Bulk];

/// A link that takes so long each way, carries so many bytes in a millisecond, and keeps the order.
struct Slow {
    id: LinkId,
    one_way: Duration,
    rate: Option<u32>,
    /// When each end can send again.
    free: [Duration; 2],
    to: [VecDeque<(Duration, Lane, Bytes)>; 2],
}

impl Slow {
    fn new(id: LinkId, one_way: Duration) -> Self {
        Self { id, one_way, rate: None, free: [Duration::ZERO; 2], to: Default::default() }
    }

    /// Takes what the ends have to send, and brings what is due.
    fn carry(&mut self, now: Duration, ends: &mut [Session; 2], tally: &mut [Tally; 2]) {
        for end in [HOST, REMOTE] {
            while self.free[end] <= now {
                let Some(frame) = ends[end].poll_transmit_on(now, self.id) else { break };
                let (lane, frame) = (frame.lane, joined(frame));
                tally[end].sent(lane, &frame);
                let takes = self.rate.map_or(Duration::ZERO, |rate| MS * frame.len() as u32 / rate);
                self.free[end] = self.free[end].max(now.saturating_sub(MS)) + takes;
                self.to[1 - end].push_back((self.free[end].max(now) + self.one_way, lane, frame));
            }
            while let Some((_, lane, frame)) = self.to[end].pop_front_if(|(due, ..)| *due <= now) {
                ends[end].receive_on(now, self.id, lane, frame).unwrap();
            }
        }
    }
}

/// What one end has sent of BULK.
#[derive(Default)]
struct Tally {
    /// The offset up to which it has.
    to: u64,
    /// Bytes in front of it, which went once more.
    again: u64,
}

impl Tally {
    fn sent(&mut self, lane: Lane, frame: &Bytes) {
        if (lane, frame[0]) == (Lane::Bulk, DATA) {
            let offset = u64::from_le_bytes(frame[8..16].try_into().unwrap());
            let end = offset + frame.len() as u64;
            self.again += if end <= self.to { frame.len() as u64 } else { 0 };
            self.to = self.to.max(end);
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
    let mut tally = Default::default();
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
        links.iter_mut().for_each(|link| link.carry(now, &mut ends, &mut tally));
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

/// How many bytes each end has kept at most, and sent twice, when a session moves between two links of this rate while
/// both have bulk on their way. Anything that is lost, doubled or out of order is a panic.
fn bulk_again(kinds: [LinkKind; 2], one_way: [Duration; 2], rate: u32) -> [(u64, u64); 2] {
    const SIZE: usize = 300_000;
    // It moves when it knows the path, in the middle of a second and a half.
    let count = 1_500 * rate / SIZE as u32;
    let zeros = Bytes::from(vec![0; SIZE - 4]);
    let (host, remote) = pair(kinds[0], &Config::default());
    let mut ends = [host, remote];
    let start = Duration::from_secs(200);
    let slow = |id, one_way| Slow { rate: Some(rate), ..Slow::new(id, one_way) };
    let mut links = vec![slow(OLD, one_way[0])];
    let (mut sent, mut came, mut kept) = ([0; 2], [0; 2], [0; 2]);
    let mut tally: [Tally; 2] = Default::default();
    for now in (0..10_000).map(|tick| start + MS * tick) {
        if links.len() == 1 && came.into_iter().min() >= Some(count / 2) {
            let [host, remote] = &mut ends;
            join(now, NEW, kinds[1], host, remote);
            links.push(slow(NEW, one_way[1]));
        }
        for (at, end) in ends.iter_mut().enumerate() {
            end.on_timeout(now);
            while sent[at] < count && end.room(Lane::Bulk) >= SIZE {
                let head = Bytes::copy_from_slice(&sent[at].to_le_bytes());
                end.send(Message { lane: Lane::Bulk, head, body: zeros.clone() }).unwrap();
                sent[at] += 1;
            }
            if end.link() == Some(OLD) {
                kept[at] = end.kept(Lane::Bulk).max(kept[at]);
            }
        }
        links.iter_mut().for_each(|link| link.carry(now, &mut ends, &mut tally));
        for (at, end) in ends.iter_mut().enumerate() {
            while let Some(event) = end.poll_event() {
                let Event::Message(lane, bytes) = event else { continue };
                end.consumed(lane, bytes.len());
                let whole = bytes.len() == SIZE && bytes[4..] == zeros;
                assert!(whole && bytes[..4] == came[at].to_le_bytes(), "message {} to {at}", came[at]);
                came[at] += 1;
            }
        }
    }
    assert_eq!(came, [count; 2], "all have come");
    assert!(ends.iter().all(|end| end.link() == Some(NEW) && end.stats().hand_overs == 1));
    [HOST, REMOTE].map(|end| (kept[end], tally[end].again))
}

/// What of BULK is on its way over the old link goes again over the new one, unless the peer says in time that it has come:
/// to wait for that would take as long, and for ever if the old link is dead. So it is what is kept at most, and of that
/// no more than the old path needs: what comes in one round trip of it, a quarter or a millisecond more as a budget, and
/// another quarter while the session tries whether that helps. Two round trips and what the ticks of this test add are
/// above all that.
#[test]
fn of_bulk_no_more_goes_twice_than_the_old_path_holds_in_two_round_trips() {
    // Two of the shortest chunks go over any path.
    const LEAST: u32 = 2 * (4 * 1024 + 128);
    for kinds in [[LinkKind::STREAM, CHANNELS], [CHANNELS, LinkKind::STREAM]] {
        for one_way in [[10, 10], [10, 50], [50, 10], [1, 100], [100, 1]] {
            for rate in [2_000, 10_000, 30_000] {
                let bound = u64::from(rate * (2 * 2 * one_way[0] + 4) + LEAST);
                let ends = bulk_again(kinds, one_way.map(|ms| MS * ms), rate);
                for (end, (kept, again)) in ends.into_iter().enumerate() {
                    let case = format!("{kinds:?} {one_way:?} {rate}: {again} of {kept} from {end}");
                    assert!(again > 0 && again <= kept && again <= bound, "{case}, at most {bound}");
                }
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
