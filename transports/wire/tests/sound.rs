//! How messages of sound are written: golden bytes, and what a field cannot be.

use bytes::{Bytes, BytesMut};
use wire::{
    DecodeError, Lane, Message, ToHost, ToRemote,
    audio::{self, Block, Codec, Coded, Encoding, Format, Jack, StreamId},
};

const STEREO: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

fn contiguous(message: Message) -> Bytes {
    let mut bytes = BytesMut::from(&message.head[..]);
    bytes.extend_from_slice(&message.body);
    bytes.freeze()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn recorded() -> Coded {
    let payload = Bytes::from_static(&[1, 2, 3, 4]);
    let block = Block { position: 240, frames: 1, codec: Codec::Pcm, payload };
    Coded { stream: StreamId(1), run: 3, again: false, format: STEREO, block, copies: Vec::new() }
}

#[test]
fn what_is_asked_of_the_microphone_is_written_on_the_lane_that_loses_nothing() {
    let (stream, run) = (StreamId(1), 3);
    let cases = [
        (
            audio::ToRemote::Record { stream, run, format: STEREO },
            "22010202 03000000 0000000000000000 80bb0000",
        ),
        (audio::ToRemote::StopRecord { stream, run }, "23010000 03000000 0000000000000000 00000000"),
    ];
    for (message, golden) in cases {
        let message = ToRemote::Audio(message);
        let encoded = message.clone().encode();
        assert_eq!(encoded.lane, Lane::Ctl, "{message:?}");
        let bytes = contiguous(encoded);
        assert_eq!(hex(&bytes), golden.replace(' ', "") + &"0".repeat(24), "{message:?}");
        assert_eq!(ToRemote::decode(Lane::Ctl, bytes), Ok(message));
    }
}

#[test]
fn that_a_run_is_apart_is_written_on_the_lane_that_loses_nothing() {
    let message = ToRemote::Audio(audio::ToRemote::Apart { stream: StreamId(5), run: 0x1_0002 });
    let encoded = message.clone().encode();
    assert_eq!(encoded.lane, Lane::Ctl);
    let bytes = contiguous(encoded);
    assert_eq!(hex(&bytes), "28050000 02000100".replace(' ', "") + &"0".repeat(48));
    assert_eq!(ToRemote::decode(Lane::Ctl, bytes), Ok(message));
}

#[test]
fn what_the_remote_says_of_its_sound_is_read_back() {
    let jack = |jack, present| audio::ToHost::Jack { jack, present };
    let cases = [
        (
            audio::ToHost::RecordedCoded(recorded()),
            Lane::Audio,
            "2b010202 03000000 f000000000000000 80bb0000",
        ),
        (jack(Jack::Headphone, true), Lane::Ctl, "2a010100 00000000 0000000000000000 00000000"),
        (jack(Jack::Microphone, false), Lane::Ctl, "2a020000 00000000 0000000000000000 00000000"),
    ];
    for (message, lane, golden) in cases {
        let message = ToHost::Audio(message);
        let encoded = message.clone().encode();
        assert_eq!(encoded.lane, lane, "{message:?}");
        let bytes = contiguous(encoded);
        assert_eq!(hex(&bytes[..20]), golden.replace(' ', ""), "{message:?}");
        assert_eq!(ToHost::decode(lane, bytes), Ok(message));
    }
}

#[test]
fn what_a_field_of_sound_cannot_be_is_named() {
    struct Case {
        name: &'static str,
        good: audio::ToHost,
        at: usize,
        value: u8,
        field: &'static str,
    }
    let packet = || audio::ToHost::RecordedCoded(recorded());
    let jack = || audio::ToHost::Jack { jack: Jack::Microphone, present: true };
    #[rustfmt::skip]
    let cases = [
        Case { name: "no such encoding",  good: packet(), at: 2,  value: 6,   field: "encoding" },
        Case { name: "no channels",       good: packet(), at: 3,  value: 0,   field: "channels" },
        Case { name: "rate out of range", good: packet(), at: 18, value: 255, field: "rate" },
        Case { name: "no such jack",      good: jack(),   at: 1,  value: 3,   field: "jack" },
        Case { name: "half plugged",      good: jack(),   at: 2,  value: 2,   field: "present" },
    ];
    for Case { name, good, at, value, field } in cases {
        let mut bytes = contiguous(ToHost::Audio(good).encode()).to_vec();
        bytes[at] = value;
        let error = ToHost::decode(Lane::Audio, bytes.into()).unwrap_err();
        assert!(matches!(&error, DecodeError::Field { field: f, .. } if *f == field), "{name}: {error}");
    }
}

/// Kinds of sound that nobody sends any more are not taken for others.
#[test]
fn sound_without_a_codec_is_an_unknown_kind() {
    for (kind, to_remote) in [(0x20, true), (0x29, false), (0x28, false)] {
        let mut message = vec![0; 36];
        message[0] = kind;
        let error = if to_remote {
            ToRemote::decode(Lane::Audio, message.into()).map(|_| ()).unwrap_err()
        } else {
            ToHost::decode(Lane::Audio, message.into()).map(|_| ()).unwrap_err()
        };
        assert_eq!(error, DecodeError::Kind(kind));
    }
}

#[test]
fn nobody_reads_what_was_said_into_a_microphone_in_a_log() {
    let shown = format!("{:?}", recorded());
    assert!(shown.contains("4 bytes") && !shown.contains("\\x01"), "{shown}");
}
