//! Commands about one endpoint. xHCI 1.2 §4.6.8 to §4.6.10.

use pci::{Cx, Dma};

use crate::{
    Output, Xhci, budget::Budget, endpoint::LAST, ring::RingPointer, slot::SlotId, trb::event::CompletionCode,
};

impl Xhci {
    /// Reset Endpoint.
    pub(super) fn reset_endpoint(
        &mut self,
        dma: &dyn Dma,
        id: SlotId,
        dci: u8,
        preserve: bool,
    ) -> CompletionCode {
        match self.endpoint_mut(id, dci) {
            Ok(endpoint) => endpoint.reset(dma, preserve),
            Err(code) => code,
        }
    }

    /// Set TR Dequeue Pointer.
    pub(super) fn set_dequeue(
        &mut self,
        dma: &dyn Dma,
        id: SlotId,
        dci: u8,
        stream: u16,
        pointer: u64,
    ) -> CompletionCode {
        match self.endpoint_mut(id, dci) {
            Ok(endpoint) => endpoint.set_dequeue(dma, stream, RingPointer::from_raw(pointer)),
            Err(code) => code,
        }
    }

    /// Stop Endpoint begins, or cannot.
    pub(super) fn begin_stop(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        dci: u8,
    ) -> Result<(), CompletionCode> {
        self.endpoint_mut(id, dci)?;
        match self.with_endpoint(cx, budget, id, dci, |endpoint, hands| endpoint.begin_stop(hands)) {
            Some(true) => Ok(()),
            _ => Err(CompletionCode::ContextStateError),
        }
    }

    fn endpoint_mut(
        &mut self,
        id: SlotId,
        dci: u8,
    ) -> Result<&mut crate::endpoint::Endpoint, CompletionCode> {
        if !(1..=LAST).contains(&dci) {
            return Err(CompletionCode::TrbError);
        }
        let slot = self.slots.get_mut(id).ok_or(CompletionCode::SlotNotEnabledError)?;
        // These commands are for an endpoint in a state; Disabled is a wrong one. xHCI 1.2 §4.6.8 to §4.6.10.
        slot.endpoint_mut(dci).ok_or(CompletionCode::ContextStateError)
    }
}
