//! A remote that may not have the VM any more.

use actix::prelude::*;
use link::PeerKey;
use wire::{ToRemote, control};

use crate::VmSession;

/// The remote, if there is one, is told that it may not have the VM any more, and loses it at once: what it lent is
/// unplugged now, however long devices are held for a remote that comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SendAway {
    /// Whose key it is: nobody else is sent away.
    pub remote: PeerKey,
    /// Why, for people.
    pub text: String,
}

impl Handler<SendAway> for VmSession {
    type Result = ();

    fn handle(&mut self, SendAway { remote, text }: SendAway, ctx: &mut Self::Context) {
        self.turn_away(remote, ctx);
        if self.live.as_ref().is_none_or(|live| live.peer != remote) {
            return;
        }
        let reason = format!("the remote was sent away: {text}");
        self.send(vec![ToRemote::Control(control::ToRemote::Bye { text, retry: false })], ctx);
        self.end(&reason, ctx);
    }
}
