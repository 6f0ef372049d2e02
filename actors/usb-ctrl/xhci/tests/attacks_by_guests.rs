//! What hostile guests and remotes have done to other controllers. Each test names its case of the attack table.

mod world;

use pci::{Cx, Model, Ram, Width};
use wire::{
    Lane,
    usb::{Completion, DeviceId, Moved, RequestId, Speed},
};
use world::*;
use xhci::{
    Config, Xhci,
    driver::{Host, Plan, Trb, code, normal},
};

const BUFFER: u64 = 0x80_0000;
const USBSTS: u64 = 0x44;
const HCE: u64 = 1 << 12;
const HSE: u64 = 1 << 2;

fn status(world: &mut World) -> u64 {
    world.host.read(USBSTS, Width::Dword)
}

fn raw(world: &mut World, at: u64, parameter: u64, status: u32, control: u32) {
    world.host.store(at, &parameter.to_le_bytes());
    world.host.store(at + 8, &status.to_le_bytes());
    world.host.store(at + 12, &control.to_le_bytes());
}

/// A world whose bulk OUT endpoint reads its ring from here.
fn with_ring_at(ring: u64) -> (World, u8) {
    let mut world = world();
    let slot = configured(&mut world);
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_OUT);
    world.command(stop);
    assert_eq!(world.set_dequeue(slot, BULK_OUT, Some(ring | 1)).code, code::SUCCESS);
    (world, slot)
}

/// Case 1: rings of nothing but Link TRBs.
#[test]
fn a_transfer_ring_of_links_stops_its_endpoint() {
    for links in [1_u64, 2, 7] {
        let (mut world, slot) = with_ring_at(BUFFER);
        for link in 0..links {
            let next = BUFFER + (link + 1) % links * 64;
            raw(&mut world, BUFFER + link * 64, next, 0, 6 << 10 | 1);
        }
        world.ring_doorbell(slot, BULK_OUT);
        assert_eq!(transfers(&mut world), [(BUFFER, code::TRB_ERROR, 0)], "{links} links");
        assert_eq!(world.output_context(slot, BULK_OUT)[0] & 7, 4);
    }
}

/// Case 1, on the command ring.
#[test]
fn a_command_ring_of_links_is_a_host_controller_error() {
    let mut world = world();
    let ring = world.allocate(64);
    raw(&mut world, ring, ring, 0, 6 << 10 | 1);
    world.host.write(0x58, Width::Qword, ring | 1);
    world.host.write(0x2000, Width::Dword, 0);
    assert_eq!(status(&mut world), HCE | 1);
    world.host.write(0x40, Width::Dword, 1);
    assert_eq!(status(&mut world), HCE | 1, "only a reset helps");
    world.host.write(0x40, Width::Dword, 2);
    assert_eq!(status(&mut world), 1);
}

/// Case 1: a link that toggles the cycle bit to itself is an empty ring.
#[test]
fn a_link_that_turns_the_cycle_bit_against_itself_is_an_empty_ring() {
    let (mut world, slot) = with_ring_at(BUFFER);
    raw(&mut world, BUFFER, BUFFER, 0, 6 << 10 | 2 | 1);
    world.ring_doorbell(slot, BULK_OUT);
    assert!(world.events().is_empty());
}

/// Case 2: chains without an end, and Case 27: a chain that is a circle.
#[test]
fn a_chain_without_an_end_stops_its_endpoint_and_each_call_is_short() {
    for (name, length) in [("zero-length", 0), ("64 KiB", 0x1_0000)] {
        let (mut world, slot) = with_ring_at(BUFFER);
        for index in 0..15 {
            raw(&mut world, BUFFER + 16 * index, BUFFER, length, 1 << 10 | Trb::CHAIN | 1);
        }
        raw(&mut world, BUFFER + 240, BUFFER, 0, 6 << 10 | Trb::CHAIN | 1);
        let mut calls = 1;
        let doorbell = 0x2000 + 4 * u64::from(slot);
        world.host.once(|xhci, cx| xhci.write(cx, doorbell, Width::Dword, BULK_OUT.into()));
        while world.host.xhci.deadline().is_some_and(|at| at <= world.host.now) {
            world.host.once(|xhci, cx| xhci.tick(cx));
            calls += 1;
        }
        assert!((2..6).contains(&calls), "{name}: {calls} calls for 2048 TRBs");
        let events = transfers(&mut world);
        assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [code::TRB_ERROR], "{name}");
        assert!(requests(&mut world).is_empty(), "{name}");
    }
}

/// Case 2: as many TDs as a ring can hold, in one doorbell.
#[test]
fn many_tds_are_taken_a_budget_at_a_time() {
    let mut world = world_with(Config::default(), Plan { ring_trbs: 1024, ..Plan::at(0x1000, 4 << 20) });
    let slot = configured(&mut world);
    for _ in 0..1000 {
        world.queue(slot, BULK_OUT, normal(BUFFER, 16).with(Trb::IOC));
    }
    let doorbell = 0x2000 + 4 * u64::from(slot);
    world.host.once(|xhci, cx| xhci.write(cx, doorbell, Width::Dword, BULK_OUT.into()));
    let first = requests(&mut world).len();
    assert!((1..=64).contains(&first), "{first} TDs in one call");
    assert_eq!(world.host.xhci.deadline(), Some(core::time::Duration::ZERO), "the rest at once");
    world.host.with(|xhci, cx| xhci.tick(cx));
    assert_eq!(first + requests(&mut world).len(), 256, "up to the depth of an endpoint");
}

/// Case 6, and Case 12: a piece of a TD in a hole, or in our own BAR: memory that is not there.
#[test]
fn a_buffer_that_is_not_memory_is_a_trb_error_on_that_endpoint_alone() {
    for hole in [MEMORY as u64, 0xfebf_0000, u64::MAX - 3] {
        let mut world = world();
        let slot = configured(&mut world);
        world.queue(slot, BULK_OUT, normal(BUFFER, 512).with(Trb::CHAIN));
        world.queue(slot, BULK_OUT, normal(hole, 512).with(Trb::CHAIN));
        world.queue(slot, BULK_OUT, normal(BUFFER, 512).with(Trb::IOC));
        world.ring_doorbell(slot, BULK_OUT);
        assert!(requests(&mut world).is_empty());
        assert_eq!(transfers(&mut world)[0].1, code::TRB_ERROR, "{hole:#x}");
        let at = world.transfer(slot, BULK_IN, hole, 8);
        let sent = request(&mut world);
        world.host.give(sent.id, vec![0; 8]);
        assert_eq!(transfers(&mut world), [(at, code::TRB_ERROR, 0)], "{hole:#x}");
        assert_eq!(status(&mut world) & (HCE | HSE | 1), 0, "{hole:#x}");
    }
}

/// Case 6, and Case 7 for rings and contexts: the controller halts, or the endpoint does.
#[test]
fn structures_that_are_not_memory_do_not_hurt() {
    const NOWHERE: u64 = 0xffff_ffff_ffff_f000;
    let (mut world, slot) = with_ring_at(NOWHERE);
    world.ring_doorbell(slot, BULK_OUT);
    assert_eq!(transfers(&mut world), [(NOWHERE, code::TRB_ERROR, 0)], "a transfer ring");

    let mut world = self::world();
    let slot = world.enable_slot();
    for kind in [11, 12, 13] {
        let event = world.command(Trb { parameter: NOWHERE, ..Trb::command(kind, slot) });
        assert_ne!(event.code, code::SUCCESS, "an input context");
    }
    world.host.write(0x70, Width::Qword, NOWHERE);
    let event = world.command(Trb { parameter: 0x1000, ..Trb::command(11, slot) });
    assert_ne!(event.code, code::SUCCESS, "the device context base address array");

    let mut world = self::world();
    world.host.write(0x58, Width::Qword, NOWHERE | 1);
    world.host.write(0x2000, Width::Dword, 0);
    assert_eq!(status(&mut world), HSE | 1, "the command ring");

    let mut world = self::world();
    world.host.write(0x1030, Width::Qword, NOWHERE);
    world.host.attach(DEVICE, Speed::High).unwrap();
    assert_eq!(status(&mut world) & (HSE | 1), HSE | 1, "the event ring");
}

/// Case 8: a request that says more than its buffer holds, and setup stages that are left alone.
#[test]
fn control_requests_that_contradict_themselves_are_trb_errors() {
    let data =
        |inward: u32, length: u32| Trb { parameter: BUFFER, status: length, control: 3 << 10 | inward << 16 };
    let status = Trb { parameter: 0, status: 0, control: 4 << 10 | Trb::IOC };
    let get = [0x80, 6, 0, 1, 0, 0, 64, 0];
    let set = [0x00, 9, 1, 0, 0, 0, 0, 0];
    let put = [0x21, 9, 0, 2, 0, 0, 64, 0];
    let cases: &[(&str, &[Trb])] = &[
        ("two setup stages", &[Trb::setup(get, 3), Trb::setup(set, 0)]),
        ("a setup stage amid data", &[Trb::setup(get, 3), data(1, 64), Trb::setup(set, 0)]),
        ("IN request, OUT data", &[Trb::setup(get, 3), data(0, 64), status]),
        ("OUT request, IN data", &[Trb::setup(put, 2), data(1, 64), status]),
        ("less OUT data than announced", &[Trb::setup(put, 2), data(0, 32), status]),
        ("more OUT data than announced", &[Trb::setup(put, 2), data(0, 128), status]),
        ("data that was not announced", &[Trb::setup(set, 0), data(1, 8), status]),
        ("announced data without a stage", &[Trb::setup(get, 3), status]),
        ("two data stages", &[Trb::setup(get, 3), data(1, 32), data(1, 32)]),
    ];
    for (name, trbs) in cases {
        let mut world = world();
        let slot = addressed(&mut world, Speed::High);
        for trb in *trbs {
            world.queue(slot, 1, *trb);
        }
        world.ring_doorbell(slot, 1);
        assert!(requests(&mut world).is_empty(), "{name}");
        let events = transfers(&mut world);
        assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [code::TRB_ERROR], "{name}");
    }
}

/// Case 10, and Case 25: indices from the guest.
#[test]
fn doorbells_of_endpoints_and_slots_that_are_not_there_are_ignored() {
    let mut world = world();
    let slot = configured(&mut world);
    for (slot, value) in [
        (slot, 0),
        (slot, 4),
        (slot, 31),
        (slot, 32),
        (slot, 33),
        (slot, 255),
        (slot + 1, 1),
        (64, 1),
        (65, 1),
        (255, 1),
        (0, 1),
        (0, 0xffff_ffff),
    ] {
        world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, value);
    }
    assert!(world.events().is_empty() && messages(&mut world).is_empty());
    world.disable_slot(slot);
    world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, 3);
    assert!(world.events().is_empty());
}

/// Case 11: an endpoint that has no streams; those that have some are in `streams.rs`.
#[test]
fn streams_that_are_not_there_are_refused() {
    let mut world = world();
    let slot = configured(&mut world);
    world.queue(slot, BULK_IN, normal(BUFFER, 8).with(Trb::IOC));
    world.host.write(0x2000 + 4 * u64::from(slot), Width::Dword, 0xffff_0000 | u64::from(BULK_IN));
    assert!(requests(&mut world).is_empty(), "a doorbell of stream 65535");
    let stop = world.endpoint_command(TRB_STOP, slot, BULK_IN);
    world.command(stop);
    let trb = Trb { parameter: BUFFER | 1, status: 7 << 16, ..Trb::command(16, slot).with(3 << 16) };
    assert_eq!(world.command(trb).code, 34, "Invalid Stream ID: Set TR Dequeue of stream 7");
}

/// Case 29: timers and sizes at their extremes.
#[test]
fn extreme_interrupter_settings_neither_loop_nor_panic() {
    for size in [0_u64, 1, 2, 15, 16, 17, 0xffff, 0xffff_ffff] {
        for trbs in [0_u64, 1, 15, 16, 4096, 4097, 0xffff] {
            for (interval, dequeue) in [(0, 0), (0xffff_ffff, u64::MAX), (1, 0x4000), (0xffff, BUFFER)] {
                let mut world = world();
                world.host.store(BUFFER, &BUFFER.to_le_bytes());
                world.host.store(BUFFER + 8, &trbs.to_le_bytes());
                world.host.write(0x1024, Width::Dword, interval);
                world.host.write(0x1028, Width::Dword, size);
                world.host.write(0x1038, Width::Qword, dequeue);
                world.host.write(0x1030, Width::Qword, BUFFER);
                for id in 0..16 {
                    let _ = world.host.attach(DeviceId(id), Speed::High);
                    let _ = world.host.attach(DeviceId(id + 100), Speed::Super);
                }
                for _ in 0..100 {
                    world.post_command(Trb::command(23, 0));
                }
                world.host.wait(core::time::Duration::from_secs(3));
            }
        }
    }
}

/// A model without memory at all, as with Command.BME = 0.
#[test]
fn without_bus_mastering_the_controller_halts_with_a_system_error() {
    let mut xhci = Xhci::new(Config::default());
    let ram = Ram::new(0, 0);
    let mut out = Vec::new();
    let mut cx = Cx { now: core::time::Duration::ZERO, dma: &ram, out: &mut out };
    xhci.write(&mut cx, 0x1028, Width::Dword, 1);
    xhci.write(&mut cx, 0x40, Width::Dword, 1);
    xhci.write(&mut cx, 0x2000, Width::Dword, 0);
    assert_eq!(xhci.read(&mut cx, USBSTS, Width::Dword), HSE | 1);
    let late = Completion {
        id: RequestId(1),
        result: Ok(()),
        moved: Moved::Out(0),
        packets: Vec::new(),
        lane: Lane::Ctl,
    };
    xhci.complete(&mut cx, late);
}
