//! Bulk streams. xHCI 1.2 §4.12, §6.2.4.

mod world;

use pci::{Dma, Width};
use wire::usb::{Failure, Moved, Request, Speed, ToRemote, Transfer};
use world::{BULK_IN, TRB_RESET, TRB_STOP, World, addressed, messages, transfers, world};
use xhci::driver::{Host, ProducerRing, Trb, code, normal};

const BUFFER: u64 = 0x20_0000;
const INPUT: u64 = 0x30_0000;
const ARRAY: u64 = 0x31_0000;
/// Streams 1 to 15.
const PRIMARY: u32 = 3;
const LINEAR: u32 = 1 << 15;
const SET_DEQUEUE: u8 = 16;

/// An endpoint with streams, and the rings of streams 1 to 3.
struct Streamed {
    world: World,
    slot: u8,
    rings: Vec<ProducerRing>,
}

/// Configure Endpoint for the bulk IN endpoint with this first dword.
fn configure(world: &mut World, slot: u8, first: u32) -> u8 {
    let store = |at: u64, dwords: &[u32]| {
        let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
        world.host.ram.write(at, &bytes).unwrap();
    };
    store(INPUT, &[0, 1 | 1 << BULK_IN]);
    store(INPUT + 0x20, &[u32::from(BULK_IN) << 27, 0, 0, 0]);
    let context = INPUT + 0x20 * (u64::from(BULK_IN) + 1);
    store(context, &[first, 1024 << 16 | 6 << 3 | 3 << 1, ARRAY as u32, 0, 0]);
    world.command(Trb { parameter: INPUT, ..Trb::command(12, slot) }).code
}

impl Streamed {
    /// Configured, and the remote has given the device its streams.
    fn new() -> Self {
        let mut world = world();
        let slot = addressed(&mut world, Speed::Super);
        let rings: Vec<_> = (0..3).map(|_| world.ring()).collect();
        for (number, ring) in (1..).zip(&rings) {
            // SCT 1: a ring in a primary array; DCS 1.
            world.host.ram.write(ARRAY + 16 * number, &(ring.base() | 1 << 1 | 1).to_le_bytes()).unwrap();
        }
        assert_eq!(configure(&mut world, slot, PRIMARY << 10 | LINEAR), code::SUCCESS);
        let mut this = Self { world, slot, rings };
        let [ToRemote::Streams { id, endpoints, count, .. }] = &messages(&mut this.world)[..] else {
            panic!("the remote is told once")
        };
        assert_eq!((endpoints[0].address(), endpoints.len(), *count), (0x81, 1, 15));
        this.world.host.complete(*id, Ok(()), Moved::Out(15));
        this
    }

    /// Queues a TD on a stream and rings; where it is.
    fn transfer(&mut self, stream: u16, length: u32) -> u64 {
        let ring = &mut self.rings[usize::from(stream) - 1];
        let at = ring.push(&mut self.world.host, normal(BUFFER, length).with(Trb::IOC));
        self.doorbell(stream);
        at
    }

    fn doorbell(&mut self, stream: u16) {
        let doorbell = 0x2000 + 4 * u64::from(self.slot);
        self.world.host.write(doorbell, Width::Dword, u64::from(stream) << 16 | u64::from(BULK_IN));
    }

    fn requests(&mut self) -> Vec<Request> {
        self.world.host.take_requests()
    }

    fn command(&mut self, kind: u8, parameter: u64, status: u32) -> u8 {
        let trb = Trb::command(kind, self.slot).with(u32::from(BULK_IN) << 16);
        self.world.command(Trb { parameter, status, ..trb }).code
    }

    fn dequeue_of(&self, stream: u64) -> u64 {
        let mut bytes = [0; 8];
        self.world.host.ram.read(ARRAY + 16 * stream, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
}

fn stream(request: &Request) -> u16 {
    let Transfer::Bulk { stream } = request.transfer else { panic!("{request:?}") };
    stream
}

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
