//! Records of Linux's usbmon. Linux `Documentation/usb/usbmon.rst`, "Raw binary format and API"; LINKTYPE_USB_LINUX_MMAPPED.

use std::time::Duration;

use wire::usb::{
    Completion, DeviceId, Endpoint, Failure, MAX_PACKETS, Moved, Payload, Request, RequestId, Setup, Transfer,
};

/// The header before every record's descriptors and data.
pub(crate) const HEADER_LEN: usize = 64;
/// The longest header with its isochronous descriptors.
pub(crate) const MAX_HEAD_LEN: usize = HEADER_LEN + MAX_PACKETS * 16;

/// `URB_DIR_IN`.
const FLAG_IN: u32 = 0x0200;
/// `URB_ISO_ASAP`.
const FLAG_AS_SOON_AS_POSSIBLE: u32 = 0x0002;
/// Where there are no setup bytes.
const NO_SETUP: u8 = b'-';

/// Status codes, as Linux has them.
mod errno {
    pub(super) const ENOENT: i32 = -2;
    pub(super) const EXDEV: i32 = -18;
    pub(super) const EINVAL: i32 = -22;
    pub(super) const EPIPE: i32 = -32;
    pub(super) const EPROTO: i32 = -71;
    pub(super) const EOVERFLOW: i32 = -75;
    pub(super) const ESHUTDOWN: i32 = -108;
    pub(super) const EINPROGRESS: i32 = -115;
}

/// What the record of a request's end says of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    id: RequestId,
    device: DeviceId,
    endpoint: Endpoint,
    kind: Kind,
    input: bool,
}

/// `xfer_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Isochronous = 0,
    Interrupt = 1,
    Control = 2,
    Bulk = 3,
}

/// A record: header and descriptors, and the data that follow.
pub(crate) struct Record<'a> {
    pub(crate) head: Vec<u8>,
    pub(crate) data: &'a [u8],
    /// Bytes of data that were cut off.
    pub(crate) missing: usize,
}

/// What differs from record to record.
struct Event<'a> {
    /// `S` submitted, `C` ended, `E` refused.
    letter: u8,
    status: i32,
    /// Asked for, or moved.
    length: u32,
    /// Why there are no data: `<` or `>`; 0 if there may be some.
    absent: u8,
    data: &'a [u8],
    setup: Option<Setup>,
    /// Status, offset and length of each isochronous packet.
    packets: Vec<(i32, u32, u32)>,
    errors: u32,
}

impl Asked {
    /// What `request` asks for.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let kind = match request.transfer {
            Transfer::Control(_) => Kind::Control,
            Transfer::Bulk { .. } => Kind::Bulk,
            Transfer::Interrupt => Kind::Interrupt,
            Transfer::Isochronous(_) => Kind::Isochronous,
        };
        let input = matches!(request.payload, Payload::In { .. });
        Self { id: request.id, device: request.device, endpoint: request.endpoint, kind, input }
    }

    /// Bus and address: a bus of usbmon has addresses up to 127.
    fn address(self) -> (u16, u8) {
        let number = self.device.0.saturating_sub(1);
        ((number / 127 + 1) as u16, (number % 127 + 1) as u8)
    }

    fn record<'a>(self, at: Duration, snap: usize, event: &Event<'a>) -> Record<'a> {
        let data = &event.data[..event.data.len().min(snap)];
        let (bus, address) = self.address();
        let direction = if self.input { 0x80 } else { 0 };
        let count = event.packets.len() as u32;
        let captured = data.len() as u32 + count * 16;
        let flags = if self.input { FLAG_IN } else { 0 };
        let asap = if self.kind == Kind::Isochronous { FLAG_AS_SOON_AS_POSSIBLE } else { 0 };
        let no_setup = if event.setup.is_some() { 0 } else { NO_SETUP };
        let no_data = if data.is_empty() { event.absent } else { 0 };

        let mut head = Vec::with_capacity(HEADER_LEN + event.packets.len() * 16);
        head.extend(self.id.0.to_le_bytes());
        head.extend([event.letter, self.kind as u8, direction | self.endpoint.number(), address]);
        head.extend(bus.to_le_bytes());
        head.extend([no_setup, no_data]);
        head.extend(at.as_secs().to_le_bytes());
        head.extend(at.subsec_micros().to_le_bytes());
        head.extend(event.status.to_le_bytes());
        head.extend(event.length.to_le_bytes());
        head.extend(captured.to_le_bytes());
        match event.setup {
            Some(setup) => head.extend(setup.to_bytes()),
            None => {
                head.extend(event.errors.to_le_bytes());
                head.extend(count.to_le_bytes());
            }
        }
        // Interval and start frame: nobody here knows them.
        head.extend([0; 8]);
        head.extend((flags | asap).to_le_bytes());
        head.extend(count.to_le_bytes());
        for (status, offset, length) in &event.packets {
            head.extend(status.to_le_bytes());
            head.extend(offset.to_le_bytes());
            head.extend(length.to_le_bytes());
            head.extend([0; 4]);
        }
        Record { head, data, missing: event.data.len() - data.len() }
    }
}

/// The record of a request that goes out.
pub(crate) fn submitted(at: Duration, request: &Request, snap: usize) -> Record<'_> {
    let setup = match &request.transfer {
        Transfer::Control(setup) => Some(*setup),
        _ => None,
    };
    let packets = match &request.transfer {
        Transfer::Isochronous(packets) => in_a_row(packets.lengths().iter().map(|n| (errno::EXDEV, *n))),
        _ => Vec::new(),
    };
    let (data, absent): (&[u8], u8) = match &request.payload {
        Payload::Out(data) => (data, 0),
        Payload::In { .. } => (&[], b'<'),
    };
    let (letter, status, length) = (b'S', errno::EINPROGRESS, request.payload.requested());
    let event = Event { letter, status, length, absent, data, setup, packets, errors: 0 };
    Asked::of(request).record(at, snap, &event)
}

/// The record of a request's end. One that makes no sense was never carried out, which usbmon calls an error.
pub(crate) fn ended(at: Duration, asked: Asked, end: &Completion, snap: usize) -> Record<'_> {
    let letter = if end.result == Err(Failure::InvalidArgument) { b'E' } else { b'C' };
    let (data, absent): (&[u8], u8) = match &end.moved {
        Moved::In(data) if asked.input => (data, 0),
        _ => (&[], if asked.input { 0 } else { b'>' }),
    };
    let ends = end.packets.iter().take(MAX_PACKETS);
    let packets = in_a_row(ends.map(|packet| (status(packet.result), packet.moved)));
    let errors = packets.iter().filter(|(status, ..)| *status != 0).count() as u32;
    let (status, length) = (status(end.result), end.moved.len());
    asked.record(at, snap, &Event { letter, status, length, absent, data, setup: None, packets, errors })
}

/// Packets with their places: one after the other.
fn in_a_row(packets: impl Iterator<Item = (i32, u16)>) -> Vec<(i32, u32, u32)> {
    let place = |offset: &mut u32, (status, length): (i32, u16)| {
        let at = *offset;
        *offset += u32::from(length);
        Some((status, at, u32::from(length)))
    };
    packets.scan(0, place).collect()
}

fn status(result: Result<(), Failure>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Failure::Cancelled) => errno::ENOENT,
        Err(Failure::Stall) => errno::EPIPE,
        Err(Failure::Disconnected) => errno::ESHUTDOWN,
        Err(Failure::Fault) => errno::EPROTO,
        Err(Failure::Overflow) => errno::EOVERFLOW,
        Err(Failure::InvalidArgument) => errno::EINVAL,
    }
}
