//! What a gadget can do, as directories and attributes of configfs (Linux,
//! `Documentation/usb/gadget_configfs.rst` and `gadget-testing.rst`).

use anyhow::{Result, ensure};

/// A function of a gadget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// A source and a sink of bulk data, and control requests to be echoed: what usbtest tests a controller with.
    /// dummy_hcd has no isochronous endpoints, and the function does without then.
    SourceSink,
    /// What comes in by a bulk endpoint goes out by another.
    Loopback,
    /// A disk whose content is a file or a device in the desk.
    MassStorage {
        /// Its path in the desk.
        file: String,
        /// Whether it lets itself be written.
        read_only: bool,
    },
    /// A keyboard, as firmware understands one (HID 1.11, appendix B.1).
    Keyboard,
    /// A serial line: `/dev/ttyGS0` is the desk's end of the first one.
    Acm,
    /// A network adapter: `usb0` is the desk's end of the first one.
    Ncm,
}

/// What a boot keyboard says: modifiers, a zero, and up to six keys that are down.
pub type KeyReport = [u8; 8];

/// The report descriptor of HID 1.11, appendix B.1, with its output report for the lights.
const KEYBOARD: [u8; 63] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x75,
    0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75, 0x01, 0x05, 0x08,
    0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06, 0x75, 0x08, 0x15,
    0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81, 0x00, 0xc0,
];

/// One attribute: its path below the function, and its content as `printf` of the shell takes it.
pub(super) type Attribute = (&'static str, String);

impl Function {
    /// The kernel's name of it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::SourceSink => "SourceSink",
            Self::Loopback => "Loopback",
            Self::MassStorage { .. } => "mass_storage",
            Self::Keyboard => "hid",
            Self::Acm => "acm",
            Self::Ncm => "ncm",
        }
    }

    /// Vendor and product, when a gadget does nothing else: what the kernel's own gadgets call themselves.
    pub(super) fn ids(&self) -> (u16, u16) {
        match self {
            Self::SourceSink | Self::Loopback => (0x0525, 0xa4a0),
            Self::MassStorage { .. } => (0x0525, 0xa4a5),
            Self::Keyboard => (0x0525, 0xa4ac),
            Self::Acm => (0x0525, 0xa4a7),
            Self::Ncm => (0x0525, 0xa4a1),
        }
    }

    /// What is set before it can be bound.
    pub(super) fn attributes(&self) -> Result<Vec<Attribute>> {
        Ok(match self {
            Self::SourceSink | Self::Loopback | Self::Acm | Self::Ncm => Vec::new(),
            Self::MassStorage { file, read_only } => {
                ensure!(!file.contains(['\'', '%', '\\']), "a quote, % or backslash in the path {file}");
                vec![("lun.0/ro", u8::from(*read_only).to_string()), ("lun.0/file", file.clone())]
            }
            Self::Keyboard => vec![
                ("protocol", "1".to_owned()),
                ("subclass", "1".to_owned()),
                ("report_length", size_of::<KeyReport>().to_string()),
                ("report_desc", KEYBOARD.iter().map(|byte| format!("\\{byte:03o}")).collect()),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyboards_descriptor_is_written_byte_for_byte() -> Result<()> {
        let attributes = Function::Keyboard.attributes()?;
        let octal =
            attributes.iter().find(|(path, _)| *path == "report_desc").map(|(_, value)| value.as_str());
        let bytes = octal.unwrap_or_default().split('\\').skip(1).map(|byte| u8::from_str_radix(byte, 8));
        assert_eq!(bytes.collect::<Result<Vec<_>, _>>()?, KEYBOARD);
        Ok(())
    }

    #[test]
    fn a_disk_is_write_protected_before_it_has_its_file_and_its_path_needs_no_quoting() -> Result<()> {
        let disk = |file: &str| Function::MassStorage { file: file.to_owned(), read_only: true }.attributes();
        assert_eq!(disk("/dev/vda")?, [("lun.0/ro", "1".to_owned()), ("lun.0/file", "/dev/vda".to_owned())]);
        for file in ["it's", "100%", "a\\b"] {
            assert!(disk(file).is_err(), "{file}");
        }
        Ok(())
    }
}
