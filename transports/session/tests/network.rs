//! Properties of two honest sessions over a seeded network: everything once, in order, within bounds.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use session::{Config, Event, LaneConfig, SendError};
use wire::{Lane, Message};

mod common;
use common::{Pair, message, whole};

const RELIABLE: [Lane; 3] = [Lane::Ctl, Lane::Int, Lane::Bulk];

/// Small enough that bounds bite.
fn tight(max_chunk: usize) -> Config {
    let lane = LaneConfig { queue: 40_000, window: 64 * 1024 };
    Config { ctl: lane, int: lane, audio: lane, iso: lane, bulk: lane, max_chunk, ..Config::default() }
}

/// Messages to send, by lane, and what was sent.
struct Script {
    waiting: VecDeque<Message>,
    sent: [Vec<Bytes>; Lane::ALL.len()],
}

impl Script {
    fn new(messages: &[(u8, u32)]) -> Self {
        let lane = |n: &u8| Lane::from_wire(n % 5).expect("five lanes");
        let number = |(at, (n, size)): (usize, &(u8, u32))| message(lane(n), at as u32, *size as usize);
        Self { waiting: messages.iter().enumerate().map(number).collect(), sent: Default::default() }
    }

    /// Sends the next message, if its lane has room.
    fn send(&mut self, session: &mut session::Session) -> bool {
        let Some(next) = self.waiting.pop_front() else { return false };
        let (lane, bytes, fits) = (next.lane, whole(&next), next.len().max(1) <= session.room(next.lane));
        match session.send(next) {
            Ok(()) => {
                assert!(fits || lane.may_lose(), "room() said no to what was taken");
                self.sent[lane as usize].push(bytes);
                true
            }
            Err(SendError::Full(back)) => {
                assert!(!fits && !lane.may_lose(), "room() said yes to what was refused");
                assert_eq!(whole(&back), bytes, "the message comes back as it was");
                self.waiting.push_front(back);
                false
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Whether `came` is `sent` with some left out; nothing twice, nothing out of order.
fn is_thinned(came: &[Bytes], sent: &[Bytes]) -> bool {
    let mut sent = sent.iter();
    came.iter().all(|message| sent.any(|next| next == message))
}

fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1u32..200, 4 => 200u32..5_000, 2 => 5_000u32..60_000, 1 => 60_000u32..1_048_608]
}

fn script() -> impl Strategy<Value = Vec<(u8, u32)>> {
    proptest::collection::vec((any::<u8>(), sizes()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_reliable_message_arrives_once_and_in_order(
        seed: u64,
        max_chunk in prop_oneof![Just(256usize), 257usize..20_000, Just(session::MAX_CHUNK)],
        to_remote in script(),
        to_host in script(),
    ) {
        let mut pair = Pair::new(seed, &tight(max_chunk));
        let (mut down, mut up) = (Script::new(&to_remote), Script::new(&to_host));
        run(&mut pair, &mut down, &mut up, None);
        prop_assert!(down.waiting.is_empty() && up.waiting.is_empty(), "everything was sent in the end");
        for (sent, came) in [(&down.sent, &pair.remote), (&up.sent, &pair.host)] {
            for lane in Lane::ALL {
                let sent = &sent[lane as usize];
                if lane.may_lose() {
                    prop_assert!(is_thinned(came.of(lane), sent), "{:?}", lane);
                } else {
                    prop_assert_eq!(came.of(lane), &sent[..], "{:?}", lane);
                }
            }
            // Chance may let nothing arrive for a while.
            let told = came.events.iter().find(|event| **event != Event::PeerQuiet);
            prop_assert!(told.is_none(), "{:?}", told);
        }
        for lane in RELIABLE {
            prop_assert_eq!(pair.host.session.unaccepted(lane), 0);
            prop_assert_eq!(pair.remote.session.unaccepted(lane), 0);
        }
    }

    #[test]
    fn a_cut_leaves_an_exact_prefix(seed: u64, cut in 0usize..400, to_remote in script(), to_host in script()) {
        let mut pair = Pair::new(seed, &tight(2_000));
        let (mut down, mut up) = (Script::new(&to_remote), Script::new(&to_host));
        run(&mut pair, &mut down, &mut up, Some(cut));
        for (sent, came) in [(&down.sent, &pair.remote), (&up.sent, &pair.host)] {
            for lane in RELIABLE {
                let (sent, came) = (&sent[lane as usize], came.of(lane));
                prop_assert!(came.len() <= sent.len() && came == &sent[..came.len()], "{:?}", lane);
            }
        }
    }
}

/// Lets seeded chance decide who moves next, until all is done or so many frames have arrived.
fn run(pair: &mut Pair, down: &mut Script, up: &mut Script, cut: Option<usize>) {
    let (mut arrived, mut idle) = (0, 0);
    while idle < 200 && cut.is_none_or(|cut| arrived < cut) {
        let moved = match pair.random.below(10) {
            0 => down.send(&mut pair.host.session),
            1 => up.send(&mut pair.remote.session),
            // The network holds a few frames only: the choice is made late.
            2 | 3 => pair.down.len() < 8 && pair.host_transmits(),
            4 | 5 => pair.up.len() < 8 && pair.remote_transmits(),
            6 => pair.remote_receives(),
            7 => pair.host_receives(),
            8 => pair.host.accept_one() | pair.remote.accept_one(),
            _ => {
                pair.wait(Duration::from_millis(40));
                false
            }
        };
        arrived += usize::from(moved);
        idle = if moved { 0 } else { idle + 1 };
        for end in [&pair.host, &pair.remote] {
            for lane in Lane::ALL {
                // A queue holds its bound, or one message that was longer.
                assert!(end.session.queued(lane) <= 40_000.max(session::MAX_MESSAGE + session::HEADER_LEN));
                // A window and the message that was in the making when it was full.
                let bound = 64 * 1024 + 2 * session::MAX_MESSAGE as u64;
                assert!(end.session.unaccepted(lane) <= bound, "{}", end.session.unaccepted(lane));
            }
        }
    }
}
