//! What a host has asked of a real device and not yet heard the end of. It knows of libusb only that somebody carries
//! transfers.
//!
//! ```text
//!   submit ──► Pipe: waits for its turn, for credit, for room for its end ──► Carrier
//!   next_end ◄── ended, by lane ◄── what moved ◄───────────────────────────── Carrier
//! ```
//! All of it is bounded: what waits by number and bytes, what flies by credit, and nothing starts whose end has no
//! room. A request is known by its id to the host, and by a number of ours to whoever carries it: a host may say an id
//! twice, and each host counts anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use wire::{
    Lane,
    usb::{Completion, Endpoint, Failure, Moved, Payload, Request, RequestId, Transfer},
};

use super::{
    carrier::{Carrier, Order, SubmitError},
    credit::{Credit, Share, Short},
    pipe::Pipe,
    request::{buffer, fits, is_in, is_question, nothing, told},
    standard::Way,
};
use crate::port::{LANES, place};

/// Requests of one endpoint that may wait: the host's controller has at most so many in flight, each of which costs it
/// 4 KiB of its 64 MiB of credit beside its data.
const MAX_WAITING: usize = 16 << 10;
/// Bytes for the device that may wait: the host's controller has less in flight, its last request included.
const MAX_WAITING_BYTES: usize = 128 << 20;
/// Nothing of a lane starts while more bytes of it than these have come and nobody has asked for them.
const MAX_UNTOLD: usize = 1 << 20;
/// What the kernel has for a transfer beside its data, at least.
const BESIDE: usize = 512;
/// How long transfers may take to end when they are cancelled.
const DRAIN: Duration = Duration::from_secs(2);
/// When to try again what there was no memory for, if nothing ends meanwhile.
const AGAIN: Duration = Duration::from_millis(5);

/// The requests of one device.
#[derive(Debug)]
pub(super) struct Queue<C> {
    carrier: C,
    credit: Arc<Credit>,
    pipes: BTreeMap<Endpoint, Pipe>,
    /// Pipes with something that waits.
    waiting: BTreeSet<Endpoint>,
    /// Bytes for the device that wait.
    waiting_bytes: usize,
    /// Everything up to here is cancelled on every endpoint, also what arrives later.
    cancelled: Option<RequestId>,
    /// What the carrier has.
    flying: HashMap<u64, Flying>,
    ended: [Ends; LANES.len()],
    /// Something waits for memory, and nothing tells when there is some.
    short: bool,
    /// Whether anything was carried that a reset would undo.
    touched: bool,
    now: Duration,
}

/// A request that the carrier has.
#[derive(Debug)]
struct Flying {
    id: RequestId,
    transfer: Transfer,
    input: bool,
    share: Share,
    /// Whoever asked is gone.
    void: bool,
}

/// Ends that nobody has asked for yet.
#[derive(Debug, Default)]
struct Ends {
    waiting: VecDeque<Completion>,
    /// Bytes from the device in them.
    bytes: usize,
}

/// What became of the first request that waits on an endpoint.
enum Next {
    /// It is under way, or has ended.
    Gone,
    /// It waits; or there is none.
    Waits,
    /// It is not for the carrier.
    Other(Request, Way),
}

impl<C: Carrier> Queue<C> {
    pub(super) fn new(carrier: C, credit: Arc<Credit>) -> Self {
        Self {
            carrier,
            credit,
            pipes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_bytes: 0,
            cancelled: None,
            flying: HashMap::new(),
            ended: Default::default(),
            short: false,
            touched: false,
            now: Duration::ZERO,
        }
    }

    /// Who carries.
    pub(super) fn carrier(&self) -> &C {
        &self.carrier
    }

    /// Whether anything was carried, since this was last asked, that a reset would undo.
    pub(super) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn submit(&mut self, request: Request) {
        let pipe = self.pipes.entry(request.endpoint).or_default();
        let full = pipe.waiting.len() >= MAX_WAITING
            || self.waiting_bytes.saturating_add(bytes_out(&request)) > MAX_WAITING_BYTES;
        if pipe.cancelled.max(self.cancelled).is_some_and(|through| request.id <= through) {
            self.fail(&request, Failure::Cancelled);
        } else if !fits(&request) {
            self.fail(&request, Failure::InvalidArgument);
        } else if full {
            // As a host controller without room for more would say.
            self.fail(&request, Failure::Fault);
        } else {
            self.waiting.insert(request.endpoint);
            self.waiting_bytes += bytes_out(&request);
            pipe.waiting.push_back(request);
        }
    }

    /// Cancels what was asked of an endpoint up to this id, newest first.
    pub(super) fn cancel(&mut self, endpoint: Endpoint, through: RequestId) {
        let pipe = self.pipes.entry(endpoint).or_default();
        pipe.cancelled = pipe.cancelled.max(Some(through));
        let (cancelled, kept): (Vec<_>, _) =
            std::mem::take(&mut pipe.waiting).into_iter().partition(|request| request.id <= through);
        pipe.waiting = kept.into();
        let flying = pipe.flying.iter().rev().filter(|(_, id)| *id <= through);
        flying.for_each(|(number, _)| self.carrier.cancel(*number));
        self.fail_waiting(cancelled);
    }

    /// What comes later with an id up to this one is cancelled at once, on every endpoint.
    pub(super) fn cancel_all_later(&mut self, through: RequestId) {
        self.cancelled = self.cancelled.max(Some(through));
    }

    /// Whoever asked is gone: nothing of it has an end any more, not even what still flies.
    pub(super) fn forget(&mut self) {
        self.flying.values_mut().for_each(|flying| flying.void = true);
        self.pipes.clear();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.cancelled = None;
        self.ended = Default::default();
    }

    /// Cancels everything on these endpoints, and waits until the carrier has nothing of it any more.
    pub(super) fn drain(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let Some(pipe) = self.pipes.get_mut(endpoint) else { continue };
            pipe.flying.iter().rev().for_each(|(number, _)| self.carrier.cancel(*number));
            let waiting = std::mem::take(&mut pipe.waiting).into();
            self.fail_waiting(waiting);
        }
        let until = Instant::now() + DRAIN;
        self.collect();
        while self.flies(endpoints) && self.carrier.wait(until) {
            self.collect();
        }
    }

    pub(super) fn drain_all(&mut self, but: Option<Endpoint>) {
        let endpoints: Vec<_> = self.pipes.keys().copied().filter(|e| Some(*e) != but).collect();
        self.drain(&endpoints);
    }

    fn flies(&self, endpoints: &[Endpoint]) -> bool {
        endpoints.iter().any(|e| self.pipes.get(e).is_some_and(|pipe| !pipe.flying.is_empty()))
    }

    /// Starts what waits and can go, up to a request that is not for the carrier: whoever asks must carry that out, say
    /// its [`Self::end_of`], and ask again.
    pub(super) fn start(&mut self, now: Duration) -> Option<(Request, Way)> {
        self.now = now;
        self.short = false;
        let endpoints: Vec<_> = self.waiting.iter().copied().collect();
        for endpoint in endpoints {
            loop {
                match self.start_next(endpoint) {
                    Next::Gone => {}
                    Next::Waits => break,
                    Next::Other(request, way) => return Some((request, way)),
                }
            }
            if self.pipes.get(&endpoint).is_none_or(|pipe| pipe.waiting.is_empty()) {
                self.waiting.remove(&endpoint);
            }
        }
        None
    }

    fn start_next(&mut self, endpoint: Endpoint) -> Next {
        let Some(pipe) = self.pipes.get_mut(&endpoint) else { return Next::Waits };
        let Some(request) = pipe.waiting.front() else { return Next::Waits };
        if self.ended[place(request.transfer.lane())].bytes > MAX_UNTOLD {
            return Next::Waits;
        }
        let (way, isochronous) = match &request.transfer {
            Transfer::Control(setup) => (Way::of(*setup), false),
            transfer => (Way::Raw, matches!(transfer, Transfer::Isochronous(_))),
        };
        if isochronous && pipe.needs_head_start(endpoint, self.now) {
            return Next::Waits;
        }
        // What changes more than one pipe comes after what was asked before.
        if way != Way::Raw && !pipe.flying.is_empty() {
            return Next::Waits;
        }
        let Some(request) = pipe.waiting.pop_front() else { return Next::Waits };
        self.waiting_bytes -= bytes_out(&request);
        if way == Way::Raw { self.fly(request) } else { Next::Other(request, way) }
    }

    /// Hands a request to the carrier, or back to the front of its pipe.
    fn fly(&mut self, request: Request) -> Next {
        let held = self.pipes.get(&request.endpoint).map_or(0, |pipe| pipe.held);
        let wanted = request.payload.requested() as usize + BESIDE;
        let share = match self.credit.take(wanted, held) {
            Ok(share) => share,
            Err(short) => {
                self.short |= short == Short::OthersHave;
                return self.wait_in_front(request);
            }
        };
        let Some(buffer) = buffer(&request) else {
            self.fail(&request, Failure::InvalidArgument);
            return Next::Gone;
        };
        let Request { id, endpoint, transfer, .. } = request.clone();
        let touches = !is_question(&transfer);
        match self.carrier.submit(Order { endpoint, transfer: transfer.clone(), buffer }) {
            Ok(number) => {
                self.touched |= touches;
                self.pipes.entry(endpoint).or_default().took_off(number, id, share.bytes());
                let flying = Flying { id, transfer, input: is_in(&request), share, void: false };
                self.flying.insert(number, flying);
            }
            Err(SubmitError::NoMemory) => {
                self.short = true;
                return self.wait_in_front(request);
            }
            Err(SubmitError::Gone) => self.fail(&request, Failure::Disconnected),
            Err(error @ SubmitError::Other(_)) => {
                tracing::debug!(%error, endpoint = endpoint.address(), "a transfer was refused");
                self.fail(&request, Failure::InvalidArgument);
            }
        }
        Next::Gone
    }

    fn wait_in_front(&mut self, request: Request) -> Next {
        self.waiting_bytes += bytes_out(&request);
        self.pipes.entry(request.endpoint).or_default().waiting.push_front(request);
        Next::Waits
    }

    /// Takes what has ended from the carrier.
    pub(super) fn collect(&mut self) {
        while let Some(finished) = self.carrier.next_finished() {
            let Some(flying) = self.flying.remove(&finished.number) else { continue };
            if let Some(pipe) = self.pipes.get_mut(&finished.endpoint) {
                pipe.landed(finished.number, flying.share.bytes());
            }
            if !flying.void {
                self.end(told(flying.id, &flying.transfer, flying.input, finished));
            }
        }
    }

    /// The next end of this lane.
    pub(super) fn next_end(&mut self, lane: Lane) -> Option<Completion> {
        let ends = &mut self.ended[place(lane)];
        let end = ends.waiting.pop_front()?;
        ends.bytes -= bytes_in(&end);
        Some(end)
    }

    /// When to start again although nothing was called.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let starts = self.pipes.values().filter_map(Pipe::starts_at);
        starts.chain(self.short.then_some(self.now + AGAIN)).min()
    }

    /// Something that the carrier did not carry has ended.
    pub(super) fn end(&mut self, completion: Completion) {
        let ends = &mut self.ended[place(completion.lane)];
        ends.bytes += bytes_in(&completion);
        ends.waiting.push_back(completion);
    }

    /// A request that was not for the carrier has ended like this.
    pub(super) fn end_of(&mut self, request: &Request, result: Result<(), Failure>) {
        let (id, lane, moved) = (request.id, request.transfer.lane(), nothing(is_in(request)));
        self.end(Completion { id, result, moved, packets: Vec::new(), lane });
    }

    fn fail(&mut self, request: &Request, failure: Failure) {
        self.end_of(request, Err(failure));
    }

    /// Requests that waited are cancelled, newest first.
    fn fail_waiting(&mut self, requests: Vec<Request>) {
        for request in requests.iter().rev() {
            self.waiting_bytes -= bytes_out(request);
            self.fail(request, Failure::Cancelled);
        }
    }
}

fn bytes_out(request: &Request) -> usize {
    match &request.payload {
        Payload::Out(data) => data.len(),
        Payload::In { .. } => 0,
    }
}

fn bytes_in(end: &Completion) -> usize {
    match &end.moved {
        Moved::In(data) => data.len(),
        Moved::Out(_) => 0,
    }
}

#[cfg(test)]
mod tests;
