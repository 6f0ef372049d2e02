//! What is lent: the functions behind the ports, and the threads they run on.

use std::time::Duration;

use actix::prelude::*;
use anyhow::Result;
use functions::{Disk, Full, Function, Keyboard, Pattern, Stroke, Zero};
use tokio::sync::mpsc;
use wire::{control::Attachment, usb::DeviceId};

use crate::{
    cli::{Connect, UsbSpeed},
    events::{Event, Events},
    lent::Lent,
    medium::FileMedium,
    port::{Ended, Ends, Parts, UsbPort},
    remote::{Leave, Remote},
    typing::{self, RawMode, Typed},
};

/// How long a key waits before it tries a full keyboard again: the host reads a report a millisecond at best.
const FULL: Duration = Duration::from_millis(50);

/// Makes everything that the command line asks for.
///
/// # Errors
/// A disk's file cannot be opened, or the terminal cannot be used.
pub(crate) fn prepare(
    connect: &Connect,
    events: Events,
    ends: &Ends<mpsc::Sender<Ended>>,
    remote: &Addr<Remote>,
) -> Result<(Vec<Lent>, Option<RawMode>)> {
    let mut lent = Vec::new();
    for disk in connect.disk.clone() {
        let port = lent.len();
        let name = format!("disk {}", disk.file.display());
        let make = move || Ok(Disk::new(FileMedium::open(&disk)?, &format!("FA4B05{:06}", port + 1)));
        let (function, attachment) = first(make(), name)?;
        let parts = Parts { port, make: Box::new(make), watch: Box::new(|_| ()), ends: ends.clone() };
        // A slow disk is a thread of its own.
        let thread = Arbiter::new().handle();
        let port = UsbPort::start_in_arbiter(&thread, move |_| UsbPort::new(function, parts));
        lent.push(Lent::new(port.recipient(), attachment));
    }
    if let Some(speed) = connect.gadget_zero {
        let make = move || {
            Ok(match speed {
                UsbSpeed::High => Zero::high_speed(Pattern::Zeros),
                UsbSpeed::Super => Zero::new(Pattern::Zeros),
            })
        };
        let (function, attachment) = first(make(), "gadget zero".to_owned())?;
        let parts =
            Parts { port: lent.len(), make: Box::new(make), watch: Box::new(|_| ()), ends: ends.clone() };
        lent.push(Lent::new(UsbPort::new(function, parts).start().recipient(), attachment));
    }
    let mut terminal = None;
    if connect.keyboard {
        let (keyboard, attachment) = first(Ok(Keyboard::new()), "keyboard".to_owned())?;
        let watch = Box::new(watch(events));
        let make = Box::new(|| Ok(Keyboard::new()));
        let port =
            UsbPort::new(keyboard, Parts { port: lent.len(), make, watch, ends: ends.clone() }).start();
        let (typed, mode) = typing::start()?;
        terminal = mode;
        actix::spawn(type_into(port.clone(), typed, events, remote.clone()));
        lent.push(Lent::new(port.recipient(), attachment));
    }
    Ok((lent, terminal))
}

fn first<F: Function>(function: Result<F>, name: String) -> Result<(F, Attachment)> {
    let function = function?;
    let (vendor, product) = function.id();
    let (speed, profile) = (function.speed(), function.profile());
    let attachment = Attachment { device: DeviceId(0), speed, vendor, product, name, profile };
    Ok((function, attachment))
}

/// Says which presses the VM has read, and which LEDs it sets.
fn watch(events: Events) -> impl FnMut(&Keyboard) + Send {
    let (mut sent, mut before, mut leds) = (0, 0, 0);
    move |keyboard| {
        // A keyboard that was made again counts from 0.
        let read = keyboard.presses_read();
        before = if read < before { 0 } else { before };
        for _ in before..read {
            sent += 1;
            events.say(&Event::KeySent { press: sent });
        }
        before = read;
        if leds != keyboard.leds() {
            leds = keyboard.leds();
            events.say(&Event::Leds { leds });
        }
    }
}

/// Presses a key on the lent keyboard, for the `press`th time.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Full>")]
struct Press {
    stroke: Stroke,
    press: u64,
    events: Events,
}

impl Handler<Press> for UsbPort<Keyboard> {
    type Result = Result<(), Full>;

    fn handle(&mut self, Press { stroke, press, events }: Press, ctx: &mut Self::Context) -> Self::Result {
        let pressed = self.turn(ctx, |keyboard| {
            keyboard.press(stroke)?;
            events.say(&Event::Key { press, modifiers: stroke.modifiers, usage: stroke.usage });
            Ok(())
        });
        pressed.unwrap_or(Err(Full))
    }
}

/// Passes keys on, one after the other; none is lost when the keyboard is full.
async fn type_into(
    port: Addr<UsbPort<Keyboard>>,
    mut typed: mpsc::Receiver<Typed>,
    events: Events,
    remote: Addr<Remote>,
) {
    let mut press = 0;
    while let Some(what) = typed.recv().await {
        match what {
            Typed::Stroke(stroke) => {
                press += 1;
                while let Ok(Err(Full)) = port.send(Press { stroke, press, events }).await {
                    tokio::time::sleep(FULL).await;
                }
            }
            Typed::Wait(time) => tokio::time::sleep(time).await,
            Typed::Leave => return remote.do_send(Leave),
        }
    }
}
