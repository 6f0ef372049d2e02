//! What holds for every sequence of guest and remote actions.

mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use core::time::Duration;
use pci::{Dma, Model, Width};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wire::{
    Lane,
    usb::{Completion, DeviceId, Failure, Moved, Payload, Request, RequestId, Speed, ToRemote},
};
use world::*;
use xhci::{
    Config,
    driver::{Bare, Host, Trb, code, normal},
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

struct Storm {
    world: World,
    in_flight: Vec<RequestId>,
    last: RequestId,
}

impl Storm {
    fn new() -> Self {
        let mut world = world();
        configured(&mut world);
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
            let id = match message {
                ToRemote::Submit(request) => {
                    assert!(request.payload.requested() as usize <= wire::MAX_BODY);
                    request.id
                }
                ToRemote::Reset { id, .. } => id,
                ToRemote::Cancel { through, .. } => {
                    assert!(through <= self.last, "only what was sent is cancelled");
                    continue;
                }
            };
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
                let _ = self.host().once(|xhci, cx| xhci.attach(cx, DeviceId(device), speed));
            }
            Op::Detach { device } => self.host().once(|xhci, cx| xhci.detach(cx, DeviceId(device))),
            Op::Answer { pick, result, moved, as_out } => {
                if self.in_flight.is_empty() {
                    return;
                }
                let id = self.in_flight.remove(pick % self.in_flight.len());
                let moved =
                    if as_out { Moved::Out(moved as u32) } else { Moved::In(vec![pick as u8; moved].into()) };
                self.complete(Completion { id, result, moved, lane: Lane::Bulk });
            }
            Op::Invent { id } => {
                let id = RequestId(id | 1 << 63);
                self.complete(Completion { id, result: Ok(()), moved: Moved::Out(0), lane: Lane::Ctl });
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
    let persistence = FileFailurePersistence::Direct("tests/properties.proptest-regressions");
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
            storm.complete(Completion { id, result: Ok(()), moved: Moved::Out(0), lane: Lane::Ctl });
        }
        storm.settle();
        let stats = storm.world.host.xhci.stats();
        prop_assert_eq!((stats.in_flight, stats.slots), (0, 0));
    }
}

/// One step of a device and a driver that both keep the rules.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The driver queues a TD of so many bytes.
    Queue(u32),
    /// The remote completes the oldest request: the device gives or takes everything, or a short packet.
    Complete { short: bool },
    /// The driver stops the endpoint; the remote answers the cancels now, or later.
    Stop { answered: bool },
    /// The driver rings again.
    Start,
    /// A late answer to a cancel.
    Settle { finished: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u32..2000).prop_map(Step::Queue),
        6 => any::<bool>().prop_map(|short| Step::Complete { short }),
        1 => any::<bool>().prop_map(|answered| Step::Stop { answered }),
        2 => Just(Step::Start),
        2 => any::<bool>().prop_map(|finished| Step::Settle { finished }),
    ]
}

/// A device that numbers its bytes, and remembers those that it was given.
struct Line {
    world: World,
    slot: u8,
    endpoint: u8,
    queued: Vec<(u64, u32, u64)>,
    told: Vec<u64>,
    requests: Vec<Request>,
    cancelled: Vec<Request>,
    counter: u64,
    taken: Vec<u8>,
    stopped: bool,
}

const AREA: u64 = 0x40_0000;

impl Line {
    fn new(endpoint: u8) -> Self {
        let mut world = world();
        let slot = configured(&mut world);
        Self {
            world,
            slot,
            endpoint,
            queued: Vec::new(),
            told: Vec::new(),
            requests: Vec::new(),
            cancelled: Vec::new(),
            counter: 0,
            taken: Vec::new(),
            stopped: false,
        }
    }

    fn is_in(&self) -> bool {
        self.endpoint & 1 != 0
    }

    fn listen(&mut self) {
        for message in self.world.host.take_messages() {
            match message {
                ToRemote::Submit(request) => self.requests.push(request),
                ToRemote::Cancel { through, .. } => {
                    let (gone, kept) = self.requests.drain(..).partition(|request| request.id <= through);
                    self.requests = kept;
                    self.cancelled.extend::<Vec<_>>(gone);
                }
                ToRemote::Reset { .. } => unreachable!("nobody resets"),
            }
        }
        for event in self.world.events().iter().filter(|e| e.is_transfer() && e.code != code::STOPPED) {
            self.told.push(event.pointer);
        }
    }

    /// The next bytes of the stream.
    fn data(&mut self, length: usize) -> Bytes {
        (0..length)
            .map(|_| {
                self.counter += 1;
                byte(self.counter)
            })
            .collect()
    }

    fn finish(&mut self, request: &Request, short: bool) {
        let moved = match &request.payload {
            Payload::Out(data) => {
                self.taken.extend_from_slice(data);
                Moved::Out(data.len() as u32)
            }
            Payload::In { max } => {
                let length = if short { *max as usize / 2 } else { *max as usize };
                Moved::In(self.data(length))
            }
        };
        self.world.host.complete(request.id, Ok(()), moved);
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Queue(length) => {
                // Whole packets from the device: one that is longer than its TD would babble.
                let length = if self.is_in() { length.next_multiple_of(512) } else { length };
                // One TD in 16 KiB of its own.
                let number = self.queued.len() as u64;
                let buffer = AREA + number % 512 * 0x4000;
                if !self.is_in() {
                    let data: Vec<u8> = (0..length).map(|i| (number as u32 * 31 + i) as u8).collect();
                    self.world.host.store(buffer, &data);
                }
                let trb = normal(buffer, length).with(Trb::IOC);
                let at = self.world.queue(self.slot, self.endpoint, trb);
                self.queued.push((at, length, buffer));
                if !self.stopped {
                    self.world.ring_doorbell(self.slot, self.endpoint);
                }
            }
            Step::Complete { short } if !self.requests.is_empty() => {
                let request = self.requests.remove(0);
                self.finish(&request, short);
            }
            Step::Stop { answered } if !self.stopped => {
                let command = self.world.endpoint_command(TRB_STOP, self.slot, self.endpoint);
                self.world.post_command(command);
                self.listen();
                if answered {
                    while let Some(request) = self.cancelled.pop() {
                        self.cancel(&request);
                    }
                }
                self.world.host.wait(Duration::from_millis(61));
                self.stopped = true;
            }
            Step::Start if self.stopped => {
                self.stopped = false;
                self.world.ring_doorbell(self.slot, self.endpoint);
            }
            // The remote cancels the newest first, while the device may go on with the oldest.
            Step::Settle { finished: true } if !self.cancelled.is_empty() => {
                let request = self.cancelled.remove(0);
                self.finish(&request, false);
            }
            Step::Settle { finished: false } => {
                if let Some(request) = self.cancelled.pop() {
                    self.cancel(&request);
                }
            }
            _ => {}
        }
        self.listen();
    }

    /// The oldest one may have moved some packets before it was cancelled.
    fn cancel(&mut self, request: &Request) {
        let most =
            if self.cancelled.is_empty() { request.payload.requested() as usize / 1024 * 512 } else { 0 };
        let moved = match &request.payload {
            Payload::Out(data) => {
                self.taken.extend_from_slice(&data[..most]);
                Moved::Out(most as u32)
            }
            Payload::In { .. } => Moved::In(self.data(most)),
        };
        self.world.host.complete(request.id, Err(Failure::Cancelled), moved);
    }

    /// Lets everything come to its end.
    fn drain(&mut self) {
        self.play(Step::Start);
        for _ in 0..10_000 {
            if self.told.len() == self.queued.len() {
                return;
            }
            self.play(Step::Settle { finished: false });
            self.play(Step::Complete { short: false });
        }
        panic!("{} of {} TDs were told", self.told.len(), self.queued.len());
    }
}

proptest! {
    #![proptest_config(config())]

    /// Stops, late answers, restarts: every TD is told exactly once, in ring order, and every byte reaches the
    /// device once, in order.
    #[test]
    fn an_out_ring_loses_and_doubles_nothing(steps in proptest::collection::vec(step(), 1..80)) {
        let mut line = Line::new(BULK_OUT);
        for step in steps {
            line.play(step);
        }
        line.drain();
        let queued: Vec<_> = line.queued.iter().map(|(at, ..)| *at).collect();
        prop_assert_eq!(&line.told, &queued);
        let mut sent = Vec::new();
        for (number, (_, length, _)) in line.queued.iter().enumerate() {
            sent.extend((0..*length).map(|i| (number as u32 * 31 + i) as u8));
        }
        prop_assert!(line.taken == sent, "the device has {} bytes of {}", line.taken.len(), sent.len());
    }

    /// The same towards the guest: what the device has sent arrives in order, without a gap and without repetition.
    #[test]
    fn an_in_ring_loses_and_doubles_nothing(steps in proptest::collection::vec(step(), 1..80)) {
        let mut line = Line::new(BULK_IN);
        let mut residues = BTreeMap::new();
        for step in steps {
            line.play(step);
        }
        line.drain();
        let queued: Vec<_> = line.queued.iter().map(|(at, ..)| *at).collect();
        prop_assert_eq!(&line.told, &queued);
        let mut next = 0_u64;
        for (number, (_, length, buffer)) in line.queued.iter().enumerate() {
            let data = memory(&line.world, *buffer, *length as usize);
            let filled = data.iter().take_while(|found| {
                let expected = byte(next + 1);
                let matches = **found == expected;
                next += u64::from(matches);
                matches
            }).count();
            residues.insert(number, *length as usize - filled);
        }
        prop_assert_eq!(next, line.counter, "all bytes of the device, in order: {:?}", residues);
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

/// The device's bytes: never 0, which is what the guest's buffers are full of.
fn byte(number: u64) -> u8 {
    (number % 250 + 1) as u8
}
