//! A command that runs beside everything else: it borrows nothing of its VM, and is fed and ended from outside.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::Signal;
use tokio::runtime::Handle;

use super::Vm;
use super::agent::{Agent, Events};

/// A command under way in a guest. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    agent: Arc<Agent>,
    number: u32,
}

impl Vm {
    /// Starts a shell script whose standard input stays open; what it tells comes by the second value.
    pub(crate) async fn background(&self, script: &str) -> Result<(Background, Events)> {
        let agent = self.agent.clone().ok_or_else(|| anyhow!("no agent is in this machine"))?;
        let (number, events) = agent.start(script).await.with_context(|| self.context())?;
        Ok((Background { agent, number }, events))
    }
}

impl Background {
    /// Feeds its standard input.
    pub(crate) async fn input(&self, bytes: &[u8]) -> Result<()> {
        self.agent.input(self.number, bytes).await
    }

    /// Sends a signal to it and all its children.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<()> {
        self.agent.signal(self.number, signal as i32).await
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Without a runtime nothing can be sent, and the VM is about to end as well.
        let Ok(runtime) = Handle::try_current() else { return };
        let (agent, number) = (self.agent.clone(), self.number);
        runtime.spawn(async move { agent.signal(number, Signal::SIGKILL as i32).await });
    }
}
