//! USB messages: the fixed head and the payload as it is. The body of isochronous requests and of their ends begins
//! with a table of their packets.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, HEAD_LEN, Head, kind};
use crate::{
    Lane, MAX_BODY, Message,
    usb::{
        Completion, DeviceId, Endpoint, Failure, Follow, MAX_PACKETS, MAX_STREAM_ENDPOINTS, Moved, PacketEnd,
        Packets, Payload, Request, RequestId, Setup, ToRemote, Transfer,
    },
};

/// A packet in the table of a request: its length u16.
const LENGTH: usize = 2;
/// A packet in the table of a completion: what moved u16, failure u8, zero u8.
const END: usize = 4;

// USB head: kind u8 | transfer or failure u8 | endpoint u8 | direction u8 | device u32 | id u64 | setup 8 bytes
//           | length u32 | stream u16 | packets u16. Of a follower the setup's place has the id of the one before it.
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
        ToRemote::Follow(Follow { after, id, device, endpoint, max }) => {
            let mut head = usb_head(kind::FOLLOW, 2, endpoint.address(), true, device.0, id.0, max);
            if let Some(place) = head.get_mut(16..24) {
                place.copy_from_slice(&after.0.to_le_bytes());
            }
            Message { lane, head: head.freeze(), body: Bytes::new() }
        }
        ToRemote::Submit(Request { id, device, endpoint, transfer, payload }) => {
            let (what, setup, stream, packets) = match transfer {
                Transfer::Control(setup) => (0, setup.to_bytes(), 0, None),
                Transfer::Isochronous(packets) => (1, [0; 8], 0, Some(packets)),
                Transfer::Bulk { stream } => (2, [0; 8], stream, None),
                Transfer::Interrupt => (3, [0; 8], 0, None),
            };
            let (input, length) = (matches!(payload, Payload::In { .. }), payload.requested());
            let mut head = usb_head(kind::SUBMIT, what, endpoint.address(), input, device.0, id.0, length);
            if let Some(place) = head.get_mut(16..24) {
                place.copy_from_slice(&setup);
            }
            set(&mut head, 28, stream);
            let data = match payload {
                Payload::Out(data) => data,
                Payload::In { .. } => Bytes::new(),
            };
            let Some(packets) = packets else { return Message { lane, head: head.freeze(), body: data } };
            set(&mut head, 30, packets.lengths().len() as u16);
            let table = packets.lengths().iter().flat_map(|length| length.to_le_bytes()).collect::<Bytes>();
            Message { lane, head: head.freeze(), body: behind(&table, &data) }
        }
        ToRemote::Streams { device, id, endpoints, count } => {
            let length = endpoints.len() as u32;
            let mut head = usb_head(kind::STREAMS, 0, 0, false, device.0, id.0, length);
            set(&mut head, 28, count);
            let body = endpoints.into_iter().map(Endpoint::address).collect();
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

fn set(head: &mut BytesMut, at: usize, value: u16) {
    if let Some(place) = head.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// A table and the data behind it. Isochronous data is short; here it is copied.
fn behind(table: &[u8], data: &[u8]) -> Bytes {
    [table, data].concat().into()
}

/// Takes the table of packets off a body.
fn table(head: &Head, body: &mut Bytes, entry: usize) -> Result<Bytes, DecodeError> {
    let count = usize::from(head.u16(30));
    if count > MAX_PACKETS || count * entry > body.len() {
        return Err(DecodeError::Field { field: "packets", value: count as u64 });
    }
    Ok(body.split_to(count * entry))
}

pub(super) fn decode(kind: u8, lane: Lane, head: &Head, mut body: Bytes) -> Result<ToRemote, DecodeError> {
    let (device, id, endpoint) = (DeviceId(head.u32(4)), RequestId(head.u64(8)), endpoint(head)?);
    let message = match kind {
        kind::CANCEL => ToRemote::Cancel { device, endpoint, through: id },
        kind::RESET => ToRemote::Reset { device, id },
        kind::FOLLOW => {
            let (after, max) = (RequestId(head.u64(16)), head.u32(24));
            if max as usize > MAX_BODY || after >= id {
                return Err(DecodeError::Field { field: "follow", value: max.into() });
            }
            ToRemote::Follow(Follow { after, id, device, endpoint, max })
        }
        kind::STREAMS => {
            if body.len() > MAX_STREAM_ENDPOINTS {
                return Err(DecodeError::Field { field: "endpoints", value: body.len() as u64 });
            }
            let endpoints = body.iter().map(|address| self::address(*address)).collect::<Result<_, _>>()?;
            ToRemote::Streams { device, id, endpoints, count: head.u16(28) }
        }
        _ => {
            let transfer = match head.u8(1) {
                0 => Transfer::Control(Setup::from_bytes(head.array(16))),
                1 => Transfer::Isochronous(packets(head, &mut body)?),
                2 => Transfer::Bulk { stream: head.u16(28) },
                3 => Transfer::Interrupt,
                other => return Err(DecodeError::Field { field: "transfer", value: u64::from(other) }),
            };
            let length = head.u32(24);
            let other = matches!(&transfer, Transfer::Isochronous(packets) if packets.total() != length);
            if length as usize > MAX_BODY || other {
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

fn packets(head: &Head, body: &mut Bytes) -> Result<Packets, DecodeError> {
    let table = table(head, body, LENGTH)?;
    let (lengths, _) = table.as_chunks::<LENGTH>();
    let lengths: Vec<_> = lengths.iter().map(|length| u16::from_le_bytes(*length)).collect();
    Packets::new(&lengths).ok_or(DecodeError::Field { field: "packets", value: lengths.len() as u64 })
}

const FAILURES: [Failure; 6] = [
    Failure::Cancelled,
    Failure::Stall,
    Failure::Disconnected,
    Failure::Fault,
    Failure::Overflow,
    Failure::InvalidArgument,
];

fn code(result: Result<(), Failure>) -> u8 {
    let failure = |failure| FAILURES.iter().position(|known| *known == failure).map_or(0, |at| at as u8);
    result.map_or_else(|error| 1 + failure(error), |()| 0)
}

fn result(code: u8) -> Result<Result<(), Failure>, DecodeError> {
    let Some(at) = code.checked_sub(1) else { return Ok(Ok(())) };
    let failure = FAILURES.get(usize::from(at));
    failure
        .map(|failure| Err(*failure))
        .ok_or(DecodeError::Field { field: "failure", value: u64::from(code) })
}

pub(super) fn encode_completion(completion: Completion) -> Message {
    let Completion { id, result, moved, packets, lane } = completion;
    let (input, length) = (matches!(moved, Moved::In(_)), moved.len());
    let mut head = usb_head(kind::COMPLETED, code(result), 0, input, 0, id.0, length);
    set(&mut head, 30, packets.len() as u16);
    let data = match moved {
        Moved::In(data) => data,
        Moved::Out(_) => Bytes::new(),
    };
    if packets.is_empty() {
        return Message { lane, head: head.freeze(), body: data };
    }
    let entry = |PacketEnd { moved, result }: &PacketEnd| {
        let [low, high] = moved.to_le_bytes();
        [low, high, code(*result), 0]
    };
    let table: Bytes = packets.iter().flat_map(entry).collect();
    Message { lane, head: head.freeze(), body: behind(&table, &data) }
}

pub(super) fn decode_completion(lane: Lane, head: &Head, mut body: Bytes) -> Result<Completion, DecodeError> {
    let table = table(head, &mut body, END)?;
    let (entries, _) = table.as_chunks::<END>();
    let end = |[low, high, code, _]: &[u8; END]| {
        Ok(PacketEnd { moved: u16::from_le_bytes([*low, *high]), result: result(*code)? })
    };
    let packets = entries.iter().map(end).collect::<Result<Vec<_>, _>>()?;
    let length = head.u32(24);
    let sum: u32 = packets.iter().map(|packet| u32::from(packet.moved)).sum();
    if !packets.is_empty() && sum != length {
        return Err(DecodeError::Field { field: "length", value: u64::from(length) });
    }
    let moved = match (head.u8(3), body.len()) {
        (0, 0) => Moved::Out(length),
        (1, len) if len == length as usize => Moved::In(body),
        (_, len) => return Err(DecodeError::Field { field: "body length", value: len as u64 }),
    };
    Ok(Completion { id: RequestId(head.u64(8)), result: result(head.u8(1))?, moved, packets, lane })
}

fn endpoint(head: &Head) -> Result<Endpoint, DecodeError> {
    address(head.u8(2))
}

fn address(address: u8) -> Result<Endpoint, DecodeError> {
    Endpoint::from_address(address).ok_or(DecodeError::Field { field: "endpoint", value: u64::from(address) })
}
