//! Who has what: the VMs, their workers, and the remotes associated with them.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use dashmap::{DashMap, mapref::multiple::RefMulti};
use noise_tcp::PublicKey;
use tokio::sync::{Notify, mpsc, watch};
use wire::control::{Hello, Refusal};

use crate::{
    config::{OnBusy, Vm},
    handoff::ToWorker,
    state::{Standing, State},
};

/// Hand-overs on their way to one worker.
pub(super) const HANDOFFS: usize = 8;

/// How long a VM waits for a remote that was let in to finish its handshake. Its first frame may have been a replay.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a remote is told that has no VM.
const HOW_TO_GET_IN: &str =
    "pair with `farbus-host pair VM` there and `farbus-remote pair` here, or have it listed under `remotes`";

/// A message for a worker, with the socket that goes with it.
pub(super) type ForWorker = (ToWorker, Option<OwnedFd>);

/// One VM.
struct Seat {
    policy: Vm,
    worker: Option<(u32, mpsc::Sender<ForWorker>)>,
    /// The remote that has it.
    linked: Option<PublicKey>,
    /// The remote that was let in last, and may have it until then.
    pending: Option<(PublicKey, Instant)>,
}

impl Seat {
    /// Whether another remote has the VM, or is about to.
    fn busy_for(&self, key: PublicKey, now: Instant) -> bool {
        let pending = self.pending.filter(|(_, until)| *until > now).map(|(key, _)| key);
        self.linked.or(pending).is_some_and(|other| other != key)
    }
}

/// All VMs by name; read by many connections at once.
pub(super) struct Registry {
    seats: DashMap<String, Seat>,
    /// What is known of remotes beside the configuration.
    state: watch::Sender<State>,
    gone: Notify,
}

/// What becomes of a remote.
#[derive(Debug)]
pub(super) enum Decision {
    /// It gets this VM; hand it to this worker.
    Adopt { vm: String, worker: mpsc::Sender<ForWorker> },
    /// It is told why not.
    Refuse { reason: Refusal, text: String },
}

fn refuse(reason: Refusal, text: impl Into<String>) -> Decision {
    Decision::Refuse { reason, text: text.into() }
}

impl Registry {
    pub(super) fn new(vms: BTreeMap<String, Vm>, state: State) -> Self {
        let seat = |policy| Seat { policy, worker: None, linked: None, pending: None };
        let seats = vms.into_iter().map(|(name, vm)| (name, seat(vm))).collect();
        Self { seats, state: watch::Sender::new(state), gone: Notify::new() }
    }

    /// This is known of remotes from now on.
    pub(super) fn know(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The VM that the token of this hash is for, if it is one at this time.
    pub(super) fn token_vm(&self, hash: &str, now: u64) -> Option<String> {
        self.state.borrow().token_vm(hash, now).map(str::to_owned)
    }

    /// What is known of a remote that wants this VM; `None` if there is no such VM.
    pub(super) fn standing(&self, vm: &str, key: &PublicKey) -> Option<Standing> {
        let seat = self.seats.get(vm)?;
        Some(self.state.borrow().standing(vm, &seat.policy, key))
    }

    /// The VMs that remotes have, or are about to.
    pub(super) fn holders(&self) -> Vec<(String, PublicKey)> {
        let holders = self.seats.iter().flat_map(|seat| {
            let keys = [seat.linked, seat.pending.map(|(key, _)| key)];
            keys.into_iter().flatten().map(|key| (seat.key().clone(), key)).collect::<Vec<_>>()
        });
        holders.collect()
    }

    /// The way to a VM's worker.
    pub(super) fn worker(&self, vm: &str) -> Option<mpsc::Sender<ForWorker>> {
        Some(self.seats.get(vm)?.worker.as_ref()?.1.clone())
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.seats.iter().map(|seat| seat.key().clone()).collect();
        names.sort();
        names
    }

    pub(super) fn worker_started(&self, vm: &str, id: u32, channel: mpsc::Sender<ForWorker>) {
        if let Some(mut seat) = self.seats.get_mut(vm) {
            seat.worker = Some((id, channel));
        }
    }

    pub(super) fn worker_ended(&self, vm: &str) {
        if let Some(mut seat) = self.seats.get_mut(vm) {
            seat.worker = None;
            seat.linked = None;
            seat.pending = None;
        }
        self.gone.notify_waiters();
    }

    /// The worker has finished the handshake with this remote.
    pub(super) fn remote_linked(&self, vm: &str, key: PublicKey) {
        if let Some(mut seat) = self.seats.get_mut(vm) {
            seat.linked = Some(key);
            seat.pending = None;
        }
    }

    pub(super) fn remote_left(&self, vm: &str) {
        if let Some(mut seat) = self.seats.get_mut(vm) {
            seat.linked = None;
        }
    }

    /// The VM's policy and its worker's process id, once it has one.
    pub(super) fn ready(&self, vm: &str) -> Option<(Vm, u32)> {
        let seat = self.seats.get(vm)?;
        Some((seat.policy.clone(), seat.worker.as_ref()?.0))
    }

    pub(super) fn workers(&self) -> Vec<mpsc::Sender<ForWorker>> {
        self.seats.iter().filter_map(|seat| Some(seat.worker.as_ref()?.1.clone())).collect()
    }

    /// Waits until no worker runs.
    pub(super) async fn all_gone(&self) {
        loop {
            let changed = self.gone.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.seats.iter().all(|seat| seat.worker.is_none()) {
                return;
            }
            changed.await;
        }
    }

    /// Decides what becomes of a remote, and notes that it has the VM if it gets it.
    pub(super) fn decide(&self, key: PublicKey, hello: &Hello) -> Decision {
        if hello.version != wire::VERSION {
            let text = format!(
                "this host speaks version {} and you speak {}: use the same release of Farbus on both ends",
                wire::VERSION,
                hello.version
            );
            return refuse(Refusal::Version, text);
        }
        let vm = match self.choose(&key, hello.vm.as_deref()) {
            Ok(vm) => vm,
            Err(refusal) => return refusal,
        };
        self.seat(key, vm)
    }

    fn choose(&self, key: &PublicKey, wanted: Option<&str>) -> Result<String, Decision> {
        let state = self.state.borrow();
        let standing = |seat: &RefMulti<'_, String, Seat>| state.standing(seat.key(), &seat.policy, key);
        let seats: Vec<_> = self.seats.iter().map(|seat| (seat.key().clone(), standing(&seat))).collect();
        if seats.iter().any(|(_, standing)| *standing == Standing::Revoked) {
            return Err(refuse(Refusal::NotAllowed, format!("your key {key} was revoked at this host")));
        }
        let mut allowed: Vec<String> = seats
            .into_iter()
            .filter(|(name, standing)| {
                *standing == Standing::Allowed && wanted.is_none_or(|wanted| wanted == name)
            })
            .map(|(name, _)| name)
            .collect();
        allowed.sort();
        match (allowed.len(), wanted) {
            (1, _) => Ok(allowed.remove(0)),
            // The same words whether the VM is missing or forbidden: a stranger learns nothing of what exists.
            (0, Some(name)) => Err(refuse(
                Refusal::NotAllowed,
                format!("no VM `{name}` for your key {key}: {HOW_TO_GET_IN}"),
            )),
            (0, None) => {
                Err(refuse(Refusal::NotAllowed, format!("no VM for your key {key}: {HOW_TO_GET_IN}")))
            }
            _ => {
                let text = format!("you may have several VMs, so name one with --vm: {}", allowed.join(", "));
                Err(refuse(Refusal::Ambiguous, text))
            }
        }
    }

    fn seat(&self, key: PublicKey, vm: String) -> Decision {
        let Some(mut seat) = self.seats.get_mut(&vm) else {
            return refuse(Refusal::Unavailable, "the VM has just been removed");
        };
        // The same remote coming back replaces itself: its old connection is dead, the host has just not noticed.
        let now = Instant::now();
        if seat.busy_for(key, now) && seat.policy.on_busy == OnBusy::Refuse {
            return refuse(
                Refusal::Busy,
                format!("VM `{vm}` is in use by another remote; try again when it has left"),
            );
        }
        let Some((_, worker)) = seat.worker.clone() else {
            return refuse(Refusal::Unavailable, format!("VM `{vm}` has no worker at the moment; try again"));
        };
        seat.pending = Some((key, now + HANDSHAKE));
        drop(seat);
        Decision::Adopt { vm, worker }
    }
}

#[cfg(test)]
mod tests {
    use noise_tcp::SecretKey;

    use super::*;
    use crate::config::Allowed;

    fn key() -> PublicKey {
        SecretKey::generate().public()
    }

    fn hello(vm: Option<&str>) -> Hello {
        Hello { version: wire::VERSION, vm: vm.map(str::to_owned), name: String::new(), signalling: false }
    }

    fn registry(vms: &[(&str, Vec<Allowed>, OnBusy)]) -> Registry {
        let vm = |(name, remotes, on_busy): &(&str, Vec<Allowed>, OnBusy)| {
            let vm = Vm { on_busy: *on_busy, ..Vm::for_tests(remotes.clone()) };
            ((*name).to_owned(), vm)
        };
        let registry = Registry::new(vms.iter().map(vm).collect(), State::default());
        for (name, ..) in vms {
            registry.worker_started(name, 1, mpsc::channel(1).0);
        }
        registry
    }

    fn outcome(decision: Decision) -> Result<String, Refusal> {
        match decision {
            Decision::Adopt { vm, .. } => Ok(vm),
            Decision::Refuse { reason, .. } => Err(reason),
        }
    }

    #[test]
    fn a_remote_that_may_have_one_vm_need_not_name_it() {
        let (own, other) = (key(), key());
        let registry = registry(&[
            ("a", vec![Allowed::Key(own)], OnBusy::Refuse),
            ("b", vec![Allowed::Key(other)], OnBusy::Refuse),
        ]);
        assert_eq!(outcome(registry.decide(own, &hello(None))), Ok("a".into()));
        assert_eq!(outcome(registry.decide(own, &hello(Some("b")))), Err(Refusal::NotAllowed));
        assert_eq!(outcome(registry.decide(key(), &hello(None))), Err(Refusal::NotAllowed));
    }

    #[test]
    fn a_remote_that_may_have_several_vms_is_asked_to_name_one() {
        let registry =
            registry(&[("a", vec![Allowed::Any], OnBusy::Refuse), ("b", vec![Allowed::Any], OnBusy::Refuse)]);
        let own = key();
        assert_eq!(outcome(registry.decide(own, &hello(None))), Err(Refusal::Ambiguous));
        assert_eq!(outcome(registry.decide(own, &hello(Some("b")))), Ok("b".into()));
    }

    #[test]
    fn the_first_keeps_the_vm_unless_takeover_is_configured() {
        let (first, second) = (key(), key());
        for (on_busy, expected) in
            [(OnBusy::Refuse, Err(Refusal::Busy)), (OnBusy::Takeover, Ok("a".to_owned()))]
        {
            let registry = registry(&[("a", vec![Allowed::Any], on_busy)]);
            assert!(outcome(registry.decide(first, &hello(None))).is_ok());
            assert_eq!(outcome(registry.decide(second, &hello(None))), expected, "{on_busy:?}");
        }
    }

    #[test]
    fn the_same_remote_replaces_itself_and_a_vm_is_free_once_its_remote_has_left() {
        let (first, second) = (key(), key());
        let registry = registry(&[("a", vec![Allowed::Any], OnBusy::Refuse)]);
        assert!(outcome(registry.decide(first, &hello(None))).is_ok());
        assert!(outcome(registry.decide(first, &hello(None))).is_ok());
        registry.remote_linked("a", first);
        assert_eq!(outcome(registry.decide(second, &hello(None))), Err(Refusal::Busy));
        registry.remote_left("a");
        assert!(outcome(registry.decide(second, &hello(None))).is_ok());
    }

    #[test]
    fn without_a_worker_a_remote_is_asked_to_come_again() {
        let registry = registry(&[("a", vec![Allowed::Any], OnBusy::Refuse)]);
        registry.worker_ended("a");
        assert_eq!(outcome(registry.decide(key(), &hello(None))), Err(Refusal::Unavailable));
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        let registry = registry(&[("a", vec![Allowed::Any], OnBusy::Refuse)]);
        let old = Hello { version: wire::VERSION + 1, ..hello(None) };
        assert_eq!(outcome(registry.decide(key(), &old)), Err(Refusal::Version));
    }

    #[test]
    fn a_revoked_key_is_refused_whatever_it_wants_and_whoever_has_a_vm_by_it_is_found() {
        let own = key();
        let registry = registry(&[("a", vec![Allowed::Key(own)], OnBusy::Refuse)]);
        assert!(outcome(registry.decide(own, &hello(None))).is_ok());
        assert_eq!(registry.holders(), [("a".to_owned(), own)]);
        registry.remote_linked("a", own);
        let mut state = State::default();
        state.revoke(own, 1);
        registry.know(state);
        assert_eq!(registry.holders(), [("a".to_owned(), own)]);
        assert_eq!(registry.standing("a", &own), Some(Standing::Revoked));
        match registry.decide(own, &hello(Some("b"))) {
            Decision::Refuse { reason: Refusal::NotAllowed, text } => {
                assert!(text.contains("revoked"), "{text}")
            }
            other => panic!("{other:?}"),
        }
    }
}
