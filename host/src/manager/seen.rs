//! What the manager has seen of each VM and its remote, for `farbus-host status`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use actix::prelude::*;
use noise_tcp::PublicKey;

use super::{ConnectionManager, limits::Source};
use crate::{
    control::{Reply, Status, VmStatus},
    counted::Counted,
    exported::Exported,
    lent::{LentDevice, plain},
    report::Report,
};

/// Remotes of one VM that were let in and whose names are remembered until they are linked.
const NEWCOMERS: usize = 8;

/// The door has let a remote in, by a first message that may be a replay.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LetIn {
    pub(super) vm: String,
    pub(super) key: PublicKey,
    /// What it calls itself.
    pub(super) name: String,
}

/// What was seen of one VM.
#[derive(Default)]
pub(super) struct Seen {
    newcomers: Vec<(PublicKey, String)>,
    /// Where the remote was that proved its key last.
    from: Option<SocketAddr>,
    remote: Option<Remote>,
    /// What it lends.
    lent: Vec<LentDevice>,
    counted: Counted,
}

/// The remote that has the VM.
struct Remote {
    key: PublicKey,
    name: String,
    from: Option<SocketAddr>,
    since: Duration,
    /// The kind of its link; none while it has none.
    transport: Option<String>,
}

impl ConnectionManager {
    pub(super) fn let_in(&mut self, LetIn { vm, key, name }: LetIn) {
        let newcomers = &mut self.seen.entry(vm).or_default().newcomers;
        newcomers.retain(|(known, _)| *known != key);
        if newcomers.len() == NEWCOMERS {
            newcomers.remove(0);
        }
        newcomers.push((key, plain(&name)));
    }

    pub(super) fn proved(&mut self, vm: String, from: SocketAddr) {
        self.trusted.trust(Source::of(from.ip()));
        self.seen.entry(vm).or_default().from = Some(from);
    }

    pub(super) fn linked(&mut self, vm: &str, key: PublicKey, transport: &str) {
        let (since, transport) = (self.start.elapsed(), Some(transport.to_owned()));
        let seen = self.seen.entry(vm.to_owned()).or_default();
        let name = seen.newcomers.iter().find(|(known, _)| *known == key).map(|(_, name)| name.clone());
        seen.remote = Some(Remote { key, name: name.unwrap_or_default(), from: seen.from, since, transport });
        Exported::linked(vm, true);
    }

    /// The remote has no link; its devices are held.
    pub(super) fn away(&mut self, vm: &str) {
        let remote = self.seen.get_mut(vm).and_then(|seen| seen.remote.as_mut());
        if let Some(remote) = remote {
            remote.transport = None;
        }
    }

    /// The remote's session goes on over a link of this kind.
    pub(super) fn back(&mut self, vm: &str, transport: &str) {
        let Some(seen) = self.seen.get_mut(vm) else { return };
        let from = seen.from;
        if let Some(remote) = &mut seen.remote {
            (remote.transport, remote.from) = (Some(transport.to_owned()), from);
        }
    }

    pub(super) fn left(&mut self, vm: &str) {
        let seen = self.seen.entry(vm.to_owned()).or_default();
        seen.remote = None;
        seen.lent.clear();
        Exported::linked(vm, false);
    }

    /// The remote lends this from now on.
    pub(super) fn lent(&mut self, vm: String, lent: Vec<LentDevice>) {
        self.seen.entry(vm).or_default().lent = lent;
    }

    /// The worker has counted; what is worth a line of what happens.
    pub(super) fn counted(&mut self, vm: String, counted: Counted) -> Option<Report> {
        self.exported.export(&vm, &counted);
        let seen = self.seen.entry(vm.clone()).or_default();
        let moved = !counted.moved_as(&seen.counted);
        let Counted { frames, requests, links, .. } = counted;
        seen.counted = counted;
        moved.then_some(Report::Counted { vm, frames, requests, links })
    }

    pub(super) fn status(&self) -> Reply {
        let vms = self.registry.names().into_iter().map(|vm| self.status_of(vm)).collect();
        Reply::Status(Status {
            address: self.address.to_string(),
            fingerprint: self.key.fingerprint().to_string(),
            web: self.web.clone(),
            uptime_s: self.start.elapsed().as_secs(),
            vms,
        })
    }

    fn status_of(&self, vm: String) -> VmStatus {
        let worker = self.registry.ready(&vm).map(|(_, worker)| worker);
        let seen = self.seen.get(&vm);
        let now = self.start.elapsed();
        let remote = seen.and_then(|seen| seen.remote.as_ref());
        let remote = remote.map(|Remote { key, name, from, since, transport }| crate::control::Remote {
            key: key.to_string(),
            name: name.clone(),
            address: from.map(|from| from.to_string()),
            transport: transport.clone(),
            linked_for_s: now.saturating_sub(*since).as_secs(),
        });
        let counted = seen.map(|seen| seen.counted.clone()).unwrap_or_default();
        let lent = seen.map(|seen| seen.lent.clone()).unwrap_or_default();
        VmStatus { vm, worker, remote, lent, counted }
    }
}

impl Handler<LetIn> for ConnectionManager {
    type Result = ();

    fn handle(&mut self, newcomer: LetIn, _: &mut Self::Context) {
        self.let_in(newcomer);
    }
}

/// By VM.
pub(super) type AllSeen = BTreeMap<String, Seen>;
