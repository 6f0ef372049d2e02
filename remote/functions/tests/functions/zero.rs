//! Gadget zero, as Linux's `usbtest` and its cases drive it.

use std::time::Duration;

use bytes::Bytes;
use functions::{Function, Pattern, Zero};
use wire::{
    Lane,
    usb::{
        Completion, Direction, Endpoint, Failure, Moved, PacketEnd, Packets, Payload, RequestId, Setup,
        Transfer,
    },
};

use crate::{
    bot::DONE,
    host::{Host, bulk_in, bulk_out, data},
};

const MILLISECOND: Duration = Duration::from_millis(1);

fn interrupt(direction: Direction) -> Endpoint {
    Endpoint::new(if direction == Direction::In { 3 } else { 4 }, direction).unwrap()
}

fn isochronous(direction: Direction) -> Endpoint {
    Endpoint::new(if direction == Direction::In { 5 } else { 6 }, direction).unwrap()
}

/// In the setting that has endpoints, as `usbtest` chooses it.
fn zero(pattern: Pattern) -> Host<Zero> {
    chosen(Zero::new(pattern))
}

fn chosen(function: Zero) -> Host<Zero> {
    let mut host = Host::new(function);
    assert_eq!(host.control(0x01, 11, 1, 0, 0), DONE, "SET_INTERFACE");
    host
}

fn result(host: &Host<Zero>, id: RequestId) -> Option<Result<(), Failure>> {
    host.end(id).map(|end| end.result)
}

fn submit_packets(host: &mut Host<Zero>, direction: Direction, lengths: &[u16]) -> RequestId {
    let packets = Packets::new(lengths).unwrap();
    let payload = match direction {
        Direction::In => Payload::In { max: packets.total() },
        Direction::Out => Payload::Out(vec![0; packets.total() as usize].into()),
    };
    host.submit(isochronous(direction), Transfer::Isochronous(packets), payload)
}

fn mod63(length: usize, packet: usize) -> Vec<u8> {
    (0..length).map(|n| (n % packet % 63) as u8).collect()
}

/// The endpoints of a configuration by their setting: address, attributes, packet size.
fn settings(configuration: &[u8]) -> Vec<Vec<(u8, u8, u16)>> {
    let (mut settings, mut rest) = (Vec::<Vec<_>>::new(), configuration);
    while let [length, kind, ..] = rest {
        match kind {
            4 => settings.push(Vec::new()),
            5 => {
                settings.last_mut().unwrap().push((rest[2], rest[3], u16::from_le_bytes([rest[4], rest[5]])))
            }
            _ => {}
        }
        rest = &rest[usize::from(*length)..];
    }
    settings
}

#[test]
fn the_first_setting_with_bulk_endpoints_has_everything_that_usbtest_looks_for() {
    let rest = [(0x83, 3, 64), (0x04, 3, 64), (0x85, 1, 1024), (0x06, 1, 1024)];
    for (function, bulk) in [(Zero::new(Pattern::Zeros), 1024), (Zero::high_speed(Pattern::Zeros), 512)] {
        assert_eq!(function.id(), (0x0525, 0xa4a0));
        let configuration = Host::new(function).control(0x80, 6, 0x0200, 0, 255).unwrap();
        assert_eq!(
            usize::from(u16::from_le_bytes([configuration[2], configuration[3]])),
            configuration.len()
        );
        let expected = [&[(0x81, 2, bulk), (0x02, 2, bulk)][..], &rest].concat();
        assert_eq!(settings(&configuration), [vec![], expected]);
    }
}

/// What chapter 9 wants of a device with a qualifier: USB 2.0 §9.6.4, `usbtest` case 9.
#[test]
fn a_high_speed_device_says_how_it_would_look_at_full_speed() {
    let mut host = chosen(Zero::high_speed(Pattern::Zeros));
    let other = host.control(0x80, 6, 0x0700, 0, 256).unwrap();
    assert_eq!((other[1], usize::from(u16::from_le_bytes([other[2], other[3]]))), (7, other.len()));
    let expected =
        [(0x81, 2, 64), (0x02, 2, 64), (0x83, 3, 64), (0x04, 3, 64), (0x85, 1, 1023), (0x06, 1, 1023)];
    assert_eq!(settings(&other)[1], expected);
    assert_eq!(zero(Pattern::Zeros).control(0x80, 6, 0x0700, 0, 256), Err(Failure::Stall));
}

#[test]
fn endpoints_are_there_in_their_setting_only() {
    let mut host = Host::new(Zero::new(Pattern::Zeros));
    assert_eq!(host.control(0x81, 10, 0, 0, 1), Ok(vec![0]));
    let id = host.input(1024);
    assert_eq!(result(&host, id), Some(Err(Failure::InvalidArgument)));
    assert_eq!(host.control(0x82, 0, 0, 0x81, 2), Err(Failure::Stall));

    assert_eq!(host.control(0x01, 11, 1, 0, 0), DONE);
    assert_eq!(host.control(0x81, 10, 0, 0, 1), Ok(vec![1]));
    let id = host.input(1024);
    assert_eq!(result(&host, id), Some(Ok(())));
    assert_eq!(host.control(0x82, 0, 0, 0x81, 2), Ok(vec![0, 0]));

    assert_eq!(host.control(0x01, 11, 2, 0, 0), Err(Failure::Stall), "no such setting");
    assert_eq!(host.control(0x81, 10, 0, 0, 1), Ok(vec![1]), "the setting stays");
    assert_eq!(host.control(0x00, 9, 1, 0, 0), DONE);
    assert_eq!(host.control(0x81, 10, 0, 0, 1), Ok(vec![0]), "a configuration begins with setting 0");
}

#[test]
fn a_setting_starts_its_endpoints_over() {
    let mut host = zero(Pattern::Zeros);
    assert_eq!(host.control(0x02, 3, 0, 0x81, 0), DONE);
    let waiting = submit_packets(&mut host, Direction::In, &[1024]);
    assert_eq!(host.control(0x01, 11, 1, 0, 0), DONE);
    host.poll();
    assert_eq!(result(&host, waiting), Some(Err(Failure::Cancelled)));
    let id = host.input(1024);
    assert_eq!(result(&host, id), Some(Ok(())), "not halted");
}

#[test]
fn a_source_gives_whole_packets_of_the_pattern() {
    let mut host = zero(Pattern::Mod63);
    let id = host.input(4096);
    assert_eq!(host.got(id), mod63(4096, 1024));
    let id = host.submit(interrupt(Direction::In), Transfer::Interrupt, Payload::In { max: 1024 });
    assert_eq!(host.got(id), mod63(1024, 64));
    let mut host = zero(Pattern::Zeros);
    let id = host.input(1 << 20);
    assert_eq!(host.got(id), vec![0; 1 << 20]);
}

/// `usbtest` case 4 with lengths that are not a multiple of the packet: EOVERFLOW, as with any device.
#[test]
fn room_for_less_than_a_packet_is_a_babble() {
    let mut host = zero(Pattern::Zeros);
    let id = host.input(1024 + 421);
    let end = host.end(id).unwrap();
    assert_eq!((end.result, end.moved.len()), (Err(Failure::Overflow), 1445));
    let id = host.input(1024);
    assert_eq!(result(&host, id), Some(Ok(())), "it does not halt");
}

#[test]
fn a_sink_takes_the_pattern_and_halts_at_anything_else() {
    for (pattern, right) in [(Pattern::Zeros, vec![0; 3000]), (Pattern::Mod63, mod63(3000, 1024))] {
        let mut host = zero(pattern);
        for length in [0, 1, 512, 1024, 3000] {
            let id = host.output(right[..length].to_vec());
            assert_eq!(host.end(id).map(|end| (end.result, end.moved.len())), Some((Ok(()), length as u32)));
        }
        let mut wrong = right;
        wrong[2999] ^= 1;
        let (first, second) = (host.output(wrong), host.output(vec![0]));
        for id in [first, second] {
            assert_eq!(result(&host, id), Some(Err(Failure::Stall)), "{pattern:?}");
        }
        assert_eq!(host.control(0x82, 0, 0, 0x02, 2), Ok(vec![1, 0]));
        assert_eq!(host.control(0x02, 1, 0, 0x02, 0), DONE);
        let id = host.output(vec![0]);
        assert_eq!(result(&host, id), Some(Ok(())));
    }
}

#[test]
fn interrupt_endpoints_are_source_and_sink_too() {
    let mut host = zero(Pattern::Mod63);
    let out = interrupt(Direction::Out);
    let id = host.submit(out, Transfer::Interrupt, Payload::Out(mod63(1024, 64).into()));
    assert_eq!(result(&host, id), Some(Ok(())));
    let id = host.submit(out, Transfer::Interrupt, Payload::Out(mod63(1024, 1024).into()));
    assert_eq!(result(&host, id), Some(Err(Failure::Stall)));
}

/// `usbtest` cases 14 and 21.
#[test]
fn what_a_vendor_request_writes_another_reads_back() {
    let mut host = zero(Pattern::Zeros);
    for length in [1u16, 64, 1023, 1024, 4096, u16::MAX] {
        let bytes: Bytes = (0..length).map(|n| n as u8).collect();
        let setup = Setup { request_type: 0x40, request: 0x5b, value: 0, index: 0, length };
        let id = host.submit(Endpoint::CONTROL, Transfer::Control(setup), Payload::Out(bytes.clone()));
        let end = host.end(id).map(|end| (end.result, end.moved.clone()));
        assert_eq!(end, Some((Ok(()), Moved::Out(length.into()))));
        assert_eq!(host.control(0xc0, 0x5c, 0, 0, length), Ok(bytes.to_vec()));
    }
    assert_eq!(host.control(0xc0, 0x5d, 0, 0, 1), Err(Failure::Stall));
}

/// `usbtest` case 13, for each endpoint that can halt.
#[test]
fn a_halt_can_be_set_and_cleared_on_every_bulk_and_interrupt_endpoint() {
    let mut host = zero(Pattern::Zeros);
    let interrupts = [interrupt(Direction::In), interrupt(Direction::Out)];
    for endpoint in [bulk_in(), bulk_out()].into_iter().chain(interrupts) {
        let address = u16::from(endpoint.address());
        let io = |host: &mut Host<Zero>| {
            let payload = match endpoint.direction() {
                Direction::In => Payload::In { max: 1024 },
                Direction::Out => Payload::Out(vec![0; 1024].into()),
            };
            let id = host.submit(endpoint, Transfer::Bulk { stream: 0 }, payload);
            result(host, id)
        };
        assert_eq!(io(&mut host), Some(Ok(())));
        assert_eq!(host.control(0x02, 3, 0, address, 0), DONE);
        assert_eq!(host.control(0x82, 0, 0, address, 2), Ok(vec![1, 0]));
        assert_eq!([io(&mut host), io(&mut host)], [Some(Err(Failure::Stall)); 2]);
        assert_eq!(host.control(0x02, 1, 0, address, 0), DONE);
        assert_eq!(host.control(0x82, 0, 0, address, 2), Ok(vec![0, 0]));
        assert_eq!(io(&mut host), Some(Ok(())));
    }
}

#[test]
fn packets_come_one_in_each_interval_and_end_together() {
    let mut host = zero(Pattern::Mod63);
    let id = submit_packets(&mut host, Direction::In, &[1024, 1024, 2000]);
    assert_eq!(host.function.deadline(), Some(MILLISECOND * 3));
    host.now = MILLISECOND * 3 - Duration::from_nanos(1);
    assert!(host.poll().is_empty());
    host.now = MILLISECOND * 3;
    assert_eq!(host.poll(), [id]);
    let Completion { result, packets, lane, .. } = host.end(id).unwrap();
    let whole = PacketEnd { moved: 1024, result: Ok(()) };
    assert_eq!((*result, &packets[..], *lane), (Ok(()), &[whole; 3][..], Lane::Iso));
    assert_eq!(data(host.end(id).unwrap()), mod63(1024, 1024).repeat(3));
    assert_eq!(host.function.deadline(), None);
}

#[test]
fn packets_go_out_as_they_are() {
    let mut host = zero(Pattern::Zeros);
    let id = submit_packets(&mut host, Direction::Out, &[1024, 0, 7, 1025]);
    host.now = MILLISECOND * 4;
    host.poll();
    let end = host.end(id).unwrap();
    let taken = |moved| PacketEnd { moved, result: Ok(()) };
    let refused = PacketEnd { moved: 0, result: Err(Failure::InvalidArgument) };
    assert_eq!((&end.packets[..], end.result), (&[taken(1024), taken(0), taken(7), refused][..], Ok(())));
    assert_eq!(end.moved, Moved::Out(1031));
}

#[test]
fn a_packet_without_room_is_a_babble_and_the_others_are_not() {
    let mut host = zero(Pattern::Zeros);
    let id = submit_packets(&mut host, Direction::In, &[1024, 100, 1024]);
    host.now = MILLISECOND * 3;
    host.poll();
    let end = host.end(id).unwrap();
    let results: Vec<_> = end.packets.iter().map(|packet| packet.result).collect();
    assert_eq!((results, end.moved.len()), (vec![Ok(()), Err(Failure::Overflow), Ok(())], 2148));
}

#[test]
fn a_queue_of_packets_keeps_time_even_if_nobody_looks_in_time() {
    let mut host = zero(Pattern::Zeros);
    let queue: Vec<_> = (0..4).map(|_| submit_packets(&mut host, Direction::In, &[1024; 8])).collect();
    host.now = MILLISECOND * 17;
    assert_eq!(host.poll(), queue[..2]);
    assert_eq!(host.function.deadline(), Some(MILLISECOND * 24));
    host.now = MILLISECOND * 200;
    assert_eq!(host.poll(), queue[2..3], "what comes after a long silence has its whole time");
    assert_eq!(host.function.deadline(), Some(MILLISECOND * 208));
}

#[test]
fn cancelled_packets_end_at_once_and_those_behind_them_have_their_own_time() {
    let mut host = zero(Pattern::Zeros);
    let queue: Vec<_> = (0..3).map(|_| submit_packets(&mut host, Direction::In, &[1024; 8])).collect();
    host.now = MILLISECOND;
    host.function.cancel(isochronous(Direction::In), queue[1]);
    assert_eq!(host.poll(), [queue[1], queue[0]], "newest first");
    for id in &queue[..2] {
        let end = host.end(*id).unwrap();
        assert_eq!((end.result, end.packets.len()), (Err(Failure::Cancelled), 0));
    }
    assert_eq!(host.function.deadline(), Some(MILLISECOND * 9));
    host.now = MILLISECOND * 9;
    assert_eq!(host.poll(), queue[2..]);
}

#[test]
fn isochronous_transfers_need_an_isochronous_endpoint() {
    let mut host = zero(Pattern::Zeros);
    let packets = Packets::new(&[64]).unwrap();
    let id = host.submit(bulk_in(), Transfer::Isochronous(packets), Payload::In { max: 64 });
    assert_eq!(result(&host, id), Some(Err(Failure::InvalidArgument)));
    let bulk = Transfer::Bulk { stream: 0 };
    let id = host.submit(isochronous(Direction::In), bulk, Payload::In { max: 64 });
    assert_eq!(result(&host, id), Some(Err(Failure::InvalidArgument)));
}
