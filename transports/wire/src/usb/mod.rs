//! USB nouns: what is built at the xHCI ring and is the very value that reaches libusb.

mod payload;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Lane;

pub use self::payload::{Moved, Payload};

/// A device that the remote lends, unique within a session and never reused in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u32);

/// A request of a session. Ids grow by at least one for each request and are never reused in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The direction of data, seen from the host controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the host controller to the device.
    Out,
    /// From the device to the host controller.
    In,
}

/// An endpoint address: number 0 to 15 and direction. Endpoint 0 is always written with direction `Out`.
#[doc(alias = "bEndpointAddress")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct Endpoint(u8);

/// A `bEndpointAddress` with a reserved bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:#04x} is no endpoint address")]
pub struct NoEndpoint(pub u8);

impl From<Endpoint> for u8 {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.address()
    }
}

impl TryFrom<u8> for Endpoint {
    type Error = NoEndpoint;

    fn try_from(address: u8) -> Result<Self, NoEndpoint> {
        Self::from_address(address).ok_or(NoEndpoint(address))
    }
}

impl Endpoint {
    /// The default control pipe.
    pub const CONTROL: Self = Self(0);

    /// The endpoint with this number and direction; `None` if the number is above 15.
    #[must_use]
    pub fn new(number: u8, direction: Direction) -> Option<Self> {
        match (number, direction) {
            (0, _) => Some(Self::CONTROL),
            (1..=15, Direction::Out) => Some(Self(number)),
            (1..=15, Direction::In) => Some(Self(number | 0x80)),
            _ => None,
        }
    }

    /// The endpoint with this `bEndpointAddress`; `None` if a reserved bit is set.
    #[must_use]
    pub fn from_address(address: u8) -> Option<Self> {
        let direction = if address & 0x80 == 0 { Direction::Out } else { Direction::In };
        Self::new(address & 0x7f, direction)
    }

    /// The `bEndpointAddress` byte.
    #[must_use]
    pub fn address(self) -> u8 {
        self.0
    }

    /// The endpoint number, 0 to 15.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0 & 0x0f
    }

    /// The direction; `Out` for endpoint 0.
    #[must_use]
    pub fn direction(self) -> Direction {
        if self.0 & 0x80 == 0 { Direction::Out } else { Direction::In }
    }
}

/// The speed a device runs at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Speed {
    /// 1.5 Mb/s.
    Low,
    /// 12 Mb/s.
    Full,
    /// 480 Mb/s.
    High,
    /// 5 Gb/s and faster.
    Super,
}

/// The eight bytes of a control request. USB 2.0 §9.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setup {
    /// Direction, type and recipient.
    #[doc(alias = "bmRequestType")]
    pub request_type: u8,
    /// The request.
    #[doc(alias = "bRequest")]
    pub request: u8,
    /// Its value.
    #[doc(alias = "wValue")]
    pub value: u16,
    /// Its index.
    #[doc(alias = "wIndex")]
    pub index: u16,
    /// The length of the data stage, bytes.
    #[doc(alias = "wLength")]
    pub length: u16,
}

impl Setup {
    /// Reads the eight bytes as they stand on the bus.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [request_type, request, v0, v1, i0, i1, l0, l1] = bytes;
        Self {
            request_type,
            request,
            value: u16::from_le_bytes([v0, v1]),
            index: u16::from_le_bytes([i0, i1]),
            length: u16::from_le_bytes([l0, l1]),
        }
    }

    /// The eight bytes as they stand on the bus.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let [v0, v1] = self.value.to_le_bytes();
        let [i0, i1] = self.index.to_le_bytes();
        let [l0, l1] = self.length.to_le_bytes();
        [self.request_type, self.request, v0, v1, i0, i1, l0, l1]
    }

    /// The direction of the data stage.
    #[must_use]
    pub fn direction(self) -> Direction {
        if self.request_type & 0x80 == 0 { Direction::Out } else { Direction::In }
    }
}

/// The most packets of one isochronous request: what Linux takes in one URB.
pub const MAX_PACKETS: usize = 128;

/// The lengths of an isochronous request's packets, one for each service interval, bytes; 1 to [`MAX_PACKETS`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Packets(Arc<[u16]>);

impl Packets {
    /// Packets of these lengths; `None` if there are none, or more than [`MAX_PACKETS`].
    #[must_use]
    pub fn new(lengths: &[u16]) -> Option<Self> {
        (1..=MAX_PACKETS).contains(&lengths.len()).then(|| Self(lengths.into()))
    }

    /// The lengths, in order.
    #[must_use]
    pub fn lengths(&self) -> &[u16] {
        &self.0
    }

    /// All lengths together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().copied().map(u32::from).sum()
    }
}

/// What kind of transfer a request is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// A control transfer on the default pipe; the payload's direction is the data stage's.
    Control(Setup),
    /// A bulk transfer; stream 0 means that the endpoint has no streams.
    Bulk {
        /// The bulk stream, 0 for none.
        stream: u16,
    },
    /// An interrupt transfer.
    Interrupt,
    /// Isochronous packets, back to back in the payload: one for each service interval, as soon as possible.
    /// [`Payload::requested`] is [`Packets::total`].
    Isochronous(Packets),
}

impl Transfer {
    /// The lane of requests of this kind, and of their ends.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Bulk { .. } => Lane::Bulk,
            Self::Isochronous(_) => Lane::Iso,
            Self::Control(_) | Self::Interrupt => Lane::Int,
        }
    }
}

/// One transfer: what the guest's driver queued as one TD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The kind of transfer.
    pub transfer: Transfer,
    /// What moves.
    pub payload: Payload,
}

/// Why a request did not succeed, by what its issuer should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It was cancelled on request; nothing to do.
    Cancelled,
    /// The endpoint has stalled; it needs a clear-halt (not endpoint 0).
    Stall,
    /// The device is gone; it will be detached.
    Disconnected,
    /// A transaction error on the bus; a retry may help.
    Fault,
    /// The device sent more than there was room for (babble).
    Overflow,
    /// The request makes no sense for this device or this operating system.
    InvalidArgument,
}

/// How one isochronous packet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketEnd {
    /// Bytes that moved.
    pub moved: u16,
    /// How it ended.
    pub result: Result<(), Failure>,
}

/// The end of a request. Every request has exactly one, cancelled ones too; on a lane that may lose, the end or the
/// request itself may be lost on the way.
/// Partial success is data, not an exception: bytes may have moved although it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The request.
    pub id: RequestId,
    /// How it ended.
    pub result: Result<(), Failure>,
    /// What moved; of isochronous packets, what came, back to back.
    pub moved: Moved,
    /// How each packet of an isochronous request ended, in order; together they moved [`Self::moved`]. Empty for
    /// other transfers, and if the request never got to its packets.
    pub packets: Vec<PacketEnd>,
    /// The lane it returns on: the one the request came by.
    pub lane: Lane,
}

/// A bulk IN transfer that begins when another request has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// The request before it, of the same device and with a smaller id.
    pub after: RequestId,
    /// Its id.
    pub id: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The most bytes that may come back, at most [`crate::MAX_BODY`].
    pub max: u32,
}

impl From<Follow> for Request {
    fn from(Follow { after: _, id, device, endpoint, max }: Follow) -> Self {
        let (transfer, payload) = (Transfer::Bulk { stream: 0 }, Payload::In { max });
        Self { id, device, endpoint, transfer, payload }
    }
}

/// USB messages to the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRemote {
    /// Carry this transfer out. Requests of one endpoint are carried out in order.
    Submit(Request),
    /// Carry a bulk IN transfer out as soon as another request of the device has ended well, as if it were submitted
    /// then; if that one ends in any other way, this one is completed as cancelled. What a protocol of the device makes
    /// certain is so asked for without a round trip. One that has ended already counts, too.
    Follow(Follow),
    /// Cancel every request of this endpoint with an id up to and including `through`, newest first.
    /// A request that arrives later with such an id is completed as cancelled at once: the message may
    /// overtake what it cancels. Each cancelled request still has its completion.
    Cancel {
        /// The device.
        device: DeviceId,
        /// The endpoint.
        endpoint: Endpoint,
        /// The last id that is cancelled.
        through: RequestId,
    },
    /// Reset the device's port. Every request of the device up to `id` is cancelled first. Completed under `id`
    /// (with [`Moved::Out`] 0) when the device is ready for its next control transfer.
    Reset {
        /// The device.
        device: DeviceId,
        /// The id to complete.
        id: RequestId,
    },
    /// Give these bulk endpoints streams 1 to `count` (at most; the device may have fewer), or take them away again.
    /// USB 3.2 §8.12.1.4. Completed under `id` (with [`Moved::Out`] and the number of streams there are now).
    Streams {
        /// The device.
        device: DeviceId,
        /// The id to complete.
        id: RequestId,
        /// The endpoints; at most [`MAX_STREAM_ENDPOINTS`].
        endpoints: Vec<Endpoint>,
        /// The highest stream that will be used; 0 takes the streams away.
        count: u16,
    },
}

/// The endpoints of a device that are not endpoint 0.
pub const MAX_STREAM_ENDPOINTS: usize = 30;

impl ToRemote {
    /// The transfer that is asked for, if it is one.
    #[must_use]
    pub fn request(&self) -> Option<Request> {
        match self {
            Self::Submit(request) => Some(request.clone()),
            Self::Follow(follow) => Some((*follow).into()),
            Self::Cancel { .. } | Self::Reset { .. } | Self::Streams { .. } => None,
        }
    }

    /// The device it is for.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        match self {
            Self::Submit(Request { device, .. })
            | Self::Follow(Follow { device, .. })
            | Self::Cancel { device, .. }
            | Self::Reset { device, .. }
            | Self::Streams { device, .. } => *device,
        }
    }

    /// The same, to give it another.
    pub fn device_mut(&mut self) -> &mut DeviceId {
        match self {
            Self::Submit(Request { device, .. })
            | Self::Follow(Follow { device, .. })
            | Self::Cancel { device, .. }
            | Self::Reset { device, .. }
            | Self::Streams { device, .. } => device,
        }
    }

    /// The id under which it will be completed, if it will.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Self::Submit(Request { id, .. })
            | Self::Follow(Follow { id, .. })
            | Self::Reset { id, .. }
            | Self::Streams { id, .. } => Some(*id),
            Self::Cancel { .. } => None,
        }
    }

    /// The lane this message travels on: bulk by `Bulk`, isochronous by `Iso`, other transfers by `Int`, the rest by
    /// `Ctl`.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Submit(Request { transfer, .. }) => transfer.lane(),
            Self::Follow(_) => Lane::Bulk,
            Self::Cancel { .. } | Self::Reset { .. } | Self::Streams { .. } => Lane::Ctl,
        }
    }
}
