//! Endpoints: their state, and the commands that change it. xHCI 1.2 §4.8, §4.6.8 to §4.6.10.
//!
//! ```text
//!                      doorbell                     error
//!   Disabled ─► Running ◄──────── Stopped    Running ────► Halted ── Reset Endpoint ──► Stopped
//!   Configure      │  Stop            ▲      Running ────► Error ─── Set TR Dequeue ──► Stopped
//!   Endpoint       └──────► Stopping ─┘      TRB error
//!                            until the remote has answered, at most 60 ms
//! ```
//!
//! The state here is the truth; the output context in guest memory is a mirror, written before the event that
//! reveals a change.

mod losing;
mod resume;
mod stop;
pub(crate) mod streams;

use core::time::Duration;
use std::collections::VecDeque;

use arbitrary_int::u3;
use pci::Dma;
use wire::usb::{self, Direction, RequestId};

pub(crate) use self::resume::Resume;
use self::streams::{MAX_PRIMARY_ARRAY, Stream, Streams};
use crate::{
    context::{EndpointContext, EndpointType},
    ring::RingPointer,
    slot::SlotId,
    transfer::{
        Hands, bulk_only::Commands, early::Acknowledged, gather::Partial, orphan::Orphan, submit::Late,
        td::Td,
    },
    trb::event::CompletionCode,
};

/// The device context index of the default control endpoint.
pub(crate) const CONTROL: u8 = 1;
/// The highest device context index.
pub(crate) const LAST: u8 = 31;

/// The device context index of an endpoint. xHCI 1.2 §4.5.1.
pub(crate) fn context_index(endpoint: usb::Endpoint) -> u8 {
    match endpoint.direction() {
        _ if endpoint.number() == 0 => CONTROL,
        Direction::Out => endpoint.number() * 2,
        Direction::In => endpoint.number() * 2 + 1,
    }
}

/// The endpoint of a device context index from 1 to 31. xHCI 1.2 §4.5.1.
pub(crate) fn address(index: u8) -> Option<usb::Endpoint> {
    let direction = if index & 1 == 0 { Direction::Out } else { Direction::In };
    (1..=LAST).contains(&index).then(|| usb::Endpoint::new(index / 2, direction))?
}

/// Endpoint states, Disabled apart: that is no endpoint. xHCI 1.2 §4.8.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// TDs are fetched.
    Running,
    /// A Stop Endpoint command waits for the remote. The guest still sees Running.
    Stopping,
    /// A transfer has failed.
    Halted,
    /// Stopped by a command.
    Stopped,
    /// The ring makes no sense.
    Error,
}

impl State {
    /// Whether results may still be told.
    pub(crate) fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Stopping)
    }

    fn bits(self) -> u3 {
        u3::new(match self {
            Self::Running | Self::Stopping => 1,
            Self::Halted => 2,
            Self::Stopped => 3,
            Self::Error => 4,
        })
    }
}

/// What an endpoint transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Control requests.
    Control,
    /// Bulk.
    Bulk,
    /// Interrupt.
    Interrupt,
    /// Isochronous; without bandwidth (packets of 0 bytes) it exists, too.
    Isochronous,
}

/// USB 2.0 §5.9.2.
const MICROFRAME: Duration = Duration::from_micros(125);
/// The exponent of the longest interval between two reports that are here already.
const LONGEST_INTERVAL: u8 = 8;

/// An enabled endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its slot.
    pub(crate) slot: SlotId,
    /// Its device context index.
    pub(crate) dci: u8,
    /// Its address.
    pub(crate) address: usb::Endpoint,
    /// What it transfers.
    pub(crate) kind: Kind,
    /// Max Packet Size, bytes.
    pub(crate) max_packet: u16,
    /// Its state.
    pub(crate) state: State,
    /// Up to where the guest knows of everything.
    pub(crate) dequeue: RingPointer,
    /// Up to where TRBs have been read.
    pub(crate) fetch: RingPointer,
    /// A TD whose end is not in the ring yet.
    pub(crate) partial: Option<Partial>,
    /// TDs that are gathered and not retired, in ring order.
    pub(crate) tds: VecDeque<Td>,
    /// How many of them, from the front, need no submission any more.
    pub(crate) submitted: usize,
    /// Their payload.
    pub(crate) queued_bytes: u32,
    /// Their TRBs.
    pub(crate) queued_trbs: usize,
    /// Where the next TD goes on.
    pub(crate) resume: Option<Resume>,
    /// Requests without a TD.
    pub(crate) orphans: VecDeque<Orphan>,
    /// What the device has sent for TDs that are gone.
    pub(crate) stash: VecDeque<Late>,
    /// Requests that we have cancelled and that are not completed.
    pub(crate) cancels: usize,
    /// A request on the control endpoint that must be completed first.
    pub(crate) fence: Option<RequestId>,
    /// The next TD stalls: a halt that seemed cleared is not.
    pub(crate) void_next: bool,
    /// It has just failed: one TD at a time until one succeeds.
    pub(crate) cautious: bool,
    /// What was asked for ahead has failed: nothing more is, until a TD succeeds.
    pub(crate) ahead_failed: bool,
    /// When packets in flight count as lost, if it is isochronous.
    pub(crate) lost_at: Option<Duration>,
    /// When the next report that was read ahead may be served.
    pub(crate) service_at: Duration,
    /// One waits for that.
    pub(crate) waits_for_service: bool,
    /// An isochronous ring has not run dry since the guest was last told that it has.
    pub(crate) flows: bool,
    /// TDs in a row that were done here and told to nobody, since the doorbell rang or the remote answered.
    pub(crate) silent: u32,
    /// What the guest was told of before it has ended.
    pub(crate) acknowledged: VecDeque<Acknowledged>,
    /// The commands that were sent, if it speaks Bulk-Only Transport.
    pub(crate) commands: Commands,
    /// Its rings, if it has streams; then it has none of its own.
    pub(crate) streams: Option<Box<Streams>>,
    /// The stream whose ring this is.
    pub(crate) stream: Option<Stream>,
    context: EndpointContext,
    context_at: u64,
}

impl Endpoint {
    /// The endpoint that an input context describes, or why it cannot be.
    pub(crate) fn configured(
        slot: SlotId,
        dci: u8,
        context: EndpointContext,
        context_at: u64,
    ) -> Result<Self, CompletionCode> {
        let address = address(dci).ok_or(CompletionCode::TrbError)?;
        let (kind, direction) = match context.kind.kind() {
            EndpointType::NotValid => return Err(CompletionCode::ParameterError),
            EndpointType::Control => (Kind::Control, None),
            EndpointType::BulkOut => (Kind::Bulk, Some(Direction::Out)),
            EndpointType::BulkIn => (Kind::Bulk, Some(Direction::In)),
            EndpointType::InterruptOut => (Kind::Interrupt, Some(Direction::Out)),
            EndpointType::InterruptIn => (Kind::Interrupt, Some(Direction::In)),
            EndpointType::IsochOut => (Kind::Isochronous, Some(Direction::Out)),
            EndpointType::IsochIn => (Kind::Isochronous, Some(Direction::In)),
        };
        match (dci, kind, direction) {
            (CONTROL, Kind::Control, _) => {}
            (CONTROL, ..) => return Err(CompletionCode::ParameterError),
            // Message pipes beside the default one: no device has them, and a request cannot say them.
            (_, Kind::Control, _) => return Err(CompletionCode::ResourceError),
            (_, _, direction) if direction != Some(address.direction()) => {
                return Err(CompletionCode::ParameterError);
            }
            _ => {}
        }
        let needs_packets = kind != Kind::Isochronous;
        let primary = context.status.max_streams().value();
        let linear = kind == Kind::Bulk && context.status.linear() && primary <= MAX_PRIMARY_ARRAY;
        if primary != 0 && !linear || needs_packets && context.kind.max_packet() == 0 {
            return Err(CompletionCode::ParameterError);
        }
        let streams = (primary != 0).then(|| Box::new(Streams::new(context.dequeue, primary)));
        let dequeue = RingPointer::from_raw(context.dequeue);
        let max_packet = context.kind.max_packet();
        let this = Self::new((slot, dci, address), (kind, max_packet), dequeue, context, context_at);
        Ok(Self { streams, ..this })
    }

    /// The ring of a stream of this endpoint.
    fn ring_of_stream(&self, dequeue: RingPointer, stream: Stream) -> Self {
        let place = (self.slot, self.dci, self.address);
        let this = Self::new(place, (self.kind, self.max_packet), dequeue, self.context, self.context_at);
        Self { stream: Some(stream), state: self.state, ..this }
    }

    fn new(
        (slot, dci, address): (SlotId, u8, usb::Endpoint),
        (kind, max_packet): (Kind, u16),
        dequeue: RingPointer,
        context: EndpointContext,
        context_at: u64,
    ) -> Self {
        Self {
            slot,
            dci,
            address,
            kind,
            max_packet,
            state: State::Running,
            dequeue,
            fetch: dequeue,
            partial: None,
            tds: VecDeque::new(),
            submitted: 0,
            queued_bytes: 0,
            queued_trbs: 0,
            resume: None,
            orphans: VecDeque::new(),
            stash: VecDeque::new(),
            cancels: 0,
            fence: None,
            void_next: false,
            cautious: false,
            ahead_failed: false,
            lost_at: None,
            service_at: Duration::ZERO,
            waits_for_service: false,
            flows: false,
            silent: 0,
            acknowledged: VecDeque::new(),
            commands: Commands::default(),
            streams: None,
            stream: None,
            context,
            context_at,
        }
    }

    /// When it wants to be looked at, whatever happens.
    pub(crate) fn due(&self) -> Option<Duration> {
        let asks = self.state == State::Running && self.submitted < self.tds.len();
        let waits = self.waits_for_service && asks && !self.stash.is_empty();
        self.lost_at.or(waits.then_some(self.service_at))
    }

    /// How often it is served, if it is periodic: at least every 32 ms, however patient it is. xHCI 1.2 §6.2.3.6.
    pub(crate) fn service_interval(&self) -> Duration {
        MICROFRAME * (1 << self.context.status.interval().min(LONGEST_INTERVAL))
    }

    /// Whether it is the default control endpoint.
    pub(crate) fn is_control(&self) -> bool {
        self.kind == Kind::Control
    }

    /// Writes its output context. A guest that takes the memory away only blinds itself.
    pub(crate) fn mirror(&mut self, dma: &dyn Dma) {
        self.context.status = self.context.status.with_state(self.state.bits());
        self.context.kind = self.context.kind.with_max_packet(self.max_packet);
        let ring = match self.stream {
            Some(stream) => stream.mirror(dma, self.dequeue),
            // With streams the endpoint context has the array's address.
            None if self.streams.is_some() => Ok(()),
            None => {
                self.context.dequeue = self.dequeue.to_raw();
                Ok(())
            }
        };
        if ring.is_err() || self.context.write(dma, self.context_at).is_err() {
            tracing::debug!(
                slot = self.slot.number(),
                endpoint = self.dci,
                "no memory for an output context"
            );
        }
    }

    /// The doorbell rings, for a stream or for none (0). xHCI 1.2 §4.7. Answers whether there is work.
    pub(crate) fn ring(&mut self, dma: &dyn Dma, stream: u16) -> bool {
        if !matches!(self.state, State::Running | State::Stopped) {
            // One of its streams has failed, or a stop goes on: the rings of the others run with the endpoint.
            return false;
        }
        let there = self.with_streams(|this, streams| {
            let ring = this.stream_mut(streams, dma, stream);
            ring.map(|ring| ring.ring(dma, 0)).is_ok()
        });
        self.silent = 0;
        match self.state {
            _ if !there.unwrap_or(stream == 0) => false,
            State::Stopped => {
                self.state = State::Running;
                self.mirror(dma);
                true
            }
            _ => true,
        }
    }

    /// Does everything that can be done now. What is left when the budget is gone is for the next call.
    pub(crate) fn work(&mut self, hands: &mut Hands<'_, '_>) {
        if self.with_streams(|this, streams| this.work_streams(hands, streams)).is_some() {
            return;
        }
        self.lose_overdue(hands);
        self.retire(hands);
        while self.state == State::Running && hands.events.ready() && hands.budget.left() {
            let before = (self.tds.len(), self.submitted);
            self.submit(hands);
            self.gather(hands);
            let concluded = self.tds.front().is_some_and(|td| td.finished().is_some());
            self.retire(hands);
            if !concluded && before == (self.tds.len(), self.submitted) {
                break;
            }
        }
        self.read_reports_ahead(hands);
        self.tell_dry(hands);
    }

    /// Reset Endpoint. xHCI 1.2 §4.6.8. The device is not told: its toggle is the class driver's business.
    pub(crate) fn reset(&mut self, dma: &dyn Dma, preserve: bool) -> CompletionCode {
        if self.state != State::Halted {
            return CompletionCode::ContextStateError;
        }
        if !preserve {
            self.resume = None;
        }
        for ring in self.rings_mut() {
            // Some stood still because of this one, and one may have failed in its own way: it was told.
            ring.state = State::Halted;
            ring.reset(dma, preserve);
        }
        self.state = State::Stopped;
        self.mirror(dma);
        CompletionCode::Success
    }

    /// Set TR Dequeue Pointer, of a stream or of the only ring (0). xHCI 1.2 §4.6.10.
    pub(crate) fn set_dequeue(&mut self, dma: &dyn Dma, stream: u16, pointer: RingPointer) -> CompletionCode {
        if !matches!(self.state, State::Stopped | State::Error) {
            return CompletionCode::ContextStateError;
        }
        let set = self.with_streams(|this, streams| this.set_stream_dequeue(dma, streams, stream, pointer));
        if let Some(code) = set {
            return code;
        }
        if self.stream.is_none() && stream != 0 {
            return CompletionCode::InvalidStreamIdError;
        }
        // A TD that is to go on gets a doorbell; whatever is here now is another one.
        self.resume = None;
        (self.dequeue, self.fetch) = (pointer, pointer);
        self.state = State::Stopped;
        self.mirror(dma);
        CompletionCode::Success
    }

    /// Evaluate Context: another packet size. xHCI 1.2 §4.6.7.
    pub(crate) fn set_max_packet(&mut self, dma: &dyn Dma, max_packet: u16) {
        self.max_packet = max_packet;
        self.mirror(dma);
    }
}
