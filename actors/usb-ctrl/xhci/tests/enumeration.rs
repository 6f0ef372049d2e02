//! What an operating system does first: ports, slots, addresses, control transfers. xHCI 1.2 §4.3.

mod world;

use pci::Width;
use wire::{
    control::{Descriptor, Profile},
    usb::{Endpoint, Failure, Moved, Payload, Speed, ToRemote, Transfer},
};
use world::*;
use xhci::driver::{EndpointSetup, Host, code};

#[test]
fn a_usb_2_device_is_enabled_by_a_port_reset_that_completes_within_20_ms() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    assert_eq!(world.port_status(port), 0x0002_0ee1, "connected, polling, high speed, powered, CSC");
    assert_eq!(world.events().iter().filter_map(|e| e.port()).collect::<Vec<_>>(), [port]);
    let before = world.host.now;
    world.write_port(port, 0x0002_0210);
    assert_eq!(world.port_status(port) & 0x12, 0x10, "PR=1, PED=0");
    assert!(world.await_event(core::time::Duration::from_millis(20), |e| e.port() == Some(port)).is_some());
    assert!(world.host.now - before <= core::time::Duration::from_millis(20));
    assert_eq!(world.port_status(port), 0x0020_0e03, "enabled, U0, PRC");
    assert!(matches!(world.host.messages[0], ToRemote::Reset { device: DEVICE, .. }));
}

#[test]
fn a_usb_3_device_is_enabled_without_a_reset() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::Super).unwrap().0;
    assert!(port > 8, "USB 3 ports follow the USB 2 ports");
    assert_eq!(world.port_status(port), 0x0002_1203);
}

#[test]
fn the_control_endpoint_waits_for_the_remote_reset_but_no_command_does() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    assert!(world.reset_port(port));
    let messages = messages(&mut world);
    let [ToRemote::Reset { id, .. }] = messages[..] else { panic!("{messages:?}") };
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, port, 3, false).code, code::SUCCESS);
    world.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0], 0x10_0000);
    assert!(world.host.take_messages().is_empty());
    world.host.complete(id, Ok(()), Moved::Out(0));
    assert_eq!(request(&mut world).endpoint, Endpoint::CONTROL);
}

/// xHCI 1.2 §4.6.5: the output contexts say Addressed and Running.
#[test]
fn address_device_fills_the_output_contexts() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let context = world.output_context(slot, 0);
    assert_eq!((context[3], context[0] >> 27), (2 << 27 | u32::from(slot), 1));
    assert_eq!(world.output_context(slot, 1)[0], 1);
}

#[test]
fn address_device_without_a_device_reports_a_transaction_error() {
    let mut world = world();
    let slot = world.enable_slot();
    assert_eq!(world.address_device(slot, 3, 3, false).code, code::TRANSACTION_ERROR);
    assert_eq!(world.address_device(slot, 3, 3, true).code, code::SUCCESS, "BSR talks to nobody");
    assert_eq!(world.address_device(slot, 3, 3, true).code, code::CONTEXT_STATE, "Default already");
}

#[test]
fn a_descriptor_is_read_and_a_short_one_says_so() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let [_, data, status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 64, 0], 0x10_0000);
    let request = request(&mut world);
    assert_eq!((request.device, &request.payload), (DEVICE, &Payload::In { max: 64 }));
    let Transfer::Control(setup) = request.transfer else { panic!("{request:?}") };
    assert_eq!((setup.request, setup.value, setup.length), (6, 0x0100, 64));
    world.host.give(request.id, (1..=18).collect::<Vec<u8>>());
    assert_eq!(memory(&world, 0x10_0000, 19), [(1..=18).collect::<Vec<u8>>(), vec![0]].concat());
    assert_eq!(
        transfers(&mut world),
        [(data, code::SHORT_PACKET, 64 - 18), (status, code::SUCCESS, 0)],
        "residual at the data stage, success at the status stage"
    );
}

/// What the remote has told of a device: its descriptor, and a configuration that claims remote wake-up.
fn told() -> Profile {
    let descriptor = |request_type, value, data: &[u8]| Descriptor {
        request_type,
        value,
        index: 0,
        data: data.to_vec().into(),
    };
    let configuration = [9, 2, 12, 0, 1, 1, 0, 0xa0, 50, 3, 0x30, 0];
    Profile {
        descriptors: vec![
            descriptor(0x80, 0x0100, &(1..=18).collect::<Vec<_>>()),
            descriptor(0x80, 0x0200, &configuration),
            descriptor(0x81, 0x2200, &[5, 1]),
        ],
        ..Profile::default()
    }
}

/// A device that the remote has told of, with a slot and an address.
fn known() -> (World, u8) {
    let mut world = world();
    let slot = addressed_as(&mut world, Speed::High, told());
    (world, slot)
}

#[test]
fn a_descriptor_that_is_known_is_answered_without_a_round_trip_as_the_device_would() {
    let (mut world, slot) = known();
    let [_, data, status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 64, 0], 0x10_0000);
    assert!(messages(&mut world).is_empty(), "nobody is asked");
    assert_eq!(transfers(&mut world), [(data, code::SHORT_PACKET, 64 - 18), (status, code::SUCCESS, 0)]);
    assert_eq!(memory(&world, 0x10_0000, 19), [(1..=18).collect::<Vec<u8>>(), vec![0]].concat());

    let [.., status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], 0x10_0000);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)], "as much as is asked for");

    world.control(slot, [0x80, 6, 0, 2, 0, 0, 12, 0], 0x10_0000);
    assert_eq!(memory(&world, 0x10_0000, 12)[7], 0x80, "no remote wake-up from the cache either");
    world.control(slot, [0x81, 6, 0, 0x22, 0, 0, 2, 0], 0x10_0000);
    assert_eq!(memory(&world, 0x10_0000, 2), [5, 1], "the report descriptor of interface 0");
    assert!(messages(&mut world).is_empty());
}

#[test]
fn what_is_not_known_is_asked_and_answers_come_in_ring_order() {
    let (mut world, slot) = known();
    let asked: [[u8; 8]; 4] = [
        [0x80, 6, 1, 1, 0, 0, 18, 0],   // another index
        [0x80, 6, 0, 1, 9, 4, 18, 0],   // another language
        [0x82, 6, 0, 1, 0, 0, 18, 0],   // of an endpoint
        [0xa1, 6, 0, 0x22, 0, 0, 2, 0], // of a class
    ];
    for setup in asked {
        world.control(slot, setup, 0x10_0000);
        let request = request(&mut world);
        world.host.give(request.id, vec![0; 2]);
    }
    world.events();
    let [.., first] = world.control(slot, [0x00, 9, 1, 0, 0, 0, 0, 0], 0);
    let set = request(&mut world);
    let [.., second] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0], 0x10_0000);
    assert_eq!(transfers(&mut world), [], "the one before it is still at the device");
    world.host.complete(set.id, Ok(()), Moved::Out(0));
    assert_eq!(transfers(&mut world), [(first, code::SUCCESS, 0), (second, code::SUCCESS, 0)]);
}

#[test]
fn a_stalled_request_halts_the_control_endpoint_at_its_data_stage_until_reset() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let [_, data, _] = world.control(slot, [0x80, 6, 0, 3, 0, 0, 255, 0], 0x10_0000);
    let first = request(&mut world);
    world.host.complete(first.id, Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(transfers(&mut world), [(data, code::STALL, 255)]);
    assert_eq!(world.output_context(slot, 1)[0] & 7, 2, "Halted");
    world.control(slot, [0x00, 9, 1, 0, 0, 0, 0, 0], 0);
    assert!(requests(&mut world).is_empty(), "a halted endpoint runs nothing");
    let command = world.endpoint_command(TRB_RESET, slot, 1);
    assert_eq!(world.command(command).code, code::SUCCESS);
    assert_eq!(world.set_dequeue(slot, 1, None).code, code::SUCCESS);
    let [.., status] = world.control(slot, [0x00, 9, 1, 0, 0, 0, 0, 0], 0);
    let second = request(&mut world);
    assert_eq!(second.payload, Payload::Out(Default::default()));
    world.host.complete(second.id, Ok(()), Moved::Out(0));
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
}

#[test]
fn configure_endpoint_makes_the_slot_configured_and_its_endpoints_run() {
    let mut world = world();
    let slot = configured(&mut world);
    let context = world.output_context(slot, 0);
    assert_eq!((context[3] >> 27, context[0] >> 27), (3, 5));
    for index in [BULK_OUT, BULK_IN, INTERRUPT_IN] {
        assert_eq!(world.output_context(slot, index)[0] & 7, 1, "endpoint {index}");
    }
    // One that is added although it is there is made anew, without bandwidth as well.
    for max_packet in [192, 0] {
        let isochronous = EndpointSetup { index: 7, kind: 5, max_packet };
        assert_eq!(world.configure(slot, &[isochronous]).code, code::SUCCESS, "{max_packet}");
        assert_eq!(world.output_context(slot, 7)[1] >> 16, max_packet.into());
    }
}

#[test]
fn bulk_and_interrupt_transfers_go_both_ways() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.store(0x10_0000, b"command block");
    let out = world.transfer(slot, BULK_OUT, 0x10_0000, 13);
    let sent = request(&mut world);
    assert_eq!(sent.payload, Payload::Out("command block".into()));
    assert_eq!((sent.transfer, sent.endpoint.address()), (Transfer::Bulk { stream: 0 }, 0x01));
    world.host.complete(sent.id, Ok(()), Moved::Out(13));
    assert_eq!(transfers(&mut world), [(out, code::SUCCESS, 0)]);

    let inward = world.transfer(slot, BULK_IN, 0x20_0000, 13);
    let asked = request(&mut world);
    assert_eq!(asked.payload, Payload::In { max: 512 }, "rounded up to whole packets");
    world.host.give(asked.id, &b"thirteen byte"[..]);
    assert_eq!(transfers(&mut world), [(inward, code::SUCCESS, 0)]);
    assert_eq!(memory(&world, 0x20_0000, 14), b"thirteen byte\0");

    let report = world.transfer(slot, INTERRUPT_IN, 0x30_0000, 8);
    let asked = request(&mut world);
    assert_eq!(asked.transfer, Transfer::Interrupt);
    world.host.give(asked.id, &[0, 0, 4, 0, 0, 0, 0, 0][..]);
    assert_eq!(transfers(&mut world), [(report, code::SUCCESS, 0)]);
}

#[test]
fn an_event_interrupts_once_until_the_guest_is_done() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.wait(core::time::Duration::from_millis(1));
    let before = world.host.interrupts;
    for _ in 0..3 {
        world.transfer(slot, BULK_OUT, 0x10_0000, 1);
        let id = request(&mut world).id;
        world.host.complete(id, Ok(()), Moved::Out(1));
    }
    assert_eq!(world.host.interrupts, before + 1, "EHB holds further interrupts back");
    assert_eq!(transfers(&mut world).len(), 3);
    let status = world.operational() + 4;
    assert_eq!(world.host.read(status, Width::Dword) & 8, 8, "EINT");
    world.host.write(status, Width::Dword, 8);
    assert_eq!(world.host.read(status, Width::Dword) & 8, 0);
}
