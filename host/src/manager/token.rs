//! Who may ask at the web endpoint, and what becomes of those who have asked and said who they are.

use noise_tcp::PublicKey;
use wire::control::{Answer, Hello, Refusal};

use super::{ConnectionManager, registry::Decision, seen::LetIn};
use crate::{
    control::{Reply, client::seconds_since_1970},
    handoff::ToWorker,
    report::Report,
    state::{State, tokens},
};

impl ConnectionManager {
    /// A token for this VM, good for so long, or until it is dropped.
    pub(super) fn make_token(&mut self, vm: &str, seconds: Option<u64>) -> Reply {
        if self.web.is_none() {
            return Reply::Error("there is no web endpoint: the configuration has no [web]".to_owned());
        }
        if !self.registry.names().iter().any(|name| name == vm) {
            return Reply::Error(format!("no VM `{vm}` is served"));
        }
        let now = seconds_since_1970();
        let until = seconds.map(|seconds| now.saturating_add(seconds));
        let Ok(token) = tokens::generate() else {
            return Reply::Error("the system has no randomness".to_owned());
        };
        let hash = tokens::hash(&token);
        match self.change(|state| state.add_token(hash, vm, now, until)) {
            Ok(true) => Reply::WebToken { vm: vm.to_owned(), token, until },
            Ok(false) => Reply::Error("there are too many tokens: drop those of a VM".to_owned()),
            Err(error) => Reply::Error(format!("{error:#}")),
        }
    }

    /// All tokens for this VM are good for nothing any more.
    pub(super) fn drop_tokens(&mut self, vm: &str) -> Reply {
        match self.change(|state| state.drop_tokens(vm)) {
            Ok(dropped) => Reply::WebTokensDropped { dropped },
            Err(error) => Reply::Error(format!("{error:#}")),
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> anyhow::Result<T> {
        let (outcome, state) = self.changed(change)?;
        state.save(&self.state_file)?;
        self.publish(state);
        Ok(outcome)
    }

    /// Decides about a remote that has called by the web endpoint, as the door does about one that came by TCP. What it
    /// asked for is the VM of its token, whether it names it or not.
    pub(super) fn judge(&mut self, vm: String, call: u64, key: PublicKey, hello: Hello) {
        let Some(from) = self.calls.borrow().from(&vm, call) else { return };
        let Some(worker) = self.registry.worker(&vm) else { return };
        let decision = match &hello.vm {
            Some(other) if *other != vm => Decision::Refuse {
                reason: Refusal::NotAllowed,
                text: format!("your token is for another VM than `{other}`"),
            },
            _ => self.registry.decide(key, &Hello { vm: Some(vm.clone()), ..hello.clone() }),
        };
        let answer = match decision {
            Decision::Adopt { vm, .. } => {
                self.let_in(LetIn { vm: vm.clone(), key, name: hello.name });
                Answer::Welcome { vm }
            }
            Decision::Refuse { reason, text } => {
                let remote = format!("{key} ({from})");
                self.reporter.say(&Report::Refused { remote, text: text.clone() });
                Answer::Refused { reason, text }
            }
        };
        // A worker that is so busy is asked again by the remote.
        let _ = worker.try_send((ToWorker::Judged { call, answer }, None));
    }
}
