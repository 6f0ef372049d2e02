//! What holds for every interleaving of a driver and a remote that both keep the rules: no TD is lost or told twice, and
//! no byte is lost, doubled or out of order, however late the remote answers a stop.

mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use core::time::Duration;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wire::usb::{Failure, Moved, Payload, Request, ToRemote};
use world::*;
use xhci::driver::{Host, Trb, code, normal};

/// Failures are kept beside this file.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::Direct("tests/stream.proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
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
                ToRemote::Follow(_) | ToRemote::Reset { .. } | ToRemote::Streams { .. } => {
                    unreachable!("nobody asks for it")
                }
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

/// The device's bytes: never 0, which is what the guest's buffers are full of.
fn byte(number: u64) -> u8 {
    (number % 250 + 1) as u8
}
