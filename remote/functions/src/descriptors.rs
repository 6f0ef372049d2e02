//! Descriptors, written down once for each function. USB 2.0 §9.6, USB 3.2 §9.6.

use wire::usb::Speed;

/// Descriptor types, of USB and of HID.
pub(crate) mod kind {
    pub(crate) const DEVICE: u8 = 1;
    pub(crate) const CONFIGURATION: u8 = 2;
    pub(crate) const STRING: u8 = 3;
    pub(crate) const INTERFACE: u8 = 4;
    pub(crate) const ENDPOINT: u8 = 5;
    pub(crate) const QUALIFIER: u8 = 6;
    pub(crate) const OTHER_SPEED: u8 = 7;
    pub(crate) const BOS: u8 = 15;
    pub(crate) const CAPABILITY: u8 = 16;
    pub(crate) const REPORT: u8 = 0x22;
    pub(crate) const COMPANION: u8 = 48;
}

/// Who a device says it is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// `idVendor`.
    pub(crate) vendor: u16,
    /// `idProduct`.
    pub(crate) product: u16,
    /// The name of the product, at most 126 UTF-16 units.
    pub(crate) name: &'static str,
    /// The serial number, at most 126 UTF-16 units.
    pub(crate) serial: String,
}

/// An endpoint of the one interface, in one of its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndpointSpec {
    pub(crate) address: u8,
    /// `bmAttributes`: 1 isochronous, 2 bulk, 3 interrupt.
    pub(crate) attributes: u8,
    pub(crate) max_packet: u16,
    pub(crate) interval: u8,
}

/// A device with one configuration and one interface.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) identity: Identity,
    pub(crate) speed: Speed,
    /// Class, subclass and protocol of the interface.
    pub(crate) class: [u8; 3],
    /// The class's own descriptor, between interface and endpoints.
    pub(crate) extra: Vec<u8>,
    /// The endpoints of each alternate setting of the interface, from setting 0 on.
    pub(crate) settings: Vec<Vec<EndpointSpec>>,
}

const MANUFACTURER: &str = "Farbus";
/// English (United States).
pub(crate) const LANGUAGE: u16 = 0x0409;

impl EndpointSpec {
    /// Whether it moves a packet in each service interval: isochronous and interrupt.
    fn periodic(self) -> bool {
        self.attributes & 1 != 0
    }

    pub(crate) fn isochronous(self) -> bool {
        self.attributes & 3 == 1
    }

    /// The same at full speed: smaller packets, and frames instead of microframes. USB 2.0 §5.5.3 to §5.8.3.
    fn at_full_speed(self) -> Self {
        let microframes = 1u16 << self.interval.saturating_sub(1).min(15);
        let (most, interval) = match self.attributes & 3 {
            1 => (1023, self.interval.saturating_sub(3).max(1)),
            3 => (64, u8::try_from(microframes / 8).unwrap_or(u8::MAX).max(1)),
            _ => (64, self.interval),
        };
        Self { max_packet: self.max_packet.min(most), interval, ..self }
    }
}

impl Description {
    /// The endpoint with this address in this setting.
    pub(crate) fn endpoint(&self, setting: u8, address: u8) -> Option<EndpointSpec> {
        let endpoints = self.settings.get(usize::from(setting))?;
        endpoints.iter().find(|endpoint| endpoint.address == address).copied()
    }

    /// The packet size of an endpoint, in the first setting that has it.
    pub(crate) fn max_packet(&self, address: u8) -> u16 {
        let found = self.settings.iter().flatten().find(|endpoint| endpoint.address == address);
        found.map_or(64, |endpoint| endpoint.max_packet)
    }

    fn is_super(&self) -> bool {
        self.speed == Speed::Super
    }

    /// USB 2.0 §9.6.1.
    pub(crate) fn device(&self) -> Vec<u8> {
        let (bcd, max_packet) = match self.speed {
            Speed::Super => (0x0300u16, 9),
            Speed::High => (0x0200, 64),
            Speed::Low | Speed::Full => (0x0110, 64),
        };
        let [b0, b1] = bcd.to_le_bytes();
        let [v0, v1] = self.identity.vendor.to_le_bytes();
        let [p0, p1] = self.identity.product.to_le_bytes();
        vec![18, kind::DEVICE, b0, b1, 0, 0, 0, max_packet, v0, v1, p0, p1, 0x00, 0x01, 1, 2, 3, 1]
    }

    /// USB 2.0 §9.6.2: how it would look at full speed; only a high-speed device has one.
    pub(crate) fn qualifier(&self) -> Option<Vec<u8>> {
        (self.speed == Speed::High).then(|| vec![10, kind::QUALIFIER, 0, 2, 0, 0, 0, 64, 1, 0])
    }

    /// The configuration with everything in it. USB 2.0 §9.6.3.
    pub(crate) fn configuration(&self) -> Vec<u8> {
        self.configuration_of(kind::CONFIGURATION, |endpoint| endpoint)
    }

    /// USB 2.0 §9.6.4: the configuration that goes with the qualifier.
    pub(crate) fn other_speed(&self) -> Option<Vec<u8>> {
        let full = || self.configuration_of(kind::OTHER_SPEED, EndpointSpec::at_full_speed);
        (self.speed == Speed::High).then(full)
    }

    fn configuration_of(&self, kind: u8, spec: impl Fn(EndpointSpec) -> EndpointSpec) -> Vec<u8> {
        let [class, subclass, protocol] = self.class;
        let mut all = vec![9, kind, 0, 0, 1, 1, 0, 0x80, 50];
        for (setting, endpoints) in self.settings.iter().enumerate() {
            let (setting, count) = (setting as u8, endpoints.len() as u8);
            all.extend([9, kind::INTERFACE, 0, setting, count, class, subclass, protocol, 0]);
            all.extend(&self.extra);
            for endpoint in endpoints.iter().copied().map(&spec) {
                let EndpointSpec { address, attributes, max_packet, interval } = endpoint;
                let [m0, m1] = max_packet.to_le_bytes();
                all.extend([7, kind::ENDPOINT, address, attributes, m0, m1, interval]);
                if self.is_super() {
                    // No bursts, no streams; a periodic endpoint moves one packet an interval. USB 3.2 §9.6.7.
                    let [i0, i1] = if endpoint.periodic() { [m0, m1] } else { [0, 0] };
                    all.extend([6, kind::COMPANION, 0, 0, i0, i1]);
                }
            }
        }
        let length = (all.len() as u16).to_le_bytes();
        all.iter_mut().skip(2).zip(length).for_each(|(place, byte)| *place = byte);
        all
    }

    /// USB 3.2 §9.6.2: USB 2.0 extension and SuperSpeed capability; a USB 2 device has none.
    pub(crate) fn bos(&self) -> Option<Vec<u8>> {
        self.is_super().then(|| {
            let mut bos = vec![5, kind::BOS, 22, 0, 2];
            bos.extend([7, kind::CAPABILITY, 2, 0, 0, 0, 0]);
            bos.extend([10, kind::CAPABILITY, 3, 0, 0x0e, 0, 1, 10, 0xff, 0x07]);
            bos
        })
    }

    /// USB 2.0 §9.6.7.
    pub(crate) fn string(&self, index: u8) -> Option<Vec<u8>> {
        let text = match index {
            0 => return Some([&[4, kind::STRING][..], &LANGUAGE.to_le_bytes()].concat()),
            1 => MANUFACTURER,
            2 => self.identity.name,
            3 => &self.identity.serial,
            _ => return None,
        };
        let units: Vec<u8> = text.encode_utf16().take(126).flat_map(u16::to_le_bytes).collect();
        Some([&[units.len() as u8 + 2, kind::STRING][..], &units].concat())
    }
}
