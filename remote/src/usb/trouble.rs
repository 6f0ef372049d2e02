//! Why a device cannot be lent, and what its user can do about it.

use super::which::Device;

/// A device did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What went wrong.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) next: String,
    /// Whether it may pass by itself: a device that has just been plugged in may not be the user's yet, and may be
    /// looked at by others.
    pub(crate) may_pass: bool,
}

impl Trouble {
    /// Reads an error of opening this device.
    pub(crate) fn new(error: &anyhow::Error, device: &Device) -> Self {
        let (port, id) = (device.bus_port(), device.id());
        let usb = error.chain().find_map(|cause| cause.downcast_ref::<rusb::Error>());
        let lend = format!("then `farbus-remote lend {port}`, or plug it again");
        let (reason, next, may_pass) = match usb {
            Some(rusb::Error::Access) => (
                format!("no permission to open it ({error:#})"),
                format!("give yourself the permission by {}, {lend}", udev(device)),
                true,
            ),
            Some(rusb::Error::Busy) => (
                format!("a driver or another program has it ({error:#})"),
                format!("end what uses it (`lsof /dev/bus/usb/*/*` lists programs), {lend}"),
                true,
            ),
            Some(rusb::Error::NoDevice | rusb::Error::NotFound) => {
                (format!("it is gone ({error:#})"), "plug it again".to_owned(), false)
            }
            Some(rusb::Error::NoMem) => (
                format!("the kernel has no memory for USB left ({error:#})"),
                format!("write a larger number to /sys/module/usbcore/parameters/usbfs_memory_mb, {lend}"),
                false,
            ),
            _ => (
                format!("{error:#}"),
                format!("plug it again; if it stays so, look at `lsusb -v -d {id}`"),
                false,
            ),
        };
        Self { reason, next, may_pass }
    }
}

/// A rule for whoever sits at this computer, in a file that comes before the rule that reads the tag.
fn udev(device: &Device) -> String {
    format!(
        "the line `SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{:04x}\", ATTR{{idProduct}}==\"{:04x}\", TAG+=\"uaccess\"` in /etc/udev/rules.d/70-farbus.rules and `udevadm control --reload`",
        device.vendor, device.product
    )
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;
    use crate::tests::usb_device;

    #[test]
    fn a_reason_comes_with_its_next_step() {
        let device = usb_device("1-2", 8);
        for (error, reason, next, may_pass) in [
            (rusb::Error::Access, "permission", "ATTR{idVendor}==\"1234\", ATTR{idProduct}==\"0008\"", true),
            (rusb::Error::Busy, "driver", "farbus-remote lend 1-2", true),
            (rusb::Error::NoDevice, "gone", "plug it again", false),
            (rusb::Error::NoMem, "memory", "usbfs_memory_mb", false),
            (rusb::Error::Io, "Input/Output", "lsusb -v -d 1234:0008", false),
        ] {
            let error = Err::<(), _>(error).context("claiming interface 0").unwrap_err();
            let trouble = Trouble::new(&error, &device);
            assert!(trouble.reason.contains(reason), "{trouble:?}");
            assert!(trouble.next.contains(next), "{trouble:?}");
            assert_eq!(trouble.may_pass, may_pass, "{trouble:?}");
        }
        assert_eq!(Trouble::new(&anyhow!("odd"), &device).reason, "odd");
    }
}
