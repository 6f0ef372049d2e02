//! Interfaces that are taken from the kernel's drivers and given back. USB 2.0 §9.1.1.5, §9.4.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rusb::{DeviceHandle, UsbContext};

use super::keeper::{self, What};

/// What is taken of one device.
#[derive(Debug)]
pub(super) struct Claims<T: UsbContext> {
    handle: Arc<DeviceHandle<T>>,
    /// The configuration it had when it came; what its own computer chose.
    original: u8,
    /// The configuration it has; 0 for none.
    configuration: u8,
    /// Claimed interfaces, and their alternate settings.
    settings: BTreeMap<u8, u8>,
    /// Everything that was taken of its own computer, whether a driver had it yet or not: one that is just being
    /// plugged in may have none.
    taken: BTreeSet<What>,
}

impl<T: UsbContext> Claims<T> {
    /// Nothing is taken yet.
    pub(super) fn new(handle: Arc<DeviceHandle<T>>) -> Self {
        let original = handle.active_configuration().unwrap_or(0);
        let (settings, taken) = (BTreeMap::new(), BTreeSet::new());
        Self { handle, original, configuration: original, settings, taken }
    }

    /// The configuration it has; 0 for none.
    pub(super) fn configuration(&self) -> u8 {
        self.configuration
    }

    /// Takes these interfaces from whoever has them.
    ///
    /// # Errors
    /// One of them cannot be had; the others are.
    pub(super) fn claim(&mut self, interfaces: &[u8]) -> Result<()> {
        for interface in interfaces {
            self.detach(*interface);
            self.handle
                .claim_interface(*interface)
                .with_context(|| format!("interface {interface} cannot be taken"))?;
            self.settings.entry(*interface).or_insert(0);
        }
        Ok(())
    }

    fn detach(&mut self, interface: u8) {
        self.take(What::Interface(interface));
        if self.handle.kernel_driver_active(interface).unwrap_or(false)
            && let Err(error) = self.handle.detach_kernel_driver(interface)
        {
            tracing::warn!(interface, %error, "the kernel keeps its driver on an interface");
        }
    }

    /// Before it is: this process may be killed in between.
    fn take(&mut self, what: What) {
        if self.taken.insert(what) {
            keeper::take(&self.handle.device(), what);
        }
    }

    fn release(&mut self) {
        for interface in std::mem::take(&mut self.settings).into_keys() {
            // It may be gone with its device.
            let _ = self.handle.release_interface(interface);
        }
    }

    /// Chooses a configuration, and takes all its interfaces; 0 releases them and leaves the device as it is.
    ///
    /// # Errors
    /// The device or the kernel refuses.
    pub(super) fn configure(&mut self, value: u8, interfaces: &[u8]) -> Result<()> {
        let claimed: Vec<u8> = self.settings.keys().copied().collect();
        self.release();
        if value == 0 {
            return Ok(());
        }
        // The kernel refuses while a driver has an interface; setting the same one again resets halts and toggles.
        claimed.into_iter().for_each(|interface| self.detach(interface));
        if value != self.original && self.original != 0 {
            self.take(What::Configuration(self.original));
        }
        self.handle.set_active_configuration(value)?;
        self.configuration = value;
        self.claim(interfaces)
    }

    /// Chooses an alternate setting.
    ///
    /// # Errors
    /// There is none, or the bus has no bandwidth left for it.
    pub(super) fn choose(&mut self, interface: u8, setting: u8) -> rusb::Result<()> {
        self.handle.set_alternate_setting(interface, setting)?;
        self.settings.insert(interface, setting);
        Ok(())
    }

    /// Every interface has its first setting again.
    pub(super) fn choose_first(&mut self) {
        let others: Vec<u8> = self.settings.iter().filter(|(_, s)| **s != 0).map(|(i, _)| *i).collect();
        for interface in others {
            if let Err(error) = self.choose(interface, 0) {
                tracing::warn!(interface, %error, "an interface keeps its alternate setting");
            }
        }
    }

    /// Something happens to it that only a reset undoes.
    pub(super) fn use_it(&mut self) {
        self.take(What::Untouched);
    }

    /// Whether that was said since it was last new.
    pub(super) fn is_used(&self) -> bool {
        self.taken.contains(&What::Untouched)
    }

    /// It was reset.
    pub(super) fn is_new(&mut self) {
        if self.taken.remove(&What::Untouched) {
            keeper::given_back(&self.handle.device(), What::Untouched);
        }
    }

    /// Whether everything of the configuration is claimed.
    pub(super) fn has(&self, interfaces: &[u8]) -> bool {
        interfaces.iter().all(|interface| self.settings.contains_key(interface))
    }
}

impl<T: UsbContext> Drop for Claims<T> {
    /// The device goes back to its own computer.
    fn drop(&mut self) {
        self.release();
        // A used device goes back as if it were plugged in: no driver knows what to do with the middle of a command.
        // Then the configuration, with which the kernel finds the drivers anew.
        for what in std::mem::take(&mut self.taken) {
            // The device, or the interface with its configuration, may be gone; or it never had a driver.
            let _ = keeper::give_back(&self.handle, what);
            keeper::given_back(&self.handle.device(), what);
        }
    }
}
