//! State that is saved, shown or left behind. Each test names its case of the attack table.

mod world;

use core::fmt::Write as _;
use std::sync::{Arc, Mutex};

use pci::Width;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use wire::{
    control::{Descriptor, Profile},
    usb::{Endpoint, Failure, Moved, Payload, Speed},
};
use world::*;
use xhci::driver::{Bare, Driver, EndpointSetup, Host, Plan, Trb, code, normal};

const BUFFER: u64 = 0x80_0000;
const SAVE: u64 = 1 << 8;
const RESTORE: u64 = 1 << 9;

/// Case 5: an event ring that was saved is restored to where it stood, whatever its table says by then: events go to
/// guest memory that is there, or the controller halts.
#[test]
fn an_event_ring_whose_table_changed_between_save_and_restore_reaches_no_other_memory() {
    struct Case {
        name: &'static str,
        /// ERSTSZ, the segment's address, its TRBs.
        size: u64,
        base: u64,
        trbs: u64,
        dequeue: u64,
    }
    let cases = [
        Case { name: "no segments", size: 0, base: BUFFER, trbs: 16, dequeue: BUFFER },
        Case { name: "65535 segments", size: 0xffff, base: BUFFER, trbs: 16, dequeue: BUFFER },
        Case { name: "a segment of nothing", size: 1, base: BUFFER, trbs: 0, dequeue: BUFFER },
        Case { name: "a segment of 65535 TRBs", size: 1, base: BUFFER, trbs: 0xffff, dequeue: BUFFER },
        Case { name: "a segment in a hole", size: 1, base: u64::MAX << 12, trbs: 16, dequeue: u64::MAX },
        Case { name: "a dequeue pointer outside", size: 1, base: BUFFER, trbs: 16, dequeue: 0x123_4560 },
    ];
    for Case { name, size, base, trbs, dequeue } in cases {
        let mut world = world_with(Default::default(), Plan { event_trbs: 16, ..Plan::at(0x1000, 4 << 20) });
        let slot = configured(&mut world);
        let (operational, runtime) = (world.operational(), world.runtime());
        world.host.write(operational, Width::Dword, 0);
        world.host.write(operational, Width::Dword, SAVE);
        world.host.store(BUFFER - 16, &base.to_le_bytes());
        world.host.store(BUFFER - 8, &trbs.to_le_bytes());
        world.host.write(runtime + 0x28, Width::Dword, size);
        world.host.write(runtime + 0x30, Width::Qword, BUFFER - 64);
        world.host.write(runtime + 0x38, Width::Qword, dequeue);
        world.host.write(operational, Width::Dword, RESTORE);
        world.host.write(operational, Width::Dword, 5);
        for _ in 0..100 {
            world.post_command(Trb::command(23, 0));
            world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, BULK_IN.into());
        }
        assert_eq!(world.host.xhci.stats().in_flight, 0, "{name}");
        // A second restore has nothing to restore, and says so.
        world.host.write(operational, Width::Dword, 0);
        world.host.write(operational, Width::Dword, RESTORE);
        assert_eq!(world.host.read(operational + 4, Width::Dword) & 1 << 10, 1 << 10, "{name}");
        // A reset makes it as good as new.
        let mut again = Driver::start(world.host, Plan::at(0x1000, 4 << 20));
        assert_eq!(again.command(Trb::command(23, 0)).code, code::SUCCESS, "{name}");
    }
}

/// Case 9: a control request is kept here between save and restore; the guest may do with its own copy what it likes.
#[test]
fn a_request_that_was_fetched_before_a_save_is_not_read_again_after_the_restore() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    world.host.store(BUFFER, &[0xee; 64]);
    let [setup, data, status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    let sent = request(&mut world);
    world.events();
    let operational = world.operational();
    world.host.write(operational, Width::Dword, 0);
    world.host.write(operational, Width::Dword, SAVE);
    // wLength and wIndex, and the stages' lengths and addresses.
    world.host.store(setup, &[0x80, 6, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    world.host.store(data, &u64::MAX.to_le_bytes());
    world.host.store(data + 8, &0x1_ffff_u32.to_le_bytes());
    for context in 0..3 {
        let at = world.host.read(operational + 0x30, Width::Qword) + 8 * context;
        world.host.store(at, &(u64::MAX << 6).to_le_bytes());
    }
    world.host.write(operational, Width::Dword, RESTORE);
    world.host.write(operational, Width::Dword, 5);
    world.host.give(sent.id, vec![1; 8]);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
    assert_eq!(memory(&world, BUFFER, 9), [1, 1, 1, 1, 1, 1, 1, 1, 0xee]);
}

/// What a log would have of the model.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, _: &Field, value: &dyn core::fmt::Debug) {
        write!(self.0.lock().unwrap(), "{value:?} ").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Bytes that are easy to find, as text, as hexadecimal and as a list of numbers.
const SECRET: &[u8] = b"hush";

fn tells(text: &str) -> bool {
    ["hush", "68757368", "104, 117, 115, 104", "0x68, 0x75, 0x73, 0x68"].iter().any(|s| text.contains(s))
}

/// Case 22: neither a log nor the model's own `Debug` has bytes that a guest or a device chose, nor grows with them.
#[test]
fn nothing_that_is_shown_of_the_model_has_payload_in_it() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let mut world = world();
        let secret = SECRET.repeat(100 << 10);
        let descriptor =
            Descriptor { request_type: 0x80, value: 0x0301, index: 0, data: SECRET.repeat(1000).into() };
        let told = Profile {
            descriptors: vec![descriptor],
            read_ahead: vec![Endpoint::from_address(0x82).unwrap()],
            ..Profile::default()
        };
        let slot = configured_as(&mut world, told);
        let endpoints = [EndpointSetup::bulk(6, 512), EndpointSetup::bulk(7, 512)];
        assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
        world.host.store(BUFFER, &secret);
        // In flight to the device, and on the way to be sent.
        world.transfer(slot, 6, BUFFER, 0x1_0000);
        let mut long = |endpoint: u8| {
            for piece in 0..4 {
                let chain = if piece < 3 { Trb::CHAIN } else { Trb::IOC };
                world.queue(slot, endpoint, normal(BUFFER + 0x1_0000 * piece, 0x1_0000).with(chain));
            }
        };
        long(BULK_OUT);
        long(BULK_IN);
        let doorbell = 0x2000 + 4 * u64::from(slot);
        world.host.once(|xhci, cx| pci::Model::write(xhci, cx, doorbell, Width::Dword, BULK_OUT.into()));
        let staged = format!("{:?}", world.host.xhci);
        // Late, ahead of its TDs, and half in guest memory.
        world.ring_doorbell(slot, BULK_IN);
        world.transfer(slot, INTERRUPT_IN, BUFFER, 8);
        let sent = requests(&mut world);
        for request in &sent {
            let Payload::In { max } = request.payload else { continue };
            let data = wire::usb::Completion {
                id: request.id,
                result: Ok(()),
                moved: Moved::In(secret[..max as usize].to_vec().into()),
                packets: Vec::new(),
                lane: wire::Lane::Bulk,
            };
            world.host.once(|xhci, cx| xhci.complete(cx, data));
        }
        let received = format!("{:?}", world.host.xhci);
        assert!(staged.contains("<131072 bytes>"), "what was copied is kept: {staged}");
        assert!(received.contains("<262144 bytes>"), "what came is kept");
        for text in [&staged, &received] {
            assert!(!tells(text), "{text}");
            assert!(text.len() < 64 << 10, "{} characters", text.len());
        }
        // What is worth a line in a log: a device that goes, memory that is not there.
        world.host.write(0x70, Width::Qword, u64::MAX << 12);
        world.host.detach(DEVICE);
        world.host.write(0x1030, Width::Qword, u64::MAX << 12);
        world.post_command(Trb::command(10, slot));
        assert_eq!(world.host.read(0x44, Width::Dword) & 4, 4, "Host System Error");
    });
    let log = log.0.lock().unwrap();
    assert!(log.contains("host system error"), "the log hears the model");
    assert!(!tells(&log) && log.len() < 4096, "{log}");
}

/// Case 30: a device that comes back under its id with other descriptors, endpoints and settings is asked anew.
#[test]
fn nothing_that_was_known_of_a_device_is_believed_of_the_one_that_comes_back() {
    let descriptor = |byte: u8| Descriptor {
        request_type: 0x80,
        value: 0x0100,
        index: 0,
        data: vec![18, 1, 0, 2, 0, 0, 0, 64, byte].into(),
    };
    let profile = |descriptors, ahead: &[u8]| Profile {
        descriptors,
        read_ahead: ahead.iter().map(|address| Endpoint::from_address(*address).unwrap()).collect(),
        ..Profile::default()
    };
    let mut world = Driver::start(Bare::new(Default::default(), MEMORY), Plan::at(0x1000, 7 << 20));
    let ask = |world: &mut World, slot| {
        world.control(slot, [0x80, 6, 0, 1, 0, 0, 9, 0], BUFFER);
        requests(world)
    };
    for round in 0..6_u8 {
        let known = profile(vec![descriptor(round)], if round % 2 == 0 { &[0x82] } else { &[] });
        // It is lent anew without having been taken back: as one of another speed, and as the same.
        let speed = if round % 3 == 0 { Speed::Full } else { Speed::High };
        let port = world.host.attach_known(DEVICE, speed, known).unwrap().0;
        assert!(world.reset_port(port), "round {round}");
        requests(&mut world);
        let slot = world.enable_slot();
        assert_eq!(world.address_device(slot, port, 3, false).code, code::SUCCESS);
        assert!(ask(&mut world, slot).is_empty(), "round {round}: it is known");
        assert_eq!(memory(&world, BUFFER + 8, 1), [round], "and not what was known before");
        // Its interfaces are others, too.
        let index = if round % 2 == 0 { INTERRUPT_IN } else { 9 };
        let setup = EndpointSetup::interrupt(index, 8);
        assert_eq!(world.configure(slot, &[setup, EndpointSetup::bulk(BULK_OUT, 64)]).code, code::SUCCESS);
        world.control(slot, [1, 11, round, 0, 0, 0, 0, 0], 0);
        let [set] = &requests(&mut world)[..] else { panic!("SET_INTERFACE") };
        world.host.complete(set.id, if round < 4 { Ok(()) } else { Err(Failure::Stall) }, Moved::Out(0));
        world.transfer(slot, index, BUFFER, 8);
        let reports = requests(&mut world).len();
        assert_eq!(reports > 1, round % 2 == 0, "round {round}: {reports} reports are asked for");
        world.events();
    }
    // And as one of which nothing is known.
    let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, port, 4, false).code, code::SUCCESS);
    assert_eq!(ask(&mut world, slot).len(), 1);
    world.host.detach(DEVICE);
    let mut again = Driver::start(world.host, Plan::at(0x1000, 4 << 20));
    assert_eq!(again.enable_slot(), 1);
    assert_eq!(again.host.xhci.stats().in_flight, 0);
}
