//! How messages are written, as the other end observes it: golden bytes, round trips, hostile input.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wire::{
    DecodeError, HEAD_LEN, Lane, MAX_BODY, Message, ToHost, ToRemote,
    control::{self, Answer, Attachment, BulkOnly, Descriptor, Hello, Profile, Refusal},
    usb::{
        self, Completion, DeviceId, Direction, Endpoint, Failure, Follow, Moved, PacketEnd, Packets, Payload,
        Request, RequestId, Setup, Speed, Transfer,
    },
};

fn contiguous(message: &Message) -> Bytes {
    let mut bytes = BytesMut::from(&message.head[..]);
    bytes.extend_from_slice(&message.body);
    bytes.freeze()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spaced(text: &str) -> String {
    text.replace(' ', "")
}

#[test]
fn a_submit_is_written_as_it_was_in_version_1() {
    let message = ToRemote::Usb(usb::ToRemote::Submit(Request {
        id: RequestId(0x0102_0304),
        device: DeviceId(5),
        endpoint: Endpoint::CONTROL,
        transfer: Transfer::Control(Setup::from_bytes([0x80, 6, 0, 1, 0, 0, 18, 0])),
        payload: Payload::In { max: 18 },
    }));
    let encoded = message.encode();
    assert_eq!(encoded.lane, Lane::Int);
    // kind, transfer, endpoint, in | device | id | setup | length | stream, zero
    let golden = "10 00 00 01  05000000  0403020100000000  8006000100001200  12000000  0000 0000";
    assert_eq!(hex(&contiguous(&encoded)), spaced(golden));
}

#[test]
fn a_follower_names_the_request_before_it_which_is_older() {
    let (endpoint, device) = (Endpoint::new(1, Direction::In).unwrap(), DeviceId(5));
    let follow = Follow { after: RequestId(6), id: RequestId(7), device, endpoint, max: 512 };
    let message = ToRemote::Usb(usb::ToRemote::Follow(follow));
    let encoded = message.clone().encode();
    let golden = "14 02 81 01  05000000  0700000000000000  0600000000000000  00020000  0000 0000";
    assert_eq!(hex(&contiguous(&encoded)), spaced(golden));
    assert_eq!(ToRemote::decode(Lane::Bulk, contiguous(&encoded)), Ok(message));

    let itself = ToRemote::Usb(usb::ToRemote::Follow(Follow { after: RequestId(7), ..follow })).encode();
    let error = ToRemote::decode(Lane::Bulk, contiguous(&itself)).unwrap_err();
    assert!(matches!(error, DecodeError::Field { field: "follow", .. }), "{error}");
}

#[test]
fn a_completion_is_written_as_it_was_in_version_1() {
    let completion = Completion {
        id: RequestId(7),
        result: Err(Failure::Stall),
        moved: Moved::In(Bytes::from_static(b"ab")),
        packets: Vec::new(),
        lane: Lane::Bulk,
    };
    let encoded = ToHost::Completed(completion).encode();
    let golden = "18 02 00 01  00000000  0700000000000000  0000000000000000  02000000  00000000  6162";
    assert_eq!(hex(&contiguous(&encoded)), spaced(golden));
}

#[test]
fn an_isochronous_submit_has_its_packets_before_its_data() {
    let message = ToRemote::Usb(usb::ToRemote::Submit(Request {
        id: RequestId(1),
        device: DeviceId(2),
        endpoint: Endpoint::new(3, Direction::Out).unwrap(),
        transfer: Transfer::Isochronous(Packets::new(&[2, 0, 1]).unwrap()),
        payload: Payload::Out(Bytes::from_static(b"abc")),
    }));
    let encoded = message.clone().encode();
    assert_eq!(encoded.lane, Lane::Iso);
    let golden = "10 01 03 00  02000000  0100000000000000  0000000000000000  03000000  0000 0300  0200 0000 0100  616263";
    assert_eq!(hex(&contiguous(&encoded)), spaced(golden));
    assert_eq!(ToRemote::decode(Lane::Iso, contiguous(&encoded)), Ok(message));
}

#[test]
fn an_isochronous_completion_says_how_each_packet_ended() {
    let packets =
        vec![PacketEnd { moved: 2, result: Ok(()) }, PacketEnd { moved: 0, result: Err(Failure::Fault) }];
    let (result, moved) = (Ok(()), Moved::In(Bytes::from_static(b"ab")));
    let message = ToHost::Completed(Completion { id: RequestId(7), result, moved, packets, lane: Lane::Iso });
    let encoded = contiguous(&message.clone().encode());
    let head = "18 00 00 01  00000000  0700000000000000  0000000000000000  02000000  0000 0200";
    let body = "0200 00 00  0000 04 00  6162";
    assert_eq!(hex(&encoded), spaced(head) + &spaced(body));
    assert_eq!(ToHost::decode(Lane::Iso, encoded.clone()), Ok(message));

    let mut liar = encoded.to_vec();
    liar[HEAD_LEN] = 1;
    let error = ToHost::decode(Lane::Iso, liar.into()).unwrap_err();
    assert!(matches!(error, DecodeError::Field { field: "length", .. }), "{error}");
}

#[test]
fn streams_are_asked_for_by_endpoint() {
    let endpoints = [2, 3].map(|number| Endpoint::new(number, Direction::In).unwrap()).to_vec();
    let (device, id) = (DeviceId(1), RequestId(9));
    let message = ToRemote::Usb(usb::ToRemote::Streams { device, id, endpoints, count: 16 });
    let encoded = contiguous(&message.clone().encode());
    let golden = "13 00 00 00  01000000  0900000000000000  0000000000000000  02000000  1000 0000  82 83";
    assert_eq!(hex(&encoded), spaced(golden));
    assert_eq!(ToRemote::decode(Lane::Ctl, encoded), Ok(message));
}

#[test]
fn a_payload_is_shared_not_copied_and_costs_no_more_than_its_head() {
    let data = Bytes::from(vec![0xff; 1024]);
    let message = ToRemote::Usb(usb::ToRemote::Submit(Request {
        id: RequestId(1),
        device: DeviceId(1),
        endpoint: Endpoint::new(2, Direction::Out).unwrap(),
        transfer: Transfer::Bulk { stream: 0 },
        payload: Payload::Out(data.clone()),
    }));
    let encoded = message.encode();
    assert_eq!(encoded.body.as_ptr(), data.as_ptr());
    assert_eq!(encoded.len(), HEAD_LEN + 1024);
}

#[test]
fn control_messages_are_read_back_and_unknown_fields_are_skipped() {
    let attachment = Attachment {
        device: DeviceId(3),
        speed: Speed::Super,
        vendor: 0x1234,
        product: 0x5678,
        name: "a disk".into(),
        profile: Profile {
            descriptors: vec![Descriptor {
                request_type: 0x80,
                value: 0x0100,
                index: 0,
                data: Bytes::from_static(&[18, 1]),
            }],
            read_ahead: vec![Endpoint::new(1, Direction::In).unwrap()],
            bulk_only: vec![BulkOnly {
                out: Endpoint::new(2, Direction::Out).unwrap(),
                input: Endpoint::new(3, Direction::In).unwrap(),
            }],
        },
    };
    let message = ToHost::Control(control::ToHost::Attached(attachment));
    let encoded = message.clone().encode();
    assert_eq!(ToHost::decode(Lane::Ctl, contiguous(&encoded)), Ok(message));

    #[derive(serde::Serialize)]
    struct NewerHello {
        version: u16,
        name: String,
        colour: u8,
    }
    let newer = rmp_serde::to_vec_named(&NewerHello { version: 1, name: "n".into(), colour: 3 }).unwrap();
    assert_eq!(
        Hello::decode(&newer),
        Ok(Hello { version: 1, vm: None, name: "n".into(), signalling: false })
    );
}

#[test]
fn texts_of_a_size_the_peer_chose_are_refused() {
    let answer = Answer::Refused { reason: Refusal::Busy, text: "x".repeat(control::MAX_TEXT + 1) };
    assert!(matches!(Answer::decode(&answer.encode()), Err(DecodeError::Field { field: "text", .. })));
    let hello = Hello { version: 1, vm: Some("x".repeat(5000)), name: String::new(), signalling: false };
    assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::Long { .. })));
}

#[test]
fn what_a_field_cannot_be_is_named() {
    struct Case {
        name: &'static str,
        at: usize,
        value: u8,
        field: &'static str,
    }
    const CASES: &[Case] = &[
        Case { name: "reserved bits in the endpoint", at: 2, value: 0x70, field: "endpoint" },
        Case { name: "isochronous without packets", at: 1, value: 1, field: "packets" },
        Case { name: "no such transfer", at: 1, value: 4, field: "transfer" },
        Case { name: "more than a body can hold", at: 27, value: 0xff, field: "length" },
        Case { name: "OUT without its data", at: 3, value: 0, field: "body length" },
        Case { name: "bulk on another lane", at: 1, value: 2, field: "lane" },
    ];
    let good = ToRemote::Usb(usb::ToRemote::Submit(Request {
        id: RequestId(1),
        device: DeviceId(1),
        endpoint: Endpoint::CONTROL,
        transfer: Transfer::Interrupt,
        payload: Payload::In { max: 8 },
    }));
    let good = contiguous(&good.encode());
    for Case { name, at, value, field } in CASES {
        let mut bytes = good.to_vec();
        bytes[*at] = *value;
        let error = ToRemote::decode(Lane::Int, bytes.into()).unwrap_err();
        assert!(matches!(&error, DecodeError::Field { field: f, .. } if f == field), "{name}: {error}");
    }
}

#[test]
fn a_message_of_the_other_direction_is_an_error() {
    let completion = Completion {
        id: RequestId(1),
        result: Ok(()),
        moved: Moved::Out(0),
        packets: Vec::new(),
        lane: Lane::Int,
    };
    let bytes = contiguous(&ToHost::Completed(completion).encode());
    assert_eq!(ToRemote::decode(Lane::Int, bytes), Err(DecodeError::Kind(0x18)));
}

fn request() -> impl Strategy<Value = Request> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(|data| Payload::Out(data.into())),
        (0..=MAX_BODY as u32).prop_map(|max| Payload::In { max }),
    ];
    let transfer = prop_oneof![
        any::<[u8; 8]>().prop_map(|bytes| Transfer::Control(Setup::from_bytes(bytes))),
        any::<u16>().prop_map(|stream| Transfer::Bulk { stream }),
        Just(Transfer::Interrupt),
    ];
    let endpoint = (0u8..16, any::<bool>()).prop_map(|(number, input)| {
        Endpoint::new(number, if input { Direction::In } else { Direction::Out }).unwrap()
    });
    (any::<u64>(), any::<u32>(), endpoint, transfer, payload).prop_map(
        |(id, device, endpoint, transfer, payload)| Request {
            id: RequestId(id),
            device: DeviceId(device),
            endpoint,
            transfer,
            payload,
        },
    )
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_request(request in request()) {
        let message = ToRemote::Usb(usb::ToRemote::Submit(request));
        let encoded = message.clone().encode();
        prop_assert_eq!(ToRemote::decode(encoded.lane, contiguous(&encoded)), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        lane in 0u8..5,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(1u8), Just(0x10), Just(0x11), Just(0x12), Just(0x18), Just(0x20), Just(0x22), Just(0x28), Just(0x29), Just(0x2a), 0x24u8..0x28, 0x2bu8..0x2e],
    ) {
        let lane = Lane::from_wire(lane).unwrap();
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let bytes = Bytes::from(bytes);
        let _ = ToRemote::decode(lane, bytes.clone());
        let _ = ToHost::decode(lane, bytes);
    }
}

/// Bytes that a guest or a device chose are nobody's to read in a log.
#[test]
fn what_is_shown_of_bytes_for_debugging_is_how_many_there_are() {
    let secret = Bytes::from_static(b"a secret");
    assert_eq!(format!("{:?}", Payload::Out(secret.clone())), "Out(8 bytes)");
    assert_eq!(format!("{:?}", Payload::In { max: 64 }), "In(at most 64 bytes)");
    assert_eq!(format!("{:?}", Moved::In(secret)), "In(8 bytes)");
    assert_eq!(format!("{:?}", Moved::Out(3)), "Out(3 bytes)");
}
