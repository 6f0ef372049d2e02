//! USB messages: the fixed head and the payload as it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, HEAD_LEN, Head, kind};
use crate::{
    Lane, MAX_BODY, Message,
    usb::{
        Completion, DeviceId, Endpoint, Failure, Moved, Payload, Request, RequestId, Setup, ToRemote,
        Transfer,
    },
};

// USB head: kind u8 | transfer or failure u8 | endpoint u8 | direction u8 | device u32 | id u64 | setup 8 bytes
//           | length u32 | stream u16 | zero u16
fn usb_head(kind: u8, what: u8, endpoint: u8, input: bool, device: u32, id: u64, length: u32) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    head.put_slice(&[kind, what, endpoint, u8::from(input)]);
    head.put_u32_le(device);
    head.put_u64_le(id);
    head.put_u64_le(0);
    head.put_u32_le(length);
    head.put_u32_le(0);
    head
}

pub(super) fn encode(message: ToRemote) -> Message {
    let lane = message.lane();
    match message {
        ToRemote::Submit(Request { id, device, endpoint, transfer, payload }) => {
            let (what, setup, stream) = match transfer {
                Transfer::Control(setup) => (0, setup.to_bytes(), 0),
                Transfer::Bulk { stream } => (2, [0; 8], stream),
                Transfer::Interrupt => (3, [0; 8], 0),
            };
            let (input, length) = (matches!(payload, Payload::In { .. }), payload.requested());
            let mut head = usb_head(kind::SUBMIT, what, endpoint.address(), input, device.0, id.0, length);
            if let Some(place) = head.get_mut(16..24) {
                place.copy_from_slice(&setup);
            }
            if let Some(place) = head.get_mut(28..30) {
                place.copy_from_slice(&stream.to_le_bytes());
            }
            let body = match payload {
                Payload::Out(data) => data,
                Payload::In { .. } => Bytes::new(),
            };
            Message { lane, head: head.freeze(), body }
        }
        ToRemote::Cancel { device, endpoint, through } => {
            let head = usb_head(kind::CANCEL, 0, endpoint.address(), false, device.0, through.0, 0);
            Message { lane, head: head.freeze(), body: Bytes::new() }
        }
        ToRemote::Reset { device, id } => {
            let head = usb_head(kind::RESET, 0, 0, false, device.0, id.0, 0);
            Message { lane, head: head.freeze(), body: Bytes::new() }
        }
    }
}

pub(super) fn decode(kind: u8, lane: Lane, head: &Head, body: Bytes) -> Result<ToRemote, DecodeError> {
    let (device, id, endpoint) = (DeviceId(head.u32(4)), RequestId(head.u64(8)), endpoint(head)?);
    let message = match kind {
        kind::CANCEL => ToRemote::Cancel { device, endpoint, through: id },
        kind::RESET => ToRemote::Reset { device, id },
        _ => {
            let transfer = match head.u8(1) {
                0 => Transfer::Control(Setup::from_bytes(head.array(16))),
                2 => Transfer::Bulk { stream: head.u16(28) },
                3 => Transfer::Interrupt,
                other => return Err(DecodeError::Field { field: "transfer", value: u64::from(other) }),
            };
            let length = head.u32(24);
            if length as usize > MAX_BODY {
                return Err(DecodeError::Field { field: "length", value: u64::from(length) });
            }
            let payload = match (head.u8(3), body.len()) {
                (0, len) if len == length as usize => Payload::Out(body),
                (1, 0) => Payload::In { max: length },
                (_, len) => return Err(DecodeError::Field { field: "body length", value: len as u64 }),
            };
            ToRemote::Submit(Request { id, device, endpoint, transfer, payload })
        }
    };
    if message.lane() == lane {
        Ok(message)
    } else {
        Err(DecodeError::Field { field: "lane", value: lane as u64 })
    }
}

const FAILURES: [Failure; 6] = [
    Failure::Cancelled,
    Failure::Stall,
    Failure::Disconnected,
    Failure::Fault,
    Failure::Overflow,
    Failure::InvalidArgument,
];

pub(super) fn encode_completion(Completion { id, result, moved, lane }: Completion) -> Message {
    let what = match result {
        Ok(()) => 0,
        Err(failure) => 1 + FAILURES.iter().position(|f| *f == failure).map_or(0, |at| at as u8),
    };
    let (input, length) = (matches!(moved, Moved::In(_)), moved.len());
    let head = usb_head(kind::COMPLETED, what, 0, input, 0, id.0, length).freeze();
    let body = match moved {
        Moved::In(data) => data,
        Moved::Out(_) => Bytes::new(),
    };
    Message { lane, head, body }
}

pub(super) fn decode_completion(lane: Lane, head: &Head, body: Bytes) -> Result<Completion, DecodeError> {
    let result = match head.u8(1) {
        0 => Ok(()),
        what => Err(*FAILURES
            .get(usize::from(what) - 1)
            .ok_or(DecodeError::Field { field: "failure", value: u64::from(what) })?),
    };
    let length = head.u32(24);
    let moved = match (head.u8(3), body.len()) {
        (0, 0) => Moved::Out(length),
        (1, len) if len == length as usize => Moved::In(body),
        (_, len) => return Err(DecodeError::Field { field: "body length", value: len as u64 }),
    };
    Ok(Completion { id: RequestId(head.u64(8)), result, moved, lane })
}

fn endpoint(head: &Head) -> Result<Endpoint, DecodeError> {
    let address = head.u8(2);
    Endpoint::from_address(address).ok_or(DecodeError::Field { field: "endpoint", value: u64::from(address) })
}
