//! The device's own streams: what it must know before the first transfer on one of them. USB 3.2 §8.12.1.4.

use pci::Cx;
use wire::usb::{Endpoint as Address, RequestId, ToRemote};

use crate::{
    Output, Xhci,
    endpoint::{CONTROL, LAST},
    requests::Owner,
    slot::SlotId,
};

impl Xhci {
    /// The endpoints of a slot that have streams.
    pub(super) fn stream_endpoints(&self, id: SlotId) -> Vec<Address> {
        let Some(slot) = self.slots.get(id) else { return Vec::new() };
        let endpoints = (CONTROL..=LAST).filter_map(|dci| slot.endpoint(dci));
        endpoints.filter(|endpoint| endpoint.streams.is_some()).map(|endpoint| endpoint.address).collect()
    }

    /// Tells the remote which endpoints have streams after a configuration that had `before`, and made those of `changed`
    /// anew. The command does not wait for the answer; the endpoints' first transfers do.
    pub(super) fn ask_for_streams(
        &mut self,
        cx: &mut Cx<'_, Output>,
        id: SlotId,
        before: &[Address],
        changed: impl Fn(Address) -> bool,
    ) {
        let now = self.stream_endpoints(id);
        let Some(device) = self.slots.get(id).and_then(|slot| slot.device) else { return };
        // All are told together, and given up together: so many belong to one device.
        let same = now == before && !now.iter().any(|endpoint| changed(*endpoint));
        if same {
            return;
        }
        if !before.is_empty() {
            let id = self.requests.allocate(Owner::Streams(id), device, 0);
            cx.emit(Output::Usb(ToRemote::Streams { device, id, endpoints: before.to_vec(), count: 0 }));
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        let endpoints = (CONTROL..=LAST).filter_map(|dci| slot.endpoint(dci)?.streams.as_deref());
        let Some(count) = endpoints.map(|streams| streams.last()).max() else { return };
        let request = self.requests.allocate(Owner::Streams(id), device, 0);
        for dci in CONTROL..=LAST {
            if let Some(streams) = slot.endpoint_mut(dci).and_then(|endpoint| endpoint.streams.as_mut()) {
                streams.awaited = Some(request);
            }
        }
        cx.emit(Output::Usb(ToRemote::Streams { device, id: request, endpoints: now, count }));
    }

    /// The remote has given a device so many streams, or could not.
    pub(crate) fn answer_streams(&mut self, id: SlotId, request: RequestId, given: u32) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        for dci in CONTROL..=LAST {
            let streams = slot.endpoint_mut(dci).and_then(|endpoint| endpoint.streams.as_mut());
            if let Some(streams) = streams {
                streams.answered(request, given);
                self.work.insert((id, dci));
            }
        }
    }
}
