//! Properties of two honest sessions and a network that does its worst, the same for the same seed.

use std::time::Duration;

use proptest::prelude::*;
use session::{Config, Event, LinkId, LinkKind, NewLink, ProtocolError};
use wire::Lane;

use crate::world::{HOST, KINDS, REMOTE, World, tight};

/// One session of so many is one that may end before the time.
const MAY_END: u64 = 4;

/// What chance decides next.
fn act(world: &mut World, may_end: bool) {
    let below = |world: &mut World, bound: usize| world.random.below(bound as u64) as usize;
    let end = below(world, 2);
    let cable = below(world, world.cables.len().max(1));
    let has_cable = !world.cables.is_empty();
    match below(world, 40) {
        0..=4 => {
            let lane = Lane::ALL[below(world, 5)];
            let size = [20, 300, 3_000, 30_000][below(world, 4)];
            let size = 1 + below(world, size);
            world.send(end, lane, size);
        }
        5..=16 if has_cable => drop(world.transmit(cable, end)),
        17..=28 if has_cable => drop(world.arrive(cable, end)),
        29..=32 => drop(world.accept_one(end)),
        33 | 34 => {
            let ms = [1, 10, 40, 2_000][below(world, 4)];
            world.wait(Duration::from_millis(ms));
        }
        35 if has_cable => cut(world, cable, end),
        36 if has_cable && below(world, 4) == 0 => cut(world, cable, end),
        37 => replay(world),
        38 if may_end && below(world, 20) == 0 => {
            world.closing = true;
            world.ends[end].session.close("enough");
        }
        38 | 39 if world.cables.len() < 3 => {
            let kind = KINDS[below(world, 3)];
            let opens = [[false, true], [false, true], [true, false], [true, true]][below(world, 4)];
            world.connect(kind, opens);
        }
        _ => {}
    }
    world.check_bounds();
}

/// Nothing arrives any more; this end notices, the other one now or when it has been silent for long.
fn cut(world: &mut World, cable: usize, end: usize) {
    world.notice(cable, end);
    if world.random.below(2) == 0 {
        world.notice(cable, 1 - end);
    }
}

/// Somebody says an ATTACH again that was said once, over a link of their own.
fn replay(world: &mut World) {
    let count = world.attaches.len();
    if count == 0 {
        return;
    }
    let (to, frame) = world.attaches[world.random.below(count as u64) as usize].clone();
    let (link, now) = (LinkId(u64::MAX), world.now);
    let session = &mut world.ends[to].session;
    let new = NewLink { id: link, kind: LinkKind::STREAM, binding: [0xee; 32], opens: false };
    if session.link_up(now, new).is_ok() {
        let before = (session.link(), session.epoch());
        assert_eq!(session.receive_on(now, link, Lane::Ctl, frame), Err(ProtocolError::Proof));
        session.link_down(now, link);
        assert_eq!((session.link(), session.epoch()), before, "a replay changes nothing");
    }
}

/// Lets the worst happen for so many steps, then gives the two one link of this kind.
fn run(seed: u64, steps: usize, max_chunk: usize, last: usize) -> World {
    let may_end = seed.is_multiple_of(MAY_END);
    let forever = tight(max_chunk);
    let expire_after = if may_end { Duration::from_secs(3) } else { forever.expire_after };
    let mut world = World::new(seed, &Config { expire_after, ..forever });
    // A welcome that is lost is another matter: both begin anew then.
    world.connect(KINDS[seed as usize % 3], [false, true]);
    world.settle();
    assert!(world.together(), "seed {seed}: a session begins");
    for _ in 0..steps {
        act(&mut world, may_end);
    }
    for cable in 0..world.cables.len() {
        world.notice(cable, HOST);
        world.notice(cable, REMOTE);
    }
    world.wait(Duration::ZERO);
    // The first one may be refused: the ends do not know of each other's attempts.
    for _ in 0..4 {
        if !world.together() {
            world.connect(KINDS[last], [false, true]);
            world.settle();
        }
    }
    world.settle();
    if may_end && world.ended() {
        assert!(world.ends.iter().all(|end| end.session.closed()), "seed {seed}: both know of the end");
        world.check_prefix(&format!("seed {seed}"));
        return world;
    }
    assert!(world.together(), "seed {seed}: both are on one link in the end");
    world.check_equal(&format!("seed {seed}"));
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sent_comes_once_and_in_order_over_links_that_come_and_go(
        seed: u64,
        steps in 0usize..1_500,
        max_chunk in prop_oneof![Just(256usize), 257usize..20_000, Just(session::MAX_CHUNK)],
        last in 0usize..3,
    ) {
        run(seed, steps, max_chunk, last);
    }
}

#[test]
fn thousands_of_seeds() {
    let (mut resumes, mut hand_overs, mut again, mut duplicates, mut stale) = (0, 0, 0, 0, 0);
    let (mut closed, mut expired, mut reset) = (0, 0, 0);
    for seed in 0..3_000 {
        let world = run(seed, 500, 2_000, seed as usize % 3);
        for end in &world.ends {
            match &end.over {
                Some(Event::PeerClosed(_)) => closed += 1,
                Some(Event::Expired) => expired += 1,
                Some(Event::Reset(_)) => reset += 1,
                Some(other) => panic!("{other:?} is no end"),
                None => {}
            }
            let stats = end.session.stats();
            resumes += stats.resumes;
            hand_overs += stats.hand_overs;
            stale += stats.stale_frames;
            for lane in Lane::ALL {
                again += stats.lane(lane).retransmitted_frames;
                duplicates += stats.lane(lane).duplicate_frames;
            }
        }
    }
    println!(
        "{resumes} resumes, {hand_overs} hand-overs, {again} frames again, {duplicates} duplicates, {stale} stale frames, \
         {closed} closed by the peer, {expired} expired, {reset} reset"
    );
    assert!(resumes > 5_000 && hand_overs > 3_000 && again > 5_000 && duplicates > 1_000 && stale > 1_000);
    assert!(closed > 100 && expired > 100 && reset > 0);
}
