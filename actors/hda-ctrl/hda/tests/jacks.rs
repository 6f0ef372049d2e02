//! What a guest learns of its jacks: unsolicited responses, pin sense, and waking up. HDA 1.0a §3.6.2, §7.3.3.14.

mod common;

use common::*;
use hda::driver::{Bare, Driver, Host};
use hda::{Config, Output};
use pci::{Cx, Dma, Model, Width};
use wire::audio::Jack;

const HEADPHONE: u8 = 0x15;
const MICROPHONE: u8 = 0x18;
const TAG: u32 = 0x15;
const GCTL: u64 = 0x08;
const WAKEEN: u64 = 0x0c;
const STATESTS: u64 = 0x0e;
const RIRBWP: u64 = 0x58;
const RIRBSTS: u64 = 0x5d;

/// A driver that wants to hear of the headphone jack.
fn listening() -> Driver<Bare> {
    let mut driver = Driver::start(Bare::new(Config::default(), RAM), DRIVER).unwrap();
    driver.verb(HEADPHONE, 0x70880 | TAG).unwrap();
    driver.host().write(GCTL, Width::Dword, 0x101);
    driver.host().out.clear();
    driver
}

fn plug(bare: &mut Bare, jack: Jack, present: bool) {
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.set_jack(&mut cx, jack, present);
}

/// The last entry of the response ring.
fn last_response(bare: &mut Bare) -> (u32, u32) {
    let entry = DRIVER + 0x400 + 8 * bare.read(RIRBWP, Width::Word);
    (bare.ram.observe(entry).unwrap(), bare.ram.observe(entry + 4).unwrap())
}

#[test]
fn a_plug_is_an_unsolicited_response_after_100_ms_and_an_interrupt() {
    let mut driver = listening();
    for (present, sense) in [(true, 1 << 31), (false, 0)] {
        let before = driver.host().read(RIRBWP, Width::Word);
        plug(driver.host(), Jack::Headphone, present);
        driver.host().pass(ms(99));
        assert_eq!(driver.host().read(RIRBWP, Width::Word), before);
        assert!(driver.host().out.is_empty());
        driver.host().pass(ms(1));
        assert_eq!(driver.host().read(RIRBWP, Width::Word), before + 1);
        assert_eq!(driver.host().out, [Output::Interrupt(0)]);
        assert_eq!(last_response(driver.host()), (TAG << 26, 1 << 4), "from codec 0, unsolicited");
        assert_eq!(driver.host().hda.deadline(), None);
        driver.host().write(RIRBSTS, Width::Byte, 5);
        driver.host().out.clear();
        assert_eq!(driver.host().read(0x24, Width::Dword), 0);
        // The driver's own ring has one more entry than it has asked for: it looks without the ring.
        assert_eq!(driver.immediate(HEADPHONE, 0xf0900), Ok(sense));
    }
}

#[test]
fn a_storm_of_plugs_is_one_event_or_none() {
    let mut driver = listening();
    let before = driver.host().read(RIRBWP, Width::Word);
    for round in 0..50 {
        plug(driver.host(), Jack::Headphone, round % 2 == 0);
        driver.host().pass(ms(60));
    }
    driver.host().pass(ms(1_000));
    assert_eq!(driver.host().read(RIRBWP, Width::Word), before, "it ended as it began");
    plug(driver.host(), Jack::Headphone, true);
    driver.host().pass(ms(50));
    plug(driver.host(), Jack::Headphone, true);
    driver.host().pass(ms(50));
    assert_eq!(driver.host().read(RIRBWP, Width::Word), before + 1, "saying it again is no bounce");
}

#[test]
fn nothing_is_said_unless_controller_and_pin_let_it_but_the_sense_is_right() {
    for (name, node, verb, control) in
        [("pin disabled", HEADPHONE, 0x70800 | TAG, 0x101), ("GCTL.UNSOL is 0", HEADPHONE, 0x70880 | TAG, 1)]
    {
        let mut driver = listening();
        driver.verb(node, verb).unwrap();
        driver.host().write(GCTL, Width::Dword, control);
        let before = driver.host().read(RIRBWP, Width::Word);
        plug(driver.host(), Jack::Headphone, true);
        driver.host().pass(ms(200));
        assert_eq!(driver.host().read(RIRBWP, Width::Word), before, "{name}");
        assert_eq!(driver.host().read(STATESTS, Width::Word), 0, "{name}");
        assert_eq!(driver.immediate(HEADPHONE, 0xf0900), Ok(1 << 31), "{name}");
        assert_eq!(driver.immediate(MICROPHONE, 0xf0900), Ok(0), "{name}");
    }
}

#[test]
fn a_codec_that_sleeps_wakes_the_link_and_interrupts_if_wakeen_says_so() {
    for (enable, sent) in [(1, true), (0, false)] {
        let mut driver = listening();
        driver.verb(1, 0x70503).unwrap();
        driver.host().write(GCTL, Width::Dword, 1);
        driver.host().write(WAKEEN, Width::Word, enable);
        driver.host().out.clear();
        plug(driver.host(), Jack::Headphone, true);
        driver.host().pass(ms(100));
        assert_eq!(driver.host().read(STATESTS, Width::Word), 1);
        assert_eq!(interrupts(&driver.host().out) == 1, sent);
        driver.host().write(STATESTS, Width::Word, 1);
        assert_eq!(driver.host().read(0x24, Width::Dword), 0);
    }
}

#[test]
fn in_reset_a_plug_is_a_wake_event_as_well() {
    let mut driver = listening();
    driver.host().write(GCTL, Width::Dword, 0);
    assert_eq!(driver.host().read(STATESTS, Width::Word), 0);
    plug(driver.host(), Jack::Microphone, true);
    driver.host().pass(ms(100));
    assert_eq!(driver.host().read(STATESTS, Width::Word), 1);
}

#[test]
fn what_is_plugged_in_stays_so_through_every_reset() {
    let mut driver = listening();
    plug(driver.host(), Jack::Headphone, true);
    driver.host().pass(ms(100));
    plug(driver.host(), Jack::Microphone, true);
    let bare = driver.host();
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.reset(&mut cx);
    let bare = core::mem::replace(bare, Bare::new(Config::default(), 0));
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    assert_eq!(driver.verb(HEADPHONE, 0xf0900), Ok(1 << 31));
    assert_eq!(driver.verb(MICROPHONE, 0xf0900), Ok(0), "still bouncing");
    driver.host().pass(ms(100));
    assert_eq!(driver.verb(MICROPHONE, 0xf0900), Ok(1 << 31));
}

#[test]
fn an_unsolicited_response_that_cannot_be_stored_is_an_overrun() {
    let mut driver = listening();
    driver.host().write(0x5c, Width::Byte, 0b101);
    plug(driver.host(), Jack::Headphone, true);
    driver.host().pass(ms(100));
    assert_eq!(driver.host().read(RIRBSTS, Width::Byte), 0b100, "RIRBOIS");
    assert_eq!(interrupts(&driver.host().out), 1);
}
