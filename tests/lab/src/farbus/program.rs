//! One Farbus process: started, listened to, spoken to, ended.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
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

use super::{PATIENCE, signal};
use crate::process::{leashed, spawn};

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
