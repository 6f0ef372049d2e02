//! Calls that were begun by the web endpoint, and questions to workers about them. A value: no clock, no socket.

use std::{collections::HashMap, net::SocketAddr};

use tokio::sync::oneshot;

use crate::{handoff::Signalled, state::tokens};

/// Calls at the same time, those that have become links included.
const CALLS: usize = 64;
/// Calls by one token.
const CALLS_PER_TOKEN: usize = 4;

/// Why there is no room for one more call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// This token has enough of them.
    Token,
    /// All together have.
    All,
    /// The system has no randomness for its name.
    Nameless,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// Its number, for the worker.
    pub(super) number: u64,
    vm: String,
    /// The hash of the token that it was begun by.
    token: String,
    from: SocketAddr,
    /// How often its ICE began.
    pub(super) restarts: u64,
}

impl Call {
    /// Of its ICE: RFC 9725 §4.3.1.
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.restarts)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(in crate::manager) struct Calls {
    last: u64,
    /// By the name in their URLs.
    open: HashMap<String, Call>,
    asked: HashMap<u64, (String, oneshot::Sender<Signalled>)>,
}

impl Calls {
    /// A call begins; its name and number.
    pub(super) fn begin(&mut self, vm: &str, token: &str, from: SocketAddr) -> Result<(String, u64), Full> {
        if self.open.values().filter(|call| call.token == token).count() >= CALLS_PER_TOKEN {
            return Err(Full::Token);
        }
        if self.open.len() >= CALLS {
            return Err(Full::All);
        }
        let name = tokens::generate().map_err(|_| Full::Nameless)?;
        self.last += 1;
        let (vm, token) = (vm.to_owned(), token.to_owned());
        let call = Call { number: self.last, vm, token, from, restarts: 0 };
        self.open.insert(name.clone(), call);
        Ok((name, self.last))
    }

    /// The call of this name, if it is about this VM and was begun by this token.
    pub(super) fn find(&mut self, name: &str, vm: &str, token: &str) -> Option<&mut Call> {
        self.open.get_mut(name).filter(|call| call.vm == vm && call.token == token)
    }

    /// Where the call of this number came from, if it is about this VM.
    pub(in crate::manager) fn from(&self, vm: &str, number: u64) -> Option<SocketAddr> {
        self.open.values().find(|call| call.number == number && call.vm == vm).map(|call| call.from)
    }

    /// The call of this number is over.
    pub(in crate::manager) fn over(&mut self, vm: &str, number: u64) {
        self.open.retain(|_, call| call.number != number || call.vm != vm);
    }

    /// A question to this VM's worker: its number, and where the answer comes.
    pub(super) fn ask(&mut self, vm: &str) -> (u64, oneshot::Receiver<Signalled>) {
        // Whoever gave up waiting is not remembered.
        self.asked.retain(|_, (_, answer)| !answer.is_closed());
        let (answer, answered) = oneshot::channel();
        self.last += 1;
        self.asked.insert(self.last, (vm.to_owned(), answer));
        (self.last, answered)
    }

    /// A worker has answered.
    pub(in crate::manager) fn answered(&mut self, vm: &str, ask: u64, outcome: Signalled) {
        if let Some((asked, answer)) = self.asked.remove(&ask)
            && asked == vm
        {
            // Nobody may wait for it any more.
            let _ = answer.send(outcome);
        }
    }

    /// A worker has ended, and its calls with it.
    pub(in crate::manager) fn worker_ended(&mut self, vm: &str) {
        self.open.retain(|_, call| call.vm != vm);
        self.asked.retain(|_, (asked, _)| asked != vm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> SocketAddr {
        ([192, 0, 2, 1], 5).into()
    }

    #[test]
    fn calls_are_bounded_for_a_token_and_for_all() {
        let mut calls = Calls::default();
        let begun: Vec<_> = (0..CALLS_PER_TOKEN).map(|_| calls.begin("a", "t", from()).unwrap()).collect();
        assert_eq!(calls.begin("a", "t", from()), Err(Full::Token));
        let more = (0..).map_while(|n| calls.begin("a", &n.to_string(), from()).ok()).count();
        assert_eq!(more, CALLS - CALLS_PER_TOKEN);
        assert_eq!(calls.begin("a", "another", from()), Err(Full::All));
        calls.over("a", begun[0].1);
        assert!(calls.begin("a", "t", from()).is_ok());
    }

    #[test]
    fn a_call_is_found_by_who_began_it_only() {
        let mut calls = Calls::default();
        let (name, number) = calls.begin("a", "t", from()).unwrap();
        assert_eq!(calls.find(&name, "a", "t").unwrap().number, number);
        for (name, vm, token) in [("x", "a", "t"), (&name, "b", "t"), (&name, "a", "u")] {
            assert!(calls.find(name, vm, token).is_none());
        }
        assert_eq!(calls.from("a", number), Some(from()));
        assert_eq!(calls.from("b", number), None);
        calls.over("b", number);
        assert!(calls.find(&name, "a", "t").is_some(), "another worker ends nothing of this one");
    }

    #[test]
    fn with_its_worker_a_call_ends_and_who_waits_hears_it() {
        let mut calls = Calls::default();
        let (name, _) = calls.begin("a", "t", from()).unwrap();
        let (ask, mut answered) = calls.ask("a");
        calls.answered("b", ask + 1, Signalled::Done(String::new()));
        assert!(answered.try_recv().is_err());
        calls.worker_ended("a");
        assert!(calls.find(&name, "a", "t").is_none());
        assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
