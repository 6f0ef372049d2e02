//! A guest and a remote against the xHCI controller: registers, memory, completions, in any order.

use core::time::Duration;

use arbitrary::{Result, Unstructured};
use pci::{Dma, Model, Width};
use wire::{
    Lane,
    usb::{Completion, DeviceId, Failure, MAX_PACKETS, Moved, PacketEnd, RequestId, Speed, Transfer},
};
use xhci::{
    Config,
    driver::{Bare, Driver, EndpointSetup, Plan, Trb},
};

const MEMORY: usize = 2 << 20;
/// Actions of one run.
const MOST_ACTIONS: usize = 400;
/// Calls in which the model may put work off before it must be done with what it has.
const MOST_CALLS: usize = 2000;
/// Messages of one call.
const MOST_MESSAGES: usize = 4096;
const DEVICE: DeviceId = DeviceId(1);
/// Device context indices that are configured: control, bulk OUT and IN, interrupt IN, isochronous IN.
const ENDPOINTS: [u8; 5] = [1, 2, 3, 5, 7];
/// Memory that the driver has no use for.
const BUFFERS: u64 = 0x10_0000;

/// Whatever guest and remote do: no panic, no endless work, bounded effects, ids that grow; and once every request is
/// answered and the controller reset, nothing is left.
pub(crate) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut storm = Storm::new();
    for _ in 0..MOST_ACTIONS {
        if data.is_empty() || storm.act(&mut data).is_err() {
            break;
        }
        storm.settle();
    }
    storm.driver.host.once(Model::reset);
    storm.settle();
    for (id, _) in core::mem::take(&mut storm.in_flight) {
        storm.complete(Completion { id, ..ended(Ok(()), Moved::Out(0)) });
    }
    storm.settle();
    let stats = storm.driver.host.xhci.stats();
    assert_eq!((stats.in_flight, stats.slots), (0, 0), "something is left");
}

struct Storm {
    driver: Driver<Bare>,
    slot: u8,
    /// The last TRB on each endpoint's ring.
    queued: [u64; ENDPOINTS.len()],
    /// Requests that nobody has answered, and of how many packets.
    in_flight: Vec<(RequestId, usize)>,
    last: RequestId,
}

impl Storm {
    /// A running controller with a device that is configured.
    fn new() -> Self {
        let mut driver = Driver::start(Bare::new(Config::default(), MEMORY), Plan::at(0x1000, 1 << 20));
        let port = driver.host.attach(DEVICE, Speed::High).expect("a free port").0;
        assert!(driver.reset_port(port), "the port is enabled");
        driver.host.take_requests();
        let slot = driver.enable_slot();
        driver.address_device(slot, port, 3, false);
        let isochronous = EndpointSetup { index: 7, kind: 5, max_packet: 1024 };
        let endpoints = [
            EndpointSetup::bulk(2, 512),
            EndpointSetup::bulk(3, 512),
            EndpointSetup::interrupt(5, 8),
            isochronous,
        ];
        driver.configure(slot, &endpoints);
        driver.host.take_requests();
        let queued = [0; ENDPOINTS.len()];
        Self { driver, slot, queued, in_flight: Vec::new(), last: RequestId(0) }
    }

    fn act(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        match data.int_in_range(0..=23)? {
            16..=20 => self.queue(data)?,
            21 | 22 => self.command(data)?,
            23 => drop(self.driver.events()),
            0..=4 => {
                let (offset, width, value) = (offset(data)?, width(data)?, value(data)?);
                let (offset, value) =
                    (offset / width.bytes() as u64 * width.bytes() as u64, value & width.mask());
                self.driver.host.once(|xhci, cx| xhci.write(cx, offset, width, value));
            }
            5 => {
                let (offset, width) = (offset(data)?, width(data)?);
                let offset = offset / width.bytes() as u64 * width.bytes() as u64;
                let read = self.driver.host.once(|xhci, cx| xhci.read(cx, offset, width));
                assert_eq!(read & !width.mask(), 0, "more than was read");
            }
            6 => {
                let (at, length) = (data.int_in_range(0x1000..=0x2_0000)?, data.int_in_range(1..=64)?);
                self.store(at, data.bytes(length)?);
            }
            7..=9 => self.store_trb(data)?,
            10 => self.plug(data)?,
            11 | 12 => self.answer(data)?,
            13 => {
                let id = RequestId(data.arbitrary::<u64>()? | 1 << 63);
                self.complete(Completion { id, ..ended(Ok(()), Moved::Out(0)) });
            }
            14 => self.driver.host.now += Duration::from_micros(data.int_in_range(0..=100_000)?),
            _ if data.ratio(1, 8)? => self.driver.host.once(Model::reset),
            _ => self.driver.host.now += Duration::from_micros(125),
        }
        Ok(())
    }

    fn store(&self, at: u64, bytes: &[u8]) {
        self.driver.host.ram.write(at, bytes).expect("memory that exists");
    }

    /// A TRB where the driver's rings are, mostly. xHCI 1.2 §4.11.
    fn store_trb(&self, data: &mut Unstructured<'_>) -> Result<()> {
        let at = (data.int_in_range(0x30_u64..=0x200)? << 8) + 16 * data.int_in_range(0..=15)?;
        let (parameter, status) = (value(data)?, data.int_in_range(0..=0x2_0000_u32)?);
        let (kind, flags) = (data.int_in_range(0..=63_u32)?, data.arbitrary::<u32>()?);
        let control = kind << 10 | flags & 0x8f1f_03ff;
        self.store(at, &parameter.to_le_bytes());
        self.store(at + 8, &status.to_le_bytes());
        self.store(at + 12, &control.to_le_bytes());
        Ok(())
    }

    /// A TRB behind the last one of an endpoint, as a driver puts it there.
    fn queue(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        let at = data.choose_index(ENDPOINTS.len())?;
        let (endpoint, kind) = (ENDPOINTS[at], *data.choose(&[1_u32, 1, 1, 2, 3, 4, 5, 7, 8, 6])?);
        let parameter = match kind {
            2 => data.arbitrary()?,
            6 => value(data)?,
            _ => BUFFERS + u64::from(data.arbitrary::<u16>()?),
        };
        let status = u32::from(data.arbitrary::<u16>()?) | data.int_in_range(0..=7_u32)? << 22;
        let control = kind << 10 | data.arbitrary::<u32>()? & 0x800f_03fe;
        self.queued[at] = self.driver.queue(self.slot, endpoint, Trb { parameter, status, control });
        if data.arbitrary()? {
            self.driver.ring_doorbell(self.slot, endpoint);
        }
        Ok(())
    }

    /// A command, mostly one for an endpoint that is configured. xHCI 1.2 §6.4.3.
    fn command(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        let at = data.choose_index(ENDPOINTS.len())?;
        let kind = *data.choose(&[14, 15, 15, 16, 16, 9, 10, 11, 12, 13, 17, 19, 20, 23])?;
        let parameter = match kind {
            14 | 15 | 17 => 0,
            16 if data.ratio(3, 4)? => self.queued[at] | 1,
            _ => value(data)?,
        };
        let endpoint = u32::from(ENDPOINTS[at]) << 16;
        let slot = if data.ratio(7, 8)? { self.slot } else { data.arbitrary()? };
        self.driver.post_command(Trb { parameter, ..Trb::command(kind, slot).with(endpoint) });
        Ok(())
    }

    fn plug(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        let device = DeviceId(data.int_in_range(0..=3)?);
        if data.arbitrary()? {
            let speed = *data.choose(&[Speed::Low, Speed::Full, Speed::High, Speed::Super])?;
            // There may be no free port.
            let _ = self.driver.host.once(|xhci, cx| xhci.attach(cx, device, speed, Default::default()));
        } else {
            self.driver.host.once(|xhci, cx| xhci.detach(cx, device));
        }
        Ok(())
    }

    /// Some request ends, with whatever a remote says.
    fn answer(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let (id, packets) = self.in_flight.remove(data.choose_index(self.in_flight.len())?);
        let result = result(data)?;
        let packet = |data: &mut Unstructured<'_>| {
            Ok(PacketEnd { moved: data.int_in_range(0..=2048)?, result: self::result(data)? })
        };
        let ends: Vec<PacketEnd> = match packets {
            0 => Vec::new(),
            // As many as there were, or not.
            _ if data.ratio(1, 4)? => {
                (0..data.int_in_range(0..=MAX_PACKETS)?).map(|_| packet(data)).collect::<Result<_>>()?
            }
            _ => (0..packets).map(|_| packet(data)).collect::<Result<_>>()?,
        };
        let length = match packets {
            0 => data.int_in_range(0..=3000)?,
            _ => ends.iter().map(|end| usize::from(end.moved)).sum(),
        };
        let moved =
            if data.ratio(1, 3)? { Moved::Out(length as u32) } else { Moved::In(vec![0x5a; length].into()) };
        self.complete(Completion { id, packets: ends, ..ended(result, moved) });
        Ok(())
    }

    fn complete(&mut self, completion: Completion) {
        self.driver.host.once(|xhci, cx| xhci.complete(cx, completion));
    }

    /// Lets the model finish, in bounded steps; looks at what it has said.
    fn settle(&mut self) {
        let mut calls = 0;
        while self.driver.host.xhci.deadline().is_some_and(|at| at <= self.driver.host.now) {
            self.driver.host.once(|xhci, cx| xhci.tick(cx));
            calls += 1;
            assert!(calls < MOST_CALLS, "the model does not come to rest");
        }
        let messages = self.driver.host.take_messages();
        assert!(messages.len() < MOST_MESSAGES, "{} messages", messages.len());
        for message in messages {
            let Some(id) = message.id() else { continue };
            let request = message.request();
            let bytes = request.as_ref().map_or(0, |request| request.payload.requested());
            assert!(bytes as usize <= wire::MAX_BODY, "a message has no room for it");
            let packets = match request.map(|request| request.transfer) {
                Some(Transfer::Isochronous(packets)) => packets.lengths().len(),
                _ => 0,
            };
            assert!(id > self.last, "ids grow");
            self.last = id;
            self.in_flight.push((id, packets));
        }
    }
}

fn ended(result: core::result::Result<(), Failure>, moved: Moved) -> Completion {
    Completion { id: RequestId(0), result, moved, packets: Vec::new(), lane: Lane::Bulk }
}

/// Offsets that mean something, and some that do not.
fn offset(data: &mut Unstructured<'_>) -> Result<u64> {
    match data.int_in_range(0..=9)? {
        0 | 1 => data.int_in_range(0x40..=0x7f),
        2 | 3 => data.int_in_range(0x440..=0x53f),
        4 | 5 => data.int_in_range(0x1000..=0x105f),
        6..=8 => Ok(0x2000 + 4 * data.int_in_range(0..=5)?),
        _ => data.int_in_range(0..=0xffff),
    }
}

fn width(data: &mut Unstructured<'_>) -> Result<Width> {
    let widths = [Width::Dword, Width::Dword, Width::Dword, Width::Qword, Width::Word, Width::Byte];
    data.choose(&widths).copied()
}

/// Values that mean something, mostly: addresses of the driver's memory, doorbell targets, bits.
fn value(data: &mut Unstructured<'_>) -> Result<u64> {
    match data.int_in_range(0..=4)? {
        0 => Ok(data.int_in_range(0..=0x1f)? << 12 | 1),
        1 => data.int_in_range(0..=33),
        2 => Ok(1 << data.int_in_range(0..=31)?),
        3 => Ok(0x0fe0_0210),
        _ => data.arbitrary(),
    }
}

fn result(data: &mut Unstructured<'_>) -> Result<core::result::Result<(), Failure>> {
    let results = [
        Ok(()),
        Ok(()),
        Ok(()),
        Err(Failure::Cancelled),
        Err(Failure::Stall),
        Err(Failure::Fault),
        Err(Failure::Overflow),
        Err(Failure::Disconnected),
        Err(Failure::InvalidArgument),
    ];
    data.choose(&results).copied()
}
