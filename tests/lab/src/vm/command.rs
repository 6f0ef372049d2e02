//! Commands in a guest: run to the end, or kept going while their output is read.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::Event;
use super::Vm;
use super::agent::Events;

/// How long a command may take unless told otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(120);

/// A shell script to be run in the guest, as root, in `/root`, in a process group of its own.
///
/// It is over when it has exited *and* nothing holds its output open: let background children write elsewhere.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run or spawned"]
pub struct Command<'vm> {
    vm: &'vm Vm,
    script: String,
    stdin: Vec<u8>,
    limit: Duration,
}

/// What a command that ended had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 + N if signal N killed it.
    pub status: i32,
    /// Its standard output as text; what is not UTF-8 is replaced.
    pub stdout: String,
    /// Its standard error as text.
    pub stderr: String,
    /// Its standard output, byte for byte.
    pub bytes: Vec<u8>,
}

/// A command took longer than it was allowed to. It has been killed, with its children.
#[derive(Debug, thiserror::Error)]
#[error("`{script}` ran for more than {limit:?}; until then it said {said:?}")]
pub struct TimedOut {
    /// The command.
    pub script: String,
    /// What it was allowed.
    pub limit: Duration,
    /// What it had printed, standard output and standard error in the order they came.
    pub said: String,
}

impl<'vm> Command<'vm> {
    pub(super) fn new(vm: &'vm Vm, script: &str) -> Self {
        Self { vm, script: script.to_owned(), stdin: Vec::new(), limit: DEFAULT_LIMIT }
    }

    /// What it finds on its standard input; nothing unless told otherwise.
    pub fn stdin(self, stdin: impl Into<Vec<u8>>) -> Self {
        Self { stdin: stdin.into(), ..self }
    }

    /// How long it may take; two minutes unless told otherwise. Of no meaning to [`Command::spawn`].
    pub fn timeout(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`TimedOut`]; or the guest was reset or ended before the command did. A command that fails is not an error here.
    pub async fn run(self) -> Result<Output> {
        let (script, limit) = (self.script.clone(), self.limit);
        let mut running = self.spawn().await?;
        let mut output = Collected::default();
        let status = timeout(limit, async {
            loop {
                match running.next().await? {
                    Event::Exit(status) => break anyhow::Ok(status),
                    event => output.take(event),
                }
            }
        });
        match status.await {
            Ok(status) => Ok(output.finish(status?)),
            Err(_) => {
                running.signal(Signal::SIGKILL).await?;
                let said = String::from_utf8_lossy(&output.all).into_owned();
                Err(TimedOut { script, limit, said }).with_context(|| running.vm.context())
            }
        }
    }

    /// Starts it and returns while it runs.
    ///
    /// # Errors
    /// If the guest's agent is not there.
    pub async fn spawn(self) -> Result<Running<'vm>> {
        let Self { vm, script, stdin, .. } = self;
        let start = async {
            let agent = vm.agent()?;
            let (number, events) = agent.start(&script).await?;
            agent.input(number, &stdin).await?;
            agent.end_input(number).await?;
            anyhow::Ok((number, events))
        };
        let (number, events) =
            start.await.with_context(|| vm.context()).with_context(|| format!("`{script}`"))?;
        Ok(Running { vm, script, number, events, line: Vec::new(), stderr: Vec::new(), status: None })
    }
}

#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    all: Vec<u8>,
}

impl Collected {
    fn take(&mut self, event: Event) {
        match event {
            Event::Stdout(bytes) => {
                self.all.extend(&bytes);
                self.stdout.extend(bytes);
            }
            Event::Stderr(bytes) => {
                self.all.extend(&bytes);
                self.stderr.extend(bytes);
            }
            Event::Exit(_) => {}
        }
    }

    fn finish(self, status: i32) -> Output {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { status, stdout: text(&self.stdout), stderr: text(&self.stderr), bytes: self.stdout }
    }
}

impl Output {
    /// The output of a command that was expected to succeed.
    ///
    /// # Errors
    /// If it failed; then with everything it said.
    pub fn success(self) -> Result<Self> {
        if self.status == 0 { Ok(self) } else { bail!("{self}") }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n  {name}:\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A command under way in the guest. It goes on when this is dropped.
#[derive(Debug)]
pub struct Running<'vm> {
    vm: &'vm Vm,
    script: String,
    number: u32,
    events: Events,
    /// Of standard output: what has come and was not yet read as a line.
    line: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<i32>,
}

impl Running<'_> {
    /// The next line of its standard output, without its end; none when the command is over.
    ///
    /// # Errors
    /// If the guest was reset or ended.
    pub async fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.status.is_some() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()));
            }
            match self.next().await? {
                Event::Stdout(bytes) => self.line.extend(bytes),
                Event::Stderr(bytes) => self.stderr.extend(bytes),
                Event::Exit(status) => self.status = Some(status),
            }
        }
    }

    /// Reads lines up to the first that contains `wanted`, and returns that.
    ///
    /// # Errors
    /// If no such line came within `limit`, or the command ended without; then with what it printed instead.
    pub async fn expect(&mut self, wanted: &str, limit: Duration) -> Result<String> {
        let mut seen = String::new();
        let found = timeout(limit, async {
            while let Some(line) = self.line().await? {
                if line.contains(wanted) {
                    return anyhow::Ok(Some(line));
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            anyhow::Ok(None)
        });
        let problem = match found.await {
            Ok(Ok(Some(line))) => return Ok(line),
            Ok(Ok(None)) => "ended".to_owned(),
            Ok(Err(error)) => return Err(error),
            Err(_) => format!("went on for {limit:?}"),
        };
        let stderr = String::from_utf8_lossy(&self.stderr);
        let problem = anyhow!("`{}` {problem} without {wanted:?}; it said {seen:?} {stderr:?}", self.script);
        Err(problem.context(self.vm.context()))
    }

    /// Waits for its end, whatever it prints.
    ///
    /// # Errors
    /// If it takes longer than `limit` (it goes on), or the guest was reset or ended.
    pub async fn wait(&mut self, limit: Duration) -> Result<Output> {
        let mut output = Collected::default();
        output.take(Event::Stdout(std::mem::take(&mut self.line)));
        output.take(Event::Stderr(std::mem::take(&mut self.stderr)));
        let over = timeout(limit, async {
            loop {
                match (self.status, &mut output) {
                    (Some(status), _) => break anyhow::Ok(status),
                    (None, output) => match self.next().await? {
                        Event::Exit(status) => self.status = Some(status),
                        event => output.take(event),
                    },
                }
            }
        });
        match over.await {
            Ok(status) => Ok(output.finish(status?)),
            Err(_) => {
                let said = String::from_utf8_lossy(&output.all).into_owned();
                Err(TimedOut { script: self.script.clone(), limit, said }).with_context(|| self.vm.context())
            }
        }
    }

    /// Sends a signal to it and all its children.
    ///
    /// # Errors
    /// If the guest's agent is not there.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.vm.agent()?.signal(self.number, signal as i32).await
    }

    /// The next thing it tells, for those who want its output raw and at once; not to be mixed with the other ways to
    /// read it.
    ///
    /// # Errors
    /// If the guest was reset or ended; or after [`Event::Exit`].
    pub async fn next(&mut self) -> Result<Event> {
        match self.events.next().await {
            Some(event) => Ok(event),
            None => {
                let lost = anyhow!("`{}` did not end: {}", self.script, self.vm.fate().await);
                Err(lost.context(self.vm.context()))
            }
        }
    }
}
