//! Chapter 9 as any host drives it: what every device answers. USB 2.0 §9.4.

use functions::{Disk, Function, Keyboard};
use wire::{
    Lane,
    usb::{Direction, Endpoint, Failure, Payload, RequestId, Speed, Transfer},
};

use crate::{
    bot::DONE,
    host::{Host, Memory, bulk_in, bulk_out},
};

fn keyboard() -> Host<Keyboard> {
    Host::new(Keyboard::new())
}

fn disk() -> Host<Disk<Memory>> {
    Host::new(Disk::new(Memory::new(8), "1"))
}

/// Bytes written as in `hex!`: pairs of digits, spaced by field.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn chapter_9<F: Function>(function: F) {
    let mut host = Host::new(function);
    let device = host.control(0x80, 6, 0x0100, 0, 255).unwrap();
    assert_eq!((device.len(), device[0], device[1]), (18, 18, 1));
    assert_eq!(host.control(0x80, 6, 0x0100, 0, 8).unwrap(), device[..8], "cut to wLength");
    let configuration = host.control(0x80, 6, 0x0200, 0, 255).unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([configuration[2], configuration[3]])), configuration.len());
    let mut rest = &configuration[..];
    while let [length, ..] = rest {
        rest = rest.get(usize::from(*length)..).expect("descriptors fill the configuration exactly");
    }
    for string in 0..4 {
        let text = host.control(0x80, 6, 0x0300 | string, 0x0409, 255).unwrap();
        assert_eq!((usize::from(text[0]), text[1]), (text.len(), 3), "string {string}");
    }
    let known = host.function.profile().descriptors;
    for (value, index) in [(0x0100, 0), (0x0200, 0), (0x0300, 0), (0x0301, 0x0409), (0x0303, 0x0409)] {
        let known = known.iter().filter(|d| (d.request_type, d.value, d.index) == (0x80, value, index));
        assert_eq!(known.count(), 1, "{value:#x} is known beforehand");
    }
    for known in known {
        let answer = host.control(known.request_type, 6, known.value, known.index, 4096);
        assert_eq!(answer, Ok(known.data.to_vec()), "{:#x} is known beforehand", known.value);
    }
    for (name, kind, request, value, index, answer) in [
        ("string 4", 0x80, 6, 0x0304, 0x0409, Err(Failure::Stall)),
        ("configuration 2", 0x00, 9, 2, 0, Err(Failure::Stall)),
        ("GET_CONFIGURATION", 0x80, 8, 0, 0, Ok(vec![1])),
        ("SET_ADDRESS", 0x00, 5, 7, 0, DONE),
        ("GET_STATUS", 0x80, 0, 0, 0, Ok(vec![0, 0])),
        ("GET_INTERFACE", 0x81, 10, 0, 0, Ok(vec![0])),
        ("GET_INTERFACE of another", 0x81, 10, 0, 1, Err(Failure::Stall)),
        ("SET_INTERFACE", 0x01, 11, 0, 0, DONE),
        ("SET_INTERFACE to a setting that is not there", 0x01, 11, 1, 0, Err(Failure::Stall)),
        ("endpoint status", 0x82, 0, 0, 0x81, Ok(vec![0, 0])),
        ("SET_FEATURE(ENDPOINT_HALT)", 0x02, 3, 0, 0x81, DONE),
        ("status of a halted endpoint", 0x82, 0, 0, 0x81, Ok(vec![1, 0])),
        ("CLEAR_FEATURE(ENDPOINT_HALT)", 0x02, 1, 0, 0x81, DONE),
        ("status when cleared", 0x82, 0, 0, 0x81, Ok(vec![0, 0])),
        ("an endpoint that is not there", 0x82, 0, 0, 0x8f, Err(Failure::Stall)),
        ("a vendor request", 0xc0, 0x51, 0, 0, Err(Failure::Stall)),
        ("SET_CONFIGURATION 0", 0x00, 9, 0, 0, DONE),
        ("GET_CONFIGURATION when there is none", 0x80, 8, 0, 0, Ok(vec![0])),
        ("GET_INTERFACE before it is configured", 0x81, 10, 0, 0, Err(Failure::Stall)),
        ("SET_INTERFACE before it is configured", 0x01, 11, 0, 0, Err(Failure::Stall)),
        ("GET_CONFIGURATION after that", 0x80, 8, 0, 0, Ok(vec![0])),
        ("endpoint 0 always has a status", 0x82, 0, 0, 0, Ok(vec![0, 0])),
        ("other endpoints have none", 0x82, 0, 0, 0x81, Err(Failure::Stall)),
    ] {
        assert_eq!(host.control(kind, request, value, index, 2), answer, "{name}");
    }
}

#[test]
fn every_function_answers_chapter_9() {
    chapter_9(Keyboard::new());
    chapter_9(Keyboard::full_speed());
    chapter_9(Disk::new(Memory::new(8), "1"));
    chapter_9(Disk::high_speed(Memory::new(8), "1"));
}

#[test]
fn the_keyboards_reports_are_known_beforehand() {
    let known = Keyboard::new().profile().descriptors;
    assert!(known.iter().any(|d| (d.request_type, d.value, d.data.len()) == (0x81, 0x2200, 63)));
}

#[test]
fn the_configurations_are_these() {
    let keyboard = "09 02 2200 01 01 00 80 32  09 04 00 00 01 03 01 01 00  09 21 1101 00 01 22 3f00
                    07 05 81 03 0800 04";
    assert_eq!(self::keyboard().control(0x80, 6, 0x0200, 0, 255), Ok(hex(keyboard)));
    let disk = "09 02 2c00 01 01 00 80 32  09 04 00 00 02 08 06 50 00
                07 05 81 02 0004 00  06 30 00 00 0000
                07 05 02 02 0004 00  06 30 00 00 0000";
    assert_eq!(self::disk().control(0x80, 6, 0x0200, 0, 255), Ok(hex(disk)));
}

#[test]
fn the_speed_decides_version_qualifier_and_bos() {
    let mut table = Vec::new();
    let mut look = |speed, device: Vec<u8>, qualifier: bool, bos: Option<Vec<u8>>| {
        let complete = bos.is_some_and(|b| usize::from(u16::from_le_bytes([b[2], b[3]])) == b.len());
        table.push((speed, u16::from_le_bytes([device[2], device[3]]), qualifier, complete));
    };
    macro_rules! look {
        ($function:expr) => {{
            let mut host = Host::new($function);
            let speed = host.function.speed();
            let device = host.control(0x80, 6, 0x0100, 0, 18).unwrap();
            let qualifier = host.control(0x80, 6, 0x0600, 0, 10).is_ok_and(|q| q.len() == 10);
            look(speed, device, qualifier, host.control(0x80, 6, 0x0f00, 0, 255).ok());
        }};
    }
    look!(Keyboard::full_speed());
    look!(Keyboard::new());
    look!(Disk::new(Memory::new(8), "1"));
    let expected = [
        (Speed::Full, 0x0110, false, false),
        (Speed::High, 0x0200, true, false),
        (Speed::Super, 0x0300, false, true),
    ];
    assert_eq!(table, expected);
}

#[test]
fn a_transfer_of_the_wrong_kind_is_refused_not_kept() {
    let mut host = keyboard();
    let refused = Some(Err(Failure::InvalidArgument));
    let out = host.submit(bulk_in(), Transfer::Interrupt, Payload::Out(vec![1].into()));
    assert_eq!(host.end(out).map(|end| end.result), refused, "OUT on an IN endpoint");
    let elsewhere = Endpoint::new(5, Direction::In).unwrap();
    let id = host.submit(elsewhere, Transfer::Interrupt, Payload::In { max: 8 });
    assert_eq!(host.end(id).map(|end| end.result), refused, "no such endpoint");
    let id = host.submit(Endpoint::CONTROL, Transfer::Interrupt, Payload::In { max: 8 });
    assert_eq!(host.end(id).map(|end| end.result), refused, "no interrupt transfer on endpoint 0");
}

#[test]
fn a_new_configuration_cancels_what_waits_and_clears_halts() {
    let mut host = disk();
    let waiting = host.input(512);
    assert_eq!(host.control(0x02, 3, 0, 0x02, 0), DONE);
    assert_eq!(host.control(0x00, 9, 1, 0, 0), DONE);
    assert_eq!(host.end(waiting).map(|end| end.result), Some(Err(Failure::Cancelled)));
    assert_eq!(host.control(0x82, 0, 0, 0x02, 2), Ok(vec![0, 0]));
}

#[test]
fn a_halt_ends_what_waits_behind_it_so_that_clearing_it_starts_anew() {
    let mut host = disk();
    let (first, second) = (host.input(512), host.input(512));
    assert_eq!(host.control(0x02, 3, 0, 0x81, 0), DONE);
    for id in [first, second] {
        assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::Stall)));
    }
    assert_eq!(host.control(0x02, 1, 0, 0x81, 0), DONE);
    let third = host.input(512);
    assert!(host.end(third).is_none());
}

#[test]
fn a_port_reset_cancels_what_waits_and_what_comes_late() {
    let mut host = disk();
    let (first, second) = (host.input(512), host.input(512));
    assert_eq!(host.function.reset(RequestId(second.0 + 1)), Ok(()));
    host.poll();
    let late = host.input(512);
    for id in [first, second, late] {
        assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::Cancelled)), "{id:?}");
    }
    assert_eq!(host.control(0x80, 8, 0, 0, 1), Ok(vec![0]), "it is not configured");
}

#[test]
fn plugged_into_another_host_it_forgets_the_ids_of_the_last() {
    let mut host = disk();
    let waiting = host.input(512);
    host.function.cancel(bulk_out(), RequestId(1000));
    host.function.replug();
    assert!(host.poll().is_empty(), "{waiting:?} has no end");
    assert_eq!(host.control(0x00, 9, 1, 0, 0), DONE);
    let id = host.output(vec![0; 31]);
    assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::Stall)), "not cancelled");
}

#[test]
fn what_may_wait_is_bounded_in_number_and_bytes() {
    let mut host = keyboard();
    let taken = (0..20_000).take_while(|_| {
        let id = host.submit(bulk_in(), Transfer::Interrupt, Payload::In { max: 8 });
        host.end(id).is_none()
    });
    assert_eq!(taken.count(), 16 << 10);

    let mut host = disk();
    // Nobody polls: a link that stands still.
    let id = (0..150).map(|_| host.submit_out_unasked(1 << 20)).last().unwrap();
    let ended = std::iter::from_fn(|| host.function.poll(host.now, Lane::Bulk));
    let refused = ended.filter(|end| end.result == Err(Failure::Fault)).map(|end| end.id).collect::<Vec<_>>();
    assert_eq!((refused.len(), refused.last()), (22, Some(&id)));
}
