//! Event Data, and events amid a TD, when it does not simply succeed. xHCI 1.2 §4.11.5.2, §4.10.1.

mod world;

use wire::usb::{Failure, Moved, Speed};
use world::*;
use xhci::driver::{Event, Plan, Trb, code, normal};

const BUFFER: u64 = 0x80_0000;

/// Pointer, code, length, and whether it is an Event Data TRB's.
fn told(world: &mut World) -> Vec<(u64, u8, u32, bool)> {
    let events = transfer_events(world);
    events.iter().map(|e: &Event| (e.pointer, e.code, e.length, e.event_data)).collect()
}

/// 512 bytes, IOC | 512 bytes | Event Data 1 | 1024 bytes | Event Data 2: where its TRBs are.
fn queue(world: &mut World, slot: u8) -> Vec<u64> {
    let trbs = [
        normal(BUFFER, 512).with(Trb::IOC | Trb::CHAIN),
        normal(BUFFER + 512, 512).with(Trb::CHAIN),
        Trb::event_data(1).with(Trb::CHAIN),
        normal(BUFFER + 1024, 1024).with(Trb::CHAIN),
        Trb::event_data(2),
    ];
    let at = trbs.map(|trb| world.queue(slot, BULK_IN, trb)).to_vec();
    world.ring_doorbell(slot, BULK_IN);
    at
}

#[test]
fn what_was_asked_for_before_the_place_of_a_stop_is_told_and_the_count_goes_on_behind_it() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = queue(&mut world, slot);
    let sent = request(&mut world);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    world.post_command(stop);
    world.host.complete(sent.id, Err(Failure::Cancelled), Moved::In(vec![1; 1536].into()));
    let stopped = [
        (at[0], code::SUCCESS, 0, false),
        (1, code::SUCCESS, 1024, true),
        (at[3], code::STOPPED, 512, false),
    ];
    assert_eq!(told(&mut world), stopped);
    messages(&mut world);
    world.ring_doorbell(slot, BULK_IN);
    let rest = request(&mut world);
    assert_eq!(rest.payload.requested(), 512);
    world.host.give(rest.id, vec![1; 512]);
    assert_eq!(
        told(&mut world),
        [(2, code::SUCCESS, 1024, true)],
        "bytes since the last one, before the stop too"
    );
}

#[test]
fn the_count_goes_on_across_a_stop_in_an_earlier_trb_and_a_short_packet_behind_it() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = queue(&mut world, slot);
    let sent = request(&mut world);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    world.post_command(stop);
    world.host.complete(sent.id, Err(Failure::Cancelled), Moved::In(vec![1; 512].into()));
    assert_eq!(told(&mut world), [(at[0], code::SUCCESS, 0, false), (at[1], code::STOPPED, 512, false)]);
    messages(&mut world);
    world.ring_doorbell(slot, BULK_IN);
    let rest = request(&mut world);
    world.host.give(rest.id, vec![1; 600]);
    assert_eq!(told(&mut world), [(1, code::SUCCESS, 1024, true), (2, code::SHORT_PACKET, 88, true)]);
}

/// EDTLA has 24 bits. xHCI 1.2 §4.11.5.2.
#[test]
fn event_data_counts_modulo_16_mib() {
    const TRBS: u32 = 258;
    let mut world = world_with(Default::default(), Plan { ring_trbs: 512, ..Plan::at(0x1000, 4 << 20) });
    let slot = configured(&mut world);
    for _ in 0..TRBS {
        // One buffer for all of them.
        world.queue(slot, BULK_OUT, normal(BUFFER, 0x1_0000).with(Trb::CHAIN));
    }
    world.queue(slot, BULK_OUT, Trb::event_data(9));
    world.ring_doorbell(slot, BULK_OUT);
    let mut sent = 0;
    while let Some(part) = requests(&mut world).pop() {
        sent += part.payload.requested();
        world.host.complete(part.id, Ok(()), Moved::Out(part.payload.requested()));
    }
    assert_eq!(sent, TRBS << 16);
    assert_eq!(told(&mut world), [(9, code::SUCCESS, (TRBS << 16) - (1 << 24), true)]);
}

/// Too many bytes are a matter of the bytes: the last TRB with bytes says so, whatever comes behind it.
#[test]
fn babble_lands_on_the_last_trb_with_bytes() {
    let mut world = world();
    let slot = configured(&mut world);
    let data = world.queue(slot, BULK_IN, normal(BUFFER, 100).with(Trb::CHAIN));
    world.queue(slot, BULK_IN, Trb::event_data(5));
    world.ring_doorbell(slot, BULK_IN);
    let sent = request(&mut world);
    world.host.give(sent.id, vec![1; 512]);
    assert_eq!(told(&mut world), [(data, code::BABBLE, 0, false)]);

    let mut world = self::world();
    let slot = addressed(&mut world, Speed::High);
    for (name, longer) in [("more than wLength", true), ("the bus says so", false)] {
        let [_, data, status] = world.control(slot, [0x80, 6, 0, 1, 0, 0, 8, 0], BUFFER);
        let sent = request(&mut world);
        if longer {
            world.host.give(sent.id, vec![1; 9]);
        } else {
            world.host.complete(sent.id, Err(Failure::Overflow), Moved::In(vec![1; 8].into()));
        }
        assert_eq!(told(&mut world), [(data, code::BABBLE, 0, false)], "{name}");
        assert_ne!(data, status);
        let reset = world.endpoint_command(TRB_RESET, slot, 1);
        assert_eq!(world.command(reset).code, code::SUCCESS);
        assert_eq!(world.set_dequeue(slot, 1, None).code, code::SUCCESS);
    }
}

/// Babble with fewer bytes than there was room for is where the bytes stopped.
#[test]
fn babble_amid_a_td_lands_where_its_bytes_end() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = queue(&mut world, slot);
    let sent = request(&mut world);
    world.host.complete(sent.id, Err(Failure::Overflow), Moved::In(vec![1; 600].into()));
    assert_eq!(told(&mut world), [(at[0], code::SUCCESS, 0, false), (at[1], code::BABBLE, 424, false)]);
}

#[test]
fn a_stopped_control_request_tells_nothing_of_its_stages_and_all_of_them_when_it_runs_again() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let setup = world.queue(slot, 1, Trb::setup([0x80, 6, 0, 1, 0, 0, 8, 0], 3).with(Trb::IOC));
    let data = Trb { control: 3 << 10 | 1 << 16 | Trb::CHAIN, ..normal(BUFFER, 8) };
    world.queue(slot, 1, data);
    world.queue(slot, 1, Trb::event_data(3));
    let status = world.queue(slot, 1, Trb { control: 4 << 10 | Trb::IOC, ..Trb::default() });
    world.ring_doorbell(slot, 1);
    let sent = request(&mut world);
    let stop = world.endpoint_command(TRB_STOP, slot, 1);
    world.post_command(stop);
    world.host.complete(sent.id, Err(Failure::Cancelled), Moved::In(vec![1; 8].into()));
    assert_eq!(told(&mut world), [(setup, code::STOPPED, 0, false)]);
    messages(&mut world);
    world.ring_doorbell(slot, 1);
    let again = request(&mut world);
    world.host.give(again.id, vec![1; 8]);
    let all =
        [(setup, code::SUCCESS, 0, false), (3, code::SUCCESS, 8, true), (status, code::SUCCESS, 0, false)];
    assert_eq!(told(&mut world), all);
}
