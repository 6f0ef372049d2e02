//! A worker's process: started, spoken with, waited for.

use std::{io, path::PathBuf, process::ExitStatus};

use actix::prelude::*;
use std::os::fd::AsFd;
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

use super::{Ended, Said, registry::ForWorker};
use crate::{
    cli::LogFormat,
    handoff::{self, Channel, ToManager},
};

/// How workers are started.
pub(super) struct Launch {
    pub(super) config: PathBuf,
    pub(super) log: LogFormat,
}

/// A worker that runs.
pub(super) struct Worker {
    child: Child,
    channel: Channel,
}

impl Launch {
    /// Starts a VM's worker: this very program, with the channel as its standard input.
    ///
    /// # Errors
    /// The process cannot be made.
    pub(super) fn start(&self, vm: &str) -> io::Result<Worker> {
        let (own, theirs) = handoff::pair()?;
        let log = match self.log {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        let child = Command::new(std::env::current_exe()?)
            .args(["--log", log, "vm", vm, "--config"])
            .arg(&self.config)
            .stdin(theirs)
            // What a terminal's Ctrl-C sends to the whole group is the manager's to answer.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Worker { child, channel: Channel::new(own)? })
    }
}

impl Worker {
    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Carries messages both ways until the process has ended.
    pub(super) async fn attend(
        mut self,
        vm: String,
        mut messages: mpsc::Receiver<ForWorker>,
        said: Recipient<Said>,
        ended: Recipient<Ended>,
    ) {
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                Some((message, socket)) = messages.recv() => {
                    let socket = socket.as_ref().map(AsFd::as_fd);
                    if let Err(error) = self.channel.send(&message, socket).await {
                        tracing::warn!(vm, %error, "the worker cannot be told anything");
                    }
                }
                heard = self.channel.receive::<ToManager>() => match heard {
                    Ok(Some((message, _))) => said.do_send(Said { vm: vm.clone(), message }),
                    Ok(None) => break self.end().await,
                    Err(error) => {
                        tracing::error!(vm, %error, "the worker speaks nonsense; ending it");
                        break self.end().await;
                    }
                }
            }
        };
        ended.do_send(Ended { vm, status });
    }

    /// A worker that has closed its channel is ending; one that only pretends to is killed.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        match tokio::time::timeout(super::LAST_WORDS, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        }
    }
}
