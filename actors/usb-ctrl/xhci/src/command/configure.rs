//! Configure Endpoint and Evaluate Context. xHCI 1.2 §4.6.6, §4.6.7.

use arbitrary_int::u5;
use pci::{Cx, Dma};

use crate::{
    Output, Xhci,
    budget::Budget,
    context::{Contexts, InputControl},
    endpoint::{CONTROL, Endpoint, LAST, context_index},
    slot::{SlotId, SlotState},
    trb::event::CompletionCode,
};

/// The slot context's flag.
const SLOT: u32 = 1;
/// The control endpoint's flag.
const CONTROL_ENDPOINT: u32 = 1 << CONTROL;

impl Xhci {
    /// Configure Endpoint with DC: all endpoints but the control endpoint go.
    pub(super) fn deconfigure(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
    ) -> CompletionCode {
        if !self.is_addressed(id) {
            return CompletionCode::ContextStateError;
        }
        let before = self.stream_endpoints(id);
        self.close_endpoints(cx, budget, id, CONTROL + 1);
        self.show_configuration(cx.dma, id, None);
        self.ask_for_streams(cx, id, &before, |_| true);
        CompletionCode::Success
    }

    /// Configure Endpoint: drops, then adds; all of it or nothing.
    pub(super) fn configure_endpoint(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        input: u64,
    ) -> CompletionCode {
        if !self.is_addressed(id) {
            return CompletionCode::ContextStateError;
        }
        match self.try_configure(cx, budget, id, Contexts::new(input, self.shape.long_contexts)) {
            Ok(()) => CompletionCode::Success,
            Err(code) => code,
        }
    }

    fn is_addressed(&self, id: SlotId) -> bool {
        let slot = self.slots.get(id);
        slot.is_some_and(|slot| matches!(slot.state, SlotState::Addressed | SlotState::Configured))
    }

    fn try_configure(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        input: Contexts,
    ) -> Result<(), CompletionCode> {
        let unreadable = |_| CompletionCode::TrbError;
        let InputControl { drop, add } = input.control(cx.dma).map_err(unreadable)?;
        if drop & (SLOT | CONTROL_ENDPOINT) != 0 || add & CONTROL_ENDPOINT != 0 {
            return Err(CompletionCode::ParameterError);
        }
        let slot = self.slots.get(id).ok_or(CompletionCode::SlotNotEnabledError)?;
        let output = slot.output.ok_or(CompletionCode::ContextStateError)?;
        let context = if add & SLOT != 0 { Some(input.slot(cx.dma, 1).map_err(unreadable)?) } else { None };
        let mut added = Vec::new();
        for dci in (CONTROL + 1..=LAST).filter(|dci| add & 1 << dci != 0) {
            let endpoint = input.endpoint(cx.dma, dci + 1).map_err(unreadable)?;
            added.push(Endpoint::configured(id, dci, endpoint, output.at(dci))?);
        }

        let before = self.stream_endpoints(id);
        let has_streams = |endpoint: &Endpoint| endpoint.streams.is_some();
        if added.iter().any(has_streams) && !self.requests.has_room() {
            return Err(CompletionCode::ResourceError);
        }
        // An endpoint that is added although it is there is made anew, as if it were dropped as well.
        for dci in (CONTROL + 1..=LAST).filter(|dci| (drop | add) & 1 << dci != 0) {
            self.close_endpoint(cx, budget, id, dci);
        }
        let slot = self.slots.get_mut(id).ok_or(CompletionCode::SlotNotEnabledError)?;
        for mut endpoint in added {
            endpoint.mirror(cx.dma);
            slot.replace(endpoint.dci, Some(Box::new(endpoint)));
        }
        self.show_configuration(cx.dma, id, context.map(|context| context.route.entries()));
        let changed = |endpoint| (drop | add) & 1 << context_index(endpoint) != 0;
        self.ask_for_streams(cx, id, &before, changed);
        Ok(())
    }

    /// The slot is Configured while it has any endpoint beside the control endpoint.
    fn show_configuration(&mut self, dma: &dyn Dma, id: SlotId, entries: Option<u5>) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let enabled = slot.enabled() & !CONTROL_ENDPOINT;
        slot.state = if enabled == 0 { SlotState::Addressed } else { SlotState::Configured };
        let last = u5::new((31 - (enabled | CONTROL_ENDPOINT).leading_zeros()) as u8);
        let entries = if enabled == 0 { last } else { entries.map_or(last, |entries| entries.max(last)) };
        slot.context.route = slot.context.route.with_entries(entries);
        slot.mirror(dma);
    }

    /// Evaluate Context: exit latency, interrupter, and the control endpoint's packet size. xHCI 1.2 §4.6.7.
    pub(super) fn evaluate_context(&mut self, dma: &dyn Dma, id: SlotId, input: u64) -> CompletionCode {
        let input = Contexts::new(input, self.shape.long_contexts);
        let Some(slot) = self.slots.get_mut(id) else { return CompletionCode::SlotNotEnabledError };
        if slot.state == SlotState::Enabled {
            return CompletionCode::ContextStateError;
        }
        let (Ok(InputControl { drop, add }), Ok(context), Ok(control)) =
            (input.control(dma), input.slot(dma, 1), input.endpoint(dma, CONTROL + 1))
        else {
            return CompletionCode::TrbError;
        };
        if drop != 0 {
            return CompletionCode::ParameterError;
        }
        let max_packet = control.kind.max_packet();
        if add & CONTROL_ENDPOINT != 0 {
            let Some(endpoint) = slot.endpoint_mut(CONTROL).filter(|_| max_packet != 0) else {
                return CompletionCode::ParameterError;
            };
            endpoint.set_max_packet(dma, max_packet);
        }
        if add & SLOT != 0 {
            let latency = context.port.max_exit_latency();
            slot.context.port = slot.context.port.with_max_exit_latency(latency);
            slot.context.hub = slot.context.hub.with_interrupter(context.hub.interrupter());
            slot.mirror(dma);
        }
        CompletionCode::Success
    }
}
