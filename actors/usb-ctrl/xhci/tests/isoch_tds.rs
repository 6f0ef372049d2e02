//! Isochronous TDs of every shape, and what becomes of their packets when nobody tells. xHCI 1.2 §4.11.2.5, §3.2.11.

mod world;

use core::time::Duration;

use bytes::Bytes;
use pci::Model as _;
use wire::{
    Lane,
    usb::{Completion, Moved, PacketEnd, Payload, Request, Speed, Transfer},
};
use world::*;
use xhci::driver::{EndpointSetup, Host, Trb, code, normal};

const ISOCH_OUT: u8 = 8;
const ISOCH_IN: u8 = 9;
const BUFFER: u64 = 0x80_0000;
/// The longest packet there can be, bytes. USB 3.2 §9.6.7.
const LONGEST: u32 = 48 << 10;

fn isochronous() -> (World, u8) {
    let mut world = world();
    let slot = addressed(&mut world, Speed::High);
    let endpoints = [
        EndpointSetup { index: ISOCH_OUT, kind: 1, max_packet: 1024 },
        EndpointSetup { index: ISOCH_IN, kind: 5, max_packet: 1024 },
    ];
    assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
    (world, slot)
}

/// An Isoch TRB with SIA. xHCI 1.2 §6.4.1.3.
fn isoch(buffer: u64, length: u32) -> Trb {
    Trb { parameter: buffer, status: length, control: 1 << 31 | 5 << 10 }
}

fn lengths(request: &Request) -> Vec<u16> {
    let Transfer::Isochronous(packets) = &request.transfer else { panic!("{request:?}") };
    packets.lengths().to_vec()
}

/// All packets of the request went well, with so many bytes each.
fn complete(world: &mut World, request: &Request, moved: Moved, packets: &[u16]) {
    let packets = packets.iter().map(|moved| PacketEnd { moved: *moved, result: Ok(()) }).collect();
    let end = Completion { id: request.id, result: Ok(()), moved, packets, lane: Lane::Iso };
    world.host.with(|xhci, cx| xhci.complete(cx, end));
}

/// What was told of TDs, and not of the ring that ran dry.
fn told(world: &mut World) -> Vec<(u64, u8, u32)> {
    transfers(world).into_iter().filter(|(pointer, ..)| *pointer != 0).collect()
}

#[test]
fn a_td_of_several_trbs_is_one_packet() {
    let (mut world, slot) = isochronous();
    world.host.store(BUFFER, b"onetwothree");
    world.queue(slot, ISOCH_OUT, isoch(BUFFER, 3).with(Trb::CHAIN));
    world.queue(slot, ISOCH_OUT, normal(BUFFER + 3, 3).with(Trb::CHAIN));
    world.queue(slot, ISOCH_OUT, normal(BUFFER + 6, 5).with(Trb::CHAIN));
    world.queue(slot, ISOCH_OUT, Trb::event_data(6));
    world.ring_doorbell(slot, ISOCH_OUT);
    let sent = request(&mut world);
    assert_eq!((lengths(&sent), &sent.payload), (vec![11], &Payload::Out("onetwothree".into())));
    complete(&mut world, &sent, Moved::Out(11), &[11]);
    assert_eq!(told(&mut world), [(6, code::SUCCESS, 11)], "Event Data: bytes that moved");

    let first = world.queue(slot, ISOCH_IN, isoch(BUFFER + 0x100, 4).with(Trb::CHAIN | Trb::IOC));
    let second = world.queue(slot, ISOCH_IN, normal(BUFFER + 0x200, 8).with(Trb::IOC));
    world.ring_doorbell(slot, ISOCH_IN);
    let asked = request(&mut world);
    complete(&mut world, &asked, Moved::In(Bytes::from_static(b"abcdef")), &[6]);
    assert_eq!(told(&mut world), [(first, code::SUCCESS, 0), (second, code::SHORT_PACKET, 6)]);
    assert_eq!(memory(&world, BUFFER + 0x100, 5), b"abcd\0");
    assert_eq!(memory(&world, BUFFER + 0x200, 3), b"ef\0");
}

#[test]
fn more_tds_than_a_request_has_packets_go_in_several_and_end_in_order() {
    let (mut world, slot) = isochronous();
    let at: Vec<_> =
        (0..30).map(|i| world.queue(slot, ISOCH_IN, isoch(BUFFER + 64 * i, 64).with(Trb::IOC))).collect();
    world.ring_doorbell(slot, ISOCH_IN);
    let asked = requests(&mut world);
    let packets: Vec<_> = asked.iter().map(|request| lengths(request).len()).collect();
    assert_eq!(packets.iter().sum::<usize>(), 30);
    assert!(packets.iter().all(|count| *count <= 8), "{packets:?}");
    let mut byte = 0;
    for request in &asked {
        let count = lengths(request).len();
        let data: Vec<u8> = (byte..byte + count as u8).flat_map(|byte| [byte; 64]).collect();
        byte += count as u8;
        complete(&mut world, request, Moved::In(data.into()), &vec![64; count]);
    }
    let done: Vec<_> = at.iter().map(|at| (*at, code::SUCCESS, 0)).collect();
    assert_eq!(told(&mut world), done);
    assert!((0..30).all(|i| memory(&world, BUFFER + 64 * u64::from(i), 64) == [i; 64]));
}

#[test]
fn a_td_longer_than_any_packet_stops_the_endpoint_and_those_before_it_are_told() {
    let (mut world, slot) = isochronous();
    let fits = world.queue(slot, ISOCH_OUT, isoch(BUFFER, LONGEST).with(Trb::IOC));
    let long = world.queue(slot, ISOCH_OUT, isoch(BUFFER, LONGEST).with(Trb::CHAIN));
    world.queue(slot, ISOCH_OUT, normal(BUFFER, 1).with(Trb::IOC));
    let behind = world.queue(slot, ISOCH_OUT, isoch(BUFFER, 8).with(Trb::IOC));
    world.ring_doorbell(slot, ISOCH_OUT);
    let sent = requests(&mut world);
    assert_eq!(lengths(&sent[0]), [LONGEST as u16]);
    complete(&mut world, &sent[0], Moved::Out(LONGEST), &[LONGEST as u16]);
    let events = told(&mut world);
    assert_eq!(events, [(fits, code::SUCCESS, 0), (long, code::TRB_ERROR, LONGEST)]);
    assert_eq!(world.output_context(slot, ISOCH_OUT)[0] & 7, 4, "Error");
    assert_eq!(world.set_dequeue(slot, ISOCH_OUT, Some(behind | 1)).code, code::SUCCESS);
    world.ring_doorbell(slot, ISOCH_OUT);
    assert_eq!(lengths(&requests(&mut world)[0]), [8], "it goes on behind it");
}

#[test]
fn a_buffer_in_a_hole_stops_the_endpoint() {
    let hole = MEMORY as u64 - 4;
    let (mut world, slot) = isochronous();
    let at = world.queue(slot, ISOCH_OUT, isoch(hole, 8).with(Trb::IOC));
    world.ring_doorbell(slot, ISOCH_OUT);
    assert!(requests(&mut world).is_empty());
    assert_eq!(told(&mut world), [(at, code::TRB_ERROR, 8)]);

    let well = world.queue(slot, ISOCH_IN, isoch(BUFFER, 8).with(Trb::IOC));
    let at = world.queue(slot, ISOCH_IN, isoch(hole, 8).with(Trb::IOC));
    world.queue(slot, ISOCH_IN, isoch(BUFFER, 8).with(Trb::IOC));
    world.ring_doorbell(slot, ISOCH_IN);
    let asked = request(&mut world);
    complete(&mut world, &asked, Moved::In(vec![1; 24].into()), &[8, 8, 8]);
    assert_eq!(told(&mut world), [(well, code::SUCCESS, 0), (at, code::TRB_ERROR, 0)]);
    assert_eq!(world.output_context(slot, ISOCH_IN)[0] & 7, 4, "Error");
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

/// The lane may lose the ends of what a stop has cancelled; then nobody ever overtakes them.
#[test]
fn packets_of_a_stopped_endpoint_whose_ends_never_come_are_lost_after_a_second() {
    let (mut world, slot) = isochronous();
    for _ in 0..20 {
        world.queue(slot, ISOCH_OUT, isoch(BUFFER, 8).with(Trb::IOC));
    }
    world.ring_doorbell(slot, ISOCH_OUT);
    assert!(!requests(&mut world).is_empty());
    let stop = world.endpoint_command(TRB_STOP, slot, ISOCH_OUT);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    assert!(world.host.xhci.stats().in_flight > 0);
    world.host.wait(Duration::from_secs(2));
    assert_eq!(world.host.xhci.stats().in_flight, 0);
    assert_eq!(world.host.xhci.deadline(), None, "nothing is left to do");
}
