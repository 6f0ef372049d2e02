//! Isochronous endpoints. xHCI 1.2 §4.11.2.5, §4.14.2.

mod world;

use bytes::Bytes;
use pci::Dma;
use wire::{
    Lane,
    usb::{Completion, Failure, Moved, PacketEnd, Payload, Request, Speed, Transfer},
};
use world::{World, addressed, memory, request, requests, transfers, world};
use xhci::driver::{EndpointSetup, Trb, code};

const ISOCH_OUT: u8 = 8;
const ISOCH_IN: u8 = 9;
const BUFFER: u64 = 0x10_0000;
const MISSED_SERVICE: u8 = 23;
const TRANSACTION_ERROR: u8 = 4;

fn isochronous(world: &mut World) -> u8 {
    let slot = addressed(world, Speed::High);
    let endpoints = [
        EndpointSetup { index: ISOCH_OUT, kind: 1, max_packet: 192 },
        EndpointSetup { index: ISOCH_IN, kind: 5, max_packet: 192 },
    ];
    assert_eq!(world.configure(slot, &endpoints).code, code::SUCCESS);
    slot
}

/// An Isoch TRB with SIA and IOC. xHCI 1.2 §6.4.1.3.
fn isoch(buffer: u64, length: u32) -> Trb {
    Trb { parameter: buffer, status: length, control: 1 << 31 | 5 << 10 | Trb::IOC }
}

/// Queues TDs and rings; where each is.
fn queue(world: &mut World, slot: u8, endpoint: u8, trbs: &[Trb]) -> Vec<u64> {
    let at = trbs.iter().map(|trb| world.queue(slot, endpoint, *trb)).collect();
    world.ring_doorbell(slot, endpoint);
    at
}

fn lengths(request: &Request) -> Vec<u16> {
    let Transfer::Isochronous(packets) = &request.transfer else { panic!("{request:?}") };
    packets.lengths().to_vec()
}

fn complete(world: &mut World, request: &Request, moved: Moved, packets: Vec<PacketEnd>) {
    let (id, result, lane) = (request.id, Ok(()), Lane::Iso);
    let end = Completion { id, result, moved, packets, lane };
    world.host.with(|xhci, cx| xhci.complete(cx, end));
}

fn ok(moved: u16) -> PacketEnd {
    PacketEnd { moved, result: Ok(()) }
}

#[test]
fn queued_tds_are_packets_of_one_request_and_end_each_for_itself() {
    let mut world = world();
    let slot = isochronous(&mut world);
    let data: Vec<u8> = (0..12).collect();
    world.host.ram.write(BUFFER, &data).unwrap();
    let trbs = [isoch(BUFFER, 4), isoch(BUFFER + 4, 8), isoch(BUFFER, 0)];
    let at = queue(&mut world, slot, ISOCH_OUT, &trbs);
    let sent = request(&mut world);
    assert_eq!((lengths(&sent), &sent.payload), (vec![4, 8, 0], &Payload::Out(data.into())));
    let failed = PacketEnd { moved: 0, result: Err(Failure::Fault) };
    complete(&mut world, &sent, Moved::Out(4), vec![ok(4), failed, ok(0)]);
    let told = [(at[0], code::SUCCESS, 0), (at[1], TRANSACTION_ERROR, 8), (at[2], code::SUCCESS, 0)];
    assert_eq!(transfers(&mut world), told, "no error halts an isochronous endpoint");
    queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 1)]);
    assert_eq!(lengths(&request(&mut world)), [1], "it goes on");
}

#[test]
fn packets_that_come_back_to_back_are_put_each_into_its_own_buffer() {
    let mut world = world();
    let slot = isochronous(&mut world);
    let trbs = [0, 1, 2].map(|n| isoch(BUFFER + 0x100 * n, 192));
    let at = queue(&mut world, slot, ISOCH_IN, &trbs);
    let asked = request(&mut world);
    assert_eq!(asked.payload, Payload::In { max: 3 * 192 });
    complete(&mut world, &asked, Moved::In(Bytes::from_static(b"abcde")), vec![ok(2), ok(0), ok(3)]);
    let told = [
        (at[0], code::SHORT_PACKET, 190),
        (at[1], code::SHORT_PACKET, 192),
        (at[2], code::SHORT_PACKET, 189),
    ];
    assert_eq!(transfers(&mut world), told);
    assert_eq!(
        (memory(&world, BUFFER, 2), memory(&world, BUFFER + 0x200, 3)),
        (b"ab".to_vec(), b"cde".to_vec())
    );
}

#[test]
fn what_a_later_end_has_overtaken_has_missed_its_service() {
    let mut world = world();
    let slot = isochronous(&mut world);
    let first = queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]);
    let second = queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]);
    let sent = requests(&mut world);
    complete(&mut world, &sent[1], Moved::Out(4), vec![ok(4)]);
    assert_eq!(transfers(&mut world), [(first[0], MISSED_SERVICE, 4), (second[0], code::SUCCESS, 0)]);
    // The lost one comes after all: nobody waits for it.
    complete(&mut world, &sent[0], Moved::Out(4), vec![ok(4)]);
    assert!(transfers(&mut world).is_empty());
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

#[test]
fn a_remote_that_lies_about_packets_reaches_no_memory_beyond_their_buffers() {
    let mut world = world();
    let slot = isochronous(&mut world);
    world.host.ram.write(BUFFER, &[0x55; 512]).unwrap();
    queue(&mut world, slot, ISOCH_IN, &[isoch(BUFFER, 4), isoch(BUFFER + 0x100, 4)]);
    let asked = request(&mut world);
    let packets = vec![ok(100), ok(4), ok(9), ok(65535)];
    complete(&mut world, &asked, Moved::In(vec![1; 104].into()), packets);
    assert_eq!(memory(&world, BUFFER + 4, 8), [0x55; 8]);
    assert_eq!(transfers(&mut world).iter().map(|event| event.1).collect::<Vec<_>>(), [3, code::SUCCESS]);
    // An end without any packets ends them all.
    let at = queue(&mut world, slot, ISOCH_IN, &[isoch(BUFFER, 4), isoch(BUFFER, 4)]);
    let asked = request(&mut world);
    complete(&mut world, &asked, Moved::In(Bytes::new()), Vec::new());
    assert_eq!(transfers(&mut world).iter().map(|event| event.0).collect::<Vec<_>>(), at);
}

#[test]
fn a_td_that_is_no_isoch_td_stops_the_endpoint() {
    let mut world = world();
    let slot = isochronous(&mut world);
    queue(&mut world, slot, ISOCH_OUT, &[xhci::driver::normal(BUFFER, 4)]);
    assert!(requests(&mut world).is_empty());
    assert_eq!(world.output_context(slot, ISOCH_OUT)[0] & 7, 4, "Error");
}
