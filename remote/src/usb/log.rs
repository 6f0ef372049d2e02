//! A kernel for tests, which writes down what it is asked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use super::{keeper::What, kernel::Kernel};

/// The kernel. The configuration that is chosen has the interfaces 0 and 1.
pub(super) struct Log {
    said: Mutex<Vec<String>>,
    configuration: AtomicU8,
    /// Interfaces that its drivers have.
    pub(super) driven: Mutex<BTreeSet<u8>>,
    /// What a reset comes to, if it fails.
    pub(super) fatal: Mutex<Option<rusb::Error>>,
    /// Interfaces that another process has.
    pub(super) theirs: Mutex<BTreeSet<u8>>,
}

impl Log {
    pub(super) fn new(driven: &[u8]) -> Arc<Self> {
        let driven = Mutex::new(driven.iter().copied().collect());
        Arc::new(Self {
            said: Mutex::default(),
            configuration: AtomicU8::new(1),
            driven,
            fatal: Mutex::default(),
            theirs: Mutex::default(),
        })
    }

    fn say(&self, line: String) {
        self.said.lock().unwrap().push(line);
    }

    /// What was said since this was last asked.
    pub(super) fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

impl Kernel for Log {
    fn configuration(&self) -> rusb::Result<u8> {
        Ok(self.configuration.load(Relaxed))
    }

    fn interfaces(&self) -> Vec<u8> {
        vec![0, 1]
    }

    fn configure(&self, value: u8) -> rusb::Result<()> {
        self.configuration.store(value, Relaxed);
        self.say(format!("configure {value}"));
        Ok(())
    }

    fn choose(&self, interface: u8, setting: u8) -> rusb::Result<()> {
        self.say(format!("choose {interface} {setting}"));
        Ok(())
    }

    fn drives(&self, interface: u8) -> rusb::Result<bool> {
        Ok(self.driven.lock().unwrap().contains(&interface))
    }

    fn detach(&self, interface: u8) -> rusb::Result<()> {
        self.driven.lock().unwrap().remove(&interface);
        self.say(format!("detach {interface}"));
        Ok(())
    }

    fn attach(&self, interface: u8) -> rusb::Result<()> {
        self.say(format!("attach {interface}"));
        Err(rusb::Error::NotFound)
    }

    fn claim(&self, interface: u8) -> rusb::Result<()> {
        self.say(format!("claim {interface}"));
        let has = |of: &Mutex<BTreeSet<u8>>| of.lock().unwrap().contains(&interface);
        if has(&self.driven) || has(&self.theirs) { Err(rusb::Error::Busy) } else { Ok(()) }
    }

    fn release(&self, interface: u8) -> rusb::Result<()> {
        self.say(format!("release {interface}"));
        Ok(())
    }

    fn reset(&self) -> rusb::Result<()> {
        self.say("reset".to_owned());
        self.fatal.lock().unwrap().map_or(Ok(()), Err)
    }

    fn taking(&self, what: What) {
        self.say(format!("taking {what:?}"));
    }

    fn gave(&self, what: What) {
        self.say(format!("gave {what:?}"));
    }
}
