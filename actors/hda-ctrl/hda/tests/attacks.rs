//! What a hostile guest may try with addresses, lengths and pointers, and that the answer is hardware's. `Case` names
//! the row of the attack table.

mod common;

use common::*;
use hda::driver::{Bare, Buffer, Driver, Host};
use hda::{Config, Output};
use pci::{Model, Width};

/// Where the guest has put the controller's own BAR: there is no memory there.
const BAR: u64 = 0xfebf_0000;

const CORB: u64 = 0x40;
const RIRB: u64 = 0x50;

fn started() -> Bare {
    let mut bare = Bare::new(Config::default(), RAM);
    bare.write(0x08, Width::Dword, 1);
    bare
}

fn set_ring(bare: &mut Bare, ring: u64, address: u64) {
    bare.write(ring, Width::Dword, address & 0xffff_ffff);
    bare.write(ring + 4, Width::Dword, address >> 32);
}

/// Case 13, and 12: the controller's own registers are no memory that it could reach. HDA 1.0a §3.3.23.
#[test]
fn a_corb_in_our_own_bar_is_a_memory_error() {
    let mut bare = started();
    set_ring(&mut bare, CORB, BAR);
    bare.write(0x20, Width::Dword, 0xc000_0000);
    bare.write(CORB + 12, Width::Byte, 0b11);
    bare.write(CORB + 8, Width::Word, 0xff);
    assert_eq!(bare.read(CORB + 13, Width::Byte), 1, "CMEI");
    assert_eq!(bare.read(CORB + 10, Width::Word), 0, "nothing was fetched");
    assert_eq!(bare.out, [Output::Interrupt(0)]);
    assert_usable(bare);
}

/// Case 13: responses into the controller's own registers. HDA 1.0a §3.3.30.
#[test]
fn a_rirb_in_our_own_bar_drops_responses() {
    let mut bare = started();
    set_ring(&mut bare, RIRB, BAR);
    bare.write(RIRB + 12, Width::Byte, 0b111);
    bare.write(CORB + 12, Width::Byte, 0b10);
    bare.write(CORB + 8, Width::Word, 0xff);
    assert_eq!(bare.read(CORB + 10, Width::Word), 0xff, "commands are carried out");
    assert_eq!(bare.read(RIRB + 8, Width::Word), 0, "nothing was stored");
    assert_eq!(bare.read(RIRB + 13, Width::Byte), 0b100, "RIRBOIS");
    assert_usable(bare);
}

/// Case 13: a BDL there, or what it points at. HDA 1.0a §3.3.36.
#[test]
fn a_list_or_sound_in_our_own_bar_is_a_descriptor_error() {
    for list in [true, false] {
        let (mut driver, stream) = desk(STEREO);
        let buffers = [Buffer { address: BAR, length: 4_096, interrupt: true }];
        driver.set_up(stream, TAG, STEREO, &buffers, 4_096).unwrap();
        let base = 0x80 + 0x20 * u64::from(stream);
        if list {
            driver.host().write(base + 0x18, Width::Dword, BAR);
        }
        driver.host().out.clear();
        driver.run(stream, true);
        driver.host().pass(ms(50));
        assert_eq!(driver.host().read(base, Width::Byte) & 2, 0, "RUN is cleared");
        assert_eq!(driver.acknowledge(), (1 << 31 | 1 << stream, vec![(stream, 0x30)]), "DESE is told");
        assert_eq!(driver.host().hda.deadline(), None);
        assert!(driver.host().take_played().is_empty());
        let bare = core::mem::replace(driver.host(), started());
        assert_usable(bare);
    }
}

/// Case 13: positions there.
#[test]
fn a_position_buffer_in_our_own_bar_is_not_missed() {
    let (mut driver, stream) = desk(STEREO);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().write(0x70, Width::Dword, BAR | 1);
    driver.run(stream, true);
    driver.host().pass(ms(10));
    assert_eq!(driver.link_position(stream), 1_920);
}

/// Case 14: lengths of 0, LVI 0, CBL below an entry, in all their combinations: nothing loops.
#[test]
fn empty_buffers_one_buffer_and_short_laps_come_to_an_end() {
    struct Case {
        name: &'static str,
        buffers: &'static [(u32, bool)],
        cyclic: u32,
        runs: bool,
    }
    #[rustfmt::skip]
    let cases = [
        Case { name: "all empty",                   buffers: &[(0, true); 256],          cyclic: 4_096, runs: false },
        Case { name: "one empty, LVI 0",            buffers: &[(0, true)],               cyclic: 4_096, runs: false },
        Case { name: "CBL 0",                       buffers: &[(64, true), (64, true)],  cyclic: 0,     runs: false },
        Case { name: "LVI 0",                       buffers: &[(4_096, true)],           cyclic: 4_096, runs: true },
        Case { name: "CBL below one entry",         buffers: &[(4_096, true)],           cyclic: 64,    runs: true },
        Case { name: "CBL of a byte",               buffers: &[(4_096, true)],           cyclic: 1,     runs: true },
        Case { name: "buffers of a byte",           buffers: &[(1, true); 256],          cyclic: 256,   runs: true },
        Case { name: "one byte in all, CBL 2^32-1", buffers: &[(1, true)],               cyclic: !0,    runs: true },
        Case { name: "empty ones in between",       buffers: &[(0, true), (8, false), (0, true)], cyclic: 8, runs: true },
        Case { name: "CBL far above",               buffers: &[(960, true), (960, true)], cyclic: !0,   runs: true },
    ];
    for Case { name, buffers: lengths, cyclic, runs } in cases {
        let (mut driver, stream) = desk(STEREO);
        driver.set_up(stream, TAG, STEREO, &buffers(lengths), cyclic).unwrap();
        driver.run(stream, true);
        // Half a second: ticks are at least 100 us apart.
        let mut ticks = 0;
        let end = driver.host().now + ms(500);
        while let Some(due) = driver.host().hda.deadline().filter(|due| *due < end) {
            driver.host().now = due;
            driver.host().tick();
            ticks += 1;
        }
        assert!(ticks <= 5_000, "{name}: {ticks} ticks");
        let run = driver.host().read(0x80 + 0x20 * u64::from(stream), Width::Byte) & 2 != 0;
        assert_eq!(run, runs, "{name}");
    }
}

/// Case 15: CORBWP, sizes and resets written while both rings run over each other.
#[test]
fn pointers_and_sizes_may_change_while_the_rings_run_and_overlap() {
    let mut bare = started();
    // Every command asks a different parameter, and every answer is the next command.
    for base in [0u64, 0x80, 0x400] {
        set_ring(&mut bare, CORB, 0x8000);
        set_ring(&mut bare, RIRB, 0x8000 + base);
        bare.write(RIRB + 10, Width::Word, 0);
        bare.write(RIRB + 12, Width::Byte, 0b111);
        bare.write(CORB + 12, Width::Byte, 0b11);
        for round in 0..2_000u64 {
            bare.write(CORB + 8, Width::Word, (round * 7) & 0xff);
            bare.write(CORB + 14, Width::Byte, round & 3);
            bare.write(RIRB + 14, Width::Byte, round & 3);
            bare.write(RIRB + 8, Width::Word, if round % 3 == 0 { 0x8000 } else { 0 });
            bare.write(CORB + 10, Width::Word, if round % 5 == 0 { 0x8000 } else { 0 });
            assert_eq!(bare.read(CORB + 14, Width::Byte), 0x42);
            assert_eq!(bare.read(RIRB + 14, Width::Byte), 0x42);
        }
        assert!(bare.read(CORB + 8, Width::Word) <= 0xff && bare.read(RIRB + 8, Width::Word) <= 0xff);
    }
    assert_usable(bare);
}

/// Case 16: 10 000 starts and stops.
#[test]
fn starting_and_stopping_leaves_nothing_behind() {
    let (mut driver, stream) = desk(STEREO);
    driver.host().out.clear();
    let mut size = None;
    for round in 0..10_000 {
        driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (960, false)]), 1_920).unwrap();
        driver.run(stream, true);
        driver.host().pass(ms(1));
        driver.run(stream, false);
        driver.reset_stream(stream).unwrap();
        assert!(driver.host().out.len() <= 8, "round {round}");
        driver.host().out.clear();
        driver.acknowledge();
        // Everything that the model holds on to is in its `Debug`; numbers differ by a few digits.
        let now = format!("{:?}", driver.host().hda).len();
        assert!(now <= *size.get_or_insert(now) + 64, "round {round}: {now} bytes");
    }
}

/// Case 16, and 6: frames beyond the end of memory.
#[test]
fn a_buffer_beyond_memory_stops_the_stream_where_memory_ends() {
    let (mut driver, stream) = desk(STEREO);
    let address = RAM as u64 - 4_800;
    let buffers = [Buffer { address, length: !3u32, interrupt: true }];
    driver.set_up(stream, TAG, STEREO, &buffers, !3u32).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(ms(1_000));
    let sound = heard(&driver.host().take_played());
    assert!((4_800 - 240 * 4..=4_800).contains(&sound.len()), "{}", sound.len());
    assert_eq!(driver.acknowledge().1, [(stream, 0x30)]);
}

/// Case 7: memory is unmapped while a stream plays from it.
#[test]
fn memory_that_goes_away_stops_the_stream_and_a_new_run_begins_when_it_is_back() {
    let bare = Bare::with_memory(Config::default(), Memory::new());
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let stream = driver.output(0);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(ms(7));
    driver.host().ram.gone.set(true);
    driver.host().pass(ms(10));
    assert_eq!(driver.acknowledge().1, [(stream, 0x30)]);
    assert_eq!(pauses(&driver.host().out), [(1, 336)], "what was read before is sent");
    driver.host().out.clear();
    driver.host().ram.gone.set(false);
    driver.run(stream, true);
    driver.host().pass(ms(5));
    let packets = driver.host().take_played();
    assert_eq!((packets[0].run, packets[0].position), (2, 0));
}

#[test]
fn sound_is_copied_before_the_position_is_published_and_that_before_the_interrupt() {
    let bare = Bare::with_memory(Config::default(), Memory::new());
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let stream = driver.output(0);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(1_920, true), (1_920, true)]), 3_840).unwrap();
    driver.run(stream, true);
    driver.host().ram.log.borrow_mut().clear();
    driver.host().out.clear();
    driver.host().now += ms(8);
    driver.host().tick();
    let entry = DRIVER + 0xc00 + 8 * u64::from(stream);
    assert_eq!(*driver.host().ram.log.borrow(), [Access::Read(SOUND), Access::Publish(entry)]);
    driver.host().ram.log.borrow_mut().clear();
    driver.host().now += ms(8);
    driver.host().tick();
    let expected = [Access::Read(SOUND + 1_536), Access::Read(SOUND + 1_920), Access::Publish(entry)];
    assert_eq!(*driver.host().ram.log.borrow(), expected);
    assert_eq!(driver.host().out.last(), Some(&Output::Interrupt(0)));
}
