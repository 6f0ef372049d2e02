//! What all software functions have in common: a queue for each endpoint, and how requests end.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wire::{
    Lane,
    control::{Descriptor, Profile},
    usb::{
        Completion, Direction, Endpoint, Failure, Moved, PacketEnd, Payload, Request, RequestId, Setup,
        Speed, Transfer,
    },
};

use crate::{
    Function,
    descriptors::{Description, EndpointSpec, LANGUAGE, kind},
};

mod as_function;
mod chapter9;

pub(crate) use as_function::as_function;

/// Requests of one endpoint that may wait: a host controller of ours has at most so many in flight, each of which costs
/// it 4 KiB of its 64 MiB of credit beside its data.
const MAX_WAITING: usize = 16 << 10;
/// Bytes for the device that may wait: a host controller of ours has less in flight, its last request included.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// The answer to a control request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done; nothing to say.
    Ack,
    /// Done; this is the data stage (cut to what the host asked for).
    Data(Vec<u8>),
    /// Not understood, or not now. USB 2.0 §9.2.7.
    Stall,
}

/// The end of a transfer on another endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// It ended well.
    Moved(Moved),
    /// More came than there was room for.
    Overflow(Moved),
    /// The packets of an isochronous transfer ended like this; what came is back to back.
    Packets(Vec<PacketEnd>, Moved),
    /// The endpoint is halted from now on; this request ends with a stall and what moved.
    Halt(Moved),
}

/// What makes a function what it is.
pub(crate) trait Class {
    /// Its descriptors.
    fn description(&self) -> &Description;

    /// A request to the interface or the device that is not a standard one, or asks for the class's own descriptors.
    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer;

    /// Carries out the first transfer that waits on an endpoint, or leaves it waiting (`None`).
    fn transfer(&mut self, now: Duration, first: &Request) -> Option<Done>;

    /// When the first transfer that waits on an endpoint may end although nothing happens.
    fn deadline(&self, _first: &Request) -> Option<Duration> {
        None
    }

    /// Whether this endpoint must halt although no transfer of it ended; asked after everything that the class did.
    fn wants_halt(&mut self, _endpoint: Endpoint) -> bool {
        false
    }

    /// The report descriptor of a HID. HID 1.11 §6.2.2.
    fn report_descriptor(&self) -> Option<&'static [u8]> {
        None
    }

    /// Interrupt IN endpoints whose data means the same a little later.
    fn read_ahead(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// The endpoints of Bulk-Only Transport.
    fn bulk_only(&self) -> Vec<wire::control::BulkOnly> {
        Vec::new()
    }

    /// Whether a halt may be cleared now.
    fn may_clear_halt(&self, _endpoint: Endpoint) -> bool {
        true
    }

    /// The device is reset or configured, or its interface set: everything from the start.
    fn reset(&mut self);
}

/// The transfers of one endpoint.
#[derive(Debug, Default)]
struct Pipe {
    waiting: VecDeque<Request>,
    /// Everything up to here is cancelled, also what arrives later.
    cancelled: Option<RequestId>,
    halted: bool,
}

/// A device made of a class.
#[derive(Debug)]
pub(crate) struct Device<C> {
    pub(crate) class: C,
    pipes: BTreeMap<Endpoint, Pipe>,
    /// Ends that nobody has asked for yet, in order.
    ended: VecDeque<Completion>,
    /// Bytes for the device that wait in pipes.
    waiting_bytes: usize,
    configured: bool,
    /// The alternate setting of the interface.
    setting: u8,
}

impl<C: Class> Device<C> {
    pub(crate) fn new(class: C) -> Self {
        let addresses = class.description().settings.iter().flatten().map(|spec| spec.address);
        let endpoints = addresses.filter_map(Endpoint::from_address).chain([Endpoint::CONTROL]);
        let pipes = endpoints.map(|endpoint| (endpoint, Pipe::default())).collect();
        Self { class, pipes, ended: VecDeque::new(), waiting_bytes: 0, configured: false, setting: 0 }
    }

    /// The endpoint as the present setting has it; none before the device is configured.
    fn spec(&self, endpoint: Endpoint) -> Option<EndpointSpec> {
        self.class.description().endpoint(self.setting, endpoint.address()).filter(|_| self.configured)
    }

    fn end(&mut self, request: &Request, result: Result<(), Failure>, moved: Moved) {
        self.end_with(request, result, moved, Vec::new());
    }

    fn end_with(
        &mut self,
        request: &Request,
        result: Result<(), Failure>,
        moved: Moved,
        packets: Vec<PacketEnd>,
    ) {
        let lane = lane(request);
        self.ended.push_back(Completion { id: request.id, result, moved, packets, lane });
    }

    fn fail(&mut self, request: &Request, failure: Failure) {
        self.end(request, Err(failure), nothing(&request.payload));
    }

    /// Takes what waits on an endpoint out of its pipe, oldest first.
    fn take_waiting(&mut self, endpoint: Endpoint) -> VecDeque<Request> {
        let waiting = self.pipes.get_mut(&endpoint).map(|pipe| core::mem::take(&mut pipe.waiting));
        let waiting = waiting.unwrap_or_default();
        self.waiting_bytes -= waiting.iter().map(bytes_out).sum::<usize>();
        waiting
    }

    /// Everything that waits on any endpoint ends as cancelled, newest first.
    fn cancel_all(&mut self) {
        for endpoint in self.pipes.keys().copied().collect::<Vec<_>>() {
            for request in self.take_waiting(endpoint).iter().rev() {
                self.fail(request, Failure::Cancelled);
            }
        }
    }

    /// The endpoint stalls what waits on it and what comes, until its halt is cleared.
    fn halt(&mut self, endpoint: Endpoint) {
        if let Some(pipe) = self.pipes.get_mut(&endpoint) {
            pipe.halted = true;
        }
        for request in self.take_waiting(endpoint) {
            self.fail(&request, Failure::Stall);
        }
    }

    /// Halts what the class wants halted.
    fn settle(&mut self) {
        let endpoints = self.pipes.keys().copied().filter(|endpoint| *endpoint != Endpoint::CONTROL);
        let wanted: Vec<_> = endpoints.filter(|endpoint| self.class.wants_halt(*endpoint)).collect();
        for endpoint in wanted {
            self.halt(endpoint);
        }
    }

    /// Carries out the first transfer of this lane that can go on; whether there was one.
    fn carry_out(&mut self, now: Duration, lane_of_end: Lane) -> bool {
        for pipe in self.pipes.values_mut() {
            let Some(request) = pipe.waiting.front().filter(|request| lane(request) == lane_of_end) else {
                continue;
            };
            let Some(done) = self.class.transfer(now, request) else { continue };
            let Some(request) = pipe.waiting.pop_front() else { continue };
            self.waiting_bytes -= bytes_out(&request);
            match done {
                Done::Moved(moved) => self.end(&request, Ok(()), moved),
                Done::Overflow(moved) => self.end(&request, Err(Failure::Overflow), moved),
                Done::Packets(packets, moved) => self.end_with(&request, Ok(()), moved, packets),
                Done::Halt(moved) => {
                    self.end(&request, Err(Failure::Stall), moved);
                    self.halt(request.endpoint);
                }
            }
            self.settle();
            return true;
        }
        false
    }

    fn control(&mut self, request: &Request, setup: Setup) {
        let data = match &request.payload {
            Payload::Out(data) => data.clone(),
            Payload::In { .. } => Bytes::new(),
        };
        let answer = self.answer(setup, &data);
        let (result, moved) = match (answer, &request.payload) {
            (Answer::Stall, payload) => (Err(Failure::Stall), nothing(payload)),
            (Answer::Ack, Payload::Out(data)) => {
                (Ok(()), Moved::Out(u32::try_from(data.len()).unwrap_or(u32::MAX)))
            }
            (Answer::Ack, Payload::In { .. }) => (Ok(()), Moved::In(Bytes::new())),
            (Answer::Data(mut data), Payload::In { max }) => {
                data.truncate((*max).min(setup.length.into()) as usize);
                (Ok(()), Moved::In(data.into()))
            }
            (Answer::Data(_), Payload::Out(_)) => (Err(Failure::Stall), Moved::Out(0)),
        };
        self.end(request, result, moved);
        self.settle();
    }

    fn has_room_for(&self, request: &Request) -> bool {
        let waiting = self.pipes.get(&request.endpoint).map_or(0, |pipe| pipe.waiting.len());
        waiting < MAX_WAITING && self.waiting_bytes + bytes_out(request) <= MAX_WAITING_BYTES
    }
}

impl<C: Class> Function for Device<C> {
    fn id(&self) -> (u16, u16) {
        let identity = &self.class.description().identity;
        (identity.vendor, identity.product)
    }

    fn speed(&self) -> Speed {
        self.class.description().speed
    }

    fn profile(&self) -> Profile {
        let description = self.class.description();
        let found = |descriptor: u8, number: u8, data: Option<Vec<u8>>| {
            let value = u16::from_be_bytes([descriptor, number]);
            // Strings are in a language, but for the list of languages.
            let index = if descriptor == kind::STRING && number > 0 { LANGUAGE } else { 0 };
            data.map(|data| Descriptor { request_type: 0x80, value, index, data: data.into() })
        };
        let report = self.class.report_descriptor().map(|data| {
            let value = u16::from_be_bytes([kind::REPORT, 0]);
            Descriptor { request_type: 0x81, value, index: 0, data: Bytes::from_static(data) }
        });
        let strings = (0..=u8::MAX).map_while(|n| description.string(n).map(|data| (n, data)));
        let descriptors = [
            found(kind::DEVICE, 0, Some(description.device())),
            found(kind::CONFIGURATION, 0, Some(description.configuration())),
            found(kind::QUALIFIER, 0, description.qualifier()),
            found(kind::BOS, 0, description.bos()),
            report,
        ];
        let strings = strings.map(|(number, data)| found(kind::STRING, number, Some(data)));
        let descriptors = descriptors.into_iter().chain(strings);
        Profile {
            descriptors: descriptors.flatten().collect(),
            read_ahead: self.class.read_ahead(),
            bulk_only: self.class.bulk_only(),
        }
    }

    fn streams(&mut self, id: RequestId, _: &[Endpoint], _: u16) {
        // No software function has streams.
        let (result, moved, lane) = (Err(Failure::InvalidArgument), Moved::Out(0), Lane::Ctl);
        self.ended.push_back(Completion { id, result, moved, packets: Vec::new(), lane });
    }

    fn submit(&mut self, request: Request) {
        let Some(pipe) = self.pipes.get(&request.endpoint) else {
            return self.fail(&request, Failure::InvalidArgument);
        };
        let is_control = request.endpoint == Endpoint::CONTROL;
        if pipe.cancelled.is_some_and(|through| request.id <= through) {
            self.fail(&request, Failure::Cancelled);
        } else if let (Transfer::Control(setup), true) = (&request.transfer, is_control) {
            let setup = *setup;
            self.control(&request, setup);
        } else if !self.spec(request.endpoint).is_some_and(|spec| fits(&request, spec)) {
            self.fail(&request, Failure::InvalidArgument);
        } else if pipe.halted {
            self.fail(&request, Failure::Stall);
        } else if !self.has_room_for(&request) {
            // As a host controller without room for more would say.
            self.fail(&request, Failure::Fault);
        } else if let Some(pipe) = self.pipes.get_mut(&request.endpoint) {
            self.waiting_bytes += bytes_out(&request);
            pipe.waiting.push_back(request);
        }
    }

    fn cancel(&mut self, endpoint: Endpoint, through: RequestId) {
        let (cancelled, kept) = self.take_waiting(endpoint).into_iter().partition(|r| r.id <= through);
        let cancelled: VecDeque<Request> = cancelled;
        if let Some(pipe) = self.pipes.get_mut(&endpoint) {
            pipe.waiting = kept;
            pipe.cancelled = pipe.cancelled.max(Some(through));
            self.waiting_bytes += pipe.waiting.iter().map(bytes_out).sum::<usize>();
        }
        for request in cancelled.iter().rev() {
            self.fail(request, Failure::Cancelled);
        }
    }

    fn reset(&mut self, through: RequestId) -> Result<(), Failure> {
        self.cancel_all();
        for pipe in self.pipes.values_mut() {
            let cancelled = pipe.cancelled.max(Some(through));
            *pipe = Pipe { cancelled, ..Pipe::default() };
        }
        (self.configured, self.setting) = (false, 0);
        self.class.reset();
        Ok(())
    }

    fn replug(&mut self) {
        self.pipes.values_mut().for_each(|pipe| *pipe = Pipe::default());
        self.ended.clear();
        self.waiting_bytes = 0;
        (self.configured, self.setting) = (false, 0);
        self.class.reset();
    }

    fn poll(&mut self, now: Duration, lane: Lane) -> Option<Completion> {
        loop {
            if let Some(at) = self.ended.iter().position(|end| end.lane == lane) {
                return self.ended.remove(at);
            }
            if !self.carry_out(now, lane) {
                return None;
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let first = self.pipes.values().filter_map(|pipe| pipe.waiting.front());
        first.filter_map(|request| self.class.deadline(request)).min()
    }
}

/// Whether a transfer is of the kind and direction of its endpoint, which is not endpoint 0. Bulk and interrupt look the
/// same on the bus.
fn fits(request: &Request, spec: EndpointSpec) -> bool {
    let direction = match request.payload {
        Payload::Out(_) => Direction::Out,
        Payload::In { .. } => Direction::In,
    };
    let kind = match request.transfer {
        Transfer::Control(_) => false,
        Transfer::Isochronous(_) => spec.isochronous(),
        Transfer::Bulk { .. } | Transfer::Interrupt => !spec.isochronous(),
    };
    kind && request.endpoint.direction() == direction
}

fn bytes_out(request: &Request) -> usize {
    match &request.payload {
        Payload::Out(data) => data.len(),
        Payload::In { .. } => 0,
    }
}

fn nothing(payload: &Payload) -> Moved {
    match payload {
        Payload::Out(_) => Moved::Out(0),
        Payload::In { .. } => Moved::In(Bytes::new()),
    }
}

/// The lane that a request came by: its end goes back on the same.
fn lane(request: &Request) -> Lane {
    request.transfer.lane()
}
