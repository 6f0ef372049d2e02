//! When to look for another link, whether it is better, and moving because somebody wants to.

use std::time::Duration;

use actix::prelude::*;
use session::LinkId;
use tokio::sync::oneshot;

use crate::{
    links::Effort,
    live::{Live, On},
    remote::Remote,
    score::{Lost, Remembered, Score},
    ways::{Way, Wish},
};

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
    /// The best that this link could do so far.
    best: Option<(LinkId, Duration)>,
    /// What it loses.
    lost: Lost,
    /// What those lost that were left.
    remembered: Remembered,
    /// How often was looked.
    looks: u32,
    /// How often in a row it was bad.
    bad: u32,
    /// So many looks do not count.
    rest: u32,
    /// A move that somebody waits for.
    switching: Option<(LinkId, oneshot::Sender<Result<String, String>>)>,
}

impl Quality {
    /// Looks at a link; whether it is time to look for another one.
    fn look(&mut self, On { link, made, now, pings, late_pings }: On) -> bool {
        self.looks = self.looks.saturating_add(1);
        if self.best.is_none_or(|(of, _)| of != link) {
            self.lost = Lost::default();
            self.best = None;
        }
        self.lost.look(pings, late_pings);
        let Some(round_trip) = now else { return false };
        let score = Score { round_trip, loss: self.lost.loss() };
        let best =
            self.best.map(|(_, best)| best).or(made).map_or(score.cost(), |best| best.min(score.cost()));
        self.best = Some((link, best));
        if let Some(rest) = self.rest.checked_sub(1) {
            self.rest = rest;
            return false;
        }
        self.bad = if score.bad(best) { self.bad + 1 } else { 0 };
        let due = self.bad >= IN_A_ROW;
        if due {
            (self.bad, self.rest) = (0, REST);
        }
        due
    }

    /// Another session begins: nothing is known of its link.
    pub(crate) fn begins(&mut self) {
        (self.best, self.bad, self.lost) = (None, 0, Lost::default());
    }

    /// The session has left a link of this kind.
    pub(crate) fn left(&mut self, way: Way) {
        self.remembered.left(way, self.looks, std::mem::take(&mut self.lost).loss());
        (self.best, self.bad) = (None, 0);
    }

    /// Whether a new link of this kind is worth a move from the one that there is; one that is not known yet is no worse.
    pub(crate) fn better(&self, way: Way, new: Option<Duration>, old: Option<Duration>) -> bool {
        let (Some(new), Some(old)) = (new, old) else { return false };
        let new = Score { round_trip: new, loss: self.remembered.loss(way, self.looks) };
        new.better(Score { round_trip: old, loss: self.lost.loss() })
    }
}

impl Remote {
    /// Looks at the link of the moment, again and again.
    pub(crate) fn watch_quality(&mut self, ctx: &mut Context<Self>) {
        if self.wish == Wish::Auto {
            ctx.run_interval(LOOK, Self::look_at_quality);
        }
    }

    fn look_at_quality(&mut self, ctx: &mut Context<Self>) {
        let Some(on) = self.live.as_ref().and_then(Live::on) else { return };
        if self.quality.look(on) && !self.attempts.tries(self.way.other()) {
            let (other, loss_ppm) = (self.way.other(), self.quality.lost.loss());
            tracing::info!(round_trip = ?on.now, loss_ppm, "the link has become bad; trying {other} beside it");
            self.attempt(other, Effort::Within(other.limit(on.now)), ctx);
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

    /// Looks at a link whose pings take so long, one look after the other.
    struct Looks {
        quality: Quality,
        on: On,
    }

    impl Looks {
        fn new() -> Self {
            let on = On { link: LinkId(1), made: Some(ms(10)), now: Some(ms(10)), pings: 0, late_pings: 0 };
            Self { quality: Quality::default(), on }
        }

        fn look(&mut self, now: u64, late: bool) -> bool {
            let On { pings, late_pings, .. } = self.on;
            self.on = On {
                now: Some(ms(now)),
                pings: pings + 1,
                late_pings: late_pings + u64::from(late),
                ..self.on
            };
            self.quality.look(self.on)
        }

        /// So many looks, whatever they say.
        fn many(&mut self, looks: u32, like: fn(u32) -> (u64, bool)) {
            for (now, late) in (0..looks).map(like) {
                self.look(now, late);
            }
        }

        /// After this many looks in a row that are alike it is time, if at all.
        fn due(&mut self, now: u64, late: bool) -> Option<u32> {
            (1..=100).find(|_| self.look(now, late))
        }
    }

    #[test]
    fn a_link_that_stays_slow_is_noticed_once_in_a_while_and_a_moment_is_not() {
        let mut looks = Looks::new();
        let mut look = |now| looks.look(now, false);
        assert!(![11, 200, 200, 12, 200, 200].into_iter().any(&mut look));
        assert!(look(200), "the third in a row");
        assert!(!(0..REST + IN_A_ROW - 1).any(|_| look(200)));
        assert!(look(200));
        assert!(!(0..100).any(|_| look(45)), "twice its best and a little is not bad");
    }

    #[test]
    fn a_link_that_loses_is_noticed_and_what_is_lost_once_in_a_while_is_not() {
        let mut looks = Looks::new();
        looks.look(10, false);
        assert_eq!(looks.due(10, true), Some(3 + IN_A_ROW - 1));
        let mut looks = Looks::new();
        assert!(!(0..600).any(|look| looks.look(10, look % 8 == 0)), "two of sixteen are chance");
        assert!((0..600).any(|look| looks.look(10, look % 4 == 0)), "a quarter is not");
    }

    #[test]
    fn another_link_is_measured_by_its_own_best_and_its_own_loss() {
        let mut looks = Looks::new();
        looks.many(20, |_| (1, true));
        looks.quality.left(Way::NoiseTcp);
        looks.quality.rest = 0;
        looks.on = On { link: LinkId(2), made: Some(ms(100)), ..looks.on };
        assert_eq!(looks.due(120, false), None);
    }

    #[test]
    fn the_session_does_not_go_back_to_a_kind_of_link_that_it_has_left_for_its_loss() {
        let mut looks = Looks::new();
        looks.many(20, |_| (10, true));
        let better = |looks: &Looks, way, new| looks.quality.better(way, Some(ms(new)), Some(ms(10)));
        assert!(better(&looks, Way::Webrtc, 40), "it loses everything");
        looks.quality.left(Way::NoiseTcp);
        looks.on.link = LinkId(2);
        looks.many(20, |_| (40, false));
        assert!(!looks.quality.better(Way::NoiseTcp, Some(ms(10)), Some(ms(40))));
        // Also not if this one loses something, too; but if it becomes much worse than that one was.
        looks.many(16, |look| (40, look % 4 == 0));
        assert!(!looks.quality.better(Way::NoiseTcp, Some(ms(10)), Some(ms(40))));
        assert!(looks.quality.better(Way::NoiseTcp, Some(ms(10)), Some(ms(3_000))));
    }

    #[test]
    fn a_link_whose_round_trip_is_not_known_is_no_better_and_none_is_better_than_it() {
        let quality = Quality::default();
        assert!(!quality.better(Way::Webrtc, None, Some(ms(100))));
        assert!(!quality.better(Way::Webrtc, Some(ms(1)), None));
    }
}
