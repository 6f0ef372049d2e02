//! The sound systems of this computer: a sound server that people have chosen, then what it is made of. Each is asked in a
//! thread of its own, and not for ever: one that hangs keeps nobody from the others.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use cpal::{
    Device, Host, HostId,
    traits::{DeviceTrait, HostTrait},
};

use super::Way;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how long one that gave none is left alone.
const REST: Duration = Duration::from_secs(60);

/// A sound system that was asked before: kept while it answers, as who looks for a card each second does not connect each
/// second.
struct Known {
    id: HostId,
    host: Option<Arc<Host>>,
    rests_until: Option<Instant>,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// A sound system that answers, and its devices.
pub(super) struct System {
    host: Arc<Host>,
    pub(super) devices: Vec<Device>,
}

impl System {
    /// By the connection that there is, or by another one.
    fn open(id: HostId, known: Option<Arc<Host>>) -> Option<Self> {
        let list = |host: Arc<Host>| {
            let devices = host.devices().ok()?.collect();
            Some(Self { host, devices })
        };
        known.and_then(list).or_else(|| cpal::host_from_id(id).ok().map(Arc::new).and_then(list))
    }

    /// The device that it takes if none is named. What records what another device plays is none to listen to: PulseAudio
    /// takes it where there is no microphone.
    fn default_device(&self, way: Way) -> Option<Device> {
        let host = Arc::clone(&self.host);
        let device = within(move || match way {
            Way::Out => host.default_output_device(),
            Way::In => host.default_input_device(),
        })?;
        device.filter(|device| !id(device).is_some_and(|name| name.ends_with(".monitor")))
    }
}

/// The answer, if it comes in time.
fn within<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, waits) = mpsc::channel();
    thread::spawn(move || drop(answer.send(ask())));
    waits.recv_timeout(PATIENCE).ok()
}

/// Those that answer, in order.
pub(super) fn systems() -> Vec<System> {
    cpal::available_hosts().into_iter().filter_map(system).collect()
}

fn system(id: HostId) -> Option<System> {
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known().iter().find(|known| known.id == id).map(|it| (it.host.clone(), it.rests_until));
    let (host, rests_until) = before.unwrap_or_default();
    if rests_until.is_some_and(|until| Instant::now() < until) {
        return None;
    }
    let answer = within(move || System::open(id, host));
    let rests_until = answer.is_none().then(|| Instant::now() + REST);
    if rests_until.is_some() {
        tracing::warn!("{id} does not answer: it is left alone for a minute");
    }
    let system = answer.flatten();
    let host = system.as_ref().map(|system| Arc::clone(&system.host));
    let mut known = known();
    known.retain(|known| known.id != id);
    known.push(Known { id, host, rests_until });
    system
}

/// The devices of all of them.
pub(super) fn devices() -> Result<impl Iterator<Item = Device>> {
    let systems = systems();
    ensure!(!systems.is_empty(), "no sound system of this computer answers");
    Ok(systems.into_iter().flat_map(|system| system.devices))
}

/// The device that is taken if none is named. Who listens asks the first one only: what the others have is the same cards,
/// or what the first one gives them.
pub(super) fn default_device(way: Way) -> Result<Device> {
    let systems = systems();
    let asked = if way == Way::In { systems.get(..1).unwrap_or_default() } else { &systems[..] };
    asked
        .iter()
        .find_map(|system| system.default_device(way))
        .context("this computer has no sound card; `farbus-remote devices` lists what there is")
}

/// The sound system's own name of a device.
pub(super) fn id(device: &Device) -> Option<String> {
    device.id().ok().map(|id| id.id().to_owned())
}
