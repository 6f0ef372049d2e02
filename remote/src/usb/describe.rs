//! What a device on the bus is, without opening it where the operating system can say so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusb::{Context, UsbContext};
use wire::usb::Speed;

use super::which::{Class, Device, Input, Kind};

/// Where Linux describes USB devices.
const SYSFS: &str = "/sys/bus/usb/devices";
/// The folder `input` of an interface lies so deep below it at most: that of a Bluetooth mouse below the adapter, its
/// connection and its HID device.
const DEPTH: usize = 6;
/// `bInterfaceClass` of HID, and of interfaces whose input is but a button of theirs: audio, video.
const HID: &str = "03";
const WITH_BUTTONS: [&str; 2] = ["01", "0e"];

/// Describes a device.
///
/// # Errors
/// It is gone.
pub(crate) fn describe(device: &rusb::Device<Context>) -> rusb::Result<Device> {
    let descriptor = device.device_descriptor()?;
    let triple = (descriptor.class_code(), descriptor.sub_class_code(), descriptor.protocol_code());
    let mut described = Device {
        bus: device.bus_number(),
        ports: device.port_numbers().unwrap_or_default(),
        vendor: descriptor.vendor_id(),
        product: descriptor.product_id(),
        speed: speed(device.speed()),
        class: Class::new(triple.0, triple.1, triple.2),
        interfaces: interfaces(device, descriptor.num_configurations()),
        input: Input::Unknown,
        serial: None,
        maker: None,
        name: None,
    };
    let folder = Path::new(SYSFS).join(described.bus_port());
    if folder.is_dir() {
        described.input = input(&folder);
        described.maker = text(&folder.join("manufacturer"));
        described.name = text(&folder.join("product"));
        described.serial = text(&folder.join("serial"));
    } else if !described.is(Kind::Hid) {
        ask_for_names(device, &descriptor, &mut described);
    }
    Ok(described)
}

/// The classes of all interfaces in all configurations, each once.
fn interfaces(device: &rusb::Device<Context>, configurations: u8) -> Vec<Class> {
    let mut classes = Vec::new();
    for config in (0..configurations).filter_map(|number| device.config_descriptor(number).ok()) {
        for setting in config.interfaces().flat_map(|interface| interface.descriptors()) {
            let (class, subclass) = (setting.class_code(), setting.sub_class_code());
            let class = Class::new(class, subclass, setting.protocol_code());
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
    }
    classes
}

fn speed(speed: rusb::Speed) -> Option<Speed> {
    match speed {
        rusb::Speed::Low => Some(Speed::Low),
        rusb::Speed::Full => Some(Speed::Full),
        rusb::Speed::High => Some(Speed::High),
        rusb::Speed::Super | rusb::Speed::SuperPlus => Some(Speed::Super),
        _ => None,
    }
}

/// Opens the device to read its names; without the right to, it has only its numbers.
fn ask_for_names<T: UsbContext>(
    device: &rusb::Device<T>,
    descriptor: &rusb::DeviceDescriptor,
    described: &mut Device,
) {
    let Ok(handle) = device.open() else { return };
    described.maker = handle.read_manufacturer_string_ascii(descriptor).ok().and_then(|name| clean(&name));
    described.name = handle.read_product_string_ascii(descriptor).ok().and_then(|name| clean(&name));
    described.serial = handle.read_serial_number_string_ascii(descriptor).ok().and_then(|name| clean(&name));
}

fn text(file: &Path) -> Option<String> {
    clean(&String::from_utf8_lossy(&fs::read(file).ok()?))
}

/// A name as it can be printed: the device chose it.
fn clean(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(128).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether Linux has a device, or what hangs below it, as input. That it has not may only be that it has not yet.
fn input(folder: &Path) -> Input {
    let mut input = Input::No;
    for interface in entries(folder) {
        let Some(class) = text(&interface.join("bInterfaceClass")) else { continue };
        if !WITH_BUTTONS.contains(&&*class) && has_input(&interface, DEPTH) {
            return Input::Yes;
        }
        // Below its interface, each HID device has a driver of its own; only then something is known.
        let driven = || {
            let mut entries = entries(&interface).into_iter();
            entries.any(|hid| hid.join("report_descriptor").exists() && hid.join("driver").exists())
        };
        if class == HID && !driven() {
            input = Input::Unknown;
        }
    }
    input
}

/// The kernel does not say what a Bluetooth adapter carries if the HID devices behind it are made by a program.
fn has_input(folder: &Path, depth: usize) -> bool {
    entries(folder).iter().any(|entry| {
        entry.ends_with("input") || entry.ends_with("bluetooth") || (depth > 1 && has_input(entry, depth - 1))
    })
}

/// The folders in a folder, not links to others.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folders: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (file, content) in files {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), content).unwrap();
        }
        root
    }

    #[test]
    fn hid_is_input_where_linux_has_made_an_input_device_of_it() {
        const HID: (&str, &str) = ("1-2:1.0/bInterfaceClass", "03\n");
        const DRIVEN: &str = "1-2:1.0/0003:046D:C52B.0001/driver";
        const REPORTS: (&str, &str) = ("1-2:1.0/0003:046D:C52B.0001/report_descriptor", "");
        for (name, folders, files, expected) in [
            ("no HID at all", &["1-2:1.0"][..], &[("1-2:1.0/bInterfaceClass", "08\n")][..], Input::No),
            ("HID before its driver", &[], &[HID], Input::Unknown),
            ("HID before its reports are known", &[], &[HID, REPORTS], Input::Unknown),
            ("a security key", &[DRIVEN], &[HID, REPORTS], Input::No),
            ("a mouse", &[DRIVEN, "1-2:1.0/0003:046D:C52B.0001/input/input7"], &[HID, REPORTS], Input::Yes),
            ("a mouse of usbmouse", &["1-2:1.0/input/input7"], &[HID], Input::Yes),
            (
                "a vendor's touch screen",
                &["1-2:1.0/input/input7"],
                &[("1-2:1.0/bInterfaceClass", "ff\n")],
                Input::Yes,
            ),
            (
                "a camera's button",
                &["1-2:1.0/input/input7"],
                &[("1-2:1.0/bInterfaceClass", "0e\n")],
                Input::No,
            ),
            (
                "a Bluetooth mouse",
                &["1-2:1.0/hci/hci0/hci0:11/0005:046D:B00D.0001/input/input7"],
                &[("1-2:1.0/bInterfaceClass", "e0\n")],
                Input::Yes,
            ),
            (
                "a Bluetooth adapter, whatever it carries",
                &["1-2:1.0/bluetooth/hci0"],
                &[("1-2:1.0/bInterfaceClass", "ff\n")],
                Input::Yes,
            ),
            (
                "half a keyboard",
                &[DRIVEN],
                &[HID, REPORTS, ("1-2:1.1/bInterfaceClass", "03\n")],
                Input::Unknown,
            ),
        ] {
            let root = tree(folders, files);
            assert_eq!(input(root.path()), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_printed_is_made_printable() {
        assert_eq!(clean(" Stick\x1b[2J\n").as_deref(), Some("Stick[2J"));
        assert_eq!(clean("\n \0"), None);
        assert_eq!(clean(&"x".repeat(500)).unwrap().len(), 128);
    }
}
