//! Which of two links is better, when to look for another one, and moving because somebody wants to.

use std::time::Duration;

use actix::prelude::*;
use session::LinkId;
use tokio::sync::oneshot;

use crate::{
    links::Effort,
    live::Live,
    remote::Remote,
    ways::{Way, Wish},
};

/// A round trip that is better by less than this, or a fifth, is not worth a move.
const LEAST_GAIN: Duration = Duration::from_millis(2);
/// A link has become bad when its round trip is that much longer than it was at its best: twice, and this.
const WORSE: Duration = Duration::from_millis(30);
/// How often it is looked at, and how often in a row it has to be bad: a moment is nothing.
const LOOK: Duration = Duration::from_secs(1);
const IN_A_ROW: u32 = 3;
/// After a look for another link the next one waits so many looks.
const REST: u32 = 30;

/// Moves the session to a new link of this kind. The answer: the kind it is on then, or why not.
#[derive(Debug, Message)]
#[rtype(result = "Result<String, String>")]
pub(crate) struct Switch(pub(crate) Way);

/// How the link of the moment does.
#[derive(Default)]
pub(crate) struct Quality {
    /// The best round trip of this link so far.
    best: Option<(LinkId, Duration)>,
    /// How often in a row it was bad.
    bad: u32,
    /// So many looks do not count.
    rest: u32,
    /// A move that somebody waits for.
    switching: Option<(LinkId, oneshot::Sender<Result<String, String>>)>,
}

impl Quality {
    /// Looks at the round trip of a link; whether it is time to look for another one.
    fn look(&mut self, link: LinkId, made: Option<Duration>, now: Duration) -> bool {
        let best = self.best.filter(|(of, _)| *of == link).map(|(_, best)| best).or(made).unwrap_or(now);
        let best = best.min(now);
        self.best = Some((link, best));
        if let Some(rest) = self.rest.checked_sub(1) {
            self.rest = rest;
            return false;
        }
        self.bad = if now > best * 2 + WORSE { self.bad + 1 } else { 0 };
        let due = self.bad >= IN_A_ROW;
        if due {
            (self.bad, self.rest) = (0, REST);
        }
        due
    }
}

/// Whether a link with this round trip is worth a move from one with that; one that is not known yet is no worse.
pub(crate) fn better(new: Option<Duration>, old: Option<Duration>) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return false };
    new + LEAST_GAIN.max(old / 5) < old
}

impl Remote {
    /// Looks at the link of the moment, again and again.
    pub(crate) fn watch_quality(&mut self, ctx: &mut Context<Self>) {
        if self.wish == Wish::Auto {
            ctx.run_interval(LOOK, Self::look_at_quality);
        }
    }

    fn look_at_quality(&mut self, ctx: &mut Context<Self>) {
        let looked = self.live.as_ref().and_then(Live::on);
        let Some((link, made, Some(now))) = looked else { return };
        if self.quality.look(link, made, now) && !self.attempts.tries(self.way.other()) {
            let other = self.way.other();
            tracing::info!(round_trip = ?now, "the link has become slow; trying {other} beside it");
            self.attempt(other, Effort::Within(other.limit(Some(now))), ctx);
        }
    }

    /// Whether somebody waits for the session to move to this link.
    pub(crate) fn switching(&self, link: LinkId) -> bool {
        self.awaited() == Some(link)
    }

    /// The link that somebody waits for.
    pub(crate) fn awaited(&self) -> Option<LinkId> {
        self.quality.switching.as_ref().map(|(awaited, _)| *awaited)
    }

    /// Nobody waits for any link but this one any more: whoever does hears so.
    pub(crate) fn stay_unless(&mut self, link: Option<LinkId>) {
        self.quality.switching.take_if(|(awaited, _)| Some(*awaited) != link);
    }

    /// What became of a move to this link, for whoever waits for it.
    pub(crate) fn switched(&mut self, link: LinkId, outcome: Result<String, String>) {
        if let Some((_, said)) = self.quality.switching.take_if(|(awaited, _)| *awaited == link) {
            // Whoever asked may have lost patience.
            let _ = said.send(outcome);
        }
    }
}

impl Handler<Switch> for Remote {
    type Result = ResponseFuture<Result<String, String>>;

    fn handle(&mut self, Switch(way): Switch, ctx: &mut Self::Context) -> Self::Result {
        if self.live.as_ref().and_then(Live::on).is_none() {
            let text = "there is no link to move from at the moment; the next one comes by itself";
            return Box::pin(async move { Err(text.to_owned()) });
        }
        let (said, outcome) = oneshot::channel();
        let link = self.attempt(way, Effort::Within(way.limit(self.round_trip())), ctx);
        self.quality.switching = Some((link, said));
        Box::pin(async move { outcome.await.unwrap_or_else(|_| Err("something else came first".to_owned())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_move_has_to_be_worth_it() {
        for (new, old, worth) in
            [(1, 2, false), (1, 4, true), (90, 100, false), (79, 100, true), (100, 90, false)]
        {
            assert_eq!(better(Some(ms(new)), Some(ms(old))), worth, "{new} against {old} ms");
        }
        assert!(!better(None, Some(ms(100))) && !better(Some(ms(1)), None));
    }

    #[test]
    fn a_link_that_stays_slow_is_noticed_once_in_a_while_and_a_moment_is_not() {
        let (link, mut quality) = (LinkId(1), Quality::default());
        let mut look = |now| quality.look(link, Some(ms(10)), ms(now));
        assert!(![11, 200, 200, 12, 200, 200].into_iter().any(&mut look));
        assert!(look(200), "the third in a row");
        assert!(!(0..REST + IN_A_ROW - 1).any(|_| look(200)));
        assert!(look(200));
        assert!(!(0..100).any(|_| look(45)), "twice its best and a little is not bad");
    }

    #[test]
    fn another_link_is_measured_by_its_own_best() {
        let mut quality = Quality::default();
        quality.look(LinkId(1), None, ms(1));
        assert!((0..10).all(|_| !quality.look(LinkId(2), Some(ms(100)), ms(120))));
    }
}
