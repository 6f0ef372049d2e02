//! `farbus-remote devices`: what this computer has, what of it would be lent, and why not.

use serde::Serialize;

use crate::usb::{
    bus,
    which::{Decision, Device, Selector, decide},
};

/// Everything that was found, and what could not be looked at.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Devices {
    usb: Vec<Usb>,
    sound: Vec<String>,
    notes: Vec<String>,
}

/// One USB device.
#[derive(Debug, Serialize)]
struct Usb {
    bus_port: String,
    id: String,
    speed: String,
    classes: Vec<String>,
    name: String,
    serial: Option<String>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Whether it would be lent.
#[derive(Debug, Serialize)]
struct Verdict {
    would_be_lent: bool,
    reason: String,
}

impl Usb {
    fn new(asked: &[Selector], device: &Device) -> Self {
        let (would_be_lent, reason) = match decide(asked, device) {
            Decision::Lend { because } => (true, because),
            Decision::Keep { why } => (false, why),
        };
        Self {
            bus_port: device.bus_port(),
            id: device.id(),
            speed: device.speed.map_or("unknown".into(), |speed| format!("{speed:?}").to_lowercase()),
            classes: device.class_names(),
            name: device.title(),
            serial: device.serial.clone(),
            verdict: Verdict { would_be_lent, reason },
        }
    }
}

/// Looks at the buses; `asked` is what `connect --usb` would be given.
pub(crate) fn look(asked: &[Selector]) -> Devices {
    let mut devices = Devices::default();
    match bus::list() {
        Ok(found) if found.is_empty() => {
            devices.notes.push("no USB devices: this computer has no USB bus".into())
        }
        Ok(mut found) => {
            found.sort_by_key(|device| (device.bus, device.ports.clone()));
            devices.usb = found.iter().map(|device| Usb::new(asked, device)).collect();
        }
        Err(error) => devices.notes.push(format!("no USB devices: {error:#}")),
    }
    match sound() {
        Ok(found) if found.is_empty() => devices.notes.push("no sound card".into()),
        Ok(found) => devices.sound = found,
        Err(error) => devices.notes.push(format!("sound cards cannot be listed: {error:#}")),
    }
    devices
}

impl Devices {
    /// Lines for people.
    pub(crate) fn print(&self) {
        for Usb { bus_port, id, speed, classes, name, verdict, .. } in &self.usb {
            let Verdict { would_be_lent, reason } = verdict;
            let verdict = if *would_be_lent { "would be lent: because" } else { "kept:" };
            println!("usb    {bus_port:<8}  {id}  {speed:<7}  {:<16}  {name}", classes.join(" "));
            println!("                 {verdict} {reason}");
        }
        for name in &self.sound {
            println!("sound  {name}");
        }
        for note in &self.notes {
            println!("note   {note}");
        }
    }
}

#[cfg(feature = "cpal")]
fn sound() -> anyhow::Result<Vec<String>> {
    crate::sound::names()
}

#[cfg(not(feature = "cpal"))]
fn sound() -> anyhow::Result<Vec<String>> {
    anyhow::bail!("this build has no sound cards (feature `cpal`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::usb_device;

    #[test]
    fn a_device_is_shown_with_its_verdict() {
        let asked = ["class=storage".parse().unwrap()];
        for (class, lent, reason) in [(8, true, "`class=storage` matches it"), (7, false, "not asked for")] {
            let shown = serde_json::to_value(Usb::new(&asked, &usb_device("1-2", class))).unwrap();
            assert_eq!((&shown["bus_port"], &shown["speed"]), (&"1-2".into(), &"high".into()));
            assert_eq!(shown["would_be_lent"], lent, "{shown}");
            assert!(shown["reason"].as_str().unwrap().contains(reason), "{shown}");
        }
    }
}
