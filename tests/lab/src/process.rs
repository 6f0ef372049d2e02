//! Child processes that never outlive us, however we end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, ExitStatus};
use std::sync::{LazyLock, mpsc};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Makes the kernel kill a program when its parent dies; part of util-linux.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A child process. It is killed when this is dropped, and by the kernel if this process dies.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts a program; `prepare` sets its standard streams.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub(crate) fn start(command: &StdCommand, prepare: impl FnOnce(&mut Command)) -> io::Result<Self> {
        let mut command = leashed(command);
        command.kill_on_drop(true);
        prepare(&mut command);
        let mut child = spawn(command)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a child without a process id"))?;
        let (exited, exit) = watch::channel(None);
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                let _ = exited.send(Some(status));
            }
        });
        Ok(Self { pid, exit })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If the runtime that watches it is shutting down.
    pub(crate) async fn wait(&self) -> io::Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.map_err(io::Error::other)?;
        status.ok_or_else(|| io::Error::other("no status"))
    }

    /// Sends it a signal; does nothing if it is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        // Not reaped yet, so the id is still its own.
        if self.exited().is_none() {
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The same command, to be killed when its parent is gone, where the system can do that.
pub(crate) fn leashed(command: &StdCommand) -> Command {
    let mut leashed = if Path::new(SETPRIV).exists() {
        let mut leashed = Command::new(SETPRIV);
        leashed.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        leashed
    } else {
        Command::new(command.get_program())
    };
    leashed.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => leashed.env(name, value),
            None => leashed.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        leashed.current_dir(PathBuf::from(folder));
    }
    leashed
}

/// Starts a child from a thread that lives as long as the process: the kernel takes the death of the *thread* that
/// started a child for the death of its parent.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || queue.into_iter().for_each(|job| job()));
        jobs
    });
    let runtime = Handle::current();
    let (answer, answered) = mpsc::channel();
    let job: Job = Box::new(move || {
        let _inside = runtime.enter();
        let _ = answer.send(command.spawn());
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    SPAWNER.send(job).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[tokio::test]
    async fn a_dropped_process_is_killed() -> anyhow::Result<()> {
        let mut command = StdCommand::new("sleep");
        let process = Process::start(command.arg("1000"), |_| ())?;
        assert_eq!(process.exited(), None);
        let mut exit = process.exit.clone();
        drop(process);
        let status = *exit.wait_for(Option::is_some).await?;
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
        Ok(())
    }
}
