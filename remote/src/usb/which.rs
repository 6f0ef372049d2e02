//! Which devices are lent: what the user asks for, and what is never taken by a wildcard.
//!
//! Pure: a device is a plain description, the answer a sentence for people. Three rules stand above every wildcard:
//! a hub stays (its devices are lent one by one); the keyboard and mouse in front of the user stay, and a Bluetooth
//! adapter, which may carry them; and a headset or sound card stays unless sound devices were asked for, because sound
//! goes through the HD Audio controller. A camera with a microphone is a camera.

use std::fmt;

use wire::usb::Speed;

pub(crate) use super::selector::{Kind, Selector};

/// Class, subclass and protocol of a device or an interface. USB 2.0 §9.6.1, §9.6.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    /// `bDeviceClass` or `bInterfaceClass`.
    pub(crate) class: u8,
    /// `bDeviceSubClass` or `bInterfaceSubClass`.
    pub(crate) subclass: u8,
    /// `bDeviceProtocol` or `bInterfaceProtocol`.
    pub(crate) protocol: u8,
}

/// Whether this computer's own user types or points with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// No: it is something else, such as a security key.
    No,
    /// Yes: the operating system has it as an input device.
    Yes,
    /// Nobody has said yet.
    Unknown,
}

/// A device on this computer's USB bus.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    /// The bus.
    pub(crate) bus: u8,
    /// The ports from the root hub to it; none for the root hub itself.
    pub(crate) ports: Vec<u8>,
    /// `idVendor`.
    pub(crate) vendor: u16,
    /// `idProduct`.
    pub(crate) product: u16,
    /// The speed it runs at, if that is known.
    pub(crate) speed: Option<Speed>,
    /// The device's own class.
    pub(crate) class: Class,
    /// The classes of all interfaces, each once, in all their settings.
    pub(crate) interfaces: Vec<Class>,
    /// Whether it is input, or carries some.
    pub(crate) input: Input,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Its maker's name for itself.
    pub(crate) maker: Option<String>,
    /// Its maker's name for it.
    pub(crate) name: Option<String>,
}

/// What happens to a device, and a reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is lent.
    Lend { because: String },
    /// It stays.
    Keep { why: String },
}

impl Class {
    /// The class with its subclass and protocol.
    pub(crate) const fn new(class: u8, subclass: u8, protocol: u8) -> Self {
        Self { class, subclass, protocol }
    }

    /// Whether it belongs to the classes that people know under this name.
    pub(crate) fn is(self, kind: Kind) -> bool {
        let triple = (self.class, self.subclass, self.protocol);
        match kind {
            Kind::Storage => self.class == 0x08,
            Kind::Audio => self.class == 0x01,
            Kind::Video => self.class == 0x0e,
            Kind::Hid => self.class == 0x03,
            Kind::Printer => self.class == 0x07,
            Kind::Serial => matches!(triple, (0x02, 0x02, 0..=0xfe)),
            // CDC 1.2 §4.3: Ethernet, MDLM, EEM, NCM and MBIM; and the three faces of RNDIS.
            Kind::Net => matches!(
                triple,
                (0x02, 0x06 | 0x0a | 0x0c | 0x0d | 0x0e, _)
                    | (0x02, 0x02, 0xff)
                    | (0xe0, 0x01, 0x03)
                    | (0xef, 0x04, 0x01)
            ),
            Kind::SmartCard => self.class == 0x0b,
            Kind::Vendor => self.class == 0xff,
            Kind::Number(number) => self.class == number,
        }
    }

    /// A keyboard or mouse that firmware can use. HID 1.11 §4.2, §4.3.
    fn boot_input(self) -> bool {
        matches!((self.class, self.subclass, self.protocol), (0x03, 0x01, 0x01 | 0x02))
    }

    /// A Bluetooth adapter. Bluetooth 5.4 vol. 4 part B §2.1.
    fn bluetooth(self) -> bool {
        self == Self::new(0xe0, 0x01, 0x01)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Kind::NAMED.into_iter().find(|(_, kind)| self.is(*kind));
        match (named, self.class) {
            _ if *self == Self::new(3, 1, 1) => f.write_str("keyboard"),
            _ if *self == Self::new(3, 1, 2) => f.write_str("mouse"),
            (Some((name, _)), _) => f.write_str(name),
            (None, 0x09) => f.write_str("hub"),
            (None, _) if self.bluetooth() => f.write_str("bluetooth"),
            (None, 0x0a) => f.write_str("data"),
            (None, 0xe0) => f.write_str("wireless"),
            (None, 0xfe) => f.write_str("application"),
            (None, class) => write!(f, "{class:#04x}"),
        }
    }
}

impl Device {
    /// Where it is plugged in, as sysfs names it: `1-2.3`; `usb1` for the root hub of bus 1.
    pub(crate) fn bus_port(&self) -> String {
        bus_port(self.bus, &self.ports)
    }

    /// `idVendor:idProduct`.
    pub(crate) fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.product)
    }

    /// A name for people: its own, or its numbers.
    pub(crate) fn title(&self) -> String {
        match (&self.maker, &self.name) {
            (Some(maker), Some(name)) if !name.starts_with(maker.as_str()) => format!("{maker} {name}"),
            (_, Some(name)) => name.clone(),
            (Some(maker), None) => format!("{maker} {}", self.id()),
            (None, None) => self.id(),
        }
    }

    /// The names of its classes, each once.
    pub(crate) fn class_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for class in self.classes().filter(|class| class.class != 0 && class.class != 0xef) {
            let name = class.to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether it is a hub. USB 2.0 §11.23.1.
    pub(crate) fn is_hub(&self) -> bool {
        self.ports.is_empty() || self.classes().any(|class| class.class == 0x09)
    }

    /// Whether it, or one of its interfaces, is of this kind.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.classes().any(|class| class.is(kind))
    }

    /// Whether it may be, or carry, what the user of this computer types or points with.
    pub(crate) fn in_front_of_the_user(&self) -> bool {
        let always = self.classes().any(|class| class.boot_input() || class.bluetooth());
        always || self.input == Input::Yes || (self.is(Kind::Hid) && self.input != Input::No)
    }

    /// Whether it is for sound alone, as far as people see: a headset or sound card, whatever else it has.
    pub(crate) fn is_sound(&self) -> bool {
        self.is(Kind::Audio) && !self.is(Kind::Video)
    }

    fn classes(&self) -> impl Iterator<Item = Class> {
        [self.class].into_iter().chain(self.interfaces.iter().copied())
    }

    fn exactly(&self) -> String {
        format!("`{}` or `{}`", self.bus_port(), self.id())
    }
}

/// The sysfs name of a port.
pub(crate) fn bus_port(bus: u8, ports: &[u8]) -> String {
    let ports: Vec<_> = ports.iter().map(u8::to_string).collect();
    if ports.is_empty() { format!("usb{bus}") } else { format!("{bus}-{}", ports.join(".")) }
}

/// Whether a device is lent to somebody who asks for these.
pub(crate) fn decide(asked: &[Selector], device: &Device) -> Decision {
    let keep = |why: String| Decision::Keep { why };
    if device.is_hub() {
        return keep("a hub stays; the devices behind it are lent one by one".into());
    }
    let matching = || asked.iter().filter(|selector| selector.matches(device));
    if let Some(exact) = matching().find(|selector| selector.exact()) {
        return Decision::Lend { because: format!("`{exact}` names it") };
    }
    let Some(first) = matching().next() else {
        return keep(format!("not asked for; {} would name it", device.exactly()));
    };
    if device.in_front_of_the_user() {
        return keep(format!(
            "`{first}` never takes what may be the keyboard or mouse in front of you, or carry it; only {} does",
            device.exactly()
        ));
    }
    match matching().find(|selector| !selector.spares(device)) {
        Some(selector) => Decision::Lend { because: format!("`{selector}` matches it") },
        None if device.is_sound() => keep(format!(
            "`{first}` leaves sound devices here, because sound has its own way (`--audio cpal`); `class=audio`, {} takes it",
            device.exactly()
        )),
        None => keep(format!("`{first}` leaves HID devices here; only {} takes it", device.exactly())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    const STORAGE: Class = Class::new(8, 6, 0x50);
    const AUDIO: Class = Class::new(1, 1, 0);
    const KEYBOARD: Class = Class::new(3, 1, 1);
    const MOUSE: Class = Class::new(3, 1, 2);
    const HID: Class = Class::new(3, 0, 0);
    const VENDOR: Class = Class::new(0xff, 0, 0);
    const VIDEO: Class = Class::new(0x0e, 1, 0);
    const BLUETOOTH: Class = Class::new(0xe0, 1, 1);
    const HUB: Class = Class::new(9, 0, 0);
    const ACM: Class = Class::new(2, 2, 1);
    const NCM: Class = Class::new(2, 0x0d, 0);
    const RNDIS: Class = Class::new(0xe0, 1, 3);

    fn device(interfaces: &[Class]) -> Device {
        Device {
            bus: 1,
            ports: vec![2, 3],
            vendor: 0x046d,
            product: 0xc52b,
            speed: Some(Speed::High),
            class: Class::new(0, 0, 0),
            interfaces: interfaces.to_vec(),
            input: Input::Unknown,
            serial: None,
            maker: None,
            name: None,
        }
    }

    fn lent(asked: &[&str], device: &Device) -> bool {
        let asked: Vec<Selector> = asked.iter().map(|text| text.parse().unwrap()).collect();
        matches!(decide(&asked, device), Decision::Lend { .. })
    }

    #[test]
    fn each_rule_of_what_is_lent() {
        for (name, interfaces, asked, expected) in [
            ("nothing asked", &[STORAGE][..], &[][..], false),
            ("by class", &[STORAGE], &["class=storage"], true),
            ("by another class", &[STORAGE], &["class=printer"], false),
            ("by the class's number", &[STORAGE], &["class=0x08"], true),
            ("by any interface", &[VENDOR, STORAGE], &["class=storage"], true),
            ("by one of several", &[STORAGE], &["class=video", "1-9", "all"], true),
            ("by id", &[STORAGE], &["046d:c52b"], true),
            ("by another id", &[STORAGE], &["046d:c52c"], false),
            ("by port", &[STORAGE], &["1-2.3"], true),
            ("by the hub's port", &[STORAGE], &["1-2"], false),
            ("all", &[VENDOR], &["all"], true),
            ("all but hid", &[VENDOR], &["all-but-hid"], true),
            ("hub by all", &[HUB], &["all", "class=0x09"], false),
            ("hub by name", &[HUB], &["1-2.3", "046d:c52b"], false),
            ("boot keyboard by all", &[KEYBOARD], &["all", "class=hid", "class=0x03"], false),
            ("boot mouse by its other interface", &[STORAGE, MOUSE], &["class=storage"], false),
            ("boot keyboard by id", &[KEYBOARD], &["046d:c52b"], true),
            ("boot keyboard by port", &[KEYBOARD], &["all", "1-2.3"], true),
            ("HID, perhaps input, by class", &[HID], &["class=hid"], false),
            ("sound by all", &[AUDIO], &["all"], false),
            ("sound by all but hid", &[AUDIO, VENDOR], &["all-but-hid"], false),
            ("sound by class", &[AUDIO], &["class=audio"], true),
            ("sound by its class's number", &[AUDIO], &["class=0x01"], true),
            ("sound by its other class", &[AUDIO, VENDOR], &["class=vendor", "class=0xff"], false),
            ("sound by both its classes", &[AUDIO, VENDOR], &["class=vendor", "class=audio"], true),
            ("a camera with a microphone", &[VIDEO, AUDIO], &["class=video"], true),
            ("a camera with a microphone by all", &[VIDEO, AUDIO], &["all"], true),
            ("a camera by its microphone", &[VIDEO, AUDIO], &["class=audio"], true),
            ("Bluetooth by wildcards", &[BLUETOOTH], &["all", "all-but-hid", "class=0xe0"], false),
            ("Bluetooth by its other class", &[VENDOR, BLUETOOTH], &["class=vendor"], false),
            ("Bluetooth by id", &[BLUETOOTH], &["046d:c52b"], true),
            ("sound by id", &[AUDIO], &["046d:c52b"], true),
            ("serial", &[ACM], &["class=serial"], true),
            ("serial is no net", &[ACM], &["class=net"], false),
            ("net", &[NCM], &["class=net"], true),
            ("net by RNDIS", &[RNDIS], &["class=net"], true),
        ] {
            assert_eq!(lent(asked, &device(interfaces)), expected, "{name}");
        }
    }

    #[test]
    fn hid_that_is_no_input_is_taken_by_wildcards_except_all_but_hid() {
        let key = Device { input: Input::No, ..device(&[HID]) };
        assert!(lent(&["class=hid"], &key) && lent(&["all"], &key));
        assert!(!lent(&["all-but-hid"], &key));
        let input = Device { input: Input::Yes, ..device(&[HID]) };
        assert!(!lent(&["class=hid"], &input));
        let touch = Device { input: Input::Yes, ..device(&[VENDOR]) };
        assert!(!lent(&["all", "class=vendor"], &touch), "input of no class is input, too");
        let boot = Device { input: Input::No, ..device(&[KEYBOARD]) };
        assert!(!lent(&["class=hid"], &boot), "a boot keyboard is one whatever the system says");
    }

    #[test]
    fn a_reason_says_what_would_take_the_device() {
        let Decision::Keep { why } = decide(&[Selector::All], &device(&[KEYBOARD])) else { panic!("lent") };
        assert!(why.contains("1-2.3") && why.contains("046d:c52b"), "{why}");
        let Decision::Keep { why } = decide(&[Selector::All], &device(&[AUDIO])) else { panic!("lent") };
        assert!(why.contains("class=audio"), "{why}");
    }

    #[test]
    fn names_are_for_people() {
        let named = Device { maker: Some("Acme".into()), name: Some("Acme Stick".into()), ..device(&[]) };
        assert_eq!(named.title(), "Acme Stick");
        assert_eq!(Device { name: Some("Stick".into()), ..named }.title(), "Acme Stick");
        assert_eq!(device(&[]).title(), "046d:c52b");
        let composite = device(&[KEYBOARD, MOUSE, STORAGE, STORAGE, Class::new(0x77, 0, 0)]);
        assert_eq!(composite.class_names(), ["keyboard", "mouse", "storage", "0x77"]);
        assert_eq!(Device { ports: vec![], ..device(&[]) }.bus_port(), "usb1");
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop_oneof![
            any::<(u8, u8, u8)>()
                .prop_map(|(class, subclass, protocol)| Class::new(class, subclass, protocol)),
            proptest::sample::select(vec![
                STORAGE, AUDIO, VIDEO, KEYBOARD, MOUSE, HID, VENDOR, BLUETOOTH, HUB, ACM, NCM, RNDIS
            ]),
        ]
    }

    fn any_device() -> impl Strategy<Value = Device> {
        let input = proptest::sample::select(vec![Input::No, Input::Yes, Input::Unknown]);
        let place = (any::<u8>(), vec(any::<u8>(), 0..7));
        let numbers = (any::<u16>(), any::<u16>());
        let names = (option::of(".*"), option::of(".*"), option::of(".*"));
        (place, numbers, any_class(), vec(any_class(), 0..6), input, names).prop_map(
            |((bus, ports), (vendor, product), class, interfaces, input, (serial, maker, name))| Device {
                bus,
                ports,
                vendor,
                product,
                speed: None,
                class,
                interfaces,
                input,
                serial,
                maker,
                name,
            },
        )
    }

    proptest! {
        #[test]
        fn no_wildcard_takes_a_hub_or_a_boot_keyboard_and_nothing_panics(
            device in any_device(),
            asked in vec("all|all-but-hid|class=(storage|audio|video|hid|printer|serial|net|smartcard|vendor|0x[0-9a-f]{2})", 0..5),
        ) {
            let asked: Vec<Selector> = asked.iter().map(|text| text.parse().unwrap()).collect();
            let decision = decide(&asked, &device);
            let lent = matches!(decision, Decision::Lend { .. });
            let boot = device.interfaces.iter().any(|class| class.boot_input());
            prop_assert!(!(lent && (boot || device.is_hub() || asked.is_empty())));
            let _ = (device.title(), device.class_names());
            if !device.is_hub() && device.ports.iter().all(|port| *port > 0) && device.bus > 0 {
                let exact: Selector = device.bus_port().parse().unwrap();
                let lent = matches!(decide(&[exact], &device), Decision::Lend { .. });
                prop_assert!(lent, "its own name takes any device but a hub");
            }
        }
    }
}
