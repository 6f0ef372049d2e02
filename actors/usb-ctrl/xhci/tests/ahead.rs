//! What is asked for before a TD asks: reports, and what a command of Bulk-Only Transport makes certain.

mod world;

use core::time::Duration;

use pci::Model;
use wire::{
    control::{BulkOnly, Profile},
    usb::{Endpoint, Failure, Follow, Moved, Payload, Request, RequestId, ToRemote},
};
use world::*;
use xhci::driver::{Host, Trb, code, normal};

const BUFFER: u64 = 0x10_0000;
const COMMAND: u64 = 0x20_0000;
/// What the endpoint contexts of these tests say: every microframe.
const INTERVAL: Duration = Duration::from_micros(125);

fn endpoint(address: u8) -> Endpoint {
    Endpoint::from_address(address).unwrap()
}

/// A disk on the bulk endpoints, and a keyboard on the interrupt endpoint.
fn disk() -> (World, u8) {
    let mut world = world();
    let slot = configured_as(
        &mut world,
        Profile {
            read_ahead: vec![endpoint(0x82)],
            bulk_only: vec![BulkOnly { out: endpoint(0x01), input: endpoint(0x81) }],
            ..Profile::default()
        },
    );
    (world, slot)
}

/// Sends a command block wrapper. BOT 1.0 §5.1.
fn command(world: &mut World, slot: u8, length: u32, inward: bool) -> (u64, Vec<ToRemote>) {
    let mut wrapper = [0; 31];
    wrapper[..4].copy_from_slice(b"USBC");
    wrapper[8..12].copy_from_slice(&length.to_le_bytes());
    wrapper[12] = if inward { 0x80 } else { 0 };
    wrapper[14] = 10;
    world.host.store(COMMAND, &wrapper);
    let at = world.transfer(slot, BULK_OUT, COMMAND, 31);
    (at, messages(world))
}

fn follow(message: &ToRemote) -> Follow {
    let ToRemote::Follow(follow) = message else { panic!("{message:?}") };
    *follow
}

/// A command that reads so many bytes is on its way: it, what was asked for behind it.
fn reading(world: &mut World, slot: u8, length: u32) -> (RequestId, Follow, Follow) {
    let (at, sent) = command(world, slot, length, true);
    let [ToRemote::Submit(Request { id, .. }), data, status] = &sent[..] else { panic!("{sent:?}") };
    world.host.complete(*id, Ok(()), Moved::Out(31));
    assert_eq!(transfers(world), [(at, code::SUCCESS, 0)]);
    (*id, follow(data), follow(status))
}

#[test]
fn the_data_and_the_status_of_a_command_are_asked_for_with_it() {
    let (mut world, slot) = disk();
    let (id, data, status) = reading(&mut world, slot, 1000);
    assert_eq!((data.after, status.after), (id, data.id), "each when the one before has ended well");
    assert_eq!((data.endpoint, data.max, status.max), (endpoint(0x81), 1000, 13), "as many as there are");

    world.host.give(data.id, vec![7; 1000]);
    world.host.give(status.id, vec![8; 13]);
    assert!(transfers(&mut world).is_empty(), "nobody has asked yet");
    let first = world.transfer(slot, BULK_IN, BUFFER, 1000);
    assert_eq!(transfers(&mut world), [(first, code::SUCCESS, 0)]);
    let second = world.transfer(slot, BULK_IN, BUFFER + 0x1000, 13);
    assert_eq!(transfers(&mut world), [(second, code::SUCCESS, 0)]);
    assert!(messages(&mut world).is_empty(), "no TD has cost a round trip");
    assert_eq!(memory(&world, BUFFER, 1001), [vec![7; 1000], vec![0]].concat());
    assert_eq!(memory(&world, BUFFER + 0x1000, 14), [vec![8; 13], vec![0]].concat());
}

#[test]
fn data_serves_tds_of_any_size_in_order_and_a_short_packet_ends_one() {
    let (mut world, slot) = disk();
    let (_, data, status) = reading(&mut world, slot, 2048);
    let at = [512, 1024, 512].map(|length| world.transfer(slot, BULK_IN, BUFFER, length));
    assert!(messages(&mut world).is_empty(), "they wait for what is on its way");
    // The device has less than was announced.
    world.host.give(data.id, vec![7; 700]);
    assert_eq!(transfers(&mut world), [(at[0], code::SUCCESS, 0), (at[1], code::SHORT_PACKET, 1024 - 188)]);
    world.host.give(status.id, vec![8; 13]);
    assert_eq!(transfers(&mut world), [(at[2], code::SHORT_PACKET, 512 - 13)], "as on a bus");
}

#[test]
fn the_status_of_a_write_is_asked_for_behind_its_last_data() {
    let (mut world, slot) = disk();
    let (_, sent) = command(&mut world, slot, 1024, false);
    assert_eq!(sent.len(), 1, "the device would not have it yet: {sent:?}");
    world.transfer(slot, BULK_OUT, BUFFER, 512);
    let sent = messages(&mut world);
    assert_eq!(sent.len(), 1, "{sent:?}");
    world.transfer(slot, BULK_OUT, BUFFER, 512);
    let sent = messages(&mut world);
    let [ToRemote::Submit(data), status] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(follow(status).after, data.id);
    let (_, sent) = command(&mut world, slot, 0, false);
    assert_eq!(sent.len(), 1, "one command at a time: the status of the last is still to come");
}

#[test]
fn a_device_that_stalls_its_data_is_asked_again_by_the_guest_who_hears_of_it() {
    let (mut world, slot) = disk();
    let (_, data, status) = reading(&mut world, slot, 512);
    world.host.complete(data.id, Err(Failure::Stall), Moved::In(Default::default()));
    world.host.complete(status.id, Err(Failure::Cancelled), Moved::In(Default::default()));
    assert!(transfers(&mut world).is_empty());
    let at = world.transfer(slot, BULK_IN, BUFFER, 512);
    let again = request(&mut world);
    world.host.complete(again.id, Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(transfers(&mut world), [(at, code::STALL, 512)]);
    // The guest clears the halt and reads the status; until something succeeds nothing is asked ahead.
    let reset = world.endpoint_command(TRB_RESET, slot, BULK_IN);
    assert_eq!(world.command(reset).code, code::SUCCESS);
    assert_eq!(world.set_dequeue(slot, BULK_IN, None).code, code::SUCCESS);
    let at = world.transfer(slot, BULK_IN, BUFFER, 13);
    let status = request(&mut world);
    world.host.give(status.id, vec![8; 13]);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    let (_, sent) = command(&mut world, slot, 512, true);
    assert_eq!(sent.len(), 3, "and now it is again: {sent:?}");
}

#[test]
fn clearing_a_halt_takes_back_what_was_asked_ahead_and_voids_what_came() {
    let (mut world, slot) = disk();
    let (_, data, status) = reading(&mut world, slot, 512);
    world.host.give(data.id, vec![7; 512]);
    world.control(slot, [0x02, 1, 0, 0, 0x81, 0, 0, 0], 0);
    let sent = messages(&mut world);
    let [ToRemote::Submit(clear), ToRemote::Cancel { through, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*through, status.id);
    world.host.complete(status.id, Err(Failure::Cancelled), Moved::In(vec![8; 13].into()));
    world.host.complete(clear.id, Ok(()), Moved::Out(0));
    world.events();
    world.transfer(slot, BULK_IN, BUFFER, 512);
    assert_eq!(request(&mut world).payload, Payload::In { max: 512 }, "asked anew");
}

#[test]
fn a_stop_does_not_wait_for_what_was_asked_ahead_and_loses_nothing_of_it() {
    let (mut world, slot) = disk();
    let (_, data, status) = reading(&mut world, slot, 512);
    let at = world.transfer(slot, BULK_IN, BUFFER, 512);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    let command = world.post_command(stop);
    let events = world.events();
    let seen: Vec<_> = events.iter().map(|e| (e.pointer, e.code, e.length)).collect();
    assert_eq!(seen, [(at, code::STOPPED, 512), (command, code::SUCCESS, 0)], "at once");
    let sent = messages(&mut world);
    assert!(matches!(sent[..], [ToRemote::Cancel { through, .. }] if through == status.id), "{sent:?}");
    // Too late for the data; the guest runs the TD again.
    world.ring_doorbell(slot, BULK_IN);
    world.host.complete(status.id, Err(Failure::Cancelled), Moved::In(Default::default()));
    world.host.give(data.id, vec![7; 512]);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    world.transfer(slot, BULK_IN, BUFFER, 13);
    assert_eq!(request(&mut world).payload, Payload::In { max: 13 }, "the status was taken back");
}

#[test]
fn what_is_no_command_or_too_long_for_a_message_makes_nothing_certain() {
    let (mut world, slot) = disk();
    world.transfer(slot, BULK_OUT, BUFFER, 31);
    assert_eq!(messages(&mut world).len(), 1);
    let (_, sent) = command(&mut world, slot, 1 + wire::MAX_BODY as u32, true);
    assert_eq!(sent.len(), 1);
    world.transfer(slot, BULK_IN, BUFFER, 512);
    messages(&mut world);
    let (_, sent) = command(&mut world, slot, 512, true);
    assert_eq!(sent.len(), 1, "the guest has asked already, for what it knows best");
}

#[test]
fn a_device_of_which_nothing_is_known_is_asked_for_nothing_ahead() {
    let mut world = world();
    let slot = configured(&mut world);
    let (_, sent) = command(&mut world, slot, 512, true);
    assert_eq!(sent.len(), 1);
    world.transfer(slot, INTERRUPT_IN, BUFFER, 8);
    assert_eq!(messages(&mut world).len(), 1);
}

/// The guest listens to the keyboard: one TD is queued, and what was asked for, in order.
fn listening(world: &mut World, slot: u8) -> (u64, Vec<RequestId>) {
    let at = world.queue(slot, INTERRUPT_IN, normal(BUFFER, 8).with(Trb::IOC | Trb::ISP));
    world.ring_doorbell(slot, INTERRUPT_IN);
    (at, requests(world).iter().map(|request| request.id).collect())
}

#[test]
fn a_burst_of_reports_is_read_while_the_guest_is_busy_and_served_one_an_interval() {
    let (mut world, slot) = disk();
    let (at, asked) = listening(&mut world, slot);
    assert_eq!(asked.len(), 65, "its TD, and 64 to spare");
    for (number, id) in asked.iter().take(10).enumerate() {
        world.host.give(*id, vec![number as u8; 8]);
    }
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)], "one TD, one report");
    assert!(messages(&mut world).is_empty(), "while nobody listens nothing more is asked for");
    let mut again = 0;
    for number in 1..10 {
        let (at, more) = listening(&mut world, slot);
        if number > 1 {
            assert!(transfers(&mut world).is_empty(), "not before the bus would have served it");
            world.host.wait(INTERVAL);
        }
        assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
        assert_eq!(memory(&world, BUFFER, 1), [number], "in order");
        again += more.len();
    }
    let (_, more) = listening(&mut world, slot);
    assert_eq!(again + more.len(), 9, "and again there are 64 to spare");
}

#[test]
fn reports_that_wait_for_a_guest_that_does_not_ask_wake_nobody() {
    let (mut world, slot) = disk();
    let (_, asked) = listening(&mut world, slot);
    for id in asked.iter().take(4) {
        world.host.give(*id, vec![7; 8]);
    }
    listening(&mut world, slot);
    // One report was served just now, so the next TD waits for its interval, and the guest takes it back.
    listening(&mut world, slot);
    assert!(world.host.xhci.deadline().is_some(), "it waits for the interval");
    let stop = world.endpoint_command(TRB_STOP, slot, INTERRUPT_IN);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    assert_eq!(world.set_dequeue(slot, INTERRUPT_IN, None).code, code::SUCCESS);
    world.ring_doorbell(slot, INTERRUPT_IN);
    world.host.wait(INTERVAL);
    world.host.wait(INTERVAL);
    let now = world.host.now;
    assert!(world.host.xhci.deadline().is_none_or(|at| at > now), "the timer would spin");
}

#[test]
fn a_short_report_ends_its_td_and_an_empty_one_too() {
    let (mut world, slot) = disk();
    let (first, asked) = listening(&mut world, slot);
    world.host.give(asked[0], vec![1; 3]);
    world.host.give(asked[1], vec![]);
    let (second, _) = listening(&mut world, slot);
    let events = [(first, code::SHORT_PACKET, 5), (second, code::SHORT_PACKET, 8)];
    assert_eq!(transfers(&mut world), events);
}

#[test]
fn a_keyboard_that_nobody_listens_to_any_more_is_left_alone() {
    let (mut world, slot) = disk();
    let (at, asked) = listening(&mut world, slot);
    let stop = world.endpoint_command(TRB_STOP, slot, INTERRUPT_IN);
    world.post_command(stop);
    let sent = messages(&mut world);
    assert!(matches!(sent[..], [ToRemote::Cancel { through, .. }] if Some(&through) == asked.last()));
    for id in asked.iter().rev() {
        world.host.complete(*id, Err(Failure::Cancelled), Moved::In(Default::default()));
    }
    world.host.wait(Duration::from_millis(100));
    assert_eq!(transfers(&mut world), [(at, code::STOPPED, 8)]);
    assert!(messages(&mut world).is_empty());
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

#[test]
fn a_stalled_report_is_told_by_the_td_that_finds_it() {
    let (mut world, slot) = disk();
    let (first, asked) = listening(&mut world, slot);
    world.host.give(asked[0], vec![1; 8]);
    for id in &asked[1..] {
        world.host.complete(*id, Err(Failure::Stall), Moved::In(Default::default()));
    }
    assert_eq!(transfers(&mut world), [(first, code::SUCCESS, 0)]);
    let (second, asked) = listening(&mut world, slot);
    assert_eq!(asked.len(), 1, "nothing ahead");
    world.host.complete(asked[0], Err(Failure::Stall), Moved::In(Default::default()));
    assert_eq!(transfers(&mut world), [(second, code::STALL, 8)]);
}

#[test]
fn a_device_that_goes_leaves_nothing_in_flight() {
    let (mut world, slot) = disk();
    listening(&mut world, slot);
    reading(&mut world, slot, 512);
    world.host.detach(DEVICE);
    assert_eq!(world.host.xhci.stats().in_flight, 0);
    assert_eq!(world.disable_slot(slot).code, code::SUCCESS);
}
