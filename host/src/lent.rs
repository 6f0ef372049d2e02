//! What is lent to a VM, as its worker says it to the manager and `farbus-host status` shows it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name that is shown, letters.
const LONGEST: usize = 64;

/// A lent device; the words are those of `farbus-remote status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LentDevice {
    /// The remote's number of it: `farbus-remote return` takes it.
    pub(crate) device: u32,
    /// The port of the guest's controller, counted from 1; none if none was left for it.
    pub(crate) port: Option<u8>,
    /// `idVendor:idProduct`.
    pub(crate) id: String,
    /// What the remote calls it.
    pub(crate) name: String,
    pub(crate) speed: String,
}

impl From<vm_session::LentDevice> for LentDevice {
    fn from(lent: vm_session::LentDevice) -> Self {
        let (vendor, product) = lent.id;
        Self {
            device: lent.device.0,
            port: lent.port.map(|port| port.0),
            id: format!("{vendor:04x}:{product:04x}"),
            name: plain(&lent.name),
            speed: format!("{:?}", lent.speed).to_lowercase(),
        }
    }
}

impl fmt::Display for LentDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, port, id, name, speed } = self;
        let port = port.map_or("no port".to_owned(), |port| format!("port {port}"));
        write!(f, "{device:>3}  {port:<9} {id}  {speed:<5}  {name}")
    }
}

/// What a stranger calls itself or a device, as it may be shown on a terminal: nothing in it moves the cursor or turns
/// the direction of what follows.
pub(crate) fn plain(name: &str) -> String {
    let turns = |letter| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.chars().filter(|letter| !letter.is_control() && !turns(*letter)).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use wire::{
        control::MAX_TEXT,
        usb::{DeviceId, Speed},
    };

    use super::*;
    use crate::handoff::{MAX_PACKET, ToManager};

    fn lent(name: String) -> LentDevice {
        let (device, port) = (DeviceId(3), Some(xhci::PortId(9)));
        vm_session::LentDevice { device, port, id: (0x1234, 8), name, speed: Speed::Super }.into()
    }

    #[test]
    fn people_read_where_a_device_is_and_what() {
        assert_eq!(lent("Stick".to_owned()).to_string(), "  3  port 9    1234:0008  super  Stick");
        let nowhere = LentDevice { port: None, ..lent("Stick".to_owned()) };
        assert!(nowhere.to_string().contains("no port "), "{nowhere}");
    }

    #[test]
    fn a_name_cannot_play_tricks_on_a_terminal() {
        assert_eq!(plain("\u{1b}[2J\r\nSt\u{202e}ick\u{7f}\u{9b}\u{2068}"), "[2JStick");
        assert_eq!(plain(&"x".repeat(1000)).len(), LONGEST);
    }

    #[test]
    fn all_that_a_remote_can_lend_fits_a_packet_of_the_workers_channel() {
        let name = "\u{10ffff}".repeat(MAX_TEXT / 4);
        let all = ToManager::Lent(vec![lent(name); vm_session::MAX_LENT]);
        let bytes = rmp_serde::to_vec_named(&all).unwrap();
        assert!(bytes.len() < MAX_PACKET, "{}", bytes.len());
    }
}
