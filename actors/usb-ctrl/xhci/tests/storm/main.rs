//! What holds for every sequence of guest and remote actions: nothing panics, loops or leaks.

mod world;

use core::time::Duration;
use pci::{Dma, Model, Width};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wire::{
    Lane,
    control::{BulkOnly, Profile},
    usb::{Completion, DeviceId, Endpoint, Failure, Moved, RequestId, Speed, ToRemote},
};
use world::*;
use xhci::{
    Config,
    driver::{Bare, EndpointSetup, Trb, code},
};

/// Anything a guest or a remote can do.
#[derive(Debug, Clone)]
enum Op {
    Write { offset: u64, width: Width, value: u64 },
    Read { offset: u64, width: Width },
    Store { at: u64, data: Vec<u8> },
    Trb { at: u64, parameter: u64, status: u32, control: u32 },
    Attach { device: u32, speed: Speed },
    Detach { device: u32 },
    Queue { endpoint: u8, length: u32 },
    Command { length: u32, inward: bool },
    Answer { pick: usize, result: Result<(), Failure>, moved: usize, as_out: bool },
    Invent { id: u64 },
    Wait { micros: u64 },
    Reset,
}

/// Offsets that mean something, and some that do not.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0x40_u64..0x80,
        4 => 0x440_u64..0x540,
        4 => 0x1000_u64..0x1060,
        6 => (0_u64..6).prop_map(|slot| 0x2000 + 4 * slot),
        1 => 0_u64..0x1_0000,
    ]
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![
        1 => Just(Width::Byte),
        1 => Just(Width::Word),
        6 => Just(Width::Dword),
        2 => Just(Width::Qword)
    ]
}

/// Values that mean something, mostly: addresses of the driver's memory, doorbell targets, port bits.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0_u64..0x20).prop_map(|page| page << 12 | 1),
        0_u64..34,
        (0_u32..32).prop_map(|bit| 1 << bit),
        Just(0x0fe0_0210),
        any::<u64>(),
    ]
}

fn failure() -> impl Strategy<Value = Result<(), Failure>> {
    prop_oneof![
        4 => Just(Ok(())),
        2 => Just(Err(Failure::Cancelled)),
        1 => Just(Err(Failure::Stall)),
        1 => Just(Err(Failure::Fault)),
        1 => Just(Err(Failure::Overflow)),
        1 => Just(Err(Failure::Disconnected)),
    ]
}

fn speed() -> impl Strategy<Value = Speed> {
    prop_oneof![Just(Speed::Low), Just(Speed::Full), Just(Speed::High), Just(Speed::Super)]
}

fn op() -> impl Strategy<Value = Op> {
    let align = |(offset, width, value): (u64, Width, u64)| {
        let bytes = width.bytes() as u64;
        (offset / bytes * bytes, width, value & width.mask())
    };
    prop_oneof![
        8 => (offset(), width(), value()).prop_map(align)
            .prop_map(|(offset, width, value)| Op::Write { offset, width, value }),
        1 => (offset(), width(), value()).prop_map(align)
            .prop_map(|(offset, width, _)| Op::Read { offset, width }),
        2 => (0x1000_u64..0x2_0000, proptest::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, data)| Op::Store { at, data }),
        8 => (0x30_u64..0x200, 0_u64..16, value(), 0_u32..0x2_0000, 0_u32..64, any::<u32>()).prop_map(
            |(page, index, parameter, status, kind, flags)| Op::Trb {
                at: (page << 8) + 16 * index,
                parameter,
                status,
                control: kind << 10 | flags & 0x0f1f_03ff,
            }
        ),
        1 => (0_u32..4, speed()).prop_map(|(device, speed)| Op::Attach { device, speed }),
        1 => (0_u32..4).prop_map(|device| Op::Detach { device }),
        4 => (2_u8..8, 0_u32..3000).prop_map(|(endpoint, length)| Op::Queue { endpoint, length }),
        2 => (0_u32..3000, any::<bool>()).prop_map(|(length, inward)| Op::Command { length, inward }),
        6 => (any::<usize>(), failure(), 0_usize..3000, any::<bool>())
            .prop_map(|(pick, result, moved, as_out)| Op::Answer { pick, result, moved, as_out }),
        1 => any::<u64>().prop_map(|id| Op::Invent { id }),
        3 => (0_u64..100_000).prop_map(|micros| Op::Wait { micros }),
        1 => Just(Op::Reset),
    ]
}

/// Calls in which the model may put work off before it must be done with what it has.
const MOST_CALLS: usize = 2000;
/// Messages of one call.
const MOST_MESSAGES: usize = 4096;

/// The slot that is configured at first, and its isochronous IN endpoint.
const SLOT: u8 = 1;
const ISOCH_IN: u8 = 7;
/// Where a command for a disk is.
const COMMAND: u64 = 0x3f_0000;

/// Everything may be asked for ahead.
fn told() -> Profile {
    let endpoint = |address| Endpoint::from_address(address).unwrap();
    Profile {
        read_ahead: (0x81..0x8f).map(endpoint).collect(),
        bulk_only: vec![BulkOnly { out: endpoint(0x01), input: endpoint(0x81) }],
        ..Profile::default()
    }
}

struct Storm {
    world: World,
    in_flight: Vec<RequestId>,
    last: RequestId,
}

impl Storm {
    fn new() -> Self {
        let mut world = world();
        let slot = configured_as(&mut world, told());
        assert_eq!(slot, SLOT);
        let isochronous = EndpointSetup { index: ISOCH_IN, kind: 5, max_packet: 192 };
        assert_eq!(world.configure(slot, &[isochronous]).code, code::SUCCESS);
        Self { world, in_flight: Vec::new(), last: RequestId(0) }
    }

    fn host(&mut self) -> &mut Bare {
        &mut self.world.host
    }

    /// Lets the model finish, in bounded steps; looks at what it has said.
    fn settle(&mut self) {
        let mut calls = 0;
        while self.host().xhci.deadline().is_some_and(|at| at <= self.world.host.now) {
            self.host().once(|xhci, cx| xhci.tick(cx));
            calls += 1;
            assert!(calls < MOST_CALLS, "the model does not come to rest");
        }
        let messages = self.host().take_messages();
        assert!(messages.len() < MOST_MESSAGES, "{} messages", messages.len());
        for message in messages {
            if let ToRemote::Cancel { through, .. } = message {
                assert!(through <= self.last, "only what was sent is cancelled");
            }
            let bytes = message.request().map_or(0, |request| request.payload.requested());
            assert!(bytes as usize <= wire::MAX_BODY);
            let Some(id) = message.id() else { continue };
            assert!(id > self.last, "ids grow");
            self.last = id;
            self.in_flight.push(id);
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Write { offset, width, value } => {
                self.host().once(|xhci, cx| xhci.write(cx, offset, width, value));
            }
            Op::Read { offset, width } => {
                let value = self.host().once(|xhci, cx| xhci.read(cx, offset, width));
                assert_eq!(value & !width.mask(), 0);
            }
            Op::Store { at, data } => self.host().ram.write(at, &data).unwrap(),
            Op::Trb { at, parameter, status, control } => {
                let ram = &self.host().ram;
                ram.write(at, &parameter.to_le_bytes()).unwrap();
                ram.write(at + 8, &status.to_le_bytes()).unwrap();
                ram.write(at + 12, &control.to_le_bytes()).unwrap();
            }
            Op::Attach { device, speed } => {
                let _ = self.host().once(|xhci, cx| xhci.attach(cx, DeviceId(device), speed, told().into()));
            }
            Op::Queue { endpoint, length } => {
                let endpoint = if endpoint == 4 { BULK_IN } else { endpoint.min(ISOCH_IN) };
                if [BULK_OUT, BULK_IN, INTERRUPT_IN].contains(&endpoint) {
                    self.world.transfer(SLOT, endpoint, 0x8000, length);
                } else {
                    let trb = Trb { parameter: 0x8000, status: length, control: 5 << 10 | Trb::IOC };
                    self.world.queue(SLOT, ISOCH_IN, trb);
                    self.world.ring_doorbell(SLOT, ISOCH_IN);
                }
            }
            Op::Command { length, inward } => {
                let mut wrapper = [0; 31];
                wrapper[..4].copy_from_slice(b"USBC");
                wrapper[8..12].copy_from_slice(&length.to_le_bytes());
                (wrapper[12], wrapper[14]) = (u8::from(inward) << 7, 6);
                self.host().ram.write(COMMAND, &wrapper).unwrap();
                self.world.transfer(SLOT, BULK_OUT, COMMAND, 31);
            }
            Op::Detach { device } => self.host().once(|xhci, cx| xhci.detach(cx, DeviceId(device))),
            Op::Answer { pick, result, moved, as_out } => {
                if self.in_flight.is_empty() {
                    return;
                }
                let id = self.in_flight.remove(pick % self.in_flight.len());
                let moved =
                    if as_out { Moved::Out(moved as u32) } else { Moved::In(vec![pick as u8; moved].into()) };
                self.complete(Completion { id, result, moved, packets: Vec::new(), lane: Lane::Bulk });
            }
            Op::Invent { id } => {
                let id = RequestId(id | 1 << 63);
                self.complete(Completion {
                    id,
                    result: Ok(()),
                    moved: Moved::Out(0),
                    packets: Vec::new(),
                    lane: Lane::Ctl,
                });
            }
            Op::Wait { micros } => self.host().now += Duration::from_micros(micros),
            Op::Reset => self.host().once(Model::reset),
        }
        self.settle();
    }

    fn complete(&mut self, completion: Completion) {
        self.host().once(|xhci, cx| xhci.complete(cx, completion));
    }
}

/// Failures are kept beside this file.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::Direct("tests/storm.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever guest and remote do: no panic, no endless work, bounded effects, and once every request has been
    /// answered and the controller reset, nothing is left.
    #[test]
    fn no_sequence_of_actions_panics_loops_or_leaks(ops in proptest::collection::vec(op(), 1..120)) {
        let mut storm = Storm::new();
        for op in ops {
            storm.play(op);
        }
        storm.play(Op::Reset);
        for id in core::mem::take(&mut storm.in_flight) {
            storm.complete(Completion { id, result: Ok(()), moved: Moved::Out(0), packets: Vec::new(), lane: Lane::Ctl });
        }
        storm.settle();
        let stats = storm.world.host.xhci.stats();
        prop_assert_eq!((stats.in_flight, stats.slots), (0, 0));
    }
}

/// The storm has a fixed configuration; long contexts and few ports see the same operations.
#[test]
fn a_storm_over_long_contexts_and_few_ports_comes_to_rest() {
    let config = Config { long_contexts: true, usb2_ports: 1, usb3_ports: 1, ..Config::default() };
    let mut storm = Storm {
        world: world_with(config, xhci::driver::Plan::at(0x1000, 4 << 20)),
        in_flight: Vec::new(),
        last: RequestId(0),
    };
    for round in 0..2000_u64 {
        let offset = [0x440, 0x450, 0x2000, 0x2004, 0x1038, 0x58, 0x40][round as usize % 7];
        storm.play(Op::Attach { device: (round % 3) as u32, speed: Speed::Super });
        storm.play(Op::Write {
            offset,
            width: Width::Dword,
            value: round.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        });
        storm.play(Op::Wait { micros: round });
    }
}
