//! The keyboard.

use std::time::Duration;

use functions::{CannotType, Full, Keyboard, NoKey, Stroke};
use wire::usb::{Endpoint, Failure, Payload, RequestId, Setup, Transfer};

use crate::{
    bot::DONE,
    host::{Host, bulk_in as interrupt_in},
};

fn keyboard() -> Host<Keyboard> {
    Host::new(Keyboard::new())
}

fn press(host: &mut Host<Keyboard>, usage: u8) -> Result<(), Full> {
    let result = host.function.press(Stroke { modifiers: 2, usage });
    host.poll();
    result
}

fn ask(host: &mut Host<Keyboard>) -> RequestId {
    host.submit(interrupt_in(), Transfer::Interrupt, Payload::In { max: 8 })
}

#[test]
fn every_report_arrives_in_order_and_a_tap_is_two_of_them() {
    let mut host = keyboard();
    let early = ask(&mut host);
    assert!(host.end(early).is_none(), "nothing is pressed");
    for usage in 4..34 {
        press(&mut host, usage).unwrap();
    }
    assert_eq!(host.got(early), [2, 0, 4, 0, 0, 0, 0, 0]);
    for n in 1..60u8 {
        let id = ask(&mut host);
        let expected = if n % 2 == 0 { [2, 0, 4 + n / 2, 0, 0, 0, 0, 0] } else { [0; 8] };
        assert_eq!(host.got(id), expected, "report {n}");
    }
    let last = ask(&mut host);
    assert!(host.end(last).is_none());
}

#[test]
fn it_knows_which_presses_the_host_has_read() {
    let mut host = keyboard();
    press(&mut host, 4).unwrap();
    press(&mut host, 5).unwrap();
    let mut read = Vec::new();
    for _ in 0..4 {
        ask(&mut host);
        read.push((host.function.presses_read(), host.function.waiting()));
    }
    assert_eq!(read, [(1, 3), (1, 2), (2, 1), (2, 0)]);
}

#[test]
fn a_full_queue_refuses_a_key_whole_and_takes_it_later() {
    let mut host = keyboard();
    let taken = (0..10_000).take_while(|_| press(&mut host, 4).is_ok()).count();
    assert_eq!(taken * 2, host.function.waiting());
    assert_eq!(press(&mut host, 4), Err(Full));
    ask(&mut host);
    assert_eq!(press(&mut host, 4), Err(Full), "half a key has no room");
    ask(&mut host);
    assert_eq!(press(&mut host, 4), Ok(()));
}

#[test]
fn a_text_is_typed_whole_or_not_at_all() {
    let mut host = keyboard();
    assert_eq!(host.function.type_text("Hä"), Err(CannotType::NoKey(NoKey::Character('ä'))));
    assert_eq!(host.function.type_text(&"x".repeat(513)), Err(CannotType::Full(Full)));
    assert_eq!(host.function.waiting(), 0);
    host.function.type_text("H!").unwrap();
    let ids: Vec<_> = (0..4).map(|_| ask(&mut host)).collect();
    let read: Vec<_> = ids.into_iter().map(|id| (host.got(id)[0], host.got(id)[2])).collect();
    assert_eq!(read, [(2, 0x0b), (0, 0), (2, 0x1e), (0, 0)]);
}

#[test]
fn the_host_sets_the_leds_and_both_protocols() {
    let mut host = keyboard();
    let setup = Setup { request_type: 0x21, request: 9, value: 0x0200, index: 0, length: 1 };
    host.submit(Endpoint::CONTROL, Transfer::Control(setup), Payload::Out(vec![0b010].into()));
    assert_eq!(host.function.leds(), 0b010);
    assert_eq!(host.control(0xa1, 1, 0x0200, 0, 1), Ok(vec![0b010]));
    for protocol in [0, 1] {
        assert_eq!(host.control(0x21, 11, protocol, 0, 0), DONE);
        assert_eq!(host.control(0xa1, 3, 0, 0, 1), Ok(vec![protocol as u8]));
    }
    assert_eq!(host.control(0x21, 11, 2, 0, 0), Err(Failure::Stall));
}

#[test]
fn the_last_report_can_be_asked_for_and_takes_nothing_away() {
    let mut host = keyboard();
    press(&mut host, 7).unwrap();
    assert_eq!(host.control(0xa1, 1, 0x0100, 0, 8), Ok(vec![0; 8]), "not read yet");
    let id = ask(&mut host);
    assert_eq!(host.control(0xa1, 1, 0x0100, 0, 8), Ok(host.got(id)));
}

/// HID 1.11 §7.2.4.
#[test]
fn with_an_idle_time_the_last_report_is_said_again_and_without_it_is_not() {
    let mut host = keyboard();
    press(&mut host, 4).unwrap();
    for _ in 0..2 {
        ask(&mut host);
    }
    let waiting = ask(&mut host);
    assert_eq!(functions::Function::deadline(&host.function), None);
    assert_eq!(host.control(0x21, 10, 0x0800, 0, 0), DONE, "SET_IDLE: 8 x 4 ms");
    assert_eq!(host.control(0xa1, 2, 0, 0, 1), Ok(vec![8]));
    assert_eq!(functions::Function::deadline(&host.function), Some(Duration::from_millis(32)));
    host.now = Duration::from_millis(31);
    assert!(host.poll().is_empty());
    host.now = Duration::from_millis(32);
    assert_eq!(host.poll(), [waiting]);
    let next = ask(&mut host);
    assert_eq!(functions::Function::deadline(&host.function), Some(Duration::from_millis(64)));
    press(&mut host, 5).unwrap();
    assert_eq!(host.got(next), [2, 0, 5, 0, 0, 0, 0, 0], "a change does not wait");
}

#[test]
fn the_hid_descriptor_says_how_long_the_report_descriptor_is() {
    let mut host = keyboard();
    let hid = host.control(0x81, 6, 0x2100, 0, 255).unwrap();
    let report = host.control(0x81, 6, 0x2200, 0, 255).unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([hid[7], hid[8]])), report.len());
}
