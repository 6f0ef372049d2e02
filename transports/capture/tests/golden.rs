//! The bytes of a capture, spaced by field, as Wireshark reads them.

use std::time::Duration;

use bytes::Bytes;
use capture::{Asked, Capture};
use wire::{
    Lane,
    usb::{
        Completion, DeviceId, Direction, Endpoint, Failure, Moved, PacketEnd, Packets, Payload, Request,
        RequestId, Setup, Transfer,
    },
};

const AT: Duration = Duration::new(1_700_000_000, 123_456_789);
/// AT in microseconds, the two halves of the time stamp, and the same in a usbmon header.
const STAMP: &str = "240a0600 40222018";
const SECONDS: &str = "00f15365 00000000 40e20100";

/// Bytes written as pairs of digits, spaced by field.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// What is written after the beginning of the file.
fn written(snap: usize, write: impl FnOnce(&mut Capture<&mut Vec<u8>>)) -> Vec<u8> {
    let mut out = Vec::new();
    Capture::new(&mut out, "host", snap).unwrap();
    let beginning = out.len();
    out.clear();
    write(&mut Capture::new(&mut out, "host", snap).unwrap());
    out.split_off(beginning)
}

fn request(endpoint: u8, transfer: Transfer, payload: Payload) -> Request {
    let endpoint = Endpoint::from_address(endpoint).unwrap();
    Request { id: RequestId(0x1122), device: DeviceId(5), endpoint, transfer, payload }
}

fn end(result: Result<(), Failure>, moved: Moved, packets: Vec<PacketEnd>) -> Completion {
    Completion { id: RequestId(0x1122), result, moved, packets, lane: Lane::Int }
}

fn get_descriptor() -> Request {
    let setup = Setup { request_type: 0x80, request: 6, value: 0x0100, index: 0, length: 18 };
    request(0, Transfer::Control(setup), Payload::In { max: 18 })
}

/// An enhanced packet block: lengths, then what is in it.
fn block(packet: &str, missing: usize) -> Vec<u8> {
    let packet = hex(packet);
    let padded = packet.len().next_multiple_of(4);
    let length = (32 + padded as u32).to_le_bytes();
    let (captured, original) = (packet.len() as u32, (packet.len() + missing) as u32);
    let mut all = [&[6, 0, 0, 0][..], &length, &[0; 4], &hex(STAMP)].concat();
    all.extend(captured.to_le_bytes());
    all.extend(original.to_le_bytes());
    all.extend(&packet);
    all.resize(28 + padded, 0);
    all.extend(length);
    all
}

#[test]
fn a_file_begins_with_a_section_and_a_usbmon_interface() {
    let mut out = Vec::new();
    Capture::new(&mut out, "host", 0x1_0000).unwrap();
    let section = "0a0d0d0a 2c000000 4d3c2b1a 0100 0000 ffffffffffffffff
                   0400 0600 466172627573 0000  0000 0000  2c000000";
    let interface = "01000000 28000000 dc00 0000 40080100
                     0200 0400 686f7374  0900 0100 06 000000  0000 0000  28000000";
    assert_eq!(out, [hex(section), hex(interface)].concat());
}

#[test]
fn a_control_transfer_is_a_submission_with_its_setup_and_an_end_with_its_data() {
    let asked = get_descriptor();
    let done = end(Ok(()), Moved::In(Bytes::from_static(&[0x12, 0x01, 0x00])), Vec::new());
    let bytes = written(1024, |capture| {
        capture.submitted(AT, &asked).unwrap();
        capture.ended(AT, Asked::of(&asked), &done).unwrap();
    });
    //                      id               S  ctl ep dev bus  setup data
    let submitted = format!(
        "2211000000000000 53 02 80 05 0100 00 3c {SECONDS} 8dffffff 12000000 00000000
         80 06 0001 0000 1200  00000000 00000000 00020000 00000000"
    );
    let ended = format!(
        "2211000000000000 43 02 80 05 0100 2d 00 {SECONDS} 00000000 03000000 03000000
         00000000 00000000  00000000 00000000 00020000 00000000  120100"
    );
    assert_eq!(bytes, [block(&submitted, 0), block(&ended, 0)].concat());
}

#[test]
fn an_isochronous_transfer_has_a_descriptor_for_each_packet() {
    let packets = Packets::new(&[1024, 8]).unwrap();
    let asked = request(0x85, Transfer::Isochronous(packets), Payload::In { max: 1032 });
    let ends =
        vec![PacketEnd { moved: 2, result: Ok(()) }, PacketEnd { moved: 0, result: Err(Failure::Fault) }];
    let done = end(Ok(()), Moved::In(Bytes::from_static(&[0xaa, 0xbb])), ends);
    let bytes = written(1024, |capture| {
        capture.submitted(AT, &asked).unwrap();
        capture.ended(AT, Asked::of(&asked), &done).unwrap();
    });
    let submitted = format!(
        "2211000000000000 53 00 85 05 0100 2d 3c {SECONDS} 8dffffff 08040000 20000000
         00000000 02000000  00000000 00000000 02020000 02000000
         eeffffff 00000000 00040000 00000000  eeffffff 00040000 08000000 00000000"
    );
    let ended = format!(
        "2211000000000000 43 00 85 05 0100 2d 00 {SECONDS} 00000000 02000000 22000000
         01000000 02000000  00000000 00000000 02020000 02000000
         00000000 00000000 02000000 00000000  b9ffffff 02000000 00000000 00000000  aabb"
    );
    assert_eq!(bytes, [block(&submitted, 0), block(&ended, 0)].concat());
}

#[test]
fn data_out_stand_with_the_submission_and_are_cut_at_the_snap_length() {
    let asked = request(0x02, Transfer::Bulk { stream: 0 }, Payload::Out(Bytes::from_static(b"abcdefg")));
    let done = end(Err(Failure::Stall), Moved::Out(7), Vec::new());
    let bytes = written(4, |capture| {
        capture.submitted(AT, &asked).unwrap();
        capture.ended(AT, Asked::of(&asked), &done).unwrap();
    });
    let submitted = format!(
        "2211000000000000 53 03 02 05 0100 2d 00 {SECONDS} 8dffffff 07000000 04000000
         00000000 00000000  00000000 00000000 00000000 00000000  61626364"
    );
    let ended = format!(
        "2211000000000000 43 03 02 05 0100 2d 3e {SECONDS} e0ffffff 07000000 00000000
         00000000 00000000  00000000 00000000 00000000 00000000"
    );
    assert_eq!(bytes, [block(&submitted, 3), block(&ended, 0)].concat());
}

/// Where the letter and the status of the first record stand.
fn letter_and_status(bytes: &[u8]) -> (u8, i32) {
    (bytes[28 + 8], i32::from_le_bytes(bytes[28 + 28..28 + 32].try_into().unwrap()))
}

#[test]
fn a_failure_is_the_error_code_that_linux_has_for_it() {
    const CASES: [(Failure, u8, i32); 6] = [
        (Failure::Cancelled, b'C', -2),
        (Failure::Stall, b'C', -32),
        (Failure::Disconnected, b'C', -108),
        (Failure::Fault, b'C', -71),
        (Failure::Overflow, b'C', -75),
        (Failure::InvalidArgument, b'E', -22),
    ];
    let input = request(0x81, Transfer::Interrupt, Payload::In { max: 8 });
    for (failure, letter, status) in CASES {
        let done = end(Err(failure), Moved::In(Bytes::new()), Vec::new());
        let bytes = written(64, |capture| capture.ended(AT, Asked::of(&input), &done).unwrap());
        assert_eq!(letter_and_status(&bytes), (letter, status), "{failure:?}");
    }
}

#[test]
fn devices_beyond_one_bus_are_on_the_next() {
    for (device, bus, address) in [(1, 1, 1), (127, 1, 127), (128, 2, 1), (0, 1, 1)] {
        let asked = Request { device: DeviceId(device), ..get_descriptor() };
        let bytes = written(64, |capture| capture.submitted(AT, &asked).unwrap());
        assert_eq!((bytes[28 + 12], bytes[28 + 11]), (bus, address), "device {device}");
    }
}

#[test]
fn the_end_of_the_file_says_how_many_records_are_missing() {
    let mut out = Vec::new();
    let mut capture = Capture::new(&mut out, "host", 64).unwrap();
    let end = Endpoint::new(1, Direction::In).unwrap();
    capture.submitted(AT, &request(end.address(), Transfer::Interrupt, Payload::In { max: 8 })).unwrap();
    assert_eq!(capture.finish(AT, 7).unwrap(), 1);
    let last = format!(
        "05000000 34000000 00000000 {STAMP}
         0400 0800 0800000000000000  0500 0800 0700000000000000  0000 0000  34000000"
    );
    assert!(out.ends_with(&hex(&last)));
}
