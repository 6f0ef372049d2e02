//! Streams: one endpoint with a ring for each. xHCI 1.2 §4.12, §6.2.4.
//!
//! Each ring is an endpoint of its own in all that concerns TDs, stops and orphans; what there is only one of, state
//! and fences, is the endpoint's. Contexts are read when a stream is first used: most never are.

use std::collections::BTreeMap;

use pci::Dma;
use wire::usb::{Completion, RequestId};

use super::{Endpoint, State};
use crate::{context, requests::Requests, ring::RingPointer, transfer::Hands, trb::event::CompletionCode};

/// MaxPSASize: arrays of up to 2^(4+1) stream contexts. xHCI 1.2 §5.3.6.
pub(crate) const MAX_PRIMARY_ARRAY: u8 = 4;
/// The length of a stream context, bytes. xHCI 1.2 §6.2.4.1.
const CONTEXT: u64 = 16;
/// Stream Context Types: a ring in a primary array; a ring in a secondary one, which some drivers write although there
/// is only the primary.
const PRIMARY_RING: u64 = 1;
const SECONDARY_RING: u64 = 0;

/// The place of a stream's context, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Its number, from 1.
    pub(crate) id: u16,
    at: u64,
    /// Its Stream Context Type, as the driver wrote it.
    kind: u64,
}

impl Stream {
    /// Writes the dequeue pointer where the guest reads it.
    pub(super) fn mirror(self, dma: &dyn Dma, dequeue: RingPointer) -> Result<(), pci::DmaError> {
        dma.write(self.at, &(dequeue.to_raw() | self.kind << 1).to_le_bytes())
    }
}

/// The streams of an endpoint.
#[derive(Debug)]
pub(crate) struct Streams {
    array: u64,
    last: u16,
    rings: BTreeMap<u16, Endpoint>,
    /// The remote gives the device its streams under this request; nothing is submitted before.
    pub(crate) awaited: Option<RequestId>,
    /// The highest stream that the device has.
    given: u16,
}

impl Streams {
    /// Streams by the endpoint context's array, none used yet.
    pub(super) fn new(array: u64, max_primary: u8) -> Self {
        let last = (1 << (max_primary + 1)) - 1;
        Self { array: array & !0xf, last, rings: BTreeMap::new(), awaited: None, given: last }
    }

    /// The highest stream.
    pub(crate) fn last(&self) -> u16 {
        self.last
    }

    /// The remote has answered: the device has so many.
    pub(crate) fn answered(&mut self, id: RequestId, given: u32) {
        if self.awaited == Some(id) {
            self.awaited = None;
            self.given = u16::try_from(given).unwrap_or(u16::MAX);
        }
    }

    /// Everything in flight is forgotten by the whole controller.
    pub(super) fn forget(&mut self, requests: &mut Requests) {
        if let Some(id) = self.awaited.take() {
            requests.forget(id);
        }
    }
}

impl Endpoint {
    /// Lends its streams to a step, if it has any.
    pub(crate) fn with_streams<R>(&mut self, step: impl FnOnce(&mut Self, &mut Streams) -> R) -> Option<R> {
        let mut streams = self.streams.take()?;
        let result = step(self, &mut streams);
        self.streams = Some(streams);
        Some(result)
    }

    /// The ring of a stream, or why there is none. xHCI 1.2 §4.12.2.
    pub(super) fn stream_mut<'s>(
        &self,
        streams: &'s mut Streams,
        dma: &dyn Dma,
        id: u16,
    ) -> Result<&'s mut Self, CompletionCode> {
        if id == 0 || id > streams.last {
            return Err(CompletionCode::InvalidStreamIdError);
        }
        if !streams.rings.contains_key(&id) {
            let at = streams.array.wrapping_add(u64::from(id) * CONTEXT);
            let raw = context::pointer(dma, at).map_err(|_| CompletionCode::TrbError)?;
            let kind = raw >> 1 & 7;
            if ![PRIMARY_RING, SECONDARY_RING].contains(&kind) {
                return Err(CompletionCode::InvalidStreamTypeError);
            }
            let ring = self.ring_of_stream(RingPointer::from_raw(raw), Stream { id, at, kind });
            streams.rings.insert(id, ring);
        }
        streams.rings.get_mut(&id).ok_or(CompletionCode::InvalidStreamIdError)
    }

    /// Works on every ring; a failure on one stops them all.
    pub(super) fn work_streams(&mut self, hands: &mut Hands<'_, '_>, streams: &mut Streams) {
        if self.fence.is_some() || streams.awaited.is_some() {
            return;
        }
        let device = hands.device;
        for (id, ring) in &mut streams.rings {
            // A stream that the device does not have is as good as a device that is not there.
            hands.device = device.filter(|_| *id <= streams.given);
            ring.void_next |= core::mem::take(&mut self.void_next);
            ring.work(hands);
            if matches!(ring.state, State::Halted | State::Error) {
                self.state = ring.state;
                break;
            }
        }
        hands.device = device;
        if !self.state.runs() {
            self.quiesce_all(hands, streams);
        }
    }

    /// All rings stand still where they are: one of them has failed, and with it the endpoint.
    fn quiesce_all(&mut self, hands: &mut Hands<'_, '_>, streams: &mut Streams) {
        for ring in streams.rings.values_mut().filter(|ring| ring.state.runs()) {
            ring.quiesce(hands, self.state);
        }
    }

    pub(super) fn finish_stop_streams(
        &mut self,
        hands: &mut Hands<'_, '_>,
        streams: &mut Streams,
    ) -> Option<bool> {
        for ring in streams.rings.values_mut().filter(|ring| ring.state == State::Stopping) {
            ring.finish_stop(hands)?;
        }
        let failed = streams.rings.values().find(|ring| matches!(ring.state, State::Halted | State::Error));
        self.state = failed.map_or(State::Stopped, |ring| ring.state);
        let stopped = self.state == State::Stopped;
        if !stopped {
            self.quiesce_all(hands, streams);
        }
        self.mirror(hands.cx.dma);
        Some(stopped)
    }

    pub(super) fn set_stream_dequeue(
        &mut self,
        dma: &dyn Dma,
        streams: &mut Streams,
        id: u16,
        pointer: RingPointer,
    ) -> CompletionCode {
        let state = State::Stopped;
        match self.stream_mut(streams, dma, id) {
            Ok(ring) => {
                ring.state = state;
                let code = ring.set_dequeue(dma, id, pointer);
                // What failed in the others was told.
                streams.rings.values_mut().for_each(|ring| ring.state = state);
                self.state = state;
                self.mirror(dma);
                code
            }
            Err(code) => code,
        }
    }

    pub(crate) fn complete_stream(
        hands: &mut Hands<'_, '_>,
        streams: &mut Streams,
        id: RequestId,
        completion: Completion,
    ) {
        if let Some(ring) = streams.rings.values_mut().find(|ring| ring.waits_for(id)) {
            ring.complete(hands, id, completion);
        }
    }

    fn waits_for(&self, id: RequestId) -> bool {
        let mut tds = self.tds.iter().chain(self.orphans.iter().map(|orphan| &orphan.td));
        tds.any(|td| td.sent().is_some_and(|sent| sent.id == id))
    }

    /// Every ring, to be changed.
    pub(super) fn rings_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        self.streams.iter_mut().flat_map(|streams| streams.rings.values_mut())
    }

    /// Every ring.
    pub(super) fn rings(&self) -> impl Iterator<Item = &Self> {
        self.streams.iter().flat_map(|streams| streams.rings.values())
    }
}
