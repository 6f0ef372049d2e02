//! What claims ask of the kernel about one device: libusb, or a test.

use rusb::{DeviceHandle, Result, UsbContext};

use super::keeper::{self, What};

/// The kernel, as one device has it.
pub(super) trait Kernel {
    /// The value of the configuration that is chosen; 0 for none.
    fn configuration(&self) -> Result<u8>;

    /// The interfaces of the configuration that is chosen.
    fn interfaces(&self) -> Vec<u8>;

    /// Chooses a configuration; the kernel then looks for drivers. It refuses while anybody has an interface.
    fn configure(&self, value: u8) -> Result<()>;

    /// Chooses an alternate setting.
    fn choose(&self, interface: u8, setting: u8) -> Result<()>;

    /// Whether one of its drivers has an interface.
    fn drives(&self, interface: u8) -> Result<bool>;

    /// Takes an interface from its driver.
    fn detach(&self, interface: u8) -> Result<()>;

    /// Looks for a driver for an interface.
    fn attach(&self, interface: u8) -> Result<()>;

    /// Gives an interface to this process.
    fn claim(&self, interface: u8) -> Result<()>;

    /// Takes it away again.
    fn release(&self, interface: u8) -> Result<()>;

    /// Resets the device.
    fn reset(&self) -> Result<()>;

    /// Tells whoever gives it back, should this process be killed: this is about to be taken.
    fn taking(&self, what: What);

    /// This was given back.
    fn gave(&self, what: What);
}

impl<T: UsbContext> Kernel for DeviceHandle<T> {
    fn configuration(&self) -> Result<u8> {
        self.active_configuration()
    }

    fn interfaces(&self) -> Vec<u8> {
        let active = self.device().active_config_descriptor();
        active.map(|active| active.interfaces().map(|i| i.number()).collect()).unwrap_or_default()
    }

    fn configure(&self, value: u8) -> Result<()> {
        self.set_active_configuration(value)
    }

    fn choose(&self, interface: u8, setting: u8) -> Result<()> {
        self.set_alternate_setting(interface, setting)
    }

    fn drives(&self, interface: u8) -> Result<bool> {
        self.kernel_driver_active(interface)
    }

    fn detach(&self, interface: u8) -> Result<()> {
        self.detach_kernel_driver(interface)
    }

    fn attach(&self, interface: u8) -> Result<()> {
        self.attach_kernel_driver(interface)
    }

    fn claim(&self, interface: u8) -> Result<()> {
        self.claim_interface(interface)
    }

    fn release(&self, interface: u8) -> Result<()> {
        self.release_interface(interface)
    }

    fn reset(&self) -> Result<()> {
        Self::reset(self)
    }

    fn taking(&self, what: What) {
        keeper::take(&self.device(), what);
    }

    fn gave(&self, what: What) {
        keeper::given_back(&self.device(), what);
    }
}
