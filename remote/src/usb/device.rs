//! A real device, as a [`Function`] like any other.
//!
//! ```text
//!   submit ──► Pipe: waits for credit, order, its turn ──► Engine ──► libusb
//!   poll   ◄── ended, by lane ◄── what moved ◄──────────── Engine ◄── event thread (and a wake)
//! ```
//! Its port runs on a thread of its own: what changes a configuration, a halt or the bus waits for the kernel there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use functions::Function;
use rusb::{Context, DeviceHandle};
use wire::{
    Lane,
    control::Profile,
    usb::{Completion, Endpoint, Failure, Moved, Request, RequestId, Speed, Transfer},
};

use super::{
    claims::Claims,
    credit::CREDIT,
    pipe::Pipe,
    profile::{self, Known},
    request::{buffer, failure, fits, is_in, is_question, nothing, told},
    standard::Way,
    transfer::{Engine, Order, SubmitError},
};
use crate::port::{LANES, place};

/// Requests of one endpoint that may wait: the host's controller has at most 256 in flight.
const MAX_WAITING: usize = 1024;
/// How long transfers may take to end when they are cancelled.
const DRAIN: Duration = Duration::from_secs(2);
/// When to try again what the kernel had no memory for, if nothing ends meanwhile.
const AGAIN: Duration = Duration::from_millis(5);

/// A lent device.
pub(crate) struct Device {
    // The engine goes first: it takes its transfers back before interfaces are released.
    engine: Engine<Context>,
    claims: Claims<Context>,
    handle: Arc<DeviceHandle<Context>>,
    id: (u16, u16),
    speed: Speed,
    known: Known,
    pipes: BTreeMap<Endpoint, Pipe>,
    /// Pipes with something that waits.
    waiting: BTreeSet<Endpoint>,
    /// What libusb has.
    flying: HashMap<RequestId, Flying>,
    /// Ends that nobody has asked for yet, by lane.
    ended: [VecDeque<Completion>; LANES.len()],
    /// Whether anything happened since it was reset that a reset would undo.
    used: bool,
    now: Duration,
}

/// A request that libusb has.
struct Flying {
    transfer: Transfer,
    input: bool,
    /// Bytes of credit.
    credit: usize,
}

impl Device {
    /// Takes a device from its computer. Somebody must handle the context's events. `wake` is called, on any thread,
    /// when there may be something to poll.
    ///
    /// # Errors
    /// It cannot be opened, or somebody else has it.
    pub(crate) fn open(device: rusb::Device<Context>, wake: Box<dyn Fn() + Send + Sync>) -> Result<Self> {
        let descriptor = device.device_descriptor().context("reading its descriptor")?;
        let handle = Arc::new(device.open().context("opening it")?);
        let speed = match device.speed() {
            rusb::Speed::Low => Speed::Low,
            rusb::Speed::Full | rusb::Speed::Unknown => Speed::Full,
            rusb::Speed::Super | rusb::Speed::SuperPlus => Speed::Super,
            _ => Speed::High,
        };
        let mut claims = Claims::new(Arc::clone(&handle));
        if let Ok(configuration) = device.active_config_descriptor() {
            let interfaces: Vec<u8> = configuration.interfaces().map(|i| i.number()).collect();
            claims.claim(&interfaces).context("taking its interfaces")?;
        }
        let known = profile::read(&handle, speed);
        Ok(Self {
            engine: Engine::new(Arc::clone(&handle), wake),
            claims,
            handle,
            id: (descriptor.vendor_id(), descriptor.product_id()),
            speed,
            known,
            pipes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            flying: HashMap::new(),
            ended: Default::default(),
            used: false,
            now: Duration::ZERO,
        })
    }

    fn end(&mut self, completion: Completion) {
        self.ended[place(completion.lane)].push_back(completion);
    }

    fn fail(&mut self, request: &Request, failure: Failure) {
        let moved = nothing(is_in(request));
        let (id, lane) = (request.id, request.transfer.lane());
        self.end(Completion { id, result: Err(failure), moved, packets: Vec::new(), lane });
    }

    /// Starts what waits and can go.
    fn start_waiting(&mut self) {
        for endpoint in std::mem::take(&mut self.waiting) {
            while self.start_next(endpoint) {}
            if self.pipes.get(&endpoint).is_some_and(|pipe| !pipe.waiting.is_empty()) {
                self.waiting.insert(endpoint);
            }
        }
    }

    /// Starts the first request that waits on an endpoint; false if there is none, or it cannot go yet.
    fn start_next(&mut self, endpoint: Endpoint) -> bool {
        let now = self.now;
        let Some(pipe) = self.pipes.get_mut(&endpoint) else { return false };
        let (way, isochronous) = match pipe.waiting.front().map(|request| &request.transfer) {
            None => return false,
            Some(Transfer::Control(setup)) => (Way::of(*setup), false),
            Some(transfer) => (Way::Raw, matches!(transfer, Transfer::Isochronous(_))),
        };
        if isochronous && pipe.needs_head_start(endpoint, now) {
            return false;
        }
        // What changes more than one pipe comes after what was asked before.
        if way != Way::Raw && !pipe.flying.is_empty() {
            return false;
        }
        let Some(request) = pipe.waiting.pop_front() else { return false };
        if way == Way::Raw {
            return self.fly(request);
        }
        let result = self.carry_out(way);
        let (id, lane) = (request.id, request.transfer.lane());
        self.end(Completion { id, result, moved: Moved::Out(0), packets: Vec::new(), lane });
        true
    }

    /// Hands a request to libusb; false if it must wait, at the front of its pipe.
    fn fly(&mut self, request: Request) -> bool {
        let credit = request.payload.requested() as usize;
        // One may always fly, or nothing would ever end and give credit back.
        let first = self.engine.flying() == 0;
        let taken = CREDIT.take(credit);
        if !taken && !first {
            return self.wait_in_front(request);
        }
        let flying = Flying {
            transfer: request.transfer.clone(),
            input: is_in(&request),
            credit: if taken { credit } else { 0 },
        };
        let (id, endpoint) = (request.id, request.endpoint);
        let Some(buffer) = buffer(&request) else {
            CREDIT.give(flying.credit);
            self.fail(&request, Failure::InvalidArgument);
            return true;
        };
        self.used |= !is_question(&request.transfer);
        match self.engine.submit(Order { number: id.0, endpoint, transfer: request.transfer.clone(), buffer })
        {
            Ok(()) => {
                self.flying.insert(id, flying);
                if let Some(pipe) = self.pipes.get_mut(&endpoint) {
                    pipe.flying.push_back(id);
                }
                true
            }
            Err((error, _)) => {
                CREDIT.give(flying.credit);
                match error {
                    SubmitError::NoMemory => return self.wait_in_front(request),
                    SubmitError::Gone => self.fail(&request, Failure::Disconnected),
                    SubmitError::Other(code) => {
                        tracing::debug!(code, endpoint = endpoint.address(), "libusb refuses a transfer");
                        self.fail(&request, Failure::InvalidArgument);
                    }
                }
                true
            }
        }
    }

    fn wait_in_front(&mut self, request: Request) -> bool {
        if let Some(pipe) = self.pipes.get_mut(&request.endpoint) {
            pipe.waiting.push_front(request);
        }
        false
    }

    /// Takes what has ended from libusb.
    fn collect(&mut self) {
        while let Some(finished) = self.engine.next_finished() {
            let id = RequestId(finished.number);
            let Some(flying) = self.flying.remove(&id) else { continue };
            CREDIT.give(flying.credit);
            if let Some(pipe) = self.pipes.get_mut(&finished.endpoint) {
                pipe.flying.retain(|other| *other != id);
            }
            self.end(told(id, &flying.transfer, flying.input, finished));
        }
    }

    /// Cancels everything on these endpoints, and waits until libusb has nothing of it any more.
    fn drain(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let Some(pipe) = self.pipes.get_mut(endpoint) else { continue };
            pipe.flying.iter().rev().for_each(|id| self.engine.cancel(id.0));
            for request in std::mem::take(&mut pipe.waiting) {
                self.fail(&request, Failure::Cancelled);
            }
        }
        let until = Instant::now() + DRAIN;
        let busy = |this: &Self| {
            endpoints.iter().any(|e| this.pipes.get(e).is_some_and(|pipe| !pipe.flying.is_empty()))
        };
        self.collect();
        while busy(self) && Instant::now() < until {
            self.engine.wait(until);
            self.collect();
        }
    }

    fn drain_all(&mut self, but: Option<Endpoint>) {
        let endpoints: Vec<_> = self.pipes.keys().copied().filter(|e| Some(*e) != but).collect();
        self.drain(&endpoints);
    }

    /// Carries out what goes through the kernel. Facts about the device change here.
    fn carry_out(&mut self, way: Way) -> Result<(), Failure> {
        match way {
            Way::Raw | Way::Nothing => Ok(()),
            Way::Configure(value) => self.configure(value),
            Way::Choose { interface, setting } => {
                self.drain(&self.endpoints_of(interface));
                self.used = true;
                self.claims.choose(interface, setting).map_err(failure)
            }
            Way::ClearHalt(endpoint) => {
                self.drain(&[endpoint]);
                self.handle.clear_halt(endpoint.address()).map_err(failure)
            }
        }
    }

    fn endpoints_of(&self, interface: u8) -> Vec<Endpoint> {
        let configurations = self.known.configurations.iter();
        let mut active = configurations.filter(|c| c.value == self.claims.configuration());
        active.next().map(|configuration| configuration.endpoints_of(interface)).unwrap_or_default()
    }

    fn configure(&mut self, value: u8) -> Result<(), Failure> {
        self.drain_all(Some(Endpoint::CONTROL));
        let configuration = self.known.configurations.iter().find(|c| c.value == value);
        let interfaces = configuration.map(|c| c.interfaces()).unwrap_or_default();
        // It was reset, or nothing happened since it came: what it has is what is asked for.
        if value == self.claims.configuration() && !self.used && self.claims.has(&interfaces) {
            return Ok(());
        }
        if value != 0 && configuration.is_none() {
            return Err(Failure::Stall);
        }
        self.claims.configure(value, &interfaces).map_err(|error| {
            tracing::warn!("configuration {value} cannot be set: {error:#}");
            Failure::Stall
        })
    }

    /// Resets it, if that changes anything: some devices die of one reset too many.
    fn reset_if_used(&mut self) {
        self.drain_all(None);
        if !std::mem::take(&mut self.used) {
            return;
        }
        match self.handle.reset() {
            Ok(()) => self.claims.choose_first(),
            // It comes back as another device, or not at all.
            Err(error) => tracing::info!(%error, "the device did not survive its reset"),
        }
    }
}

impl Function for Device {
    fn id(&self) -> (u16, u16) {
        self.id
    }

    fn speed(&self) -> Speed {
        self.speed
    }

    fn profile(&self) -> Profile {
        self.known.profile.clone()
    }

    fn streams(&mut self, id: RequestId, endpoints: &[Endpoint], count: u16) {
        self.drain(endpoints);
        let (result, moved) = match count {
            0 => {
                self.engine.free_streams(endpoints);
                (Ok(()), 0)
            }
            count => match self.engine.alloc_streams(endpoints, count) {
                Ok(got) => (Ok(()), got),
                Err(code) => {
                    tracing::warn!(code, "the device, or its bus, has no streams");
                    (Err(Failure::InvalidArgument), 0)
                }
            },
        };
        let (moved, lane) = (Moved::Out(moved), Lane::Ctl);
        self.end(Completion { id, result, moved, packets: Vec::new(), lane });
    }

    fn submit(&mut self, request: Request) {
        let endpoint = request.endpoint;
        let pipe = self.pipes.entry(endpoint).or_default();
        if pipe.cancelled.is_some_and(|through| request.id <= through) {
            self.fail(&request, Failure::Cancelled);
        } else if !fits(&request) {
            self.fail(&request, Failure::InvalidArgument);
        } else if pipe.waiting.len() >= MAX_WAITING {
            // As a host controller without room for more would say.
            self.fail(&request, Failure::Fault);
        } else {
            pipe.waiting.push_back(request);
            self.waiting.insert(endpoint);
        }
    }

    fn cancel(&mut self, endpoint: Endpoint, through: RequestId) {
        let pipe = self.pipes.entry(endpoint).or_default();
        pipe.cancelled = pipe.cancelled.max(Some(through));
        let (cancelled, kept): (VecDeque<_>, _) =
            std::mem::take(&mut pipe.waiting).into_iter().partition(|request| request.id <= through);
        pipe.waiting = kept;
        let flying = pipe.flying.iter().rev().filter(|id| **id <= through);
        flying.for_each(|id| self.engine.cancel(id.0));
        for request in cancelled.iter().rev() {
            self.fail(request, Failure::Cancelled);
        }
    }

    fn reset(&mut self, through: RequestId) {
        self.reset_if_used();
        for pipe in self.pipes.values_mut() {
            pipe.cancelled = pipe.cancelled.max(Some(through));
        }
    }

    fn replug(&mut self) {
        self.reset_if_used();
        self.pipes.clear();
        self.waiting.clear();
        self.ended.iter_mut().for_each(VecDeque::clear);
    }

    fn poll(&mut self, now: Duration, lane: Lane) -> Option<Completion> {
        self.now = now;
        self.collect();
        self.start_waiting();
        self.ended[place(lane)].pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        let starved = |endpoint: &Endpoint| self.pipes.get(endpoint)?.starts_at;
        let start = self.waiting.iter().filter_map(starved).min();
        let again = (!self.waiting.is_empty() && self.flying.is_empty()).then_some(self.now + AGAIN);
        start.into_iter().chain(again).min()
    }
}
