//! How long a lent device stays plugged in while there is no link.

use std::{collections::BTreeMap, time::Duration};

use wire::{
    control::Profile,
    usb::{DeviceId, Endpoint, RequestId, ToRemote, Transfer},
};

use crate::descriptors::interfaces;

/// A guest waits 5 s for a control transfer (`USB_CTRL_GET_TIMEOUT` of Linux): a device that cannot answer by then is
/// better gone.
const CONTROL: Duration = Duration::from_millis(4500);
/// What was asked before the link went has at least so long.
const LEAST: Duration = Duration::from_secs(1);

/// The class codes of interfaces (USB-IF Defined Class Codes).
const HID: u8 = 0x03;
const MASS_STORAGE: u8 = 0x08;

/// How long devices stay plugged in while there is no link, by their class. After it they are unplugged cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTimes {
    /// Mass storage: 25 s, because a SCSI command may take 30 s.
    pub storage: Duration,
    /// Keyboards, pointers and the like: 10 s.
    pub hid: Duration,
    /// Everything else: 10 s.
    pub other: Duration,
}

impl Default for HoldTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { storage: seconds(25), hid: seconds(10), other: seconds(10) }
    }
}

impl HoldTimes {
    /// How long anything is held: so long a session lives without a link.
    pub(crate) fn longest(&self) -> Duration {
        self.storage.max(self.hid).max(self.other)
    }

    fn of(&self, class: Class) -> Duration {
        match class {
            Class::Storage => self.storage,
            Class::Hid => self.hid,
            Class::Other => self.other,
        }
    }
}

/// What decides how long a guest's driver can wait for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Storage,
    Hid,
    Other,
}

impl Class {
    /// The class of a device with these descriptors. Of several interfaces the most impatient decides.
    pub(crate) fn of(profile: &Profile) -> Self {
        let classes = interfaces(profile).into_iter().map(|interface| interface.class.0);
        let most_impatient = |class, code| match (class, code) {
            (Some(Self::Other), _) => Some(Self::Other),
            (None | Some(Self::Hid), HID) => Some(Self::Hid),
            (class, HID) => class,
            (_, MASS_STORAGE) => Some(Self::Storage),
            _ => Some(Self::Other),
        };
        classes.fold(None, most_impatient).unwrap_or(Self::Other)
    }
}

/// Which devices have to go, and when.
#[derive(Debug)]
pub(crate) struct Holds {
    times: HoldTimes,
    /// Since when there is no link.
    since: Option<Duration>,
    /// Control transfers that have not ended, and since when.
    controls: BTreeMap<RequestId, (DeviceId, Duration)>,
}

impl Holds {
    pub(crate) fn new(times: HoldTimes) -> Self {
        Self { times, since: None, controls: BTreeMap::new() }
    }

    /// There is no link from now on.
    pub(crate) fn detached(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Since when there is no link; none while there is one.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.since
    }

    /// There is a link again. How long there was none.
    pub(crate) fn attached(&mut self, now: Duration) -> Option<Duration> {
        self.since.take().map(|since| now.saturating_sub(since))
    }

    /// The guest asks a device for this, by the controller's ids.
    pub(crate) fn asked(&mut self, now: Duration, message: &ToRemote) {
        match message {
            ToRemote::Submit(request) if matches!(request.transfer, Transfer::Control(_)) => {
                self.controls.insert(request.id, (request.device, now));
            }
            ToRemote::Cancel { device, endpoint: Endpoint::CONTROL, through } => {
                self.controls.retain(|id, (of, _)| of != device || id > through);
            }
            _ => {}
        }
    }

    /// A request has ended.
    pub(crate) fn ended(&mut self, id: RequestId) {
        self.controls.remove(&id);
    }

    /// A device is gone.
    pub(crate) fn forget(&mut self, device: DeviceId) {
        self.controls.retain(|_, (of, _)| *of != device);
    }

    /// When this device has to go, if no link comes.
    pub(crate) fn until(&self, device: DeviceId, class: Class) -> Option<Duration> {
        let since = self.since?;
        let answers = self.controls.values().filter(|(of, _)| *of == device);
        let answer = answers.map(|(_, asked)| (*asked + CONTROL).max(since + LEAST)).min();
        Some(answer.into_iter().fold(since + self.times.of(class), Duration::min))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wire::usb::{Payload, Request, Setup};

    use super::*;
    use crate::descriptors::tests::profile;

    const DEVICE: DeviceId = DeviceId(1);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn of_several_interfaces_the_most_impatient_decides() {
        for (classes, expected) in [
            (&[][..], Class::Other),
            (&[HID], Class::Hid),
            (&[HID, HID], Class::Hid),
            (&[MASS_STORAGE], Class::Storage),
            (&[HID, MASS_STORAGE], Class::Storage),
            (&[MASS_STORAGE, HID], Class::Storage),
            (&[MASS_STORAGE, 0xff, HID], Class::Other),
            (&[0x0e], Class::Other),
        ] {
            let interfaces: Vec<_> = classes.iter().map(|class| (*class, 0, 0)).collect();
            assert_eq!(Class::of(&profile(&interfaces)), expected, "{classes:?}");
        }
        assert_eq!(Class::of(&Profile::default()), Class::Other);
    }

    #[test]
    fn each_class_has_its_time_from_when_the_link_went() {
        let mut holds = Holds::new(HoldTimes::default());
        assert_eq!(holds.until(DEVICE, Class::Storage), None);
        holds.detached(seconds(5.0));
        // Found out twice is no new beginning.
        holds.detached(seconds(6.0));
        for (class, at) in [(Class::Storage, 30.0), (Class::Hid, 15.0), (Class::Other, 15.0)] {
            assert_eq!(holds.until(DEVICE, class), Some(seconds(at)));
        }
        assert_eq!(holds.attached(seconds(7.0)), Some(seconds(2.0)));
        assert_eq!(holds.until(DEVICE, Class::Hid), None);
    }

    #[test]
    fn a_control_transfer_is_answered_before_the_guest_gives_up() {
        let setup = Setup { request_type: 0x80, request: 6, value: 0x0100, index: 0, length: 18 };
        let control = |id, device| {
            ToRemote::Submit(Request {
                id: RequestId(id),
                device,
                endpoint: Endpoint::CONTROL,
                transfer: Transfer::Control(setup),
                payload: Payload::Out(Bytes::new()),
            })
        };
        let mut holds = Holds::new(HoldTimes::default());
        holds.asked(seconds(1.0), &control(1, DEVICE));
        holds.asked(seconds(2.0), &control(2, DEVICE));
        holds.asked(seconds(1.0), &control(3, DeviceId(2)));
        holds.ended(RequestId(1));
        holds.detached(seconds(3.0));
        assert_eq!(holds.until(DEVICE, Class::Storage), Some(seconds(6.5)));
        let cancel = ToRemote::Cancel { device: DEVICE, endpoint: Endpoint::CONTROL, through: RequestId(2) };
        holds.asked(seconds(4.0), &cancel);
        assert_eq!(holds.until(DEVICE, Class::Storage), Some(seconds(28.0)));
        assert_eq!(holds.until(DeviceId(2), Class::Hid), Some(seconds(5.5)));
        holds.forget(DeviceId(2));
        assert_eq!(holds.until(DeviceId(2), Class::Hid), Some(seconds(13.0)));
    }

    #[test]
    fn what_was_asked_long_before_has_a_moment_at_least() {
        let mut holds = Holds::new(HoldTimes::default());
        holds.controls.insert(RequestId(1), (DEVICE, seconds(0.0)));
        holds.detached(seconds(20.0));
        assert_eq!(holds.until(DEVICE, Class::Hid), Some(seconds(21.0)));
    }
}
