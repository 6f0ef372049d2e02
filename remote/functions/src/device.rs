//! What all software functions have in common: chapter 9, and a queue for each endpoint. USB 2.0 §9.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wire::{
    Lane,
    usb::{
        Completion, Direction, Endpoint, Failure, Moved, Payload, Request, RequestId, Setup, Speed, Transfer,
    },
};

use crate::{
    Function,
    descriptors::{Description, kind},
};

/// Standard requests. USB 2.0 §9.4, USB 3.2 §9.4.
mod request {
    pub(super) const GET_STATUS: u8 = 0;
    pub(super) const CLEAR_FEATURE: u8 = 1;
    pub(super) const SET_FEATURE: u8 = 3;
    pub(super) const SET_ADDRESS: u8 = 5;
    pub(super) const GET_DESCRIPTOR: u8 = 6;
    pub(super) const GET_CONFIGURATION: u8 = 8;
    pub(super) const SET_CONFIGURATION: u8 = 9;
    pub(super) const GET_INTERFACE: u8 = 10;
    pub(super) const SET_INTERFACE: u8 = 11;
    pub(super) const SET_SEL: u8 = 48;
    pub(super) const SET_ISOCH_DELAY: u8 = 49;
}

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
    /// The endpoint is halted from now on; this request ends with a stall and what moved.
    Halt(Moved),
}

/// What makes a function what it is.
pub(crate) trait Class {
    /// Its descriptors.
    fn description(&self) -> &Description;

    /// A request that is not a standard one of device or endpoint.
    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer;

    /// Carries out the first transfer that waits on an endpoint, or leaves it waiting (`None`).
    fn transfer(&mut self, endpoint: Endpoint, payload: &Payload) -> Option<Done>;

    /// Whether this endpoint must stall although no transfer waits on it.
    fn wants_halt(&mut self, _endpoint: Endpoint) -> bool {
        false
    }

    /// Whether a halt may be cleared now.
    fn may_clear_halt(&self, _endpoint: Endpoint) -> bool {
        true
    }

    /// The device is reset or configured: everything from the start.
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
    configured: bool,
}

impl<C: Class> Device<C> {
    pub(crate) fn new(class: C) -> Self {
        let addresses = class.description().endpoints.iter().map(|spec| spec.address);
        let endpoints = addresses.filter_map(Endpoint::from_address).chain([Endpoint::CONTROL]);
        let pipes = endpoints.map(|endpoint| (endpoint, Pipe::default())).collect();
        Self { class, pipes, configured: false }
    }

    /// Carries out what waits, as far as the class goes along: one endpoint's progress may be another's reason.
    pub(crate) fn run(&mut self, out: &mut Vec<Completion>) {
        while self.run_once(out) {}
    }

    fn run_once(&mut self, out: &mut Vec<Completion>) -> bool {
        let mut progress = false;
        for (endpoint, pipe) in self.pipes.iter_mut().filter(|(endpoint, _)| **endpoint != Endpoint::CONTROL)
        {
            pipe.halted |= self.class.wants_halt(*endpoint);
            let Some(request) = pipe.waiting.front() else { continue };
            let done = if pipe.halted {
                Some(Done::Halt(nothing(&request.payload)))
            } else {
                self.class.transfer(*endpoint, &request.payload)
            };
            let Some(done) = done else { continue };
            let Some(request) = pipe.waiting.pop_front() else { continue };
            let (result, moved) = match done {
                Done::Moved(moved) => (Ok(()), moved),
                Done::Halt(moved) => {
                    pipe.halted = true;
                    (Err(Failure::Stall), moved)
                }
            };
            out.push(completion(&request, result, moved));
            progress = true;
        }
        progress
    }

    fn control(&mut self, request: &Request, setup: Setup, out: &mut Vec<Completion>) {
        let data = match &request.payload {
            Payload::Out(data) => data.clone(),
            Payload::In { .. } => Bytes::new(),
        };
        let answer = self.standard(setup, &data).unwrap_or_else(|| self.class.control(setup, &data));
        let (result, moved) = match (answer, &request.payload) {
            (Answer::Stall, payload) => (Err(Failure::Stall), nothing(payload)),
            (Answer::Ack, Payload::Out(data)) => (Ok(()), Moved::Out(data.len() as u32)),
            (Answer::Ack, Payload::In { .. }) => (Ok(()), Moved::In(Bytes::new())),
            (Answer::Data(mut data), Payload::In { max }) => {
                data.truncate((*max).min(setup.length.into()) as usize);
                (Ok(()), Moved::In(data.into()))
            }
            (Answer::Data(_), Payload::Out(_)) => (Err(Failure::Stall), Moved::Out(0)),
        };
        out.push(completion(request, result, moved));
        self.run(out);
    }

    /// A standard request, unless it is the class's to answer.
    fn standard(&mut self, setup: Setup, _data: &[u8]) -> Option<Answer> {
        if setup.request_type & 0x60 != 0 {
            return None;
        }
        let answer = match (setup.request_type & 0x1f, setup.request) {
            (0, request::GET_DESCRIPTOR) => self.descriptor(setup),
            (0, request::SET_CONFIGURATION) => self.configure(setup.value),
            (0, request::GET_CONFIGURATION) => Answer::Data(vec![u8::from(self.configured)]),
            (0, request::SET_ADDRESS | request::SET_SEL | request::SET_ISOCH_DELAY) => Answer::Ack,
            // The remote's own host owns the link's power: nothing is suspended, nothing wakes.
            (0 | 1, request::SET_FEATURE | request::CLEAR_FEATURE) => Answer::Ack,
            (0 | 1, request::GET_STATUS) => Answer::Data(vec![0, 0]),
            (1, request::GET_INTERFACE) => Answer::Data(vec![0]),
            (1, request::SET_INTERFACE) if setup.value == 0 && setup.index == 0 => self.configure(1),
            (2, _) => self.endpoint_request(setup),
            // Descriptors of an interface are its class's.
            (1, request::GET_DESCRIPTOR) => return None,
            _ => Answer::Stall,
        };
        Some(answer)
    }

    fn descriptor(&self, setup: Setup) -> Answer {
        let description = self.class.description();
        let [index, kind] = setup.value.to_le_bytes();
        let found = match kind {
            kind::DEVICE => Some(description.device()),
            kind::CONFIGURATION if index == 0 => Some(description.configuration()),
            kind::STRING => description.string(index),
            kind::BOS => description.bos(),
            _ => None,
        };
        found.map_or(Answer::Stall, Answer::Data)
    }

    fn configure(&mut self, configuration: u16) -> Answer {
        if configuration > 1 {
            return Answer::Stall;
        }
        self.configured = configuration == 1;
        self.class.reset();
        self.pipes.values_mut().for_each(|pipe| pipe.halted = false);
        Answer::Ack
    }

    /// USB 2.0 §9.4.1, §9.4.5, §9.4.9 with recipient endpoint; feature 0 is ENDPOINT_HALT.
    fn endpoint_request(&mut self, setup: Setup) -> Answer {
        let endpoint = u8::try_from(setup.index).ok().and_then(Endpoint::from_address);
        let Some((endpoint, pipe)) = endpoint.and_then(|e| self.pipes.get_mut(&e).map(|pipe| (e, pipe)))
        else {
            return Answer::Stall;
        };
        match (setup.request, setup.value) {
            (request::GET_STATUS, _) => Answer::Data(vec![u8::from(pipe.halted), 0]),
            (request::CLEAR_FEATURE, 0) => {
                pipe.halted &= !self.class.may_clear_halt(endpoint);
                Answer::Ack
            }
            (request::SET_FEATURE, 0) => {
                pipe.halted = endpoint != Endpoint::CONTROL;
                Answer::Ack
            }
            _ => Answer::Stall,
        }
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

    fn submit(&mut self, _: Duration, request: Request, out: &mut Vec<Completion>) {
        let Some(pipe) = self.pipes.get_mut(&request.endpoint) else {
            let moved = nothing(&request.payload);
            return out.push(completion(&request, Err(Failure::InvalidArgument), moved));
        };
        if pipe.cancelled.is_some_and(|through| request.id <= through) {
            let moved = nothing(&request.payload);
            return out.push(completion(&request, Err(Failure::Cancelled), moved));
        }
        if let Transfer::Control(setup) = request.transfer {
            return self.control(&request, setup, out);
        }
        let direction = match request.payload {
            Payload::Out(_) => Direction::Out,
            Payload::In { .. } => Direction::In,
        };
        if request.endpoint == Endpoint::CONTROL
            || request.endpoint.direction() != direction
            || !self.configured
        {
            let moved = nothing(&request.payload);
            return out.push(completion(&request, Err(Failure::InvalidArgument), moved));
        }
        pipe.waiting.push_back(request);
        self.run(out);
    }

    fn cancel(&mut self, _: Duration, endpoint: Endpoint, through: RequestId, out: &mut Vec<Completion>) {
        let Some(pipe) = self.pipes.get_mut(&endpoint) else { return };
        pipe.cancelled = pipe.cancelled.max(Some(through));
        let (cancelled, kept) = pipe.waiting.drain(..).partition::<VecDeque<_>, _>(|r| r.id <= through);
        pipe.waiting = kept;
        out.extend(
            cancelled.iter().rev().map(|r| completion(r, Err(Failure::Cancelled), nothing(&r.payload))),
        );
    }

    fn reset(&mut self, _: Duration, through: RequestId, out: &mut Vec<Completion>) {
        for pipe in self.pipes.values_mut() {
            let waiting = pipe.waiting.drain(..).rev();
            out.extend(waiting.map(|r| completion(&r, Err(Failure::Cancelled), nothing(&r.payload))));
            *pipe = Pipe { cancelled: Some(through), ..Pipe::default() };
        }
        self.configured = false;
        self.class.reset();
    }
}

fn nothing(payload: &Payload) -> Moved {
    match payload {
        Payload::Out(_) => Moved::Out(0),
        Payload::In { .. } => Moved::In(Bytes::new()),
    }
}

fn completion(request: &Request, result: Result<(), Failure>, moved: Moved) -> Completion {
    let lane = match request.transfer {
        Transfer::Bulk { .. } => Lane::Bulk,
        Transfer::Control(_) | Transfer::Interrupt => Lane::Int,
    };
    Completion { id: request.id, result, moved, lane }
}
