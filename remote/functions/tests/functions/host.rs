//! A host for one software function: numbers requests, checks that each ends exactly once.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use bytes::Bytes;
use functions::{Function, Medium, MediumError};
use wire::{
    Lane,
    usb::{
        Completion, DeviceId, Direction, Endpoint, Failure, Moved, Payload, Request, RequestId, Setup,
        Transfer,
    },
};

/// Drives a function and keeps what ended.
pub(crate) struct Host<F> {
    pub(crate) function: F,
    pub(crate) now: Duration,
    next: u64,
    ended: BTreeMap<RequestId, Completion>,
}

pub(crate) fn bulk_in() -> Endpoint {
    Endpoint::new(1, Direction::In).unwrap()
}

pub(crate) fn bulk_out() -> Endpoint {
    Endpoint::new(2, Direction::Out).unwrap()
}

impl<F: Function> Host<F> {
    /// A host whose device is configured.
    pub(crate) fn new(function: F) -> Self {
        let mut host = Self { function, now: Duration::ZERO, next: 0, ended: BTreeMap::new() };
        assert_eq!(host.control(0x00, 9, 1, 0, 0), Ok(Vec::new()), "SET_CONFIGURATION");
        host
    }

    pub(crate) fn submit(&mut self, endpoint: Endpoint, transfer: Transfer, payload: Payload) -> RequestId {
        let id = self.unasked(endpoint, transfer, payload);
        self.poll();
        id
    }

    /// Submits without asking for any end.
    fn unasked(&mut self, endpoint: Endpoint, transfer: Transfer, payload: Payload) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.function.submit(Request { id, device: DeviceId(1), endpoint, transfer, payload });
        id
    }

    pub(crate) fn submit_unasked(&mut self, max: u32) -> RequestId {
        self.unasked(bulk_in(), Transfer::Bulk { stream: 0 }, Payload::In { max })
    }

    pub(crate) fn submit_out_unasked(&mut self, length: usize) -> RequestId {
        self.unasked(bulk_out(), Transfer::Bulk { stream: 0 }, Payload::Out(vec![0; length].into()))
    }

    /// Asks for every end there is; their ids, in order.
    pub(crate) fn poll(&mut self) -> Vec<RequestId> {
        let mut ids = Vec::new();
        for lane in Lane::ALL {
            while let Some(completion) = self.function.poll(self.now, lane) {
                assert_eq!(completion.lane, lane);
                assert!(completion.id.0 <= self.next, "a request that was never made");
                ids.push(completion.id);
                let twice = self.ended.insert(completion.id, completion);
                assert!(twice.is_none(), "{twice:?} ended twice");
            }
        }
        ids
    }

    pub(crate) fn end(&self, id: RequestId) -> Option<&Completion> {
        self.ended.get(&id)
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.next - self.ended.len() as u64
    }

    /// The data of a control IN, or how it failed.
    pub(crate) fn control(
        &mut self,
        kind: u8,
        request: u8,
        value: u16,
        index: u16,
        length: u16,
    ) -> Result<Vec<u8>, Failure> {
        let setup = Setup { request_type: kind, request, value, index, length };
        let payload =
            if kind & 0x80 == 0 { Payload::Out(Bytes::new()) } else { Payload::In { max: length.into() } };
        let id = self.submit(Endpoint::CONTROL, Transfer::Control(setup), payload);
        let end = self.end(id).expect("control transfers end at once");
        end.result.map(|()| data(end))
    }

    pub(crate) fn input(&mut self, max: u32) -> RequestId {
        self.submit(bulk_in(), Transfer::Bulk { stream: 0 }, Payload::In { max })
    }

    pub(crate) fn output(&mut self, data: impl Into<Bytes>) -> RequestId {
        self.submit(bulk_out(), Transfer::Bulk { stream: 0 }, Payload::Out(data.into()))
    }

    /// What a transfer gave, if it ended well.
    pub(crate) fn got(&self, id: RequestId) -> Vec<u8> {
        let end = self.end(id).expect("the transfer ended");
        assert_eq!(end.result, Ok(()), "{id:?}");
        data(end)
    }
}

pub(crate) fn data(end: &Completion) -> Vec<u8> {
    match &end.moved {
        Moved::In(data) => data.to_vec(),
        Moved::Out(_) => Vec::new(),
    }
}

/// A medium of memory that fails in one sector.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) read_only: bool,
    pub(crate) broken_sector: Option<u64>,
    /// It gives less than it is asked for.
    pub(crate) short: bool,
    pub(crate) flushes: Rc<Cell<u32>>,
    pub(crate) reads: Rc<Cell<u32>>,
}

impl Memory {
    pub(crate) fn new(sectors: u64) -> Self {
        let bytes = (0..sectors * 512).map(|n| (n % 251) as u8).collect();
        Self {
            bytes,
            read_only: false,
            broken_sector: None,
            short: false,
            flushes: Rc::default(),
            reads: Rc::default(),
        }
    }

    fn check(&self, offset: u64, length: usize) -> Result<std::ops::Range<usize>, MediumError> {
        let range = offset as usize..offset as usize + length;
        let hit =
            |sector: u64| range.start < (sector as usize + 1) * 512 && range.end > sector as usize * 512;
        if self.broken_sector.is_some_and(hit) { Err(MediumError("broken".into())) } else { Ok(range) }
    }
}

impl Medium for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError> {
        self.reads.set(self.reads.get() + 1);
        let range = self.check(offset, length - usize::from(self.short))?;
        Ok(Bytes::copy_from_slice(&self.bytes[range]))
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        let range = self.check(offset, data.len())?;
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.flushes.set(self.flushes.get() + 1);
        Ok(())
    }
}
