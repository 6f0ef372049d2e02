//! `farbus-remote`: lends USB devices, disks, the speakers and the microphone of this computer to a VM.
//!
//! ```text
//! Lender ── which devices are lent: told by the USB bus (usb::bus) and by the user (control)
//! Remote ── the session and the link of the moment
//! ├─ UsbPort   one for each lent device; real ones and disks have a thread each
//! └─ Sound     voices and their sinks, the microphone; on a thread of its own
//! ```
#![deny(unsafe_code)]

mod backoff;
mod cli;
mod control;
mod devices;
mod events;
mod flight;
mod follow;
mod ice;
mod known;
mod lend;
mod lender;
mod lent;
mod links;
mod live;
mod look;
mod medium;
mod pair;
mod port;
mod ports;
mod quality;
mod remote;
mod score;
mod session_status;
mod sound;
#[cfg(test)]
mod tests;
mod typing;
mod usb;
mod ways;

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use actix::prelude::*;
use anyhow::{Context as _, Result, bail};
use capture::{Tap, Totals, Writer};
use clap::Parser;
use control_socket::SocketFile;
use noise_tcp::{PublicKey, SecretKey};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing_subscriber::EnvFilter;
use wire::control::Hello;

use crate::{
    cli::{Ask, Cli, Command, Connect, Format, KeyFile, Plug, Status, Switch},
    control::{Request, client},
    events::Events,
    ice::IceServer,
    lender::{Lender, Stop},
    remote::{Begin, GIVING_BACK, Leave, Parts, Remote},
    sound::{Input, Output, Sound},
    usb::bus::Watch,
    ways::To,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logs(cli.log);
    link::keep_buffers();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("farbus-remote: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Connect(connect) => return serve(*connect),
        Command::Lend(Ask { what: usb, status: Status { control, json } }) => {
            return client::run(control, &Request::Lend { usb }, json);
        }
        Command::Return(Ask { what, status: Status { control, json } }) => {
            return client::run(control, &Request::Return { what }, json);
        }
        Command::Status(Status { control, json }) => return client::run(control, &Request::Status, json),
        Command::Mute(Status { control, json }) => {
            return client::run(control, &Request::Mute { muted: true }, json);
        }
        Command::Unmute(Status { control, json }) => {
            return client::run(control, &Request::Mute { muted: false }, json);
        }
        Command::Headphones(Plug { headphones: plugged, status: Status { control, json } }) => {
            return client::run(control, &Request::Headphones { plugged }, json);
        }
        Command::Switch(Switch { to, status: Status { control, json } }) => {
            return client::run(control, &Request::Switch { to }, json);
        }
        Command::GiveBack => return Ok(usb::keeper::wait(io::stdin().lock())),
        Command::Pair(args) => {
            let file = key_file(&args.key)?;
            return pair::pair(&args, &file, &load_key(&file)?, &hello(None));
        }
        Command::Forget(args) => return pair::forget(&args, &key_file(&args.key)?),
        Command::Key(key) => println!("{}", load_key(&key_file(&key)?)?.public()),
        Command::Devices(devices) => {
            let found = devices::look(&devices.usb);
            if devices.json {
                println!("{}", serde_json::to_string_pretty(&found)?);
            } else {
                found.print();
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn key_file(key: &KeyFile) -> Result<PathBuf> {
    key.key_file.clone().map_or_else(default_key_file, Ok)
}

fn load_key(file: &Path) -> Result<SecretKey> {
    SecretKey::load_or_create(file).with_context(|| format!("this remote's key file {}", file.display()))
}

/// The key's place in the user's configuration folder, which is made if there is none.
fn default_key_file() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|base| base.is_absolute());
    let base = base.or_else(|| Some(std::env::home_dir()?.join(".config")));
    let folder = base.context("there is no home folder; say --key-file FILE")?.join("farbus");
    std::fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    Ok(folder.join("remote.key"))
}

fn serve(connect: Connect) -> Result<ExitCode> {
    if connect.relay_only && !connect.ice_server.iter().any(IceServer::relays) {
        bail!("--relay-only needs a TURN server: --ice-server turn:USER:PASSWORD@HOST:PORT");
    }
    let file = key_file(&connect.key)?;
    let (key, host) = (Arc::new(load_key(&file)?), pair::host_key(&connect, &file)?);
    let capture = connect.capture.as_deref().map(start_capture).transpose()?;
    let (tap, capture) = capture.unzip();
    let code = System::new().block_on(lend_until_ended(connect, key, host, tap));
    capture.map_or(Ok(()), end_capture)?;
    code
}

/// What this remote says of itself.
fn hello(vm: Option<String>) -> Hello {
    let name = rustix::system::uname().nodename().to_string_lossy().chars().take(64).collect();
    Hello { version: wire::VERSION, vm, name, signalling: false }
}

fn start_capture(file: &Path) -> Result<(Tap, Writer)> {
    capture::record_into(file, "farbus-remote").with_context(|| format!("the capture {}", file.display()))
}

/// Says what a capture does not have.
fn end_capture(writer: Writer) -> Result<()> {
    let Totals { records, dropped } = writer.finish().context("writing the capture")?;
    if dropped == 0 {
        tracing::info!(records, "the capture is whole");
    } else {
        tracing::warn!(records, dropped, "the file was too slow for the capture");
    }
    Ok(())
}

async fn lend_until_ended(
    connect: Connect,
    key: Arc<SecretKey>,
    host: PublicKey,
    tap: Option<Tap>,
) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let events = Events(connect.events);
    let (ended, end) = oneshot::channel();
    // Remotes that lost their host together should not come back together.
    let seed = RandomState::new().hash_one(std::process::id());
    let (output, input) = (Output::new(connect.audio.clone())?, Input::new(connect.mic.clone())?);
    let (headphones, codec) = (connect.headphones, connect.audio_codec);
    let ice = connect.ice_server.iter().cloned().map(Into::into).collect();
    let relay_only = connect.relay_only;
    let (address, hello) = (connect.host.clone(), hello(connect.vm.clone()));
    let to = To {
        address,
        host,
        key,
        hello,
        ice,
        relay_only,
        reached: Default::default(),
        unanswered: Default::default(),
    };
    let (connector, wish) = (ways::connector(to), connect.transport);
    let remote = Remote::new(Parts { connector, wish, events, seed, tap, ended }).start();
    let (said, ends) = port::ends();
    // Kept until the end: it gives the terminal back.
    let (lent, _terminal) = lend::prepare(&connect, events, &said, &remote).await?;
    let host = remote.clone().recipient();
    let parts = sound::Parts { output, input, headphones, codec, events, host };
    let sound = Sound::start_in_arbiter(&Arbiter::new().handle(), move |_| Sound::new(parts));
    let lender = Lender::new(lender::Parts {
        asked: connect.usb.clone(),
        open: lend::opener(said),
        remote: remote.clone(),
        sound: sound.clone().recipient(),
        events,
    });
    let lender = lender.start();
    // Both last until the end: then the socket's file goes, and the bus is left in peace.
    let _control = listen(connect.control.clone(), lender.clone().recipient())?;
    let _watch = watch(lender.clone())?;
    let sound = remote::Sound { heard: sound.clone().recipient(), end: sound.recipient() };
    remote.send(Begin { lent, ends, sound }).await.context("the remote ended early")?;
    let asked = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(end);
    let early = tokio::select! {
        code = &mut end => Some(code),
        () = asked => None,
    };
    // What is just being opened is given back, too.
    let stopped = tokio::time::timeout(GIVING_BACK, lender.send(Stop));
    remote.do_send(Leave);
    let code = match early {
        Some(code) => code,
        None => end.await,
    };
    if stopped.await.is_err() {
        tracing::warn!("a device that was being opened is not given back: its driver does not answer");
    }
    code.context("the remote ended without a word")
}

/// Answers `lend`, `status` and the like until what it returns is dropped. Where that cannot be, and was not asked for,
/// there is none of it.
fn listen(path: Option<PathBuf>, lender: Recipient<Request>) -> Result<Option<SocketFile>> {
    let asked_for = path.is_some();
    match control::listen(path, lender) {
        Err(error) if !asked_for => {
            tracing::warn!("`farbus-remote lend`, `status` and the like will not work: {error:#}");
            Ok(None)
        }
        listening => listening.map(Some),
    }
}

/// Tells the Lender what is plugged in and out.
fn watch(lender: Addr<Lender<rusb::Device<rusb::Context>>>) -> Result<Watch> {
    let (watch, mut seen) = Watch::start().context("watching the USB bus")?;
    actix::spawn(async move {
        while let Some(seen) = seen.recv().await {
            lender.do_send(seen);
        }
    });
    Ok(watch)
}

fn start_logs(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,pulseaudio=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Human => logs.with_ansi(io::stderr().is_terminal()).init(),
        Format::Json => logs.json().init(),
    }
}
