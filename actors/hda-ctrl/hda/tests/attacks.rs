//! What a hostile guest may try, and that the answer is hardware's: attack rows 13 to 16, and anything at all.

mod common;

use std::cell::{Cell, RefCell};

use common::*;
use hda::driver::{Bare, Buffer, Driver, Host};
use hda::{Config, Hda, Output};
use pci::{Dma, DmaError, Model, Ram, Width};
use proptest::prelude::*;
use wire::audio::ToRemote;

/// Where the guest has put the controller's own BAR: there is no memory there.
const BAR: u64 = 0xfebf_0000;

const CORB: u64 = 0x40;
const RIRB: u64 = 0x50;

/// Memory that counts, and that can be taken away.
struct Memory {
    ram: Ram,
    gone: Cell<bool>,
    accesses: Cell<u64>,
    log: RefCell<Vec<Access>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Access {
    Read(u64),
    Write(u64),
    Publish(u64),
}

impl Memory {
    fn new() -> Self {
        let (gone, accesses, log) = (Cell::new(false), Cell::new(0), RefCell::default());
        Self { ram: Ram::new(0, RAM), gone, accesses, log }
    }

    fn note(&self, access: Access) -> Result<(), DmaError> {
        self.accesses.set(self.accesses.get() + 1);
        self.log.borrow_mut().push(access);
        if self.gone.get() { Err(DmaError::Unmapped) } else { Ok(()) }
    }
}

impl Dma for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.note(Access::Read(address))?;
        self.ram.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.note(Access::Write(address))?;
        self.ram.write(address, data)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        self.note(Access::Read(address))?;
        self.ram.observe(address)
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.note(Access::Publish(address))?;
        self.ram.publish(address, value)
    }
}

fn started() -> Bare {
    let mut bare = Bare::new(Config::default(), RAM);
    bare.write(0x08, Width::Dword, 1);
    bare
}

fn set_ring(bare: &mut Bare, ring: u64, address: u64) {
    bare.write(ring, Width::Dword, address & 0xffff_ffff);
    bare.write(ring + 4, Width::Dword, address >> 32);
}

/// The controller is of use again after a reset, whatever was done to it.
fn assert_usable(bare: Bare) {
    let mut driver = Driver::start(bare, DRIVER).unwrap();
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let stream = driver.output(0);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(ms(50));
    assert_eq!(driver.host().take_played().len(), 10);
}

#[test]
fn row_13_a_corb_in_our_own_bar_is_a_memory_error() {
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

#[test]
fn row_13_a_rirb_in_our_own_bar_drops_responses() {
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

#[test]
fn row_13_a_list_or_sound_in_our_own_bar_is_a_descriptor_error() {
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

#[test]
fn row_13_a_position_buffer_in_our_own_bar_is_not_missed() {
    let (mut driver, stream) = desk(STEREO);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().write(0x70, Width::Dword, BAR | 1);
    driver.run(stream, true);
    driver.host().pass(ms(10));
    assert_eq!(driver.link_position(stream), 1_920);
}

#[test]
fn row_14_empty_buffers_one_buffer_and_short_laps_come_to_an_end() {
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

#[test]
fn row_15_pointers_and_sizes_may_change_while_the_rings_run_and_overlap() {
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

#[test]
fn row_16_starting_and_stopping_leaves_nothing_behind() {
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

#[test]
fn row_16_a_buffer_beyond_memory_stops_the_stream_where_memory_ends() {
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

/// One thing that a guest can do.
#[derive(Debug, Clone)]
enum Act {
    Read(u64, Width),
    Write(u64, Width, u64),
    Poke(u64, u32),
    Verb(u32),
    Time(u64),
    Memory(bool),
    Reset,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let width = prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword, Width::Qword]);
    let offset = prop_oneof![4 => 0..0x80u64, 6 => 0x80..0x180u64, 1 => 0..0x4000u64];
    let place = (offset, width).prop_map(|(offset, width)| (offset & !(width.bytes() as u64 - 1), width));
    // Values that do something: few bits, all bits, addresses of our small memory, small numbers.
    let value = prop_oneof![
        any::<u64>(),
        (0..64u32).prop_map(|bit| 1 << bit),
        Just(u64::MAX),
        (0..64u64).prop_map(|page| page * 0x80),
        0..64u64,
        Just(0x0050_001e),
    ];
    // The command rings, the positions and the lists of the first five streams.
    let address = prop_oneof![0..0x1000u64, 0x1000..0x1040u64, 0x5000..0x5040u64, 0..0x6000u64]
        .prop_map(|address| address & !3);
    let content = prop_oneof![any::<u32>(), 0..0x2000u32, verbs()];
    let act = prop_oneof![
        4 => place.clone().prop_map(|(offset, width)| Act::Read(offset, width)),
        16 => (place, value).prop_map(|((offset, width), value)| Act::Write(offset, width, value)),
        8 => (address, content).prop_map(|(address, content)| Act::Poke(address, content)),
        6 => verbs().prop_map(Act::Verb),
        6 => prop_oneof![0..3_000_000u64, any::<u64>().prop_map(|time| time >> 8)].prop_map(Act::Time),
        1 => any::<bool>().prop_map(Act::Memory),
        1 => Just(Act::Reset),
    ];
    prop::collection::vec(act, 1..200)
}

fn verbs() -> impl Strategy<Value = u32> {
    let node = prop::sample::select(vec![0u32, 1, 2, 0x14, 0x10, 0xff]);
    let verb = prop::sample::select(vec![0xf00u32, 0x701, 0xf02, 0x705, 0x706, 0x707, 0x70c, 0x71c, 0x7ff]);
    prop_oneof![
        any::<u32>(),
        (node.clone(), verb, any::<u8>())
            .prop_map(|(node, verb, payload)| node << 20 | verb << 8 | u32::from(payload)),
        (node, 2..4u32, any::<u16>())
            .prop_map(|(node, verb, payload)| node << 20 | verb << 16 | u32::from(payload)),
    ]
}

/// What one call may cost at most: 255 commands with an answer each; per stream a list, a lap of 256 buffers and a
/// bit, and the position.
const ACCESSES: u64 = 2 * 256 + 8 * (1 + 512 + 1 + 1_024);
/// 50 ms of 16 channels with 32 bits at 192 kHz, for 4 streams, and packets that were begun.
const SOUND_BYTES: usize = 4 * 64 * 192_000 / 20 + 4 * 64 * 960;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Nothing that a guest does makes the model panic, work without bound, send without bound, or wake without
    /// bound; and a reset always makes it well again.
    #[test]
    fn no_sequence_of_accesses_breaks_the_controller(acts in acts()) {
        // A capture and a playback stream run, over memory that the guest then scribbles on.
        let mut driver = Driver::start(Bare::with_memory(Config::default(), Memory::new()), 0).unwrap();
        let speaker = driver.speaker().unwrap();
        driver.connect(speaker.converter, TAG, STEREO).unwrap();
        for stream in [0, 4] {
            driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (64, false)]), 1_024).unwrap();
            driver.run(stream, true);
        }
        let fresh = Bare::with_memory(Config::default(), Memory::new());
        let mut bare = core::mem::replace(driver.host(), fresh);
        for act in acts {
            bare.ram.accesses.set(0);
            bare.ram.log.borrow_mut().clear();
            bare.out.clear();
            match act {
                Act::Read(offset, width) => {
                    let value = bare.read(offset, width);
                    prop_assert_eq!(value & !width.mask(), 0);
                }
                Act::Write(offset, width, value) => bare.write(offset, width, value & width.mask()),
                Act::Poke(address, content) => bare.ram.ram.publish(address, content).unwrap(),
                Act::Verb(verb) => {
                    bare.write(0x60, Width::Dword, verb.into());
                    bare.write(0x68, Width::Word, 1);
                    prop_assert_eq!(bare.read(0x68, Width::Word) & 1, 0);
                }
                Act::Time(time) => {
                    bare.now += core::time::Duration::from_nanos(time);
                    bare.tick();
                }
                Act::Memory(gone) => bare.ram.gone.set(gone),
                Act::Reset => {
                    let mut cx = pci::Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
                    bare.hda.reset(&mut cx);
                }
            }
            // A verb is three calls.
            prop_assert!(bare.ram.accesses.get() <= 3 * ACCESSES, "{} accesses", bare.ram.accesses.get());
            let sent: usize = bare.out.iter().map(|output| match output {
                Output::Audio(ToRemote::Play(packet)) => packet.pcm.len(),
                _ => 0,
            }).sum();
            prop_assert!(sent <= 3 * SOUND_BYTES, "{sent} bytes");
            // A deadline may be over only if the clock has been asked for nothing since.
            let before = bare.hda.deadline();
            bare.tick();
            prop_assert!(bare.hda.deadline().is_none_or(|due| due > bare.now), "{before:?} at {:?}", bare.now);
        }
        bare.ram.gone.set(false);
        let Bare { hda, ram, now, .. } = bare;
        let mut again = Bare { hda, ram: ram.ram, now, out: Vec::new() };
        let mut cx = pci::Cx { now, dma: &again.ram, out: &mut again.out };
        Hda::reset(&mut again.hda, &mut cx);
        assert_usable(again);
    }
}
