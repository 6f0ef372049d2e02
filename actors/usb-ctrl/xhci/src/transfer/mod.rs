//! Transfers: from TRBs to requests of the remote, and from its completions to events. xHCI 1.2 §4.9, §4.10, §4.11.
//!
//! ```text
//!   ring ──gather──► Td ──submit──► Output::Usb(Submit) ─ ─ ─► Xhci::complete ──settle──► Td ──retire──► events
//!                     Waiting         Sent                        Finished, or Waiting again for the next part
//! ```
//!
//! Every queued TD is submitted at once; results are retired in ring order. A TD whose request was cancelled by a
//! stop or behind an error becomes an orphan ([`orphan`]): the guest may run it again, and then its result counts. What
//! is certain to be asked for is asked for ahead ([`ahead`]), and what promises nothing is acknowledged early ([`early`]).

pub(crate) mod ahead;
pub(crate) mod bulk_only;
pub(crate) mod early;
pub(crate) mod gather;
pub(crate) mod intercept;
mod isoch;
pub(crate) mod orphan;
pub(crate) mod retire;
pub(crate) mod settle;
pub(crate) mod submit;
pub(crate) mod td;

use pci::Cx;
use wire::{
    control::Profile,
    usb::{DeviceId, RequestId},
};

use self::bulk_only::Next;
use crate::{Output, budget::Budget, interrupter::Events, requests::Requests};

/// What an endpoint needs from its controller to make progress.
pub(crate) struct Hands<'a, 'c> {
    /// Time, memory, effects.
    pub(crate) cx: &'a mut Cx<'c, Output>,
    /// Where events go.
    pub(crate) events: &'a mut Events,
    /// Where requests are booked.
    pub(crate) requests: &'a mut Requests,
    /// What this call may still do.
    pub(crate) budget: &'a mut Budget,
    /// The device, if it can be reached.
    pub(crate) device: Option<DeviceId>,
    /// What is known of it beforehand.
    pub(crate) profile: Option<&'a Profile>,
    /// The remote is still resetting it.
    pub(crate) gated: bool,
    /// The frame of the moment: MFINDEX without its microframe.
    pub(crate) frame: u16,
    /// The slot's interrupter, for events of no TRB.
    pub(crate) interrupter: u16,
    /// The endpoints of the slot that are enabled: bit n for device context index n.
    pub(crate) enabled: u32,
    /// There was no credit left in the whole controller: to be called again when there is.
    pub(crate) starved: bool,
    /// What control requests mean for other endpoints of the slot, in order.
    pub(crate) effects: &'a mut Vec<SlotEffect>,
}

/// What a control request means for the slot's other endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotEffect {
    /// Late data is void: the endpoint's halt is being cleared by this request, which is a fence if it was
    /// acknowledged early.
    ClearHalt {
        /// The endpoint's device context index.
        endpoint: u8,
        /// The request that new submissions wait for.
        fence: Option<RequestId>,
    },
    /// A bulk endpoint is certain to be asked for something.
    Expect {
        /// The endpoint's device context index.
        endpoint: u8,
        /// The request of another endpoint that comes before it.
        after: RequestId,
        /// What it will be asked for.
        next: Next,
    },
    /// What an endpoint was asked for cannot be answered any more.
    FailNext {
        /// The endpoint's device context index.
        endpoint: u8,
    },
    /// A disk forgets the command of the moment. Bulk-Only Transport 1.0 §3.1.
    ResetTransport,
    /// Late data of all endpoints is void: the configuration changes.
    Flush,
    /// An alternate setting changes. Late data is void, but for reports that were read ahead: those endpoints hardly ever
    /// belong to an interface that has settings.
    FlushInterface,
}
