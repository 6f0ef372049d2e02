//! Whatever a host asks for, in whatever order: no panic, and each request ends exactly once.

use functions::{Disk, Function, Keyboard, Pattern, Stroke, Zero};
use proptest::prelude::*;
use wire::usb::{Direction, Endpoint, Packets, Payload, RequestId, Setup, Transfer};

use crate::{
    bot::cbw,
    host::{Host, Memory},
};

#[derive(Debug, Clone)]
enum Op {
    Command { length: u32, input: bool, block: Vec<u8> },
    Out { endpoint: u8, data: Vec<u8> },
    In { endpoint: u8, max: u32 },
    Control { setup: [u8; 8], data: Vec<u8> },
    Packets { endpoint: u8, input: bool, lengths: Vec<u16> },
    Cancel { endpoint: u8, through: u64 },
    Reset { through: u64 },
    Press,
    Wait { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    // Requests that make sense are rare among random ones.
    let setup = prop_oneof![
        any::<[u8; 8]>(),
        (0usize..8, any::<[u8; 8]>()).prop_map(|(n, random)| {
            let known =
                [[0x21, 0xff], [0x02, 1], [0x02, 3], [0x00, 9], [0x01, 11], [0x80, 6], [0x21, 10], [0x21, 9]];
            let [a, b] = known[n];
            [a, b, random[2] & 3, random[3] & 15, random[4] & 0x83, 0, random[6], 0]
        }),
    ];
    prop_oneof![
        4 => (0u32..5000, any::<bool>(), bytes(17)).prop_map(|(length, input, block)| Op::Command { length, input, block }),
        4 => (0u8..6, bytes(1100)).prop_map(|(endpoint, data)| Op::Out { endpoint, data }),
        6 => (0u8..6, 0u32..3000).prop_map(|(endpoint, max)| Op::In { endpoint, max }),
        2 => (4u8..8, any::<bool>(), proptest::collection::vec(0u16..1200, 1..10))
            .prop_map(|(endpoint, input, lengths)| Op::Packets { endpoint, input, lengths }),
        4 => (setup, bytes(70)).prop_map(|(setup, data)| Op::Control { setup, data }),
        2 => (0u8..7, 0u64..80).prop_map(|(endpoint, through)| Op::Cancel { endpoint, through }),
        1 => (0u64..80).prop_map(|through| Op::Reset { through }),
        2 => Just(Op::Press),
        1 => (0u64..2000).prop_map(|ms| Op::Wait { ms }),
    ]
}

fn play<F: Function>(mut host: Host<F>, ops: Vec<Op>, transfer: Transfer, press: impl Fn(&mut F)) -> u64 {
    let endpoint = |number, direction| Endpoint::new(number, direction).unwrap();
    for op in ops {
        match op {
            Op::Command { length, input, block } => {
                host.submit(
                    endpoint(2, Direction::Out),
                    transfer.clone(),
                    Payload::Out(cbw(length, input, &block).into()),
                );
            }
            Op::Out { endpoint: number, data } => {
                host.submit(endpoint(number, Direction::Out), transfer.clone(), Payload::Out(data.into()));
            }
            Op::In { endpoint: number, max } => {
                host.submit(endpoint(number, Direction::In), transfer.clone(), Payload::In { max });
            }
            Op::Control { setup, data } => {
                let setup = Setup::from_bytes(setup);
                let payload = match setup.direction() {
                    Direction::Out => Payload::Out(data.into()),
                    Direction::In => Payload::In { max: setup.length.into() },
                };
                host.submit(Endpoint::CONTROL, Transfer::Control(setup), payload);
            }
            Op::Packets { endpoint: number, input, lengths } => {
                let packets = Packets::new(&lengths).unwrap();
                let (direction, payload) = match input {
                    true => (Direction::In, Payload::In { max: packets.total() }),
                    false => (Direction::Out, Payload::Out(vec![0; packets.total() as usize].into())),
                };
                host.submit(endpoint(number, direction), Transfer::Isochronous(packets), payload);
            }
            Op::Cancel { endpoint: number, through } => {
                let direction = if through % 2 == 0 { Direction::In } else { Direction::Out };
                host.function.cancel(endpoint(number, direction), RequestId(through));
            }
            Op::Reset { through } => host.function.reset(RequestId(through)).unwrap(),
            Op::Press => press(&mut host.function),
            Op::Wait { ms } => host.now += std::time::Duration::from_millis(ms),
        }
        host.poll();
    }
    host.function.reset(RequestId(u64::MAX)).unwrap();
    host.poll();
    host.waiting()
}

proptest! {
    #[test]
    fn any_sequence_of_requests_to_a_disk_ends_each_exactly_once(ops in proptest::collection::vec(op(), 1..60)) {
        let host = Host::new(Disk::new(Memory::new(64), "1"));
        prop_assert_eq!(play(host, ops, Transfer::Bulk { stream: 0 }, |_| ()), 0);
    }

    #[test]
    fn any_sequence_of_requests_to_a_keyboard_ends_each_exactly_once(ops in proptest::collection::vec(op(), 1..60)) {
        let press = |keyboard: &mut Keyboard| {
            let _ = keyboard.press(Stroke { modifiers: 0, usage: 4 });
        };
        prop_assert_eq!(play(Host::new(Keyboard::new()), ops, Transfer::Interrupt, press), 0);
    }
    #[test]
    fn any_sequence_of_requests_to_gadget_zero_ends_each_exactly_once(ops in proptest::collection::vec(op(), 1..60)) {
        let mut host = Host::new(Zero::new(Pattern::Mod63));
        prop_assert!(host.control(0x01, 11, 1, 0, 0).is_ok());
        prop_assert_eq!(play(host, ops, Transfer::Bulk { stream: 0 }, |_| ()), 0);
    }
}
