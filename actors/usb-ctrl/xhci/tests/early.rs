//! What a disk is sent is acknowledged before it is taken; the status of a command is always the disk's own.
//! USB Mass Storage Class, Bulk-Only Transport 1.0 §5, §6.

mod world;

use wire::{
    control::{BulkOnly, Profile},
    usb::{Endpoint, Failure, Moved, Request, RequestId, ToRemote, Transfer},
};
use world::*;
use xhci::driver::{Host, Trb, code, normal};

const BUFFER: u64 = 0x10_0000;
const COMMAND: u64 = 0x20_0000;
const MIB: u32 = 1 << 20;

fn endpoint(address: u8) -> Endpoint {
    Endpoint::from_address(address).unwrap()
}

fn disk() -> (World, u8) {
    let bulk_only = vec![BulkOnly { out: endpoint(0x01), input: endpoint(0x81) }];
    let mut world = world();
    let slot = configured_as(&mut world, Profile { bulk_only, ..Profile::default() });
    (world, slot)
}

/// Queues the wrapper of a command that sends so many bytes to the disk.
fn command(world: &mut World, slot: u8, length: u32) -> u64 {
    let mut wrapper = [0; 31];
    wrapper[..4].copy_from_slice(b"USBC");
    wrapper[8..12].copy_from_slice(&length.to_le_bytes());
    wrapper[14] = 10;
    world.host.store(COMMAND, &wrapper);
    world.transfer(slot, BULK_OUT, COMMAND, 31)
}

/// The OUT requests that were sent, by id; requests for the status, and cancels, left out.
fn sent(world: &mut World) -> Vec<RequestId> {
    let out = |message: ToRemote| match message {
        ToRemote::Submit(Request { id, endpoint, .. }) if endpoint.address() == 0x01 => Some(id),
        _ => None,
    };
    messages(world).into_iter().filter_map(out).collect()
}

/// Whether the halt of the OUT endpoint is to be cleared; the request.
fn clears_halt(world: &mut World) -> Option<RequestId> {
    messages(world).into_iter().find_map(|message| match message {
        ToRemote::Submit(Request { id, transfer: Transfer::Control(setup), .. }) => {
            ((setup.request, setup.index) == (1, 0x01)).then_some(id)
        }
        _ => None,
    })
}

#[test]
fn a_command_and_its_data_are_told_at_once_and_their_status_not_before_the_disk_gives_it() {
    let (mut world, slot) = disk();
    let wrapper = command(&mut world, slot, 1024);
    assert_eq!(transfers(&mut world), [(wrapper, code::SUCCESS, 0)]);
    let data = world.transfer(slot, BULK_OUT, BUFFER, 1024);
    assert_eq!(transfers(&mut world), [(data, code::SUCCESS, 0)]);
    let status = world.transfer(slot, BULK_IN, BUFFER, 13);
    assert!(transfers(&mut world).is_empty());
    let messages = messages(&mut world);
    let [ToRemote::Submit(first), ToRemote::Submit(second), ToRemote::Follow(ahead)] = &messages[..] else {
        panic!("{messages:?}")
    };
    for request in [first, second] {
        let length = request.payload.requested();
        world.host.complete(request.id, Ok(()), Moved::Out(length));
    }
    assert!(transfers(&mut world).is_empty(), "nothing is told twice");
    world.host.give(ahead.id, vec![0; 13]);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

#[test]
fn what_is_no_part_of_a_command_waits_for_the_disk() {
    let (mut world, slot) = disk();
    let stray = world.transfer(slot, BULK_OUT, BUFFER, 512);
    assert!(transfers(&mut world).is_empty());
    let [id] = sent(&mut world)[..] else { panic!("one request") };
    world.host.complete(id, Ok(()), Moved::Out(512));
    assert_eq!(transfers(&mut world), [(stray, code::SUCCESS, 0)]);
    // More data than was announced.
    command(&mut world, slot, 512);
    transfers(&mut world);
    world.transfer(slot, BULK_OUT, BUFFER, 1024);
    assert!(transfers(&mut world).is_empty());
}

#[test]
fn a_device_that_is_no_disk_is_told_nothing_early() {
    let mut world = world();
    let slot = configured(&mut world);
    command(&mut world, slot, 512);
    assert!(transfers(&mut world).is_empty());
}

/// A write-protected disk does so: its status says what is missing.
#[test]
fn a_stall_of_acknowledged_data_is_cleared_here_and_the_status_is_asked_for_once_more() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 1024);
    world.transfer(slot, BULK_OUT, BUFFER, 1024);
    let told = transfers(&mut world);
    assert_eq!(told.len(), 2);
    let messages = world.host.take_messages();
    let [ToRemote::Submit(first), ToRemote::Submit(second), ToRemote::Follow(ahead)] = &messages[..] else {
        panic!("{messages:?}")
    };
    world.host.complete(first.id, Ok(()), Moved::Out(31));
    world.host.complete(second.id, Err(Failure::Stall), Moved::Out(0));
    world.host.complete(ahead.id, Err(Failure::Cancelled), Moved::In(Default::default()));
    let clearing = clears_halt(&mut world).expect("the halt is cleared");
    let status = world.transfer(slot, BULK_IN, BUFFER, 13);
    let asked = request(&mut world);
    world.host.give(asked.id, vec![1; 13]);
    assert_eq!(transfers(&mut world), [(status, code::SUCCESS, 0)]);
    // The next command waits until the halt is cleared.
    command(&mut world, slot, 0);
    assert!(sent(&mut world).is_empty());
    world.host.complete(clearing, Ok(()), Moved::Out(0));
    assert_eq!(sent(&mut world).len(), 1);
}

#[test]
fn a_command_that_failed_after_it_was_acknowledged_makes_the_next_td_stall() {
    for failure in [Failure::Stall, Failure::Fault] {
        let (mut world, slot) = disk();
        command(&mut world, slot, 1024);
        let [id] = sent(&mut world)[..] else { panic!("one request") };
        transfers(&mut world);
        world.host.complete(id, Err(failure), Moved::Out(0));
        let data = world.transfer(slot, BULK_OUT, BUFFER, 1024);
        assert_eq!(transfers(&mut world), [(data, code::STALL, 1024)], "{failure:?}");
        assert!(sent(&mut world).is_empty(), "{failure:?}");
    }
}

#[test]
fn no_more_than_a_long_command_is_acknowledged_and_on_its_way() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 3 * MIB);
    assert_eq!(transfers(&mut world).len(), 1);
    let parts: Vec<_> = (0..3 * 16).map(|_| world.transfer(slot, BULK_OUT, BUFFER, MIB / 16)).collect();
    world.host.wait(core::time::Duration::from_millis(1));
    assert_eq!(transfers(&mut world).len(), 16, "a mebibyte");
    let mut told = Vec::new();
    let mut lengths = [31].into_iter().chain([MIB / 16; 48]);
    while told.len() < 32 {
        let sent = sent(&mut world);
        assert!(!sent.is_empty() && sent.len() <= 17, "no more than is acknowledged");
        for (id, length) in sent.into_iter().zip(&mut lengths) {
            world.host.complete(id, Ok(()), Moved::Out(length));
        }
        world.host.wait(core::time::Duration::from_millis(1));
        told.extend(transfers(&mut world).iter().map(|event| event.0));
    }
    assert_eq!(told, parts[16..], "the others when there is room, each once and in order");
}

#[test]
fn nothing_that_is_not_acknowledged_is_sent_behind_what_is_and_no_stop_takes_that_back() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 2 * MIB);
    let first = world.transfer(slot, BULK_OUT, BUFFER, MIB / 16);
    let long = (0..17).map(|n| {
        let chain = if n < 16 { Trb::CHAIN } else { Trb::IOC };
        world.queue(slot, BULK_OUT, normal(BUFFER, MIB / 16).with(chain))
    });
    let long = long.collect::<Vec<_>>()[0];
    world.transfer(slot, BULK_OUT, BUFFER, 512);
    world.host.wait(core::time::Duration::from_millis(1));
    assert_eq!(transfers(&mut world).iter().map(|event| event.0).collect::<Vec<_>>()[1..], [first]);
    let acknowledged = sent(&mut world);
    assert_eq!(acknowledged.len(), 2, "the long one waits, and the small one behind it");
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_OUT);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    assert!(messages(&mut world).is_empty(), "nothing is cancelled");
    assert_eq!(transfers(&mut world), [(long, code::STOPPED, MIB / 16)]);
    world.ring_doorbell(slot, BULK_OUT);
    for (id, length) in acknowledged.into_iter().zip([31, MIB / 16]) {
        assert!(sent(&mut world).is_empty());
        world.host.complete(id, Ok(()), Moved::Out(length));
    }
    world.host.wait(core::time::Duration::from_millis(20));
    let [ToRemote::Submit(request)] = &messages(&mut world)[..] else { panic!("the long one alone") };
    assert_eq!(request.payload.requested(), MIB, "its first part, from its start");
}

/// The remote must not carry out late what the guest has given up.
#[test]
fn a_cleared_halt_and_a_transport_reset_take_back_what_was_acknowledged() {
    for request in [[0x21, 0xff, 0, 0, 0, 0, 0, 0], [0x02, 1, 0, 0, 0x01, 0, 0, 0]] {
        let (mut world, slot) = disk();
        command(&mut world, slot, 1024);
        world.transfer(slot, BULK_OUT, BUFFER, 1024);
        let last = sent(&mut world)[1];
        world.control(slot, request, BUFFER);
        let cancels =
            |message: &ToRemote| matches!(message, ToRemote::Cancel { through, .. } if *through == last);
        assert!(messages(&mut world).iter().any(cancels), "{request:?}");
    }
}

#[test]
fn a_stall_with_more_data_to_come_is_told_by_the_next_data() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 2048);
    world.transfer(slot, BULK_OUT, BUFFER, 1024);
    let ids = sent(&mut world);
    world.host.complete(ids[0], Ok(()), Moved::Out(31));
    transfers(&mut world);
    world.host.complete(ids[1], Err(Failure::Stall), Moved::Out(0));
    assert_eq!(clears_halt(&mut world), None, "the guest will");
    let rest = world.transfer(slot, BULK_OUT, BUFFER, 1024);
    assert_eq!(transfers(&mut world), [(rest, code::STALL, 1024)]);
}

/// xHCI 1.2 §4.6.8, Bulk-Only Transport 1.0 §5.3.4: reset recovery.
#[test]
fn after_a_failed_command_the_pair_stalls_and_after_its_recovery_it_works() {
    let (mut world, slot) = disk();
    let mut wrapper = [0; 31];
    wrapper[..4].copy_from_slice(b"USBC");
    wrapper[8..12].copy_from_slice(&512_u32.to_le_bytes());
    (wrapper[12], wrapper[14]) = (0x80, 10);
    world.host.store(COMMAND, &wrapper);
    world.transfer(slot, BULK_OUT, COMMAND, 31);
    let [ToRemote::Submit(Request { id, .. }), ToRemote::Follow(first), ToRemote::Follow(second)] =
        messages(&mut world)[..]
    else {
        panic!("the command, and what was asked for behind it")
    };
    transfers(&mut world);
    world.host.complete(id, Err(Failure::Fault), Moved::Out(0));
    for follow in [first, second] {
        world.host.complete(follow.id, Err(Failure::Cancelled), Moved::In(Default::default()));
    }
    let data = world.transfer(slot, BULK_IN, BUFFER, 512);
    assert_eq!(transfers(&mut world), [(data, code::STALL, 512)], "nothing could answer it");
    let reset = world.endpoint_command(TRB_RESET, slot, BULK_IN);
    assert_eq!(world.command(reset).code, code::SUCCESS);
    for request in
        [[0x21, 0xff, 0, 0, 0, 0, 0, 0], [0x02, 1, 0, 0, 0x81, 0, 0, 0], [0x02, 1, 0, 0, 0x01, 0, 0, 0]]
    {
        world.control(slot, request, BUFFER);
        for message in messages(&mut world) {
            if let ToRemote::Submit(Request { id, transfer: Transfer::Control(_), .. }) = message {
                world.host.complete(id, Ok(()), Moved::Out(0));
            }
        }
    }
    transfers(&mut world);
    let again = command(&mut world, slot, 0);
    assert_eq!(transfers(&mut world), [(again, code::SUCCESS, 0)]);
    assert_eq!(sent(&mut world).len(), 1);
}

#[test]
fn a_device_that_goes_takes_what_was_acknowledged_with_it() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 1024);
    world.transfer(slot, BULK_OUT, BUFFER, 1024);
    assert_eq!(transfers(&mut world).len(), 2);
    world.host.detach(DEVICE);
    assert!(transfers(&mut world).is_empty());
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

#[test]
fn an_endpoint_that_is_dropped_has_its_acknowledged_requests_cancelled() {
    let (mut world, slot) = disk();
    command(&mut world, slot, 1024);
    let [id] = sent(&mut world)[..] else { panic!("one request") };
    world.configure_with(slot, 1 << BULK_OUT, 1, &[]);
    let cancelled = messages(&mut world);
    assert!(matches!(cancelled[..], [ToRemote::Cancel { through, .. }] if through == id), "{cancelled:?}");
}
