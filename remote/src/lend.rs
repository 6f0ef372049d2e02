//! What is lent: the functions behind the ports, and the threads they run on.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Duration};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use functions::{Disk, Full, Function, Keyboard, Medium, MediumError, Stroke};
use rustix::buffer::spare_capacity;
use tokio::sync::mpsc;
use wire::{control::Attachment, usb::DeviceId};

use crate::{
    cli::{self, Connect},
    events::{Event, Events},
    port::UsbPort,
    remote::{Leave, Lent, Remote},
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
    remote: &Addr<Remote>,
) -> Result<(Vec<Lent>, Option<RawMode>)> {
    let mut lent = Vec::new();
    let mut terminal = None;
    if connect.keyboard {
        let keyboard = Keyboard::new();
        let attachment = attachment(&keyboard, "keyboard".to_owned());
        let port = UsbPort::new(keyboard, remote.clone().recipient()).start();
        let (typed, mode) = typing::start()?;
        terminal = mode;
        actix::spawn(type_into(port.clone(), typed, events, remote.clone()));
        lent.push(Lent { port: port.recipient(), attachment });
    }
    for disk in &connect.disk {
        let serial = format!("FA4B05{:06}", lent.len() + 1);
        let function = Disk::new(FileMedium::open(disk)?, &serial);
        let name = format!("disk {}", disk.file.display());
        let attachment = attachment(&function, name);
        // A slow disk is a thread of its own.
        let back = remote.clone().recipient();
        let port = UsbPort::start_in_arbiter(&Arbiter::new().handle(), move |_| UsbPort::new(function, back));
        lent.push(Lent { port: port.recipient(), attachment });
    }
    Ok((lent, terminal))
}

fn attachment(function: &impl Function, name: String) -> Attachment {
    let (vendor, product) = function.id();
    Attachment { device: DeviceId(0), speed: function.speed(), vendor, product, name }
}

/// Presses a key on the lent keyboard.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Full>")]
struct Press(Stroke);

impl Handler<Press> for UsbPort<Keyboard> {
    type Result = Result<(), Full>;

    fn handle(&mut self, Press(stroke): Press, ctx: &mut Self::Context) -> Self::Result {
        let mut result = Ok(());
        self.turn(ctx, |keyboard| result = keyboard.press(stroke));
        result
    }
}

/// Passes keys on, one after the other; none is lost when the keyboard is full.
async fn type_into(
    port: Addr<UsbPort<Keyboard>>,
    mut typed: mpsc::Receiver<Typed>,
    events: Events,
    remote: Addr<Remote>,
) {
    while let Some(what) = typed.recv().await {
        let Typed::Stroke(stroke) = what else {
            return remote.do_send(Leave);
        };
        events.say(&Event::Key { key: format!("{:02x}+{:02x}", stroke.modifiers, stroke.usage) });
        while let Ok(Err(Full)) = port.send(Press(stroke)).await {
            tokio::time::sleep(FULL).await;
        }
    }
}

/// A file as a disk's medium.
#[derive(Debug)]
struct FileMedium {
    file: File,
    size: u64,
    read_only: bool,
}

impl FileMedium {
    fn open(disk: &cli::Disk) -> Result<Self> {
        let path: &Path = &disk.file;
        let file = File::options().read(true).write(!disk.read_only).open(path).with_context(|| {
            let how = if disk.read_only { "reading" } else { "writing (add :ro to lend it read-only)" };
            format!("opening the disk {} for {how}", path.display())
        })?;
        let size = file.metadata().with_context(|| format!("the size of {}", path.display()))?.len();
        anyhow::ensure!(size >= 512, "the disk {} has not even one sector of 512 bytes", path.display());
        Ok(Self { file, size, read_only: disk.read_only })
    }
}

fn failed(error: std::io::Error) -> MediumError {
    tracing::warn!(%error, "a disk's file");
    MediumError(error.to_string())
}

impl Medium for FileMedium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, MediumError> {
        let mut data = Vec::with_capacity(length);
        // Into the spare room of the buffer: nothing is zeroed before, and the bytes travel as they are.
        while data.len() < length {
            let at = offset + data.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut data), at) {
                Ok(0) => return Err(MediumError("the file has become shorter".into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        data.truncate(length);
        Ok(data.into())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        self.file.write_all_at(data, offset).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.file.sync_data().map_err(failed)
    }
}
