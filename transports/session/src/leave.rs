//! How a session gets off a link.

use std::time::Duration;

use crate::{Event, LinkId, ResetReason, Session, links::State};

/// So long a link that the session has left stays open for what is on its way.
const LINGER: Duration = Duration::from_secs(1);
/// So long a peer may go on using it that has not the answer on the new link.
const ANSWERED: Duration = Duration::from_millis(500);

impl State {
    /// Of a link that the session leaves for another one, whose peer has the answer there, or has not yet.
    pub(crate) fn left(now: Duration, answered: bool) -> Self {
        let detach_at = (!answered).then_some(now + ANSWERED);
        Self::Lingers { until: now + LINGER, detach: answered, detach_at }
    }
}

impl Session {
    /// This link has ended or is given up. If the session was on it, it goes on over the next one.
    pub fn link_down(&mut self, now: Duration, link: LinkId) {
        self.now = self.now.max(now);
        if self.links.remove(link).is_some() {
            self.left();
        }
    }

    /// A link is gone: the session is detached if it was on that one. A link that opens is none yet: its answer may come,
    /// or never.
    fn left(&mut self) {
        if self.links.current().is_some() {
            return;
        }
        // Over which the peer might have heard that we are elsewhere.
        self.links.detach_left(None);
        if self.links.attached {
            self.links.attached = false;
            self.links.detached_since = Some(self.now);
            if self.resumes {
                self.link_events.push_back(Event::Detached);
            }
        }
    }

    /// The owner may close this link.
    pub(crate) fn retire(&mut self, link: LinkId) {
        if self.links.remove(link).is_some() {
            self.link_events.push_back(Event::Retired(link));
            self.left();
        }
    }

    pub(crate) fn expire(&mut self, now: Duration) {
        let over = |since: Duration| now >= since.saturating_add(self.config.expire_after);
        if self.links.detached_since.is_some_and(over) {
            self.finish(Event::Expired, ResetReason::Expired);
        }
    }

    pub(crate) fn links_on_timeout(&mut self, now: Duration) {
        let over: Vec<LinkId> = self.links.iter().filter(|path| path.over(now)).map(|path| path.id).collect();
        for link in over {
            self.retire(link);
        }
        self.links.detach_left(Some(now));
        for path in self.links.iter_mut() {
            let due = path.timeout().is_some_and(|at| at <= now);
            if let (true, State::Opens(opens)) = (due, &mut path.state) {
                opens.due = true;
            }
        }
    }

    /// The peer is on another link, or on none: it takes nothing more from this one.
    pub(crate) fn detached_by_peer(&mut self, now: Duration, link: LinkId) {
        if let Some(path) = self.links.get_mut(link) {
            path.state = State::Lingers { until: now + LINGER, detach: false, detach_at: None };
        }
        self.left();
    }
}
