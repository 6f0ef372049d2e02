//! `farbus-remote devices`: what this computer has.

use anyhow::{Context as _, Result};
use rusb::{Context, UsbContext};
use serde::Serialize;

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
    bus: u8,
    address: u8,
    id: String,
    speed: String,
    name: String,
}

/// Looks at the buses.
pub(crate) fn look() -> Devices {
    let mut devices = Devices::default();
    match usb() {
        Ok(found) if found.is_empty() => {
            devices.notes.push("no USB devices: this computer has no USB bus".into())
        }
        Ok(found) => devices.usb = found,
        Err(error) => devices.notes.push(format!("USB cannot be listed: {error:#}")),
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
        for Usb { bus, address, id, speed, name } in &self.usb {
            println!("usb    {bus:03}/{address:03}  {id}  {speed:<10}  {name}");
        }
        for name in &self.sound {
            println!("sound  {name}");
        }
        for note in &self.notes {
            println!("note   {note}");
        }
        if !self.usb.is_empty() {
            println!(
                "note   real USB devices are only listed yet; `connect --keyboard --disk FILE` lends software ones"
            );
        }
    }
}

fn usb() -> Result<Vec<Usb>> {
    let mut found = Vec::new();
    // A context of our own: the global one panics where there is no USB bus.
    let context = Context::new().context("this computer has no USB bus that libusb can see")?;
    for device in context.devices()?.iter() {
        let descriptor = device.device_descriptor()?;
        // Without the right to open it a device has only its numbers.
        let name = device.open().ok().and_then(|handle| {
            let maker = handle.read_manufacturer_string_ascii(&descriptor).unwrap_or_default();
            let product = handle.read_product_string_ascii(&descriptor).ok()?;
            Some(format!("{maker} {product}").trim().to_owned())
        });
        found.push(Usb {
            bus: device.bus_number(),
            address: device.address(),
            id: format!("{:04x}:{:04x}", descriptor.vendor_id(), descriptor.product_id()),
            speed: format!("{:?}", device.speed()),
            name: name.unwrap_or_else(|| "(no permission to read its name)".into()),
        });
    }
    Ok(found)
}

#[cfg(feature = "cpal")]
fn sound() -> Result<Vec<String>> {
    Ok(crate::sound::outputs()?.into_iter().map(|(_, name)| name).collect())
}

#[cfg(not(feature = "cpal"))]
fn sound() -> Result<Vec<String>> {
    anyhow::bail!("this build has no sound cards (feature `cpal`)")
}
