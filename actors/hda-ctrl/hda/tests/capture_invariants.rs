//! The rules of the stream engine in the other direction: what a microphone hears, for any ring, any format and any
//! schedule of ticks.

mod common;

use core::time::Duration;

use common::*;
use hda::Config;
use hda::driver::{Bare, Buffer, Driver};
use pci::{Cx, Dma};
use proptest::prelude::*;
use wire::audio::{Encoding, Format, Jack, StreamId};

fn formats() -> impl Strategy<Value = Format> {
    let rates = prop::sample::select(vec![8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000]);
    let encodings =
        prop::sample::select(vec![Encoding::U8, Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32]);
    // Two channels at most: there is one converter.
    (rates, encodings, 1..=2u8).prop_map(|(rate, encoding, channels)| Format { rate, encoding, channels })
}

/// Lengths of buffers: of one frame, of odd lengths, empty ones, and ones in between.
fn rings() -> impl Strategy<Value = Vec<(u32, bool)>> {
    let length = prop_oneof![4 => 1..4_000u32, 1 => Just(0), 1 => 1..=8u32, 1 => 4_000..30_000u32];
    prop::collection::vec((length, any::<bool>()), 1..8)
        .prop_filter("something to fill", |ring| ring.iter().any(|(length, _)| *length > 0))
}

/// Ticks, some early, most late; now and then the guest pauses.
fn steps() -> impl Strategy<Value = Vec<(Duration, bool)>> {
    let time = prop_oneof![0..2_000_000u64, 0..120_000_000u64].prop_map(Duration::from_nanos);
    prop::collection::vec((time, prop::bool::weighted(0.1)), 1..60)
}

/// A guest that records into a ring; the microphone is plugged in if it is said so.
fn recording(format: Format, buffers: &[Buffer], cyclic: u32, plugged: bool) -> Driver<Bare> {
    let mut driver = Driver::start(Bare::new(Config::default(), RAM), DRIVER).unwrap();
    if plugged {
        let bare = driver.host();
        let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
        bare.hda.set_jack(&mut cx, Jack::Microphone, true);
        bare.pass(ms(100));
    }
    let microphone = driver.microphone().unwrap();
    driver.connect(microphone.converter, TAG, format).unwrap();
    driver.set_up(0, TAG, format, buffers, cyclic).unwrap();
    driver.run(0, true);
    driver
}

/// The ring's memory, in the order in which it is filled.
fn places(buffers: &[Buffer]) -> Vec<u64> {
    buffers.iter().flat_map(|buffer| buffer.address..buffer.address + u64::from(buffer.length)).collect()
}

/// A ring of whole frames, at least two of them.
fn whole(lengths: &[(u32, bool)], format: Format) -> Vec<Buffer> {
    let mut buffers = buffers(lengths);
    let total: u32 = buffers.iter().map(|buffer| buffer.length).sum();
    let mut excess = total % format.frame_bytes();
    for buffer in buffers.iter_mut().rev() {
        let cut = excess.min(buffer.length);
        buffer.length -= cut;
        excess -= cut;
    }
    buffers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// A remote that is always ahead, in packets of any size, is heard with every frame once, in order and unchanged,
    /// whatever the ring, however late the ticks, and through pauses.
    #[test]
    fn every_frame_arrives_exactly_once_and_in_order(
        format in formats(), lengths in rings(), steps in steps(), packet in 1..2_000u64,
    ) {
        let buffers = whole(&lengths, format);
        let places = places(&buffers);
        let frame = u64::from(format.frame_bytes());
        prop_assume!(places.len() as u64 >= 2 * frame);
        let mut driver = recording(format, &buffers, places.len() as u32, true);
        let sequence = counter(1 << 22);
        let (mut run, mut sent, mut base) = (1, 0u64, 0usize);
        let (mut heard, mut last) = (0usize, 0usize);
        // Twice the most that one tick moves.
        let ahead = u64::from(format.rate / 10);
        let packet = packet.min(ahead / 4).max(1);
        for (time, pause) in steps {
            while driver.host().hda.waiting(StreamId(0)).unwrap() < ahead {
                let from = base + (sent * frame) as usize;
                let pcm = (from..from + (packet * frame) as usize).map(|at| sequence[at % sequence.len()]);
                let pcm = pcm.collect::<Vec<_>>().into();
                let position = sent;
                driver.host().hda.captured(&hda::Packet { stream: StreamId(0), run, position, format, pcm });
                sent += packet;
            }
            driver.host().out.clear();
            driver.host().now += time;
            driver.host().tick();
            if interrupts(&driver.host().out) > 0 && places.len() as u64 > frame {
                prop_assert_ne!(driver.position(0).unwrap(), 0, "a position at an interrupt");
            }
            driver.acknowledge();
            let position = driver.link_position(0) as usize;
            let moved = (position + places.len() - last) % places.len();
            for at in last..last + moved {
                let mut byte = [0];
                driver.host().ram.read(places[at % places.len()], &mut byte).unwrap();
                prop_assert_eq!(byte[0], sequence[heard % sequence.len()], "byte {}", heard);
                heard += 1;
            }
            last = position;
            if pause {
                driver.run(0, false);
                driver.host().pass(time);
                driver.run(0, true);
                // A new recording begins with the next frame.
                (run, sent, base) = (run + 1, 0, heard);
            }
        }
        prop_assert_eq!(driver.host().hda.counters().missing_frames, 0);
        prop_assert_eq!(driver.host().hda.counters().skipped_frames, 0);
    }

    /// Whatever arrives, and when: the guest's position is that of its clock, what is missing is silence, and no more
    /// than 150 ms wait.
    #[test]
    fn the_guests_clock_does_not_depend_on_the_remote(
        steps in prop::collection::vec((0..60_000_000u64, 0..20_000u64, 0..4_000usize), 1..60),
    ) {
        let lap = 48_000 * 4;
        let buffers = [Buffer { address: SOUND, length: lap, interrupt: true }];
        let mut with = recording(STEREO, &buffers, lap, true);
        let mut without = recording(STEREO, &buffers, lap, false);
        // The one had to wait for its jack.
        let (start, silent) = (with.host().now, without.host().now);
        let mut time = Duration::ZERO;
        for (step, position, frames) in steps {
            time += Duration::from_nanos(step);
            let pcm = vec![0x55; 4 * frames].into();
            let packet = hda::Packet { stream: StreamId(0), run: 1, position, format: STEREO, pcm };
            with.host().hda.captured(&packet);
            prop_assert!(with.host().hda.waiting(StreamId(0)).unwrap() <= 48 * 150);
            (with.host().now, without.host().now) = (start + time, silent + time);
            with.host().tick();
            without.host().tick();
            prop_assert_eq!(with.link_position(0), without.link_position(0));
        }
        let mut memory = vec![0; lap as usize];
        with.host().ram.read(SOUND, &mut memory).unwrap();
        prop_assert!(memory.iter().all(|byte| [0, 0x55].contains(byte)));
    }

    /// Without a microphone every byte of the ring becomes silence, in order, and nothing beside it.
    #[test]
    fn silence_fills_the_ring_in_order_and_nothing_else(frames in 2..4_000u32, steps in steps()) {
        let length = 4 * frames;
        let buffers = [
            Buffer { address: SOUND, length: 4, interrupt: true },
            Buffer { address: SOUND + 4, length: length - 4, interrupt: false },
        ];
        let mut driver = recording(STEREO, &buffers, length, false);
        put(&mut driver, SOUND - 16, &vec![0xee; length as usize + 32]);
        let mut written = 0;
        let mut last = 0;
        for (time, pause) in steps {
            if pause {
                driver.run(0, false);
                driver.host().pass(time);
                driver.run(0, true);
            }
            driver.host().now += time;
            driver.host().tick();
            let position = driver.link_position(0);
            written += (position + length - last) % length;
            last = position;
            let mut memory = vec![0; length as usize + 32];
            driver.host().ram.read(SOUND - 16, &mut memory).unwrap();
            let silent = written.min(length) as usize;
            prop_assert!(memory[16..16 + silent].iter().all(|byte| *byte == 0));
            prop_assert!(memory[16 + silent..].iter().all(|byte| *byte == 0xee));
            prop_assert!(memory[..16].iter().all(|byte| *byte == 0xee));
        }
    }
}

/// The order of every step in time, for capture, too: sound into memory, then the position, then the interrupt.
#[test]
fn sound_is_written_before_the_position_is_published_and_that_before_the_interrupt() {
    let mut driver = Driver::start(Bare::with_memory(Config::default(), Memory::new()), DRIVER).unwrap();
    driver.set_up(0, TAG, STEREO, &buffers(&[(960, true), (2_880, true)]), 3_840).unwrap();
    driver.run(0, true);
    driver.host().ram.log.borrow_mut().clear();
    driver.host().out.clear();
    driver.host().now += hda::driver::duration(STEREO, 250);
    driver.host().tick();
    let expected = [Access::Write(SOUND), Access::Write(SOUND + 960), Access::Publish(DRIVER + 0xc00)];
    assert_eq!(*driver.host().ram.log.borrow(), expected);
    assert_eq!(driver.host().out, [hda::Output::Interrupt(0)]);
}
