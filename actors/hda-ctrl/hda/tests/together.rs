//! Several streams at once, and what a running stream takes from memory only once. HDA 1.0a §3.3.17, §3.6, §4.5.

mod common;

use common::*;
use hda::driver::{Bare, Buffer, Driver, Host, Kind, duration};
use hda::{Config, Output, Packet, Speakers};
use pci::{Cx, Dma, Width};
use wire::audio::{Jack, StreamId, ToRemote};

const STREAMS: u8 = 4;
const LAP: u32 = 3_840;
const SSYNC: u64 = 0x38;
const DPLBASE: u64 = 0x70;

/// The ring of the stream with this number.
const fn ring(number: u8) -> u64 {
    SOUND + 0x1_0000 * number as u64
}

fn one_buffer(number: u8) -> [Buffer; 1] {
    [Buffer { address: ring(number), length: LAP, interrupt: true }]
}

/// Sound that is another one for each number.
fn sound(number: u8) -> Vec<u8> {
    let mut sound = counter(LAP as usize * (usize::from(number) + 1));
    sound.split_off(LAP as usize * usize::from(number))
}

fn start(speakers: Speakers) -> Driver<Bare> {
    let config = Config { speakers, ..Config::default() };
    Driver::start(Bare::new(config, RAM), DRIVER).unwrap()
}

/// A microphone that is plugged in, and listens to [`TAG`].
fn plug(driver: &mut Driver<Bare>) {
    let bare = driver.host();
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    bare.hda.set_jack(&mut cx, Jack::Microphone, true);
    bare.pass(ms(100));
    let microphone = driver.microphone().unwrap();
    driver.connect(microphone.converter, TAG, STEREO).unwrap();
}

fn ring_of(driver: &mut Driver<Bare>, number: u8) -> Vec<u8> {
    let mut bytes = vec![0; LAP as usize];
    driver.host().ram.read(ring(number), &mut bytes).unwrap();
    bytes
}

fn recorded(out: &[Output]) -> Vec<(u8, u32)> {
    let asked = |output: &Output| match output {
        Output::Audio(ToRemote::Record { stream, run, .. }) => Some((stream.0, *run)),
        _ => None,
    };
    out.iter().filter_map(asked).collect()
}

#[test]
fn four_streams_with_a_converter_each_play_at_once_what_is_in_their_rings() {
    let mut driver = start(Speakers::Surround71);
    let first = driver.output(0);
    for number in 0..STREAMS {
        let speaker = driver.endpoint(Kind::Speaker, number).unwrap();
        driver.connect(speaker.converter, number + 1, STEREO).unwrap();
        put(&mut driver, ring(number), &sound(number));
        driver.set_up(first + number, number + 1, STEREO, &one_buffer(number), LAP).unwrap();
    }
    driver.host().out.clear();
    (0..STREAMS).for_each(|number| driver.run(first + number, true));
    for _ in 0..50 {
        driver.host().pass(ms(20));
        driver.acknowledge();
    }
    let packets = driver.host().take_played();
    for number in 0..STREAMS {
        let own = |packet: &&Packet| packet.stream.0 == first + number;
        let packets: Vec<Packet> = packets.iter().filter(own).cloned().collect();
        let heard = heard(&packets);
        // A register access later than the first stream is no time at all here: all have played for a second.
        assert_eq!(heard.len(), 48_000 * 4, "stream {number}");
        assert!(heard.chunks(LAP as usize).all(|lap| lap == sound(number)), "stream {number}");
    }
    assert_eq!(driver.host().hda.counters().shared_tags, 0);
}

#[test]
fn four_streams_that_record_from_one_converter_hear_the_same_frames() {
    let mut driver = start(Speakers::Stereo);
    plug(&mut driver);
    for number in 0..STREAMS {
        put(&mut driver, ring(number), &[0xee; LAP as usize]);
        driver.set_up(number, TAG, STEREO, &one_buffer(number), LAP).unwrap();
    }
    driver.host().out.clear();
    (0..STREAMS).for_each(|number| driver.run(number, true));
    assert_eq!(recorded(&driver.host().out), [0, 1, 2, 3].map(|stream| (stream, 1)), "each has a recording");
    let sound = sound(1);
    for (n, pcm) in sound.chunks(4 * 240).enumerate() {
        for stream in (0..STREAMS).map(StreamId) {
            let (position, pcm) = (240 * n as u64, pcm.to_vec().into());
            driver.host().hda.captured(&Packet { stream, run: 1, position, format: STEREO, pcm });
        }
        driver.host().pass(duration(STEREO, 240));
        driver.host().tick();
    }
    for number in 0..STREAMS {
        assert!(ring_of(&mut driver, number) == sound, "stream {number}");
    }
    let counters = driver.host().hda.counters();
    assert_eq!((counters.missing_frames, counters.skipped_frames), (0, 0));
}

#[test]
fn a_group_with_an_input_and_an_output_stream_starts_on_the_same_frame() {
    let mut driver = start(Speakers::Stereo);
    plug(&mut driver);
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let (input, output) = (1, driver.output(2));
    put(&mut driver, ring(0), &[0xee; LAP as usize]);
    put(&mut driver, ring(1), &sound(1));
    driver.set_up(input, TAG, STEREO, &one_buffer(0), LAP).unwrap();
    driver.set_up(output, TAG, STEREO, &one_buffer(1), LAP).unwrap();
    let both = |driver: &mut Driver<Bare>| [driver.link_position(input), driver.link_position(output)];
    driver.host().write(SSYNC, Width::Dword, 1 << input | 1 << output);
    driver.host().out.clear();
    driver.run(output, true);
    driver.host().pass(ms(3));
    driver.run(input, true);
    driver.host().pass(ms(3));
    assert_eq!(both(&mut driver), [0, 0]);
    assert_eq!(recorded(&driver.host().out), [], "nothing is recorded before it moves");
    assert!(driver.host().take_played().is_empty());
    driver.host().write(SSYNC, Width::Dword, 0);
    assert_eq!(recorded(&driver.host().out), [(input, 1)]);
    for frames in [1, 7, 240, 471] {
        let [before, _] = both(&mut driver);
        driver.host().pass(duration(STEREO, frames));
        assert_eq!(both(&mut driver), [before + 4 * frames as u32; 2], "{frames} frames later");
    }
    assert!(ring_of(&mut driver, 0)[..4 * 719] == [0; 4 * 719], "it has heard as much as was played");
    assert_eq!(ring_of(&mut driver, 0)[4 * 719..], [0xee; LAP as usize - 4 * 719]);
    // Again while both move: they wait together, and go on together.
    driver.host().write(SSYNC, Width::Dword, 1 << input | 1 << output);
    let held = both(&mut driver);
    driver.host().pass(ms(3));
    assert_eq!((both(&mut driver), held[0]), (held, held[1]));
    driver.host().write(SSYNC, Width::Dword, 0);
    driver.host().pass(ms(2));
    assert_eq!(both(&mut driver), [held[0] + 4 * 96; 2]);
}

#[test]
fn a_list_that_is_changed_while_the_stream_runs_changes_nothing_before_the_next_reset() {
    let (mut driver, stream) = desk(STEREO);
    put(&mut driver, ring(0), &sound(0));
    put(&mut driver, ring(1), &sound(1));
    driver.set_up(stream, TAG, STEREO, &one_buffer(0), LAP).unwrap();
    let base = 0x80 + 0x20 * u64::from(stream);
    let list = driver.host().read(base + 0x18, Width::Dword);
    let heard_now = |driver: &mut Driver<Bare>| {
        driver.host().out.clear();
        driver.host().pass(ms(40));
        driver.acknowledge();
        let heard = heard(&driver.host().take_played());
        assert!(heard.len() > LAP as usize, "the stream has stopped: {} bytes in 40 ms", heard.len());
        heard
    };
    driver.run(stream, true);
    assert!(heard_now(&mut driver).chunks(LAP as usize).all(|lap| lap == sound(0)));
    // Another address, no length at all, then nothing but ones.
    for entry in [ring(1).to_le_bytes(), [0; 8], [0xff; 8]] {
        put(&mut driver, list, &entry);
        put(&mut driver, list + 8, &entry);
        assert!(heard_now(&mut driver).chunks(LAP as usize).all(|lap| lap == sound(0)), "{entry:x?}");
        driver.run(stream, false);
        driver.run(stream, true);
        let after = heard_now(&mut driver);
        assert!(after.chunks(LAP as usize).all(|lap| lap == sound(0)), "{entry:x?}: paused, and resumed");
    }
    driver.set_up(stream, TAG, STEREO, &one_buffer(1), LAP).unwrap();
    driver.run(stream, true);
    assert!(heard_now(&mut driver).chunks(LAP as usize).all(|lap| lap == sound(1)), "read again");
}

#[test]
fn a_position_buffer_that_is_enabled_while_a_stream_runs_is_kept_from_then_on() {
    let (mut driver, stream) = desk(STEREO);
    driver.host().write(DPLBASE, Width::Dword, 0);
    driver.set_up(stream, TAG, STEREO, &one_buffer(0), LAP).unwrap();
    let positions = DRIVER + 0x0c00;
    put(&mut driver, positions, &[0xee; 8 * 8]);
    driver.run(stream, true);
    driver.host().pass(ms(5));
    let entry = |driver: &mut Driver<Bare>, number: u8| {
        driver.host().ram.observe(positions + 8 * u64::from(number)).unwrap()
    };
    assert_eq!(entry(&mut driver, stream), 0xeeee_eeee, "nobody has asked for it");
    // The enable bit comes with the address, as the last write. HDA 1.0a §3.3.32.
    driver.host().write(DPLBASE, Width::Dword, positions | 1);
    for step in 0..100 {
        driver.host().pass(core::time::Duration::from_micros(1_300));
        let (memory, register) = (entry(&mut driver, stream), driver.link_position(stream));
        assert!(
            (register + LAP - memory) % LAP <= 48 * 4,
            "step {step}: {memory}, {register} in the register"
        );
        driver.acknowledge();
    }
    let others = (0..8).filter(|number| *number != stream);
    for number in others {
        assert_eq!(entry(&mut driver, number), 0xeeee_eeee, "stream {number} has never moved");
    }
}
