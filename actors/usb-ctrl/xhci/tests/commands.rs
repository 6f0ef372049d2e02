//! Commands and their answers. xHCI 1.2 §4.6.

mod world;

use core::time::Duration;

use pci::Width;
use wire::usb::{DeviceId, Speed};
use world::*;
use xhci::{
    Config,
    driver::{EndpointSetup, Host, Plan, Trb, code},
};

#[test]
fn each_command_answers_bad_slots_and_states_by_the_table() {
    struct Case {
        name: &'static str,
        trb: Trb,
        code: u8,
    }
    let cases = [
        Case { name: "No-Op", trb: Trb::command(23, 0), code: code::SUCCESS },
        Case { name: "Disable Slot 5", trb: Trb::command(10, 5), code: 11 },
        Case { name: "Disable Slot 0", trb: Trb::command(10, 0), code: 11 },
        Case { name: "Disable Slot 255", trb: Trb::command(10, 255), code: 11 },
        Case { name: "Address Device 64", trb: Trb::command(11, 64), code: 11 },
        Case { name: "Configure Endpoint 65", trb: Trb::command(12, 65), code: 11 },
        Case { name: "Evaluate Context 2", trb: Trb::command(13, 2), code: 11 },
        Case { name: "Reset Endpoint 2", trb: Trb::command(14, 2).with(1 << 16), code: 11 },
        Case { name: "Stop Endpoint 2", trb: Trb::command(15, 2).with(1 << 16), code: 11 },
        Case { name: "Set TR Dequeue 2", trb: Trb::command(16, 2).with(1 << 16), code: 11 },
        Case { name: "Reset Device 2", trb: Trb::command(17, 2), code: 11 },
        Case { name: "Force Event", trb: Trb::command(18, 0), code: code::TRB_ERROR },
        Case { name: "Negotiate Bandwidth", trb: Trb::command(19, 1), code: code::TRB_ERROR },
        Case { name: "Set Latency Tolerance", trb: Trb::command(20, 0), code: code::SUCCESS },
        Case { name: "Force Header", trb: Trb::command(22, 0), code: code::TRB_ERROR },
        Case { name: "Get Extended Property", trb: Trb::command(24, 1), code: code::TRB_ERROR },
        Case { name: "Set Extended Property", trb: Trb::command(25, 1), code: code::TRB_ERROR },
        Case { name: "vendor 49", trb: Trb::command(49, 0), code: code::TRB_ERROR },
        Case { name: "a transfer TRB", trb: Trb::command(1, 0), code: code::TRB_ERROR },
        Case { name: "an event", trb: Trb::command(33, 0), code: code::TRB_ERROR },
        Case { name: "Configure Endpoint in Enabled", trb: Trb::command(12, 1), code: code::CONTEXT_STATE },
        Case {
            name: "Deconfigure in Enabled",
            trb: Trb::command(12, 1).with(1 << 9),
            code: code::CONTEXT_STATE,
        },
        Case { name: "Evaluate Context in Enabled", trb: Trb::command(13, 1), code: code::CONTEXT_STATE },
        Case { name: "Reset Device in Enabled", trb: Trb::command(17, 1), code: code::CONTEXT_STATE },
        Case { name: "Stop Endpoint 0", trb: Trb::command(15, 1), code: code::TRB_ERROR },
        Case {
            name: "Stop Endpoint, none",
            trb: Trb::command(15, 1).with(1 << 16),
            code: code::CONTEXT_STATE,
        },
    ];
    let mut world = world();
    assert_eq!(world.enable_slot(), 1);
    for Case { name, trb, code } in cases {
        let event = world.command(trb);
        let slot = (trb.control >> 24) as u8;
        assert_eq!((event.code, event.slot), (code, slot), "{name}");
    }
}

#[test]
fn no_more_slots_are_given_than_are_enabled() {
    let mut world = world();
    for slot in 1..=64 {
        assert_eq!(world.enable_slot(), slot);
    }
    assert_eq!(world.command(Trb::command(9, 0)).code, 9, "No Slots Available");
    assert_eq!(world.disable_slot(17).code, code::SUCCESS);
    assert_eq!(world.enable_slot(), 17);
    world.disable_slot(2);
    let config = world.operational() + 0x38;
    world.host.write(config, Width::Dword, 1);
    assert_eq!(world.command(Trb::command(9, 0)).code, 9, "MaxSlotsEn is 1");
}

#[test]
fn configure_endpoint_drops_then_adds_all_or_nothing() {
    let mut world = world();
    let slot = configured(&mut world);
    let bad = [EndpointSetup::bulk(4, 512), EndpointSetup { index: 7, kind: 2, max_packet: 512 }];
    assert_eq!(world.configure_with(slot, 1 << BULK_IN, 1 | 1 << 4 | 1 << 7, &bad).code, 17, "direction");
    assert_eq!(world.output_context(slot, 4), [0; 5], "nothing was added");
    assert_eq!(world.output_context(slot, BULK_IN)[0] & 7, 1, "nothing was dropped");
    let again = [EndpointSetup::bulk(BULK_IN, 64)];
    assert_eq!(world.configure_with(slot, 1 << BULK_IN | 1 << BULK_OUT, 1 | 1 << BULK_IN, &again).code, 1);
    assert_eq!(world.output_context(slot, BULK_IN)[1] >> 16, 64, "made anew");
    assert_eq!(world.output_context(slot, BULK_OUT), [0; 5]);
    assert_eq!(world.output_context(slot, 0)[3] >> 27, 3, "Configured");
    let drop = 1 << BULK_IN | 1 << INTERRUPT_IN;
    assert_eq!(world.configure_with(slot, drop, 0, &[]).code, code::SUCCESS, "without the slot flag");
    assert_eq!(world.output_context(slot, 0)[3] >> 27, 2, "no endpoint is left: Addressed");
}

#[test]
fn configure_endpoint_refuses_what_cannot_be() {
    const CASES: &[(&str, u32, u32, &[EndpointSetup], u8)] = &[
        ("drop the slot", 1, 1, &[], 17),
        ("drop the control endpoint", 2, 1, &[], 17),
        ("add the control endpoint", 0, 3, &[], 17),
        ("no type", 0, 1 << 4 | 1, &[EndpointSetup { index: 4, kind: 0, max_packet: 8 }], 17),
        ("no packets", 0, 1 << 4 | 1, &[EndpointSetup { index: 4, kind: 2, max_packet: 0 }], 17),
        (
            "a second control endpoint",
            0,
            1 << 5 | 1,
            &[EndpointSetup { index: 5, kind: 4, max_packet: 8 }],
            7,
        ),
    ];
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    for (name, drop, add, endpoints, code) in CASES {
        assert_eq!(world.configure_with(slot, *drop, *add, endpoints).code, *code, "{name}");
        assert_eq!(world.output_context(slot, 0)[3] >> 27, 2, "{name}");
    }
}

#[test]
fn deconfigure_takes_all_endpoints_but_the_control_endpoint() {
    let mut world = world();
    let slot = configured(&mut world);
    world.transfer(slot, BULK_IN, 0x10_0000, 8);
    requests(&mut world);
    assert_eq!(world.command(Trb::command(12, slot).with(1 << 9)).code, code::SUCCESS);
    assert_eq!(messages(&mut world).len(), 1, "what was in flight is cancelled");
    let context = world.output_context(slot, 0);
    assert_eq!((context[3] >> 27, context[0] >> 27), (2, 1));
    assert_eq!(world.output_context(slot, BULK_IN), [0; 5]);
    assert_eq!(world.output_context(slot, 1)[0] & 7, 1);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    assert_eq!(world.command(stop).code, code::CONTEXT_STATE, "it is Disabled");
}

/// xHCI 1.2 §4.6.7: full-speed devices say their packet size late.
#[test]
fn evaluate_context_changes_the_packet_size_and_the_exit_latency() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::Full);
    let input = world.allocate(33 * 32);
    for (offset, value) in [(4, 3_u32), (32 + 4, 0x0001_0123), (32 + 8, 2 << 22), (64 + 4, 8 << 16 | 4 << 3)]
    {
        world.host.store(input + offset, &value.to_le_bytes());
    }
    let event = world.command(Trb { parameter: input, ..Trb::command(13, slot) });
    assert_eq!(event.code, code::SUCCESS);
    assert_eq!(world.output_context(slot, 1)[1] >> 16, 8);
    assert_eq!(world.output_context(slot, 0)[1] & 0xffff, 0x0123);
    assert_eq!(world.output_context(slot, 0)[2] >> 22, 2);
}

/// xHCI 1.2 §4.6.7: it drops nothing, and what cannot be read changes nothing.
#[test]
fn evaluate_context_refuses_what_cannot_be() {
    struct Case {
        name: &'static str,
        /// The flags and the packet size, in an input context here.
        drop: u32,
        add: u32,
        max_packet: u32,
        at: Option<u64>,
        code: u8,
    }
    let end = MEMORY as u64;
    let cases = [
        Case { name: "a drop flag", drop: 1 << 3, add: 2, max_packet: 8, at: None, code: 17 },
        Case { name: "no packets", drop: 0, add: 2, max_packet: 0, at: None, code: 17 },
        Case { name: "in a hole", drop: 0, add: 2, max_packet: 8, at: Some(end), code: code::TRB_ERROR },
        Case {
            name: "half of it there",
            drop: 0,
            add: 2,
            max_packet: 8,
            at: Some(end - 64),
            code: code::TRB_ERROR,
        },
        Case {
            name: "at the end of all",
            drop: 0,
            add: 2,
            max_packet: 8,
            at: Some(!0xf),
            code: code::TRB_ERROR,
        },
        Case {
            name: "other endpoints are not looked at",
            drop: 0,
            add: 1 << 3,
            max_packet: 8,
            at: None,
            code: 1,
        },
    ];
    for Case { name, drop, add, max_packet, at, code } in cases {
        let mut world = world();
        let slot = configured(&mut world);
        let input = world.allocate(33 * 32);
        for (offset, value) in [(0, drop), (4, add), (32 + 4, 0x123), (64 + 4, max_packet << 16 | 4 << 3)] {
            world.host.store(input + offset, &value.to_le_bytes());
        }
        let before: Vec<_> = (0..4).map(|index| world.output_context(slot, index)).collect();
        let trb = Trb { parameter: at.unwrap_or(input), ..Trb::command(13, slot) };
        assert_eq!(world.command(trb).code, code, "{name}");
        let after: Vec<_> = (0..4).map(|index| world.output_context(slot, index)).collect();
        assert_eq!(after, before, "{name}");
    }
}

/// xHCI 1.2 §4.6.15.
#[test]
fn port_bandwidth_of_a_context_in_a_hole_is_a_trb_error() {
    let mut world = world();
    for at in [MEMORY as u64, MEMORY as u64 - 8, !0xf] {
        let trb = Trb { parameter: at, ..Trb::command(21, 0).with(3 << 16) };
        assert_eq!(world.command(trb).code, code::TRB_ERROR, "{at:#x}");
    }
    assert_eq!(world.command(Trb::command(23, 0)).code, code::SUCCESS, "the controller runs on");
}

#[test]
fn port_bandwidth_says_that_everything_is_left() {
    let mut world =
        world_with(Config { usb2_ports: 2, usb3_ports: 2, ..Config::default() }, Plan::at(0x1000, 4 << 20));
    for (speed, expected) in [(1, [0, 90, 90, 0, 0]), (3, [0, 80, 80, 0, 0]), (4, [0, 0, 0, 90, 90])] {
        let context = world.allocate(16);
        let trb = Trb { parameter: context, ..Trb::command(21, 0).with(speed << 16) };
        assert_eq!(world.command(trb).code, code::SUCCESS);
        assert_eq!(memory(&world, context, 5), expected);
    }
}

/// xHCI 1.2 §5.4.5: while the ring runs, its pointer cannot be moved; halves are written one after the other.
#[test]
fn the_command_ring_pointer_is_written_only_while_the_ring_stands() {
    let mut world = world();
    let crcr = world.operational() + 0x18;
    assert_eq!(world.command(Trb::command(23, 0)).code, code::SUCCESS);
    world.host.write(crcr, Width::Qword, 0x00ff_ff00);
    assert_eq!(world.command(Trb::command(23, 0)).code, code::SUCCESS, "ignored while running");
    world.host.write(crcr, Width::Dword, 2);
    let events = world.events();
    assert_eq!(events.iter().map(|e| e.code).collect::<Vec<_>>(), [24], "Command Ring Stopped");
    assert_eq!(world.host.read(crcr, Width::Qword), 0);
    let ring = world.allocate(64);
    world.host.store(ring + 12, &(23_u32 << 10 | 1).to_le_bytes());
    world.host.write(crcr, Width::Dword, ring | 1);
    world.host.write(crcr + 4, Width::Dword, 0);
    world.host.write(0x2000, Width::Dword, 0);
    let events = world.events();
    assert_eq!(events.iter().map(|e| (e.pointer, e.code)).collect::<Vec<_>>(), [(ring, code::SUCCESS)]);
}

#[test]
fn sixty_four_devices_worth_of_slots_share_sixteen_ports_in_turn() {
    let mut world = world();
    for id in 0..100 {
        let device = DeviceId(id);
        let port = world.host.attach(device, Speed::High).unwrap().0;
        assert!(world.reset_port(port));
        world.host.take_requests();
        let slot = world.enable_slot();
        assert_eq!(world.address_device(slot, port, 3, false).code, code::SUCCESS);
        world.host.detach(device);
        assert_eq!(world.disable_slot(slot).code, code::SUCCESS);
        world.write_port(port, 0x00fe_0200);
        world.events();
        world.host.wait(Duration::from_millis(40)); // eight ports, and each shows the next device 300 ms later
    }
    assert_eq!(world.host.xhci.stats().slots, 0);
}

/// A device listens to one slot: the newer one.
#[test]
fn a_device_that_gets_a_second_slot_leaves_the_first() {
    let mut world = world();
    let first = addressed(&mut world, Speed::High);
    let second = world.enable_slot();
    assert_eq!(world.address_device(second, 1, 3, false).code, code::SUCCESS);
    let [data, ..] = [world.control(first, [0x80, 6, 0, 1, 0, 0, 8, 0], 0x10_0000)[1]];
    assert_eq!(transfers(&mut world), [(data, code::TRANSACTION_ERROR, 8)]);
    world.control(second, [0x80, 6, 0, 1, 0, 0, 8, 0], 0x10_0000);
    assert_eq!(requests(&mut world).len(), 1);
}

#[test]
fn a_device_behind_a_hub_does_not_exist() {
    let mut world = world();
    let port = world.host.attach(DEVICE, Speed::High).unwrap().0;
    world.reset_port(port);
    let slot = world.enable_slot();
    world.address_device(slot, port, 3, true);
    world.disable_slot(slot);
    let slot = world.enable_slot();
    let input = world.allocate(33 * 32);
    let output = world.allocate(33 * 32);
    let mut dcbaa = [0; 8];
    let register = world.operational() + 0x30;
    dcbaa.copy_from_slice(&world.host.read(register, Width::Qword).to_le_bytes());
    world.host.store(u64::from_le_bytes(dcbaa) + 8 * u64::from(slot), &output.to_le_bytes());
    let values = [
        (4, 3_u32),
        (32, 1 << 27 | 3 << 20 | 2),
        (36, u32::from(port) << 16),
        (64 + 4, 64 << 16 | 4 << 3),
        (64 + 8, 0x9001),
    ];
    for (offset, value) in values {
        world.host.store(input + offset, &value.to_le_bytes());
    }
    let event = world.command(Trb { parameter: input, ..Trb::command(11, slot) });
    assert_eq!(event.code, code::TRANSACTION_ERROR);
}
