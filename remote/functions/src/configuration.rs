//! What a configuration descriptor says. USB 2.0 §9.6.3 to §9.6.6. Its bytes are the device's word: any may be wrong.

use wire::{
    control::BulkOnly,
    usb::{Direction, Endpoint},
};

/// Descriptor types. USB 2.0 table 9-5.
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
/// `bInterfaceClass`: communications, HID, hub.
const COMMUNICATIONS: u8 = 2;
const HID: u8 = 3;
const HUB: u8 = 9;
/// Mass storage; its protocol Bulk-Only Transport. USB Mass Storage Class Specification Overview 1.4 §2, §3.
const MASS_STORAGE: u8 = 8;
const BULK_ONLY: u8 = 0x50;
/// `bmAttributes`: bulk, interrupt. USB 2.0 table 9-13.
const BULK: u8 = 2;
const INTERRUPT: u8 = 3;
/// HID 1.11 §6.2.1, §7.1: the HID descriptor, and the report descriptor it announces.
const HID_DESCRIPTOR: u8 = 0x21;

/// A configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// `bConfigurationValue`.
    pub value: u8,
    /// `iConfiguration`: the number of its name, 0 for none.
    pub name: u8,
    /// Alternate settings, in the order of the descriptor.
    pub settings: Vec<Setting>,
}

/// An alternate setting of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting {
    /// `bInterfaceNumber`.
    pub interface: u8,
    /// `bAlternateSetting`.
    pub number: u8,
    /// `bInterfaceClass`.
    pub class: u8,
    /// `bInterfaceProtocol`.
    pub protocol: u8,
    /// `iInterface`: the number of its name, 0 for none.
    pub name: u8,
    /// Its endpoints, and the transfer type of each (`bmAttributes` bits 0 and 1).
    pub endpoints: Vec<(Endpoint, u8)>,
    /// The length of its HID report descriptor, 0 for none.
    pub report_length: u16,
}

impl Configuration {
    /// Reads a configuration with everything behind it. What makes no sense is passed over.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let [value, name] = [5, 6].map(|at| bytes.get(at).copied().unwrap_or(0));
        let mut settings: Vec<Setting> = Vec::new();
        for descriptor in descriptors(bytes) {
            match (descriptor, settings.last_mut()) {
                ([_, INTERFACE, interface, number, _, class, _, protocol, name, ..], _) => {
                    settings.push(Setting {
                        interface: *interface,
                        number: *number,
                        class: *class,
                        protocol: *protocol,
                        name: *name,
                        ..Setting::default()
                    });
                }
                ([_, ENDPOINT, address, attributes, ..], Some(setting)) => {
                    let endpoint = Endpoint::from_address(*address);
                    setting.endpoints.extend(endpoint.map(|endpoint| (endpoint, attributes & 3)));
                }
                ([_, HID_DESCRIPTOR, _, _, _, _, _, low, high, ..], Some(setting))
                    if setting.class == HID =>
                {
                    setting.report_length = u16::from_le_bytes([*low, *high]);
                }
                _ => {}
            }
        }
        Self { value, name, settings }
    }

    /// The numbers of its own name and its interfaces' names, each once.
    #[must_use]
    pub fn names(&self) -> Vec<u8> {
        let interfaces = self.settings.iter().map(|setting| setting.name);
        let mut names: Vec<u8> = interfaces.chain([self.name]).filter(|name| *name != 0).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The numbers of its interfaces, each once.
    #[must_use]
    pub fn interfaces(&self) -> Vec<u8> {
        let mut numbers: Vec<u8> = self.settings.iter().map(|setting| setting.interface).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Every endpoint that an interface has in any of its settings.
    #[must_use]
    pub fn endpoints_of(&self, interface: u8) -> Vec<Endpoint> {
        let settings = self.settings.iter().filter(|setting| setting.interface == interface);
        settings.flat_map(|setting| setting.endpoints.iter().map(|(endpoint, _)| *endpoint)).collect()
    }

    /// Interrupt IN endpoints of HID, hubs and CDC notifications: what they say is news of a state, and means the same
    /// when it was read a little before it was asked for.
    pub fn read_ahead(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let settings = self.settings.iter().filter(|s| matches!(s.class, COMMUNICATIONS | HID | HUB));
        let interrupt_in =
            |(endpoint, kind): &&(Endpoint, u8)| *kind == INTERRUPT && endpoint.direction() == Direction::In;
        settings.flat_map(move |setting| setting.endpoints.iter().filter(interrupt_in).map(|(e, _)| *e))
    }

    /// The endpoints of interfaces that speak Bulk-Only Transport, unless they are told to speak something else.
    pub fn bulk_only(&self) -> impl Iterator<Item = BulkOnly> + '_ {
        let is_bulk_only = |setting: &&Setting| {
            (setting.number, setting.class, setting.protocol) == (0, MASS_STORAGE, BULK_ONLY)
        };
        self.settings.iter().filter(is_bulk_only).filter_map(|setting| {
            let bulk = |direction| {
                let mut endpoints = setting.endpoints.iter();
                let found = endpoints.find(|(e, kind)| *kind == BULK && e.direction() == direction);
                found.map(|(endpoint, _)| *endpoint)
            };
            Some(BulkOnly { out: bulk(Direction::Out)?, input: bulk(Direction::In)? })
        })
    }
}

/// The descriptors one after the other, up to the first whose length cannot be.
fn descriptors(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(*bytes.first()?);
        let (descriptor, rest) = bytes.split_at_checked(length).filter(|_| length >= 2)?;
        bytes = rest;
        Some(descriptor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyboard, and a modem whose data interface has two settings.
    const COMPOSITE: &[u8] = &[
        9, 2, 0, 0, 3, 7, 4, 0xa0, 50, // configuration 7, its name is string 4
        9, 4, 0, 0, 1, 3, 1, 1, 6, // interface 0, HID, string 6
        9, 0x21, 0x11, 1, 0, 1, 0x22, 63, 0, // its report descriptor has 63 bytes
        7, 5, 0x81, 3, 8, 0, 4, // interrupt IN 1
        9, 4, 1, 0, 1, 2, 2, 1, 0, // interface 1, communications
        5, 0x24, 0, 0x10, 1, // its header
        7, 5, 0x82, 3, 8, 0, 4, // interrupt IN 2
        9, 4, 2, 0, 0, 10, 0, 0, 4, // interface 2, setting 0, string 4
        9, 4, 2, 1, 2, 10, 0, 0, 0, // interface 2, setting 1
        7, 5, 0x83, 2, 0, 2, 0, // bulk IN 3
        7, 5, 0x03, 2, 0, 2, 0, // bulk OUT 3
    ];

    fn addresses(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<u8> {
        endpoints.into_iter().map(Endpoint::address).collect()
    }

    #[test]
    fn interfaces_settings_and_endpoints_are_read() {
        let configuration = Configuration::parse(COMPOSITE);
        assert_eq!((configuration.value, configuration.interfaces()), (7, vec![0, 1, 2]));
        assert_eq!(addresses(configuration.endpoints_of(2)), [0x83, 0x03]);
        assert_eq!(configuration.settings[0].report_length, 63);
        assert_eq!(configuration.names(), [4, 6]);
    }

    #[test]
    fn only_news_of_a_state_is_read_ahead() {
        assert_eq!(addresses(Configuration::parse(COMPOSITE).read_ahead()), [0x81, 0x82]);
    }

    /// A disk that speaks Bulk-Only Transport, and USB Attached SCSI in its other setting.
    const DISK: &[u8] = &[
        9, 2, 0, 0, 1, 1, 0, 0x80, 50, // configuration 1
        9, 4, 0, 0, 2, 8, 6, 0x50, 0, // setting 0
        7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0, // bulk IN 1, bulk OUT 2
        9, 4, 0, 1, 4, 8, 6, 0x62, 0, // setting 1
        7, 5, 0x83, 2, 0, 2, 0, 7, 5, 0x04, 2, 0, 2, 0,
    ];

    #[test]
    fn only_bulk_only_transport_is_known_by_its_endpoints() {
        let pairs: Vec<_> = Configuration::parse(DISK).bulk_only().collect();
        let [BulkOnly { out, input }] = pairs[..] else { panic!("{pairs:?}") };
        assert_eq!((out.address(), input.address()), (0x02, 0x81));
        assert_eq!(Configuration::parse(COMPOSITE).bulk_only().count(), 0);
    }

    #[test]
    fn a_descriptor_that_is_cut_anywhere_or_lies_about_lengths_is_read_as_far_as_it_goes() {
        for cut in 0..COMPOSITE.len() {
            let _ = Configuration::parse(&COMPOSITE[..cut]);
            for lie in [0, 1, 2, 255] {
                let mut bytes = COMPOSITE.to_vec();
                bytes[cut] = lie;
                assert!(Configuration::parse(&bytes).settings.len() <= 8);
            }
        }
    }
}
