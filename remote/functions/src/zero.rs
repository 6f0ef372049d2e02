//! Gadget zero: a source and a sink of every kind of transfer, as Linux's `usbtest` driver expects to find behind
//! 0525:a4a0.
//!
//! ```text
//!   setting 0   no endpoints: nothing is reserved on the bus (USB 2.0 §5.6.3 wants it of isochronous ones)
//!   setting 1   bulk 81 02, interrupt 83 04, isochronous 85 06: IN gives the pattern, OUT must carry it
//!   device      0x5b keeps the data of a vendor request, 0x5c gives them back
//! ```
//! `usbtest` takes the first setting with bulk endpoints, and every other endpoint it finds there.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use wire::usb::{
    Endpoint, Failure, Moved, PacketEnd, Packets, Payload, Request, RequestId, Setup, Speed, Transfer,
};

use crate::{
    descriptors::{Description, EndpointSpec, Identity},
    device::{Answer, Class, Device, Done, as_function},
};

/// The setting with endpoints.
const SETTING: u8 = 1;
/// The packets of interrupt and isochronous endpoints, and the interval of both: 2^(4-1) microframes, a millisecond.
const INTERRUPT_PACKET: u16 = 64;
const ISOCHRONOUS_PACKET: u16 = 1024;
const INTERVAL: u8 = 4;
/// Vendor requests that write and read back.
const WRITE: u8 = 0x5b;
const READ: u8 = 0x5c;

const MICROFRAME: Duration = Duration::from_micros(125);
/// A queue that was empty for less than this goes on as if it had not been: the bus did not wait for us either.
const CATCH_UP: Duration = Duration::from_millis(50);

/// What the data look like, as with the parameter `pattern` of `usbtest` and of Linux's gadget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pattern {
    /// 0: only zeros.
    #[default]
    Zeros,
    /// 1: each packet counts from 0 to 62, again and again.
    Mod63,
}

/// Gadget zero.
#[derive(Debug)]
pub struct Zero(Device<SourceSink>);

#[derive(Debug)]
struct SourceSink {
    description: Description,
    pattern: Pattern,
    /// What [`WRITE`] brought last.
    written: Bytes,
    /// Isochronous endpoints in use.
    paces: BTreeMap<Endpoint, Pace>,
}

/// When packets go: one in each service interval.
#[derive(Debug, Default)]
struct Pace {
    /// The request on the bus, and when its last packet has gone.
    current: Option<(RequestId, Duration)>,
    /// When the last packet of the request before it had gone.
    before: Option<Duration>,
}

impl Zero {
    /// A SuperSpeed device with this pattern.
    #[must_use]
    pub fn new(pattern: Pattern) -> Self {
        Self::of_speed(pattern, Speed::Super, 1024)
    }

    /// The same at high speed.
    #[must_use]
    pub fn high_speed(pattern: Pattern) -> Self {
        Self::of_speed(pattern, Speed::High, 512)
    }

    fn of_speed(pattern: Pattern, speed: Speed, bulk: u16) -> Self {
        let identity =
            Identity { vendor: 0x0525, product: 0xa4a0, name: "Farbus Zero", serial: "0001".into() };
        let spec = |address, attributes, max_packet, interval| EndpointSpec {
            address,
            attributes,
            max_packet,
            interval,
        };
        let endpoints = vec![
            spec(0x81, 2, bulk, 0),
            spec(0x02, 2, bulk, 0),
            spec(0x83, 3, INTERRUPT_PACKET, INTERVAL),
            spec(0x04, 3, INTERRUPT_PACKET, INTERVAL),
            spec(0x85, 1, ISOCHRONOUS_PACKET, INTERVAL),
            spec(0x06, 1, ISOCHRONOUS_PACKET, INTERVAL),
        ];
        let description = Description {
            identity,
            speed,
            class: [0xff, 0, 0],
            extra: Vec::new(),
            settings: vec![Vec::new(), endpoints],
        };
        Self(Device::new(SourceSink { description, pattern, written: Bytes::new(), paces: BTreeMap::new() }))
    }
}

impl Pattern {
    /// The byte at this place of a transfer whose packets are so long.
    fn byte(self, place: usize, packet: usize) -> u8 {
        match self {
            Self::Zeros => 0,
            Self::Mod63 => (place % packet.max(1) % 63) as u8,
        }
    }

    fn bytes(self, length: usize, packet: usize) -> Bytes {
        static ZEROS: [u8; wire::MAX_BODY] = [0; wire::MAX_BODY];
        let length = length.min(wire::MAX_BODY);
        match self {
            Self::Zeros => Bytes::from_static(ZEROS.get(..length).unwrap_or_default()),
            Self::Mod63 => (0..length).map(|place| self.byte(place, packet)).collect(),
        }
    }

    fn matches(self, data: &[u8], packet: usize) -> bool {
        data.iter().enumerate().all(|(place, byte)| *byte == self.byte(place, packet))
    }
}

impl SourceSink {
    /// Packets have gone when their time has come, not before.
    fn due(&mut self, now: Duration, request: &Request, packets: &Packets, interval: u8) -> Duration {
        let pace = self.paces.entry(request.endpoint).or_default();
        match pace.current {
            Some((id, due)) if id == request.id => due,
            _ => {
                let goes_on = pace.before.filter(|before| now.saturating_sub(*before) < CATCH_UP);
                let intervals =
                    packets.lengths().len() as u32 * (1 << interval.clamp(1, 16).saturating_sub(1));
                let due = goes_on.unwrap_or(now) + MICROFRAME * intervals;
                pace.current = Some((request.id, due));
                due
            }
        }
    }

    fn isochronous(&mut self, now: Duration, request: &Request, packets: &Packets) -> Option<Done> {
        let EndpointSpec { max_packet, interval, .. } =
            self.description.endpoint(SETTING, request.endpoint.address())?;
        let due = self.due(now, request, packets, interval);
        if now < due {
            return None;
        }
        self.paces.insert(request.endpoint, Pace { current: None, before: Some(due) });
        let input = matches!(request.payload, Payload::In { .. });
        let ends = packets.lengths().iter().map(|length| match (input, *length < max_packet) {
            // The device sends a whole packet whatever there is room for.
            (true, true) => PacketEnd { moved: *length, result: Err(Failure::Overflow) },
            (true, false) => PacketEnd { moved: max_packet, result: Ok(()) },
            (false, _) if *length > max_packet => {
                PacketEnd { moved: 0, result: Err(Failure::InvalidArgument) }
            }
            (false, _) => PacketEnd { moved: *length, result: Ok(()) },
        });
        let ends: Vec<PacketEnd> = ends.collect();
        let moved = if input {
            let packet = usize::from(max_packet);
            let data = ends.iter().flat_map(|end| self.pattern.bytes(end.moved.into(), packet));
            Moved::In(data.collect())
        } else {
            Moved::Out(ends.iter().map(|end| u32::from(end.moved)).sum())
        };
        Some(Done::Packets(ends, moved))
    }

    /// What does not carry the pattern halts the endpoint: nobody can overlook it.
    fn sink(&self, data: &Bytes, packet: usize) -> Done {
        let moved = Moved::Out(u32::try_from(data.len()).unwrap_or(u32::MAX));
        if self.pattern.matches(data, packet) { Done::Moved(moved) } else { Done::Halt(moved) }
    }

    /// Only whole packets are sent: too little room for the last one is a babble. USB 2.0 §8.7.4.
    fn source(&self, max: u32, packet: usize) -> Done {
        let data = self.pattern.bytes(max as usize, packet);
        let fits = data.len().is_multiple_of(packet);
        if fits { Done::Moved(Moved::In(data)) } else { Done::Overflow(Moved::In(data)) }
    }
}

impl Class for SourceSink {
    fn description(&self) -> &Description {
        &self.description
    }

    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer {
        match (setup.request_type, setup.request, setup.value, setup.index) {
            (0x40, WRITE, 0, 0) => {
                self.written = Bytes::copy_from_slice(data);
                Answer::Ack
            }
            (0xc0, READ, 0, 0) => Answer::Data(self.written.to_vec()),
            _ => Answer::Stall,
        }
    }

    fn transfer(&mut self, now: Duration, request: &Request) -> Option<Done> {
        let packet = usize::from(self.description.max_packet(request.endpoint.address()));
        match (&request.transfer, &request.payload) {
            (Transfer::Isochronous(packets), _) => self.isochronous(now, request, packets),
            (_, Payload::Out(data)) => Some(self.sink(data, packet)),
            (_, Payload::In { max }) => Some(self.source(*max, packet)),
        }
    }

    /// When the packets on the bus have gone.
    fn deadline(&self, first: &Request) -> Option<Duration> {
        let (id, due) = self.paces.get(&first.endpoint)?.current?;
        (id == first.id).then_some(due)
    }

    fn reset(&mut self) {
        self.paces.clear();
        self.written = Bytes::new();
    }
}

as_function!([] Zero);
