//! The USB bus: one libusb context with its event thread, and a watch that tells what is plugged in and out.
//!
//! ```text
//!   event thread ── hot-plug callback: only queues ──► watch thread: describes, waits for input drivers ──► Seen
//! ```
//! Without hot plug the watch thread looks each second; without any USB bus it tries each second to find one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self as raw, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rusb::{Context, Hotplug, HotplugBuilder, Registration, UsbContext};
use tokio::sync::mpsc;

use super::{
    describe::describe,
    which::{Device, Input, Kind},
};

/// How often to look where nobody tells.
const LOOK: Duration = Duration::from_secs(1);
/// How often to ask whether drivers have found a new device.
const ASK: Duration = Duration::from_millis(100);
/// How long drivers may take to find it.
const SETTLED: Duration = Duration::from_secs(1);
/// `bInterfaceClass` of wireless controllers.
const WIRELESS: u8 = 0xe0;

/// A libusb context and the thread that carries its events; every clone is the same bus. The thread ends with the last
/// clone, so transfers want a bus that outlives them.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Inner>);

struct Inner {
    context: Context,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bus {
    /// Opens a context and starts its thread.
    ///
    /// # Errors
    /// libusb finds no USB bus here, or the thread cannot be started.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let context = context()?;
        let ending = Arc::new(AtomicBool::new(false));
        let (events, over) = (context.clone(), Arc::clone(&ending));
        let carry = move || {
            while !over.load(Ordering::Acquire) {
                match events.handle_events(None) {
                    Ok(()) | Err(rusb::Error::Interrupted) => {}
                    Err(error) => {
                        tracing::warn!(%error, "handling USB events");
                        // Whatever it is, it should not take a whole core.
                        thread::park_timeout(ASK);
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("farbus-usb".into()).spawn(carry)?;
        Ok(Self(Arc::new(Inner { context, ending, thread: Some(thread) })))
    }

    /// The context.
    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.context.interrupt_handle_events();
        let Some(thread) = self.thread.take() else { return };
        // A callback may hold the last clone; the thread then ends when it returns.
        if thread.thread().id() != thread::current().id() {
            drop(thread.join());
        }
    }
}

/// What the watch has seen.
#[derive(Debug)]
pub(crate) enum Seen<H = rusb::Device<Context>> {
    /// A device is there.
    Arrived(Device, H),
    /// The device there is gone.
    Left(String),
    /// There is no USB bus, and why; should one come, its devices arrive.
    NoBus(String),
}

/// The watch; it ends when this is dropped.
pub(crate) struct Watch {
    queue: raw::Sender<Raw>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to watch: first come the devices that are there, then what happens. What waits to be read is bounded by
    /// how fast devices are plugged in and out.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start() -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Seen>)> {
        let (queue, events) = raw::channel();
        let (tell, seen) = mpsc::unbounded_channel();
        let watcher = Watcher { queue: queue.clone(), events, log: Log::new(tell) };
        let thread = thread::Builder::new().name("farbus-usb-plug".into()).spawn(move || watcher.run())?;
        Ok((Self { queue, thread: Some(thread) }, seen))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // If the thread has ended already there is nobody to tell.
        let _ = self.queue.send(Raw::End);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Every device that is there now.
///
/// # Errors
/// libusb finds no USB bus here.
pub(crate) fn list() -> anyhow::Result<Vec<Device>> {
    Ok(context()?.devices()?.iter().filter_map(|device| describe(&device).ok()).collect())
}

fn context() -> anyhow::Result<Context> {
    let wants = if cfg!(target_os = "linux") { " (it wants /dev/bus/usb)" } else { "" };
    Context::new().with_context(|| format!("libusb sees no USB bus{wants}"))
}

enum Raw {
    Arrived(rusb::Device<Context>),
    Left(rusb::Device<Context>),
    End,
}

/// The callback: libusb allows it nothing but to queue.
struct Callback(raw::Sender<Raw>);

impl Hotplug<Context> for Callback {
    fn device_arrived(&mut self, device: rusb::Device<Context>) {
        let _ = self.0.send(Raw::Arrived(device));
    }

    fn device_left(&mut self, device: rusb::Device<Context>) {
        let _ = self.0.send(Raw::Left(device));
    }
}

/// The watch thread.
struct Watcher {
    queue: raw::Sender<Raw>,
    events: raw::Receiver<Raw>,
    log: Log<rusb::Device<Context>>,
}

impl Watcher {
    fn run(mut self) {
        let Some(bus) = self.find_a_bus() else { return };
        let told = self.register(&bus);
        if told.is_none() {
            self.look(&bus);
        }
        while self.turn(&bus, told.is_some()) {}
        // First the thread that may be in the callback, then the callback.
        drop(bus);
        drop(told);
    }

    /// Lets something happen, or a while pass. Whether to go on.
    fn turn(&mut self, bus: &Bus, told: bool) -> bool {
        let wait = if self.log.settling.is_empty() { LOOK } else { ASK };
        match self.events.recv_timeout(wait) {
            Ok(Raw::Arrived(device)) => self.arrived(device),
            Ok(Raw::Left(device)) => self.log.left(key(&device)),
            Ok(Raw::End) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if told => {}
            Err(RecvTimeoutError::Timeout) => self.look(bus),
        }
        self.log.settle(Instant::now(), |device| describe(device).ok());
        true
    }

    fn find_a_bus(&mut self) -> Option<Bus> {
        let mut said = false;
        loop {
            match Bus::open() {
                Ok(bus) => return Some(bus),
                Err(error) if !said => {
                    said = true;
                    self.log.say(Seen::NoBus(format!("{error:#}")));
                }
                Err(_) => {}
            }
            match self.events.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return None,
            }
        }
    }

    /// None where libusb has no hot plug.
    fn register(&self, bus: &Bus) -> Option<Registration<Context>> {
        let mut hot_plug = HotplugBuilder::new();
        let registered = hot_plug
            .enumerate(true)
            .register::<Context, &Context>(bus.context(), Box::new(Callback(self.queue.clone())));
        registered.inspect_err(|error| tracing::info!(%error, "no hot plug; looking each second")).ok()
    }

    fn arrived(&mut self, device: rusb::Device<Context>) {
        match describe(&device) {
            Ok(described) => self.log.arrived(key(&device), described, device, Instant::now()),
            // It is gone again, or so broken that nobody can lend it.
            Err(error) => tracing::debug!(%error, ?device, "a USB device has no description"),
        }
    }

    fn look(&mut self, bus: &Bus) {
        let devices = match bus.context().devices() {
            Ok(devices) => devices,
            Err(error) => return tracing::debug!(%error, "listing USB devices"),
        };
        let there: Vec<_> = devices.iter().collect();
        for gone in self.log.missing(there.iter().map(key)) {
            self.log.left(gone);
        }
        for device in there {
            if !self.log.known(key(&device)) {
                self.arrived(device);
            }
        }
    }
}

/// Bus and address: no two devices have the same at the same time.
type Key = (u8, u8);

fn key(device: &rusb::Device<Context>) -> Key {
    (device.bus_number(), device.address())
}

/// What was told: each device arrives once and leaves once, in this order, and a port has one device at a time.
struct Log<H> {
    tell: mpsc::UnboundedSender<Seen<H>>,
    there: BTreeMap<Key, String>,
    /// Devices whose drivers have not said what they are, and until when they may.
    settling: Vec<(Key, Device, H, Instant)>,
}

impl<H> Log<H> {
    fn new(tell: mpsc::UnboundedSender<Seen<H>>) -> Self {
        Self { tell, there: BTreeMap::new(), settling: Vec::new() }
    }

    fn say(&self, seen: Seen<H>) {
        // If nobody listens, the watch is about to end.
        let _ = self.tell.send(seen);
    }

    fn known(&self, key: Key) -> bool {
        self.there.contains_key(&key)
    }

    fn missing(&self, there: impl Iterator<Item = Key>) -> Vec<Key> {
        let there: Vec<Key> = there.collect();
        self.there.keys().filter(|key| !there.contains(key)).copied().collect()
    }

    fn arrived(&mut self, key: Key, device: Device, handle: H, now: Instant) {
        // libusb may tell of a device twice when it is plugged in while the watch begins.
        if self.known(key) {
            return;
        }
        let port = device.bus_port();
        let before = self.there.iter().find(|(_, there)| **there == port).map(|(key, _)| *key);
        before.into_iter().for_each(|before| self.left(before));
        self.there.insert(key, port);
        if settled(&device) {
            return self.say(Seen::Arrived(device, handle));
        }
        self.settling.push((key, device, handle, now + SETTLED));
    }

    fn left(&mut self, key: Key) {
        let Some(port) = self.there.remove(&key) else { return };
        let waiting = self.settling.len();
        self.settling.retain(|(settling, ..)| *settling != key);
        if self.settling.len() == waiting {
            self.say(Seen::Left(port));
        }
    }

    /// Describes again what has not settled; what had its time goes as it is.
    fn settle(&mut self, now: Instant, again: impl Fn(&H) -> Option<Device>) {
        for (key, device, handle, until) in std::mem::take(&mut self.settling) {
            let device = again(&handle).unwrap_or(device);
            if settled(&device) || until <= now {
                self.say(Seen::Arrived(device, handle));
            } else {
                self.settling.push((key, device, handle, until));
            }
        }
    }
}

/// Whether waiting tells nothing more: only drivers know whether a HID device is input, what a maker's own device is
/// (a touch screen, a Bluetooth adapter), and what a wireless controller carries. That one is not is never sure before
/// its time is up: Linux names a driver before that has done its work.
fn settled(device: &Device) -> bool {
    let told_by_drivers = [Kind::Hid, Kind::Vendor, Kind::Number(WIRELESS)];
    device.is_hub() || device.input == Input::Yes || !told_by_drivers.iter().any(|kind| device.is(*kind))
}

#[cfg(test)]
mod tests;
