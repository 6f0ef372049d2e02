//! What the user asks for: `VID:PID`, `BUS-PORT`, `class=NAME`, `all-but-hid`, `all`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::which::{Device, bus_port};

/// The most hubs between a device and its computer, and its own port. USB 2.0 §4.1.1.
const DEEPEST: usize = 7;

/// A name for devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Selector {
    /// Every device with these numbers.
    Id { vendor: u16, product: u16 },
    /// Whatever is plugged in there.
    Port { bus: u8, ports: Vec<u8> },
    /// Every device that is of this kind, or has an interface that is.
    Class(Kind),
    /// Every device without a HID interface.
    AllButHid,
    /// Every device.
    All,
}

/// What people call a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Sticks and disks.
    Storage,
    /// Headsets, sound cards.
    Audio,
    /// Cameras.
    Video,
    /// Keyboards, mice, security keys.
    Hid,
    /// Printers.
    Printer,
    /// Modems and serial lines of the communications class.
    Serial,
    /// Network adapters.
    Net,
    /// Smart-card readers.
    SmartCard,
    /// Devices that follow no class.
    Vendor,
    /// The class with this number.
    Number(u8),
}

impl Kind {
    /// The kinds that have names.
    pub(crate) const NAMED: [(&str, Self); 9] = [
        ("storage", Self::Storage),
        ("audio", Self::Audio),
        ("video", Self::Video),
        ("hid", Self::Hid),
        ("printer", Self::Printer),
        ("serial", Self::Serial),
        ("net", Self::Net),
        ("smartcard", Self::SmartCard),
        ("vendor", Self::Vendor),
    ];
}

impl Selector {
    /// Whether it names one device or model, so that the user knows which.
    pub(crate) fn exact(&self) -> bool {
        matches!(self, Self::Id { .. } | Self::Port { .. })
    }

    /// Whether it means this device, if no rule speaks against it.
    pub(crate) fn matches(&self, device: &Device) -> bool {
        match self {
            Self::Id { vendor, product } => (*vendor, *product) == (device.vendor, device.product),
            Self::Port { bus, ports } => *bus == device.bus && *ports == device.ports,
            Self::Class(kind) => device.is(*kind),
            Self::AllButHid | Self::All => true,
        }
    }

    /// Whether it leaves this device alone although it matches.
    pub(crate) fn spares(&self, device: &Device) -> bool {
        match self {
            Self::Id { .. } | Self::Port { .. } | Self::Class(Kind::Audio | Kind::Number(0x01)) => false,
            Self::AllButHid => device.is(Kind::Hid) || device.is_sound(),
            Self::Class(_) | Self::All => device.is_sound(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { vendor, product } => write!(f, "{vendor:04x}:{product:04x}"),
            Self::Port { bus, ports } => f.write_str(&bus_port(*bus, ports)),
            Self::Class(Kind::Number(number)) => write!(f, "class={number:#04x}"),
            Self::Class(kind) => {
                let name = Kind::NAMED.into_iter().find(|(_, named)| named == kind);
                write!(f, "class={}", name.map_or("", |(name, _)| name))
            }
            Self::AllButHid => f.write_str("all-but-hid"),
            Self::All => f.write_str("all"),
        }
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::All),
            "all-but-hid" => return Ok(Self::AllButHid),
            _ => {}
        }
        if let Some(class) = text.strip_prefix("class=") {
            return kind(class).map(Self::Class);
        }
        if let Some((vendor, product)) = text.split_once(':') {
            return id(vendor).zip(id(product)).map(|(vendor, product)| Self::Id { vendor, product }).ok_or_else(
                || format!("`{text}` is no VID:PID: it is two numbers of four hexadecimal digits, such as 046d:c52b"),
            );
        }
        if let Some((bus, ports)) = text.split_once('-') {
            return port(bus, ports).ok_or_else(|| {
                format!("`{text}` is no BUS-PORT: it is a bus and the ports to the device, such as 1-2.3; `farbus-remote devices` shows them")
            });
        }
        Err(format!(
            "`{text}` names no device: say VID:PID (046d:c52b), BUS-PORT (1-2.3), class=storage, all-but-hid or all; `farbus-remote devices` shows what is here"
        ))
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    if let Some((_, kind)) = Kind::NAMED.into_iter().find(|(name, _)| *name == text) {
        return Ok(kind);
    }
    let number = text.strip_prefix("0x").filter(|digits| hex(digits, 2));
    number.and_then(|digits| u8::from_str_radix(digits, 16).ok()).map(Kind::Number).ok_or_else(|| {
        let names: Vec<_> = Kind::NAMED.into_iter().map(|(name, _)| name).collect();
        format!("`{text}` is no class: say one of {}, or its number such as 0x08", names.join(", "))
    })
}

fn id(digits: &str) -> Option<u16> {
    hex(digits, 4).then(|| u16::from_str_radix(digits, 16).ok())?
}

fn hex(digits: &str, most: usize) -> bool {
    (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn port(bus: &str, ports: &str) -> Option<Selector> {
    let number = |text: &str| -> Option<u8> {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        digits.then(|| text.parse().ok())?.filter(|number| *number > 0)
    };
    let bus = number(bus)?;
    let ports: Vec<u8> = ports.split('.').take(DEEPEST + 1).map(number).collect::<Option<_>>()?;
    (ports.len() <= DEEPEST).then_some(Selector::Port { bus, ports })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_selector_is_written_in_one_of_five_forms() {
        for (text, selector) in [
            ("046d:c52b", Selector::Id { vendor: 0x046d, product: 0xc52b }),
            ("46D:1", Selector::Id { vendor: 0x046d, product: 1 }),
            ("1-2", Selector::Port { bus: 1, ports: vec![2] }),
            ("12-2.3.10", Selector::Port { bus: 12, ports: vec![2, 3, 10] }),
            ("class=smartcard", Selector::Class(Kind::SmartCard)),
            ("class=0xe0", Selector::Class(Kind::Number(0xe0))),
            ("all-but-hid", Selector::AllButHid),
            ("all", Selector::All),
        ] {
            assert_eq!(text.parse(), Ok(selector), "{text}");
        }
    }

    #[test]
    fn a_wrong_selector_says_what_would_be_right() {
        for (text, hint) in [
            ("", "class=storage"),
            ("046d", "VID:PID"),
            ("046d:", "046d:c52b"),
            ("046d:12345", "046d:c52b"),
            ("+46d:0001", "046d:c52b"),
            ("1-", "1-2.3"),
            ("1-0", "1-2.3"),
            ("1-2.", "1-2.3"),
            ("1-+2", "1-2.3"),
            ("1-256", "1-2.3"),
            ("1-1.1.1.1.1.1.1.1", "1-2.3"),
            ("usb1", "BUS-PORT"),
            ("class=", "storage"),
            ("class=disk", "storage"),
            ("class=0x", "0x08"),
            ("class=0x100", "0x08"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*|[0-9a-f:.=-]*|class=.*|[0-9]{1,3}-[0-9.]*") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse(), Ok(selector));
            }
        }
    }
}
