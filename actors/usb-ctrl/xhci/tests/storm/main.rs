//! What holds for every sequence of guest and remote actions: nothing panics, loops or leaks.

mod ops;
#[path = "../world/mod.rs"]
mod world;

use self::ops::{Op, op};
use core::time::Duration;
use pci::{Dma, Model, Width};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wire::{
    Lane,
    control::{BulkOnly, Profile},
    usb::{Completion, DeviceId, Endpoint, Moved, RequestId, Speed, ToRemote},
};
use world::{
    streamed::{ARRAY, INPUT, Streamed},
    *,
};
use xhci::{
    Config,
    driver::{Bare, EndpointSetup, ProducerRing, Trb, code, normal},
};

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
    answered: Vec<RequestId>,
    last: RequestId,
    /// The rings of streams 1 to 3, if the bulk IN endpoint has streams.
    rings: Vec<ProducerRing>,
}

impl Storm {
    fn new() -> Self {
        let mut world = world();
        let slot = configured_as(&mut world, told());
        assert_eq!(slot, SLOT);
        let isochronous = EndpointSetup { index: ISOCH_IN, kind: 5, max_packet: 192 };
        assert_eq!(world.configure(slot, &[isochronous]).code, code::SUCCESS);
        Self::of(world, Vec::new())
    }

    /// The same of a device with streams, and no endpoint beside them.
    fn streamed() -> Self {
        let Streamed { world, rings, .. } = Streamed::new();
        Self::of(world, rings)
    }

    fn of(world: World, rings: Vec<ProducerRing>) -> Self {
        Self { world, in_flight: Vec::new(), answered: Vec::new(), last: RequestId(0), rings }
    }

    /// Queues a TD on a stream, and rings for it or for another one.
    fn queue_on_stream(&mut self, stream: u8, length: u32) {
        let Some(ring) = self.rings.get_mut(usize::from(stream) % 3) else { return };
        ring.push(&mut self.world.host, normal(0x8000, length).with(Trb::IOC));
        let doorbell = u64::from(stream % 4) << 16 | u64::from(BULK_IN);
        self.host().once(|xhci, cx| xhci.write(cx, 0x2000 + 4 * u64::from(SLOT), Width::Dword, doorbell));
    }

    /// An input context for the slot, with these flags and this first dword for its bulk IN endpoint.
    fn store_input(&mut self, drop: u32, add: u32, first: u32) {
        let store = |at: u64, dwords: &[u32]| {
            let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
            self.world.host.ram.write(at, &bytes).unwrap();
        };
        store(INPUT, &[drop, add]);
        store(INPUT + 0x20, &[7 << 27, 0, 0, 0]);
        for (index, kind) in [(2_u64, 2), (3, 6), (4, 2), (5, 7), (6, 3), (7, 5)] {
            let (first, ring) = if index == 3 { (first, ARRAY as u32) } else { (0, 0x8001) };
            store(INPUT + 0x20 * (index + 1), &[first, 512 << 16 | kind << 3 | 3 << 1, ring, 0, 0]);
        }
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
            Op::Queue { endpoint, length } if !self.rings.is_empty() => {
                self.queue_on_stream(endpoint, length)
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
                if !self.rings.is_empty() {
                    return;
                }
                self.world.transfer(SLOT, BULK_OUT, COMMAND, 31);
            }
            Op::Detach { device } => self.host().once(|xhci, cx| xhci.detach(cx, DeviceId(device))),
            Op::Answer { pick, result, moved, as_out, packets } => {
                if self.in_flight.is_empty() {
                    return;
                }
                let id = self.in_flight.remove(pick % self.in_flight.len());
                let moved =
                    if as_out { Moved::Out(moved as u32) } else { Moved::In(vec![pick as u8; moved].into()) };
                self.answered.push(id);
                self.complete(Completion { id, result, moved, packets, lane: Lane::Bulk });
            }
            Op::Again { pick, moved } => {
                let Some(id) = self.answered.get(pick % self.answered.len().max(1)).copied() else { return };
                let unknown = self.host().xhci.stats().unknown_completions;
                self.complete(Completion { id, ..ended(Moved::In(vec![1; moved].into())) });
                assert_eq!(self.host().xhci.stats().unknown_completions, unknown + 1, "it is for nobody");
            }
            Op::Endpoint { kind, endpoint, stream, place } => {
                let at = 0x8000 + 0x1000 * place + 1;
                let at = if place < 4 && self.rings.is_empty() && [2, 3, 5, 7].contains(&endpoint) {
                    self.world.enqueue(SLOT, endpoint)
                } else {
                    at
                };
                let trb = Trb { parameter: at, status: stream << 16, ..Trb::command(kind, SLOT) };
                self.world.post_command(trb.with(u32::from(endpoint) << 16));
            }
            Op::Configure { drop, add, first } => {
                self.store_input(drop, add, first);
                self.world.post_command(Trb { parameter: INPUT, ..Trb::command(12, SLOT) });
            }
            Op::Slot { kind } => drop(self.world.post_command(Trb::command(kind, SLOT))),
            Op::Abort { bits } => {
                let crcr = self.world.operational() + 0x18;
                self.host().once(|xhci, cx| xhci.write(cx, crcr, Width::Qword, bits));
            }
            Op::Invent { id } => {
                let id = RequestId(id | 1 << 63);
                self.complete(Completion { id, ..ended(Moved::Out(0)) });
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
    let persistence = FileFailurePersistence::Direct("tests/storm/regressions.txt");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

/// Whatever guest and remote do: no panic, no endless work, bounded effects, and once every request has been answered and
/// the controller reset, nothing is left.
fn rages(mut storm: Storm, ops: Vec<Op>) {
    for op in ops {
        storm.play(op);
    }
    storm.play(Op::Reset);
    for id in core::mem::take(&mut storm.in_flight) {
        storm.complete(Completion { id, ..ended(Moved::Out(0)) });
    }
    storm.settle();
    let stats = storm.host().xhci.stats();
    assert_eq!((stats.in_flight, stats.slots), (0, 0));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_sequence_of_actions_panics_loops_or_leaks(ops in proptest::collection::vec(op(), 1..120)) {
        rages(Storm::new(), ops);
    }

    #[test]
    fn no_sequence_of_actions_on_streams_panics_loops_or_leaks(ops in proptest::collection::vec(op(), 1..120)) {
        rages(Storm::streamed(), ops);
    }
}

/// The storm has a fixed configuration; long contexts and few ports see the same operations.
#[test]
fn a_storm_over_long_contexts_and_few_ports_comes_to_rest() {
    let config = Config { long_contexts: true, usb2_ports: 1, usb3_ports: 1, ..Config::default() };
    let mut storm = Storm::of(world_with(config, xhci::driver::Plan::at(0x1000, 4 << 20)), Vec::new());
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

fn ended(moved: Moved) -> Completion {
    Completion { id: RequestId(0), result: Ok(()), moved, packets: Vec::new(), lane: Lane::Bulk }
}
