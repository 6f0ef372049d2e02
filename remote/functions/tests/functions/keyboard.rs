//! Chapter 9 as any host drives it, and the keyboard.

use crate::host::{Host, Memory};
use functions::{Disk, Full, Function, Keyboard, Stroke};
use wire::usb::{Direction, Endpoint, Failure, Payload, RequestId, Transfer};

fn interrupt_in() -> Endpoint {
    Endpoint::new(1, Direction::In).unwrap()
}

fn keyboard() -> Host<Keyboard> {
    Host::new(Keyboard::new())
}

fn press(host: &mut Host<Keyboard>, usage: u8) -> Result<(), Full> {
    let mut out = Vec::new();
    let result = host.function.press(Stroke { modifiers: 2, usage }, &mut out);
    host.keep(out);
    result
}

fn poll(host: &mut Host<Keyboard>) -> RequestId {
    host.submit(interrupt_in(), Transfer::Interrupt, Payload::In { max: 8 })
}

#[test]
fn every_report_arrives_in_order_and_a_tap_is_two_of_them() {
    let mut host = keyboard();
    let early = poll(&mut host);
    assert!(host.end(early).is_none(), "nothing is pressed");
    for usage in 4..34 {
        press(&mut host, usage).unwrap();
    }
    assert_eq!(host.got(early), [2, 0, 4, 0, 0, 0, 0, 0]);
    for n in 1..60u8 {
        let id = poll(&mut host);
        let expected = if n % 2 == 0 { [2, 0, 4 + n / 2, 0, 0, 0, 0, 0] } else { [0; 8] };
        assert_eq!(host.got(id), expected, "report {n}");
    }
    let last = poll(&mut host);
    assert!(host.end(last).is_none());
}

#[test]
fn a_full_queue_refuses_a_key_whole_and_takes_it_later() {
    let mut host = keyboard();
    let taken = (0..10_000).take_while(|_| press(&mut host, 4).is_ok()).count();
    assert_eq!(taken * 2, host.function.waiting());
    assert_eq!(press(&mut host, 4), Err(Full));
    poll(&mut host);
    poll(&mut host);
    assert_eq!(press(&mut host, 4), Ok(()));
}

#[test]
fn the_host_sets_the_leds_and_both_protocols() {
    let mut host = keyboard();
    let setup = wire::usb::Setup { request_type: 0x21, request: 9, value: 0x0200, index: 0, length: 1 };
    host.submit(Endpoint::CONTROL, Transfer::Control(setup), Payload::Out(vec![0b010].into()));
    assert_eq!(host.function.leds(), 0b010);
    for protocol in [0, 1] {
        assert_eq!(host.control(0x21, 11, protocol, 0, 0), Ok(Vec::new()));
        assert_eq!(host.control(0xa1, 3, 0, 0, 1), Ok(vec![protocol as u8]));
    }
    assert_eq!(host.control(0x21, 11, 2, 0, 0), Err(Failure::Stall));
}

#[test]
fn the_hid_descriptor_says_how_long_the_report_descriptor_is() {
    let mut host = keyboard();
    let hid = host.control(0x81, 6, 0x2100, 0, 255).unwrap();
    let report = host.control(0x81, 6, 0x2200, 0, 255).unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([hid[7], hid[8]])), report.len());
}

/// USB 2.0 §9.4: what every device answers.
fn chapter_9<F: Function>(host: &mut Host<F>, endpoint: u16) {
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
    assert_eq!(host.control(0x80, 6, 0x0304, 0x0409, 255), Err(Failure::Stall));
    assert_eq!(host.control(0x00, 9, 2, 0, 0), Err(Failure::Stall), "there is no configuration 2");
    assert_eq!(host.control(0x80, 8, 0, 0, 1), Ok(vec![1]));
    assert_eq!(host.control(0x82, 0, 0, endpoint, 2), Ok(vec![0, 0]));
    assert_eq!(host.control(0x02, 3, 0, endpoint, 0), Ok(Vec::new()), "SET_FEATURE(ENDPOINT_HALT)");
    assert_eq!(host.control(0x82, 0, 0, endpoint, 2), Ok(vec![1, 0]));
    assert_eq!(host.control(0x02, 1, 0, endpoint, 0), Ok(Vec::new()));
    assert_eq!(host.control(0x82, 0, 0, endpoint, 2), Ok(vec![0, 0]));
    assert_eq!(host.control(0x82, 0, 0, 0x8f, 2), Err(Failure::Stall), "no such endpoint");
    assert_eq!(host.control(0xc0, 0x51, 0, 0, 2), Err(Failure::Stall), "no vendor requests");
}

#[test]
fn both_functions_answer_chapter_9() {
    chapter_9(&mut keyboard(), 0x81);
    chapter_9(&mut Host::new(Disk::new(Memory::new(8), "1")), 0x81);
}

#[test]
fn only_a_superspeed_device_has_a_bos() {
    let mut disk = Host::new(Disk::new(Memory::new(8), "1"));
    let bos = disk.control(0x80, 6, 0x0f00, 0, 255).unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([bos[2], bos[3]])), bos.len());
    assert_eq!(keyboard().control(0x80, 6, 0x0f00, 0, 255), Err(Failure::Stall));
}

#[test]
fn a_transfer_of_the_wrong_kind_is_refused_not_kept() {
    let mut host = keyboard();
    let out = host.submit(interrupt_in(), Transfer::Interrupt, Payload::Out(vec![1].into()));
    assert_eq!(host.end(out).map(|end| end.result), Some(Err(Failure::InvalidArgument)));
    let elsewhere = Endpoint::new(5, Direction::In).unwrap();
    let id = host.submit(elsewhere, Transfer::Interrupt, Payload::In { max: 8 });
    assert_eq!(host.end(id).map(|end| end.result), Some(Err(Failure::InvalidArgument)));
}
