//! A peer that does not play by the rules is refused, and costs no memory.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use session::{Config, Event, HEADER_LEN, MAX_MESSAGE, ProtocolError, Role, Session};
use wire::Lane;

const T0: Duration = Duration::from_secs(1);
const FIRST: u8 = 1;
const LAST: u8 = 2;
const FROM_HOST: u8 = 4;
const DATA: u8 = 1;
const STATUS: u8 = 2;
const PING: u8 = 3;
const CLOSE: u8 = 5;
/// What a peer may send before it was told more.
const INITIAL: u64 = 65_536;

/// A frame as it stands on the wire.
fn raw(kind: u8, flags: u8, seq: u64, ack: u64, limit: u64, chunk: &[u8]) -> Bytes {
    let mut bytes = vec![kind, flags, 0, 0, 0, 0, 0, 0];
    for value in [seq, ack, limit] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(chunk);
    bytes.into()
}

fn host() -> Session {
    Session::new(Role::Host, Config::default())
}

#[test]
fn each_broken_rule_has_its_error() {
    use ProtocolError as E;
    let data = |flags, seq, chunk: &[u8]| raw(DATA, flags, seq, 0, 0, chunk);
    let whole = FIRST | LAST;
    let cases: Vec<(&str, Lane, Vec<Bytes>, ProtocolError)> = vec![
        ("nothing", Lane::Ctl, vec![Bytes::new()], E::Short(0)),
        ("unknown kind", Lane::Ctl, vec![raw(9, 0, 0, 0, 0, b"")], E::Kind(9)),
        ("a frame of ours", Lane::Int, vec![data(whole | FROM_HOST, 0, b"x")], E::Mirrored),
        ("unknown flag", Lane::Int, vec![data(whole | 16, 0, b"x")], E::Header(DATA)),
        ("asks where frames may be lost", Lane::Audio, vec![data(whole | 8, 0, b"x")], E::Header(DATA)),
        (
            "ping on bulk",
            Lane::Bulk,
            vec![raw(PING, 0, 1, 0, 0, b"")],
            E::Lane { kind: PING, lane: Lane::Bulk },
        ),
        ("ping with bytes", Lane::Ctl, vec![raw(PING, 0, 1, 0, 0, b"x")], E::Header(PING)),
        ("credit on audio", Lane::Audio, vec![raw(DATA, whole, 0, 0, 1, b"x")], E::Header(DATA)),
        (
            "a gap",
            Lane::Int,
            vec![data(whole, 1, b"x")],
            E::Sequence { lane: Lane::Int, expected: 0, found: 1 },
        ),
        (
            "the same again",
            Lane::Int,
            vec![data(whole, 0, b"x"), data(whole, 0, b"x")],
            E::Sequence { lane: Lane::Int, expected: 33, found: 0 },
        ),
        (
            "beyond the window",
            Lane::Int,
            vec![data(whole, 0, &[0; INITIAL as usize - 31])],
            E::Window { lane: Lane::Int, end: INITIAL + 1, limit: INITIAL },
        ),
        (
            "offset at the end of numbers",
            Lane::Audio,
            vec![data(whole, u64::MAX - 10, b"x")],
            E::Window { lane: Lane::Audio, end: u64::MAX, limit: u64::MAX - 1 },
        ),
        (
            "acknowledges what was never sent",
            Lane::Bulk,
            vec![raw(STATUS, 0, 0, 1, 0, b"")],
            E::Ack { lane: Lane::Bulk, found: 1, sent: 0 },
        ),
        ("no first chunk", Lane::Bulk, vec![data(LAST, 0, b"x")], E::Fragments(Lane::Bulk)),
        (
            "two first chunks",
            Lane::Bulk,
            vec![data(FIRST, 0, b"x"), data(FIRST, 33, b"x")],
            E::Fragments(Lane::Bulk),
        ),
        ("an empty chunk in the middle", Lane::Bulk, vec![data(FIRST, 0, b"")], E::Fragments(Lane::Bulk)),
    ];
    for (name, lane, frames, expected) in cases {
        let mut host = host();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            host.receive(T0, lane, frame.clone()).unwrap();
        }
        assert_eq!(host.receive(T0, lane, last.clone()), Err(expected), "{name}");
    }
}

#[test]
fn a_message_that_never_ends_is_refused_at_its_greatest_length() {
    for lane in Lane::ALL {
        let mut host = host();
        let (mut seq, mut sent, chunk) = (0, 0, [7; 1_000]);
        let refused = loop {
            // A peer that always has credit.
            while host.poll_transmit(T0).is_some() {}
            let flags = if sent == 0 { FIRST } else { 0 };
            match host.receive(T0, lane, raw(DATA, flags, seq, 0, 0, &chunk)) {
                Ok(()) => (seq, sent) = (seq + 1_032, sent + 1_000),
                Err(error) => break error,
            }
            assert!(sent <= MAX_MESSAGE, "{lane:?}");
        };
        assert_eq!(refused, ProtocolError::TooLong(lane));
        assert!(sent > MAX_MESSAGE - 1_000);
    }
}

#[test]
fn the_smallest_messages_cost_their_window() {
    let mut host = host();
    while host.poll_transmit(T0).is_some() {}
    let window = Config::default().int.window as u64;
    let mut seq = 0;
    while host.receive(T0, Lane::Int, raw(DATA, FIRST | LAST, seq, 0, 0, b"")).is_ok() {
        seq += HEADER_LEN as u64;
        assert!(seq <= window, "messages without bytes are not free");
        while host.poll_transmit(T0).is_some() {}
    }
    assert_eq!(seq, window);
}

#[test]
fn a_flood_of_pings_gets_one_pong_per_frame_we_ask_for() {
    let mut host = host();
    while host.poll_transmit(T0).is_some() {}
    for number in 0..10_000 {
        host.receive(T0, Lane::Ctl, raw(PING, 0, number, 0, 0, b"")).unwrap();
    }
    let pong = host.poll_transmit(T0).unwrap();
    assert_eq!(pong.head[8..16], 9_999u64.to_le_bytes());
    assert!(host.poll_transmit(T0).is_none());
}

#[test]
fn frames_of_another_epoch_and_frames_after_the_end_are_dropped() {
    let mut host = host();
    let mut stale = raw(DATA, FIRST | LAST, 0, 0, 0, b"x").to_vec();
    stale[4] = 1;
    host.receive(T0, Lane::Int, stale.into()).unwrap();
    assert_eq!((host.stats().stale_frames, host.poll_event()), (1, None));
    host.receive(T0, Lane::Ctl, raw(CLOSE, 0, 0, 0, 0, &[0xff; 1_000])).unwrap();
    host.receive(T0, Lane::Int, raw(DATA, FIRST | LAST, 0, 0, 0, b"x")).unwrap();
    match host.poll_event() {
        Some(Event::PeerClosed(reason)) => {
            assert!(reason.len() <= 3 * 256, "{} bytes of reason", reason.len())
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(host.poll_event(), None);
}

#[test]
fn a_session_with_one_link_takes_nothing_that_moves_it() {
    for kind in 16..22 {
        let mut host = host();
        let body: &[u8] = match kind {
            16 => &[1, 0, 1, 0],
            17 => &[0; 50],
            18 | 19 => &[0; 96],
            20 => &[1],
            _ => &[],
        };
        let outcome = host.receive(T0, Lane::Ctl, raw(kind, 0, 0, 0, 0, body));
        assert_eq!(outcome, Err(ProtocolError::Unexpected(kind)));
        assert_eq!((host.poll_event(), host.closed()), (None, false));
    }
}

#[test]
fn credit_without_bounds_moves_no_more_than_may_be_on_its_way() {
    let mut host = host();
    host.receive(T0, Lane::Bulk, raw(STATUS, 0, 0, 0, u64::MAX, b"")).unwrap();
    let body = Bytes::from(vec![1; 1 << 20]);
    host.send(wire::Message { lane: Lane::Bulk, head: Bytes::new(), body }).unwrap();
    let sent = |host: &mut Session| {
        let frames = std::iter::from_fn(|| host.poll_transmit(T0));
        let chunks = frames.filter(|frame| frame.lane == Lane::Bulk && frame.head.first() == Some(&DATA));
        chunks.map(|frame| frame.len() as u64).sum::<u64>()
    };
    let first = sent(&mut host);
    assert!((32 << 10..=64 << 10).contains(&first), "{first} bytes");
    // Taking credit back has no effect.
    host.receive(T0, Lane::Bulk, raw(STATUS, 0, 0, first, 0, b"")).unwrap();
    assert!(sent(&mut host) > 0, "what was acknowledged makes room");
}

/// A frame that is nearly right, so that it gets past the first checks.
fn nearly_right() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let number = prop_oneof![8 => 0u64..4, 4 => (0u64..80).prop_map(|n| n * 33), 1 => any::<u64>()];
    let limit = prop_oneof![4 => Just(0u64), 1 => any::<u64>()];
    (0u8..5, 0u8..7, 0u8..16, number.clone(), number, limit, proptest::collection::vec(any::<u8>(), 0..3))
        .prop_map(|(lane, kind, flags, seq, ack, limit, chunk)| {
            (lane, raw(kind, flags, seq, ack, limit, &chunk).to_vec())
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_or_give_more_than_was_received(
        frames in proptest::collection::vec(
            prop_oneof![nearly_right(), (0u8..5, proptest::collection::vec(any::<u8>(), 0..80))], 0..60,
        ),
    ) {
        let mut host = host();
        let (mut now, mut given, mut taken) = (T0, 0, 0);
        for (lane, frame) in frames {
            let lane = Lane::from_wire(lane).expect("five lanes");
            taken += frame.len();
            if host.receive(now, lane, frame.into()).is_err() {
                break;
            }
            while let Some(event) = host.poll_event() {
                if let Event::Message(lane, bytes) = event {
                    given += bytes.len();
                    host.consumed(lane, bytes.len() + 1);
                }
            }
            now += Duration::from_millis(100);
            host.on_timeout(now);
            while host.poll_transmit(now).is_some() {}
        }
        prop_assert!(given <= taken);
    }
}
