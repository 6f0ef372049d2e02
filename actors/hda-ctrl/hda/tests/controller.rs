//! Finding the controller and talking to its codec, as drivers do it. HDA 1.0a §4.2 to §4.4.

mod common;

use common::*;
use hda::driver::{Bare, Driver, Error, Host};
use hda::{Config, Output};
use pci::{Cx, Device, Dma, Function, Model, Region, Width};

const GCTL: u64 = 0x08;
const WAKEEN: u64 = 0x0c;
const STATESTS: u64 = 0x0e;
const INTCTL: u64 = 0x20;
const INTSTS: u64 = 0x24;
const CORBRP: u64 = 0x4a;
const RIRBWP: u64 = 0x58;
const RINTCNT: u64 = 0x5a;
const RIRBSTS: u64 = 0x5d;
const ICS: u64 = 0x68;

fn off() -> Bare {
    Bare::new(Config::default(), RAM)
}

fn started() -> Driver<Bare> {
    Driver::start(off(), DRIVER).unwrap()
}

#[test]
fn configuration_space_is_that_of_an_ich9_sound_function() {
    let config = hda::config_space();
    let read = |at: u64, length| {
        let mut data = vec![0; length];
        config.read(at, &mut data);
        data
    };
    assert_eq!(read(0x00, 4), [0x86, 0x80, 0x3e, 0x29]);
    assert_eq!(read(0x08, 4), [3, 0x00, 0x03, 0x04]);
    assert_eq!(read(0x3d, 1), [1], "INTA#");
    assert_eq!(read(0x40, 1), [1], "HDCTL");
    assert_eq!((read(0x34, 1)[0], read(0x50, 2), read(0x60, 2)), (0x50, vec![1, 0x60], vec![5, 0]));
    assert_eq!((config.layout().bars[0], config.layout().msi), (0x4000, 1));
    let mut config = config;
    config.write(0x44, &[0xff]);
    let mut tcsel = [0];
    config.read(0x44, &mut tcsel);
    assert_eq!(tcsel, [7], "TCSEL can be written");
}

#[test]
fn the_codec_has_announced_itself_when_reset_ends() {
    let mut bare = off();
    assert_eq!((bare.read(GCTL, Width::Dword), bare.read(STATESTS, Width::Word)), (0, 0));
    bare.write(GCTL, Width::Dword, 1);
    assert_eq!((bare.read(GCTL, Width::Dword), bare.read(STATESTS, Width::Word)), (1, 1));
    bare.write(STATESTS, Width::Word, 1);
    assert_eq!(bare.read(STATESTS, Width::Word), 0);
}

#[test]
fn reset_keeps_wakeen_and_statests_and_nothing_else() {
    let mut driver = started();
    let bare = driver.host();
    bare.write(WAKEEN, Width::Word, 1);
    bare.write(INTCTL, Width::Dword, 0xc000_0001);
    bare.write(GCTL, Width::Dword, 0);
    bare.write(GCTL, Width::Dword, 1);
    assert_eq!(bare.read(STATESTS, Width::Word), 1);
    assert_eq!(bare.read(WAKEEN, Width::Word), 1);
    assert_eq!(bare.read(INTCTL, Width::Dword), 0);
    // The codec's arrival is a wake event, once that may interrupt.
    bare.out.clear();
    bare.write(INTCTL, Width::Dword, 0xc000_0000);
    assert_eq!(bare.out, [Output::Interrupt(0)]);
    assert_eq!(bare.read(INTSTS, Width::Dword), 0xc000_0000);
    bare.write(STATESTS, Width::Word, 1);
    assert_eq!(bare.read(INTSTS, Width::Dword), 0);
}

#[test]
fn the_corb_read_pointer_reset_stays_until_software_clears_it() {
    let mut driver = started();
    driver.verb(0, 0xf0000).unwrap();
    let bare = driver.host();
    assert_eq!(bare.read(CORBRP, Width::Word), 1);
    bare.write(CORBRP, Width::Word, 0x8000);
    assert_eq!(bare.read(CORBRP, Width::Word), 0x8000);
    assert_eq!(bare.read(CORBRP, Width::Word), 0x8000);
    bare.write(CORBRP, Width::Word, 0);
    // The write pointer still says 1: the command is fetched again.
    assert_eq!(bare.read(CORBRP, Width::Word), 1);
}

#[test]
fn responses_are_counted_and_told_at_the_count_or_when_the_corb_is_empty() {
    for (count, commands, told) in [(1, 3, 1), (2, 3, 1), (0, 255, 1), (200, 255, 1)] {
        let mut driver = started();
        let bare = driver.host();
        for slot in 1..=commands {
            bare.ram.publish(DRIVER + 4 * slot, 0x000f_0000).unwrap();
        }
        bare.write(RINTCNT, Width::Word, count);
        bare.out.clear();
        bare.write(0x48, Width::Word, commands);
        assert_eq!(bare.read(RIRBWP, Width::Word), commands);
        assert_eq!(bare.read(RIRBSTS, Width::Byte), 1, "RINTFL with a count of {count}");
        assert_eq!(interrupts(&bare.out), told);
        let last = bare.ram.observe(DRIVER + 0x400 + 8 * commands).unwrap();
        let extended = bare.ram.observe(DRIVER + 0x404 + 8 * commands).unwrap();
        assert_eq!((last, extended), (0xfa2b_0001, 0), "the vendor, from codec 0, solicited");
        bare.write(RIRBSTS, Width::Byte, 1);
        assert_eq!(bare.read(INTSTS, Width::Dword), 0);
    }
}

#[test]
fn the_ring_wraps_after_256_commands() {
    let mut driver = started();
    for round in 0..600 {
        assert_eq!(driver.verb(2, 0xf0009), Ok(0x41d), "round {round}");
    }
}

#[test]
fn an_absent_codec_does_not_answer() {
    let mut driver = started();
    let bare = driver.host();
    bare.write(0x60, Width::Dword, 0x300f_0000);
    bare.write(ICS, Width::Word, 1);
    assert_eq!(bare.read(ICS, Width::Word), 0, "neither busy nor valid");
    bare.ram.publish(DRIVER + 4, 0x300f_0000).unwrap();
    bare.write(0x48, Width::Word, 1);
    assert_eq!((bare.read(CORBRP, Width::Word), bare.read(RIRBWP, Width::Word)), (1, 0));
}

#[test]
fn commands_go_without_rings_too() {
    let mut driver = started();
    assert_eq!(driver.immediate(0, 0xf0000), Ok(0xfa2b_0001));
    assert_eq!(driver.immediate(0x14, 0xf1c00), Ok(0x9010_0110));
    assert_eq!(driver.host().read(ICS, Width::Word), 2);
    driver.host().write(ICS, Width::Word, 2);
    assert_eq!(driver.host().read(ICS, Width::Word), 0);
}

#[test]
fn a_flush_is_done_at_once() {
    let mut driver = started();
    let bare = driver.host();
    bare.write(GCTL, Width::Dword, 0x103);
    assert_eq!(bare.read(GCTL, Width::Dword), 0x101);
    assert_eq!(bare.read(0x10, Width::Word), 2);
    bare.write(0x10, Width::Word, 2);
    assert_eq!(bare.read(0x10, Width::Word), 0);
}

#[test]
fn completions_interrupt_only_if_stream_and_controller_let_them() {
    struct Case {
        name: &'static str,
        control: u64,
        enable: u64,
        status: u64,
        sent: bool,
    }
    #[rustfmt::skip]
    let cases = [
        Case { name: "all enabled",   control: 0x04, enable: 0x8000_0010, status: 0x8000_0010, sent: true },
        Case { name: "no IOCE",       control: 0x18, enable: 0x8000_0010, status: 0,           sent: false },
        Case { name: "no SIE",        control: 0x04, enable: 0x8000_0001, status: 0x8000_0010, sent: false },
        Case { name: "no GIE",        control: 0x04, enable: 0x0000_0010, status: 0x8000_0010, sent: false },
    ];
    for Case { name, control, enable, status, sent } in cases {
        let (mut driver, stream) = desk(STEREO);
        driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (960, false)]), 1_920).unwrap();
        let base = 0x80 + 0x20 * u64::from(stream);
        driver.host().write(base, Width::Byte, control);
        driver.host().write(INTCTL, Width::Dword, enable);
        driver.run(stream, true);
        driver.host().out.clear();
        driver.host().pass(ms(6));
        assert_eq!(driver.host().read(base + 3, Width::Byte), 0x24, "{name}: BCIS");
        assert_eq!(driver.host().read(INTSTS, Width::Dword), status, "{name}");
        assert_eq!(interrupts(&driver.host().out) == 1, sent, "{name}");
    }
}

/// HDA 1.0a §3.3.35, §3.3.36.
#[test]
fn a_descriptor_error_interrupts_only_if_the_stream_lets_it() {
    for (name, enable, sent) in [("DEIE", 0x10, true), ("IOCE and FEIE only", 0x0c, false)] {
        let (mut driver, stream) = desk(STEREO);
        driver.set_up(stream, TAG, STEREO, &buffers(&[(0, true)]), 960).unwrap();
        let base = 0x80 + 0x20 * u64::from(stream);
        driver.host().out.clear();
        driver.host().write(base, Width::Byte, 2 | enable);
        assert_eq!(driver.host().read(base + 3, Width::Byte), 0x30, "{name}: DESE");
        assert_eq!(driver.host().read(base, Width::Byte), enable, "{name}: RUN is cleared");
        assert_eq!(interrupts(&driver.host().out) == 1, sent, "{name}");
        assert_eq!(driver.host().read(INTSTS, Width::Dword) != 0, sent, "{name}");
        driver.host().write(base + 3, Width::Byte, 0x10);
        assert_eq!(driver.host().read(base + 3, Width::Byte), 0x20, "{name}");
    }
}

#[test]
fn a_completion_that_is_not_acknowledged_is_told_once_and_another_after_the_acknowledgement() {
    let (mut driver, stream) = desk(STEREO);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true), (3_840, true)]), 7_680).unwrap();
    driver.run(stream, true);
    driver.host().out.clear();
    driver.host().pass(ms(110));
    assert_eq!(interrupts(&driver.host().out), 1);
    // Acknowledged late, in one access with the control byte: a completion in this very call is not swallowed.
    let base = 0x80 + 0x20 * u64::from(stream);
    driver.host().out.clear();
    driver.host().now += ms(15);
    let control = driver.host().read(base, Width::Word) | 4 << 24;
    driver.host().out.clear();
    driver.host().now += ms(16);
    driver.host().write(base, Width::Dword, control | 5 << 20);
    assert_eq!(driver.host().read(base + 3, Width::Byte), 0x24);
    assert_eq!(interrupts(&driver.host().out), 1);
}

#[test]
fn another_source_that_stays_pending_is_told_again() {
    let (mut driver, stream) = desk(STEREO);
    for stream in [stream, stream + 1] {
        driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (960, true)]), 1_920).unwrap();
        driver.run(stream, true);
    }
    driver.host().out.clear();
    driver.host().pass(ms(6));
    assert_eq!(interrupts(&driver.host().out), 1, "both in one message");
    driver.host().out.clear();
    driver.host().write(0x83 + 0x20 * u64::from(stream), Width::Byte, 4);
    assert_eq!(driver.host().out, [Output::Interrupt(0)]);
    driver.host().out.clear();
    driver.host().write(0x83 + 0x20 * u64::from(stream + 1), Width::Byte, 4);
    assert!(driver.host().out.is_empty());
}

#[test]
fn the_interrupt_line_stays_up_until_every_source_is_cleared_or_disabled() {
    let (mut driver, stream) = desk(STEREO);
    for stream in [stream, stream + 1] {
        driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (960, true)]), 1_920).unwrap();
        driver.run(stream, true);
    }
    assert!(!driver.host().hda.interrupt_line());
    driver.host().pass(ms(6));
    let mut line = |offset: u64, width, value| {
        driver.host().write(offset, width, value);
        driver.host().hda.interrupt_line()
    };
    let status = |stream: u8| 0x83 + 0x20 * u64::from(stream);
    assert!(line(INTSTS, Width::Dword, 0xffff_ffff), "INTSTS is read-only");
    assert!(line(status(stream), Width::Byte, 4), "the other one is left");
    assert!(!line(INTCTL, Width::Dword, 0x7fff_ffff), "GIE");
    assert!(line(INTCTL, Width::Dword, 0xffff_ffff));
    assert!(!line(status(stream + 1), Width::Byte, 4));
}

#[test]
fn behind_a_function_without_bus_mastering_the_driver_gets_no_answer() {
    let mut device = Device::new(hda::config_space(), || hda::Hda::new(Config::default()));
    let ram = pci::Ram::new(0, RAM);
    let mut out = Vec::new();
    let mut turn = device.turn(ms(0), &ram, &mut out);
    let mut write = |at, data: &[u8]| turn.write(Region::Bar(0), at, data);
    write(GCTL, &[1, 0, 0, 0]);
    write(0x4c, &[3]);
    write(0x5c, &[3]);
    write(0x48, &[1, 0]);
    let mut status = [0; 2];
    turn.read(Region::Bar(0), 0x4d, &mut status[..1]);
    assert_eq!(status[0], 1, "CMEI");
}

#[test]
fn a_reset_of_the_function_stops_sound_and_forgets_everything() {
    let (mut driver, stream) = desk(STEREO);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.verb(0x14, 0x71c55).unwrap();
    driver.run(stream, true);
    driver.host().pass(ms(7));
    let bare = driver.host();
    bare.out.clear();
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.reset(&mut cx);
    assert_eq!(pauses(&bare.out), [(1, 336)]);
    assert_eq!((bare.read(GCTL, Width::Dword), bare.read(STATESTS, Width::Word)), (0, 0));
    assert_eq!(bare.hda.deadline(), None);
    let bare = core::mem::replace(bare, off());
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    assert_eq!(driver.verb(0x14, 0xf1c00), Ok(0x9010_0110), "firmware's changes are gone too");
}

#[test]
fn a_dead_controller_is_told_from_a_live_one() {
    struct Dead(pci::Ram);
    impl Host for Dead {
        fn read(&mut self, offset: u64, width: Width) -> u64 {
            hda::Hda::read_failed(offset, width)
        }
        fn write(&mut self, _: u64, _: Width, _: u64) {}
        fn memory(&self) -> &dyn Dma {
            &self.0
        }
    }
    let error = Driver::start(Dead(pci::Ram::new(0, 16)), 0).map(|_| ()).unwrap_err();
    assert_eq!(error, Error::Timeout(GCTL));
}
