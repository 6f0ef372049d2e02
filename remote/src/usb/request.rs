//! Requests as libusb takes them, and their ends as the host expects them.

use bytes::Bytes;
use wire::usb::{
    Completion, Direction, Endpoint, Failure, Moved, PacketEnd, Payload, Request, RequestId, Setup, Transfer,
};

use super::carrier::Finished;

/// libusb's limit for the data of a control transfer; who asks for more gets so much.
const MAX_CONTROL: usize = 4096;
/// The setup bytes in front of a control transfer's data.
const SETUP: usize = 8;

/// Whether a transfer is of the kind and direction of its endpoint.
pub(super) fn fits(request: &Request) -> bool {
    let (control, input) = (request.endpoint == Endpoint::CONTROL, is_in(request));
    match &request.transfer {
        Transfer::Control(setup) => {
            control && (setup.length == 0 || (setup.direction() == Direction::In) == input)
        }
        _ => !control && (request.endpoint.direction() == Direction::In) == input,
    }
}

/// Whether its data comes from the device.
pub(super) fn is_in(request: &Request) -> bool {
    matches!(request.payload, Payload::In { .. })
}

/// Whether it only asks for what the device is: nothing that a reset would undo.
pub(super) fn is_question(transfer: &Transfer) -> bool {
    matches!(transfer, Transfer::Control(Setup { request_type: 0x80..=0x82, .. }))
}

/// The buffer for libusb: data, or room for it; `None` if it cannot be asked for.
pub(super) fn buffer(request: &Request) -> Option<Vec<u8>> {
    let data = match &request.payload {
        Payload::Out(data) => Vec::from(data.clone()),
        Payload::In { max } => vec![0; *max as usize],
    };
    let Transfer::Control(setup) = &request.transfer else { return Some(data) };
    let length = data.len().min(setup.length.into());
    if length > MAX_CONTROL && !is_in(request) {
        return None;
    }
    let length = length.min(MAX_CONTROL);
    let setup = Setup { length: length as u16, ..*setup };
    let mut buffer = Vec::with_capacity(SETUP + length);
    buffer.extend(setup.to_bytes());
    buffer.extend(data.iter().take(length));
    Some(buffer)
}

/// The end of a request for this transfer.
pub(super) fn told(id: RequestId, transfer: &Transfer, input: bool, finished: Finished) -> Completion {
    let Finished { mut buffer, actual, packets, result, .. } = finished;
    let moved = match transfer {
        _ if !packets.is_empty() => isochronous(transfer, input, &buffer, &packets),
        _ if !input => Moved::Out(u32::try_from(actual).unwrap_or(u32::MAX)),
        Transfer::Control(_) => {
            buffer.truncate(SETUP.saturating_add(actual));
            let mut data = Bytes::from(buffer);
            Moved::In(data.split_off(SETUP.min(data.len())))
        }
        _ => {
            buffer.truncate(actual);
            Moved::In(buffer.into())
        }
    };
    Completion { id, result, moved, packets, lane: transfer.lane() }
}

/// The packets that came, back to back.
fn isochronous(transfer: &Transfer, input: bool, buffer: &[u8], packets: &[PacketEnd]) -> Moved {
    if !input {
        return Moved::Out(packets.iter().map(|packet| u32::from(packet.moved)).sum());
    }
    let lengths = match transfer {
        Transfer::Isochronous(packets) => packets.lengths(),
        _ => &[],
    };
    let (mut data, mut at) = (Vec::new(), 0);
    for (packet, length) in packets.iter().zip(lengths) {
        data.extend(buffer.iter().skip(at).take(packet.moved.into()));
        at += usize::from(*length);
    }
    Moved::In(data.into())
}

/// Nothing moved.
pub(super) fn nothing(input: bool) -> Moved {
    if input { Moved::In(Bytes::new()) } else { Moved::Out(0) }
}

/// What libusb's own functions say, as the end of a request.
pub(super) fn failure(error: rusb::Error) -> Failure {
    match error {
        rusb::Error::NoDevice => Failure::Disconnected,
        // The device refused, or the bus has no room: both are a stall for who asked.
        _ => Failure::Stall,
    }
}

#[cfg(test)]
mod tests {
    use wire::usb::{DeviceId, Packets};

    use super::*;

    fn request(endpoint: u8, transfer: Transfer, payload: Payload) -> Request {
        let endpoint = Endpoint::from_address(endpoint).unwrap();
        Request { id: RequestId(1), device: DeviceId(1), endpoint, transfer, payload }
    }

    fn control(length: u16, payload: Payload) -> Request {
        let [low, high] = length.to_le_bytes();
        let direction = if matches!(payload, Payload::In { .. }) { 0x80 } else { 0 };
        let setup = Setup::from_bytes([direction, 6, 0, 1, 0, 0, low, high]);
        request(0, Transfer::Control(setup), payload)
    }

    #[test]
    fn a_control_transfer_has_its_setup_bytes_in_front_and_they_do_not_count() {
        let asked = control(18, Payload::In { max: 18 });
        let mut buffer = buffer(&asked).unwrap();
        assert_eq!((buffer.len(), &buffer[..8]), (26, &[0x80, 6, 0, 1, 0, 0, 18, 0][..]));
        buffer[8..10].copy_from_slice(&[18, 1]);
        let finished = Finished {
            number: 1,
            endpoint: Endpoint::CONTROL,
            result: Ok(()),
            actual: 2,
            buffer,
            packets: Vec::new(),
        };
        let end = told(RequestId(1), &asked.transfer, true, finished);
        assert_eq!(end.moved, Moved::In(Bytes::from_static(&[18, 1])));
    }

    #[test]
    fn more_control_data_than_libusb_takes_is_cut_when_asked_for_and_refused_when_sent() {
        let asked = buffer(&control(u16::MAX, Payload::In { max: 65535 })).unwrap();
        assert_eq!((asked.len(), &asked[6..8]), (SETUP + MAX_CONTROL, &[0, 0x10][..]));
        assert_eq!(buffer(&control(4097, Payload::Out(vec![0; 4097].into()))), None);
    }

    #[test]
    fn isochronous_packets_come_back_to_back_however_short_they_were() {
        let transfer = Transfer::Isochronous(Packets::new(&[4, 4, 4]).unwrap());
        let packets = [2, 0, 3].map(|moved| PacketEnd { moved, result: Ok(()) }).to_vec();
        let finished = Finished {
            number: 1,
            endpoint: Endpoint::from_address(0x81).unwrap(),
            result: Ok(()),
            actual: 0,
            buffer: b"ab..xxxxcde.".to_vec(),
            packets,
        };
        let end = told(RequestId(1), &transfer, true, finished);
        assert_eq!(end.moved, Moved::In(Bytes::from_static(b"abcde")));
        assert_eq!(end.packets.len(), 3);
    }

    #[test]
    fn a_request_of_the_wrong_kind_or_direction_does_not_fit() {
        let (out, input) = (|| Payload::Out(Bytes::new()), || Payload::In { max: 8 });
        let bulk = || Transfer::Bulk { stream: 0 };
        assert!(fits(&request(0x81, bulk(), input())) && fits(&request(0x01, bulk(), out())));
        assert!(!fits(&request(0x81, bulk(), out())) && !fits(&request(0x01, bulk(), input())));
        assert!(!fits(&request(0, bulk(), out())));
        assert!(fits(&control(8, input())) && fits(&control(0, out())));
        let Transfer::Control(setup) = control(8, input()).transfer else { unreachable!() };
        assert!(!fits(&request(0x81, Transfer::Control(setup), input())));
        assert!(!fits(&request(0, Transfer::Control(setup), out())));
    }
}
