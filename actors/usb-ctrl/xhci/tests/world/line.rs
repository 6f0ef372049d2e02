//! A driver and a device that both keep the rules, on one bulk or interrupt endpoint: what each of them has said, and
//! what the other one must have heard.

use core::time::Duration;

use bytes::Bytes;
use pci::Model;
use wire::{
    control::Profile,
    usb::{Endpoint, Failure, Moved, Payload, Request, ToRemote},
};
use xhci::driver::{Bare, Driver, Event, Host, Plan, Trb, code, normal};

use super::{TRB_RESET, TRB_STOP, World, configured_as, memory};

/// What the endpoint contexts of these tests say: reports that are here already are served one a microframe.
const INTERVAL: Duration = Duration::from_micros(125);

const MEMORY: usize = 48 << 20;
/// Where buffers are, one behind the other.
const AREA: u64 = 0x20_0000;
/// TRBs of the transfer ring, its Link apart.
const RING: usize = 63;

/// What has become of a TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The driver waits for it.
    Queued,
    /// It succeeded, and its event has come.
    Done,
    /// The driver has given it up.
    Dropped,
}

/// A TD as the driver has queued it.
#[derive(Debug)]
pub struct Td {
    trbs: Vec<u64>,
    buffer: u64,
    pub length: u32,
    pub fate: Fate,
}

/// Both ends, and what is between them.
pub struct Line {
    pub world: World,
    slot: u8,
    endpoint: u8,
    packet: u32,
    pub tds: Vec<Td>,
    /// The first TD that the driver waits for.
    head: usize,
    free: u64,
    stopped: bool,
    /// The endpoint is halted, and why.
    halted: Option<u8>,
    requests: Vec<Request>,
    cancelled: Vec<Request>,
    /// CLEAR_FEATURE(ENDPOINT_HALT), on its way.
    clear: Option<Request>,
    /// The device stalls.
    stalls: bool,
    /// Bytes that the device has given so far.
    pub given: u64,
    /// Bytes that the device has taken.
    pub taken: Vec<u8>,
}

impl Line {
    /// `ahead`: reports may be read before the guest asks.
    pub fn new(endpoint: u8, ahead: bool) -> Self {
        let plan = Plan { event_trbs: 16, ring_trbs: RING as u32 + 1, ..Plan::at(0x1000, 1 << 20) };
        let mut world = Driver::start(Bare::new(Default::default(), MEMORY), plan);
        let read_ahead = if ahead { vec![Endpoint::from_address(0x82).unwrap()] } else { vec![] };
        let slot = configured_as(&mut world, Profile { read_ahead, ..Profile::default() });
        world.events();
        world.host.lazy = true;
        Self {
            world,
            slot,
            endpoint,
            packet: if endpoint == super::INTERRUPT_IN { 8 } else { 512 },
            tds: Vec::new(),
            head: 0,
            free: AREA,
            stopped: false,
            halted: None,
            requests: Vec::new(),
            cancelled: Vec::new(),
            clear: None,
            stalls: false,
            given: 0,
            taken: Vec::new(),
        }
    }

    fn is_in(&self) -> bool {
        self.endpoint & 1 != 0
    }

    /// The model does what it has put off, for one call.
    pub fn tick(&mut self) {
        if self.world.host.xhci.deadline().is_some_and(|at| at <= self.world.host.now) {
            self.world.host.once(|xhci, cx| xhci.tick(cx));
        }
        self.listen();
    }

    /// Everything that it has put off.
    fn rest(&mut self) {
        self.world.host.lazy = false;
        self.world.host.with(|_, _| ());
        self.world.host.lazy = true;
        self.listen();
    }

    /// The remote takes what was sent to it.
    fn listen(&mut self) {
        for message in self.world.host.take_messages() {
            match message {
                ToRemote::Submit(request) if request.endpoint.number() == 0 => self.clear = Some(request),
                ToRemote::Submit(request) => {
                    assert!(self.clear.is_none(), "nothing passes a halt that is being cleared");
                    self.requests.push(request);
                }
                ToRemote::Cancel { endpoint, through, .. } if endpoint.number() != 0 => {
                    let (gone, kept): (Vec<_>, _) =
                        self.requests.drain(..).partition(|request| request.id <= through);
                    self.requests = kept;
                    self.cancelled.extend(gone);
                }
                other => panic!("nobody asks for it: {other:?}"),
            }
        }
    }

    /// The driver reads so many events. Each is about the first TD that it waits for: none is lost, or told twice.
    pub fn read_events(&mut self, count: usize) {
        for event in self.world.events_up_to(count) {
            if event.is_transfer() && event.endpoint == self.endpoint {
                self.hear(&event);
            }
        }
        self.listen();
    }

    fn hear(&mut self, event: &Event) {
        let td = self.tds.get_mut(self.head).expect("an event for a TD that nobody has queued");
        assert!(td.trbs.contains(&event.pointer), "{event:?} is not about TD {}: {td:?}", self.head);
        match event.code {
            code::STOPPED => {}
            code::SUCCESS | code::SHORT_PACKET => {
                assert_eq!(td.trbs.last(), Some(&event.pointer), "{event:?}");
                assert!(self.halted.is_none(), "{event:?} from a halted endpoint");
                td.fate = Fate::Done;
                self.head += 1;
            }
            code::STALL | code::TRANSACTION_ERROR => self.halted = Some(event.code),
            _ => panic!("{event:?}"),
        }
    }

    /// The driver queues a TD of these pieces, if there is room.
    pub fn queue(&mut self, pieces: &[u32]) {
        let unit = if self.is_in() { self.packet } else { 8 };
        let sum: u32 = pieces.iter().sum();
        let length = sum.next_multiple_of(unit);
        let mut pieces = pieces.to_vec();
        pieces[0] += length - sum;
        let waiting: usize = self.tds[self.head..].iter().map(|td| td.trbs.len()).sum();
        if waiting + pieces.len() > RING - 2 || self.free + u64::from(length) > MEMORY as u64 {
            return;
        }
        let buffer = self.free;
        self.free += u64::from(length);
        if !self.is_in() {
            let number = self.tds.len() as u32;
            let words = (0..length / 8).flat_map(|word| [number, word]).flat_map(u32::to_le_bytes);
            self.world.host.store(buffer, &words.collect::<Vec<_>>());
        }
        let mut at = buffer;
        let mut trbs = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let last = if index + 1 < pieces.len() { Trb::CHAIN } else { Trb::IOC };
            trbs.push(self.world.queue(self.slot, self.endpoint, normal(at, *piece).with(last)));
            at += u64::from(*piece);
        }
        self.tds.push(Td { trbs, buffer, length, fate: Fate::Queued });
        if !self.stopped {
            self.world.ring_doorbell(self.slot, self.endpoint);
        }
        self.listen();
    }

    fn command(&mut self, kind: u8, flags: u32) -> u8 {
        let trb = self.world.endpoint_command(kind, self.slot, self.endpoint).with(flags);
        let code = self.world.command(trb).code;
        self.read_events(usize::MAX);
        code
    }

    /// Set TR Dequeue Pointer behind the TD that the driver gives up.
    fn drop_head(&mut self) {
        self.tds[self.head].fate = Fate::Dropped;
        self.head += 1;
        let next = self.tds.get(self.head).map(|td| td.trbs[0]);
        // The ring turns its cycle bit where it wraps, and a TD that is behind the wrap has the bit of the producer.
        let wrapped = |at: u64, enqueue: u64| at > enqueue & !0xf;
        let enqueue = self.world.enqueue(self.slot, self.endpoint);
        let to = next.map(|at| at | (enqueue & 1) ^ u64::from(wrapped(at, enqueue)));
        assert_eq!(self.world.set_dequeue(self.slot, self.endpoint, to).code, code::SUCCESS);
    }

    /// The driver stops the endpoint; the remote answers the cancels at once, or not in time.
    pub fn stop(&mut self, answered: bool) {
        self.read_events(usize::MAX);
        if self.stopped || self.halted.is_some() {
            return;
        }
        let command = self.world.endpoint_command(TRB_STOP, self.slot, self.endpoint);
        let at = self.world.post_command(command);
        self.listen();
        while answered && !self.cancelled.is_empty() {
            self.cancel_newest();
        }
        let found = self.world.await_event(Duration::from_millis(61), |e| e.is_command() && e.pointer == at);
        let code = found.expect("a stop is answered in time").code;
        self.read_events(usize::MAX);
        match code {
            code::SUCCESS => self.stopped = true,
            code => assert!(code == code::CONTEXT_STATE && self.halted.is_some(), "{code}"),
        }
    }

    /// The driver gives up the TD in which the endpoint stands still.
    pub fn unlink(&mut self) {
        if self.stopped && self.head < self.tds.len() {
            self.drop_head();
        }
    }

    pub fn start(&mut self) {
        self.stopped = false;
        self.world.ring_doorbell(self.slot, self.endpoint);
        self.listen();
    }

    /// The driver recovers from a halt, and gives the TD up or tries it again.
    pub fn recover(&mut self, retry: bool) {
        self.read_events(usize::MAX);
        let Some(cause) = self.halted else { return };
        // What went to the device behind the TD would be in front of its second run.
        let retry = retry && cause == code::TRANSACTION_ERROR && self.is_in();
        assert_eq!(self.command(TRB_RESET, u32::from(retry) << 9), code::SUCCESS);
        self.halted = None;
        if !retry {
            self.drop_head();
        }
        if cause == code::STALL {
            self.world.control(self.slot, [0x02, 1, 0, 0, self.address(), 0, 0, 0], 0);
            self.rest();
        }
        self.start();
    }

    fn address(&self) -> u8 {
        self.endpoint / 2 + if self.is_in() { 0x80 } else { 0 }
    }

    /// The next bytes from the device.
    fn give(&mut self, length: usize) -> Bytes {
        let first = self.given + 1;
        self.given += length as u64;
        (first..=self.given).map(byte).collect()
    }

    /// So many packets, at most, move for a request; then it ends like this.
    fn end(&mut self, request: &Request, packets: u32, result: Result<(), Failure>) {
        let most = packets.saturating_mul(self.packet).min(request.payload.requested());
        let most = if self.stalls { 0 } else { most };
        let moved = match &request.payload {
            Payload::Out(data) => {
                self.taken.extend_from_slice(&data[..most as usize]);
                Moved::Out(most)
            }
            Payload::In { .. } => Moved::In(self.give(most as usize)),
        };
        let result = if self.stalls && result.is_ok() { Err(Failure::Stall) } else { result };
        self.world.host.complete(request.id, result, moved);
        self.listen();
    }

    fn oldest(&mut self) -> Option<Request> {
        // A cancelled one is older than one that is not.
        (self.cancelled.is_empty() && !self.requests.is_empty()).then(|| self.requests.remove(0))
    }

    /// The device answers the oldest request, with all of it or with a short packet.
    pub fn complete(&mut self, short: bool) {
        let Some(request) = self.oldest() else { return };
        if short && self.is_in() && !self.stalls {
            let data = self.give(request.payload.requested() as usize / 2 + 1);
            self.world.host.complete(request.id, Ok(()), Moved::In(data));
            self.listen();
        } else {
            self.end(&request, u32::MAX, Ok(()));
        }
    }

    /// The oldest request fails behind so many packets.
    pub fn fail(&mut self, stall: bool, packets: u32) {
        let Some(request) = self.oldest() else { return };
        let most = request.payload.requested() / self.packet / 2;
        let failure = if stall || self.stalls { Failure::Stall } else { Failure::Fault };
        self.end(&request, packets.min(most), Err(failure));
        self.stalls |= stall;
    }

    fn cancel_newest(&mut self) {
        let Some(request) = self.cancelled.pop() else { return };
        // The oldest one may have moved some packets before it was cancelled.
        let most = if self.cancelled.is_empty() { request.payload.requested() / self.packet / 2 } else { 0 };
        self.end(&request, most, Err(Failure::Cancelled));
    }

    /// The remote answers a cancel late: the oldest request was faster, or the newest is cancelled.
    pub fn settle(&mut self, finished: bool) {
        if finished && !self.cancelled.is_empty() {
            let request = self.cancelled.remove(0);
            self.end(&request, u32::MAX, Ok(()));
        } else {
            self.cancel_newest();
        }
    }

    /// The remote clears the halt, when everything before that has ended.
    pub fn clear(&mut self) {
        let Some(request) = self.clear.take() else { return };
        while !self.cancelled.is_empty() {
            self.cancel_newest();
        }
        self.stalls = false;
        self.world.host.complete(request.id, Ok(()), Moved::Out(0));
        self.listen();
    }

    /// Everything comes to its end.
    pub fn drain(&mut self) {
        self.start();
        for _ in 0..20_000 {
            self.read_events(usize::MAX);
            if self.head == self.tds.len() {
                return;
            }
            self.recover(false);
            self.clear();
            self.cancel_newest();
            self.complete(false);
            self.rest();
            self.world.host.wait(INTERVAL);
        }
        panic!("{} of {} TDs were told", self.head, self.tds.len());
    }

    /// The driver queues more, until it has all that the device has given.
    pub fn fetch_the_rest(&mut self) {
        while self.head == self.tds.len() {
            self.queue(&[self.packet]);
            self.rest();
            self.world.host.wait(INTERVAL);
            self.read_events(usize::MAX);
        }
    }

    /// The bytes of the device that are in the guest's buffers, in order.
    pub fn received(&self) -> u64 {
        let mut next = 0;
        for td in &self.tds {
            let data = memory(&self.world, td.buffer, td.length as usize);
            next +=
                (next + 1..).zip(&data).take_while(|(number, found)| **found == byte(*number)).count() as u64;
        }
        next
    }

    /// Words that the device has taken: of which TD, and which of it.
    pub fn words(&self) -> Vec<(usize, u32)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        self.taken.chunks(8).map(|at| (word(&at[..4]) as usize, word(&at[4..]))).collect()
    }
}

/// The device's bytes: never 0, which is what the guest's buffers are full of.
fn byte(number: u64) -> u8 {
    (number % 250 + 1) as u8
}
