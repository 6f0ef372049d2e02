//! All of it together over a lossy link: what the receiver reports decides how the sender sends, and what is lost is asked
//! for. When that has settled, the goals are kept, whatever the user wishes.

mod common;

use std::time::Duration;

use common::{Losses, Network, World, run};
use sound::{
    Config,
    choice::Wish,
    jitter::{START_LAN, START_WAN},
};
use wire::audio::Codec;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three minutes over three networks, of which the first is for settling: at most this part is not heard as it was sent, and
/// copies reach at least so many packets back.
fn keeps(loss: f64, burst: f64, goal: f64, reach: u8) {
    for (delay, jitter, start) in
        [(ms(1), ms(1), START_LAN), (ms(10), ms(5), START_WAN), (ms(30), ms(20), START_WAN)]
    {
        for wish in [Wish::Auto, Wish::Pcm, Wish::Opus] {
            let mut world = World::new(-50.0, Duration::from_secs(180));
            world.settles = Duration::from_secs(60);
            world.config = Config { start, ..Config::LAN };
            world.network = Network {
                losses: Losses::new(loss, burst),
                delay,
                jitter,
                reorder: true,
                stalls: Vec::new(),
            };
            (world.asks, world.wish) = (true, Some(wish));
            let outcome = run(world);
            let (part, plan) = (outcome.unheard(), outcome.plan.unwrap());
            let name = format!("loss {loss}, bursts of {burst}, {delay:?} away, jitter {jitter:?}, {wish:?}");
            println!(
                "{name}: {:.4} % not heard, latency {:.1} ms, {plan:?}, {:?}",
                part * 100.0,
                outcome.latency.last().unwrap(),
                outcome.counters
            );
            assert!(outcome.settled.0 > 8_000 * 115, "{name}: {:?}", outcome.settled);
            assert!(part <= goal, "{name}: {part}");
            // What is more than may wait after the longest bursts.
            assert!(outcome.counters.cut * 1_000 <= outcome.settled.0, "{name}: {:?}", outcome.counters);
            assert_eq!(outcome.counters.refused, 0, "{name}");
            assert!(outcome.largest_queue <= 8 * 190, "{name}: {} frames waited", outcome.largest_queue);
            let known = match wish {
                Wish::Auto => plan.codec,
                Wish::Pcm => Codec::Pcm,
                Wish::Opus => Codec::Opus,
            };
            assert_eq!(plan.codec, known, "{name}");
            assert!(plan.distances.furthest() >= reach, "{name}: {plan:?}");
        }
    }
}

#[test]
fn of_a_hundredth_lost_at_random_nearly_nothing_is_left() {
    keeps(0.01, 1.0, 0.000_1, 2);
}

#[test]
fn of_a_twentieth_lost_at_random_a_thousandth_is_left_at_most() {
    keeps(0.05, 1.0, 0.001, 2);
}

#[test]
fn of_a_hundredth_lost_in_bursts_a_thousandth_is_left_at_most() {
    keeps(0.01, 3.0, 0.001, 8);
}

#[test]
fn of_a_twentieth_lost_in_bursts_three_thousandths_are_left_at_most() {
    keeps(0.05, 3.0, 0.003, 8);
}
