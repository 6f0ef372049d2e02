//! Isochronous endpoints. xHCI 1.2 §4.11.2.5, §4.14.2.

mod world;

use core::time::Duration;

use bytes::Bytes;
use pci::{Dma, Width};
use wire::{
    Lane,
    usb::{Completion, Failure, Moved, PacketEnd, Payload, Request, Speed, ToRemote, Transfer},
};
use world::{DEVICE, World, addressed, memory, messages, request, requests, transfers, world};
use xhci::driver::{EndpointSetup, Host as _, Trb, code};

const ISOCH_OUT: u8 = 8;
const ISOCH_IN: u8 = 9;
const BUFFER: u64 = 0x10_0000;
const MISSED_SERVICE: u8 = 23;
const TRANSACTION_ERROR: u8 = 4;
const RING_UNDERRUN: u8 = 14;
const RING_OVERRUN: u8 = 15;

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

/// What was told of TDs; where the ring ran dry says [`dry`].
fn told(world: &mut World) -> Vec<(u64, u8, u32)> {
    transfers(world).into_iter().filter(|(pointer, ..)| *pointer != 0).collect()
}

/// How often the guest was told that there was no TD for a packet, and with which code.
fn dry(world: &mut World) -> Vec<u8> {
    transfers(world).into_iter().filter(|(pointer, ..)| *pointer == 0).map(|(_, code, _)| code).collect()
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
    let ends = [(at[0], code::SUCCESS, 0), (at[1], TRANSACTION_ERROR, 8), (at[2], code::SUCCESS, 0)];
    assert_eq!(told(&mut world), ends, "no error halts an isochronous endpoint");
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
    let ends = [
        (at[0], code::SHORT_PACKET, 190),
        (at[1], code::SHORT_PACKET, 192),
        (at[2], code::SHORT_PACKET, 189),
    ];
    assert_eq!(told(&mut world), ends);
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
    assert_eq!(told(&mut world), [(first[0], MISSED_SERVICE, 4), (second[0], code::SUCCESS, 0)]);
    // The lost one comes after all: nobody waits for it.
    complete(&mut world, &sent[0], Moved::Out(4), vec![ok(4)]);
    assert!(told(&mut world).is_empty());
    assert_eq!(world.host.xhci.stats().in_flight, 0);
}

/// Case 23: lengths and counts of packets from the remote.
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
    assert_eq!(told(&mut world).iter().map(|event| event.1).collect::<Vec<_>>(), [31, code::SUCCESS]);
    // An end without any packets ends them all.
    let at = queue(&mut world, slot, ISOCH_IN, &[isoch(BUFFER, 4), isoch(BUFFER, 4)]);
    let asked = request(&mut world);
    complete(&mut world, &asked, Moved::In(Bytes::new()), Vec::new());
    assert_eq!(told(&mut world).iter().map(|event| event.0).collect::<Vec<_>>(), at);
}

/// xHCI 1.2 §4.10.3.1.
#[test]
fn a_ring_that_runs_dry_says_so_once_until_it_flows_again() {
    for (endpoint, code) in [(ISOCH_OUT, RING_UNDERRUN), (ISOCH_IN, RING_OVERRUN)] {
        let mut world = world();
        let slot = isochronous(&mut world);
        world.ring_doorbell(slot, endpoint);
        assert!(dry(&mut world).is_empty(), "it has not flowed yet");
        for _ in 0..2 {
            queue(&mut world, slot, endpoint, &[isoch(BUFFER, 0), isoch(BUFFER, 0)]);
            let sent = request(&mut world);
            let nothing = if endpoint == ISOCH_IN { Moved::In(Bytes::new()) } else { Moved::Out(0) };
            complete(&mut world, &sent, nothing, vec![ok(0), ok(0)]);
            assert_eq!(dry(&mut world), [code]);
            world.ring_doorbell(slot, endpoint);
            assert!(dry(&mut world).is_empty());
        }
    }
}

#[test]
fn a_stop_of_a_ring_is_no_underrun() {
    let mut world = world();
    let slot = isochronous(&mut world);
    queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]);
    requests(&mut world);
    let stop = world.endpoint_command(15, slot, ISOCH_OUT);
    assert_eq!(world.command(stop).code, code::SUCCESS);
    assert_eq!(dry(&mut world), [0; 0]);
}

/// The link may lose every end of a lane that may lose.
#[test]
fn packets_whose_ends_never_come_have_missed_their_service_after_a_second_of_silence() {
    let mut world = world();
    let slot = isochronous(&mut world);
    let mut at = queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4), isoch(BUFFER, 4)]);
    at.extend(queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]));
    let sent = requests(&mut world);
    world.host.wait(Duration::from_millis(990));
    complete(&mut world, &sent[0], Moved::Out(8), vec![ok(4), ok(4)]);
    assert_eq!(told(&mut world), [(at[0], code::SUCCESS, 0), (at[1], code::SUCCESS, 0)]);
    world.host.wait(Duration::from_millis(990));
    assert!(told(&mut world).is_empty(), "a sign of life makes the others wait on");
    world.host.wait(Duration::from_millis(20));
    assert_eq!(told(&mut world), [(at[2], MISSED_SERVICE, 4)]);
    assert!(matches!(messages(&mut world)[..], [ToRemote::Cancel { through, .. }] if through == sent[1].id));
    assert_eq!(world.host.xhci.stats().in_flight, 0);
    queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]);
    assert_eq!(requests(&mut world).len(), 1, "it goes on");
}

/// xHCI 1.2 §4.11.2.5: 895 frames ahead is the most.
#[test]
fn a_td_that_begins_a_flow_too_late_or_too_early_for_its_frame_misses_its_service() {
    for (ahead, missed) in [(0, false), (1, false), (895, false), (896, true), (-1, true), (-500, true)] {
        let mut world = world();
        let slot = isochronous(&mut world);
        world.host.wait(Duration::from_secs(3));
        let now = world.host.read(world.runtime(), Width::Dword) as i32 >> 3;
        let frame = (now + ahead).rem_euclid(2048) as u32;
        let control = frame << 20 | 5 << 10 | Trb::IOC;
        let at = queue(&mut world, slot, ISOCH_OUT, &[Trb { control, ..isoch(BUFFER, 4) }]);
        let expected = if missed { vec![(at[0], MISSED_SERVICE, 4)] } else { vec![] };
        assert_eq!(told(&mut world), expected, "{ahead} frames ahead");
        assert_eq!(requests(&mut world).len(), usize::from(!missed), "{ahead} frames ahead");
    }
}

#[test]
fn all_packets_of_a_device_that_is_unplugged_are_told_and_none_twice() {
    let mut world = world();
    let slot = isochronous(&mut world);
    let at = queue(&mut world, slot, ISOCH_OUT, &[0; 20].map(|_| isoch(BUFFER, 4)));
    requests(&mut world);
    world.host.detach(DEVICE);
    let ends: Vec<_> = at.iter().map(|at| (*at, TRANSACTION_ERROR, 4)).collect();
    assert_eq!(told(&mut world), ends);
    let next = queue(&mut world, slot, ISOCH_OUT, &[isoch(BUFFER, 4)]);
    assert_eq!(told(&mut world), [(next[0], TRANSACTION_ERROR, 4)]);
}

#[test]
fn a_td_that_is_no_isoch_td_stops_the_endpoint() {
    let mut world = world();
    let slot = isochronous(&mut world);
    queue(&mut world, slot, ISOCH_OUT, &[xhci::driver::normal(BUFFER, 4)]);
    assert!(requests(&mut world).is_empty());
    assert_eq!(world.output_context(slot, ISOCH_OUT)[0] & 7, 4, "Error");
}
