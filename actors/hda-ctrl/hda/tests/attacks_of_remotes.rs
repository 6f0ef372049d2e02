//! What a hostile remote may try, and what a guest and a remote may try together. `Case` names the row of the attack
//! table.

mod common;

use common::*;
use hda::driver::{Bare, Driver, Host};
use hda::{Config, Hda, Output, Packet};
use pci::{Cx, Model, Width};
use wire::audio::{Encoding, Format, Jack, StreamId};

const LAP: u32 = 3_840;

fn with(bare: &mut Bare, step: impl FnOnce(&mut Hda, &mut Cx<'_, Output>)) {
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    step(&mut bare.hda, &mut cx);
}

fn say(bare: &mut Bare, packet: Packet) {
    with(bare, |hda, _| hda.captured(&packet));
}

fn plug(bare: &mut Bare, jack: Jack, present: bool) {
    with(bare, |hda, cx| hda.set_jack(cx, jack, present));
}

fn packet(stream: u8, run: u32, position: u64, bytes: usize) -> Packet {
    let (stream, pcm) = (StreamId(stream), vec![0x55; bytes].into());
    Packet { stream, run, position, format: STEREO, pcm }
}

/// A guest that records, as recording 1 of stream 0.
fn recording() -> Driver<Bare> {
    let mut driver = Driver::start(Bare::new(Config::default(), RAM), DRIVER).unwrap();
    plug(driver.host(), Jack::Microphone, true);
    driver.host().pass(ms(100));
    let microphone = driver.microphone().unwrap();
    driver.connect(microphone.converter, TAG, STEREO).unwrap();
    driver.set_up(0, TAG, STEREO, &buffers(&[(LAP, true)]), LAP).unwrap();
    driver.run(0, true);
    driver.host().out.clear();
    driver
}

/// Everything that the model holds on to is in its `Debug`: sound as a number of bytes.
fn size(hda: &Hda) -> usize {
    format!("{hda:?}").len()
}

/// Case 4: jacks, remotes and resets, 10 000 times.
#[test]
fn plugs_remotes_and_resets_leave_nothing_behind() {
    let mut driver = recording();
    let before = size(&driver.host().hda);
    for round in 0..10_000u32 {
        let bare = driver.host();
        let jack = if round % 2 == 0 { Jack::Headphone } else { Jack::Microphone };
        plug(bare, jack, round % 4 < 2);
        with(bare, |hda, cx| hda.remote_came(cx));
        say(bare, packet(0, round, 0, 960));
        bare.pass(ms(1));
        if round % 100 == 0 {
            with(bare, |hda, cx| hda.reset(cx));
            assert_eq!(bare.hda.waiting(StreamId(0)), None);
        }
        assert!(bare.out.len() <= 16, "round {round}");
        bare.out.clear();
        assert!(size(&bare.hda) <= before + 128, "round {round}");
    }
    let bare = core::mem::replace(driver.host(), Bare::new(Config::default(), 0));
    assert_usable(bare);
}

/// Case 18: what a remote has sent goes with it, and with the stream it was for.
#[test]
fn frames_of_a_remote_that_is_gone_or_of_a_stream_that_stops_are_let_go() {
    let mut driver = recording();
    for run in 1..200 {
        for n in 0..10 {
            say(driver.host(), packet(0, run, 240 * n, 960));
        }
        assert_eq!(driver.host().hda.waiting(StreamId(0)), Some(2_400), "run {run}");
        if run % 2 == 0 {
            with(driver.host(), |hda, cx| hda.remote_came(cx));
        } else {
            driver.run(0, false);
            assert_eq!(driver.host().hda.waiting(StreamId(0)), None, "run {run}");
            driver.run(0, true);
        }
        assert_eq!(driver.host().hda.waiting(StreamId(0)), Some(0), "run {run}");
    }
}

/// Case 20: sound for a stream that plays, never started, has stopped, or is none; and for a recording long over.
#[test]
fn sound_for_a_stream_that_does_not_record_changes_nothing() {
    let mut driver = recording();
    for stream in [1, 3, 4, 7, 8, 29, 30, 255] {
        for run in [0, 1, 2, u32::MAX] {
            say(driver.host(), packet(stream, run, 0, 960));
        }
    }
    driver.run(0, false);
    say(driver.host(), packet(0, 1, 0, 960));
    driver.run(0, true);
    say(driver.host(), packet(0, 1, 0, 960));
    assert_eq!(driver.host().hda.waiting(StreamId(0)), Some(0), "it is recording 2 by now");
    driver.host().pass(ms(20));
    let mut memory = vec![0xee; LAP as usize];
    pci::Dma::read(&driver.host().ram, SOUND, &mut memory).unwrap();
    assert!(memory.iter().all(|byte| *byte == 0));
}

/// Case 22: what is held of a guest's or a remote's sound is not shown when the model is.
#[test]
fn nobodys_sound_is_in_what_is_shown_for_debugging() {
    let mut driver = recording();
    say(driver.host(), packet(0, 1, 0, 9_600));
    let shown = format!("{:?}", driver.host().hda);
    assert!(
        shown.contains("9600 bytes wait") && !shown.contains("85, 85") && !shown.contains("UU"),
        "{shown}"
    );
}

/// Case 23: more than was asked for, less, another format, positions that jump and wrap.
#[test]
fn a_remote_that_sends_other_than_it_was_asked_for_cannot_make_the_guest_late_or_the_host_grow() {
    let mut driver = recording();
    let formats = [
        Format { channels: 16, ..STEREO },
        Format { rate: 192_000, ..STEREO },
        Format { encoding: Encoding::S32, ..STEREO },
    ];
    let positions = [0, 1, u64::MAX, u64::MAX - 1, 1 << 63, 7_200, 0];
    for (round, position) in positions.into_iter().cycle().take(2_000).enumerate() {
        say(driver.host(), packet(0, 1, position, [4, 960, 61_440, 0, 3][round % 5]));
        let format = formats[round % formats.len()];
        let pcm = vec![1; format.frame_bytes() as usize].into();
        let alien = Packet { stream: StreamId(0), run: 1, position, format, pcm };
        say(driver.host(), alien);
        let waiting = driver.host().hda.waiting(StreamId(0)).unwrap();
        assert!(waiting <= 48 * 150, "{waiting} frames wait");
        driver.host().pass(ms(1));
    }
    assert_eq!(driver.link_position(0), 4 * 48 * 2_000 % LAP, "the guest's clock is its own");
}

/// Case 29: fields at their extremes: RINTCNT 0 and 255, a wall clock that wraps, CBL and positions near 2^32.
#[test]
fn fields_at_their_extremes_are_fields() {
    let (mut driver, stream) = desk(STEREO);
    for count in [0, 1, 0xff] {
        driver.host().write(0x5a, Width::Word, count);
        assert_eq!(driver.verb(0, 0xf0000), Ok(0xfa2b_0001), "RINTCNT {count}");
    }
    driver.set_up(stream, TAG, STEREO, &buffers(&[(LAP, true)]), !3).unwrap();
    driver.host().now += core::time::Duration::from_secs(178);
    driver.run(stream, true);
    let (wall, position) = (driver.wall_clock(), driver.link_position(stream));
    driver.host().pass(ms(2_000));
    assert!(driver.wall_clock() < wall, "WALCLK has wrapped");
    assert_eq!(driver.link_position(stream) - position, 2 * 48_000 * 4);
}

/// Case 30: a jack that changes while the guest is told of it: what it is told of and what it then senses agree at last.
#[test]
fn a_jack_that_never_rests_is_sensed_as_it_was_told() {
    let mut driver = recording();
    driver.verb(0x15, 0x70881).unwrap();
    driver.host().write(8, Width::Dword, 0x101);
    let mut told = 0;
    for round in 0..1_000u64 {
        let before = driver.host().read(0x58, Width::Word);
        plug(driver.host(), Jack::Headphone, round % 2 == 0);
        driver.host().pass(ms(round % 210));
        told += (driver.host().read(0x58, Width::Word) + 256 - before) % 256;
        let sense = driver.immediate(0x15, 0xf0900).unwrap() >> 31;
        assert_eq!(u64::from(sense), told % 2, "round {round}");
    }
    assert!(told > 100);
}
