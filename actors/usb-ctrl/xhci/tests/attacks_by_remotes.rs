//! What hostile remotes, and guests together with them, have done to other controllers. Each test names its case of
//! the attack table.

mod world;

use pci::{Dma, Model, Ram, Width};
use wire::usb::{Failure, Moved, Payload, RequestId, Speed};
use world::*;
use xhci::{
    Config,
    driver::{Bare, Driver, EndpointSetup, Host, Plan, Trb, code, normal},
};

const BUFFER: u64 = 0x80_0000;

/// Case 3: a doorbell in a completion in a doorbell. Nothing calls back: effects are values.
#[test]
fn a_completion_and_the_doorbell_it_provokes_do_not_nest() {
    let mut world = world();
    let slot = configured(&mut world);
    for round in 0..10_000 {
        world.transfer(slot, BULK_OUT, BUFFER, 8);
        let sent = request(&mut world);
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
        if round % 100 == 0 {
            world.events();
        }
    }
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

/// Case 4, and Case 18: nothing leaks.
#[test]
fn ten_thousand_attaches_transfers_and_resets_leave_nothing_behind() {
    let mut world = Driver::start(Bare::new(Config::default(), MEMORY), Plan::at(0x1000, 4 << 20));
    for round in 0..10_000_u32 {
        world.host.attach(DEVICE, if round % 2 == 0 { Speed::Super } else { Speed::High }).unwrap();
        if round % 100 == 0 {
            world = Driver::start(world.host, Plan::at(0x1000, 4 << 20));
            let port = if round % 2 == 0 { 9 } else { 1 };
            world.reset_port(port);
            let slot = world.enable_slot();
            world.address_device(slot, port, 4, false);
            world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
        }
        world.host.detach(DEVICE);
        world.host.messages.clear();
    }
    world.host.write(0x40, Width::Dword, 2);
    let stats = world.host.xhci.stats();
    assert_eq!((stats.in_flight, stats.slots), (0, 0));
    assert_eq!(world.host.xhci.deadline(), None);
}

/// Case 7: the buffer goes away while its transfer is in flight.
#[test]
fn a_buffer_that_is_unmapped_in_flight_is_a_trb_error() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_IN, BUFFER, 512);
    let sent = request(&mut world);
    let kept = memory(&world, 0, BUFFER as usize);
    world.host.ram = Ram::new(0, BUFFER as usize);
    world.host.ram.write(0, &kept).unwrap();
    world.host.give(sent.id, vec![0; 512]);
    assert_eq!(transfers(&mut world), [(at, code::TRB_ERROR, 0)]);
}

/// Case 8: wLength says 4096, the buffer has 8: not one byte more arrives.
#[test]
fn a_device_that_answers_more_than_the_guests_buffer_holds_babbles() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    world.host.store(BUFFER, &[0xee; 64]);
    world.queue(slot, 1, Trb::setup([0x80, 6, 0, 1, 0, 0, 0, 16], 3));
    let at = world.queue(slot, 1, Trb { control: 3 << 10 | 1 << 16, ..normal(BUFFER, 8) });
    world.queue(slot, 1, Trb { control: 4 << 10 | Trb::IOC, ..Trb::default() });
    world.ring_doorbell(slot, 1);
    let sent = request(&mut world);
    world.host.give(sent.id, vec![1; 4096]);
    let events = transfers(&mut world);
    assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [code::BABBLE]);
    assert_ne!(at, 0);
    assert_eq!(memory(&world, BUFFER, 10), [1, 1, 1, 1, 1, 1, 1, 1, 0xee, 0xee]);
}

/// Case 20: completions for nobody, twice, or of another kind.
#[test]
fn completions_that_nobody_waits_for_are_counted_and_dropped() {
    let mut world = world();
    let slot = configured(&mut world);
    world.transfer(slot, BULK_IN, BUFFER, 8);
    let sent = request(&mut world);
    for id in [0, sent.id.0 + 1, u64::MAX] {
        world.host.give(RequestId(id), vec![1; 8]);
    }
    world.host.give(sent.id, vec![1; 8]);
    world.host.give(sent.id, vec![2; 8]);
    assert_eq!(transfers(&mut world).len(), 1);
    assert_eq!(memory(&world, BUFFER, 8), [1; 8]);
    assert_eq!(world.host.xhci.stats().unknown_completions, 4);
}

/// Case 23, and Case 19: lengths from the remote; of packets in `isoch.rs`.
#[test]
fn a_completion_moves_no_more_than_was_asked_for() {
    struct Case {
        name: &'static str,
        endpoint: u8,
        moved: Moved,
        event: (u8, u32),
    }
    let cases = [
        Case {
            name: "IN, too much",
            endpoint: BULK_IN,
            moved: Moved::In(vec![1; 100_000].into()),
            event: (3, 0),
        },
        Case { name: "IN answered as OUT", endpoint: BULK_IN, moved: Moved::Out(8), event: (4, 8) },
        Case { name: "IN answered as OUT 0", endpoint: BULK_IN, moved: Moved::Out(0), event: (13, 8) },
        Case { name: "OUT, too much", endpoint: BULK_OUT, moved: Moved::Out(u32::MAX), event: (1, 0) },
        Case {
            name: "OUT answered as IN",
            endpoint: BULK_OUT,
            moved: Moved::In(vec![1; 8].into()),
            event: (4, 8),
        },
    ];
    for Case { name, endpoint, moved, event } in cases {
        let mut world = world();
        let slot = configured(&mut world);
        world.host.store(BUFFER, &[0xee; 16]);
        let at = world.transfer(slot, endpoint, BUFFER, 8);
        let sent = request(&mut world);
        world.host.complete(sent.id, Ok(()), moved);
        assert_eq!(transfers(&mut world), [(at, event.0, event.1)], "{name}");
        assert_eq!(memory(&world, BUFFER + 8, 8), [0xee; 8], "{name}");
    }
}

/// Case 26: the slot goes while its requests are out.
#[test]
fn requests_may_outlive_their_slot_their_endpoint_and_their_controller() {
    for kind in 0..4 {
        let mut world = world();
        let slot = configured(&mut world);
        for endpoint in [BULK_IN, BULK_OUT, INTERRUPT_IN] {
            world.transfer(slot, endpoint, BUFFER, 8);
        }
        world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
        let sent = requests(&mut world);
        assert_eq!(sent.len(), 4);
        match kind {
            0 => assert_eq!(world.disable_slot(slot).code, code::SUCCESS),
            1 => world.host.write(0x40, Width::Dword, 2),
            2 => world.host.detach(DEVICE),
            _ => world.host.with(Model::reset),
        }
        // Those of a device that is gone belong to nobody; the others are still on their way.
        let gone = kind == 2;
        assert_eq!(world.host.xhci.stats().in_flight, if gone { 0 } else { 4 }, "kind {kind}");
        let unknown = world.host.xhci.stats().unknown_completions;
        for request in &sent {
            world.host.complete(request.id, Err(Failure::Fault), Moved::In(vec![1; 8].into()));
        }
        let invented = world.host.xhci.stats().unknown_completions - unknown;
        assert_eq!(invented, if gone { 4 } else { 0 }, "kind {kind}");
        assert_eq!(world.host.xhci.stats().in_flight, 0, "kind {kind}");
    }
}

/// Case 30: the same id, another device.
#[test]
fn a_device_that_comes_back_under_its_id_is_a_new_device() {
    let mut world = world();
    let slot = configured(&mut world);
    world.transfer(slot, BULK_IN, BUFFER, 8);
    let old = request(&mut world);
    world.events();
    let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
    assert_eq!(port, 9, "it was unplugged and plugged in again, as another kind");
    let events = world.events();
    assert_eq!(events.iter().filter_map(|e| e.port()).collect::<Vec<_>>(), [1, 9]);
    world.host.give(old.id, vec![1; 8]);
    let at = world.transfer(slot, BULK_OUT, BUFFER, 8);
    assert_eq!(transfers(&mut world), [(at, code::TRANSACTION_ERROR, 8)], "the old slot is not its slot");
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, 9, 4, false).code, code::SUCCESS);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    assert_eq!(requests(&mut world).len(), 1);
}

/// Section 3.3: what is in flight is bounded for the controller as a whole, and nothing starves.
#[test]
fn all_endpoints_together_have_a_credit_and_each_gets_on_with_it() {
    const CREDIT: u64 = 64 << 20;
    let mut world = world_with(Config::default(), Plan { ring_trbs: 256, ..Plan::at(0x1000, 7 << 20) });
    let slot = addressed(&mut world, Speed::High);
    let endpoints: Vec<_> = (2..32).map(|index| EndpointSetup::bulk(index, 512)).collect();
    assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
    for endpoint in 2..32 {
        for _ in 0..80 {
            world.queue(slot, endpoint, normal(BUFFER, 0x1_0000).with(Trb::IOC));
        }
        world.ring_doorbell(slot, endpoint);
    }
    let mut told = 0;
    let mut waiting = Vec::new();
    for _ in 0..10_000 {
        waiting.extend(requests(&mut world));
        let bytes: u64 = waiting.iter().map(|request| u64::from(request.payload.requested())).sum();
        assert!(bytes <= CREDIT + 30 * 0x1_0000, "{bytes} bytes in flight");
        let Some(oldest) = waiting.first().cloned() else { break };
        waiting.remove(0);
        match oldest.payload {
            Payload::Out(data) => world.host.complete(oldest.id, Ok(()), Moved::Out(data.len() as u32)),
            Payload::In { max } => world.host.give(oldest.id, vec![0; max as usize]),
        }
        told += transfers(&mut world).len();
    }
    assert_eq!(told, 30 * 80);
}
