//! TDs and their events. xHCI 1.2 §4.9, §4.10, §4.11.

mod world;

use wire::usb::{Failure, Moved, Payload, Speed, Transfer};
use world::*;
use xhci::driver::{Event, Host, Plan, Trb, code, normal};

fn inward(world: &mut World, bytes: usize) {
    let request = request(world);
    world.host.give(request.id, (0..bytes).map(|i| i as u8).collect::<Vec<u8>>());
}

#[test]
fn chained_trbs_of_any_size_are_one_request() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.store(0x10_0000, &[1; 100]);
    world.host.store(0x20_0000, &[2; 1000]);
    world.queue(slot, BULK_OUT, normal(0x10_0000, 100).with(Trb::CHAIN));
    world.queue(slot, BULK_OUT, normal(0x20_0000, 1000).with(Trb::CHAIN));
    world.queue(
        slot,
        BULK_OUT,
        Trb { parameter: u64::from_le_bytes([3; 8]), ..normal(0, 5) }.with(Trb::CHAIN | Trb::IDT),
    );
    let last = world.queue(slot, BULK_OUT, normal(0, 0).with(Trb::IOC));
    world.ring_doorbell(slot, BULK_OUT);
    let request = request(&mut world);
    assert_eq!(request.payload, Payload::Out([vec![1; 100], vec![2; 1000], vec![3; 5]].concat().into()));
    world.host.complete(request.id, Ok(()), Moved::Out(1105));
    assert_eq!(transfers(&mut world), [(last, code::SUCCESS, 0)]);
}

#[test]
fn a_td_goes_on_behind_a_link() {
    let plan = Plan { ring_trbs: 4, ..Plan::at(0x1000, 4 << 20) };
    let mut world = world_with(Default::default(), plan);
    let slot = configured(&mut world);
    for round in 0..10_u8 {
        world.host.store(0x10_0000, &[round; 64]);
        world.queue(slot, BULK_OUT, normal(0x10_0000, 32).with(Trb::CHAIN));
        let last = world.queue(slot, BULK_OUT, normal(0x10_0020, 32).with(Trb::IOC));
        world.ring_doorbell(slot, BULK_OUT);
        let request = request(&mut world);
        assert_eq!(request.payload, Payload::Out(vec![round; 64].into()));
        world.host.complete(request.id, Ok(()), Moved::Out(64));
        assert_eq!(transfers(&mut world), [(last, code::SUCCESS, 0)], "round {round}");
    }
}

/// xHCI 1.2 §4.10.1.1: the short TRB speaks if it was asked to, then only the last one.
#[test]
fn a_short_packet_is_reported_where_it_happened_and_at_the_end() {
    struct Case {
        name: &'static str,
        flags: [u32; 3],
        events: &'static [(usize, u8, u32)],
    }
    const CASES: &[Case] = &[
        Case { name: "nobody asked", flags: [0, 0, 0], events: &[] },
        Case { name: "ISP", flags: [Trb::ISP, Trb::ISP, Trb::ISP], events: &[(1, 13, 412)] },
        Case { name: "IOC at the end", flags: [0, 0, Trb::IOC], events: &[(2, 13, 512)] },
        Case {
            name: "both",
            flags: [Trb::ISP, Trb::ISP, Trb::ISP | Trb::IOC],
            events: &[(1, 13, 412), (2, 13, 512)],
        },
        Case {
            name: "IOC everywhere",
            flags: [Trb::IOC, Trb::IOC, Trb::IOC],
            events: &[(0, 1, 0), (1, 13, 412), (2, 13, 512)],
        },
    ];
    for Case { name, flags, events } in CASES {
        let mut world = world();
        let slot = configured(&mut world);
        let at: Vec<_> = (0..3)
            .map(|i| {
                let chain = if i < 2 { Trb::CHAIN } else { 0 };
                world.queue(slot, BULK_IN, normal(0x10_0000 + 512 * i as u64, 512).with(flags[i] | chain))
            })
            .collect();
        let next = world.transfer(slot, BULK_IN, 0x20_0000, 4);
        let sent = requests(&mut world);
        assert_eq!(sent.len(), 2, "{name}: the TD behind is in flight as well");
        world.host.give(sent[0].id, vec![9; 612]);
        world.host.give(sent[1].id, vec![8; 4]);
        let mut expected: Vec<_> = events.iter().map(|(i, code, left)| (at[*i], *code, *left)).collect();
        expected.push((next, code::SUCCESS, 0));
        assert_eq!(transfers(&mut world), expected, "{name}");
    }
}

/// Some systems never set IOC: they append Event Data TRBs. xHCI 1.2 §4.11.5.2.
#[test]
fn event_data_counts_the_bytes_of_its_td() {
    let mut world = world();
    let slot = configured(&mut world);
    let td = |world: &mut World, value| {
        world.queue(slot, BULK_IN, normal(0x10_0000, 600).with(Trb::CHAIN));
        world.queue(slot, BULK_IN, normal(0x20_0000, 400).with(Trb::CHAIN));
        world.queue(slot, BULK_IN, Trb::event_data(value));
        world.ring_doorbell(slot, BULK_IN);
    };
    td(&mut world, 0xdead_beef_0000_0001);
    inward(&mut world, 1000);
    td(&mut world, 2);
    inward(&mut world, 700);
    let event = |pointer, code, length| Event {
        kind: 32,
        pointer,
        code,
        length,
        slot,
        endpoint: BULK_IN,
        event_data: true,
    };
    assert_eq!(
        transfer_events(&mut world),
        [event(0xdead_beef_0000_0001, code::SUCCESS, 1000), event(2, code::SHORT_PACKET, 700)]
    );
}

/// A guest may finish a request only when its first and its last TRB have had an event.
#[test]
fn every_stage_of_a_control_request_has_its_own_event() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let setup = [0x80, 6, 0, 2, 0, 0, 100, 0];
    let at = [
        world.queue(slot, 1, Trb::setup(setup, 3).with(Trb::IOC)),
        world.queue(
            slot,
            1,
            Trb { control: 3 << 10 | 1 << 16 | Trb::IOC | Trb::CHAIN, ..normal(0x10_0000, 60) },
        ),
        world.queue(slot, 1, normal(0x20_0000, 40).with(Trb::IOC)),
        world.queue(slot, 1, Trb { control: 4 << 10 | Trb::IOC | Trb::CHAIN, ..Trb::default() }),
        world.queue(slot, 1, Trb::event_data(77)),
    ];
    world.ring_doorbell(slot, 1);
    inward(&mut world, 100);
    let events = transfer_events(&mut world);
    let seen: Vec<_> = events.iter().map(|e| (e.pointer, e.code, e.length, e.event_data)).collect();
    let plain = |i: usize| (at[i], code::SUCCESS, 0, false);
    assert_eq!(seen, [plain(0), plain(1), plain(2), plain(3), (77, code::SUCCESS, 0, true)]);
    assert_eq!(memory(&world, 0x20_0000, 40), (60..100).collect::<Vec<u8>>());
}

#[test]
fn a_control_out_request_carries_exactly_its_data_stage() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    world.host.store(0x10_0000, b"line coding");
    let [.., status] = world.control(slot, [0x21, 0x20, 0, 0, 0, 0, 11, 0], 0x10_0000);
    let sent = request(&mut world);
    assert_eq!(sent.payload, Payload::Out("line coding".into()));
    world.host.complete(sent.id, Ok(()), Moved::Out(11));
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
}

#[test]
fn a_stall_without_a_data_stage_is_reported_at_the_status_stage() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let [.., status] = world.control(slot, [0x21, 0xff, 0, 0, 0, 0, 0, 0], 0);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Stall), Moved::Out(0));
    assert_eq!(transfers(&mut world), [(status, code::STALL, 0)]);
}

/// What the remote computer's host controller owns is answered here: its address, its link, its power.
#[test]
fn requests_about_address_link_and_wakeup_never_reach_the_remote() {
    const CASES: &[(&str, [u8; 8])] = &[
        ("SET_ADDRESS", [0, 5, 9, 0, 0, 0, 0, 0]),
        ("SET_SEL", [0, 48, 0, 0, 0, 0, 6, 0]),
        ("SET_ISOCH_DELAY", [0, 49, 40, 0, 0, 0, 0, 0]),
        ("SET_FEATURE(U1_ENABLE)", [0, 3, 48, 0, 0, 0, 0, 0]),
        ("SET_FEATURE(U2_ENABLE)", [0, 3, 49, 0, 0, 0, 0, 0]),
        ("CLEAR_FEATURE(U2_ENABLE)", [0, 1, 49, 0, 0, 0, 0, 0]),
        ("SET_FEATURE(DEVICE_REMOTE_WAKEUP)", [0, 3, 1, 0, 0, 0, 0, 0]),
        ("SET_FEATURE(FUNCTION_SUSPEND)", [1, 3, 0, 0, 0, 3, 0, 0]),
    ];
    let mut world = world();
    let slot = addressed(&mut world, Speed::Super);
    for (name, setup) in CASES {
        let [.., status] = world.control(slot, *setup, 0x10_0000);
        assert!(requests(&mut world).is_empty(), "{name}");
        assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)], "{name}");
    }
    world.control(slot, [0, 3, 2, 0, 0, 4, 0, 0], 0);
    assert!(matches!(request(&mut world).transfer, Transfer::Control(_)), "TEST_MODE is the device's");
}

#[test]
fn no_device_claims_to_wake_the_guest() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    world.control(slot, [0x80, 6, 0, 2, 0, 0, 9, 0], 0x10_0000);
    let sent = request(&mut world);
    world.host.give(sent.id, &[9, 2, 34, 0, 1, 1, 0, 0xa0, 50][..]);
    assert_eq!(memory(&world, 0x10_0000, 9), [9, 2, 34, 0, 1, 1, 0, 0x80, 50]);
}

#[test]
fn babble_is_reported_only_when_the_guests_own_buffer_overflows() {
    let mut world = world();
    let slot = configured(&mut world);
    world.host.store(0x10_0000, &[0xee; 16]);
    let report = world.transfer(slot, INTERRUPT_IN, 0x10_0000, 6);
    let sent = request(&mut world);
    assert_eq!(sent.payload, Payload::In { max: 8 });
    world.host.give(sent.id, vec![1; 6]);
    assert_eq!(transfers(&mut world), [(report, code::SUCCESS, 0)]);
    let report = world.transfer(slot, INTERRUPT_IN, 0x10_0008, 6);
    let sent = request(&mut world);
    world.host.give(sent.id, vec![2; 8]);
    assert_eq!(transfers(&mut world), [(report, code::BABBLE, 0)]);
    assert_eq!(memory(&world, 0x10_0008, 8), [2, 2, 2, 2, 2, 2, 0xee, 0xee], "not one byte too many");
}

#[test]
fn a_td_longer_than_a_message_goes_in_parts_and_a_short_part_ends_it() {
    const LONG: u32 = (2 << 20) + 5000;
    let mut world = world();
    let slot = configured(&mut world);
    let queue = |world: &mut World, endpoint| {
        let mut left = LONG;
        let mut at = 0;
        while left > 0 {
            let length = left.min(0x1_0000);
            left -= length;
            let last = if left > 0 { Trb::CHAIN } else { Trb::IOC };
            at = world.queue(
                slot,
                endpoint,
                normal(0x40_0000 + u64::from(LONG - left - length), length).with(last),
            );
        }
        world.ring_doorbell(slot, endpoint);
        at
    };
    let pattern: Vec<u8> = (0..LONG).map(|i| (i / 7) as u8).collect();
    world.host.store(0x40_0000, &pattern);
    let last = queue(&mut world, BULK_OUT);
    let mut sent = Vec::new();
    for _ in 0..3 {
        let part = request(&mut world);
        let Payload::Out(data) = part.payload else { panic!("OUT") };
        assert!(data.len() <= wire::MAX_BODY);
        sent.extend_from_slice(&data);
        world.host.complete(part.id, Ok(()), Moved::Out(data.len() as u32));
    }
    assert!(sent == pattern, "all bytes in order");
    assert_eq!(transfers(&mut world), [(last, code::SUCCESS, 0)]);

    let last = queue(&mut world, BULK_IN);
    let behind = world.transfer(slot, BULK_IN, 0x10_0000, 4);
    let first = request(&mut world);
    assert_eq!(first.payload, Payload::In { max: 1 << 20 });
    world.host.give(first.id, vec![1; 1 << 20]);
    let second = request(&mut world);
    world.host.give(second.id, vec![2; 1000]);
    let length = LONG - 32 * 0x1_0000;
    assert_eq!(transfers(&mut world), [(last, code::SHORT_PACKET, length)], "the rest is not asked for");
    inward(&mut world, 4);
    assert_eq!(transfers(&mut world), [(behind, code::SUCCESS, 0)]);
}

#[test]
fn all_queued_tds_are_in_flight_at_once_and_retired_in_ring_order() {
    let mut world = world();
    let slot = configured(&mut world);
    let at: Vec<_> = (0..100).map(|i| world.transfer(slot, BULK_IN, 0x10_0000 + 512 * i, 512)).collect();
    let sent = requests(&mut world);
    assert_eq!(sent.len(), 100);
    for request in sent[1..].iter().rev() {
        world.host.give(request.id, vec![1; 512]);
    }
    assert_eq!(transfers(&mut world), [], "the first is not done");
    world.host.give(sent[0].id, vec![1; 512]);
    let done: Vec<_> = at.iter().map(|at| (*at, code::SUCCESS, 0)).collect();
    assert_eq!(transfers(&mut world), done);
}

#[test]
fn in_flight_payload_stays_within_the_credit() {
    let plan = Plan { ring_trbs: 256, ..Plan::at(0x1000, 4 << 20) };
    let mut world = world_with(Default::default(), plan);
    let slot = configured(&mut world);
    for _ in 0..200 {
        world.queue(slot, BULK_IN, normal(0x40_0000, 0x1_0000).with(Trb::IOC));
    }
    world.ring_doorbell(slot, BULK_IN);
    let mut waiting = requests(&mut world);
    assert_eq!(waiting.len(), 64, "4 MiB");
    let mut done = 0;
    while let Some(next) = waiting.first().cloned() {
        waiting.remove(0);
        world.host.give(next.id, vec![0; 0x1_0000]);
        waiting.extend(requests(&mut world));
        done += transfers(&mut world).len();
    }
    assert_eq!(done, 200);
}

#[test]
fn no_op_and_zero_length_tds_keep_their_place() {
    let mut world = world();
    let slot = configured(&mut world);
    let data = world.queue(slot, BULK_OUT, normal(0x10_0000, 512).with(Trb::IOC));
    let nothing = world.queue(slot, BULK_OUT, Trb { control: 8 << 10 | Trb::IOC, ..Trb::default() });
    let empty = world.transfer(slot, BULK_OUT, 0, 0);
    let sent = requests(&mut world);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].payload, Payload::Out(Default::default()), "a zero-length packet is a transfer");
    assert_eq!(transfers(&mut world), [], "the no-op waits for its turn");
    world.host.complete(sent[0].id, Ok(()), Moved::Out(512));
    world.host.complete(sent[1].id, Ok(()), Moved::Out(0));
    let events = [data, nothing, empty].map(|at| (at, code::SUCCESS, 0));
    assert_eq!(transfers(&mut world), events);
}

#[test]
fn rings_and_buffers_may_lie_above_4_gib() {
    use pci::Ram;
    use xhci::driver::Bare;
    const BASE: u64 = 0x12_3450_0000;
    let mut host = Bare::new(Default::default(), 0);
    host.ram = Ram::new(BASE, 16 << 20);
    let mut world = World::start(host, Plan::at(BASE, 4 << 20));
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_IN, BASE + 0x80_0000, 5);
    assert!(at > 1 << 32);
    inward(&mut world, 5);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    assert_eq!(memory(&world, BASE + 0x80_0000, 5), [0, 1, 2, 3, 4]);
}

#[test]
fn contexts_of_64_bytes_work_as_well() {
    let config = xhci::Config { long_contexts: true, ..Default::default() };
    let mut world = world_with(config, Plan::at(0x1000, 4 << 20));
    let slot = configured(&mut world);
    assert_eq!(world.output_context(slot, 0)[3] >> 27, 3);
    let at = world.transfer(slot, BULK_IN, 0x10_0000, 5);
    inward(&mut world, 5);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
}
