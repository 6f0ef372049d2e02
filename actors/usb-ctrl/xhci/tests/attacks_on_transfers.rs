//! Endpoints, streams, lengths and places that cannot be, and schedules without an end. Each test names its case of the
//! attack table.

mod world;

use core::time::Duration;

use pci::{Dma, Model, Width};
use wire::{
    Lane,
    control::{BulkOnly, Profile},
    usb::{Completion, Endpoint, Moved, PacketEnd, Payload, Speed, ToRemote, Transfer},
};
use world::{
    streamed::{ARRAY, SET_DEQUEUE, Streamed},
    *,
};
use xhci::driver::{EndpointSetup, Host, Trb, code, normal};

const BUFFER: u64 = 0x80_0000;
/// Where a VMM may have put our own registers.
const BAR: u64 = 0xfebf_0000;
const ISOCH_OUT: u8 = 8;

/// Case 10: endpoint ids that are none.
#[test]
fn commands_for_endpoints_that_cannot_be_change_nothing() {
    struct Case {
        name: &'static str,
        endpoint: u32,
        code: u8,
    }
    let cases = [
        Case { name: "endpoint 0", endpoint: 0, code: code::TRB_ERROR },
        Case { name: "an endpoint that is not configured", endpoint: 9, code: code::CONTEXT_STATE },
        Case { name: "the last one, not configured either", endpoint: 31, code: code::CONTEXT_STATE },
        // The field has five bits: the sixth is reserved, and 32 is 0.
        Case { name: "endpoint 32", endpoint: 32, code: code::TRB_ERROR },
    ];
    for Case { name, endpoint, code } in cases {
        for kind in [TRB_RESET, TRB_STOP, SET_DEQUEUE] {
            let mut world = world();
            let slot = configured(&mut world);
            let trb = Trb { parameter: BUFFER | 1, ..Trb::command(kind, slot).with(endpoint << 16) };
            assert_eq!(world.command(trb).code, code, "{name}, command {kind}");
            for index in [1, BULK_OUT, BULK_IN, INTERRUPT_IN] {
                assert_eq!(world.output_context(slot, index)[0] & 7, 1, "{name}: {index} still runs");
            }
        }
    }
    let mut world = world();
    let slot = configured(&mut world);
    world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, 33);
    assert!(messages(&mut world).is_empty() && world.events().is_empty(), "a doorbell of endpoint 33");
}

/// Case 10: a context of one direction for an endpoint of the other, and an endpoint of a slot that was disabled.
#[test]
fn an_endpoint_has_the_direction_of_its_index() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    for (index, kinds) in [(2, [5, 6, 7]), (3, [1, 2, 3])] {
        for kind in kinds {
            let setup = EndpointSetup { index, kind, max_packet: 64 };
            assert_eq!(
                world.configure(slot, &[setup]).code,
                17,
                "index {index}, type {kind}: Parameter Error"
            );
            world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, index.into());
        }
    }
    assert_eq!(world.configure(slot, &[EndpointSetup::bulk(BULK_OUT, 512)]).code, code::SUCCESS);
    world.queue(slot, BULK_OUT, normal(BUFFER, 8).with(Trb::IOC));
    let ring = world.output_context(slot, BULK_OUT)[2];
    assert_eq!(world.disable_slot(slot).code, code::SUCCESS);
    world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, BULK_OUT.into());
    let trb = Trb { parameter: ring.into(), ..Trb::command(SET_DEQUEUE, slot).with(2 << 16) };
    assert_eq!(world.command(trb).code, 11, "Slot Not Enabled");
    assert!(messages(&mut world).is_empty() && world.events().is_empty());
}

/// Case 11: streams beyond MaxPStreams, and an array in a hole.
#[test]
fn streams_without_a_context_are_refused_by_command_and_ignored_by_doorbell() {
    let mut at = Streamed::new();
    let stop = Trb::command(TRB_STOP, at.slot).with(3 << 16);
    assert_eq!(at.world.command(stop).code, code::SUCCESS);
    for stream in [0, 16, 17, 1000, 65535] {
        assert_eq!(at.command(SET_DEQUEUE, BUFFER | 1, stream << 16), 34, "Invalid Stream ID: {stream}");
        at.doorbell(stream as u16);
    }
    at.world.host.ram.write(ARRAY + 16 * 5, &(5_u64 << 1).to_le_bytes()).unwrap();
    assert_eq!(at.command(SET_DEQUEUE, BUFFER | 1, 5 << 16), 10, "Invalid Stream Type");
    assert!(at.requests().is_empty() && at.world.events().is_empty());

    for array in [MEMORY as u64, MEMORY as u64 - 16, BAR, u64::MAX << 12] {
        let mut at = Streamed::with_array(array);
        assert_eq!(at.command(TRB_STOP, 0, 0), code::SUCCESS, "{array:#x}");
        assert_eq!(at.command(SET_DEQUEUE, BUFFER | 1, 2 << 16), code::TRB_ERROR, "{array:#x}");
        for stream in [1, 2, 15, 16] {
            at.doorbell(stream);
        }
        assert!(at.requests().is_empty() && at.world.events().is_empty(), "{array:#x}");
        assert_eq!(at.world.host.read(0x44, Width::Dword) & 0x1005, 0, "{array:#x}: the controller runs on");
    }
}

/// Case 12: the controller's own registers are no memory that it could reach: nothing in them rings or recurses.
#[test]
fn structures_in_our_own_bar_are_memory_that_is_not_there() {
    let mut world = world();
    let slot = configured(&mut world);
    let doorbells = BAR + 0x2000;
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_OUT);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    assert_eq!(world.set_dequeue(slot, BULK_OUT, Some(doorbells | 1)).code, code::SUCCESS);
    world.ring_doorbell(slot, BULK_OUT);
    assert_eq!(transfers(&mut world), [(doorbells, code::TRB_ERROR, 0)], "a transfer ring");
    let at = world.transfer(slot, BULK_IN, doorbells, 512);
    let sent = request(&mut world);
    world.host.give(sent.id, [1, 0, 0, 0].repeat(128));
    assert_eq!(transfers(&mut world), [(at, code::TRB_ERROR, 0)], "a device writes doorbells");
    for kind in [11, 12, 13, 21] {
        let trb = Trb { parameter: BAR, ..Trb::command(kind, slot) };
        assert_ne!(world.command(trb).code, code::SUCCESS, "command {kind}");
    }
    assert!(messages(&mut world).is_empty());
    // An event ring, at last: the controller halts.
    world.host.write(0x1030, Width::Qword, BAR);
    world.post_command(Trb::command(23, 0));
    assert_eq!(world.host.read(0x44, Width::Dword) & 0x5, 0x5, "Host System Error, halted");
}

/// A ring whose TDs name frames as `frame` says for each of them; how many were told, and with which codes.
fn schedule(frame: impl Fn(u32, u32) -> u32) -> (usize, Vec<u8>) {
    const TDS: u32 = 250;
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let setup = EndpointSetup { index: ISOCH_OUT, kind: 1, max_packet: 192 };
    assert_eq!(world.configure(slot, &[setup]).code, code::SUCCESS);
    world.host.wait(Duration::from_secs(1));
    let now = world.host.read(world.runtime(), Width::Dword) as u32 >> 3;
    for td in 0..TDS {
        let control = (frame(now, td) & 0x7ff) << 20 | 5 << 10 | Trb::IOC;
        world.queue(slot, ISOCH_OUT, Trb { parameter: BUFFER, status: 8, control });
    }
    world.ring_doorbell(slot, ISOCH_OUT);
    let mut told = Vec::new();
    let mut submitted = 0;
    for _ in 0..TDS {
        let sent = requests(&mut world);
        submitted += sent.len();
        told.extend(transfers(&mut world).into_iter().filter(|event| event.0 != 0).map(|event| event.1));
        for request in sent {
            let Transfer::Isochronous(packets) = &request.transfer else { panic!("{request:?}") };
            let packets = packets.lengths().iter().map(|moved| PacketEnd { moved: *moved, result: Ok(()) });
            let (id, result, moved) = (request.id, Ok(()), Moved::Out(request.payload.requested()));
            let end = Completion { id, result, moved, packets: packets.collect(), lane: Lane::Iso };
            world.host.with(|xhci, cx| xhci.complete(cx, end));
        }
    }
    (submitted, told)
}

/// Case 17: frame ids that go backwards, stand still, or are all over the place. Each TD is told once, and the worst is
/// that it has missed its service. xHCI 1.2 §4.11.2.5.
#[test]
fn games_with_frame_ids_end_with_every_td_told_once() {
    const MISSED: u8 = 23;
    let backwards = schedule(|now, td| now.wrapping_sub(td));
    let still = schedule(|now, _| now);
    let wild = schedule(|_, td| td.wrapping_mul(0x9e37_79b9));
    for (name, (submitted, told)) in [("backwards", &backwards), ("still", &still), ("wild", &wild)] {
        assert_eq!(told.len(), 250, "{name}");
        assert!(*submitted <= 250, "{name}");
        assert!(told.iter().all(|code| [code::SUCCESS, MISSED].contains(code)), "{name}: {told:?}");
    }
    let (submitted, told) = schedule(|now, _| now.wrapping_sub(1));
    assert_eq!((submitted, told), (0, vec![MISSED; 250]), "all too late: the remote hears of none");
}

/// Case 17: a circle of TDs that a consumer can never get to the end of, and that say nothing to anybody.
#[test]
fn a_circle_of_tds_that_say_nothing_stops_its_endpoint_and_each_call_is_short() {
    let status = 4_u32 << 10 | 1 << 16;
    let circles: [(&str, u8, &[Trb]); 3] = [
        ("no-ops", BULK_OUT, &[Trb { parameter: 0, status: 0, control: 8 << 10 }]),
        ("event data that nobody asked for", BULK_OUT, &[Trb { parameter: 0, status: 0, control: 7 << 10 }]),
        (
            "requests that are answered here",
            1,
            &[Trb::setup([0, 5, 1, 0, 0, 0, 0, 0], 0), Trb { parameter: 0, status: 0, control: status }],
        ),
    ];
    for (name, endpoint, trbs) in circles {
        let mut world = world();
        let slot = configured(&mut world);
        let stop = world.endpoint_command(TRB_STOP, slot, endpoint);
        assert_eq!(world.command(stop).code, code::SUCCESS);
        assert_eq!(world.set_dequeue(slot, endpoint, Some(BUFFER | 1)).code, code::SUCCESS);
        let link = Trb { parameter: BUFFER, status: 0, control: 6 << 10 };
        for (place, trb) in (0..).zip(trbs.iter().chain([&link])) {
            world.host.store(BUFFER + 16 * place, &trb.parameter.to_le_bytes());
            world.host.store(BUFFER + 16 * place + 8, &trb.status.to_le_bytes());
            world.host.store(BUFFER + 16 * place + 12, &(trb.control | 1).to_le_bytes());
        }
        let doorbell = 0x2000 + 4 * u64::from(slot);
        world.host.once(|xhci, cx| xhci.write(cx, doorbell, Width::Dword, endpoint.into()));
        let mut calls = 0;
        while world.host.xhci.deadline().is_some_and(|at| at <= world.host.now) {
            world.host.once(|xhci, cx| xhci.tick(cx));
            calls += 1;
            assert!(calls < 2000, "{name}: the model does not come to rest");
        }
        let events = transfers(&mut world);
        assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [code::TRB_ERROR], "{name}");
        assert_eq!(world.output_context(slot, endpoint)[0] & 7, 4, "{name}: Error");
        assert!(messages(&mut world).is_empty(), "{name}");
    }
}

/// Case 19: a remote that combines packets to a completion longer than what was asked for. That no message carries more
/// than `wire::MAX_BODY` is the codec's matter: `what_a_field_cannot_be_is_named` in `transports/wire/tests/codec.rs`.
#[test]
fn a_completion_of_many_packets_for_a_small_request_is_cut_to_what_was_asked_for() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.store(BUFFER, &[0xee; 2048]);
    let at = world.transfer(slot, BULK_IN, BUFFER, 1000);
    let sent = request(&mut world);
    assert_eq!(sent.payload, Payload::In { max: 1024 }, "whole packets");
    world.host.give(sent.id, vec![1; wire::MAX_BODY]);
    assert_eq!(transfers(&mut world), [(at, code::BABBLE, 0)]);
    assert_eq!(memory(&world, BUFFER, 1001), [vec![1; 1000], vec![0xee]].concat());
    // Nothing of the rest is kept for anybody.
    let reset = world.endpoint_command(TRB_RESET, slot, BULK_IN);
    assert_eq!(world.command(reset).code, code::SUCCESS);
    world.set_dequeue(slot, BULK_IN, None);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    assert!(transfers(&mut world).is_empty());
    assert_eq!(requests(&mut world).len(), 1);
}

/// Case 24: the lengths within a command block wrapper against those of the transfers that carry it. BOT 1.0 §5.1.
#[test]
fn lengths_within_a_command_for_a_disk_move_no_byte_that_no_td_has_room_for() {
    let endpoint = |address| Endpoint::from_address(address).unwrap();
    let disk = BulkOnly { out: endpoint(0x01), input: endpoint(0x81) };
    struct Case {
        name: &'static str,
        /// dCBWDataTransferLength.
        inner: u32,
        /// Bytes of the wrapper that are sent.
        outer: u32,
        signature: &'static [u8; 4],
        /// Requests beyond the wrapper: how many, and the bytes of the first.
        ahead: (usize, u32),
    }
    let cases = [
        Case { name: "4 GiB less one", inner: u32::MAX, outer: 31, signature: b"USBC", ahead: (0, 0) },
        Case { name: "1 MiB and one", inner: 0x10_0001, outer: 31, signature: b"USBC", ahead: (0, 0) },
        Case { name: "1 MiB", inner: 0x10_0000, outer: 31, signature: b"USBC", ahead: (2, 0x10_0000) },
        Case { name: "a short wrapper", inner: 512, outer: 30, signature: b"USBC", ahead: (0, 0) },
        Case { name: "a long wrapper", inner: 512, outer: 32, signature: b"USBC", ahead: (0, 0) },
        Case { name: "another signature", inner: 512, outer: 31, signature: b"USBS", ahead: (0, 0) },
        Case { name: "a status", inner: 512, outer: 13, signature: b"USBS", ahead: (0, 0) },
    ];
    for Case { name, inner, outer, signature, ahead } in cases {
        let mut world = world();
        let slot = configured_as(&mut world, Profile { bulk_only: vec![disk], ..Profile::default() });
        let mut wrapper = [0; 32];
        wrapper[..4].copy_from_slice(signature);
        wrapper[8..12].copy_from_slice(&inner.to_le_bytes());
        (wrapper[12], wrapper[14]) = (0x80, 10);
        world.host.store(BUFFER, &wrapper);
        let sent = world.transfer(slot, BULK_OUT, BUFFER, outer);
        let follows: Vec<_> = messages(&mut world)
            .iter()
            .filter_map(|message| if let ToRemote::Follow(follow) = message { Some(*follow) } else { None })
            .collect();
        assert_eq!((follows.len(), follows.first().map_or(0, |f| f.max)), ahead, "{name}");
        // The guest's TD has room for 4 bytes of what the command announces, and the device sends more than that.
        let Some(follow) = follows.first() else { continue };
        assert_eq!(
            transfers(&mut world),
            [(sent, code::SUCCESS, 0)],
            "{name}: a command is acknowledged early"
        );
        world.host.store(BUFFER, &[0xee; 16]);
        let at = world.transfer(slot, BULK_IN, BUFFER, 4);
        world.host.give(follow.id, vec![1; 600]);
        assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)], "{name}");
        assert_eq!(memory(&world, BUFFER, 6), [1, 1, 1, 1, 0xee, 0xee], "{name}");
    }
}
