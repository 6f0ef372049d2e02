//! Bulk streams. xHCI 1.2 §4.12, §6.2.4.

mod world;

use pci::{Dma, Width};
use wire::usb::{Failure, Moved, Speed, ToRemote};
use world::{
    BULK_IN, TRB_RESET, TRB_STOP, addressed, messages,
    streamed::{ARRAY, BUFFER, LINEAR, PRIMARY, SET_DEQUEUE, Streamed, configure, stream},
    transfers, world,
};
use xhci::driver::{Host, Trb, code, normal};

#[test]
fn nothing_is_submitted_before_the_device_has_its_streams() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::Super);
    let mut ring = world.ring();
    world.host.ram.write(ARRAY + 16, &(ring.base() | 1 << 1 | 1).to_le_bytes()).unwrap();
    assert_eq!(
        configure(&mut world, slot, PRIMARY << 10 | LINEAR),
        code::SUCCESS,
        "without waiting for the remote"
    );
    let [ToRemote::Streams { id, .. }] = messages(&mut world)[..] else { panic!() };
    let at = ring.push(&mut world.host, normal(BUFFER, 8).with(Trb::IOC));
    world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, 1 << 16 | u64::from(BULK_IN));
    assert!(messages(&mut world).is_empty());
    world.host.complete(id, Err(Failure::InvalidArgument), Moved::Out(0));
    assert!(messages(&mut world).is_empty(), "a device without streams gets nothing");
    assert_eq!(transfers(&mut world), [(at, 4, 8)], "USB Transaction Error");
}

#[test]
fn each_stream_has_its_ring_and_ends_come_in_any_order() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    assert_eq!(sent.iter().map(stream).collect::<Vec<_>>(), [1, 2]);
    at.world.host.give(sent[1].id, &b"zweitens"[..]);
    at.world.host.give(sent[0].id, &b"erstens!"[..]);
    assert_eq!(transfers(&mut at.world), [(two, code::SUCCESS, 0), (one, code::SUCCESS, 0)]);
}

#[test]
fn a_doorbell_for_a_stream_that_cannot_be_is_ignored() {
    let mut at = Streamed::new();
    // No stream; beyond MaxPStreams; a context of a type that is no ring's.
    at.world.host.ram.write(ARRAY + 16 * 9, &(BUFFER | 2 << 1 | 1).to_le_bytes()).unwrap();
    for number in [0, 16, 9, 65535] {
        at.doorbell(number);
    }
    assert!(at.requests().is_empty() && transfers(&mut at.world).is_empty());
    at.transfer(1, 8);
    assert_eq!(at.requests().len(), 1);
}

#[test]
fn a_stop_covers_all_streams_and_their_contexts_say_where_they_stand() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    at.world.post_command(Trb::command(TRB_STOP, at.slot).with(u32::from(BULK_IN) << 16));
    for request in &sent {
        at.world.host.complete(request.id, Err(Failure::Cancelled), Moved::In(bytes::Bytes::new()));
    }
    let events = at.world.events();
    let stopped: Vec<_> =
        events.iter().filter(|event| event.is_transfer()).map(|e| (e.pointer, e.code)).collect();
    assert_eq!(stopped, [(one, code::STOPPED), (two, code::STOPPED)]);
    assert!(events.iter().any(|event| event.is_command() && event.code == code::SUCCESS));
    assert_eq!((at.dequeue_of(1), at.dequeue_of(2)), (one | 3, two | 3), "with SCT and DCS");
    // One goes on behind its TD, the other from where it was.
    assert_eq!(at.command(SET_DEQUEUE, (one + 16) | 1, 1 << 16), code::SUCCESS);
    assert_eq!(at.command(SET_DEQUEUE, one | 1, 77 << 16), 34, "Invalid Stream ID");
    at.doorbell(1);
    at.doorbell(2);
    assert_eq!(at.requests().iter().map(stream).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_stall_on_one_stream_halts_the_endpoint_and_after_a_reset_all_go_on() {
    let mut at = Streamed::new();
    let (one, two) = (at.transfer(1, 8), at.transfer(2, 8));
    let sent = at.requests();
    at.world.host.complete(sent[0].id, Err(Failure::Stall), Moved::In(bytes::Bytes::new()));
    assert_eq!(transfers(&mut at.world), [(one, 6, 8)], "Stall Error");
    assert_eq!(at.world.output_context(at.slot, BULK_IN)[0] & 7, 2, "Halted");
    at.world.host.complete(sent[1].id, Err(Failure::Cancelled), Moved::In(bytes::Bytes::new()));
    at.doorbell(2);
    assert!(at.requests().is_empty(), "a halted endpoint does nothing");
    assert_eq!(at.command(TRB_RESET, 0, 0), code::SUCCESS);
    assert_eq!(at.command(SET_DEQUEUE, (one + 16) | 1, 1 << 16), code::SUCCESS);
    at.doorbell(2);
    let again = at.requests();
    assert_eq!(again.iter().map(stream).collect::<Vec<_>>(), [2]);
    at.world.host.give(again[0].id, &b"nochmals"[..]);
    assert_eq!(transfers(&mut at.world), [(two, code::SUCCESS, 0)]);
}

#[test]
fn an_array_that_is_too_long_or_not_linear_is_a_parameter_error() {
    let mut world = world();
    let slot = addressed(&mut world, Speed::Super);
    for (name, first) in [("too long", 5 << 10 | LINEAR), ("not linear", PRIMARY << 10)] {
        assert_eq!(configure(&mut world, slot, first), 17, "{name}");
    }
    assert!(messages(&mut world).is_empty());
}

#[test]
fn a_device_that_is_configured_without_them_loses_its_streams() {
    let mut at = Streamed::new();
    assert_eq!(configure(&mut at.world, at.slot, 0), code::SUCCESS);
    let [ToRemote::Streams { count: 0, .. }] = messages(&mut at.world)[..] else { panic!() };
}
