//! Long copies are cut by the budget of one call, so anything may happen between two slices. An event comes when the
//! guest's buffer is complete, and not before.

mod world;

use pci::{Model, Width};
use wire::{
    Lane,
    usb::{Completion, Failure, Moved, Payload, Request, RequestId, ToRemote},
};
use world::{
    streamed::{self, Streamed},
    *,
};
use xhci::driver::{Bare, Driver, Host, Trb, code, normal};

const BUFFER: u64 = 0x80_0000;
/// Payload that one call copies at most: `src/budget.rs`.
const SLICE: u32 = 128 << 10;
const LONG: u32 = 5 * SLICE;

/// Queues a TD of pieces of up to 64 KiB, with one event at its end, and rings.
fn long(world: &mut World, slot: u8, endpoint: u8, length: u32) -> u64 {
    let mut at = 0;
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(0x1_0000);
        let last = if done + piece < length { Trb::CHAIN } else { Trb::IOC };
        at = world.queue(slot, endpoint, normal(BUFFER + u64::from(done), piece).with(last));
        done += piece;
    }
    world.host.lazy = true;
    world.ring_doorbell(slot, endpoint);
    at
}

fn tick(host: &mut Bare) -> bool {
    let due = host.xhci.deadline().is_some_and(|at| at <= host.now);
    if due {
        host.once(|xhci, cx| xhci.tick(cx));
    }
    due
}

/// Lets the model finish.
fn rest(world: &mut World) {
    world.host.lazy = false;
    world.host.with(|_, _| ());
    world.host.lazy = true;
}

fn complete(world: &mut World, id: RequestId, data: Vec<u8>) {
    let (result, moved) = (Ok(()), Moved::In(data.into()));
    let end = Completion { id, result, moved, packets: Vec::new(), lane: Lane::Bulk };
    world.host.once(|xhci, cx| xhci.complete(cx, end));
}

/// A TD of [`LONG`] bytes from the device that have come, the first slice of which is in the guest's buffer.
fn amid_a_copy() -> (World, u8, u64, RequestId) {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    let at = long(&mut world, slot, BULK_IN, LONG);
    let sent = request(&mut world);
    complete(&mut world, sent.id, vec![7; LONG as usize]);
    assert!(transfers(&mut world).is_empty());
    assert_ne!(there(&world), 0, "it has begun");
    assert_ne!(there(&world), LONG as usize, "and is not done");
    (world, slot, at, sent.id)
}

/// Bytes in the guest's buffer.
fn there(world: &World) -> usize {
    memory(world, BUFFER, LONG as usize).iter().filter(|byte| **byte == 7).count()
}

#[test]
fn a_copy_is_cut_at_128_kib_and_the_event_comes_with_its_last_byte() {
    for (length, calls) in [(SLICE - 1, 0), (SLICE, 0), (SLICE + 1, 1), (2 * SLICE, 1), (LONG, 4)] {
        let mut world = world();
        let slot = configured(&mut world);
        world.events();
        let at = long(&mut world, slot, BULK_IN, length);
        let sent = request(&mut world);
        complete(&mut world, sent.id, vec![7; length as usize]);
        let mut ticks = 0;
        let told = loop {
            let told = transfers(&mut world);
            if !told.is_empty() {
                break told;
            }
            assert!(tick(&mut world.host), "{length}: the rest is due at once");
            ticks += 1;
        };
        assert_eq!(told, [(at, code::SUCCESS, 0)], "{length}");
        // Reading events gives the model a call as well.
        assert!(ticks <= calls, "{length}: {ticks}");
        assert_eq!(memory(&world, BUFFER, length as usize), vec![7; length as usize]);

        let mut world = self::world();
        let slot = configured(&mut world);
        world.host.store(BUFFER, &vec![9; length as usize]);
        long(&mut world, slot, BULK_OUT, length);
        let mut ticks = 0;
        let sent = loop {
            if let Some(sent) = requests(&mut world).pop() {
                break sent;
            }
            assert!(tick(&mut world.host), "{length}: the rest is due at once");
            ticks += 1;
        };
        assert_eq!(ticks, calls, "{length}");
        assert!(sent.payload == Payload::Out(vec![9; length as usize].into()), "{length}: in one request");
    }
}

#[test]
fn a_stop_amid_a_copy_waits_for_it_and_tells_the_td() {
    let (mut world, slot, at, _) = amid_a_copy();
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    let command = world.post_command(stop);
    rest(&mut world);
    let events = world.events();
    let seen: Vec<_> = events.iter().map(|e| (e.pointer, e.code)).collect();
    assert_eq!(seen, [(at, code::SUCCESS), (command, code::SUCCESS)]);
    assert_eq!(there(&world), LONG as usize);
}

#[test]
fn an_abort_amid_a_copy_that_a_stop_waits_for_loses_nothing() {
    let (mut world, slot, at, _) = amid_a_copy();
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    let command = world.post_command(stop);
    let crcr = world.operational() + 0x18;
    world.host.write(crcr, Width::Dword, 4);
    rest(&mut world);
    let seen: Vec<_> = world.events().iter().map(|e| (e.pointer, e.code)).collect();
    assert!(seen.contains(&(command, 25)) && seen.contains(&(at, code::SUCCESS)), "{seen:?}");
    assert_eq!(there(&world), LONG as usize);
    let next = world.transfer(slot, BULK_IN, BUFFER, 8);
    let sent = request(&mut world);
    complete(&mut world, sent.id, vec![1; 8]);
    assert_eq!(transfers(&mut world), [(next, code::SUCCESS, 0)], "the endpoint runs on");
}

#[test]
fn a_device_that_goes_amid_a_copy_has_sent_what_it_has_sent() {
    let (mut world, slot, at, _) = amid_a_copy();
    let behind = world.transfer(slot, BULK_IN, BUFFER + 0x20_0000, 8);
    world.host.detach(DEVICE);
    rest(&mut world);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0), (behind, code::TRANSACTION_ERROR, 8)]);
    assert_eq!(there(&world), LONG as usize);
}

#[test]
fn a_controller_reset_amid_a_copy_writes_no_further_byte() {
    let (mut world, ..) = amid_a_copy();
    world.host.write(0x40, Width::Dword, 2);
    let before = there(&world);
    rest(&mut world);
    assert_eq!(there(&world), before, "the memory is the guest's again");
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

#[test]
fn a_halted_controller_goes_on_with_a_copy_when_it_runs_again() {
    let (mut world, _, at, _) = amid_a_copy();
    let usbcmd = world.operational();
    world.host.write(usbcmd, Width::Dword, 4);
    let before = there(&world);
    rest(&mut world);
    assert!(world.events().is_empty());
    assert_eq!(there(&world), before);
    world.host.write(usbcmd, Width::Dword, 5);
    rest(&mut world);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    assert_eq!(there(&world), LONG as usize);
}

#[test]
fn a_stop_amid_a_copy_to_the_device_sends_nothing_and_begins_anew() {
    for aborted in [false, true] {
        let mut world = world();
        let slot = configured(&mut world);
        world.events();
        world.host.store(BUFFER, &vec![1; LONG as usize]);
        let at = long(&mut world, slot, BULK_OUT, LONG);
        let first = at - 16 * (u64::from(LONG) / 0x1_0000 - 1);
        assert!(requests(&mut world).is_empty(), "half of it is copied");
        let stop = world.endpoint_command(TRB_STOP, slot, BULK_OUT);
        world.post_command(stop);
        if aborted {
            // It is stopped already: nothing was in flight.
            world.host.write(world.operational() + 0x18, Width::Dword, 4);
        }
        assert_eq!(transfers(&mut world), [(first, code::STOPPED, 0x1_0000)]);
        world.host.store(BUFFER, &vec![2; LONG as usize]);
        world.ring_doorbell(slot, BULK_OUT);
        rest(&mut world);
        let sent = request(&mut world);
        assert!(sent.payload == Payload::Out(vec![2; LONG as usize].into()), "what is there now");
    }
}

/// Everything that is done on the other streams is told before the endpoint halts, however long it takes.
#[test]
fn a_stall_of_another_stream_amid_a_copy_completes_it_first() {
    let mut at = Streamed::new();
    let length = 3 * SLICE;
    let mut last = 0;
    for piece in 0..6 {
        let chain = if piece < 5 { Trb::CHAIN } else { Trb::IOC };
        let trb = normal(BUFFER + 0x1_0000 * piece, 0x1_0000).with(chain);
        last = at.rings[1].push(&mut at.world.host, trb);
    }
    at.doorbell(2);
    let one = at.transfer(1, 8);
    let sent = at.requests();
    let of = |number| sent.iter().find(|request| streamed::stream(request) == number).unwrap();
    at.world.events();
    at.world.host.lazy = true;
    complete(&mut at.world, of(2).id, vec![7; length as usize]);
    assert!(transfers(&mut at.world).is_empty(), "it is long");
    at.world.host.complete(of(1).id, Err(Failure::Stall), Moved::In(Default::default()));
    rest(&mut at.world);
    let events: Vec<_> = transfers(&mut at.world).iter().map(|e| (e.0, e.1)).collect();
    assert!(events.contains(&(last, code::SUCCESS)) && events.contains(&(one, code::STALL)), "{events:?}");
    assert!(memory(&at.world, BUFFER, length as usize).iter().all(|byte| *byte == 7));
}

/// A copy that is not done when the endpoint is taken away: nothing is written behind the command's answer.
#[test]
fn an_endpoint_that_is_dropped_amid_a_copy_writes_no_further_byte() {
    let (mut world, slot, ..) = amid_a_copy();
    world.host.lazy = false;
    let command = Trb::command(10, slot);
    assert_eq!(world.command(command).code, code::SUCCESS, "Disable Slot");
    let before = there(&world);
    world.host.lazy = true;
    rest(&mut world);
    assert_eq!(there(&world), before);
}

/// A part of a TD that was cancelled is copied whole before the stop is told.
#[test]
fn a_cancelled_request_that_had_moved_much_is_in_memory_when_the_stop_is_told() {
    let mut world =
        Driver::start(Bare::new(Default::default(), MEMORY), xhci::driver::Plan::at(0x1000, 4 << 20));
    let slot = configured(&mut world);
    world.events();
    let at = long(&mut world, slot, BULK_IN, LONG);
    let Request { id, .. } = request(&mut world);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    let command = world.post_command(stop);
    assert!(matches!(messages(&mut world)[..], [ToRemote::Cancel { through, .. }] if through == id));
    let moved = Moved::In(vec![7; (LONG - 512) as usize].into());
    world.host.complete(id, Err(Failure::Cancelled), moved);
    rest(&mut world);
    let events = world.events();
    let seen: Vec<_> = events.iter().map(|e| (e.pointer, e.code, e.length)).collect();
    assert_eq!(seen, [(at, code::STOPPED, 512), (command, code::SUCCESS, 0)]);
    assert_eq!(there(&world), LONG as usize - 512);
}
