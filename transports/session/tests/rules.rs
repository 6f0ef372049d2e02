//! The rules of an honest session, one by one.

use std::time::Duration;

use bytes::Bytes;
use session::{Config, Event, HEADER_LEN, LaneConfig, MAX_MESSAGE, Role, SendError, Session};
use wire::{Lane, Message};

const T0: Duration = Duration::from_secs(100);
const MS: Duration = Duration::from_millis(1);

fn message(lane: Lane, size: usize) -> Message {
    Message { lane, head: Bytes::from_static(b"h"), body: Bytes::from(vec![lane as u8; size - 1]) }
}

fn joined(frame: Message) -> Bytes {
    [&frame.head[..], &frame.body[..]].concat().into()
}

/// A host and a remote that have told each other their windows.
fn pair(config: Config) -> (Session, Session) {
    let (mut host, mut remote) =
        (Session::new(Role::Host, config.clone()), Session::new(Role::Remote, config));
    host.on_timeout(T0);
    remote.on_timeout(T0);
    settle(T0, &mut host, &mut remote);
    (host, remote)
}

/// Carries frames both ways until there are no more.
fn settle(now: Duration, a: &mut Session, b: &mut Session) {
    while carry(now, a, b) | carry(now, b, a) {}
}

/// Carries all frames one way.
fn carry(now: Duration, from: &mut Session, to: &mut Session) -> bool {
    let mut any = false;
    while let Some(frame) = from.poll_transmit(now) {
        to.receive(now, frame.lane, joined(frame)).unwrap();
        any = true;
    }
    any
}

/// The lanes of the next frames.
fn lanes(session: &mut Session, frames: usize) -> Vec<Lane> {
    (0..frames).map_while(|_| session.poll_transmit(T0)).map(|frame| frame.lane).collect()
}

fn messages(session: &mut Session) -> Vec<(Lane, usize)> {
    std::iter::from_fn(|| session.poll_event())
        .map(|event| match event {
            Event::Message(lane, bytes) => (lane, bytes.len()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn urgency_decides_among_what_waits() {
    let (mut host, _) = pair(Config::default());
    for lane in Lane::ALL.into_iter().rev() {
        host.send(message(lane, 100)).unwrap();
    }
    assert_eq!(lanes(&mut host, 9), Lane::ALL);
}

#[test]
fn an_urgent_message_waits_for_one_chunk_at_most() {
    let config = Config::default();
    let (mut host, _) = pair(config.clone());
    for lane in [Lane::Bulk, Lane::Iso, Lane::Audio, Lane::Int] {
        host.send(message(lane, 200_000)).unwrap();
    }
    let mut waited = 0;
    for _ in 0..40 {
        host.send(message(Lane::Ctl, 50)).unwrap();
        let frame = host.poll_transmit(T0).unwrap();
        if frame.lane != Lane::Ctl {
            // The share that is reserved for BULK.
            assert_eq!(frame.lane, Lane::Bulk);
            assert_eq!(
                host.poll_transmit(T0).unwrap().lane,
                Lane::Ctl,
                "two chunks before the urgent message"
            );
            waited += 1;
        }
        let chunk = host.poll_transmit(T0).unwrap();
        assert!(chunk.len() <= config.max_chunk + HEADER_LEN, "{} bytes in one frame", chunk.len());
    }
    assert!(waited <= 2, "it waited {waited} times of 40");
}

#[test]
fn bulk_has_a_twentieth_of_the_bytes_whatever_else_there_is() {
    for urgent in [100, 1_000, 16_000, 100_000] {
        let (mut host, mut remote) = pair(Config::default());
        let (mut of_bulk, mut of_all) = (0, 0);
        for _ in 0..40_000_000 / urgent.min(16_000) {
            while host.room(Lane::Int) >= urgent {
                host.send(message(Lane::Int, urgent)).unwrap();
            }
            while host.room(Lane::Bulk) >= 16_000 {
                host.send(message(Lane::Bulk, 16_000)).unwrap();
            }
            let frame = host.poll_transmit(T0).unwrap();
            let (lane, len) = (frame.lane, frame.len() - HEADER_LEN);
            of_bulk += if lane == Lane::Bulk { len } else { 0 };
            of_all += len;
            remote.receive(T0, lane, joined(frame)).unwrap();
            for (lane, len) in messages(&mut remote) {
                remote.consumed(lane, len);
            }
            carry(T0, &mut remote, &mut host);
        }
        let share = of_bulk as f64 / of_all as f64;
        assert!((0.049..0.06).contains(&share), "{share} of the bytes beside messages of {urgent}");
    }
}

#[test]
fn what_the_application_does_not_accept_stops_its_lane_and_no_other() {
    let config = Config::default();
    let (mut host, mut remote) = pair(config.clone());
    let mut sent = 0;
    for _ in 0..100 {
        while host.send(message(Lane::Bulk, 100_000)).is_ok() {
            sent += 100_000;
        }
        settle(T0, &mut host, &mut remote);
    }
    let received: usize = messages(&mut remote).iter().map(|(_, len)| len).sum();
    assert!(received <= config.bulk.window + MAX_MESSAGE, "{received} bytes beyond the window");
    assert!(received >= config.bulk.window - 100_000, "{received} bytes do not use the window");
    assert!(sent - received <= config.bulk.queue + 100_000, "the rest waits at the sender");

    host.send(message(Lane::Int, 1_000)).unwrap();
    carry(T0, &mut host, &mut remote);
    assert_eq!(messages(&mut remote), [(Lane::Int, 1_000)], "another lane flows");

    remote.consumed(Lane::Bulk, received);
    settle(T0, &mut host, &mut remote);
    assert!(!messages(&mut remote).is_empty(), "credit starts the lane again");
}

#[test]
fn a_message_larger_than_the_window_still_arrives() {
    let (mut host, mut remote) = pair(Config::default());
    for lane in [Lane::Ctl, Lane::Int, Lane::Bulk] {
        host.send(message(lane, MAX_MESSAGE)).unwrap();
    }
    for round in 0..100u32 {
        settle(T0 + round * 30 * MS, &mut host, &mut remote);
    }
    let expected = [Lane::Ctl, Lane::Int, Lane::Bulk].map(|lane| (lane, MAX_MESSAGE));
    assert_eq!(messages(&mut remote), expected);
}

#[test]
fn a_full_lane_gives_the_message_back_and_a_lossy_one_drops_its_oldest() {
    let lane = LaneConfig { queue: 950, window: 1_000 };
    let config = Config { int: lane, audio: lane, ..Config::default() };
    let (mut host, mut remote) = pair(config);
    for lane in [Lane::Int, Lane::Audio] {
        for size in [300, 301, 302] {
            assert_eq!(host.room(lane) >= size, size < 302, "{lane:?} {size}");
            let outcome = host.send(message(lane, size));
            match (lane, size) {
                (Lane::Int, 302) => assert_eq!(outcome, Err(SendError::Full(message(lane, size)))),
                _ => assert_eq!(outcome, Ok(())),
            }
        }
    }
    settle(T0, &mut host, &mut remote);
    let came = [(Lane::Int, 300), (Lane::Int, 301), (Lane::Audio, 301), (Lane::Audio, 302)];
    assert_eq!(messages(&mut remote), came);
    assert_eq!(host.stats().lane(Lane::Audio).dropped_messages, 1);
}

#[test]
fn sound_that_nobody_takes_is_dropped_oldest_first() {
    let (mut host, mut remote) = pair(Config::default());
    let window = Config::default().audio.window;
    for _ in 0..100 {
        host.send(message(Lane::Audio, 10_000)).unwrap();
        settle(T0, &mut host, &mut remote);
    }
    host.send(message(Lane::Audio, 77)).unwrap();
    settle(T0, &mut host, &mut remote);
    let kept = messages(&mut remote);
    assert!(kept.iter().map(|(_, len)| len).sum::<usize>() <= window);
    assert_eq!(kept.last(), Some(&(Lane::Audio, 77)), "the newest is kept");
    assert_eq!(remote.stats().lane(Lane::Audio).dropped_messages as usize, 101 - kept.len());
}

/// However short its messages are, so that the lane's bytes say nothing.
#[test]
fn sound_and_isochronous_data_that_have_waited_for_the_link_are_late_and_not_sent() {
    for (lane, every, late) in [(Lane::Audio, 10 * MS, 85), (Lane::Iso, 50 * MS, 80)] {
        let (mut host, mut remote) = pair(Config::default());
        settle(T0, &mut host, &mut remote);
        let at = |n: u32| T0 + every * n;
        for n in 0..100 {
            host.send_at(at(n), message(lane, 100 + n as usize)).unwrap();
            host.send_at(at(n), message(Lane::Int, 50)).unwrap();
        }
        settle(at(100), &mut host, &mut remote);
        let (mortal, others): (Vec<_>, Vec<_>) =
            messages(&mut remote).into_iter().partition(|(of, _)| *of == lane);
        assert_eq!(mortal, (late..100).map(|n| (lane, 100 + n)).collect::<Vec<_>>());
        assert_eq!(others.len(), 100, "nothing else is ever late");
        assert_eq!(host.stats().lane(lane).dropped_messages, late as u64);
    }
}

#[test]
fn a_lost_chunk_of_sound_costs_its_message_and_no_other() {
    let (mut host, mut remote) = pair(Config::default());
    for size in [40_000, 40_001, 40_002] {
        host.send(message(Lane::Audio, size)).unwrap();
    }
    let mut frames: Vec<_> = std::iter::from_fn(|| host.poll_transmit(T0)).collect();
    frames.remove(4);
    for frame in frames {
        remote.receive(T0, frame.lane, joined(frame)).unwrap();
    }
    assert_eq!(messages(&mut remote), [(Lane::Audio, 40_000), (Lane::Audio, 40_002)]);
    let stats = remote.stats();
    let came = stats.lane(Lane::Audio).received_frames;
    assert_eq!(stats.lane(Lane::Audio).missing_frames, 1);
    assert_eq!((host.stats().loss_ppm(), stats.loss_ppm()), (0, 1_000_000 / (came + 1)));
}

#[test]
fn too_long_a_message_is_refused() {
    let (mut host, _) = pair(Config::default());
    for lane in Lane::ALL {
        let long = message(lane, MAX_MESSAGE + 1);
        assert_eq!(host.send(long.clone()), Err(SendError::TooLong(long)));
        assert!(host.room(lane) >= MAX_MESSAGE, "an empty queue takes any message");
    }
}

#[test]
fn what_was_accepted_is_acknowledged_within_25_ms() {
    let (mut host, mut remote) = pair(Config::default());
    host.send(message(Lane::Int, 500)).unwrap();
    let at = T0 + 100 * MS;
    carry(at, &mut host, &mut remote);
    assert_eq!(host.unaccepted(Lane::Int), 500 + HEADER_LEN as u64);
    assert_eq!(messages(&mut remote), [(Lane::Int, 500)]);
    carry(at, &mut remote, &mut host);
    assert_eq!(host.unaccepted(Lane::Int), 500 + HEADER_LEN as u64, "received is not accepted");
    remote.consumed(Lane::Int, 500);
    assert_eq!(remote.poll_timeout(), Some(at + 25 * MS));
    assert!(remote.poll_transmit(at + 24 * MS).is_none(), "it waits for a frame that can carry it");
    remote.on_timeout(at + 25 * MS);
    carry(at + 25 * MS, &mut remote, &mut host);
    assert_eq!(host.unaccepted(Lane::Int), 0);
}

#[test]
fn an_answer_carries_the_acknowledgement() {
    let (mut host, mut remote) = pair(Config::default());
    host.send(message(Lane::Int, 500)).unwrap();
    carry(T0, &mut host, &mut remote);
    assert_eq!(messages(&mut remote), [(Lane::Int, 500)]);
    remote.consumed(Lane::Int, 500);
    remote.send(message(Lane::Int, 20)).unwrap();
    assert_eq!(lanes(&mut remote, 9), [Lane::Int], "one frame, not two");
    let told = remote.poll_timeout().unwrap();
    remote.on_timeout(told);
    assert!(remote.poll_transmit(told).is_none(), "nothing is told twice");
}

#[test]
fn a_blocked_link_does_not_make_the_timer_spin() {
    let (mut host, mut remote) = pair(Config::default());
    host.send(message(Lane::Int, 500)).unwrap();
    carry(T0, &mut host, &mut remote);
    assert_eq!(messages(&mut remote), [(Lane::Int, 500)]);
    remote.consumed(Lane::Int, 500);
    let mut wakes = 0;
    let mut now = T0;
    // Nobody asks for a frame.
    while let Some(at) = remote.poll_timeout().filter(|at| *at < T0 + Duration::from_secs(10)) {
        assert!(at > now || wakes == 0, "the next time is later than this one");
        now = at;
        remote.on_timeout(now);
        wakes += 1;
    }
    assert!(wakes <= 15, "{wakes} wakes in ten seconds");
}

#[test]
fn a_peer_is_quiet_after_a_second_and_a_half_silent_after_three_and_each_is_said_once() {
    let (mut host, mut remote) = pair(Config::default());
    let mut now = T0;
    let mut pings = 0;
    let mut quiet = None;
    let silent = loop {
        now = host.poll_timeout().unwrap().max(now);
        host.on_timeout(now);
        pings += std::iter::from_fn(|| host.poll_transmit(now)).count();
        match host.poll_event() {
            Some(Event::PeerQuiet) => assert_eq!(quiet.replace(now), None),
            Some(event) => break event,
            None => assert!(now < T0 + Duration::from_secs(5)),
        }
    };
    assert_eq!(quiet, Some(T0 + Duration::from_millis(1500)));
    assert_eq!((silent, now), (Event::PeerSilent, T0 + Duration::from_secs(3)));
    assert!((3..=4).contains(&pings), "{pings} pings in three seconds");
    for _ in 0..5 {
        now = host.poll_timeout().unwrap();
        host.on_timeout(now);
    }
    assert_eq!(host.poll_event(), None, "it is said once");

    // It speaks again, and falls silent again.
    remote.send(message(Lane::Int, 10)).unwrap();
    carry(now, &mut remote, &mut host);
    assert!(matches!(host.poll_event(), Some(Event::Message(..))));
    host.on_timeout(now + Duration::from_secs(3));
    assert_eq!(host.poll_event(), Some(Event::PeerSilent));
}

#[test]
fn pings_are_answered_and_measure_the_round_trip() {
    let (mut host, mut remote) =
        (Session::new(Role::Host, Config::default()), { Session::new(Role::Remote, Config::default()) });
    host.on_timeout(T0);
    carry(T0, &mut host, &mut remote);
    carry(T0 + 7 * MS, &mut remote, &mut host);
    assert_eq!(host.stats().round_trip, Some(7 * MS));
    let mut now = T0 + 7 * MS;
    for _ in 0..30 {
        now = host.poll_timeout().into_iter().chain(remote.poll_timeout()).min().unwrap().max(now);
        host.on_timeout(now);
        remote.on_timeout(now);
        settle(now, &mut host, &mut remote);
    }
    assert!(now > T0 + Duration::from_secs(10));
    assert_eq!((host.poll_event(), remote.poll_event()), (None, None), "an idle session is not a silent one");
    assert_eq!(host.stats().shortest_round_trip, Some(Duration::ZERO));
}

#[test]
fn a_close_comes_after_what_was_sent_and_nothing_comes_after_it() {
    let (mut host, mut remote) = pair(Config::default());
    host.send(message(Lane::Bulk, 100_000)).unwrap();
    host.send(message(Lane::Ctl, 10)).unwrap();
    host.close("é".repeat(200).as_str());
    assert!(matches!(host.send(message(Lane::Ctl, 10)), Err(SendError::Closed(_))));
    assert!(!host.closed(), "the last frame has not gone");
    carry(T0, &mut host, &mut remote);
    assert!(host.closed() && remote.closed());
    let events: Vec<_> = std::iter::from_fn(|| remote.poll_event()).collect();
    let [Event::Message(Lane::Ctl, _), Event::Message(Lane::Bulk, bytes), Event::PeerClosed(reason)] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((bytes.len(), reason.as_str()), (100_000, "é".repeat(128).as_str()));
    assert_eq!((host.poll_timeout(), remote.poll_timeout()), (None, None));
    assert!(matches!(remote.send(message(Lane::Ctl, 10)), Err(SendError::Closed(_))));
    assert_eq!((remote.poll_transmit(T0), remote.poll_event()), (None, None));
}

#[test]
fn a_message_in_one_chunk_is_not_copied() {
    let (mut host, mut remote) = pair(Config::default());
    host.send(message(Lane::Bulk, 16_000)).unwrap();
    let frame = joined(host.poll_transmit(T0).unwrap());
    let place = frame.as_ptr() as usize;
    remote.receive(T0, Lane::Bulk, frame).unwrap();
    let Some(Event::Message(_, bytes)) = remote.poll_event() else { panic!("no message") };
    assert_eq!(bytes.as_ptr() as usize, place + HEADER_LEN);
}
