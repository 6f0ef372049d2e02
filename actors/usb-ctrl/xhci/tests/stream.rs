//! What holds for every interleaving of a driver and a remote that both keep the rules: no TD is lost or told twice, and
//! no byte is lost, doubled or out of order, however late the remote answers a stop, and wherever a transfer fails.

mod world;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use world::{
    BULK_IN, BULK_OUT, INTERRUPT_IN,
    line::{Fate, Line},
};

/// Failures are kept beside this file.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::Direct("tests/stream.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

/// One step of a device and a driver that both keep the rules.
#[derive(Debug, Clone)]
enum Step {
    /// The driver queues a TD of these pieces.
    Queue(Vec<u32>),
    /// The model goes on with what it has put off.
    Tick,
    /// The driver reads some events.
    Read(usize),
    /// The remote completes the oldest request: the device gives or takes everything, or a short packet.
    Complete { short: bool },
    /// The oldest request fails behind some packets.
    Fail { stall: bool, packets: u32 },
    /// The driver recovers from a halt.
    Recover { retry: bool },
    /// The remote clears a halt.
    Clear,
    /// The driver stops the endpoint; the remote answers the cancels now, or later.
    Stop { answered: bool },
    /// The driver gives up the TD in which the endpoint stands still.
    Unlink,
    /// The driver rings again.
    Start,
    /// A late answer to a cancel.
    Settle { finished: bool },
}

/// `longest`: bytes of one piece.
fn step(longest: u32) -> impl Strategy<Value = Step> {
    let small = proptest::collection::vec(1..2000.min(longest), 1..4);
    let large = proptest::collection::vec(1..=longest, 1..34);
    prop_oneof![
        8 => small.prop_map(Step::Queue),
        2 => large.prop_map(Step::Queue),
        8 => Just(Step::Tick),
        4 => (0_usize..20).prop_map(Step::Read),
        8 => any::<bool>().prop_map(|short| Step::Complete { short }),
        1 => (any::<bool>(), 0_u32..200).prop_map(|(stall, packets)| Step::Fail { stall, packets }),
        2 => any::<bool>().prop_map(|retry| Step::Recover { retry }),
        1 => Just(Step::Clear),
        2 => any::<bool>().prop_map(|answered| Step::Stop { answered }),
        1 => Just(Step::Unlink),
        3 => Just(Step::Start),
        3 => any::<bool>().prop_map(|finished| Step::Settle { finished }),
    ]
}

fn play(line: &mut Line, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Queue(pieces) => line.queue(pieces),
            Step::Tick => line.tick(),
            Step::Read(count) => line.read_events(*count),
            Step::Complete { short } => line.complete(*short),
            Step::Fail { stall, packets } => line.fail(*stall, *packets),
            Step::Recover { retry } => line.recover(*retry),
            Step::Clear => line.clear(),
            Step::Stop { answered } => line.stop(*answered),
            Step::Unlink => line.unlink(),
            Step::Start => line.start(),
            Step::Settle { finished } => line.settle(*finished),
        }
    }
    line.drain();
}

proptest! {
    #![proptest_config(config())]

    /// Stops, halts, late answers, restarts, long copies, a small event ring: every TD is told exactly once, in ring
    /// order; of those that succeeded every byte reaches the device once and in order, of the others some, from the first.
    #[test]
    fn an_out_ring_loses_and_doubles_nothing(steps in proptest::collection::vec(step(0x1_0000), 1..100)) {
        let mut line = Line::new(BULK_OUT, false);
        play(&mut line, &steps);
        let words = line.words();
        let mut words = words.iter().peekable();
        for (number, td) in line.tds.iter().enumerate() {
            let mut next = 0;
            while words.next_if(|word| **word == (number, next)).is_some() {
                next += 1;
            }
            if td.fate == Fate::Done {
                prop_assert_eq!(next * 8, td.length, "all of TD {}", number);
            }
        }
        prop_assert_eq!(words.next(), None, "out of order, or twice");
    }

    /// The same towards the guest: what the device has sent arrives in order, without a gap and without repetition.
    #[test]
    fn an_in_ring_loses_and_doubles_nothing(steps in proptest::collection::vec(step(0x1_0000), 1..100)) {
        let mut line = Line::new(BULK_IN, false);
        play(&mut line, &steps);
        line.fetch_the_rest();
        prop_assert_eq!(line.received(), line.given);
    }

    /// Reports that are read ahead are the next ones, whichever TDs get them.
    #[test]
    fn reports_that_are_read_ahead_are_lost_no_more_and_come_in_order(
        steps in proptest::collection::vec(step(16), 1..100)
    ) {
        let mut line = Line::new(INTERRUPT_IN, true);
        play(&mut line, &steps);
        line.fetch_the_rest();
        prop_assert_eq!(line.received(), line.given);
    }
}
