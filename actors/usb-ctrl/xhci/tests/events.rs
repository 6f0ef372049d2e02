//! Event rings and interrupters. xHCI 1.2 §4.9.4, §4.17.

mod world;

use core::time::Duration;

use pci::{Model as _, Width};
use wire::usb::{DeviceId, Moved, Speed};
use world::*;
use xhci::{
    Config, Output,
    driver::{Host, Plan, Trb, code, normal},
};

const BUFFER: u64 = 0x80_0000;

fn small_ring() -> World {
    world_with(Config::default(), Plan { event_trbs: 16, ..Plan::at(0x1000, 4 << 20) })
}

/// Firmware has rings of 16 events.
#[test]
fn a_full_event_ring_says_so_once_and_loses_nothing() {
    const TDS: usize = 100;
    let mut world = small_ring();
    let slot = configured(&mut world);
    world.events();
    let at: Vec<_> =
        (0..TDS).map(|_| world.queue(slot, BULK_OUT, normal(BUFFER, 8).with(Trb::IOC))).collect();
    world.ring_doorbell(slot, BULK_OUT);
    for sent in requests(&mut world) {
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
    }
    let mut seen = Vec::new();
    let mut full = 0;
    for _ in 0..TDS {
        let events = world.events();
        assert!(events.len() <= 15, "a place stays free");
        full += events.iter().filter(|e| e.kind == 37 && e.code == 21).count();
        seen.extend(events.iter().filter(|e| e.is_transfer()).map(|e| e.pointer));
    }
    assert_eq!(seen, at);
    assert!(full > 0);
}

#[test]
fn a_guest_that_frees_one_place_at_a_time_gets_every_event_as_well() {
    let mut world = small_ring();
    let slot = configured(&mut world);
    world.events();
    let at: Vec<_> = (0..40).map(|_| world.queue(slot, BULK_OUT, normal(BUFFER, 8).with(Trb::IOC))).collect();
    world.ring_doorbell(slot, BULK_OUT);
    for sent in requests(&mut world) {
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
    }
    let mut seen = Vec::new();
    for _ in 0..200 {
        let events = world.events_up_to(1);
        seen.extend(events.iter().filter(|e| e.is_transfer()).map(|e| e.pointer));
    }
    assert_eq!(seen, at);
}

#[test]
fn nothing_is_fetched_while_an_event_waits_for_room() {
    let mut world = small_ring();
    let slot = configured(&mut world);
    world.events();
    for _ in 0..20 {
        world.transfer(slot, BULK_OUT, BUFFER, 8);
    }
    for sent in requests(&mut world) {
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
    }
    world.transfer(slot, BULK_IN, BUFFER, 8);
    let command = world.post_command(Trb::command(23, 0));
    assert!(requests(&mut world).is_empty());
    assert!(world.events().iter().all(|event| event.pointer != command));
    world.events();
    assert_eq!(requests(&mut world).len(), 1);
}

/// A ring of several segments is walked through all of them, with the cycle bit turned at its end.
#[test]
fn an_event_ring_may_have_several_segments() {
    let mut world = world();
    let (runtime, interrupter) = (world.runtime(), 3_u64);
    let registers = runtime + 0x20 + 0x20 * interrupter;
    let segments: Vec<u64> = (0..3).map(|_| world.allocate(16 * 16)).collect();
    let table = world.allocate(48);
    for (i, segment) in (0..).zip(&segments) {
        world.host.store(table + 16 * i, &segment.to_le_bytes());
        world.host.store(table + 16 * i + 8, &16_u64.to_le_bytes());
    }
    world.host.write(registers + 0x8, Width::Dword, 3);
    world.host.write(registers + 0x18, Width::Qword, segments[0]);
    world.host.write(registers + 0x10, Width::Qword, table);
    let slot = configured(&mut world);
    let mut cycle = true;
    let mut place = 0;
    for round in 0..200 {
        let trb = Trb { status: 8 | 3 << 22, ..normal(BUFFER, 0) }.with(Trb::IOC);
        let at = world.queue(slot, BULK_OUT, trb);
        world.ring_doorbell(slot, BULK_OUT);
        let sent = request(&mut world);
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
        let event = memory(&world, segments[place / 16] + 16 * (place as u64 % 16), 16);
        assert_eq!(event[..8], at.to_le_bytes(), "round {round}");
        assert_eq!(event[12] & 1 != 0, cycle, "round {round}");
        place += 1;
        if place == 48 {
            (place, cycle) = (0, !cycle);
        }
        let erdp = segments[place / 16] + 16 * (place as u64 % 16);
        world.host.write(registers + 0x18, Width::Dword, erdp | 8);
        world.host.write(registers + 0x1c, Width::Dword, erdp >> 32);
    }
    assert_eq!(transfers(&mut world), [], "the primary ring heard nothing of it");
}

#[test]
fn an_interrupter_without_a_ring_is_the_primary_one() {
    let mut world = world();
    let slot = configured(&mut world);
    for target in [5, 999] {
        let at =
            world.queue(slot, BULK_OUT, Trb { status: 8 | target << 22, ..normal(BUFFER, 0) }.with(Trb::IOC));
        world.ring_doorbell(slot, BULK_OUT);
        let sent = request(&mut world);
        world.host.complete(sent.id, Ok(()), Moved::Out(8));
        assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
    }
}

fn one_event(world: &mut World, slot: u8) {
    world.transfer(slot, BULK_OUT, BUFFER, 8);
    let sent = request(world);
    world.host.complete(sent.id, Ok(()), Moved::Out(8));
}

/// xHCI 1.2 §4.17.2: the interval is kept, and what it holds back is sent when it is over.
#[test]
fn moderation_delays_interrupts_and_strands_none() {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    let imod = world.runtime() + 0x24;
    world.host.write(imod, Width::Dword, 4000); // 1 ms
    one_event(&mut world, slot);
    let first = world.host.interrupts;
    assert!(world.host.read(imod, Width::Dword) >> 16 > 0, "the counter runs");
    world.events();
    one_event(&mut world, slot);
    assert_eq!(world.host.interrupts, first, "held back");
    world.host.wait(Duration::from_micros(999));
    assert_eq!(world.host.interrupts, first);
    world.host.wait(Duration::from_micros(2));
    assert_eq!(world.host.interrupts, first + 1, "sent without any further event");
    assert_eq!(world.host.read(imod, Width::Dword) & 0xffff, 4000);
}

#[test]
fn an_event_that_comes_while_the_guest_handles_another_interrupts_when_it_is_done() {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    one_event(&mut world, slot);
    one_event(&mut world, slot);
    let before = world.host.interrupts;
    let erdp = world.runtime() + 0x38;
    let low = world.host.read(erdp, Width::Qword);
    assert_eq!(low & 8, 8, "EHB");
    world.host.write(erdp, Width::Qword, low + 16);
    assert_eq!(world.host.interrupts, before + 1, "one is unread");
    world.events();
    assert_eq!(world.host.interrupts, before + 1, "none is");
}

#[test]
fn without_interrupter_enable_the_interrupt_stays_pending() {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    let iman = world.runtime() + 0x20;
    world.host.write(iman, Width::Dword, 0);
    let before = world.host.interrupts;
    one_event(&mut world, slot);
    assert_eq!(world.host.read(iman, Width::Dword), 1, "IP");
    assert_eq!(world.host.interrupts, before);
    world.host.write(iman, Width::Dword, 2);
    assert_eq!(world.host.interrupts, before + 1);
    assert_eq!(world.host.read(iman, Width::Dword), 2, "IP is cleared by the message");
    world.host.write(iman, Width::Dword, 3);
    assert_eq!(world.host.read(iman, Width::Dword), 2);
}

/// xHCI 1.2 §5.4.1: INTE is the controller's, IE the interrupter's.
#[test]
fn without_the_controllers_interrupter_enable_no_interrupter_interrupts() {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    let usbcmd = world.operational();
    world.host.write(usbcmd, Width::Dword, 1);
    world.host.write(usbcmd + 4, Width::Dword, 8);
    let before = world.host.interrupts;
    one_event(&mut world, slot);
    one_event(&mut world, slot);
    world.host.wait(Duration::from_secs(1));
    assert_eq!(world.host.interrupts, before);
    assert_eq!(world.host.read(usbcmd + 4, Width::Dword) & 8, 8, "EINT is for those who poll");
    let iman = world.runtime() + 0x20;
    assert_eq!(world.host.read(iman, Width::Dword), 3, "IP and IE");
    world.host.write(usbcmd, Width::Dword, 5);
    assert_eq!(world.host.interrupts, before + 1, "one for what has come meanwhile");
    assert_eq!(world.host.read(iman, Width::Dword), 2);
}

/// xHCI 1.2 §5.5.2.2: the counter can be written: the next interrupt may come when it is 0.
#[test]
fn a_write_of_the_moderation_counter_moves_the_next_interrupt() {
    for (name, counter, micros) in [("at once", 0_u64, 0), ("later", 8000, 2000)] {
        let mut world = world();
        let slot = configured(&mut world);
        world.events();
        let imod = world.runtime() + 0x24;
        world.host.write(imod, Width::Dword, 4000); // 1 ms
        one_event(&mut world, slot);
        world.events();
        one_event(&mut world, slot);
        let before = world.host.interrupts;
        world.host.write(imod + 2, Width::Word, counter);
        if micros > 0 {
            assert_eq!(
                world.host.read(imod, Width::Dword),
                counter << 16 | 4000,
                "{name}: IMODI is as it was"
            );
            world.host.wait(Duration::from_micros(micros - 1));
            assert_eq!(world.host.interrupts, before, "{name}");
            world.host.wait(Duration::from_micros(1));
        }
        assert_eq!(world.host.interrupts, before + 1, "{name}");
    }
}

#[test]
fn block_event_interrupt_writes_the_event_and_interrupts_nobody() {
    let mut world = world();
    let slot = configured(&mut world);
    world.events();
    let before = world.host.interrupts;
    let at = world.queue(slot, BULK_OUT, normal(BUFFER, 8).with(Trb::IOC | 1 << 9));
    world.ring_doorbell(slot, BULK_OUT);
    let sent = request(&mut world);
    world.host.complete(sent.id, Ok(()), Moved::Out(8));
    assert_eq!(world.host.interrupts, before);
    assert_eq!(transfers(&mut world), [(at, code::SUCCESS, 0)]);
}

#[test]
fn interrupters_are_folded_into_the_vectors_there_are() {
    for (vectors, expected) in [(1, 0), (2, 1), (8, 5)] {
        let mut world = world_with(Config { vectors, ..Config::default() }, Plan::at(0x1000, 4 << 20));
        let registers = world.runtime() + 0x20 + 0x20 * 5;
        let (segment, table) = (world.allocate(256), world.allocate(16));
        world.host.store(table, &segment.to_le_bytes());
        world.host.store(table + 8, &16_u64.to_le_bytes());
        for (offset, value) in [(0x8, 1), (0x18, segment), (0x10, table), (0x0, 2), (0x4, 0)] {
            world.host.write(registers + offset, Width::Dword, value);
        }
        let slot = configured(&mut world);
        world.queue(slot, BULK_OUT, Trb { status: 8 | 5 << 22, ..normal(BUFFER, 0) }.with(Trb::IOC));
        world.ring_doorbell(slot, BULK_OUT);
        let sent = request(&mut world);
        let mut out = Vec::new();
        let mut cx = pci::Cx { now: world.host.now, dma: &world.host.ram, out: &mut out };
        let done = wire::usb::Completion {
            id: sent.id,
            result: Ok(()),
            moved: Moved::Out(8),
            packets: Vec::new(),
            lane: wire::Lane::Bulk,
        };
        world.host.xhci.complete(&mut cx, done);
        assert_eq!(out, [Output::Interrupt(expected)], "{vectors} vectors");
    }
}

/// Case 29.
#[test]
fn the_wrap_of_the_microframe_index_is_an_event_if_enabled() {
    let mut world = world();
    world.host.wait(Duration::from_millis(2050));
    assert!(world.events().is_empty());
    let usbcmd = world.operational();
    world.host.write(usbcmd, Width::Dword, 0x405);
    world.host.wait(Duration::from_millis(4096));
    assert_eq!(world.events().iter().map(|e| e.kind).collect::<Vec<_>>(), [39, 39]);
}

/// Case 29: whatever the clock says, MFINDEX has 14 bits, and wraps that nobody waited for are one event.
#[test]
fn a_clock_that_leaps_by_centuries_wraps_the_microframe_index_once() {
    let mut world = world();
    let (operational, runtime) = (world.operational(), world.runtime());
    world.host.write(operational, Width::Dword, 0x405);
    for years in [1_u64, 100, 400] {
        world.host.now += Duration::from_secs(years * 365 * 24 * 3600 + 1);
        world.host.with(|xhci, cx| xhci.tick(cx));
        assert_eq!(world.events().iter().map(|e| e.kind).collect::<Vec<_>>(), [39], "{years} years");
        assert!(world.host.read(runtime, Width::Dword) < 1 << 14, "{years} years");
        assert!(world.host.xhci.deadline().is_some_and(|at| at > world.host.now), "{years} years");
    }
}

#[test]
fn a_halted_controller_tells_nothing_and_a_running_one_everything() {
    let mut world = world();
    let slot = configured(&mut world);
    let at = world.transfer(slot, BULK_OUT, BUFFER, 8);
    let sent = request(&mut world);
    world.events();
    let usbcmd = world.operational();
    world.host.write(usbcmd, Width::Dword, 4);
    assert_eq!(world.host.read(usbcmd + 4, Width::Dword) & 1, 1, "HCHalted");
    world.host.complete(sent.id, Ok(()), Moved::Out(8));
    let port = world.host.attach(DeviceId(9), Speed::Super).unwrap().0;
    world.ring_doorbell(slot, BULK_IN);
    assert!(world.events().is_empty());
    assert_ne!(world.port_status(port) & 0x2_0000, 0, "the change is shown all the same");
    world.host.write(usbcmd, Width::Dword, 5);
    let events = world.events();
    assert!(events.iter().any(|event| event.is_transfer() && event.pointer == at));
    assert!(events.iter().any(|event| event.port() == Some(port)));
}
