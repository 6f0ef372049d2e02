//! Who does not own a session, or says what was said before, gets nowhere and does no harm.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use session::{
    Config, Event, HEADER_LEN, Identity, LaneConfig, LinkId, LinkKind, MAX_MESSAGE, NewLink, Opening,
    ProtocolError, ResetReason, Secret, Session, refusal,
};
use wire::{Lane, Message};

use crate::{
    frames::{joined, message},
    rules::{carry, events, join, new_link, pair, settle},
    world::{CHANNELS, KINDS, identity},
};

const T0: Duration = Duration::from_secs(100);
const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);
const C: LinkId = LinkId(3);
const FIRST_AND_LAST: u8 = 3;
const FROM_HOST: u8 = 4;
const DATA: u8 = 1;
const STATUS: u8 = 2;
const HELLO: u8 = 16;
const ATTACH: u8 = 18;

/// A frame as it stands on the wire.
fn raw(kind: u8, flags: u8, epoch: u32, seq: u64, limit: u64, body: &[u8]) -> Bytes {
    let mut bytes = vec![kind, flags, 0, 0];
    bytes.extend(epoch.to_le_bytes());
    for value in [seq, 0, limit] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes.into()
}

fn streams() -> (Session, Session) {
    pair(LinkKind::STREAM, &Config::default())
}

/// The ATTACH that this session would say over a link with this binding.
fn claim(session: &mut Session, id: LinkId, binding: LinkId) -> Bytes {
    let new = NewLink { id, ..new_link(binding, LinkKind::STREAM, true) };
    session.link_up(T0, new).unwrap();
    joined(session.poll_transmit_on(T0, id).unwrap())
}

/// A host that this frame is said to over a new link, and what it makes of it. It is as it was before.
fn refused(host: &mut Session, id: LinkId, frame: Bytes) -> ProtocolError {
    host.link_up(T0, new_link(id, LinkKind::STREAM, false)).unwrap();
    let before = (host.link(), host.epoch(), host.closed(), host.detached_since());
    let error = host.receive_on(T0, id, Lane::Ctl, frame).unwrap_err();
    host.link_down(T0, id);
    assert_eq!((host.link(), host.epoch(), host.closed(), host.detached_since()), before);
    error
}

/// The two still understand each other over link A.
fn unharmed(host: &mut Session, remote: &mut Session) {
    assert_eq!((host.link(), remote.link()), (Some(A), Some(A)));
    host.send(message(Lane::Int, 5, 55)).unwrap();
    settle(T0, A, host, remote);
    let came = events(remote);
    assert!(matches!(&came[..], [.., Event::Message(Lane::Int, bytes)] if bytes.len() == 55), "{came:?}");
}

#[test]
fn a_wrong_secret_is_refused() {
    let (mut host, mut remote) = streams();
    // Somebody who knows everything but the secret.
    let forged = Identity { secret: Secret::new([0; 32]), ..identity(1) };
    let (mut own, mut thief) = (Session::host(forged, Config::default()), Session::remote(Config::default()));
    join(T0, A, LinkKind::STREAM, &mut own, &mut thief);
    settle(T0, A, &mut thief, &mut own);
    let frame = claim(&mut thief, B, B);
    assert_eq!(refused(&mut host, B, frame), ProtocolError::Proof);
    unharmed(&mut host, &mut remote);
}

#[test]
fn a_host_without_the_secret_is_refused_and_nothing_of_it_is_taken() {
    let (mut host, mut remote) = streams();
    let forged = Identity { secret: Secret::new([0; 32]), ..identity(1) };
    let (mut thief, mut own) = (Session::host(forged, Config::default()), Session::remote(Config::default()));
    join(T0, A, LinkKind::STREAM, &mut thief, &mut own);
    settle(T0, A, &mut own, &mut thief);
    // It answers a claim of its own remote, over the link that the honest remote has opened.
    join(T0, B, LinkKind::STREAM, &mut thief, &mut own);
    thief.send(message(Lane::Ctl, 1, 10)).unwrap();
    carry(T0, B, &mut own, &mut thief);
    remote.link_up(T0, new_link(B, LinkKind::STREAM, true)).unwrap();
    remote.poll_transmit_on(T0, B).unwrap();
    let answers: Vec<Message> = std::iter::from_fn(|| thief.poll_transmit_on(T0, B)).collect();
    let (answer, rest) = answers.split_first().unwrap();
    for frame in rest {
        remote.receive_on(T0, B, frame.lane, joined(frame.clone())).unwrap();
    }
    let outcome = remote.receive_on(T0, B, Lane::Ctl, joined(answer.clone()));
    assert_eq!((outcome, events(&mut remote)), (Err(ProtocolError::Proof), vec![]));
    remote.link_down(T0, B);
    unharmed(&mut host, &mut remote);
}

#[test]
fn a_claim_for_another_link_is_refused() {
    let (mut host, mut remote) = streams();
    // Somebody in the middle has a link to each of the two, and passes the claim on.
    let frame = claim(&mut remote, B, B);
    assert_eq!(refused(&mut host, C, frame), ProtocolError::Proof);
    unharmed(&mut host, &mut remote);
}

#[test]
fn a_replayed_claim_is_refused() {
    let (mut host, mut remote) = streams();
    let frame = claim(&mut remote, B, B);
    host.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
    host.receive_on(T0, B, Lane::Ctl, frame.clone()).unwrap();
    settle(T0, B, &mut remote, &mut host);
    assert_eq!((host.link(), host.epoch()), (Some(B), 1));
    assert_eq!(refused(&mut host, C, frame.clone()), ProtocolError::Proof, "over another link");
    // Even if a link had the same binding once more.
    host.link_up(T0, NewLink { id: C, ..new_link(B, LinkKind::STREAM, false) }).unwrap();
    let again = host.receive_on(T0, C, Lane::Ctl, frame.clone());
    assert_eq!(again, Err(ProtocolError::Epoch { found: 1, current: 1 }));
    let stale = host.stats().stale_frames;
    host.receive_on(T0, B, Lane::Ctl, frame).unwrap();
    assert_eq!(
        (host.stats().stale_frames, host.link(), host.epoch()),
        (stale + 1, Some(B), 1),
        "over the same"
    );
}

#[test]
fn an_old_epoch_is_fenced() {
    let (mut host, mut remote) = streams();
    join(T0, B, LinkKind::STREAM, &mut host, &mut remote);
    settle(T0, B, &mut remote, &mut host);
    events(&mut host);
    let stale = host.stats().stale_frames;
    let past = |epoch| raw(DATA, FIRST_AND_LAST, epoch, 0, 0, b"from the past");
    for (link, epoch) in [(A, 1), (B, 0), (B, 2)] {
        host.receive_on(T0, link, Lane::Int, past(epoch)).unwrap();
    }
    assert_eq!((events(&mut host), host.stats().stale_frames), (vec![], stale + 3));
    // What was on its way over the old link counts for as long as that link lingers.
    let later = T0 + Duration::from_secs(1);
    host.on_timeout(later);
    assert_eq!(events(&mut host), [Event::Retired(A)]);
    host.receive_on(later, A, Lane::Int, past(0)).unwrap();
    assert_eq!((events(&mut host), host.stats().stale_frames), (vec![], stale + 4));
}

#[test]
fn a_link_that_was_left_takes_no_more_than_the_window_and_is_all_that_a_liar_loses() {
    let (mut host, mut remote) = streams();
    join(T0, B, LinkKind::STREAM, &mut host, &mut remote);
    settle(T0, B, &mut remote, &mut host);
    events(&mut host);
    for number in [1 << 40, u64::MAX] {
        let frame = raw(DATA, FIRST_AND_LAST, 0, number, 0, b"far ahead");
        let refused = host.receive_on(T0, A, Lane::Int, frame);
        assert!(matches!(refused, Err(ProtocolError::Window { lane: Lane::Int, .. })), "{refused:?}");
    }
    let mut ack = raw(STATUS, 0, 0, 0, 0, b"").to_vec();
    ack[16] = 1;
    let refused = host.receive_on(T0, A, Lane::Int, ack.into());
    assert_eq!(refused, Err(ProtocolError::Ack { lane: Lane::Int, found: 1, sent: 0 }));
    host.link_down(T0, A);
    assert_eq!((host.link(), events(&mut host)), (Some(B), vec![]));
    host.send(message(Lane::Int, 5, 55)).unwrap();
    settle(T0, B, &mut host, &mut remote);
    assert!(
        matches!(events(&mut remote).last(), Some(Event::Message(Lane::Int, bytes)) if bytes.len() == 55)
    );
}

#[test]
fn truncated_oversized_and_changed_claims_are_refused() {
    let (mut host, mut remote) = streams();
    let frame = claim(&mut remote, B, B);
    for len in 0..frame.len() + 300 {
        let cut: Vec<u8> = frame.iter().copied().chain([0; 300]).take(len).collect();
        let expected = match len {
            _ if len == frame.len() => continue,
            0..HEADER_LEN => ProtocolError::Short(len),
            _ => ProtocolError::Body { kind: ATTACH, len: len - HEADER_LEN },
        };
        assert_eq!(refused(&mut host, B, cut.into()), expected, "{len} bytes");
    }
    for bit in 0..frame.len() * 8 {
        let mut changed = frame.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        host.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
        if host.receive_on(T0, B, Lane::Ctl, changed.into()).is_ok() {
            let answer = joined(host.poll_transmit_on(T0, B).unwrap());
            assert_eq!(answer, joined(refusal(ResetReason::Unknown)), "bit {bit} names another session");
        }
        host.link_down(T0, B);
        assert_eq!((host.link(), host.epoch()), (Some(A), 0), "bit {bit}");
    }
    host.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
    host.receive_on(T0, B, Lane::Ctl, frame).unwrap();
    settle(T0, B, &mut remote, &mut host);
    assert_eq!((host.link(), remote.link()), (Some(B), Some(B)), "after all that the right one is taken");
}

#[test]
fn a_session_that_nobody_knows_is_reset() {
    let (mut host, mut remote) = pair(LinkKind::STREAM, &Config::default());
    let mut other = Session::host(identity(2), Config::default());
    remote.link_down(T0, A);
    let frame = claim(&mut remote, B, B);
    other.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
    other.receive_on(T0, B, Lane::Ctl, frame).unwrap();
    carry(T0, B, &mut other, &mut remote);
    assert_eq!(events(&mut other), [Event::Retired(B)]);
    let expected = [Event::Detached, Event::Retired(B), Event::Reset(ResetReason::Unknown)];
    assert_eq!(events(&mut remote), expected);
    assert!(remote.closed() && !other.closed() && !host.closed());
    // A reset over a link that is tried while another is in use ends that link only.
    let (mut host2, mut remote2) = streams();
    remote2.link_up(T0, new_link(B, LinkKind::STREAM, true)).unwrap();
    remote2.receive_on(T0, B, Lane::Ctl, joined(refusal(ResetReason::Unknown))).unwrap();
    assert_eq!(events(&mut remote2), [Event::Retired(B)]);
    unharmed(&mut host2, &mut remote2);
    drop(events(&mut host));
}

#[test]
fn an_end_that_has_lost_its_state_is_reset() {
    // The host forgot everything but the identity: the remote has what it never sent.
    let (mut host, mut remote) = streams();
    host.send(message(Lane::Int, 1, 100)).unwrap();
    settle(T0, A, &mut host, &mut remote);
    remote.link_down(T0, A);
    events(&mut remote);
    let mut reborn = Session::host(identity(1), Config::default());
    join(T0, B, LinkKind::STREAM, &mut reborn, &mut remote);
    settle(T0, B, &mut remote, &mut reborn);
    assert_eq!(events(&mut remote).last(), Some(&Event::Reset(ResetReason::Gap)));
    assert!(reborn.closed());

    // The remote forgot: the host no longer has what it would need.
    let (mut host, mut remote) = streams();
    host.send(message(Lane::Int, 1, 100)).unwrap();
    settle(T0, A, &mut host, &mut remote);
    remote.consumed(Lane::Int, 100);
    remote.on_timeout(T0 + Duration::from_millis(25));
    carry(T0, A, &mut remote, &mut host);
    host.send(message(Lane::Int, 2, 101)).unwrap();
    host.link_down(T0, A);
    events(&mut host);
    let (_, mut reborn) = streams();
    reborn.link_down(T0, A);
    events(&mut reborn);
    join(T0, B, LinkKind::STREAM, &mut host, &mut reborn);
    settle(T0, B, &mut reborn, &mut host);
    assert_eq!(events(&mut reborn), [Event::Retired(B), Event::Reset(ResetReason::Gap)]);
    assert_eq!(events(&mut host).last(), Some(&Event::Reset(ResetReason::Gap)));
}

#[test]
fn a_version_that_nobody_speaks_is_reset_and_the_session_still_waits() {
    let mut host = Session::host(identity(1), Config::default());
    host.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
    let hello = raw(HELLO, 0, 0, 0, 0, &[9, 0, 12, 0]);
    assert_eq!(Opening::of(Lane::Ctl, hello.clone()), Ok(Opening::New));
    host.receive_on(T0, B, Lane::Ctl, hello).unwrap();
    assert_eq!(host.poll_transmit_on(T0, B).map(joined), Some(joined(refusal(ResetReason::Version))));
    assert_eq!(events(&mut host), [Event::Retired(B)]);
    let mut remote = Session::remote(Config::default());
    join(T0, A, LinkKind::STREAM, &mut host, &mut remote);
    settle(T0, A, &mut remote, &mut host);
    events(&mut host);
    unharmed(&mut host, &mut remote);
}

#[test]
fn a_link_that_is_not_attached_carries_nothing() {
    let (mut host, mut remote) = streams();
    let whole = FIRST_AND_LAST;
    for (name, lane, frame, expected) in [
        ("data", Lane::Int, raw(DATA, whole, 0, 0, 0, b"x"), ProtocolError::Unexpected(DATA)),
        ("credit", Lane::Bulk, raw(STATUS, 0, 0, 0, 99, b""), ProtocolError::Unexpected(STATUS)),
        ("hello", Lane::Ctl, raw(HELLO, 0, 0, 0, 0, &[1, 0, 1, 0]), ProtocolError::Unexpected(HELLO)),
        ("nothing", Lane::Ctl, Bytes::new(), ProtocolError::Short(0)),
    ] {
        host.link_up(T0, new_link(B, LinkKind::STREAM, false)).unwrap();
        assert_eq!(host.receive_on(T0, B, lane, frame.clone()), Err(expected), "{name}");
        host.link_down(T0, B);
        assert_eq!(Opening::of(lane, frame).is_ok(), name == "hello", "{name}");
    }
    assert_eq!(events(&mut host), []);
    unharmed(&mut host, &mut remote);
}

#[test]
fn a_flood_in_front_of_the_answer_is_refused() {
    let (_, mut remote) = streams();
    remote.link_up(T0, new_link(B, LinkKind::STREAM, true)).unwrap();
    remote.poll_transmit_on(T0, B).unwrap();
    let mut bytes = 0;
    let error = loop {
        let frame = raw(DATA, FIRST_AND_LAST | FROM_HOST, 1, 0, 0, &[0; 1_000]);
        bytes += frame.len();
        match remote.receive_on(T0, B, Lane::Int, frame) {
            Ok(()) => assert!(bytes < 400_000),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ProtocolError::Early(bytes));
}

#[test]
fn a_peer_that_gives_credit_and_acknowledges_nothing_costs_no_more_than_a_window_and_a_message() {
    // What of bulk is on its way has a bound of its own, so that less of it goes.
    for (lane, least) in [(Lane::Int, 60), (Lane::Bulk, 2)] {
        let config = LaneConfig { queue: 4 << 20, window: 64 << 10 };
        let (mut host, _) =
            pair(LinkKind::STREAM, &Config { int: config, bulk: config, ..Config::default() });
        host.receive(T0, lane, raw(STATUS, 0, 0, 0, u64::MAX, b"")).unwrap();
        let mut sent = 0;
        for number in 0..1_000 {
            while host.send(message(lane, number, 100_000)).is_ok() {}
            sent += std::iter::from_fn(|| host.poll_transmit(T0)).count();
        }
        let bound = ((64 << 10) + MAX_MESSAGE) as u64 * 9 / 8;
        assert!(host.kept(lane) <= bound, "{lane:?}: {} bytes kept", host.kept(lane));
        assert!(sent > least, "{lane:?}: {sent} frames");
    }
}

#[test]
fn the_secret_is_never_printed() {
    let (host, remote) = streams();
    for printed in [format!("{host:?}"), format!("{remote:?}")] {
        assert!(printed.contains("secret: Secret,") || printed.contains("secret: Secret }"), "{printed}");
        // identity(1) has 32 bytes of 0x5b.
        for form in ["91, 91", "5b5b", "5b, 5b", "0x5b, 0x5b"] {
            assert!(!printed.contains(form), "{form}");
        }
    }
}

/// A frame of any kind that is nearly right.
pub(crate) fn nearly_right() -> impl Strategy<Value = Bytes> {
    let kind = prop_oneof![1u8..7, 16u8..22];
    let number = prop_oneof![8 => 0u64..4, 4 => (0u64..80).prop_map(|n| n * 33), 1 => any::<u64>()];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..4),
        Just(vec![1, 0, 1, 0]),
        proptest::collection::vec(any::<u8>(), 50..=50),
        proptest::collection::vec(any::<u8>(), 96..=96),
    ];
    (kind, 0u8..16, 0u32..3, number.clone(), number, body)
        .prop_map(|(kind, flags, epoch, seq, limit, body)| raw(kind, flags, epoch, seq, limit, &body))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_over_other_links_move_a_session_or_make_it_panic(
        of_host: bool,
        kind in 0usize..3,
        opens: bool,
        frames in proptest::collection::vec((0u8..5, nearly_right()), 0..40),
    ) {
        let (mut host, mut remote) = pair(CHANNELS, &Config::default());
        let session = if of_host { &mut host } else { &mut remote };
        session.link_up(T0, new_link(B, KINDS[kind], opens)).unwrap();
        for (lane, frame) in frames {
            while session.poll_transmit_on(T0, B).is_some() {}
            let lane = Lane::from_wire(lane).expect("five lanes");
            if session.receive_on(T0, B, lane, frame).is_err() {
                session.link_down(T0, B);
            }
        }
        prop_assert_eq!((session.link(), session.epoch(), session.closed()), (Some(A), 0, false));
        let told = events(session);
        prop_assert!(told.iter().all(|event| *event == Event::Retired(B)), "{:?}", told);
    }
}
