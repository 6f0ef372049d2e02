//! A device whose bulk IN endpoint has streams.

use pci::{Dma, Width};
use wire::usb::{Moved, Request, Speed, ToRemote, Transfer};
use xhci::driver::{Host, ProducerRing, Trb, code, normal};

use super::{BULK_IN, World, addressed, messages, world};

pub const BUFFER: u64 = 0x20_0000;
pub const INPUT: u64 = 0x30_0000;
/// Where the stream contexts are.
pub const ARRAY: u64 = 0x31_0000;
/// Streams 1 to 15.
pub const PRIMARY: u32 = 3;
pub const LINEAR: u32 = 1 << 15;
pub const SET_DEQUEUE: u8 = 16;

/// An endpoint with streams, and the rings of streams 1 to 3.
pub struct Streamed {
    pub world: World,
    pub slot: u8,
    pub rings: Vec<ProducerRing>,
}

/// Configure Endpoint for the bulk IN endpoint with this first dword.
pub fn configure(world: &mut World, slot: u8, first: u32) -> u8 {
    configure_at(world, slot, first, ARRAY)
}

/// The same with its stream contexts here.
pub fn configure_at(world: &mut World, slot: u8, first: u32, array: u64) -> u8 {
    let store = |at: u64, dwords: &[u32]| {
        let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
        world.host.ram.write(at, &bytes).unwrap();
    };
    store(INPUT, &[0, 1 | 1 << BULK_IN]);
    store(INPUT + 0x20, &[u32::from(BULK_IN) << 27, 0, 0, 0]);
    let context = INPUT + 0x20 * (u64::from(BULK_IN) + 1);
    store(context, &[first, 1024 << 16 | 6 << 3 | 3 << 1, array as u32, (array >> 32) as u32, 0]);
    world.command(Trb { parameter: INPUT, ..Trb::command(12, slot) }).code
}

impl Streamed {
    /// Configured, and the remote has given the device its streams.
    pub fn new() -> Self {
        Self::with_array(ARRAY)
    }

    /// The same with the stream contexts in another place; what the array in memory says is not said there.
    pub fn with_array(array: u64) -> Self {
        let mut world = world();
        let slot = addressed(&mut world, Speed::Super);
        let rings: Vec<_> = (0..3).map(|_| world.ring()).collect();
        for (number, ring) in (1..).zip(&rings) {
            // SCT 1: a ring in a primary array; DCS 1.
            world.host.ram.write(ARRAY + 16 * number, &(ring.base() | 1 << 1 | 1).to_le_bytes()).unwrap();
        }
        assert_eq!(configure_at(&mut world, slot, PRIMARY << 10 | LINEAR, array), code::SUCCESS);
        let mut this = Self { world, slot, rings };
        let [ToRemote::Streams { id, endpoints, count, .. }] = &messages(&mut this.world)[..] else {
            panic!("the remote is told once")
        };
        assert_eq!((endpoints[0].address(), endpoints.len(), *count), (0x81, 1, 15));
        this.world.host.complete(*id, Ok(()), Moved::Out(15));
        this
    }

    /// Queues a TD on a stream and rings; where it is.
    pub fn transfer(&mut self, stream: u16, length: u32) -> u64 {
        let ring = &mut self.rings[usize::from(stream) - 1];
        let at = ring.push(&mut self.world.host, normal(BUFFER, length).with(Trb::IOC));
        self.doorbell(stream);
        at
    }

    pub fn doorbell(&mut self, stream: u16) {
        let doorbell = 0x2000 + 4 * u64::from(self.slot);
        self.world.host.write(doorbell, Width::Dword, u64::from(stream) << 16 | u64::from(BULK_IN));
    }

    pub fn requests(&mut self) -> Vec<Request> {
        self.world.host.take_requests()
    }

    pub fn command(&mut self, kind: u8, parameter: u64, status: u32) -> u8 {
        let trb = Trb::command(kind, self.slot).with(u32::from(BULK_IN) << 16);
        self.world.command(Trb { parameter, status, ..trb }).code
    }

    pub fn dequeue_of(&self, stream: u64) -> u64 {
        let mut bytes = [0; 8];
        self.world.host.ram.read(ARRAY + 16 * stream, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
}

pub fn stream(request: &Request) -> u16 {
    let Transfer::Bulk { stream } = request.transfer else { panic!("{request:?}") };
    stream
}
