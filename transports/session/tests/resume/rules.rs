//! The rules of moving from link to link, one by one.

use std::time::Duration;

use bytes::Bytes;
use session::{
    Config, Event, LinkId, LinkKind, LinkRefused, MAX_LINKS, NewLink, Opening, ProtocolError, ResetReason,
    Role, SendError, Session,
};
use wire::{Lane, Message};

use crate::{
    frames::{joined, message},
    world::{CHANNELS, DATAGRAMS, identity},
};

const T0: Duration = Duration::from_secs(100);
const MS: Duration = Duration::from_millis(1);
const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);

pub(crate) fn new_link(id: LinkId, kind: LinkKind, opens: bool) -> NewLink {
    NewLink { id, kind, binding: [id.0 as u8; 32], opens }
}

/// Carries all frames of this link one way.
pub(crate) fn carry(now: Duration, link: LinkId, from: &mut Session, to: &mut Session) -> bool {
    let mut any = false;
    while let Some(frame) = from.poll_transmit_on(now, link) {
        to.receive_on(now, link, frame.lane, joined(frame)).unwrap();
        any = true;
    }
    any
}

pub(crate) fn settle(now: Duration, link: LinkId, a: &mut Session, b: &mut Session) {
    while carry(now, link, a, b) | carry(now, link, b, a) {}
}

pub(crate) fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// A new link between the two, over which the remote speaks first.
pub(crate) fn join(now: Duration, id: LinkId, kind: LinkKind, host: &mut Session, remote: &mut Session) {
    host.link_up(now, new_link(id, kind, false)).unwrap();
    remote.link_up(now, new_link(id, kind, true)).unwrap();
}

/// A host and a remote on their first link.
pub(crate) fn pair(kind: LinkKind, config: &Config) -> (Session, Session) {
    let mut host = Session::host(identity(1), config.clone());
    let mut remote = Session::remote(config.clone());
    join(T0, A, kind, &mut host, &mut remote);
    settle(T0, A, &mut remote, &mut host);
    let begun = [Event::Attached { link: A, epoch: 0, resumed: false }];
    assert_eq!((&events(&mut host)[..], &events(&mut remote)[..]), (&begun[..], &begun[..]));
    assert_eq!(remote.id(), host.id());
    (host, remote)
}

pub(crate) fn streams() -> (Session, Session) {
    pair(LinkKind::STREAM, &Config::default())
}

fn lose(now: Duration, link: LinkId, host: &mut Session, remote: &mut Session) {
    for end in [host, remote] {
        end.link_down(now, link);
        assert_eq!(events(end), [Event::Detached]);
        assert_eq!(end.poll_transmit(now), None);
    }
}

pub(crate) fn sizes(events: &[Event]) -> Vec<(Lane, usize)> {
    let size = |event: &Event| match event {
        Event::Message(lane, bytes) => Some((*lane, bytes.len())),
        _ => None,
    };
    events.iter().filter_map(size).collect()
}

#[test]
fn what_a_link_took_with_it_and_what_was_sent_meanwhile_comes_over_the_next_one() {
    let (mut host, mut remote) = streams();
    host.send(message(Lane::Bulk, 1, 50_000)).unwrap();
    let gone = std::iter::from_fn(|| host.poll_transmit(T0)).count();
    assert!(gone >= 4 && host.kept(Lane::Bulk) > 50_000);
    lose(T0, A, &mut host, &mut remote);
    host.send(message(Lane::Int, 2, 70)).unwrap();
    let now = T0 + 700 * MS;
    join(now, B, LinkKind::STREAM, &mut host, &mut remote);
    assert_eq!(host.poll_transmit_on(now, B), None, "the host waits for the claim");
    settle(now, B, &mut remote, &mut host);
    let came = events(&mut remote);
    assert_eq!(came[0], Event::Attached { link: B, epoch: 1, resumed: true });
    assert_eq!(sizes(&came), [(Lane::Int, 70), (Lane::Bulk, 50_000)]);
    remote.consumed(Lane::Bulk, 50_000);
    remote.on_timeout(now + 100 * MS);
    settle(now + 100 * MS, B, &mut remote, &mut host);
    assert_eq!(host.kept(Lane::Bulk), 0);
    let stats = host.stats();
    assert_eq!((stats.resumes, stats.hand_overs, stats.detached), (1, 0, 700 * MS));
    assert_eq!(stats.lane(Lane::Bulk).retransmitted_frames, gone as u64);
    assert_eq!(remote.stats().lane(Lane::Bulk).duplicate_frames, 0, "nothing had arrived");
}

#[test]
fn without_a_link_queues_keep_their_bounds_and_sound_is_dropped() {
    let (mut host, mut remote) = streams();
    lose(T0, A, &mut host, &mut remote);
    while host.send(message(Lane::Int, 0, 1_000)).is_ok() {}
    assert!(host.queued(Lane::Int) <= Config::default().int.queue);
    assert!(matches!(host.send(message(Lane::Int, 0, 1_000)), Err(SendError::Full(_))));
    for lane in [Lane::Audio, Lane::Iso] {
        assert_eq!(host.send(message(lane, 0, 1_000)), Ok(()));
        assert_eq!((host.queued(lane), host.stats().lane(lane).dropped_messages), (0, 1));
    }
}

#[test]
fn sound_that_waited_for_the_old_link_is_not_heard_over_the_new_one() {
    let (mut host, mut remote) = streams();
    host.send(message(Lane::Audio, 1, 900)).unwrap();
    lose(T0, A, &mut host, &mut remote);
    join(T0, B, LinkKind::STREAM, &mut host, &mut remote);
    settle(T0, B, &mut remote, &mut host);
    host.send(message(Lane::Audio, 2, 901)).unwrap();
    settle(T0, B, &mut remote, &mut host);
    assert_eq!(sizes(&events(&mut remote)), [(Lane::Audio, 901)]);
}

#[test]
fn a_hand_over_keeps_the_old_link_until_the_new_one_is_attached_and_lets_it_linger() {
    let (mut host, mut remote) = streams();
    join(T0, B, CHANNELS, &mut host, &mut remote);
    host.send(message(Lane::Int, 1, 100)).unwrap();
    carry(T0, A, &mut host, &mut remote);
    assert_eq!(sizes(&events(&mut remote)), [(Lane::Int, 100)], "the old link is in use");

    // Sound and a report are on their way over the old link when the session moves.
    host.send(message(Lane::Audio, 2, 200)).unwrap();
    host.send(message(Lane::Int, 3, 300)).unwrap();
    let late: Vec<Message> = std::iter::from_fn(|| host.poll_transmit_on(T0, A)).collect();
    assert_eq!(late.len(), 2);
    settle(T0, B, &mut remote, &mut host);
    let came = events(&mut remote);
    assert_eq!(came[0], Event::Attached { link: B, epoch: 1, resumed: true });
    assert_eq!(sizes(&came), [(Lane::Int, 300)], "it came over the new link");
    for frame in late {
        remote.receive_on(T0, A, frame.lane, joined(frame)).unwrap();
    }
    assert_eq!(
        sizes(&events(&mut remote)),
        [(Lane::Audio, 200)],
        "late sound is taken, the report is not doubled"
    );
    assert_eq!(remote.stats().lane(Lane::Int).duplicate_frames, 1);

    for (name, end) in [("host", &mut host), ("remote", &mut remote)] {
        assert_eq!(end.stats().hand_overs, 1, "{name}");
        let detach = end.poll_transmit_on(T0, A).expect("a DETACH");
        assert_eq!(end.poll_transmit_on(T0, A), None, "{name} has nothing more for the old link");
        end.on_timeout(T0 + 999 * MS);
        let retired = |events: Vec<Event>| events.into_iter().any(|event| event == Event::Retired(A));
        assert!(!retired(events(end)), "{name}");
        end.on_timeout(T0 + 1_000 * MS);
        assert!(retired(events(end)), "{name} gives the old link up after a second");
        assert_eq!(detach.lane, Lane::Ctl);
    }
}

#[test]
fn a_detach_without_a_new_link_detaches() {
    let (mut host, mut remote) = streams();
    // The host attaches over a link whose answer never comes; the remote hears of it by the DETACH.
    join(T0, B, LinkKind::STREAM, &mut host, &mut remote);
    carry(T0, B, &mut remote, &mut host);
    assert!(!carry(T0, A, &mut host, &mut remote), "the remote may use the old link for the time being");
    host.on_timeout(T0);
    let now = T0 + 500 * MS;
    assert_eq!(host.poll_timeout(), Some(now));
    host.on_timeout(now);
    assert!(host.poll_timeout() > Some(now), "the timer does not spin");
    carry(now, A, &mut host, &mut remote);
    // A link that opens is none: it may be dead, and another one has to be looked for.
    assert_eq!((remote.link(), events(&mut remote)), (None, vec![Event::Detached]));
    assert_eq!(remote.detached_since(), Some(now));
    remote.link_down(now + 5 * MS, B);
    assert_eq!((remote.detached_since(), events(&mut remote)), (Some(now), vec![]), "once");
}

#[test]
fn a_session_without_a_link_expires_and_is_refused_afterwards() {
    let config = Config { expire_after: 700 * MS, ..Config::default() };
    let (mut host, mut remote) = pair(LinkKind::STREAM, &config);
    host.send(message(Lane::Int, 1, 100)).unwrap();
    carry(T0, A, &mut host, &mut remote);
    remote.link_down(T0, A);
    host.link_down(T0, A);
    assert_eq!(host.poll_timeout(), Some(T0 + 700 * MS));
    host.on_timeout(T0 + 699 * MS);
    assert_eq!(events(&mut host), [Event::Detached]);

    // The remote would go on, but the host has waited long enough, whether its timer rang or not.
    host.link_up(T0 + 699 * MS, new_link(B, LinkKind::STREAM, false)).unwrap();
    let patient = Config { expire_after: Duration::from_secs(99), ..Config::default() };
    let (_, mut other) = pair(LinkKind::STREAM, &patient);
    other.link_down(T0, A);
    other.link_up(T0 + 699 * MS, new_link(B, LinkKind::STREAM, true)).unwrap();
    let claim = other.poll_transmit_on(T0 + 699 * MS, B).unwrap();
    assert_eq!(Opening::of(Lane::Ctl, joined(claim.clone())), Ok(Opening::Resume(host.id().unwrap())));
    host.receive_on(T0 + 700 * MS, B, Lane::Ctl, joined(claim)).unwrap();
    assert_eq!(events(&mut host), [Event::Expired]);
    carry(T0 + 700 * MS, B, &mut host, &mut other);
    let expected = [Event::Detached, Event::Retired(B), Event::Reset(ResetReason::Expired)];
    assert_eq!(events(&mut other), expected);
    assert!(host.closed() && other.closed());
    assert!(matches!(other.send(message(Lane::Ctl, 0, 1)), Err(SendError::Closed(_))));

    // What had come before is still there, and then the end.
    remote.on_timeout(T0 + 800 * MS);
    let came = events(&mut remote);
    assert_eq!(sizes(&came), [(Lane::Int, 100)]);
    assert_eq!(came.last(), Some(&Event::Expired));
    assert_eq!(remote.link_up(T0 + 800 * MS, new_link(B, LinkKind::STREAM, true)), Err(LinkRefused::Over));
    assert_eq!((remote.poll_timeout(), remote.poll_event()), (None, None));
}

#[test]
fn a_lost_report_comes_again_after_three_round_trips_but_not_before_60_ms() {
    for (round_trip, expected) in [(4 * MS, 60 * MS), (40 * MS, 120 * MS)] {
        let (mut host, mut remote) = pair(CHANNELS, &Config::default());
        host.on_timeout(T0);
        carry(T0, A, &mut host, &mut remote);
        carry(T0 + round_trip, A, &mut remote, &mut host);
        let now = T0 + 50 * MS;
        host.send(message(Lane::Int, 1, 10)).unwrap();
        let report = host.poll_transmit(now).unwrap();
        let at = host.poll_timeout().unwrap();
        assert_eq!(at, now + expected, "round trip {round_trip:?}");
        assert!(host.poll_transmit(at - MS).is_none());
        host.on_timeout(at);
        let again = host.poll_transmit(at).unwrap();
        assert_eq!(joined(again.clone()), joined(report.clone()));
        for frame in [again, report] {
            remote.receive_on(at, A, Lane::Int, joined(frame)).unwrap();
        }
        assert_eq!(sizes(&events(&mut remote)), [(Lane::Int, 10)], "once");
        assert_eq!(remote.stats().lane(Lane::Int).duplicate_frames, 1);
        carry(at, A, &mut remote, &mut host);
        assert_eq!(host.kept(Lane::Int), 0, "it has come, though nobody has accepted it");
        assert_eq!(host.stats().lane(Lane::Int).retransmitted_frames, 1);
    }
}

#[test]
fn what_overtakes_waits_for_its_turn_in_bounded_memory() {
    let (mut host, mut remote) = pair(DATAGRAMS, &Config::default());
    while host.send(message(Lane::Int, 1, 1)).is_ok() {}
    let mut frames: Vec<Message> = std::iter::from_fn(|| host.poll_transmit(T0)).collect();
    assert!(frames.len() > 1_900, "{} frames", frames.len());
    let first = frames.remove(0);
    for frame in frames {
        remote.receive_on(T0, A, frame.lane, joined(frame)).unwrap();
    }
    assert_eq!(events(&mut remote), []);
    remote.receive_on(T0, A, first.lane, joined(first)).unwrap();
    assert_eq!(events(&mut remote).len(), 1 + 1_024, "the rest was too much to keep, and will come again");
}

#[test]
fn a_session_has_few_links_and_those_that_do_not_attach_are_retired() {
    let (mut host, _) = streams();
    for id in 2..2 + MAX_LINKS as u64 - 1 {
        host.link_up(T0, new_link(LinkId(id), LinkKind::STREAM, false)).unwrap();
    }
    assert_eq!(host.link_up(T0, new_link(LinkId(9), LinkKind::STREAM, false)), Err(LinkRefused::TooMany));
    host.link_down(T0, LinkId(2));
    assert_eq!(host.link_up(T0, new_link(A, LinkKind::STREAM, false)), Err(LinkRefused::Known));
    host.on_timeout(T0 + Duration::from_secs(5));
    let retired = events(&mut host).into_iter().filter(|event| matches!(event, Event::Retired(_))).count();
    assert_eq!((retired, host.link()), (MAX_LINKS - 2, Some(A)));
    let mut alone = Session::new(Role::Host, Config::default());
    assert_eq!(alone.link_up(T0, new_link(B, LinkKind::STREAM, false)), Err(LinkRefused::Nothing));
}

#[test]
fn a_session_that_moves_faster_than_links_linger_lets_the_oldest_of_them_go() {
    let (mut host, mut remote) = streams();
    for id in 2..=3 * MAX_LINKS as u64 {
        join(T0 + MS * id as u32, LinkId(id), LinkKind::STREAM, &mut host, &mut remote);
        settle(T0 + MS * id as u32, LinkId(id), &mut remote, &mut host);
        assert_eq!((host.link(), remote.link()), (Some(LinkId(id)), Some(LinkId(id))));
    }
    let retired = |session: &mut Session| {
        let events = events(session).into_iter();
        events
            .filter_map(|event| if let Event::Retired(LinkId(id)) = event { Some(id) } else { None })
            .collect::<Vec<u64>>()
    };
    let expected: Vec<u64> = (1..=2 * MAX_LINKS as u64).collect();
    assert_eq!([retired(&mut host), retired(&mut remote)], [expected.clone(), expected]);
}

#[test]
fn the_higher_epoch_wins_and_the_remote_wins_a_tie() {
    let (mut host, mut remote) = streams();
    lose(T0, A, &mut host, &mut remote);
    // Both speak first, each over a link of its own, at the same time.
    let (from_host, from_remote) = (LinkId(3), LinkId(4));
    host.link_up(T0, new_link(from_host, LinkKind::STREAM, true)).unwrap();
    remote.link_up(T0, new_link(from_host, LinkKind::STREAM, false)).unwrap();
    join(T0, from_remote, LinkKind::STREAM, &mut host, &mut remote);
    let of_host = host.poll_transmit_on(T0, from_host).unwrap();
    let of_remote = remote.poll_transmit_on(T0, from_remote).unwrap();
    let refused = remote.receive_on(T0, from_host, Lane::Ctl, joined(of_host));
    assert_eq!(refused, Err(ProtocolError::Epoch { found: 1, current: 1 }));
    host.receive_on(T0, from_remote, Lane::Ctl, joined(of_remote)).unwrap();
    assert!(events(&mut host).contains(&Event::Retired(from_host)));
    settle(T0, from_remote, &mut remote, &mut host);
    assert_eq!((host.link(), remote.link()), (Some(from_remote), Some(from_remote)));
    assert_eq!((host.epoch(), remote.epoch()), (1, 1));
}

#[test]
fn what_overtakes_the_answer_is_kept_and_bounded() {
    let (mut host, mut remote) = streams();
    lose(T0, A, &mut host, &mut remote);
    for number in 0..20 {
        let _ = host.send(message(Lane::Bulk, number, 100_000));
    }
    join(T0, B, CHANNELS, &mut host, &mut remote);
    carry(T0, B, &mut remote, &mut host);
    // Of bulk alone not so much may be on its way.
    for (number, lane) in (0..20).flat_map(|number| [(number, Lane::Audio), (number, Lane::Iso)]) {
        host.send(message(lane, number, 12_000)).unwrap();
    }
    let frames: Vec<Message> = std::iter::from_fn(|| host.poll_transmit_on(T0, B)).collect();
    let early: usize = frames[1..].iter().map(Message::len).sum();
    assert!((256 * 1024..320 * 1024).contains(&early), "{early} bytes before the remote is heard");
    for frame in frames.into_iter().skip(1) {
        remote.receive_on(T0, B, frame.lane, joined(frame)).unwrap();
    }
    assert_eq!(events(&mut remote), [], "nothing is taken before the answer");
    // The answer is lost, so the claim is made again.
    let now = T0 + 250 * MS;
    remote.on_timeout(now);
    settle(now, B, &mut remote, &mut host);
    let came = sizes(&events(&mut remote));
    let bulk = came.iter().filter(|came| **came == (Lane::Bulk, 100_000)).count();
    let rest = came.iter().filter(|(lane, size)| lane.may_lose() && *size == 12_000).count();
    assert!(bulk > 2 && rest > 2 && bulk + rest == came.len(), "{came:?}");
}

#[test]
fn round_trip_and_jitter_are_measured() {
    let (mut host, mut remote) = streams();
    for (at, round_trip) in [(1, 10), (2, 10), (3, 26), (4, 10)] {
        let now = T0 + Duration::from_secs(at);
        host.on_timeout(now);
        carry(now, A, &mut host, &mut remote);
        carry(now + round_trip * MS, A, &mut remote, &mut host);
    }
    let stats = host.stats();
    assert_eq!((stats.round_trip, stats.shortest_round_trip), (Some(10 * MS), Some(10 * MS)));
    assert!(stats.jitter > MS && stats.jitter < 3 * MS, "{:?}", stats.jitter);
}

#[test]
fn a_close_waits_for_the_next_link() {
    let (mut host, mut remote) = streams();
    lose(T0, A, &mut host, &mut remote);
    host.send(Message { lane: Lane::Int, head: Bytes::new(), body: Bytes::from_static(b"last") }).unwrap();
    host.close("enough");
    assert!(!host.closed());
    join(T0, B, CHANNELS, &mut host, &mut remote);
    for step in 0..4 {
        settle(T0 + step * 30 * MS, B, &mut remote, &mut host);
        remote.on_timeout(T0 + step * 30 * MS);
        host.on_timeout(T0 + step * 30 * MS);
    }
    let came = events(&mut remote);
    assert_eq!(sizes(&came), [(Lane::Int, 4)]);
    assert_eq!(came.last(), Some(&Event::PeerClosed("enough".to_owned())));
}
