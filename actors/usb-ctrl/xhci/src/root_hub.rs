//! The root hub: what happens on ports, and what it means for the slots of their devices. xHCI 1.2 §4.19.

use pci::Cx;
use wire::usb::{DeviceId, RequestId, ToRemote};

use crate::{
    Output, Owner, Xhci,
    budget::Budget,
    endpoint::{CONTROL, LAST},
    port::PortRequest,
    slot::{SlotId, SlotState},
    trb::event::Event,
};

impl Xhci {
    /// Tells the guest of ports that have changed, one event each.
    pub(crate) fn announce_ports(&mut self, cx: &mut Cx<'_, Output>) {
        for (number, port) in (1..).zip(&mut self.ports) {
            if self.events.ready() && port.take_event() {
                self.usbsts = self.usbsts.with_port_change(true);
                self.events.post(cx.dma, 0, Event::PortStatusChange(number));
            }
        }
    }

    /// Does what a write to a port asks for beyond the port.
    pub(crate) fn carry_out(&mut self, cx: &mut Cx<'_, Output>, index: u8, request: PortRequest) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(device) = port.device() else { return };
        match request {
            PortRequest::None => {}
            PortRequest::Lose => self.lose_device(cx, device),
            PortRequest::Reset => {
                self.lose_device(cx, device);
                self.reset_device_of(cx, index);
            }
        }
    }

    /// The remote is asked to reset the device on a port; nothing is sent to it before that is done.
    pub(crate) fn reset_device_of(&mut self, cx: &mut Cx<'_, Output>, index: u8) {
        let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
        let Some(device) = port.device() else { return };
        if port.gate().is_some() {
            // Nothing was sent to it since the last one, which is still to come.
            return;
        }
        let id = self.requests.allocate(Owner::Port(index), device, 0);
        port.set_gate(Some(id));
        cx.emit(Output::Usb(ToRemote::Reset { device, id }));
    }

    /// The remote has reset the device on a port, or could not.
    pub(crate) fn end_reset(&mut self, cx: &mut Cx<'_, Output>, index: u8, id: RequestId, well: bool) {
        let Some(port) = self.ports.get_mut(usize::from(index)).filter(|port| port.gate() == Some(id)) else {
            return;
        };
        port.set_gate(None);
        if let Some(device) = port.device().filter(|_| !well) {
            port.fail_reset();
            self.lose_device(cx, device);
        }
        let waiting = self.slots.iter().filter(|slot| slot.port == Some(index));
        self.work.extend(waiting.flat_map(|slot| (CONTROL..=LAST).map(|dci| (slot.id, dci))));
    }

    /// The device does not listen to its slots any more.
    pub(crate) fn lose_device(&mut self, cx: &mut Cx<'_, Output>, device: DeviceId) {
        let ids: Vec<_> =
            self.slots.iter().filter(|slot| slot.device == Some(device)).map(|s| s.id).collect();
        for id in ids {
            self.lose_slot(cx, &mut Budget::new(), id);
        }
    }

    /// The slot's device does not listen to it any more. A slot in the Default state keeps it: after a port reset
    /// the device listens on the default address again.
    pub(crate) fn lose_slot(&mut self, cx: &mut Cx<'_, Output>, budget: &mut Budget, id: SlotId) {
        for dci in CONTROL..=LAST {
            self.with_endpoint(cx, budget, id, dci, |endpoint, hands| endpoint.lose_device(hands));
            self.work.insert((id, dci));
        }
        if let Some(slot) = self.slots.get_mut(id)
            && slot.state != SlotState::Default
        {
            slot.device = None;
        }
    }

    /// The device is gone for good: nobody can be asked to cancel anything.
    pub(crate) fn remove_device(&mut self, cx: &mut Cx<'_, Output>, device: DeviceId) {
        let ids: Vec<_> =
            self.slots.iter().filter(|slot| slot.device == Some(device)).map(|s| s.id).collect();
        for id in ids {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.device = None;
            }
            self.lose_slot(cx, &mut Budget::new(), id);
        }
    }
}
