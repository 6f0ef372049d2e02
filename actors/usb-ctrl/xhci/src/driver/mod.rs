//! A small xHCI driver: what a guest's operating system does, in the fewest steps that the specification allows.
//! xHCI 1.2 §4.2, §4.3.
//!
//! A decorator for tests and benches (DESIGN D7), not for guests: it trusts what it reads, and says so by panicking.
//! It drives anything with registers and memory ([`Host`]): the bare model ([`Bare`]), or a controller behind a bus.

mod bare;
mod event;
mod rings;
mod transfers;

use core::time::Duration;
use std::collections::BTreeMap;

use pci::Width;

use self::event::EventReader;
pub use self::{
    bare::Bare,
    event::Event,
    rings::{ProducerRing, Trb, normal},
};

/// What a driver runs on.
pub trait Host {
    /// Reads a register of BAR 0.
    fn read(&mut self, offset: u64, width: Width) -> u64;
    /// Writes a register of BAR 0.
    fn write(&mut self, offset: u64, width: Width, value: u64);
    /// Reads memory that the controller sees at this address.
    fn load(&mut self, address: u64, data: &mut [u8]);
    /// Writes memory that the controller sees at this address.
    fn store(&mut self, address: u64, data: &[u8]);
    /// Lets time pass.
    fn wait(&mut self, time: Duration);
}

/// Completion codes that tests and benches compare with. xHCI 1.2 §6.4.5.
pub mod code {
    /// It worked.
    pub const SUCCESS: u8 = 1;
    /// The device sent more than there was room for.
    pub const BABBLE: u8 = 3;
    /// The device did not answer.
    pub const TRANSACTION_ERROR: u8 = 4;
    /// The TRB makes no sense.
    pub const TRB_ERROR: u8 = 5;
    /// The endpoint stalls.
    pub const STALL: u8 = 6;
    /// Fewer bytes than there was room for.
    pub const SHORT_PACKET: u8 = 13;
    /// The slot or endpoint is in the wrong state.
    pub const CONTEXT_STATE: u8 = 19;
    /// The TD stands still.
    pub const STOPPED: u8 = 26;
}

/// An endpoint to be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointSetup {
    /// Its device context index, 2 to 31: number times two, plus one if IN.
    pub index: u8,
    /// EP Type as in the context. xHCI 1.2 §6.2.3, table 6-9.
    pub kind: u8,
    /// Max Packet Size, bytes.
    pub max_packet: u16,
}

impl EndpointSetup {
    /// A bulk endpoint.
    #[must_use]
    pub fn bulk(index: u8, max_packet: u16) -> Self {
        Self { index, kind: if index & 1 == 0 { 2 } else { 6 }, max_packet }
    }

    /// An interrupt endpoint.
    #[must_use]
    pub fn interrupt(index: u8, max_packet: u16) -> Self {
        Self { index, kind: if index & 1 == 0 { 3 } else { 7 }, max_packet }
    }
}

/// How the driver uses the memory it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The first address of its memory, a multiple of 4096.
    pub base: u64,
    /// How much there is, bytes: 1 MiB is plenty.
    pub size: u64,
    /// TRBs of the event ring, 16 to 4096.
    pub event_trbs: u16,
    /// TRBs of each transfer ring with its Link, at least 2.
    pub ring_trbs: u32,
}

impl Plan {
    /// 256 events and 256 TRBs in each ring, in memory from this address on.
    #[must_use]
    pub fn at(base: u64, size: u64) -> Self {
        Self { base, size, event_trbs: 256, ring_trbs: 256 }
    }
}

/// A driver with its controller running.
pub struct Driver<H> {
    /// What it runs on.
    pub host: H,
    plan: Plan,
    free: u64,
    operational: u64,
    runtime: u64,
    doorbells: u64,
    context_stride: u64,
    dcbaa: u64,
    input: u64,
    commands: ProducerRing,
    events: EventReader,
    rings: BTreeMap<(u8, u8), ProducerRing>,
    unread: Vec<Event>,
}

impl<H: Host> Driver<H> {
    /// Resets the controller, gives it its rings, and starts it. xHCI 1.2 §4.2.
    pub fn start(mut host: H, plan: Plan) -> Self {
        let operational = host.read(0x00, Width::Byte);
        let slots = host.read(0x04, Width::Dword) & 0xff;
        let long = host.read(0x10, Width::Dword) & 4 != 0;
        let doorbells = host.read(0x14, Width::Dword);
        let runtime = host.read(0x18, Width::Dword);
        host.write(operational, Width::Dword, 2);
        let mut this = Self {
            host,
            plan,
            free: plan.base,
            operational,
            runtime,
            doorbells,
            context_stride: if long { 64 } else { 32 },
            dcbaa: 0,
            input: 0,
            commands: ProducerRing::default(),
            events: EventReader::default(),
            rings: BTreeMap::new(),
            unread: Vec::new(),
        };
        this.dcbaa = this.allocate(8 * 65);
        this.input = this.allocate(33 * 64);
        this.commands = this.ring();
        let segment = this.allocate(16 * u64::from(plan.event_trbs));
        let table = this.allocate(16);
        this.host.store(table, &segment.to_le_bytes());
        this.host.store(table + 8, &u64::from(plan.event_trbs).to_le_bytes());
        this.events = EventReader::new(segment, plan.event_trbs);
        let commands = this.commands.base() | 1;
        for (offset, width, value) in [
            (operational + 0x38, Width::Dword, slots),
            (operational + 0x30, Width::Qword, this.dcbaa),
            (operational + 0x18, Width::Qword, commands),
            (runtime + 0x28, Width::Dword, 1),
            (runtime + 0x38, Width::Qword, segment),
            (runtime + 0x30, Width::Qword, table),
            (runtime + 0x24, Width::Dword, 0),
            (runtime + 0x20, Width::Dword, 2),
            (operational, Width::Dword, 0x5),
        ] {
            this.host.write(offset, width, value);
        }
        this
    }

    /// Zeroed memory, aligned to 4096 bytes.
    pub fn allocate(&mut self, bytes: u64) -> u64 {
        let at = self.free;
        self.free += bytes.next_multiple_of(4096);
        assert!(self.free <= self.plan.base + self.plan.size, "the driver needs more memory");
        self.host.store(at, &vec![0; bytes as usize]);
        at
    }

    /// Where the operational registers are.
    pub fn operational(&self) -> u64 {
        self.operational
    }

    /// Where the runtime registers are.
    pub fn runtime(&self) -> u64 {
        self.runtime
    }

    /// A port's PORTSC; ports count from 1.
    pub fn port_status(&mut self, port: u8) -> u32 {
        self.host.read(self.port_register(port), Width::Dword) as u32
    }

    /// Writes a port's PORTSC as it is.
    pub fn write_port(&mut self, port: u8, value: u32) {
        self.host.write(self.port_register(port), Width::Dword, value.into());
    }

    fn port_register(&self, port: u8) -> u64 {
        self.operational + 0x400 + 0x10 * (u64::from(port) - 1)
    }

    /// Resets a port, waits for it, clears its changes. Answers whether it is enabled.
    pub fn reset_port(&mut self, port: u8) -> bool {
        self.write_port(port, 0x210);
        for _ in 0..100 {
            if self.port_status(port) & 0x20_0000 != 0 {
                break;
            }
            self.host.wait(Duration::from_millis(1));
        }
        self.write_port(port, 0x00fe_0200);
        self.port_status(port) & 2 != 0
    }

    /// Puts a command on the ring and rings; answers where it is.
    pub fn post_command(&mut self, trb: Trb) -> u64 {
        let at = self.commands.push(&mut self.host, trb);
        self.host.write(self.doorbells, Width::Dword, 0);
        at
    }

    /// The same, and waits up to 100 ms for its completion event.
    pub fn command(&mut self, trb: Trb) -> Event {
        let at = self.post_command(trb);
        self.await_event(Duration::from_millis(100), |event| event.is_command() && event.pointer == at)
            .expect("a command is completed within 100 ms")
    }

    /// Waits for an event; the others stay for [`Self::events`].
    pub fn await_event(&mut self, time: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let step = Duration::from_millis(1);
        let mut left = time;
        loop {
            self.poll();
            if let Some(index) = self.unread.iter().position(&wanted) {
                return Some(self.unread.remove(index));
            }
            left = left.checked_sub(step)?;
            self.host.wait(step);
        }
    }

    /// The events that have come, in order; the ring is given back.
    pub fn events(&mut self) -> Vec<Event> {
        self.poll();
        core::mem::take(&mut self.unread)
    }

    /// Reads up to this many events and gives only those back.
    pub fn events_up_to(&mut self, count: usize) -> Vec<Event> {
        self.read_events(count);
        core::mem::take(&mut self.unread)
    }

    fn poll(&mut self) {
        self.read_events(usize::MAX);
    }

    fn read_events(&mut self, count: usize) {
        let before = self.unread.len();
        while self.unread.len() - before < count {
            let Some(event) = self.events.next(&mut self.host) else { break };
            self.unread.push(event);
        }
        if self.unread.len() > before {
            let erdp = self.events.dequeue() | 8;
            self.host.write(self.runtime + 0x38, Width::Qword, erdp);
        }
    }

    /// Enable Slot.
    pub fn enable_slot(&mut self) -> u8 {
        let event = self.command(Trb::command(9, 0));
        assert_eq!(event.code, code::SUCCESS, "Enable Slot");
        event.slot
    }

    /// Disable Slot.
    pub fn disable_slot(&mut self, slot: u8) -> Event {
        self.rings.retain(|(of, _), _| *of != slot);
        self.command(Trb::command(10, slot))
    }

    /// Address Device on a root port, with a new control ring. `speed` is a protocol speed id.
    pub fn address_device(&mut self, slot: u8, port: u8, speed: u8, block: bool) -> Event {
        let output = self.allocate(32 * self.context_stride);
        self.host.store(self.dcbaa + 8 * u64::from(slot), &output.to_le_bytes());
        let ring = self.ring();
        let dequeue = ring.base() | 1;
        self.rings.insert((slot, 1), ring);
        let max_packet = if speed == 4 { 512 } else { 64 };
        self.input_context(0, 3);
        self.store_context(1, [1 << 27 | u32::from(speed) << 20, u32::from(port) << 16, 0, 0, 0]);
        self.store_endpoint(2, 4, max_packet, dequeue);
        let flags = if block { 1 << 9 } else { 0 };
        self.command(Trb { parameter: self.input, ..Trb::command(11, slot).with(flags) })
    }

    /// Configure Endpoint: adds these, with new rings.
    pub fn configure(&mut self, slot: u8, endpoints: &[EndpointSetup]) -> Event {
        let add = endpoints.iter().fold(1, |flags, endpoint| flags | 1 << endpoint.index);
        self.configure_with(slot, 0, add, endpoints)
    }

    /// Configure Endpoint with these drop and add flags.
    pub fn configure_with(&mut self, slot: u8, drop: u32, add: u32, endpoints: &[EndpointSetup]) -> Event {
        let last = endpoints.iter().map(|endpoint| u32::from(endpoint.index)).max().unwrap_or(1);
        self.input_context(drop, add);
        self.store_context(1, [last << 27, 0, 0, 0, 0]);
        for endpoint in endpoints {
            let ring = self.ring();
            let dequeue = ring.base() | 1;
            self.rings.insert((slot, endpoint.index), ring);
            self.store_endpoint(endpoint.index + 1, endpoint.kind, endpoint.max_packet, dequeue);
        }
        self.command(Trb { parameter: self.input, ..Trb::command(12, slot) })
    }

    /// The output context with this index, first five dwords.
    pub fn output_context(&mut self, slot: u8, index: u8) -> [u32; 5] {
        let mut pointer = [0; 8];
        self.host.load(self.dcbaa + 8 * u64::from(slot), &mut pointer);
        let at = u64::from_le_bytes(pointer) + u64::from(index) * self.context_stride;
        core::array::from_fn(|dword| {
            let mut bytes = [0; 4];
            self.host.load(at + 4 * dword as u64, &mut bytes);
            u32::from_le_bytes(bytes)
        })
    }

    /// A new transfer ring for an endpoint; the driver must tell the controller.
    pub fn ring(&mut self) -> ProducerRing {
        let trbs = self.plan.ring_trbs;
        let base = self.allocate(16 * u64::from(trbs));
        ProducerRing::new(&mut self.host, base, trbs)
    }

    fn input_context(&mut self, drop: u32, add: u32) {
        self.host.store(self.input, &vec![0; 33 * self.context_stride as usize]);
        self.store_context(0, [drop, add, 0, 0, 0]);
    }

    fn store_endpoint(&mut self, index: u8, kind: u8, max_packet: u16, dequeue: u64) {
        let kind = u32::from(max_packet) << 16 | u32::from(kind) << 3 | 3 << 1;
        self.store_context(index, [0, kind, dequeue as u32, (dequeue >> 32) as u32, 8]);
    }

    fn store_context(&mut self, index: u8, dwords: [u32; 5]) {
        let at = self.input + u64::from(index) * self.context_stride;
        let bytes: Vec<u8> = dwords.into_iter().flat_map(u32::to_le_bytes).collect();
        self.host.store(at, &bytes);
    }
}
