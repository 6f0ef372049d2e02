//! From completions to TDs. Everything in a completion is the remote's word and may be wrong.

use bytes::Bytes;
use wire::usb::{Completion, Failure, Moved, Payload, RequestId};

use super::{
    Hands,
    intercept::disguise,
    td::{Pending, Progress, Td},
};
use crate::{
    endpoint::{Endpoint, Kind},
    trb::event::CompletionCode,
};

/// A completion, checked against its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    /// How it ended.
    pub(crate) end: End,
    /// Bytes that moved, never more than were asked for.
    pub(crate) moved: u32,
    /// Those bytes, if they came from the device.
    pub(crate) data: Bytes,
    /// Fewer bytes than there was room for: a short packet ended it.
    pub(crate) short: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Well.
    Done,
    /// Cancelled.
    Cancelled,
    /// Badly.
    Failed(CompletionCode),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(match failure {
            Failure::Cancelled => return Self::Cancelled,
            Failure::Stall => CompletionCode::StallError,
            Failure::Overflow => CompletionCode::BabbleDetectedError,
            Failure::Disconnected | Failure::Fault | Failure::InvalidArgument => {
                CompletionCode::UsbTransactionError
            }
        })
    }
}

impl Settled {
    /// What this completion says about a request for this payload.
    pub(crate) fn check(payload: &Payload, completion: Completion) -> Self {
        let mut end = completion.result.map_or_else(End::from, |()| End::Done);
        let (moved, data) = match (payload, completion.moved) {
            (Payload::Out(sent), Moved::Out(moved)) => {
                (moved.min(u32::try_from(sent.len()).unwrap_or(u32::MAX)), Bytes::new())
            }
            (Payload::In { max }, Moved::In(mut data)) => {
                if data.len() > *max as usize {
                    data.truncate(*max as usize);
                    end = End::Failed(CompletionCode::BabbleDetectedError);
                }
                (u32::try_from(data.len()).unwrap_or(u32::MAX), data)
            }
            // Nothing of the other direction can have moved; a failure may say so in either way.
            (_, moved) => {
                if !moved.is_empty() {
                    end = End::Failed(CompletionCode::UsbTransactionError);
                }
                (0, Bytes::new())
            }
        };
        Self { end, moved, data, short: moved < payload.requested() }
    }
}

impl Endpoint {
    /// A request of this endpoint has ended.
    pub(crate) fn complete(&mut self, hands: &mut Hands<'_, '_>, id: RequestId, completion: Completion) {
        if self.streams.is_some() {
            self.with_streams(|_, streams| Self::complete_stream(hands, streams, id, completion));
            return;
        }
        self.silent = 0;
        if self.kind == Kind::Isochronous {
            return self.complete_packets(hands, id, completion);
        }
        if self.end_acknowledged(hands, id, &completion) {
            return;
        }
        let index = self.tds.iter().position(|td| td.sent().is_some_and(|sent| sent.id == id));
        let td = match index {
            Some(index) => self.tds.get_mut(index),
            None => self.orphan_mut(id).map(|orphan| &mut orphan.td),
        };
        let Some(td) = td else { return };
        let Progress::Sent(sent) = core::mem::replace(&mut td.progress, Progress::Waiting) else { return };
        let settled = Settled::check(&sent.payload, completion);
        // Nobody hears of the failure of what nobody has asked for yet.
        let ahead_failed = index.is_none() && !sent.cancelled && settled.end != End::Done;
        td.apply(settled, sent.cancelled);
        if let (Some(index), Progress::Waiting) = (index, &td.progress) {
            self.submitted = self.submitted.min(index);
        }
        self.ahead_failed |= ahead_failed;
        self.cancels = self.cancels.saturating_sub(usize::from(sent.cancelled));
        self.sort_orphans();
    }
}

impl Td {
    /// Lets what a request has done count. `cancelled`: we had asked for its end.
    fn apply(&mut self, settled: Settled, cancelled: bool) {
        let Settled { end, moved, mut data, short } = settled;
        if let Some(setup) = self.setup {
            // A control transfer that was cancelled starts over with its setup stage.
            if end == End::Cancelled && cancelled {
                return;
            }
            data = disguise(setup, data);
        }
        let left = self.length.saturating_sub(self.done);
        let overflows = moved > left;
        data.truncate(left as usize);
        if !data.is_empty() {
            self.pending = Some(Pending::new(self.done, data));
        }
        self.done += moved.min(left);
        let all = self.done >= self.length;
        self.progress = match end {
            _ if overflows => Progress::Finished(CompletionCode::BabbleDetectedError),
            End::Done if short || all || self.setup.is_some() => Progress::Finished(CompletionCode::Success),
            End::Cancelled if cancelled && all && self.length > 0 => {
                Progress::Finished(CompletionCode::Success)
            }
            End::Done => Progress::Waiting,
            End::Cancelled if cancelled => Progress::Waiting,
            End::Cancelled => Progress::Finished(CompletionCode::UsbTransactionError),
            End::Failed(code) => Progress::Finished(code),
        };
    }
}
