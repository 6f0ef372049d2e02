//! A remote that says beside its link that it is done.

use actix::prelude::*;
use session::LinkId;

use crate::{VmSession, links::hang_up};

const DONE: &str = "the remote hung up";

/// Whoever is at the other end of a link is done. If the session is on it, the session is over, and what was lent is
/// unplugged now: nobody comes back for whom it could be held.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HangUp {
    /// The [`link::Link::binding`] of the link.
    pub binding: [u8; 32],
}

impl Handler<HangUp> for VmSession {
    type Result = ();

    fn handle(&mut self, HangUp { binding }: HangUp, ctx: &mut Self::Context) {
        let silent = self.newcomers.extract_if(.., |_, newcomer| newcomer.line.binding == binding);
        silent.for_each(|(_, newcomer)| hang_up(newcomer.line, ctx));
        match self.linked_by(binding) {
            Some(link) if self.is_on(link) => self.end(DONE, ctx),
            // The session has gone elsewhere, or never came here.
            Some(link) => self.link_lost(link, DONE, ctx),
            None => {}
        }
    }
}

impl VmSession {
    fn linked_by(&self, binding: [u8; 32]) -> Option<LinkId> {
        let mut lines = self.live.iter().flat_map(|live| &live.lines);
        lines.find(|(_, line)| line.binding == binding).map(|(link, _)| *link)
    }

    fn is_on(&self, link: LinkId) -> bool {
        self.live.as_ref().is_some_and(|live| live.session.link() == Some(link))
    }
}
