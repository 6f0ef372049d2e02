//! What a host may know of a real device beforehand: its descriptors, read once when it is opened.

use std::time::{Duration, Instant};

use functions::configuration::Configuration;
use rusb::{DeviceHandle, UsbContext};
use wire::{
    control::{Descriptor, MAX_DESCRIPTORS, Profile},
    usb::{Endpoint, Speed},
};

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
/// And so long all questions together may take, however many descriptors a device says it has.
const ALL_PATIENCE: Duration = Duration::from_secs(3);
/// Less is not worth asking; and to libusb, none is any.
const HASTE: Duration = Duration::from_millis(10);

/// A device's descriptors as its port needs them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) profile: Profile,
    pub(super) configurations: Vec<Configuration>,
}

/// Who can be asked for descriptors.
pub(super) trait Source {
    /// Reads one into the buffer; how many bytes it has, if there is one.
    fn get(&self, request_type: u8, value: u16, index: u16, data: &mut [u8], wait: Duration)
    -> Option<usize>;

    /// The time.
    fn now(&self) -> Instant;
}

impl<T: UsbContext> Source for DeviceHandle<T> {
    fn get(
        &self,
        request_type: u8,
        value: u16,
        index: u16,
        data: &mut [u8],
        wait: Duration,
    ) -> Option<usize> {
        self.read_control(request_type, GET_DESCRIPTOR, value, index, data, wait).ok()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Reads them. What cannot be read is left to the guest to ask for. Its interfaces are claimed already.
pub(super) fn read(source: &impl Source, speed: Speed) -> Known {
    let mut known = Known::default();
    let until = source.now() + ALL_PATIENCE;
    let mut reader = Reader { source, until, found: &mut known.profile.descriptors, bytes: 0 };
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
        // iManufacturer, iProduct, iSerialNumber; then what Linux asks for, too.
        let mut names: Vec<u8> = device.iter().skip(14).take(3).copied().collect();
        names.extend(known.configurations.iter().flat_map(Configuration::names));
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter(|name| *name != 0) {
            reader.read(DEVICE, STRING, name, language, STRING_MOST);
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

struct Reader<'a, S> {
    source: &'a S,
    until: Instant,
    found: &'a mut Vec<Descriptor>,
    bytes: usize,
}

impl<S: Source> Reader<'_, S> {
    fn read(
        &mut self,
        request_type: u8,
        kind: u8,
        number: u8,
        index: u16,
        length: u16,
    ) -> Option<bytes::Bytes> {
        let value = u16::from_be_bytes([kind, number]);
        let wait = self.until.saturating_duration_since(self.source.now()).min(PATIENCE);
        if wait < HASTE {
            return None;
        }
        let mut data = vec![0; length.into()];
        let read = self.source.get(request_type, value, index, &mut data, wait)?;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Answers what a list says, and to anything else nothing, after a while.
    struct Device<'a> {
        says: &'a [(u8, u16, u16, &'a [u8])],
        now: Cell<Instant>,
        slow: Duration,
        asked: Cell<u32>,
    }

    impl<'a> Device<'a> {
        fn new(says: &'a [(u8, u16, u16, &'a [u8])], slow: Duration) -> Self {
            Self { says, now: Cell::new(Instant::now()), slow, asked: Cell::new(0) }
        }
    }

    impl Source for Device<'_> {
        fn get(&self, kind: u8, value: u16, index: u16, data: &mut [u8], wait: Duration) -> Option<usize> {
            assert!(wait > Duration::ZERO, "that would be for ever");
            self.now.set(self.now.get() + self.slow.min(wait));
            self.asked.set(self.asked.get() + 1);
            let (.., said) = self.says.iter().find(|(k, v, i, _)| (*k, *v, *i) == (kind, value, index))?;
            let length = said.len().min(data.len());
            data[..length].copy_from_slice(&said[..length]);
            Some(length)
        }

        fn now(&self) -> Instant {
            self.now.get()
        }
    }

    const CONFIGURATION: &[u8] = &[
        9, 2, 27, 0, 1, 1, 4, 0x80, 50, // its name is string 4
        9, 4, 0, 0, 0, 3, 0, 0, 5, // HID; its name is string 5
        9, 0x21, 0x11, 1, 0, 1, 0x22, 3, 0, // three bytes of report descriptor
    ];

    fn of_device(configurations: u8) -> [u8; 18] {
        [18, 1, 0, 2, 0, 0, 0, 64, 0x34, 0x12, 1, 0, 0, 1, 1, 2, 0, configurations]
    }

    #[test]
    fn everything_that_a_guest_asks_for_at_first_is_known() {
        let (device, name) = (of_device(1), |_| &[4, 3, b'a', 0][..]);
        let says = [
            (DEVICE, 0x0100, 0, &device[..]),
            (DEVICE, 0x0200, 0, CONFIGURATION),
            (DEVICE, 0x0300, 0, &[4, 3, 9, 4]),
            (DEVICE, 0x0301, 0x0409, name(1)),
            (DEVICE, 0x0302, 0x0409, name(2)),
            (DEVICE, 0x0304, 0x0409, name(4)),
            (DEVICE, 0x0305, 0x0409, name(5)),
            (INTERFACE, 0x2200, 0, &[1, 2, 3]),
        ];
        let known = read(&Device::new(&says, Duration::ZERO), Speed::Full);
        let found = known.profile.descriptors.iter();
        let found: Vec<_> = found.map(|d| (d.request_type, d.value, d.index, &d.data[..])).collect();
        assert_eq!(found, says);
    }

    #[test]
    fn a_device_that_is_slow_and_says_it_has_much_takes_little_time() {
        let (device, seconds) = (of_device(255), Duration::from_secs);
        for slow in [HASTE, PATIENCE, seconds(100)] {
            let says = [(DEVICE, 0x0100, 0, &device[..])];
            let device = Device::new(&says, slow);
            let start = device.now();
            let known = read(&device, Speed::High);
            assert_eq!(known.profile.descriptors.len(), 1);
            assert!(device.now() - start <= ALL_PATIENCE && device.asked.get() > 1, "{slow:?}");
        }
    }
}
