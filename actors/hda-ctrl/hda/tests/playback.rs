//! What a guest hears of its own doing: positions, completions, and the sound that leaves. HDA 1.0a §4.5.

mod common;

use common::*;
use hda::Output;
use hda::driver::{Bare, Driver, Host, Kind, duration};
use pci::{Cx, Width};
use wire::audio::ToRemote;

/// 20 ms periods, four of them, as `aplay` sets them up.
const PERIOD: u32 = 960 * 4;
const WALCLK: u64 = 0x30;

fn playing(periods: u32) -> (Driver<Bare>, u8, Vec<u8>) {
    playing_on(desk(STEREO), periods)
}

fn playing_on((mut driver, stream): (Driver<Bare>, u8), periods: u32) -> (Driver<Bare>, u8, Vec<u8>) {
    let sound = counter((PERIOD * periods) as usize);
    put(&mut driver, SOUND, &sound);
    driver.set_up(stream, TAG, STEREO, &linux_ring(4, PERIOD, periods), PERIOD * periods).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    (driver, stream, sound)
}

#[test]
fn a_second_of_sound_leaves_bit_exact_in_packets_of_2_and_a_half_ms() {
    let (mut driver, _, sound) = playing(4);
    for _ in 0..50 {
        driver.host().pass(ms(20));
        driver.acknowledge();
    }
    let packets = driver.host().take_played();
    assert_eq!(packets.len(), 400);
    assert!(
        packets
            .iter()
            .all(|packet| packet.pcm.len() == 120 * 4 && packet.format == STEREO && packet.run == 1)
    );
    let expected: Vec<u8> = sound.iter().copied().cycle().take(48_000 * 4).collect();
    assert!(heard(&packets) == expected);
}

/// A remote that still knows the last controller's first run would take this one's for what it has heard.
#[test]
fn a_controller_that_is_built_anew_numbers_its_runs_behind_those_before() {
    for before in [0, 1, 1 << 16, u32::MAX] {
        let (mut driver, _, _) = playing_on(desk_behind(before, STEREO), 4);
        driver.host().pass(ms(20));
        let packets = driver.host().take_played();
        assert!(!packets.is_empty() && packets.iter().all(|packet| packet.run == before.wrapping_add(1)));
    }
}

#[test]
fn linux_gets_one_interrupt_per_period_behind_the_boundary_and_never_position_0() {
    let (mut driver, stream, _) = playing(4);
    let mut told = Vec::new();
    let end = driver.host().now + ms(1_000);
    while driver.host().now < end {
        let before = interrupts(&driver.host().out);
        let due = pci::Model::deadline(&driver.host().hda).unwrap();
        driver.host().now = due;
        driver.host().tick();
        if interrupts(&driver.host().out) > before {
            let position = driver.position(stream).unwrap();
            assert_ne!(position, 0);
            let (status, streams) = driver.acknowledge();
            assert_eq!((status, streams), (1 << 31 | 1 << stream, vec![(stream, 0x24)]));
            told.push(position);
        }
    }
    // Right behind the start, then one frame behind each boundary, or as soon as ticks may follow on each other.
    assert_eq!(told.len(), 50);
    assert!(told.iter().all(|position| (4..=20).contains(&(position % PERIOD))), "{told:?}");
}

#[test]
fn the_position_buffer_is_never_older_than_a_millisecond_and_never_ahead_of_the_register() {
    let (mut driver, stream, _) = playing(4);
    for step in 1..5_000 {
        driver.host().pass(core::time::Duration::from_nanos(199_999));
        let memory = driver.position(stream).unwrap();
        let register = driver.link_position(stream);
        let ahead = (register + 4 * PERIOD - memory) % (4 * PERIOD);
        assert!(ahead <= 48 * 4, "step {step}: {memory} in memory, {register} in the register");
        assert_eq!(driver.position(stream).unwrap(), register);
    }
}

#[test]
fn pause_and_resume_go_on_at_the_same_byte_of_the_same_run() {
    let (mut driver, stream, sound) = playing(4);
    driver.host().pass(duration(STEREO, 1_001));
    driver.run(stream, false);
    assert_eq!(pauses(&driver.host().out), [(1, 1_001)]);
    let paused_at = driver.link_position(stream);
    assert_eq!(paused_at, 1_001 * 4 % (4 * PERIOD));
    driver.host().pass(ms(500));
    assert_eq!(driver.link_position(stream), paused_at);
    driver.run(stream, true);
    driver.host().pass(ms(100));
    let packets = driver.host().take_played();
    assert!(packets.iter().all(|packet| packet.run == 1));
    let heard = heard(&packets);
    assert!(sound.iter().copied().cycle().take(heard.len()).eq(heard.iter().copied()));
    assert!(heard.len() / 4 >= 1_001 + 4_800 - 240);
}

#[test]
fn a_stream_reset_begins_a_new_run_at_byte_0() {
    let (mut driver, stream, sound) = playing(4);
    driver.host().pass(ms(7));
    driver.set_up(stream, TAG, STEREO, &linux_ring(4, PERIOD, 4), 4 * PERIOD).unwrap();
    assert_eq!(pauses(&driver.host().out), [(1, 336)]);
    assert_eq!(driver.link_position(stream), 0);
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(duration(STEREO, 120));
    let packets = driver.host().take_played();
    assert_eq!((packets[0].run, packets[0].position), (2, 0));
    assert_eq!(heard(&packets), sound[..120 * 4]);
}

#[test]
fn a_new_ring_without_a_stream_reset_begins_a_new_run_too_but_not_the_same_one_again() {
    let (mut driver, stream, _) = playing(4);
    let base = 0x80 + 0x20 * u64::from(stream);
    for (length, runs) in [(4 * PERIOD, 1), (2 * PERIOD, 2), (2 * PERIOD, 2)] {
        driver.host().pass(ms(7));
        driver.run(stream, false);
        driver.host().out.clear();
        driver.host().write(base + 8, Width::Dword, length.into());
        driver.run(stream, true);
        driver.host().pass(ms(7));
        assert_eq!(driver.host().take_played()[0].run, runs);
    }
}

#[test]
fn nothing_is_due_while_nothing_runs() {
    let (mut driver, stream, _) = playing(2);
    assert!(pci::Model::deadline(&driver.host().hda).is_some());
    driver.run(stream, false);
    assert_eq!(pci::Model::deadline(&driver.host().hda), None);
}

#[test]
fn wall_clock_and_position_tell_the_same_time_even_after_a_late_tick() {
    let (mut driver, stream, _) = playing(4);
    let (wall, position) = (driver.wall_clock(), driver.link_position(stream));
    // 100 ms without a tick: half a lap (40 ms) is moved, the rest slips.
    driver.host().now += ms(100);
    driver.host().tick();
    let frames = (driver.link_position(stream) - position) / 4;
    assert_eq!(frames, 1_920);
    assert_eq!(driver.wall_clock().wrapping_sub(wall), 1_920 * 500);
    assert_eq!(driver.host().hda.counters().slipped, ms(60));
}

#[test]
fn how_loud_the_guest_has_it_is_told_at_first_and_when_it_changes() {
    let (mut driver, _, _) = playing(4);
    let speaker = driver.endpoint(Kind::Speaker, 0).unwrap();
    let told = |driver: &mut Driver<Bare>| {
        driver.host().pass(ms(20));
        let volume = |output| match output {
            Output::Audio(ToRemote::Volume(volume)) => Some((volume.gain, volume.mute)),
            _ => None,
        };
        driver.host().out.drain(..).filter_map(volume).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut driver), [(0, false)]);
    assert_eq!(told(&mut driver), []);
    // Both sides of the output amplifier: 6 dB down, then muted. HDA 1.0a §7.3.3.7.
    driver.verb(speaker.converter, 0x3b044).unwrap();
    assert_eq!(told(&mut driver), [(-6 * 256, false)]);
    driver.verb(speaker.converter, 0x3b0c4).unwrap();
    assert_eq!(told(&mut driver), [(0, true)]);
}

#[test]
fn a_clock_that_follows_a_remote_changes_its_pace_and_steps_nowhere() {
    let (mut driver, stream, _) = playing(4);
    let (mut frames, mut ticks) = (0, 0);
    for ppb in [0, 200_000, -200_000, 1_000_000, i32::MIN] {
        let wall = |driver: &mut Driver<Bare>| driver.host().read(WALCLK, Width::Dword) as u32;
        let before = (driver.link_position(stream), wall(&mut driver));
        let bare = driver.host();
        bare.hda.set_drift(&Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out }, ppb);
        assert_eq!((driver.link_position(stream), wall(&mut driver)), before, "{ppb} ppb");
        driver.host().take_played();
        driver.host().pass(ms(10_000));
        let heard: usize = driver.host().take_played().iter().map(|packet| packet.pcm.len() / 4).sum();
        let expected = 480_000 + i64::from(ppb.max(-1_000_000)) * 480 / 1_000_000;
        assert!((heard as i64 - expected).abs() <= 240, "{ppb} ppb: {heard} frames");
        (frames, ticks) =
            (frames + heard as i64, ticks + i64::from(wall(&mut driver).wrapping_sub(before.1)));
    }
    assert!((ticks - 500 * frames).abs() <= 500 * 240, "WALCLK and positions tell the same time");
}

#[test]
fn linked_streams_start_on_the_same_frame() {
    for sync in [0x34, 0x38] {
        let (mut driver, first) = desk(STEREO);
        let second = first + 1;
        for stream in [first, second] {
            let buffers = buffers(&[(4 * PERIOD, false)]);
            driver.set_up(stream, TAG + stream, STEREO, &buffers, 4 * PERIOD).unwrap();
        }
        driver.host().write(sync, Width::Dword, 1 << first | 1 << second);
        driver.run(first, true);
        driver.host().pass(ms(3));
        driver.run(second, true);
        driver.host().pass(ms(3));
        assert_eq!([driver.link_position(first), driver.link_position(second)], [0, 0]);
        driver.host().write(sync, Width::Dword, 0);
        driver.host().pass(ms(10));
        assert_eq!([driver.link_position(first), driver.link_position(second)], [480 * 4; 2]);
    }
}

#[test]
fn a_guest_that_hangs_is_heard_for_three_laps_at_most_and_again_when_it_is_back() {
    let (mut driver, _, _) = playing(4);
    // Laps of 80 ms, never acknowledged: the second begins with a completion pending, the third is the same.
    driver.host().pass(ms(1_000));
    let hanging = driver.host().take_played();
    let heard = |packets: &[hda::Packet]| {
        packets.iter().filter(|packet| packet.pcm.iter().any(|byte| *byte != 0)).count()
    };
    assert_eq!(hanging.len(), 400, "its clock runs on");
    assert!((96..=100).contains(&heard(&hanging)), "{} packets of 2.5 ms", heard(&hanging));
    driver.acknowledge();
    driver.host().pass(ms(50));
    assert_eq!(heard(&driver.host().take_played()), 20);
}

#[test]
fn a_ring_that_does_not_interrupt_may_repeat_itself_for_ever() {
    let (mut driver, stream) = desk(STEREO);
    let sound = counter(3_840);
    put(&mut driver, SOUND, &sound);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, false)]), 3_840).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().pass(ms(1_000));
    assert!(heard(&driver.host().take_played()) == sound.repeat(50));
}
