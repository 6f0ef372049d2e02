//! Which device is which: the remote numbers its devices anew in every session, the controller never reuses a number.

use std::{collections::BTreeMap, sync::Arc};

use usb_ctrl::{Attach, Plugged};
use wire::{
    control::Attachment,
    usb::{DeviceId, RequestId, Speed, ToRemote},
};
use xhci::PortId;

use crate::hold::Class;

/// A device that is lent, as it is told to whoever runs the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentDevice {
    /// The remote's number of it in this session.
    pub device: DeviceId,
    /// The port of the guest's controller; none while it is in none.
    pub port: Option<PortId>,
    /// `idVendor` and `idProduct`.
    pub id: (u16, u16),
    /// What the remote calls it.
    pub name: String,
    /// The speed it runs at.
    pub speed: Speed,
}

/// The most devices that one remote may lend; the controller has no more slots.
pub const MAX_LENT: usize = 64;

/// A device that is lent.
#[derive(Debug)]
struct Lent {
    /// The remote's id of it.
    theirs: DeviceId,
    class: Class,
    attach: Attach,
    port: Option<PortId>,
    id: (u16, u16),
    name: String,
}

/// The devices that are lent at the moment.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// By the controller's id.
    lent: BTreeMap<DeviceId, Lent>,
    last: u32,
    last_request: u64,
}

impl Ports {
    /// A device is lent; `None` if that is one too many, or the remote used its id already.
    pub(crate) fn attach(&mut self, attachment: &Attachment) -> Option<Attach> {
        let twice = self.lent.values().any(|lent| lent.theirs == attachment.device);
        if twice || self.lent.len() >= MAX_LENT {
            return None;
        }
        self.last += 1;
        let profile = Arc::new(attachment.profile.clone());
        let attach = Attach { device: DeviceId(self.last), speed: attachment.speed, profile };
        let lent = Lent {
            theirs: attachment.device,
            class: Class::of(&attachment.profile),
            attach: attach.clone(),
            port: None,
            id: (attachment.vendor, attachment.product),
            name: attachment.name.clone(),
        };
        self.lent.insert(attach.device, lent);
        Some(attach)
    }

    /// The controller has put a device into a port, or into none.
    pub(crate) fn plugged(&mut self, Plugged { device, port }: Plugged) {
        if let Some(lent) = self.lent.get_mut(&device) {
            lent.port = port;
        }
    }

    /// What is lent, in the order in which it came.
    pub(crate) fn told(&self) -> Vec<LentDevice> {
        let told = |Lent { theirs, attach, port, id, name, .. }: &Lent| LentDevice {
            device: *theirs,
            port: *port,
            id: *id,
            name: name.clone(),
            speed: attach.speed,
        };
        self.lent.values().map(told).collect()
    }

    /// A device is gone; the controller's id of it, if there was one.
    pub(crate) fn detach(&mut self, remote: DeviceId) -> Option<DeviceId> {
        let device = self.lent.iter().find(|(_, lent)| lent.theirs == remote).map(|(own, _)| *own)?;
        self.lent.remove(&device);
        Some(device)
    }

    /// The device with this id of the controller is given up; the remote's id of it.
    pub(crate) fn give_up(&mut self, device: DeviceId) -> Option<DeviceId> {
        self.lent.remove(&device).map(|lent| lent.theirs)
    }

    /// Whether the device with this id of the controller is lent.
    pub(crate) fn lends(&self, device: DeviceId) -> bool {
        self.lent.contains_key(&device)
    }

    /// The devices by the controller's ids, and how long a guest can wait for each.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (DeviceId, Class)> {
        self.lent.iter().map(|(device, lent)| (*device, lent.class))
    }

    /// Every device is gone.
    pub(crate) fn detach_all(&mut self) -> Vec<DeviceId> {
        std::mem::take(&mut self.lent).into_keys().collect()
    }

    /// The devices as a controller that starts anew must attach them.
    pub(crate) fn attached(&self) -> Vec<Attach> {
        self.lent.values().map(|lent| lent.attach.clone()).collect()
    }

    /// The first request id that a controller which starts anew may use: ids are never reused.
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.last_request + 1)
    }

    /// The message with the remote's id in it; `None` if the device is not lent any more: the controller will hear of
    /// it, and completes what it waits for by itself.
    pub(crate) fn address(&mut self, mut message: ToRemote) -> Option<ToRemote> {
        self.last_request = self.last_request.max(message.id().map_or(0, |id| id.0));
        *message.device_mut() = self.lent.get(&message.device())?.theirs;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use wire::{control::Profile, usb::Speed};

    use super::*;

    fn attachment(device: u32) -> Attachment {
        Attachment {
            device: DeviceId(device),
            speed: Speed::High,
            vendor: 1,
            product: 2,
            name: String::new(),
            profile: Profile::default(),
        }
    }

    #[test]
    fn a_message_for_a_device_of_an_earlier_session_never_reaches_its_namesake() {
        let mut ports = Ports::default();
        let first = ports.attach(&attachment(7)).unwrap();
        assert_eq!(ports.detach_all(), [first.device]);
        let second = ports.attach(&attachment(7)).unwrap();

        let reset = |device| ToRemote::Reset { device, id: RequestId(1) };
        assert_eq!(ports.address(reset(first.device)), None);
        assert_eq!(ports.address(reset(second.device)), Some(reset(DeviceId(7))));
    }

    #[test]
    fn what_is_told_of_a_device_is_what_its_remote_said_and_the_port_it_is_in() {
        let mut ports = Ports::default();
        let own = ports.attach(&Attachment { name: "Stick".to_owned(), ..attachment(7) }).unwrap().device;
        let told = LentDevice {
            device: DeviceId(7),
            port: None,
            id: (1, 2),
            name: "Stick".to_owned(),
            speed: Speed::High,
        };
        assert_eq!(ports.told(), std::slice::from_ref(&told));
        ports.plugged(Plugged { device: own, port: Some(PortId(3)) });
        assert_eq!(ports.told(), [LentDevice { port: Some(PortId(3)), ..told }]);
        ports.detach(DeviceId(7));
        ports.plugged(Plugged { device: own, port: Some(PortId(3)) });
        assert_eq!(ports.told(), []);
    }

    #[test]
    fn a_remote_cannot_lend_one_id_twice_nor_more_devices_than_there_are_slots() {
        let mut ports = Ports::default();
        assert!(ports.attach(&attachment(1)).is_some());
        assert!(ports.attach(&attachment(1)).is_none());
        let more = (2..1000).filter(|id| ports.attach(&attachment(*id)).is_some()).count();
        assert_eq!(more, MAX_LENT - 1);
    }
}
