//! The rules of the stream engine, for any ring, any format and any schedule of ticks.

mod common;

use core::time::Duration;

use common::*;
use hda::driver::{Bare, Buffer, Driver, Host};
use pci::{Dma, Model};
use proptest::prelude::*;
use wire::audio::{Encoding, Format};

fn formats() -> impl Strategy<Value = Format> {
    let rates =
        prop::sample::select(vec![8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]);
    let encodings =
        prop::sample::select(vec![Encoding::U8, Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32]);
    (rates, encodings, 1..=8u8).prop_map(|(rate, encoding, channels)| Format { rate, encoding, channels })
}

/// Rings as drivers write them, and rings as they should not: of one frame, of odd lengths, with empty buffers.
fn rings() -> impl Strategy<Value = Vec<(u32, bool)>> {
    let length = prop_oneof![4 => 1..4_000u32, 1 => Just(0), 1 => 1..=8u32, 1 => 4_000..60_000u32];
    prop::collection::vec((length, any::<bool>()), 1..12)
        .prop_filter("something to play", |ring| ring.iter().any(|(length, _)| *length > 0))
}

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and no tick is late.
    Pass(Duration),
    /// One tick, late or early.
    Late(Duration),
    /// The guest looks at the position or at the wall clock.
    LookAtPosition(Duration),
    LookAtClock(Duration),
    /// RUN 1->0, later 0->1.
    Pause(Duration),
    /// SSYNC 0->1, later 1->0.
    Hold(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![0..2_000_000u64, 0..120_000_000u64].prop_map(Duration::from_nanos);
    let step = (0..8u8, time).prop_map(|(kind, time)| match kind {
        0 | 1 => Step::Pass(time),
        2 | 3 => Step::Late(time),
        4 => Step::LookAtPosition(time),
        5 => Step::LookAtClock(time),
        6 => Step::Pause(time),
        _ => Step::Hold(time),
    });
    prop::collection::vec(step, 1..60)
}

/// Carries a step out; `true` if the stream moved during it.
fn take(driver: &mut Driver<Bare>, stream: u8, step: &Step) -> bool {
    match *step {
        Step::Pass(time) => driver.host().pass(time),
        Step::Late(time) => {
            driver.host().now += time;
            driver.host().tick();
        }
        Step::LookAtPosition(time) => {
            driver.host().now += time;
            let _ = driver.link_position(stream);
        }
        Step::LookAtClock(time) => {
            driver.host().now += time;
            let _ = driver.wall_clock();
        }
        Step::Pause(time) => {
            driver.run(stream, false);
            driver.host().pass(time);
            driver.run(stream, true);
            return false;
        }
        Step::Hold(time) => {
            driver.host().write(0x34, pci::Width::Dword, 1 << stream);
            driver.host().pass(time);
            driver.host().write(0x34, pci::Width::Dword, 0);
            return false;
        }
    }
    true
}

/// The ring's memory, in the order in which it is played.
fn memory(buffers: &[Buffer]) -> impl Iterator<Item = u64> + Clone + '_ {
    buffers.iter().flat_map(|buffer| buffer.address..buffer.address + u64::from(buffer.length))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A guest that refills what has been played, as far as the position in memory says, hears its own sequence:
    /// no byte is lost, doubled or out of order, whatever the ring, and however late the ticks.
    #[test]
    fn every_byte_leaves_exactly_once_and_in_order(
        format in formats(), lengths in rings(), steps in steps(),
    ) {
        let frame = u64::from(format.frame_bytes());
        // The guest reads its position modulo CBL, so the ring is cut to whole frames, as the rules want it.
        let mut buffers = buffers(&lengths);
        let total: u64 = buffers.iter().map(|buffer| u64::from(buffer.length)).sum();
        let mut excess = total % frame;
        for buffer in buffers.iter_mut().rev() {
            let cut = excess.min(buffer.length.into()) as u32;
            buffer.length -= cut;
            excess -= u64::from(cut);
        }
        let places: Vec<u64> = memory(&buffers).collect();
        prop_assume!(places.len() as u64 >= 2 * frame);

        let (mut driver, stream) = desk(format);
        let sequence = counter(4 * 1024 * 1024);
        let mut written = 0;
        let mut fill = |driver: &mut Driver<Bare>, upto: usize| {
            while written < upto {
                let place = places[written % places.len()];
                driver.host().ram.write(place, &[sequence[written % sequence.len()]]).unwrap();
                written += 1;
            }
        };
        fill(&mut driver, places.len());
        driver.set_up(stream, TAG, format, &buffers, places.len() as u32).unwrap();
        driver.host().out.clear();
        driver.run(stream, true);
        let mut played = 0;
        let mut last = 0;
        for step in &steps {
            // Long steps in pieces: the guest refills in time, though never earlier than the position says.
            let _ = take(&mut driver, stream, &match step {
                Step::Pass(_) => Step::Late(Duration::from_millis(1)),
                other => other.clone(),
            });
            driver.acknowledge();
            let position = driver.position(stream).unwrap() as usize;
            played += (position + places.len() - last) % places.len();
            last = position;
            fill(&mut driver, played + places.len());
        }
        driver.run(stream, false);
        let packets = driver.host().take_played();
        let heard = heard(&packets);
        let position = driver.link_position(stream) as usize;
        played += (position + places.len() - last) % places.len();
        prop_assert_eq!(heard.len(), played);
        prop_assert!(heard.iter().zip(sequence.iter().cycle()).all(|(heard, sent)| heard == sent));
    }

    /// However CBL and the list disagree: the list is walked around, the position wraps at CBL.
    #[test]
    fn list_and_cyclic_length_need_not_agree(
        lengths in rings(), cyclic in prop_oneof![1..64u32, 1..20_000u32, any::<u32>().prop_map(|n| n.max(1))],
        steps in steps(),
    ) {
        let buffers = buffers(&lengths);
        let (mut driver, stream) = desk(STEREO);
        put(&mut driver, SOUND, &counter(1024 * 1024));
        driver.set_up(stream, TAG, STEREO, &buffers, cyclic).unwrap();
        // Without interrupts: this guest repeats itself on purpose.
        driver.host().write(0x80 + 0x20 * u64::from(stream), pci::Width::Byte, 0);
        driver.host().out.clear();
        driver.run(stream, true);
        for step in &steps {
            let _ = take(&mut driver, stream, step);
            let position = driver.position(stream).unwrap();
            prop_assert!(position < cyclic);
        }
        driver.run(stream, false);
        let heard = heard(&driver.host().take_played());
        prop_assert_eq!(u64::from(driver.link_position(stream)), heard.len() as u64 % u64::from(cyclic));
        let mut byte = [0];
        let mut expected = memory(&buffers).cycle().map(|place| {
            driver.host().ram.read(place, &mut byte).unwrap();
            byte[0]
        });
        prop_assert!(heard.iter().all(|heard| expected.next() == Some(*heard)));
    }

    /// Position, wall clock and slips add up to the host's time, to the frame; one late call moves half a lap or
    /// 50 ms at most.
    #[test]
    fn time_either_moves_the_position_or_slips(
        format in formats(), frames in 8..40_000u32, steps in steps(),
    ) {
        let (mut driver, stream) = desk(format);
        let cyclic = frames * format.frame_bytes();
        let buffers = [Buffer { address: SOUND, length: cyclic, interrupt: true }];
        driver.set_up(stream, TAG, format, &buffers, cyclic).unwrap();
        driver.run(stream, true);
        let wall = driver.wall_clock();
        let start = driver.host().now;
        let mut moved = 0;
        let mut last = 0;
        for step in steps.iter().filter(|step| !matches!(step, Step::Pause(_) | Step::Hold(_))) {
            if let Step::Pass(time) = step {
                // In pieces shorter than half a lap, so that laps can be counted.
                let end = driver.host().now + *time;
                while driver.host().now < end {
                    let due = driver.host().hda.deadline().unwrap().min(end);
                    driver.host().now = due;
                    driver.host().tick();
                    let position = driver.position(stream).unwrap();
                    moved += u64::from((position + cyclic - last) % cyclic / format.frame_bytes());
                    last = position;
                }
                continue;
            }
            take(&mut driver, stream, step);
            driver.host().tick();
            let position = driver.position(stream).unwrap();
            let step = (position + cyclic - last) % cyclic / format.frame_bytes();
            prop_assert!(step <= (frames / 2).max(1).min(format.rate / 20 + 1), "{step} frames at once");
            moved += u64::from(step);
            last = position;
        }
        let elapsed = driver.host().now - start - driver.host().hda.counters().slipped;
        prop_assert_eq!(u128::from(moved), elapsed.as_nanos() * u128::from(format.rate) / 1_000_000_000);
        let ticks = u64::from(driver.wall_clock().wrapping_sub(wall));
        prop_assert!(ticks.abs_diff((elapsed.as_nanos() * 24 / 1_000) as u64) <= 1);
    }

    /// At an interrupt the position in memory is never 0, and is where the completion was, or behind it.
    #[test]
    fn no_interrupt_shows_position_0(lengths in rings(), steps in steps()) {
        let buffers = buffers(&lengths);
        let total: u32 = lengths.iter().map(|(length, _)| *length).sum::<u32>() & !3;
        prop_assume!(total > 4);
        let (mut driver, stream) = desk(STEREO);
        driver.set_up(stream, TAG, STEREO, &buffers, total).unwrap();
        driver.run(stream, true);
        driver.host().out.clear();
        for step in steps {
            let _ = take(&mut driver, stream, &match step {
                Step::Pass(time) => Step::Late(time.min(ms(1))),
                other => other,
            });
            if interrupts(&driver.host().out) > 0 {
                prop_assert_ne!(driver.position(stream).unwrap(), 0);
            }
            driver.host().out.clear();
            driver.acknowledge();
        }
    }
}

/// Runs a day of guest time in steps of the engine's own, with a lap of 2 s: every frame is there, to the frame, and
/// nothing has slipped.
#[test]
fn a_day_of_playing_is_exact_to_the_frame() {
    let format = Format { rate: 44_100, ..STEREO };
    let (mut driver, stream) = desk(format);
    let lap = 2 * 44_100 * 4;
    let sound = counter(lap as usize);
    put(&mut driver, SOUND, &sound);
    let buffers = [Buffer { address: SOUND, length: lap, interrupt: true }];
    driver.set_up(stream, TAG, format, &buffers, lap).unwrap();
    // No position buffer: the engine sleeps from packet to packet, and the test gets through the day sooner.
    driver.host().write(0x70, pci::Width::Dword, 0);
    driver.run(stream, true);
    driver.host().out.clear();
    let mut frames = 0u64;
    let mut told = 0;
    for hour in 1..=24 {
        for _ in 0..3_600 {
            driver.host().pass(Duration::from_secs(1));
            told += interrupts(&driver.host().out);
            driver.acknowledge();
            for packet in driver.host().take_played() {
                assert_eq!(packet.position, frames);
                let at = (4 * frames % u64::from(lap)) as usize;
                let pcm = &packet.pcm[..];
                let until_end = pcm.len().min(sound.len() - at);
                assert!(
                    pcm[..until_end] == sound[at..at + until_end]
                        && pcm[until_end..] == sound[..pcm.len() - until_end]
                );
                frames += pcm.len() as u64 / 4;
            }
        }
        assert!(frames.abs_diff(hour * 3_600 * 44_100) < 44_100 / 200, "hour {hour}");
    }
    // One every 2 s; the last one is due a frame behind the end of the day.
    assert_eq!(told, 12 * 3_600 - 1);
    assert_eq!(driver.host().hda.counters().slipped, Duration::ZERO);
    assert_eq!(driver.link_position(stream), 0);
}

/// QEMU's engine froze after 14.5 hours, at a product that overflowed; and everybody's wall clock wraps.
#[test]
fn nothing_overflows_in_a_year() {
    let format = Format { rate: 192_000, encoding: Encoding::S32, channels: 2 };
    let (mut driver, stream) = desk(format);
    let buffers = [Buffer { address: SOUND, length: 0x10_0000, interrupt: true }];
    driver.set_up(stream, TAG, format, &buffers, 0x10_0000).unwrap();
    driver.run(stream, true);
    for _ in 0..365 {
        driver.host().now += Duration::from_secs(86_400);
        driver.host().tick();
        let before = driver.link_position(stream);
        driver.host().pass(ms(10));
        let after = driver.link_position(stream);
        assert_eq!((after + 0x10_0000 - before) % 0x10_0000, 1_920 * 8);
    }
}
