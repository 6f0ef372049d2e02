//! A QEMU process and the channels to it: what a VM and a qtest machine have in common.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::process::Process;
use crate::provision::Qemu;
use crate::qmp::Qmp;

/// How long QEMU may take to connect to the channels it was given.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    process: Process,
    qmp: Qmp,
    /// Sockets, logs, firmware variables. Removed with the machine.
    folder: TempDir,
}

/// A QEMU about to be started. It connects to channels on which we listen beforehand, so there is nothing to wait for
/// and nothing to retry.
#[derive(Debug)]
pub(crate) struct Preparation {
    name: String,
    folder: TempDir,
    args: Vec<OsString>,
    channels: Vec<UnixListener>,
}

impl Preparation {
    /// A machine with shared memory and nothing that is not asked for.
    pub(crate) fn new(name: &str, memory_mib: u32) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("farbus-lab-").tempdir().context("making a folder for a VM")?;
        let mut preparation = Self { name: name.to_owned(), folder, args: Vec::new(), channels: Vec::new() };
        preparation
            .args(["-name", name, "-display", "none", "-nodefaults", "-no-user-config"])
            .args(["-m", &format!("{memory_mib}M")])
            .args(["-object", &format!("memory-backend-memfd,id=mem,size={memory_mib}M,share=on")]);
        let qmp = preparation.channel("qmp")?;
        preparation.args(["-qmp".into(), chain("unix:", &qmp)]);
        Ok(preparation)
    }

    pub(crate) fn args<A: Into<OsString>>(&mut self, args: impl IntoIterator<Item = A>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Listens at a socket for QEMU to connect to; [`Preparation::start`] hands out the connections in this order.
    pub(crate) fn channel(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        self.channels.push(listener);
        Ok(path)
    }

    /// A channel of QEMU's named `name`, for devices to be attached to.
    pub(crate) fn chardev(&mut self, name: &str) -> Result<&mut Self> {
        let path = self.channel(name)?;
        Ok(self.args(["-chardev".into(), chain(&format!("socket,id={name},path="), &path)]))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts QEMU and waits until it has connected to every channel.
    pub(crate) async fn start(self, qemu: &Qemu) -> Result<(Machine, Vec<UnixStream>)> {
        let Self { name, folder, args, channels } = self;
        let mut command = qemu.command();
        command.args(args);
        tracing::debug!(vm = name, ?command, "starting QEMU");
        let log = folder.path().join(LOG);
        let errors = fs::File::create(&log)?;
        let process = Process::start(&command, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        })
        .with_context(|| format!("starting {:?}", command.get_program()))?;

        let connect = async {
            let mut streams = Vec::new();
            for listener in &channels {
                streams.push(listener.accept().await?.0);
            }
            let mut streams = streams.into_iter();
            let qmp = streams.next().ok_or_else(|| anyhow!("QMP comes first"))?;
            anyhow::Ok((Qmp::open(qmp).await?, streams.collect()))
        };
        let connected = tokio::select! {
            connected = timeout(STARTS_WITHIN, connect) => {
                let late = |_| anyhow!("QEMU does not start within {STARTS_WITHIN:?}{}", waits(process.id()));
                connected.map_err(late).flatten()
            }
            status = process.wait() => Err(anyhow!("QEMU refused to start ({})", status?)),
        };
        let (qmp, streams) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                // A channel that breaks is the end of QEMU, whose last words are complete when it is gone.
                process.signal(Signal::SIGKILL);
                process.wait().await?;
                return Err(error.context(format!("starting QEMU{}", said(&log))));
            }
        };
        Ok((Machine { name, process, qmp, folder }, streams))
    }
}

/// QEMU's standard error.
const LOG: &str = "qemu.log";

impl Machine {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL);
        self.process.wait().await?;
        Ok(())
    }

    /// What QEMU complained of, for an error message; empty if nothing.
    pub(crate) fn said(&self) -> String {
        said(&self.folder.path().join(LOG))
    }
}

/// What each thread of a process waits for in the kernel, for who wonders why it does nothing.
fn waits(process: i32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let read = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    let line = |task: PathBuf| {
        let [name, wchan, call] = ["comm", "wchan", "syscall"].map(|file| read(&task, file));
        format!("\n  its thread {} waits in {wchan}, system call {}", name.trim(), call.trim())
    };
    tasks.map(|task| line(task.path())).collect()
}

fn said(log: &Path) -> String {
    match fs::read_to_string(log).unwrap_or_default().trim_end() {
        "" => String::new(),
        text => format!("\n  QEMU says: {text}"),
    }
}

/// The `-device` argument for a device served at a vfio-user socket. Only the JSON form takes a socket.
pub(crate) fn vfio_user(id: &str, socket: &Path) -> Value {
    json!({ "driver": "vfio-user-pci", "id": id, "socket": { "type": "unix", "path": socket.to_string_lossy() } })
}

/// An argument that ends with a path. QEMU wants a comma within an option doubled.
pub(crate) fn chain(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path.to_string_lossy().replace(',', ",,"));
    argument
}
