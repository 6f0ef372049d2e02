//! How coded sound, and what receivers say of it, is written: golden bytes, round trips, hostile input.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wire::{
    DecodeError, HEAD_LEN, Lane, Message, ToHost, ToRemote,
    audio::{
        self, Block, Codec, Coded, Encoding, Format, MAX_COPIES, MAX_GAPS, Missing, Reception, StreamId,
        Volume,
    },
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

fn coded() -> Coded {
    let opus = |position, payload| Block {
        position,
        frames: 240,
        codec: Codec::Opus,
        payload: Bytes::from_static(payload),
    };
    let pcm =
        Block { position: 240, frames: 1, codec: Codec::Pcm, payload: Bytes::from_static(&[1, 2, 3, 4]) };
    Coded {
        stream: StreamId(5),
        run: 2,
        again: false,
        format: STEREO,
        block: opus(960, b"now"),
        copies: vec![opus(480, b"then"), pcm],
    }
}

fn reception() -> Reception {
    Reception {
        stream: StreamId(5),
        run: 2,
        position: 4_800,
        at: Duration::from_micros(1_000_007),
        level: Duration::from_micros(19_000),
        target: Duration::from_micros(20_000),
        jitter: Duration::from_micros(3),
        loss: 50_000,
        burst: 300,
        concealed: 1,
        slipped: 2,
        late: 3,
        duplicate: 4,
        xruns: 5,
    }
}

fn missing() -> Missing {
    Missing { stream: StreamId(5), run: 2, gaps: vec![(240, 480), (1_200, 240)] }
}

#[test]
fn coded_sound_is_a_head_a_table_of_copies_and_the_blocks() {
    let message = ToRemote::Audio(audio::ToRemote::PlayCoded(coded()));
    let encoded = message.clone().encode();
    assert_eq!(encoded.lane, Lane::Audio);
    let golden = [
        "24 05 02 02  02000000  c003000000000000  80bb0000  f000 02 02  03000000  00000000",
        "e0010000 f000 02 00 04000000",
        "d0020000 0100 01 00 04000000",
        "6e6f77 7468656e 01020304",
    ];
    let bytes = contiguous(encoded);
    assert_eq!(hex(&bytes), golden.concat().replace(' ', ""));
    assert_eq!(ToRemote::decode(Lane::Audio, bytes), Ok(message));
}

#[test]
fn a_block_without_copies_is_not_copied_behind_its_head() {
    let payload = Bytes::from_static(b"as it is");
    let block = Block { position: 0, frames: 240, codec: Codec::Opus, payload: payload.clone() };
    let message = Coded { block, copies: Vec::new(), ..coded() };
    let body = ToRemote::Audio(audio::ToRemote::PlayCoded(message)).encode().body;
    assert_eq!(body.as_ptr(), payload.as_ptr());
}

#[test]
fn what_both_ends_say_of_sound_is_read_back() {
    let to_host = [
        audio::ToHost::RecordedCoded(coded()),
        audio::ToHost::Reception(reception()),
        audio::ToHost::Missing(missing()),
    ];
    for message in to_host.map(ToHost::Audio) {
        let encoded = message.clone().encode();
        assert_eq!(encoded.lane, Lane::Audio, "{message:?}");
        assert_eq!(ToHost::decode(Lane::Audio, contiguous(encoded)), Ok(message));
    }
    let volume = Volume { stream: StreamId(5), gain: -256, mute: true };
    let to_remote = [
        (audio::ToRemote::Reception(reception()), Lane::Audio),
        (audio::ToRemote::Missing(missing()), Lane::Audio),
        (audio::ToRemote::Volume(volume), Lane::Ctl),
    ];
    for (message, lane) in to_remote {
        let message = ToRemote::Audio(message);
        let encoded = message.clone().encode();
        assert_eq!(encoded.lane, lane, "{message:?}");
        assert_eq!(ToRemote::decode(lane, contiguous(encoded)), Ok(message));
    }
}

#[test]
fn what_a_field_of_coded_sound_cannot_be_is_named() {
    struct Case {
        name: &'static str,
        good: audio::ToHost,
        at: usize,
        value: u8,
        field: &'static str,
    }
    let coded = || audio::ToHost::RecordedCoded(coded());
    let reception = || audio::ToHost::Reception(reception());
    const TABLE: usize = HEAD_LEN;
    #[rustfmt::skip]
    let cases = [
        Case { name: "no such codec",            good: coded(), at: 22,         value: 3,   field: "codec" },
        Case { name: "too many copies",          good: coded(), at: 23,         value: 5,   field: "copies" },
        Case { name: "copies that are not there", good: coded(), at: 23,        value: 4,   field: "copies" },
        Case { name: "a copy too few",           good: coded(), at: 23,         value: 1,   field: "coded length" },
        Case { name: "more than 120 ms",         good: coded(), at: 21,         value: 255, field: "frames" },
        Case { name: "payload beyond the end",   good: coded(), at: 25,         value: 255, field: "block length" },
        Case { name: "neither first nor again",  good: coded(), at: 28,         value: 2,   field: "again" },
        Case { name: "a copy of the future",     good: coded(), at: TABLE + 3,  value: 255, field: "back" },
        Case { name: "PCM of half a frame",      good: coded(), at: TABLE + 20, value: 3,   field: "block length" },
        Case { name: "a copy without a codec",   good: coded(), at: TABLE + 18, value: 0,   field: "codec" },
        Case { name: "more lost than sent",      good: reception(), at: TABLE + 23, value: 255, field: "loss" },
    ];
    for Case { name, good, at, value, field } in cases {
        let mut bytes = contiguous(ToHost::Audio(good).encode()).to_vec();
        bytes[at] = value;
        let error = ToHost::decode(Lane::Audio, bytes.into()).unwrap_err();
        assert!(matches!(&error, DecodeError::Field { field: f, .. } if *f == field), "{name}: {error}");
    }
    for gaps in [0, MAX_GAPS + 1] {
        let mut bytes = contiguous(ToHost::Audio(audio::ToHost::Missing(missing())).encode()).to_vec();
        bytes.resize(HEAD_LEN + 12 * gaps, 0);
        assert!(ToHost::decode(Lane::Audio, bytes.into()).is_err(), "{gaps} gaps");
    }
}

#[test]
fn positions_do_not_wrap_around() {
    let mut bytes = contiguous(ToHost::Audio(audio::ToHost::RecordedCoded(coded())).encode()).to_vec();
    bytes[8..16].fill(255);
    let error = ToHost::decode(Lane::Audio, bytes.into()).unwrap_err();
    assert!(matches!(error, DecodeError::Field { field: "position", .. }), "{error}");
}

#[test]
fn nobody_reads_coded_sound_in_a_log() {
    let shown = format!("{:?}", coded());
    assert!(shown.contains("240 frames from 960, Opus, 3 bytes") && !shown.contains("now"), "{shown}");
}

fn block(position: u64) -> impl Strategy<Value = Block> {
    let opus = (1u16..=23_040, proptest::collection::vec(any::<u8>(), 1..100))
        .prop_map(|(frames, bytes)| (frames, Codec::Opus, bytes));
    let pcm = (1u16..=50).prop_map(|frames| (frames, Codec::Pcm, vec![7; usize::from(frames) * 4]));
    prop_oneof![opus, pcm].prop_map(move |(frames, codec, bytes)| Block {
        position,
        frames,
        codec,
        payload: bytes.into(),
    })
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_coded_sound(
        (block, copies) in (1_000_000u64..u64::MAX / 2).prop_flat_map(|at| {
            let copy = (1u64..1_000_000).prop_flat_map(move |back| block(at - back));
            (block(at), proptest::collection::vec(copy, 0..=MAX_COPIES))
        }),
        run in any::<u32>(),
        again in any::<bool>(),
    ) {
        let coded = Coded { stream: StreamId(1), run, again, format: STEREO, block, copies };
        let message = ToHost::Audio(audio::ToHost::RecordedCoded(coded));
        prop_assert_eq!(ToHost::decode(Lane::Audio, contiguous(message.clone().encode())), Ok(message));
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error_and_pins_no_more_than_it_is(
        at in 0usize..80,
        value in any::<u8>(),
        cut in 0usize..80,
    ) {
        let mut bytes = contiguous(ToHost::Audio(audio::ToHost::RecordedCoded(coded())).encode()).to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let length = bytes.len();
        if let Ok(ToHost::Audio(audio::ToHost::RecordedCoded(coded))) = ToHost::decode(Lane::Audio, bytes.into()) {
            let payloads = coded.copies.iter().chain([&coded.block]).map(|b| b.payload.len()).sum::<usize>();
            prop_assert!(payloads <= length && coded.copies.len() <= MAX_COPIES);
        }
    }
}
