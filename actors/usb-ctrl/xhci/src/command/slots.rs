//! Commands about slots and devices. xHCI 1.2 §4.6.3 to §4.6.5, §4.6.11, §4.6.15.

use arbitrary_int::u5;
use pci::{Cx, Dma};

use crate::{
    Output, Xhci,
    budget::Budget,
    context::{self, Contexts, InputControl},
    endpoint::{CONTROL, Endpoint, LAST},
    port::Protocol,
    slot::{SlotId, SlotState},
    trb::event::CompletionCode,
};

/// The input contexts that Address Device needs: the slot's and the control endpoint's.
const ADDRESS_CONTEXTS: u32 = 0b11;
/// Per cent of a bus that a periodic endpoint may have. xHCI 1.2 §4.14.2.
const HIGH_SPEED_SHARE: u8 = 80;
const OTHER_SHARE: u8 = 90;

impl Xhci {
    /// Enable Slot. xHCI 1.2 §4.6.3.
    pub(super) fn enable_slot(&mut self) -> (CompletionCode, u8) {
        match self.slots.enable(self.max_slots_enabled()) {
            Some(id) => (CompletionCode::Success, id.number()),
            None => (CompletionCode::NoSlotsAvailableError, 0),
        }
    }

    /// Disable Slot. Transfers are cancelled, and nobody waits for them. xHCI 1.2 §4.6.4.
    pub(super) fn disable_slot(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
    ) -> CompletionCode {
        self.close_endpoints(cx, budget, id, CONTROL);
        if let Some(mut slot) = self.slots.disable(id) {
            slot.state = SlotState::Enabled;
            slot.mirror(cx.dma);
        }
        CompletionCode::Success
    }

    /// Closes all endpoints of a slot from this device context index on.
    pub(crate) fn close_endpoints(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        first: u8,
    ) {
        for dci in first..=LAST {
            self.close_endpoint(cx, budget, id, dci);
        }
    }

    /// Disables an endpoint, and shows it.
    pub(super) fn close_endpoint(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        dci: u8,
    ) {
        self.with_endpoint(cx, budget, id, dci, |endpoint, hands| endpoint.close(hands));
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.replace(dci, None).is_some()
            && let Some(output) = slot.output
            && context::clear(cx.dma, output, dci).is_err()
        {
            tracing::debug!(slot = id.number(), "no memory for an output context");
        }
    }

    /// Address Device. The address is the slot's number: what the device really has is the remote's business.
    /// xHCI 1.2 §4.6.5.
    pub(super) fn address_device(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        input: u64,
        block: bool,
    ) -> CompletionCode {
        let Some(slot) = self.slots.get(id) else { return CompletionCode::SlotNotEnabledError };
        let allowed = match slot.state {
            SlotState::Enabled => true,
            SlotState::Default => !block,
            SlotState::Addressed | SlotState::Configured => false,
        };
        if !allowed {
            return CompletionCode::ContextStateError;
        }
        match self.try_address(cx, budget, id, input, block) {
            Ok(()) => CompletionCode::Success,
            Err(code) => code,
        }
    }

    fn try_address(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        input: u64,
        block: bool,
    ) -> Result<(), CompletionCode> {
        let long = self.shape.long_contexts;
        let input = Contexts::new(input, long);
        let unreadable = |_| CompletionCode::TrbError;
        let InputControl { drop, add } = input.control(cx.dma).map_err(unreadable)?;
        if drop != 0 || add & ADDRESS_CONTEXTS != ADDRESS_CONTEXTS {
            return Err(CompletionCode::ParameterError);
        }
        let entry = self.dcbaap.wrapping_add(8 * u64::from(id.number()));
        let output = Contexts::new(context::pointer(cx.dma, entry).map_err(unreadable)? & !0x3f, long);
        let mut context = input.slot(cx.dma, 1).map_err(unreadable)?;
        let port = context.port.root_port().checked_sub(1).filter(|port| *port < self.shape.ports());
        let port = port.ok_or(CompletionCode::ParameterError)?;
        let control = input.endpoint(cx.dma, 2).map_err(unreadable)?;
        let control = Endpoint::configured(id, CONTROL, control, output.at(CONTROL))?;

        // Nothing is behind a hub: remote devices are on root ports.
        let on_root = context.route.route().value() == 0;
        let reachable =
            self.ports.get(usize::from(port)).and_then(|port| port.reachable()).filter(|_| on_root);
        if reachable.is_none() && !block {
            return Err(CompletionCode::UsbTransactionError);
        }
        if let Some(device) = reachable {
            self.unbind_others(cx, budget, id, device);
        }
        self.close_endpoint(cx, budget, id, CONTROL);
        let slot = self.slots.get_mut(id).ok_or(CompletionCode::SlotNotEnabledError)?;
        context.route = context.route.with_entries(u5::new(1));
        (slot.context, slot.output) = (context, Some(output));
        (slot.port, slot.device) = (Some(port), reachable);
        slot.state = if block { SlotState::Default } else { SlotState::Addressed };
        slot.mirror(cx.dma);
        slot.replace(CONTROL, Some(Box::new(control)));
        if let Some(control) = slot.endpoint_mut(CONTROL) {
            control.mirror(cx.dma);
        }
        Ok(())
    }

    /// A device listens to one slot.
    fn unbind_others(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        device: wire::usb::DeviceId,
    ) {
        let others: Vec<_> =
            self.slots.iter().filter(|s| s.id != id && s.device == Some(device)).map(|s| s.id).collect();
        for other in others {
            self.lose_slot(cx, budget, other);
        }
    }

    /// Reset Device: the port reset has reached the device already. xHCI 1.2 §4.6.11.
    pub(super) fn reset_device(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
    ) -> CompletionCode {
        let Some(slot) = self.slots.get(id) else { return CompletionCode::SlotNotEnabledError };
        if !matches!(slot.state, SlotState::Addressed | SlotState::Configured) {
            return CompletionCode::ContextStateError;
        }
        let port = slot.port.and_then(|port| self.ports.get(usize::from(port)));
        let device = port.and_then(|port| port.reachable());
        self.close_endpoints(cx, budget, id, CONTROL + 1);
        if let Some(device) = device {
            self.unbind_others(cx, budget, id, device);
        }
        let Some(slot) = self.slots.get_mut(id) else { return CompletionCode::SlotNotEnabledError };
        slot.state = SlotState::Default;
        slot.device = device;
        slot.context.route = slot.context.route.with_entries(u5::new(1));
        slot.mirror(cx.dma);
        CompletionCode::Success
    }

    /// Get Port Bandwidth: everything is left. xHCI 1.2 §4.6.15, §6.2.6.
    pub(super) fn port_bandwidth(&self, dma: &dyn Dma, context: u64, speed: u8) -> CompletionCode {
        let share = |protocol| match (speed, protocol) {
            (1 | 2, Protocol::Usb2) | (4, Protocol::Usb3) => OTHER_SHARE,
            (3, Protocol::Usb2) => HIGH_SPEED_SHARE,
            _ => 0,
        };
        let shares = self.ports.iter().map(|port| share(port.protocol()));
        let bytes: Vec<u8> = core::iter::once(0).chain(shares).collect();
        match dma.write(context, &bytes) {
            Ok(()) => CompletionCode::Success,
            Err(_) => CompletionCode::TrbError,
        }
    }
}
