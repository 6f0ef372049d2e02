//! Any guest at all, and any remote: accesses of every kind in any order, over memory that changes and goes away, while
//! jacks are plugged and sound arrives.

mod common;

use std::collections::BTreeMap;

use common::*;
use hda::driver::{Bare, Driver, Host};
use hda::{Config, Hda, Output};
use pci::{Cx, Dma, Model, Width};
use proptest::prelude::*;
use wire::audio::{Jack, StreamId, ToRemote};

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
    /// Things that a remote can do.
    Plug(Jack, bool),
    Say(u8, u32, u64, usize),
    Come,
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
        2 => (prop::sample::select(vec![Jack::Headphone, Jack::Microphone]), any::<bool>())
            .prop_map(|(jack, present)| Act::Plug(jack, present)),
        4 => (0..6u8, 0..6u32, prop_oneof![0..2_000u64, any::<u64>()], 0..5_000usize)
            .prop_map(|(stream, run, position, bytes)| Act::Say(stream, run, position, bytes)),
        1 => Just(Act::Come),
    ];
    prop::collection::vec(act, 1..200)
}

fn verbs() -> impl Strategy<Value = u32> {
    let node = prop::sample::select(vec![0u32, 1, 2, 6, 8, 0x14, 0x15, 0x18, 0x10, 0xff]);
    let verb = prop::sample::select(vec![
        0xf00u32, 0x701, 0xf02, 0x705, 0x706, 0x707, 0x708, 0xf09, 0x70c, 0x71c, 0x7ff,
    ]);
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
/// What the remote believes that it is to record: the recording of each stream. It never hears `Record` twice, nor
/// `StopRecord` of another one, and numbers only grow.
#[derive(Default)]
struct Microphone {
    open: BTreeMap<u8, u32>,
    last: BTreeMap<u8, u32>,
}

impl Microphone {
    fn hear(&mut self, output: &Output) -> Result<(), TestCaseError> {
        match *output {
            Output::Audio(ToRemote::Record { stream, run, .. }) => {
                prop_assert_eq!(self.open.insert(stream.0, run), None, "recorded already");
                prop_assert_eq!(run, self.last.insert(stream.0, run).unwrap_or(0) + 1);
            }
            Output::Audio(ToRemote::StopRecord { stream, run }) => {
                prop_assert_eq!(self.open.remove(&stream.0), Some(run));
            }
            _ => {}
        }
        Ok(())
    }

    fn agrees_with(&self, hda: &Hda) -> Result<(), TestCaseError> {
        for stream in 0..8 {
            let waiting = hda.waiting(StreamId(stream));
            prop_assert_eq!(waiting.is_some(), self.open.contains_key(&stream), "stream {}", stream);
            prop_assert!(waiting.unwrap_or(0) <= 192_000 * 150 / 1_000);
        }
        Ok(())
    }
}

/// 50 ms of 16 channels with 32 bits at 192 kHz, for 4 streams, and packets that were begun.
const SOUND_BYTES: usize = 4 * 64 * 192_000 / 20 + 4 * 64 * 960;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Nothing that a guest does makes the model panic, work without bound, send without bound, or wake without
    /// bound; and a reset always makes it well again.
    #[test]
    fn no_sequence_of_accesses_breaks_the_controller(acts in acts()) {
        // A capture stream that hears a microphone and a playback stream run, over memory that the guest then scribbles on.
        let mut driver = Driver::start(Bare::with_memory(Config::default(), Memory::new()), 0).unwrap();
        for jack in [Jack::Headphone, Jack::Microphone] {
            let Bare { hda, ram, now, out } = driver.host();
            hda.set_jack(&mut Cx { now: *now, dma: &*ram, out }, jack, true);
        }
        driver.host().pass(ms(100));
        for endpoint in [driver.speaker(), driver.headphone(), driver.microphone()] {
            driver.connect(endpoint.unwrap().converter, TAG, STEREO).unwrap();
        }
        driver.verb(0x15, 0x70881).unwrap();
        driver.verb(0x18, 0x70882).unwrap();
        driver.host().write(0x08, Width::Dword, 0x101);
        for stream in [0, 4] {
            driver.set_up(stream, TAG, STEREO, &buffers(&[(960, true), (64, false)]), 1_024).unwrap();
            driver.run(stream, true);
        }
        let fresh = Bare::with_memory(Config::default(), Memory::new());
        let mut bare = core::mem::replace(driver.host(), fresh);
        let mut microphone = Microphone::default();
        prop_assert!(bare.hda.waiting(StreamId(0)).is_some(), "it records");
        for act in acts {
            bare.ram.accesses.set(0);
            bare.ram.log.borrow_mut().clear();
            for output in bare.out.drain(..) {
                microphone.hear(&output)?;
            }
            microphone.agrees_with(&bare.hda)?;
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
                    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
                    bare.hda.reset(&mut cx);
                }
                Act::Plug(jack, present) => {
                    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
                    bare.hda.set_jack(&mut cx, jack, present);
                }
                Act::Say(stream, run, position, bytes) => {
                    let (stream, pcm) = (StreamId(stream), vec![1; bytes].into());
                    let packet = hda::Packet { stream, run, position, format: STEREO, pcm };
                    bare.hda.captured(&packet);
                }
                Act::Come => {
                    // The new remote has heard nothing.
                    microphone.open.clear();
                    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
                    bare.hda.remote_came(&mut cx);
                }
            }
            // A verb is three calls.
            prop_assert!(bare.ram.accesses.get() <= 3 * ACCESSES, "{} accesses", bare.ram.accesses.get());
            let sent: usize = bare.out.iter().map(|output| match output {
                Output::Play(packet) => packet.pcm.len(),
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
        let mut cx = Cx { now, dma: &again.ram, out: &mut again.out };
        Hda::reset(&mut again.hda, &mut cx);
        assert_usable(again);
    }
}
