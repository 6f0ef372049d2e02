//! What is lent: the functions behind the ports, and the threads they run on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use functions::{Disk, Full, Function, Keyboard, Pattern, Stroke, Zero};
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::{
    cli::{Connect, UsbSpeed},
    events::{Event, Events},
    lender::Opener,
    lent::Lent,
    medium::FileMedium,
    port::{Ended, Ends, Open, Parts, PortId, UsbPort},
    remote::{Leave, Remote},
    typing::{self, RawMode, Typed},
    usb,
};

/// How long a key waits before it tries a full keyboard again: the host reads a report a millisecond at best.
const FULL: Duration = Duration::from_millis(50);

/// Makes everything that the command line asks for.
///
/// # Errors
/// A disk's file cannot be opened, or the terminal cannot be used.
pub(crate) async fn prepare(
    connect: &Connect,
    events: Events,
    ends: &Ends<mpsc::Sender<Ended>>,
    remote: &Addr<Remote>,
) -> Result<(Vec<Lent>, Option<RawMode>)> {
    let mut lent = Vec::new();
    for (number, disk) in connect.disk.iter().cloned().enumerate() {
        let name = format!("disk {}", disk.file.display());
        let make =
            Box::new(move |_| Ok(Disk::new(FileMedium::open(&disk)?, &format!("FA4B05{:06}", number + 1))));
        // A slow disk is a thread of its own.
        let thread = Some(Arbiter::new().handle());
        let parts = Parts { port: next(), make, watch: Box::new(|_| ()), ends: ends.clone(), thread };
        lent.push(open(parts, name).await?.1);
    }
    if let Some(speed) = connect.gadget_zero {
        let make = move || {
            Ok(match speed {
                UsbSpeed::High => Zero::high_speed(Pattern::Zeros),
                UsbSpeed::Super => Zero::new(Pattern::Zeros),
            })
        };
        let (watch, make) = (Box::new(|_: &Zero| ()), Box::new(move |_| make()));
        let parts = Parts { port: next(), make, watch, ends: ends.clone(), thread: None };
        lent.push(open(parts, "gadget zero".to_owned()).await?.1);
    }
    let mut terminal = None;
    if connect.keyboard {
        let (watch, make) = (Box::new(watch(events)), Box::new(|_| Ok(Keyboard::new())));
        let parts = Parts { port: next(), make, watch, ends: ends.clone(), thread: None };
        let (port, keyboard) = open(parts, "keyboard".to_owned()).await?;
        let (typed, mode) = typing::start()?;
        terminal = mode;
        actix::spawn(type_into(port, typed, events, remote.clone()));
        lent.push(keyboard);
    }
    Ok((lent, terminal))
}

/// Opens real devices, each on a thread of its own: libusb waits for them there.
pub(crate) fn opener(ends: Ends<mpsc::Sender<Ended>>) -> Opener<rusb::Device<rusb::Context>> {
    Box::new(move |described, device| {
        let make = Box::new(move |wake| usb::Device::open(device.clone(), wake));
        let thread = Some(Arbiter::new().handle());
        let parts = Parts { port: next(), make, watch: Box::new(|_| ()), ends: ends.clone(), thread };
        let name = described.title();
        async move { Ok(open(parts, name).await?.1) }.boxed_local()
    })
}

/// A port that there has not been.
pub(crate) fn next() -> PortId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    PortId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
}

/// Starts a port and opens its device. One that does not open ends, with its thread.
async fn open<F>(parts: Parts<F>, name: String) -> Result<(Addr<UsbPort<F>>, Lent)>
where
    F: Function + Unpin + 'static,
{
    let id = parts.port;
    let port = UsbPort::launch(parts);
    let attachment = port.send(Open { name }).await.context("the device's thread has ended")??;
    let lent = Lent::new(id, port.clone().recipient(), attachment);
    Ok((port, lent))
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
