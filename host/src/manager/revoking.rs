//! Who may not have a VM any more, and what is done about it at once.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use anyhow::Result;
use noise_tcp::PublicKey;
use tokio::sync::mpsc::error::TrySendError;

use super::ConnectionManager;
use crate::{
    control::{Reply, client::seconds_since_1970},
    handoff::ToWorker,
    report::Report,
    state::{Standing, State},
};

/// What tells whether a file is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, SystemTime);

impl Stamp {
    pub(super) fn of(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        Some(Self(found.ino(), found.len(), found.modified().ok()?))
    }
}

impl ConnectionManager {
    /// What the state becomes by this change: of what the file says, which may have been changed by hand.
    pub(super) fn changed<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<(T, State)> {
        let mut state = State::load(&self.state_file)?;
        let changed = change(&mut state);
        Ok((changed, state))
    }

    /// From now on this is what is known; whoever has a VM that it may not have is sent away. The VMs of those.
    pub(super) fn publish(&mut self, state: State) -> Vec<String> {
        self.stamp = Stamp::of(&self.state_file);
        self.registry.know(state);
        let holders = self.registry.holders();
        let refused = holders.into_iter().filter(|(vm, key)| self.send_away_if_refused(vm, *key));
        refused.map(|(vm, _)| vm).collect()
    }

    /// Sends a remote away that may not have its VM; whether it may not.
    pub(super) fn send_away_if_refused(&self, vm: &str, key: PublicKey) -> bool {
        let text = match self.registry.standing(vm, &key) {
            Some(Standing::Revoked) => "your key was revoked at the host".to_owned(),
            Some(Standing::Unknown) => format!("you may not have VM `{vm}` any more"),
            Some(Standing::Allowed) | None => return false,
        };
        let Some(worker) = self.registry.worker(vm) else { return true };
        self.reporter.say(&Report::SentAway {
            vm: vm.to_owned(),
            remote: key.to_string(),
            text: text.clone(),
        });
        let message = (ToWorker::SendAway { remote: key.0, text }, None);
        if let Err(TrySendError::Full(message)) = worker.try_send(message) {
            // Hand-overs are on their way; this one comes right after them.
            actix::spawn(async move { drop(worker.send(message).await) });
        }
        true
    }

    pub(super) fn revoke(&mut self, key: &str) -> Reply {
        let Ok(key) = key.parse() else { return Reply::Error("not a public key".to_owned()) };
        let now = seconds_since_1970();
        let (paired, state) = match self.changed(|state| state.revoke(key, now)) {
            Ok(changed) => changed,
            // A file that cannot be read protects nobody.
            Err(error) => {
                let mut state = self.registry.state();
                state.revoke(key, now);
                self.publish(state);
                return Reply::Error(format!("refused, but only until this host ends: {error:#}"));
            }
        };
        let written = state.save(&self.state_file);
        let ended = self.publish(state);
        self.reporter.say(&Report::Revoked { remote: key.to_string() });
        match written {
            Ok(()) => Reply::Revoked { paired: paired.into_iter().collect(), ended },
            Err(error) => Reply::Error(format!("refused, but only until this host ends: {error:#}")),
        }
    }

    pub(super) fn allow(&mut self, key: &str) -> Reply {
        let Ok(key) = key.parse() else { return Reply::Error("not a public key".to_owned()) };
        let allowed = self.changed(|state| state.allow(key)).and_then(|(was_revoked, state)| {
            state.save(&self.state_file)?;
            self.publish(state);
            Ok(was_revoked)
        });
        allowed.map_or_else(
            |error| Reply::Error(format!("{error:#}")),
            |was_revoked| Reply::Allowed { was_revoked },
        )
    }

    /// Looks whether somebody changed the state by hand.
    pub(super) fn look_at_state(&mut self) {
        let stamp = Stamp::of(&self.state_file);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match State::load(&self.state_file) {
            Ok(state) => drop(self.publish(state)),
            Err(error) => tracing::error!("what was known before still counts: {error:#}"),
        }
    }
}
