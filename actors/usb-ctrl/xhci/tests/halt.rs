//! Errors, halts and recovery. xHCI 1.2 §4.8.3, §4.10.2, §4.6.8.

mod world;

use wire::usb::{Failure, Moved, Payload, ToRemote};
use world::*;
use xhci::driver::{Trb, code, normal};

const BUFFER: u64 = 0x10_0000;

fn state(world: &mut World, slot: u8, endpoint: u8) -> u32 {
    world.output_context(slot, endpoint)[0] & 7
}

fn reset(world: &mut World, slot: u8, endpoint: u8, flags: u32) -> u8 {
    let command = world.endpoint_command(TRB_RESET, slot, endpoint).with(flags);
    world.command(command).code
}

#[test]
fn each_failure_has_its_completion_code() {
    const CASES: &[(Failure, u8)] = &[
        (Failure::Stall, code::STALL),
        (Failure::Disconnected, code::TRANSACTION_ERROR),
        (Failure::Fault, code::TRANSACTION_ERROR),
        (Failure::Overflow, code::BABBLE),
        (Failure::InvalidArgument, code::TRANSACTION_ERROR),
        (Failure::Cancelled, code::TRANSACTION_ERROR), // by nobody here
    ];
    for (failure, code) in CASES {
        let mut world = world();
        let slot = configured(&mut world);
        let at = world.transfer(slot, BULK_IN, BUFFER, 1024);
        let sent = request(&mut world);
        world.host.complete(sent.id, Err(*failure), Moved::In(vec![1; 100].into()));
        assert_eq!(transfers(&mut world), [(at, *code, 924)], "{failure:?}");
        assert_eq!(state(&mut world, slot, BULK_IN), 2, "{failure:?}");
        assert_eq!(memory(&world, BUFFER, 100), [1; 100], "{failure:?}");
    }
}

#[test]
fn an_error_lands_on_the_trb_in_which_bytes_stopped_moving() {
    let mut world = world();
    let slot = configured(&mut world);
    let at: Vec<_> = (0..3)
        .map(|i| {
            world.queue(slot, BULK_OUT, normal(BUFFER, 512).with(if i < 2 { Trb::CHAIN } else { Trb::IOC }))
        })
        .collect();
    world.ring_doorbell(slot, BULK_OUT);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Fault), Moved::Out(1000));
    assert_eq!(transfers(&mut world), [(at[1], code::TRANSACTION_ERROR, 24)]);
    assert_eq!(u64::from(world.output_context(slot, BULK_OUT)[2]) & !0xf, at[1]);
}

#[test]
fn a_stall_discards_what_is_queued_behind_it_and_recovery_starts_afresh() {
    let mut world = world();
    let slot = configured(&mut world);
    let first = world.transfer(slot, BULK_IN, BUFFER, 512);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    let sent = requests(&mut world);
    world.host.complete(sent[0].id, Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(transfers(&mut world), [(first, code::STALL, 512)]);
    let cancel = messages(&mut world);
    assert!(matches!(cancel[..], [ToRemote::Cancel { through, .. }] if through == sent[1].id), "{cancel:?}");
    assert_eq!(reset(&mut world, slot, BULK_IN, 0), code::SUCCESS);
    assert!(messages(&mut world).is_empty(), "the device's toggle is the class driver's business");
    assert_eq!(world.set_dequeue(slot, BULK_IN, None).code, code::SUCCESS);
    let third = world.transfer(slot, BULK_IN, BUFFER, 512);
    assert!(requests(&mut world).is_empty(), "fenced by the cancel");
    world.host.complete(sent[1].id, Err(Failure::Cancelled), Moved::In(Default::default()));
    let fresh = request(&mut world);
    world.host.give(fresh.id, vec![1; 512]);
    assert_eq!(transfers(&mut world), [(third, code::SUCCESS, 0)]);
}

#[test]
fn data_behind_a_transaction_error_is_not_lost() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = [0, 1].map(|i| world.transfer(slot, BULK_IN, BUFFER + 0x1000 * i, 512));
    let sent = requests(&mut world);
    world.host.complete(sent[0].id, Err(Failure::Fault), Moved::In(Default::default()));
    world.host.give(sent[1].id, vec![2; 512]);
    assert_eq!(transfers(&mut world), [(at[0], code::TRANSACTION_ERROR, 512)]);
    // A soft retry: Reset Endpoint with TSP, and the doorbell.
    assert_eq!(reset(&mut world, slot, BULK_IN, 1 << 9), code::SUCCESS);
    messages(&mut world);
    world.ring_doorbell(slot, BULK_IN);
    // A device sends a stream: what came next is the first TD's.
    assert_eq!(transfers(&mut world), [(at[0], code::SUCCESS, 0)]);
    assert_eq!(memory(&world, BUFFER, 512), [2; 512]);
    let again = request(&mut world);
    world.host.give(again.id, vec![1; 512]);
    assert_eq!(transfers(&mut world), [(at[1], code::SUCCESS, 0)]);
}

#[test]
fn a_soft_retry_goes_on_behind_the_bytes_that_moved() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_IN, BUFFER, 2048);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Fault), Moved::In(vec![1; 1024].into()));
    assert_eq!(transfers(&mut world), [(at, code::TRANSACTION_ERROR, 1024)]);
    reset(&mut world, slot, BULK_IN, 1 << 9);
    world.ring_doorbell(slot, BULK_IN);
    let again = request(&mut world);
    assert_eq!(again.payload, Payload::In { max: 1024 });
    world.host.give(again.id, vec![2; 1024]);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    assert_eq!(memory(&world, BUFFER, 2048), [vec![1; 1024], vec![2; 1024]].concat());
}

#[test]
fn an_endpoint_that_has_erred_has_one_td_in_flight_until_one_succeeds() {
    let mut world = world();
    let slot = configured(&mut world);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Fault), Moved::In(Default::default()));
    reset(&mut world, slot, BULK_IN, 0);
    world.set_dequeue(slot, BULK_IN, None);
    for _ in 0..4 {
        world.transfer(slot, BULK_IN, BUFFER, 512);
    }
    let one = request(&mut world);
    world.host.give(one.id, vec![0; 512]);
    assert_eq!(requests(&mut world).len(), 3);
}

#[test]
fn reset_endpoint_needs_a_halted_endpoint_and_set_tr_dequeue_a_stopped_one() {
    let mut world = world();
    let slot = configured(&mut world);
    assert_eq!(reset(&mut world, slot, BULK_IN, 0), code::CONTEXT_STATE);
    assert_eq!(world.set_dequeue(slot, BULK_IN, None).code, code::CONTEXT_STATE);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(world.set_dequeue(slot, BULK_IN, None).code, code::CONTEXT_STATE);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    assert_eq!(world.command(stop).code, code::CONTEXT_STATE, "halted");
    for (endpoint, code) in [(0, code::TRB_ERROR), (9, code::CONTEXT_STATE)] {
        assert_eq!(reset(&mut world, slot, endpoint, 0), code, "endpoint {endpoint}");
    }
    assert_eq!(reset(&mut world, 44, BULK_IN, 0), 11, "Slot Not Enabled");
}

#[test]
fn a_trb_that_makes_no_sense_stops_the_endpoint_in_its_error_state() {
    const CASES: &[(&str, u8, Trb)] = &[
        (
            "a setup stage on a bulk ring",
            BULK_OUT,
            Trb { parameter: 0, status: 8, control: 2 << 10 | Trb::IDT },
        ),
        ("an unknown type", BULK_OUT, Trb { parameter: 0, status: 0, control: 55 << 10 }),
        ("nine immediate bytes", BULK_OUT, Trb { parameter: 0, status: 9, control: 1 << 10 | Trb::IDT }),
        (
            "immediate data from the device",
            BULK_IN,
            Trb { parameter: 0, status: 4, control: 1 << 10 | Trb::IDT },
        ),
        ("an isochronous TD", BULK_IN, Trb { parameter: 0, status: 4, control: 5 << 10 }),
        ("a normal TRB on a control ring", 1, Trb { parameter: 0, status: 4, control: 1 << 10 }),
        ("a status stage without a setup stage", 1, Trb { parameter: 0, status: 0, control: 4 << 10 }),
        ("a setup stage of seven bytes", 1, Trb { parameter: 0, status: 7, control: 2 << 10 | Trb::IDT }),
    ];
    for (name, endpoint, trb) in CASES {
        let mut world = world();
        let slot = configured(&mut world);
        let at = world.queue(slot, *endpoint, *trb);
        world.ring_doorbell(slot, *endpoint);
        assert_eq!(transfers(&mut world), [(at, code::TRB_ERROR, data_length(*trb))], "{name}");
        assert_eq!(state(&mut world, slot, *endpoint), 4, "{name}");
        assert_eq!(world.set_dequeue(slot, *endpoint, None).code, code::SUCCESS, "{name}");
        assert_eq!(state(&mut world, slot, *endpoint), 3, "{name}");
    }
}

/// The bytes that did not move in a TRB: a Normal or Isoch TRB has some, if its fields make sense.
fn data_length(trb: Trb) -> u32 {
    let is_data = [1, 5].contains(&(trb.control >> 10 & 0x3f));
    let makes_sense = trb.control & Trb::IDT == 0 || trb.status <= 8;
    if is_data && makes_sense { trb.status } else { 0 }
}

#[test]
fn a_device_that_is_unplugged_fails_what_is_in_flight_once_and_keeps_its_slot() {
    let mut world = world();
    let slot = configured(&mut world);
    let port = 1;
    let at = [0, 1].map(|i| world.transfer(slot, BULK_IN, BUFFER + 0x1000 * i, 512));
    let sent = requests(&mut world);
    world.events();
    world.write_port(port, 0x00fe_0200);
    world.host.detach(DEVICE);
    let events = world.events();
    assert_eq!(events.iter().filter_map(|e| e.port()).collect::<Vec<_>>(), [port]);
    let errors: Vec<_> = events.iter().filter(|e| e.is_transfer()).map(|e| (e.pointer, e.code)).collect();
    assert_eq!(errors, [(at[0], code::TRANSACTION_ERROR)]);
    assert_eq!(world.port_status(port), 0x0006_02a0, "CSC and PEC, powered");
    for request in sent {
        world.host.give(request.id, vec![0; 512]);
    }
    assert!(world.events().is_empty());
    assert_eq!(world.host.xhci.stats().unknown_completions, 2);
    let next = world.transfer(slot, BULK_OUT, BUFFER, 13);
    assert!(requests(&mut world).is_empty());
    assert_eq!(transfers(&mut world), [(next, code::TRANSACTION_ERROR, 13)]);
    assert_eq!(world.disable_slot(slot).code, code::SUCCESS);
    assert_eq!(world.host.xhci.stats().slots, 0);
}

#[test]
fn a_port_reset_fails_what_is_in_flight_and_reset_device_makes_the_slot_usable_again() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_IN, BUFFER, 512);
    requests(&mut world);
    assert!(world.reset_port(1));
    requests(&mut world);
    assert_eq!(transfers(&mut world), [(at, code::TRANSACTION_ERROR, 512)]);
    assert_eq!(world.command(Trb::command(17, slot)).code, code::SUCCESS, "Reset Device");
    assert_eq!(world.output_context(slot, 0)[3], 1 << 27, "Default, no address");
    assert_eq!(world.output_context(slot, BULK_IN), [0; 5]);
    assert_eq!(world.command(Trb::command(17, slot)).code, code::CONTEXT_STATE);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
    let sent = request(&mut world);
    world.host.give(sent.id, vec![0; 8]);
    assert_eq!(world.address_device(slot, 1, 3, false).code, code::SUCCESS);
}
