//! Interfaces that are taken from the kernel's drivers and given back. USB 2.0 §9.1.1.5, §9.4.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::{
    keeper::{self, What},
    kernel::Kernel,
};

/// What is taken of one device.
#[derive(Debug)]
pub(super) struct Claims<K: Kernel> {
    kernel: Arc<K>,
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

impl<K: Kernel> Claims<K> {
    /// Nothing is taken yet.
    pub(super) fn new(kernel: Arc<K>) -> Self {
        let original = kernel.configuration().unwrap_or(0);
        let (settings, taken) = (BTreeMap::new(), BTreeSet::new());
        Self { kernel, original, configuration: original, settings, taken }
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
            self.kernel
                .claim(*interface)
                .with_context(|| format!("interface {interface} cannot be taken"))?;
            self.settings.entry(*interface).or_insert(0);
        }
        Ok(())
    }

    fn detach(&mut self, interface: u8) {
        self.take(What::Interface(interface));
        if self.kernel.drives(interface).unwrap_or(false)
            && let Err(error) = self.kernel.detach(interface)
        {
            tracing::warn!(interface, %error, "the kernel keeps its driver on an interface");
        }
    }

    /// Before it is: this process may be killed in between.
    fn take(&mut self, what: What) {
        if self.taken.insert(what) {
            self.kernel.taking(what);
        }
    }

    fn release(&mut self) {
        for interface in std::mem::take(&mut self.settings).into_keys() {
            // It may be gone with its device.
            let _ = self.kernel.release(interface);
        }
    }

    /// Chooses a configuration, and takes all its interfaces; 0 releases them and leaves the device as it is.
    ///
    /// # Errors
    /// The device or the kernel refuses.
    pub(super) fn configure(&mut self, value: u8, interfaces: &[u8]) -> Result<()> {
        self.release();
        if value == 0 {
            return Ok(());
        }
        let interface = |what: &What| if let What::Interface(number) = what { Some(*number) } else { None };
        let interfaces_before: Vec<u8> = self.taken.iter().filter_map(interface).collect();
        // The kernel refuses while a driver has an interface; setting the same one again resets halts and toggles.
        interfaces_before.into_iter().for_each(|interface| self.detach(interface));
        if value != self.original && self.original != 0 {
            self.take(What::Configuration(self.original));
        }
        self.kernel.configure(value)?;
        self.configuration = value;
        self.claim(interfaces)
    }

    /// Chooses an alternate setting.
    ///
    /// # Errors
    /// There is none, or the bus has no bandwidth left for it.
    pub(super) fn choose(&mut self, interface: u8, setting: u8) -> rusb::Result<()> {
        self.kernel.choose(interface, setting)?;
        self.settings.insert(interface, setting);
        Ok(())
    }

    /// Every interface has its first setting again.
    fn choose_first(&mut self) {
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

    /// Resets it: every interface has its first setting then, and nothing has happened to it yet.
    ///
    /// # Errors
    /// It comes back as another device, or not at all, or somebody else has an interface by now. Nothing is claimed
    /// then: nobody says what still is.
    pub(super) fn reset(&mut self) -> rusb::Result<()> {
        if let Err(error) = self.kernel.reset() {
            self.release();
            return Err(error);
        }
        self.choose_first();
        if self.taken.remove(&What::Untouched) {
            self.kernel.gave(What::Untouched);
        }
        Ok(())
    }

    /// Whether everything of the configuration is claimed.
    pub(super) fn has(&self, interfaces: &[u8]) -> bool {
        interfaces.iter().all(|interface| self.settings.contains_key(interface))
    }
}

impl<K: Kernel> Drop for Claims<K> {
    /// The device goes back to its own computer.
    fn drop(&mut self) {
        self.release();
        // A used device goes back as if it were plugged in: no driver knows what to do with the middle of a command.
        // Then the configuration, with which the kernel finds the drivers anew.
        for what in std::mem::take(&mut self.taken) {
            // The device, or the interface with its configuration, may be gone; or it never had a driver.
            let _ = keeper::give_back(&*self.kernel, what);
            self.kernel.gave(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::log::Log, *};

    #[test]
    fn every_interface_goes_back_whether_a_driver_had_it_or_was_yet_to_find_it() {
        let kernel = Log::new(&[0]);
        let mut claims = Claims::new(Arc::clone(&kernel));
        claims.claim(&[0, 1]).unwrap();
        let taken = ["taking Interface(0)", "detach 0", "claim 0", "taking Interface(1)", "claim 1"];
        assert_eq!(kernel.said(), taken, "it is said before it is done");
        drop(claims);
        let attached = ["attach 0", "gave Interface(0)", "attach 1", "gave Interface(1)"];
        assert_eq!(kernel.said(), [&["release 0", "release 1"][..], &attached].concat());
    }

    #[test]
    fn a_configuration_that_its_own_computer_did_not_choose_is_undone() {
        let kernel = Log::new(&[]);
        let mut claims = Claims::new(Arc::clone(&kernel));
        claims.configure(1, &[]).unwrap();
        assert_eq!(kernel.said(), ["configure 1"], "that is the one it had");
        claims.configure(2, &[]).unwrap();
        assert_eq!(kernel.said(), ["taking Configuration(1)", "configure 2"]);
        drop(claims);
        assert_eq!(kernel.said(), ["configure 1", "gave Configuration(1)"]);
    }

    #[test]
    fn a_used_device_is_reset_before_anybody_else_has_it_and_an_unused_one_is_not() {
        let kernel = Log::new(&[]);
        let mut claims = Claims::new(Arc::clone(&kernel));
        claims.claim(&[3]).unwrap();
        claims.use_it();
        claims.use_it();
        claims.reset().unwrap();
        assert!(!claims.is_used());
        let said = kernel.said();
        assert_eq!(said[2..], ["taking Untouched", "reset", "gave Untouched"]);
        claims.use_it();
        kernel.said();
        drop(claims);
        let last = ["release 3", "reset", "gave Untouched", "attach 3", "gave Interface(3)"];
        assert_eq!(kernel.said(), last);
    }
    #[test]
    fn after_a_reset_that_failed_nothing_counts_as_claimed_and_everything_is_claimed_anew() {
        let kernel = Log::new(&[]);
        let mut claims = Claims::new(Arc::clone(&kernel));
        claims.claim(&[0, 1]).unwrap();
        claims.use_it();
        kernel.said();
        *kernel.fatal.lock().unwrap() = Some(rusb::Error::NotFound);
        assert_eq!(claims.reset(), Err(rusb::Error::NotFound));
        assert_eq!(kernel.said(), ["reset", "release 0", "release 1"]);
        assert!(claims.is_used() && !claims.has(&[0]), "a configuration is not what it has already");
        // Meanwhile a driver has found one of them.
        kernel.driven.lock().unwrap().insert(1);
        claims.configure(1, &[0, 1]).unwrap();
        assert_eq!(kernel.said(), ["detach 1", "configure 1", "claim 0", "claim 1"]);
        assert!(claims.has(&[0, 1]));
    }
}
