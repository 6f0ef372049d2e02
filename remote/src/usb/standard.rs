//! Control requests that change what the kernel knows of a device: they are not the device's business alone, and must
//! go through libusb's own functions. USB 2.0 §9.4.

use wire::usb::{Endpoint, Setup};

/// `bmRequestType`: standard, to the device, an interface, an endpoint.
const DEVICE: u8 = 0x00;
const INTERFACE: u8 = 0x01;
const ENDPOINT: u8 = 0x02;

const CLEAR_FEATURE: u8 = 1;
const SET_ADDRESS: u8 = 5;
const SET_CONFIGURATION: u8 = 9;
const SET_INTERFACE: u8 = 11;
const ENDPOINT_HALT: u16 = 0;

/// How a control request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is, by the device.
    Raw,
    /// Not at all: the address belongs to this computer.
    Nothing,
    /// Choose the configuration with this value; 0 is none.
    Configure(u8),
    /// Choose an alternate setting of an interface.
    Choose {
        /// `bInterfaceNumber`.
        interface: u8,
        /// `bAlternateSetting`.
        setting: u8,
    },
    /// Clear an endpoint's halt, here and in the device.
    ClearHalt(Endpoint),
}

impl Way {
    /// How to carry out this request.
    pub(super) fn of(setup: Setup) -> Self {
        let [value, _] = setup.value.to_le_bytes();
        let [index, _] = setup.index.to_le_bytes();
        match (setup.request_type, setup.request, setup.value) {
            (DEVICE, SET_ADDRESS, _) => Self::Nothing,
            (DEVICE, SET_CONFIGURATION, _) => Self::Configure(value),
            (INTERFACE, SET_INTERFACE, _) => Self::Choose { interface: index, setting: value },
            (ENDPOINT, CLEAR_FEATURE, ENDPOINT_HALT) => match Endpoint::from_address(index) {
                Some(endpoint) if endpoint.number() != 0 => Self::ClearHalt(endpoint),
                _ => Self::Raw,
            },
            _ => Self::Raw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_must_know_goes_through_it_and_the_rest_to_the_device() {
        struct Case {
            name: &'static str,
            bytes: [u8; 8],
            way: Way,
        }
        let halted = Endpoint::from_address(0x82).unwrap();
        let cases = [
            Case { name: "set address", bytes: [0, 5, 9, 0, 0, 0, 0, 0], way: Way::Nothing },
            Case { name: "set configuration", bytes: [0, 9, 2, 0, 0, 0, 0, 0], way: Way::Configure(2) },
            Case { name: "unconfigure", bytes: [0, 9, 0, 0, 0, 0, 0, 0], way: Way::Configure(0) },
            Case {
                name: "set interface",
                bytes: [1, 11, 3, 0, 1, 0, 0, 0],
                way: Way::Choose { interface: 1, setting: 3 },
            },
            Case { name: "clear halt", bytes: [2, 1, 0, 0, 0x82, 0, 0, 0], way: Way::ClearHalt(halted) },
            Case { name: "clear halt of endpoint 0", bytes: [2, 1, 0, 0, 0, 0, 0, 0], way: Way::Raw },
            Case { name: "set halt", bytes: [2, 3, 0, 0, 0x82, 0, 0, 0], way: Way::Raw },
            Case { name: "a class request", bytes: [0x21, 9, 0, 2, 0, 0, 1, 0], way: Way::Raw },
            Case { name: "a vendor's number 9", bytes: [0x40, 9, 1, 0, 0, 0, 0, 0], way: Way::Raw },
        ];
        for Case { name, bytes, way } in cases {
            assert_eq!(Way::of(Setup::from_bytes(bytes)), way, "{name}");
        }
    }
}
