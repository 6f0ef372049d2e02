//! What becomes of sound between the ring and the remote: formats, volume, tags, power. HDA 1.0a §3.7, §7.3.3.

mod common;

use common::*;
use hda::driver::{Bare, Driver, Host, Kind, duration};
use pci::{Cx, Width};
use wire::audio::{Encoding, Format, Jack};

/// Plays 100 ms of a counter after `prepare`, and answers with what was in memory and what was heard.
fn play(format: Format, prepare: impl FnOnce(&mut Driver<Bare>, u8)) -> (Vec<u8>, Vec<hda::Packet>) {
    let (mut driver, stream) = desk(format);
    let lap = format.frame_bytes() * (format.rate / 4);
    let sound = counter(lap as usize);
    put(&mut driver, SOUND, &sound);
    driver.set_up(stream, TAG, format, &buffers(&[(lap, true)]), lap).unwrap();
    prepare(&mut driver, stream);
    driver.run(stream, true);
    driver.host().out.clear();
    driver.host().pass(duration(format, u64::from(format.rate / 10)));
    driver.run(stream, false);
    (sound, driver.host().take_played())
}

fn ask(driver: &mut Driver<Bare>, node: u8, verb: u32) {
    driver.verb(node, verb).unwrap();
}

#[test]
fn every_advertised_format_arrives_with_its_bytes_untouched() {
    let rates = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];
    for rate in rates {
        for encoding in [Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            for channels in [1, 2] {
                let format = Format { rate, encoding, channels };
                let (sound, packets) = play(format, |_, _| {});
                assert!(packets.iter().all(|packet| packet.format == format), "{format:?}");
                let heard = heard(&packets);
                assert_eq!(heard.len(), (format.frame_bytes() * (rate / 10)) as usize, "{format:?}");
                assert!(heard[..] == sound[..heard.len()], "{format:?}");
            }
        }
    }
}

#[test]
fn the_volume_of_the_converter_applies_and_mute_is_silence_in_step() {
    let quieter = play(STEREO, |driver, _| ask(driver, 2, 0x3b044));
    let muted = play(STEREO, |driver, _| ask(driver, 2, 0x3b0ca));
    let sample = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]]));
    for (before, after) in quieter.0.chunks(2).zip(heard(&quieter.1).chunks(2)) {
        assert!((sample(before) * 0.501_187 - sample(after)).abs() <= 0.51, "-6 dB");
    }
    assert_eq!(heard(&muted.1), vec![0; 4_800 * 4], "as many frames as ever");
}

#[test]
fn a_change_of_volume_begins_at_its_frame_and_takes_5_ms() {
    let (mut driver, stream) = desk(STEREO);
    put(&mut driver, SOUND, &0x1000i16.to_le_bytes().repeat(1_920));
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().out.clear();
    driver.run(stream, true);
    driver.host().now += duration(STEREO, 123);
    driver.verb(2, 0x3b080).unwrap();
    driver.host().now += duration(STEREO, 400);
    driver.run(stream, false);
    let heard = heard(&driver.host().take_played());
    let samples: Vec<_> = heard.chunks(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
    let (before, after) = samples.split_at(2 * 123);
    assert!(before.iter().all(|sample| *sample == 0x1000));
    let (fading, silent) = after.split_at(2 * 240);
    assert!(
        fading[0] < 0x1000 && fading.windows(2).all(|pair| pair[0] - pair[1] <= 18 && pair[0] >= pair[1])
    );
    assert!(silent.len() >= 2 * 159 && silent.iter().all(|sample| *sample == 0));
}

#[test]
fn nobody_hears_a_stream_without_a_tag_or_under_another() {
    for tag in [0, 6] {
        let (_, packets) = play(STEREO, |driver, stream| {
            let base = 0x80 + 0x20 * u64::from(stream);
            driver.host().write(base + 2, Width::Byte, tag << 4);
        });
        assert!(packets.is_empty(), "tag {tag}");
    }
}

#[test]
fn of_two_streams_under_one_tag_the_first_is_heard() {
    let (mut driver, first) = desk(STEREO);
    put(&mut driver, SOUND, &counter(3_840));
    for stream in [first + 1, first] {
        driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
        driver.run(stream, true);
    }
    driver.host().out.clear();
    driver.host().pass(ms(50));
    let packets = driver.host().take_played();
    assert!(packets.len() >= 9 && packets.iter().all(|packet| packet.stream.0 == first));
    assert_eq!(driver.link_position(first + 1), driver.link_position(first), "both move");
    assert_eq!(driver.host().hda.counters().shared_tags, 1);
}

#[test]
fn what_is_not_pcm_moves_in_time_and_is_not_sent() {
    let (mut driver, stream) = desk(STEREO);
    driver.set_up(stream, TAG, STEREO, &buffers(&[(3_840, true)]), 3_840).unwrap();
    driver.host().write(0x92 + 0x20 * u64::from(stream), Width::Word, 0x8011);
    driver.run(stream, true);
    driver.host().out.clear();
    driver.host().pass(ms(10));
    assert_eq!(driver.link_position(stream), 1_920);
    driver.run(stream, false);
    assert!(driver.host().out.iter().all(|output| matches!(output, hda::Output::Interrupt(_))));
}

#[test]
fn in_d3_time_goes_on_in_silence() {
    let (_, packets) = play(STEREO, |driver, _| ask(driver, 1, 0x70503));
    assert_eq!(heard(&packets), vec![0; 4_800 * 4]);
}

#[test]
fn four_streams_play_at_once_each_in_its_own_format() {
    let (mut driver, first) = desk(STEREO);
    put(&mut driver, SOUND, &counter(0x2_0000));
    let rates = [48_000, 44_100, 96_000, 8_000];
    for (stream, rate) in (first..).zip(rates) {
        let format = Format { rate, ..STEREO };
        driver.set_up(stream, TAG + stream, format, &buffers(&[(0x2_0000, true)]), 0x2_0000).unwrap();
        driver.run(stream, true);
    }
    driver.host().pass(ms(300));
    for (stream, rate) in (first..).zip(rates) {
        assert_eq!(driver.link_position(stream), rate * 3 / 10 * 4, "{rate} Hz");
    }
}

#[test]
fn one_to_eight_channels_reach_their_speakers_bit_exact() {
    for rate in [8_000, 44_100, 192_000] {
        for encoding in [Encoding::S16, Encoding::S20, Encoding::S24, Encoding::S32] {
            for channels in 1..=8 {
                let format = Format { rate, encoding, channels };
                let (mut driver, stream) = desk(format);
                let lap = format.frame_bytes() * (rate / 40);
                let sound = counter(lap as usize);
                put(&mut driver, SOUND, &sound);
                driver.set_up(stream, TAG, format, &buffers(&[(lap, true)]), lap).unwrap();
                driver.run(stream, true);
                driver.host().out.clear();
                driver.host().pass(duration(format, u64::from(rate / 100)));
                driver.run(stream, false);
                let heard = heard(&driver.host().take_played());
                assert_eq!(heard.len(), (format.frame_bytes() * (rate / 100)) as usize, "{format:?}");
                assert!(heard[..] == sound[..heard.len()], "{format:?}");
            }
        }
    }
}

#[test]
fn channels_that_no_speaker_has_are_silent() {
    let format = Format { channels: 4, ..STEREO };
    let (sound, packets) = play(format, |driver, _| {
        let second = driver.endpoint(Kind::Speaker, 1).unwrap();
        driver.connect(second.converter, 0, format).unwrap();
    });
    for (frame, sent) in heard(&packets).chunks(8).zip(sound.chunks(8)) {
        assert_eq!((&frame[..4], &frame[4..]), (&sent[..4], &[0; 4][..]));
    }
}

#[test]
fn speaker_and_headphone_under_one_tag_are_heard_once_and_auto_mute_changes_nothing() {
    let unplugged = play(STEREO, |driver, _| {
        let headphone = driver.headphone().unwrap();
        driver.connect(headphone.converter, TAG, STEREO).unwrap();
    });
    assert!(unplugged.0.starts_with(&heard(&unplugged.1)));
    let plugged = play(STEREO, |driver, _| {
        let headphone = driver.headphone().unwrap();
        driver.connect(headphone.converter, TAG, STEREO).unwrap();
        let bare = driver.host();
        let mut cx = Cx { now: bare.now, dma: &bare.ram, out: &mut bare.out };
        bare.hda.set_jack(&mut cx, Jack::Headphone, true);
        bare.pass(ms(100));
        // What Linux does then.
        ask(driver, 0x14, 0x70700);
    });
    assert_eq!(heard(&plugged.1).len(), 4_800 * 4);
    assert!(plugged.0.starts_with(&heard(&plugged.1)));
}
