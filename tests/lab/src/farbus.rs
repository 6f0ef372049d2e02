//! Farbus itself, run as its users run it: `farbus-host serve` and `farbus-remote connect` as processes whose JSON
//! events a test waits for.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::mpsc,
    time::timeout,
};

use crate::process::{leashed, spawn};

/// How long an event may take before a test fails: generous, because machines are slow and a pass is quick.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Farbus process and what it has said.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    events: mpsc::UnboundedReceiver<Value>,
    /// Events that came, but that nobody has waited for yet, in order.
    unread: Vec<Value>,
    log: PathBuf,
}

impl Program {
    /// Starts a program; its events are read from standard output, its logs go to a file in `folder`.
    ///
    /// # Errors
    /// The program is not there and cannot be built, or cannot be started.
    pub fn start(name: &str, program: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = std::process::Command::new(binary(program)?);
        command.args(arguments);
        let mut command = leashed(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let mut child = spawn(command).with_context(|| format!("starting {program}"))?;
        let stdout = child.stdout.take().context("the child's standard output")?;
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, events, unread: Vec::new(), log })
    }

    /// The next event of this kind that nobody has waited for yet.
    ///
    /// # Errors
    /// The program ended, or [`PATIENCE`] did; the error carries the end of its log.
    pub async fn wait_for(&mut self, kind: &str) -> Result<Value> {
        self.wait_where(kind, |_| true).await
    }

    /// The next event of this kind that fulfils a condition.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub async fn wait_where(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let matches = |event: &Value| event["event"] == kind && wanted(event);
        if let Some(at) = self.unread.iter().position(matches) {
            return Ok(self.unread.remove(at));
        }
        let waited = timeout(PATIENCE, async {
            while let Some(event) = self.events.recv().await {
                if matches(&event) {
                    return Some(event);
                }
                self.unread.push(event);
            }
            None
        });
        match waited.await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => bail!("{} ended before it said `{kind}`\n{}", self.name, self.last_words()),
            Err(_) => bail!("{} did not say `{kind}` in {PATIENCE:?}\n{}", self.name, self.last_words()),
        }
    }

    /// All events of a kind so far that nobody has waited for.
    pub fn seen(&mut self, kind: &str) -> Vec<Value> {
        while let Ok(event) = self.events.try_recv() {
            self.unread.push(event);
        }
        self.unread.iter().filter(|event| event["event"] == kind).cloned().collect()
    }

    /// Writes a line to the program's standard input: the keyboard script of a remote.
    ///
    /// # Errors
    /// The program is gone.
    pub async fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// It does not end in [`PATIENCE`].
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(id) = self.child.id() {
            signal(id, Signal::SIGTERM)?;
        }
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended
            .with_context(|| format!("{} does not end when asked\n{}", self.name, self.last_words()))?
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not in [`PATIENCE`].
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended
            .with_context(|| format!("{} does not end\n{}", self.name, self.last_words()))?
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// The end of its log and the events nobody waited for, for failure messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(30).collect();
        let mut words = format!("--- the end of {}:\n", self.log.display());
        for line in tail.iter().rev() {
            let _ = writeln!(words, "{line}");
        }
        let _ = writeln!(words, "--- events not waited for:");
        for event in self.unread.iter().rev().take(20).rev() {
            let _ = writeln!(words, "{event}");
        }
        words
    }
}

/// Kills a process that this one started, as a crash would (SIGKILL).
///
/// # Errors
/// The process is gone.
pub fn kill(id: u32) -> Result<()> {
    signal(id, Signal::SIGKILL)
}

fn signal(id: u32, signal: Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(id)?);
    nix::sys::signal::kill(pid, signal).with_context(|| format!("sending {signal} to process {id}"))
}

/// A binary of the workspace: beside the running one, else built with the same profile.
fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    // Tests and examples are one folder below the programs.
    let below = folder.ends_with("deps") || folder.ends_with("examples");
    let profile = if below { folder.parent().unwrap_or(folder) } else { folder };
    let path = profile.join(name);
    if !path.exists() {
        let mut cargo = std::process::Command::new("cargo");
        cargo.args(["build", "-p", name]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().context("running cargo")?;
        if !status.success() {
            bail!("{name} cannot be built: run `cargo build -p {name}` to see why");
        }
    }
    Ok(path)
}

/// One VM in a [`Host`]'s configuration.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its sockets' folder.
    pub folder: PathBuf,
    /// More lines of its table, such as `on_busy = "takeover"`.
    pub extra: String,
}

impl Seat {
    /// The USB controller's socket.
    #[must_use]
    pub fn usb_socket(&self) -> PathBuf {
        self.folder.join("usb.sock")
    }

    /// The HD Audio controller's socket.
    #[must_use]
    pub fn hda_socket(&self) -> PathBuf {
        self.folder.join("hda.sock")
    }
}

/// A running `farbus-host serve`.
pub struct Host {
    /// The process.
    pub program: Program,
    /// Where remotes connect to.
    pub address: String,
    /// The key that remotes pin.
    pub key: String,
    /// The VMs.
    pub seats: Vec<Seat>,
    /// The first worker process of each VM.
    pub workers: BTreeMap<String, u32>,
    folder: PathBuf,
}

impl Host {
    /// Serves VMs of these names to any remote, in `folder`, and waits until their sockets are there.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(folder: &Path, vms: &[&str]) -> Result<Self> {
        let seats = vms.iter().map(|name| Seat {
            name: (*name).to_owned(),
            folder: folder.join(name),
            extra: String::new(),
        });
        Self::start_with(folder, seats.collect()).await
    }

    /// The same with more to say about each VM.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_with(folder: &Path, seats: Vec<Seat>) -> Result<Self> {
        let mut config =
            format!("listen = \"127.0.0.1:0\"\nkey_file = {:?}\n", folder.join("host.key").to_string_lossy());
        for seat in &seats {
            let socket_dir = seat.folder.to_string_lossy();
            let remotes = if seat.extra.contains("remotes") { "" } else { "remotes = [\"any\"]\n" };
            let _ =
                writeln!(config, "[vm.{}]\nsocket_dir = {socket_dir:?}\n{remotes}{}", seat.name, seat.extra);
        }
        let file = folder.join("host.toml");
        std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let arguments = ["serve", "--json", "--config", &file.to_string_lossy()].map(str::to_owned);
        let mut program = Program::start("host", "farbus-host", &arguments, folder)?;
        let listening = program.wait_for("listening").await?;
        let mut workers = BTreeMap::new();
        for _ in &seats {
            let ready = program.wait_for("vm_ready").await.context("a VM's worker did not come up")?;
            let worker = ready["worker"].as_u64().context("a worker without its process id")?;
            workers.insert(ready["vm"].as_str().unwrap_or_default().to_owned(), u32::try_from(worker)?);
        }
        let text = |field: &str| listening[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            program,
            address: text("address"),
            key: text("host_key"),
            seats,
            workers,
            folder: folder.to_owned(),
        })
    }

    /// Starts a remote for a VM, with its own key, and does not wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn remote(&self, name: &str, vm: &str, arguments: &[&str]) -> Result<Program> {
        let key_file = self.folder.join(format!("{name}.key"));
        let mut all = ["connect", &self.address, "--host-key", &self.key, "--vm", vm, "--events", "json"]
            .map(str::to_owned)
            .to_vec();
        all.extend(["--key-file".to_owned(), key_file.to_string_lossy().into_owned()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Program::start(name, "farbus-remote", &all, &self.folder)
    }

    /// The seat of this name.
    ///
    /// # Panics
    /// There is none: a mistake of the test.
    #[must_use]
    pub fn seat(&self, name: &str) -> &Seat {
        self.seats.iter().find(|seat| seat.name == name).expect("a seat of this name")
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of every `at_ns` in events.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}
