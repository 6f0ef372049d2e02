//! The command ring while a command waits for the remote. xHCI 1.2 §4.6.1, §5.4.5.

mod world;

use core::time::Duration;

use pci::{Ram, Width};
use wire::usb::{Failure, Moved, RequestId};
use world::*;
use xhci::driver::{Bare, Driver, Host, Plan, Trb, code, normal};

const BUFFER: u64 = 0x80_0000;
const ABORTED: u8 = 25;
const RING_STOPPED: u8 = 24;
const CRR: u64 = 8;
const NO_OP: u8 = 23;

/// A stop that waits, of one TD.
fn waiting(world: &mut World) -> (u8, RequestId, u64) {
    let slot = configured(world);
    world.events();
    world.transfer(slot, BULK_IN, BUFFER, 512);
    let sent = request(world);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    let command = world.post_command(stop);
    assert!(world.events().is_empty(), "it waits");
    messages(world);
    (slot, sent.id, command)
}

fn end(world: &mut World, id: RequestId) {
    world.host.complete(id, Err(Failure::Cancelled), Moved::In(Default::default()));
}

/// Pointer and code of the command completion events so far.
fn answers(world: &mut World) -> Vec<(u64, u8)> {
    world.events().iter().filter(|e| e.is_command()).map(|e| (e.pointer, e.code)).collect()
}

#[test]
fn command_stop_lets_the_stop_that_waits_finish_and_executes_nothing_behind_it() {
    for in_time in [true, false] {
        let mut world = world();
        let (_, id, command) = waiting(&mut world);
        world.post_command(Trb::command(NO_OP, 0));
        let crcr = world.operational() + 0x18;
        world.host.write(crcr, Width::Dword, 2);
        assert!(answers(&mut world).is_empty());
        assert_eq!(world.host.read(crcr, Width::Dword), CRR, "it runs until then");
        if in_time {
            end(&mut world, id);
        } else {
            world.host.wait(Duration::from_millis(60));
        }
        assert_eq!(answers(&mut world), [(command, code::SUCCESS), (command + 16, RING_STOPPED)]);
        assert_eq!(world.host.read(crcr, Width::Dword), 0);
        world.host.write(0x2000, Width::Dword, 0);
        assert_eq!(answers(&mut world), [(command + 16, code::SUCCESS)], "the doorbell goes on there");
    }
}

#[test]
fn command_abort_behind_command_stop_ends_the_stop_that_waits_at_once() {
    let mut world = world();
    let (_, id, command) = waiting(&mut world);
    let crcr = world.operational() + 0x18;
    world.host.write(crcr, Width::Dword, 2);
    world.host.write(crcr, Width::Dword, 4);
    assert_eq!(answers(&mut world), [(command, ABORTED), (command + 16, RING_STOPPED)]);
    end(&mut world, id);
    assert_eq!(requests(&mut world).len(), 1, "it runs again");
}

/// A driver writes the whole register with CA: what it says of the pointer is not meant.
#[test]
fn an_abort_by_a_64_bit_write_keeps_the_pointer_above_4_gib() {
    const BASE: u64 = 0x12_3450_0000;
    for (name, width) in [("64 bits", Width::Qword), ("two halves", Width::Dword)] {
        let mut host = Bare::new(Default::default(), 0);
        host.ram = Ram::new(BASE, 4 << 20);
        let mut world = Driver::start(host, Plan::at(BASE, 2 << 20));
        let first = world.post_command(Trb::command(NO_OP, 0));
        assert!(first > 1 << 32);
        let crcr = world.operational() + 0x18;
        match width {
            Width::Qword => world.host.write(crcr, width, 4),
            _ => {
                world.host.write(crcr, width, 4);
                world.host.write(crcr + 4, width, 0);
            }
        }
        assert_eq!(answers(&mut world), [(first, code::SUCCESS), (first + 16, RING_STOPPED)], "{name}");
        let next = world.post_command(Trb::command(NO_OP, 0));
        assert_eq!(answers(&mut world), [(next, code::SUCCESS)], "{name}");
        // While it stands, both halves are meant.
        world.host.write(crcr, Width::Dword, 2);
        world.host.write(crcr + 4, Width::Dword, 0);
        world.events();
        let ring = world.allocate(64);
        world.host.store(ring + 12, &(u32::from(NO_OP) << 10 | 1).to_le_bytes());
        world.host.write(crcr, Width::Qword, ring | 1);
        world.host.write(0x2000, Width::Dword, 0);
        assert_eq!(answers(&mut world), [(ring, code::SUCCESS)], "{name}");
    }
}

/// xHCI 1.2 §5.4.1.1: what has begun is finished before the controller halts.
#[test]
fn a_controller_that_is_halted_answers_the_stop_that_waits_before_that() {
    let mut world = world();
    let (slot, id, command) = waiting(&mut world);
    let usbcmd = world.operational();
    world.host.write(usbcmd, Width::Dword, 4);
    assert_eq!(world.host.read(usbcmd + 4, Width::Dword) & 1, 1, "HCHalted");
    assert_eq!(answers(&mut world), [(command, code::SUCCESS)]);
    assert_eq!(world.output_context(slot, BULK_IN)[0] & 7, 3, "Stopped");
    world.host.wait(Duration::from_secs(1));
    end(&mut world, id);
    world.host.write(usbcmd, Width::Dword, 5);
    assert!(answers(&mut world).is_empty(), "once");
    world.ring_doorbell(slot, BULK_IN);
    assert_eq!(requests(&mut world).len(), 1);
    assert_eq!(world.command(Trb::command(NO_OP, 0)).code, code::SUCCESS);
}

#[test]
fn a_controller_that_is_reset_forgets_the_stop_that_waits() {
    let mut world = world();
    let (_, id, _) = waiting(&mut world);
    world = Driver::start(world.host, Plan::at(0x1000, 4 << 20));
    world.host.wait(Duration::from_secs(1));
    end(&mut world, id);
    assert!(answers(&mut world).is_empty());
    assert_eq!(world.host.xhci.stats().in_flight, 0);
    assert_eq!(world.command(Trb::command(NO_OP, 0)).code, code::SUCCESS);
}

/// The TDs that are done come first, then the one that stands still, then the command: in whatever room there is.
#[test]
fn a_stop_against_a_full_event_ring_is_answered_when_there_is_room() {
    for (name, answered) in
        [("it fills behind the stop", true), ("it is full before, and the remote silent", false)]
    {
        let mut world = world_with(Default::default(), Plan { event_trbs: 16, ..Plan::at(0x1000, 4 << 20) });
        let slot = configured(&mut world);
        world.events();
        let at: Vec<_> =
            (0..30).map(|_| world.queue(slot, BULK_IN, normal(BUFFER, 512).with(Trb::IOC))).collect();
        world.ring_doorbell(slot, BULK_IN);
        let sent = requests(&mut world);
        let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
        let mut command = 0;
        if answered {
            command = world.post_command(stop);
        }
        for request in &sent[..20] {
            world.host.give(request.id, vec![1; 512]);
        }
        if !answered {
            command = world.post_command(stop);
        } else {
            for request in sent[20..].iter().rev() {
                end(&mut world, request.id);
            }
        }
        world.host.wait(Duration::from_millis(200));
        let mut events = Vec::new();
        for _ in 0..100 {
            events.extend(world.events_up_to(1).into_iter().filter(|event| event.kind != 37));
            world.host.wait(Duration::from_millis(1));
        }
        if !answered {
            // The command was not fetched before there was room: its time begins then.
            events.extend(world.events().into_iter().filter(|event| event.kind != 37));
        }
        let seen: Vec<_> = events.iter().map(|e| (e.pointer, e.code)).collect();
        let mut expected: Vec<_> = at[..20].iter().map(|at| (*at, code::SUCCESS)).collect();
        expected.extend([(at[20], code::STOPPED), (command, code::SUCCESS)]);
        assert_eq!(seen, expected, "{name}");
    }
}
