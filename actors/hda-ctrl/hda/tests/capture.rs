//! What a guest hears: the remote's microphone, when it is asked for, and silence at all other times.
//! HDA 1.0a §4.5, §7.3.3.

mod common;

use common::*;
use hda::driver::{Bare, Driver, Host, duration};
use hda::{Config, Output};
use pci::{Cx, Dma, Model, Width};
use wire::audio::{Encoding, Format, Jack, StreamId, ToRemote};

const STREAM: u8 = 0;
const PERIOD: u32 = 960 * 4;
const LAP: u32 = 4 * PERIOD;

fn with(bare: &mut Bare, step: impl FnOnce(&mut hda::Hda, &mut Cx<'_, Output>)) {
    let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
    step(&mut bare.hda, &mut cx);
}

fn plug(bare: &mut Bare, present: bool) {
    with(bare, |hda, cx| hda.set_jack(cx, Jack::Microphone, present));
    bare.pass(ms(100));
}

/// A guest that records, from a microphone that is plugged in; nothing runs yet.
fn desk_with_microphone(format: Format) -> (Driver<Bare>, u8) {
    let mut driver = Driver::start(Bare::new(Config::default(), RAM), DRIVER).unwrap();
    plug(driver.host(), true);
    let microphone = driver.microphone().unwrap();
    driver.connect(microphone.converter, TAG, format).unwrap();
    let lap = LAP / 4 * format.frame_bytes();
    driver.set_up(STREAM, TAG, format, &buffers(&[(lap / 2, true), (lap / 2, true)]), lap).unwrap();
    driver.host().out.clear();
    (driver, microphone.converter)
}

fn recording() -> (Driver<Bare>, u8) {
    let (mut driver, converter) = desk_with_microphone(STEREO);
    put(&mut driver, SOUND, &vec![0xee; LAP as usize]);
    driver.run(STREAM, true);
    driver.host().out.clear();
    (driver, converter)
}

fn asked(out: &[Output]) -> Vec<ToRemote> {
    let asked = |output: &Output| match output {
        Output::Audio(message @ (ToRemote::Record { .. } | ToRemote::StopRecord { .. })) => {
            Some(message.clone())
        }
        _ => None,
    };
    out.iter().filter_map(asked).collect()
}

fn record(run: u32) -> ToRemote {
    ToRemote::Record { stream: StreamId(STREAM), run, format: STEREO }
}

fn stop(run: u32) -> ToRemote {
    ToRemote::StopRecord { stream: StreamId(STREAM), run }
}

fn say(driver: &mut Driver<Bare>, run: u32, position: u64, pcm: &[u8]) {
    say_as(driver, STEREO, run, position, pcm);
}

fn say_as(driver: &mut Driver<Bare>, format: Format, run: u32, position: u64, pcm: &[u8]) {
    let packet = hda::Packet { stream: StreamId(STREAM), run, position, format, pcm: pcm.to_vec().into() };
    driver.host().hda.captured(&packet);
}

fn memory(driver: &mut Driver<Bare>, frames: std::ops::Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; 4 * frames.len()];
    driver.host().ram.read(SOUND + 4 * frames.start as u64, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_the_microphone_hears_arrives_bit_exact_behind_the_silence_before_it() {
    let (mut driver, _) = recording();
    let sound = counter(4 * 960);
    driver.host().pass(duration(STEREO, 100));
    driver.host().tick();
    for (n, pcm) in sound.chunks(4 * 240).enumerate() {
        say(&mut driver, 1, 240 * n as u64, pcm);
        driver.host().pass(ms(5));
    }
    driver.host().pass(ms(5));
    assert_eq!(memory(&mut driver, 0..100), [0; 400]);
    assert_eq!(memory(&mut driver, 100..1_060), sound);
    assert_eq!(memory(&mut driver, 1_060..1_200), [0; 4 * 140], "and silence when there is no more");
}

#[test]
fn every_advertised_format_is_recorded_bit_exact() {
    for rate in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
        for encoding in [Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            for channels in [1, 2] {
                let format = Format { rate, encoding, channels };
                let (mut driver, _) = desk_with_microphone(format);
                driver.run(STREAM, true);
                let sound = counter((format.frame_bytes() * 480) as usize);
                say_as(&mut driver, format, 1, 0, &sound);
                driver.host().pass(duration(format, 481));
                driver.host().tick();
                let mut heard = vec![0; sound.len()];
                driver.host().ram.read(SOUND, &mut heard).unwrap();
                assert!(heard == sound, "{format:?}");
            }
        }
    }
}

#[test]
fn the_remote_records_only_while_the_guest_can_hear_it() {
    struct Case {
        name: &'static str,
        close: fn(&mut Driver<Bare>, u8),
        open: fn(&mut Driver<Bare>, u8),
    }
    fn ask(driver: &mut Driver<Bare>, node: u8, verb: u32) {
        driver.verb(node, verb).unwrap();
    }
    const MICROPHONE: u8 = 0x18;
    #[rustfmt::skip]
    let cases = [
        Case { name: "muted",         close: |d, adc| ask(d, adc, 0x370ca),     open: |d, adc| ask(d, adc, 0x3704a) },
        Case { name: "turned down",   close: |d, adc| ask(d, adc, 0x37000),     open: |d, adc| ask(d, adc, 0x37001) },
        Case { name: "pin off",       close: |d, _| ask(d, MICROPHONE, 0x70700), open: |d, _| ask(d, MICROPHONE, 0x70720) },
        Case { name: "ADC in D3",     close: |d, adc| ask(d, adc, 0x70503),     open: |d, adc| ask(d, adc, 0x70500) },
        Case { name: "group in D3",   close: |d, _| ask(d, 1, 0x70503),         open: |d, _| ask(d, 1, 0x70500) },
        Case { name: "no tag",        close: |d, adc| ask(d, adc, 0x70600),     open: |d, adc| ask(d, adc, 0x70650) },
        Case { name: "paused",        close: |d, _| d.run(STREAM, false),       open: |d, _| d.run(STREAM, true) },
        Case { name: "pulled out",    close: |d, _| plug(d.host(), false),      open: |d, _| plug(d.host(), true) },
        Case { name: "held by SSYNC", close: |d, _| d.host().write(0x38, Width::Dword, 1), open: |d, _| d.host().write(0x38, Width::Dword, 0) },
    ];
    for Case { name, close, open } in cases {
        let (mut driver, adc) = recording();
        driver.host().pass(ms(5));
        close(&mut driver, adc);
        assert_eq!(asked(&driver.host().out), [stop(1)], "{name}");
        driver.host().out.clear();
        driver.host().pass(ms(50));
        assert_eq!(asked(&driver.host().out), [], "{name}");
        open(&mut driver, adc);
        driver.host().tick();
        assert_eq!(asked(&driver.host().out), [record(2)], "{name}: a new recording");
    }
}

#[test]
fn a_reset_of_any_kind_ends_the_recording() {
    type Reset = fn(&mut Driver<Bare>);
    let resets: [(&str, Reset); 3] = [
        ("stream", |driver| driver.reset_stream(STREAM).unwrap()),
        ("controller", |driver| driver.host().write(8, Width::Dword, 0)),
        ("function", |driver| with(driver.host(), |hda, cx| hda.reset(cx))),
    ];
    for (name, reset) in resets {
        let (mut driver, _) = recording();
        driver.host().pass(ms(5));
        reset(&mut driver);
        assert_eq!(asked(&driver.host().out), [stop(1)], "{name}");
        assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), None, "{name}");
    }
}

#[test]
fn the_guests_clock_runs_without_a_microphone_and_what_it_hears_is_silence() {
    let nothing = |_: &mut Driver<Bare>| ();
    for prepare in [nothing, |driver: &mut Driver<Bare>| plug(driver.host(), false)] {
        let (mut driver, _) = desk_with_microphone(STEREO);
        prepare(&mut driver);
        put(&mut driver, SOUND, &vec![0xee; LAP as usize]);
        driver.host().out.clear();
        driver.run(STREAM, true);
        driver.host().pass(ms(10));
        assert_eq!(driver.link_position(STREAM), 1_920);
        assert_eq!(memory(&mut driver, 0..480), [0; 1_920]);
    }
}

#[test]
fn what_was_not_asked_for_is_dropped() {
    let (mut driver, _) = recording();
    let sound = counter(4 * 48);
    for (name, format, run) in [
        ("another recording", STEREO, 2),
        ("none", STEREO, 0),
        ("another rate", Format { rate: 44_100, ..STEREO }, 1),
        ("other channels", Format { channels: 1, ..STEREO }, 1),
    ] {
        say_as(&mut driver, format, run, 0, &sound);
        assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), Some(0), "{name}");
    }
    let packet = |stream, pcm: &[u8]| hda::Packet {
        stream: StreamId(stream),
        run: 1,
        position: 0,
        format: STEREO,
        pcm: pcm.to_vec().into(),
    };
    for (name, packet) in [
        ("half a frame", packet(STREAM, &[0; 6])),
        ("no frame", packet(STREAM, &[])),
        ("a playback stream", packet(4, &sound)),
        ("a stream that does not run", packet(1, &sound)),
        ("a stream that is not there", packet(200, &sound)),
    ] {
        driver.host().hda.captured(&packet);
        assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), Some(0), "{name}");
    }
}

#[test]
fn frames_that_come_twice_are_heard_once_and_lost_ones_leave_a_hole_of_their_length() {
    let (mut driver, _) = recording();
    let sound = counter(4 * 480);
    let part = |frames: std::ops::Range<usize>| sound[4 * frames.start..4 * frames.end].to_vec();
    say(&mut driver, 1, 0, &part(0..240));
    say(&mut driver, 1, 0, &part(0..240));
    say(&mut driver, 1, 120, &part(120..300));
    say(&mut driver, 1, 360, &part(360..480));
    assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), Some(480));
    driver.host().pass(duration(STEREO, 481));
    let heard = memory(&mut driver, 0..480);
    assert!(
        heard[..1_200] == sound[..1_200]
            && heard[1_200..1_440] == [0; 240]
            && heard[1_440..] == sound[1_440..]
    );
}

#[test]
fn silence_that_was_heard_already_is_not_heard_again_as_a_hole() {
    let (mut driver, _) = recording();
    let sound = counter(4 * 96);
    say(&mut driver, 1, 0, &sound);
    driver.host().pass(duration(STEREO, 336));
    driver.host().tick();
    // Frames 96 to 336 are lost, and their time is over.
    say(&mut driver, 1, 336, &sound);
    assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), Some(96));
    assert_eq!(driver.host().hda.counters().missing_frames, 240);
}

#[test]
fn latency_is_capped_whatever_the_remote_sends() {
    let (mut driver, _) = recording();
    let sound = vec![1; 4 * 480];
    for n in 0..1_000 {
        say(&mut driver, 1, 480 * n, &sound);
        assert!(driver.host().hda.waiting(StreamId(STREAM)) <= Some(48 * 150));
    }
    say(&mut driver, 1, u64::MAX - 3, &sound);
    say(&mut driver, 1, u64::MAX, &sound);
    say(&mut driver, 1, 0, &sound);
    assert!(driver.host().hda.waiting(StreamId(STREAM)) <= Some(48 * 150));
    driver.host().pass(ms(1));
    driver.host().tick();
    assert!(driver.host().hda.counters().skipped_frames > 0);
}

#[test]
fn a_remote_that_comes_later_is_asked_again() {
    let (mut driver, _) = recording();
    driver.host().pass(ms(5));
    say(&mut driver, 1, 0, &counter(4 * 480));
    with(driver.host(), |hda, cx| hda.remote_came(cx));
    assert_eq!(asked(&driver.host().out), [record(2)]);
    assert_eq!(driver.host().hda.waiting(StreamId(STREAM)), Some(0), "what the other one sent is gone");
    let sound = counter(4 * 48);
    say(&mut driver, 2, 0, &sound);
    driver.host().pass(ms(3));
    assert_eq!(memory(&mut driver, 240..288), sound);
}

#[test]
fn the_volume_of_the_converter_applies_to_what_is_heard() {
    let (mut driver, adc) = recording();
    driver.verb(adc, 0x37044).unwrap();
    say(&mut driver, 1, 0, &1000i16.to_le_bytes().repeat(480));
    driver.host().pass(ms(6));
    assert_eq!(memory(&mut driver, 0..200), 501i16.to_le_bytes().repeat(400), "-6 dB");
}

#[test]
fn playback_and_capture_run_at_once_on_one_clock() {
    let (mut driver, _) = recording();
    let speaker = driver.speaker().unwrap();
    driver.connect(speaker.converter, TAG, STEREO).unwrap();
    let output = driver.output(0);
    put(&mut driver, SOUND + 0x1_0000, &counter(3_840));
    let buffers = [hda::driver::Buffer { address: SOUND + 0x1_0000, length: 3_840, interrupt: true }];
    driver.set_up(output, TAG, STEREO, &buffers, 3_840).unwrap();
    let before = driver.link_position(STREAM);
    driver.run(output, true);
    driver.host().out.clear();
    driver.host().pass(ms(10));
    assert_eq!(driver.link_position(STREAM) - before, driver.link_position(output));
    assert_eq!(driver.host().take_played().len(), 4);
}
