//! What a host may know of a real device beforehand: its descriptors, read once when it is opened.

use std::time::Duration;

use rusb::{DeviceHandle, UsbContext};
use wire::{
    control::{Descriptor, MAX_DESCRIPTORS, Profile},
    usb::{Endpoint, Speed},
};

use super::configuration::Configuration;

/// `bmRequestType`: standard, from the device, or from an interface.
const DEVICE: u8 = 0x80;
const INTERFACE: u8 = 0x81;
const GET_DESCRIPTOR: u8 = 6;

/// Descriptor types. USB 2.0 table 9-5, USB 3.2 table 9-6, HID 1.11 §7.1.
const OF_DEVICE: u8 = 1;
const OF_CONFIGURATION: u8 = 2;
const STRING: u8 = 3;
const QUALIFIER: u8 = 6;
const BOS: u8 = 15;
const REPORT: u8 = 0x22;

/// What libusb can ask for at once.
const MOST: u16 = 4096;
/// A string has at most so many bytes.
const STRING_MOST: u16 = 255;
/// A device that does not answer in that time is asked again by the guest.
const PATIENCE: Duration = Duration::from_secs(1);

/// A device's descriptors as its port needs them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) profile: Profile,
    pub(super) configurations: Vec<Configuration>,
}

/// Reads them. What cannot be read is left to the guest to ask for. Its interfaces are claimed already.
pub(super) fn read<T: UsbContext>(handle: &DeviceHandle<T>, speed: Speed) -> Known {
    let mut known = Known::default();
    let mut reader = Reader { handle, found: &mut known.profile.descriptors, bytes: 0 };
    let Some(device) = reader.read(DEVICE, OF_DEVICE, 0, 0, 18) else { return known };
    for index in 0..device.get(17).copied().unwrap_or(0) {
        let Some(bytes) = reader.read(DEVICE, OF_CONFIGURATION, index, 0, MOST) else { continue };
        known.configurations.push(Configuration::parse(&bytes));
    }
    match speed {
        // A device that could be faster says how.
        Speed::Full | Speed::High => drop(reader.read(DEVICE, QUALIFIER, 0, 0, 10)),
        Speed::Super => drop(reader.read(DEVICE, BOS, 0, 0, MOST)),
        Speed::Low => {}
    }
    let languages = reader.read(DEVICE, STRING, 0, 0, STRING_MOST).unwrap_or_default();
    if let [_, _, low, high, ..] = languages[..] {
        let language = u16::from_le_bytes([low, high]);
        // iManufacturer, iProduct, iSerialNumber.
        for index in device.iter().skip(14).take(3).filter(|index| **index != 0) {
            reader.read(DEVICE, STRING, *index, language, STRING_MOST);
        }
    }
    // With more configurations an interface number says several things.
    let only = known.configurations.iter().filter(|_| known.configurations.len() == 1);
    for setting in only.flat_map(|configuration| &configuration.settings) {
        if setting.number == 0 && setting.report_length > 0 {
            reader.read(INTERFACE, REPORT, 0, setting.interface.into(), setting.report_length.min(MOST));
        }
    }
    known.profile.read_ahead = read_ahead(&known.configurations);
    if let [configuration] = &known.configurations[..] {
        known.profile.bulk_only = configuration.bulk_only().collect();
    }
    known
}

fn read_ahead(configurations: &[Configuration]) -> Vec<Endpoint> {
    let mut endpoints: Vec<_> = configurations.iter().flat_map(Configuration::read_ahead).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}

struct Reader<'a, T: UsbContext> {
    handle: &'a DeviceHandle<T>,
    found: &'a mut Vec<Descriptor>,
    bytes: usize,
}

impl<T: UsbContext> Reader<'_, T> {
    fn read(
        &mut self,
        request_type: u8,
        kind: u8,
        number: u8,
        index: u16,
        length: u16,
    ) -> Option<bytes::Bytes> {
        let value = u16::from_be_bytes([kind, number]);
        let mut data = vec![0; length.into()];
        let read =
            self.handle.read_control(request_type, GET_DESCRIPTOR, value, index, &mut data, PATIENCE).ok()?;
        data.truncate(read);
        let data = bytes::Bytes::from(data);
        // One that was cut, or is none, is not kept.
        let whole = match (kind, &data[..]) {
            (OF_CONFIGURATION | BOS, [_, k, low, high, ..]) => {
                *k == kind && usize::from(u16::from_le_bytes([*low, *high])) == read
            }
            (REPORT, _) => read == usize::from(length),
            (_, [own, k, ..]) => *k == kind && usize::from(*own) == read,
            _ => false,
        };
        if !whole {
            return None;
        }
        if self.bytes + read <= MAX_DESCRIPTORS {
            self.bytes += read;
            self.found.push(Descriptor { request_type, value, index, data: data.clone() });
        }
        Some(data)
    }
}
