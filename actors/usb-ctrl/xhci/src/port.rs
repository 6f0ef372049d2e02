//! Root hub ports. xHCI 1.2 §4.15, §4.19, §5.4.8.
//!
//! ```text
//!   USB 2                     PR            10 ms                  USB 3
//!   Disconnected ─► Disabled ────► Reset ─────────► Enabled        Disconnected ─► Enabled (U0) ◄─► Reset (PR, WPR)
//!   PLS RxDetect    Polling ◄──────PED=1 written─── U0             RxDetect         │  PED=1 written
//!                                                                      ▲            ▼
//!   from anywhere: detach ─► Disconnected; PP=0 ─► Powered off        └─PLS 5── Disabled
//! ```
//!
//! After a detach a port stays Disconnected for [`SETTLE_TIME`]: a device that is plugged in meanwhile is shown then.
//! A reset completes here, by the clock, whatever the network does; the device itself is reset at the remote, and
//! until it has been, nothing is sent to it ([`Port::gate`]).

use core::time::Duration;
use std::sync::Arc;

use arbitrary_int::u4;
use wire::{
    control::Profile,
    usb::{DeviceId, RequestId, Speed},
};

use crate::{
    redacted::Redacted,
    registers::{
        Write,
        port::{LinkState, PortRegister, PortSc},
    },
};

/// How long a port reset takes: less than 20 ms for impatient firmware, long enough to be seen.
pub(crate) const RESET_TIME: Duration = Duration::from_millis(10);
/// How long a port that has lost its device shows none: several times what an operating system waits for it to be
/// stable (USB 2.0 §7.1.7.3: 100 ms). Linux gives up a port that never is for 2 s, and does not look again.
pub(crate) const SETTLE_TIME: Duration = Duration::from_millis(300);

/// The protocol a port speaks. xHCI 1.2 §7.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// USB 2: low, full and high speed.
    Usb2,
    /// USB 3: super speed.
    Usb3,
}

impl Protocol {
    /// The protocol of the ports that devices of this speed appear on.
    pub(crate) fn of(speed: Speed) -> Self {
        match speed {
            Speed::Low | Speed::Full | Speed::High => Self::Usb2,
            Speed::Super => Self::Usb3,
        }
    }
}

/// The default protocol speed ids. xHCI 1.2 §7.2.2.1.1.
fn speed_id(speed: Speed) -> u4 {
    u4::new(match speed {
        Speed::Full => 1,
        Speed::Low => 2,
        Speed::High => 3,
        Speed::Super => 4,
    })
}

/// What a write to a port asks its controller to do beyond the port itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortRequest {
    /// Nothing.
    None,
    /// Reset the device.
    Reset,
    /// The device is out of reach: the port was disabled or switched off.
    Lose,
}

/// One port.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    protocol: Protocol,
    status: PortSc,
    power_management: u32,
    hardware_lpm: u32,
    device: Option<(DeviceId, Speed)>,
    /// What is known of the device beforehand.
    profile: Redacted<Arc<Profile>>,
    /// Until then no device is shown.
    settled: Duration,
    /// When the reset ends, and whether it is a warm one.
    resetting: Option<(Duration, bool)>,
    /// The reset that the remote has not completed yet.
    gate: Option<RequestId>,
    /// A Port Status Change Event is owed.
    event: bool,
}

impl Port {
    /// An empty port.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            status: PortSc::DEFAULT,
            power_management: 0,
            hardware_lpm: 0,
            device: None,
            profile: Redacted::default(),
            settled: Duration::ZERO,
            resetting: None,
            gate: None,
            event: false,
        }
    }

    /// The protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The device on it.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        self.device.map(|(device, _)| device)
    }

    /// What is known of the device on it beforehand.
    pub(crate) fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Whether a device is on it and can be talked to.
    pub(crate) fn reachable(&self) -> Option<DeviceId> {
        self.device().filter(|_| self.status.enabled())
    }

    /// The port with the least of this is the best for the next device: the guest has acknowledged the last unplugging, and
    /// need not wait for long.
    pub(crate) fn busy(&self, now: Duration) -> (bool, Duration) {
        (self.status.connect_change(), self.settled.saturating_sub(now))
    }

    /// Whether the remote is still resetting the device.
    pub(crate) fn gated(&self) -> bool {
        self.gate.is_some() || self.resetting.is_some()
    }

    /// The reset that the remote owes.
    pub(crate) fn gate(&self) -> Option<RequestId> {
        self.gate
    }

    /// The remote is asked to reset the device, or has done so.
    pub(crate) fn set_gate(&mut self, gate: Option<RequestId>) {
        self.gate = gate;
    }

    /// The controller is reset: defaults, and the device is presented anew.
    pub(crate) fn reset(&mut self) {
        let Self {
            protocol: _,
            status,
            power_management,
            hardware_lpm,
            device: _,
            profile: _,
            settled,
            resetting,
            gate: _, // the remote goes on with it
            event,
        } = self;
        *status = PortSc::DEFAULT;
        *settled = Duration::ZERO;
        *power_management = 0;
        *hardware_lpm = 0;
        *resetting = None;
        *event = false;
        self.present();
    }

    /// A device is plugged in. It is shown as soon as the port has settled.
    pub(crate) fn connect(&mut self, now: Duration, device: DeviceId, speed: Speed, profile: Arc<Profile>) {
        self.device = Some((device, speed));
        self.profile = Redacted(profile);
        self.show(now);
    }

    /// The device is gone.
    pub(crate) fn disconnect(&mut self, now: Duration) {
        self.device = None;
        self.profile = Redacted::default();
        self.gate = None;
        if self.status.connected() {
            self.settled = now + SETTLE_TIME;
            self.unpresent();
        }
    }

    /// Whether a device waits until the port has settled.
    fn hides(&self) -> bool {
        self.device.is_some() && self.settled > Duration::ZERO
    }

    /// Shows the device, as soon as the port has settled.
    fn show(&mut self, now: Duration) {
        if self.settled <= now {
            self.settled = Duration::ZERO;
            self.present();
        }
    }

    fn present(&mut self) {
        let Some((_, speed)) = self.device.filter(|_| self.status.power()) else { return };
        let status = self.status.with_connected(true).with_speed(speed_id(speed));
        self.status = match self.protocol {
            Protocol::Usb2 => status.with_enabled(false).with_link_state(LinkState::Polling),
            Protocol::Usb3 => status.with_enabled(true).with_link_state(LinkState::U0),
        };
        self.change(|status| status.with_connect_change(true));
    }

    fn unpresent(&mut self) {
        let was_enabled = self.status.enabled();
        self.resetting = None;
        self.status = self
            .status
            .with_connected(false)
            .with_enabled(false)
            .with_reset(false)
            .with_speed(u4::new(0))
            .with_link_state(LinkState::RxDetect);
        let usb2 = self.protocol == Protocol::Usb2;
        self.change(|status| {
            let status = status.with_connect_change(true);
            if was_enabled && usb2 { status.with_enable_change(true) } else { status }
        });
    }

    fn change(&mut self, set: impl FnOnce(PortSc) -> PortSc) {
        self.event |= !self.status.changed();
        self.status = set(self.status);
    }

    /// The event that is owed, once.
    pub(crate) fn take_event(&mut self) -> bool {
        core::mem::take(&mut self.event)
    }

    /// The controller starts running: changes that are shown already are worth an event. xHCI 1.2 §4.19.2.
    pub(crate) fn announce(&mut self) {
        self.event |= self.status.changed();
    }

    /// When the reset ends, or a device is shown.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.resetting.map(|(due, _)| due).or_else(|| self.hides().then_some(self.settled))
    }

    /// Shows a device, or ends the reset, if it is time.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.hides() && self.settled <= now {
            self.settled = Duration::ZERO;
            // What the guest has disabled it wakes itself.
            if self.status.link_state() != Some(LinkState::Disabled) {
                self.present();
            }
        }
        let Some((_, warm)) = self.resetting.filter(|(due, _)| *due <= now) else { return };
        self.resetting = None;
        self.status = self.status.with_reset(false).with_enabled(true).with_link_state(LinkState::U0);
        self.change(|status| {
            let status = status.with_reset_change(true);
            if warm { status.with_warm_reset_change(true) } else { status }
        });
    }

    /// The device could not be reset: it cannot be talked to before another reset has worked, a warm one on USB 3.
    /// xHCI 1.2 §4.19.1.1.8, §4.19.1.2.
    pub(crate) fn fail_reset(&mut self) {
        if !self.status.connected() {
            // It was switched off or disabled since, and shows no device.
            return;
        }
        let was_resetting = self.resetting.take().is_some();
        let status = self.status.with_reset(false).with_enabled(false);
        let usb2 = self.protocol == Protocol::Usb2;
        self.status = status.with_link_state(if usb2 { LinkState::Polling } else { LinkState::Inactive });
        self.change(|status| {
            let status = if was_resetting { status.with_reset_change(true) } else { status };
            if usb2 { status.with_enable_change(true) } else { status.with_link_change(true) }
        });
    }

    /// Reads a register.
    pub(crate) fn read(&self, register: PortRegister) -> u32 {
        match register {
            PortRegister::StatusControl => self.status.raw_value(),
            PortRegister::PowerManagement => self.power_management,
            PortRegister::LinkInfo => 0,
            PortRegister::HardwareLpm => self.hardware_lpm,
        }
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, now: Duration, register: PortRegister, write: Write) -> PortRequest {
        self.tick(now);
        let value = register.row().apply(self.read(register), write);
        match register {
            PortRegister::StatusControl => {
                self.status = PortSc::new_with_raw_value(value);
                return self.act(now, write);
            }
            PortRegister::PowerManagement => self.power_management = value,
            PortRegister::LinkInfo => {}
            PortRegister::HardwareLpm => self.hardware_lpm = value,
        }
        PortRequest::None
    }

    fn act(&mut self, now: Duration, write: Write) -> PortRequest {
        let asked = PortSc::new_with_raw_value(write.bits());
        let writes_power = write.mask & PortSc::ZERO.with_power(true).raw_value() != 0;
        if writes_power && asked.power() != self.status.power() {
            return self.switch(now, asked.power());
        }
        let warm = asked.warm_reset() && self.protocol == Protocol::Usb3;
        if (asked.reset() || warm) && self.device.is_some() && !self.hides() && self.status.power() {
            // A warm reset also wakes a port that was switched to Disabled.
            self.status = self.status.with_connected(true).with_reset(true).with_enabled(false);
            self.resetting = Some((now + RESET_TIME, warm));
            return PortRequest::Reset;
        }
        if asked.enabled() && self.status.enabled() {
            self.disable();
            return PortRequest::Lose;
        }
        if asked.link_strobe() { self.set_link(now, asked.link_state()) } else { PortRequest::None }
    }

    fn switch(&mut self, now: Duration, on: bool) -> PortRequest {
        self.status = self.status.with_power(on);
        if on {
            self.status = self.status.with_link_state(LinkState::RxDetect);
            self.show(now);
            return PortRequest::None;
        }
        self.resetting = None;
        self.status = self
            .status
            .with_connected(false)
            .with_enabled(false)
            .with_reset(false)
            .with_speed(u4::new(0))
            .with_link_state(LinkState::Disabled);
        PortRequest::Lose
    }

    fn disable(&mut self) {
        self.status = match self.protocol {
            Protocol::Usb2 => self.status.with_enabled(false).with_link_state(LinkState::Polling),
            Protocol::Usb3 => {
                self.status.with_enabled(false).with_connected(false).with_link_state(LinkState::Disabled)
            }
        };
    }

    /// A write of PLS with LWS. Pairs that are not here are ignored. xHCI 1.2 §4.15.1, §4.15.2, §4.19.1.2.
    fn set_link(&mut self, now: Duration, to: Option<LinkState>) -> PortRequest {
        let Some(from) = self.status.link_state() else { return PortRequest::None };
        match (from, to) {
            (LinkState::U0 | LinkState::U1 | LinkState::U2, Some(LinkState::U3)) if self.status.enabled() => {
                self.status = self.status.with_link_state(LinkState::U3);
            }
            (LinkState::U3, Some(LinkState::Resume)) if self.protocol == Protocol::Usb2 => {
                self.status = self.status.with_link_state(LinkState::Resume);
            }
            (LinkState::U1 | LinkState::U2 | LinkState::U3 | LinkState::Resume, Some(LinkState::U0)) => {
                self.status = self.status.with_link_state(LinkState::U0);
                self.change(|status| status.with_link_change(true));
            }
            (LinkState::Disabled | LinkState::Inactive, Some(LinkState::RxDetect))
                if self.protocol == Protocol::Usb3 && self.status.power() =>
            {
                self.status = self.status.with_link_state(LinkState::RxDetect);
                self.show(now);
            }
            (_, Some(LinkState::Disabled)) if self.protocol == Protocol::Usb3 && self.resetting.is_none() => {
                let was_enabled = self.status.enabled();
                self.disable();
                return if was_enabled { PortRequest::Lose } else { PortRequest::None };
            }
            _ => {}
        }
        PortRequest::None
    }
}
