//! One Farbus process: started, listened to, spoken to, ended; on this computer or in a VM.

use std::{
    fmt::Write as _,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::{mpsc, watch},
    time::timeout,
};

use super::{PATIENCE, signal};
use crate::{
    process::{leashed, spawn},
    vm::{Background, Event, Events},
};

/// A Farbus process and what it has said.
pub struct Program {
    name: String,
    body: Body,
    events: mpsc::UnboundedReceiver<Value>,
    /// Events that came, but that nobody has waited for yet, in order.
    unread: Vec<Value>,
    log: PathBuf,
}

/// Where it runs.
enum Body {
    Here { child: Child, stdin: Option<ChildStdin> },
    InVm { command: Background, exit: watch::Receiver<Option<i32>> },
}

impl Program {
    /// Starts a program; its events are read from standard output, its logs go to a file in `folder`.
    ///
    /// # Errors
    /// The program is not there and cannot be built, or cannot be started.
    pub fn start(name: &str, program: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        Self::start_in(name, program, arguments, folder, &[])
    }

    /// The same with everything in its log, to the smallest step.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_tracing(name: &str, program: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        Self::start_in(name, program, arguments, folder, &[("RUST_LOG", "trace")])
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(
        name: &str,
        program: &str,
        arguments: &[String],
        folder: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = std::process::Command::new(binary(program)?);
        command.args(arguments).envs(environment.iter().copied());
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
        let body = Body::Here { stdin: child.stdin.take(), child };
        Ok(Self { name: name.to_owned(), body, events, unread: Vec::new(), log })
    }

    /// The same program, started in a VM; its log comes to `folder` on this computer.
    pub(crate) fn in_vm(
        name: &str,
        (command, mut output): (Background, Events),
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let mut file = std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let (sender, events) = mpsc::unbounded_channel();
        let (ended, exit) = watch::channel(None);
        tokio::spawn(async move {
            let mut said = Vec::new();
            while let Some(event) = output.next().await {
                match event {
                    Event::Stdout(bytes) => said.extend(bytes),
                    // A full disk costs the log, not the run.
                    Event::Stderr(bytes) => drop(file.write_all(&bytes)),
                    Event::Exit(code) => drop(ended.send(Some(code))),
                }
                while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = said.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line[..end]).into_owned();
                    // Whoever does not listen any more may still wait for the end.
                    let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            body: Body::InVm { command, exit },
            events,
            unread: Vec::new(),
            log,
        })
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
        let line = format!("{line}\n");
        match &mut self.body {
            Body::Here { stdin, .. } => {
                let stdin = stdin.as_mut().context("standard input is closed")?;
                stdin.write_all(line.as_bytes()).await?;
                Ok(stdin.flush().await?)
            }
            Body::InVm { command, .. } => command.input(line.as_bytes()).await,
        }
    }

    /// The process id; of a program in a VM there is none here.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match &self.body {
            Body::Here { child, .. } => child.id(),
            Body::InVm { .. } => None,
        }
    }

    /// Sends it a signal; does nothing if it is gone.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn signal(&self, number: Signal) -> Result<()> {
        match &self.body {
            Body::Here { child, .. } => child.id().map_or(Ok(()), |id| signal(id, number)),
            Body::InVm { exit, .. } if exit.borrow().is_some() => Ok(()),
            Body::InVm { command, .. } => command.signal(number).await,
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// It does not end in [`PATIENCE`].
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM).await?;
        self.ended().await
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// It does not in [`PATIENCE`].
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let end = async {
            match &mut self.body {
                Body::Here { child, .. } => anyhow::Ok(child.wait().await?),
                Body::InVm { exit, .. } => {
                    let code =
                        *exit.wait_for(Option::is_some).await.context("its VM was reset or is gone")?;
                    Ok(status(code.unwrap_or_default()))
                }
            }
        };
        match timeout(PATIENCE, end).await {
            Ok(status) => status.with_context(|| format!("waiting for {}", self.name)),
            Err(_) => bail!("{} does not end\n{}", self.name, self.last_words()),
        }
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

/// What a shell calls `code`, which above 128 is a signal's number.
fn status(code: i32) -> ExitStatus {
    ExitStatus::from_raw(if code > 128 { code - 128 } else { code << 8 })
}

/// A binary of the workspace: beside the running one, else built with the same profile.
///
/// # Errors
/// It is not there and cannot be built.
pub fn binary(name: &str) -> Result<PathBuf> {
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
