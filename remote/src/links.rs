//! The links of the session: how they come, what comes over them, and how they go.
//!
//! ```text
//!   no session:   an attempt, or one of each kind, with growing pauses: the first link begins the session
//!   detached:     one attempt of each kind at a time, again at once: the first link that is there takes the session on,
//!                 or is soon followed by the next one
//!   attached:     one attempt beside the link of the moment, to compare or because somebody wants to switch:
//!                 the session moves when the link is there, if it is wanted or better
//! ```

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::{
    FutureExt,
    stream::{self, StreamExt},
};
use link::{Driven, Outbound};
use session::{LinkId, LinkKind, NewLink};
use tokio::runtime::Handle;
use wire::{Lane, control::Refusal};

use crate::{
    events::Event,
    live::Live,
    look::Look,
    remote::Remote,
    ways::{Attempt, Linked, NoLink, Way, Wish},
};

/// The most frames that one item of the inbound stream carries.
const FRAMES_PER_TURN: usize = 16;
/// How long the slower of two kinds of links is waited for at the beginning.
const RACE: Duration = Duration::from_millis(2500);

/// How long a host is left alone that says to have no place for the session: it counts how often it is asked.
const REFUSED: Duration = Duration::from_millis(200);
/// The most of it, after it has doubled a few times.
const REFUSED_AT_MOST: Duration = Duration::from_secs(2);

/// How long a link may take to take a session on that has no other one, before the next one is looked for.
const TAKING_ON: Duration = Duration::from_millis(500);
/// It may take so many of its round trips: one is enough if nothing is lost.
const TAKING_ON_ROUND_TRIPS: u32 = 4;

/// How much an attempt is worth.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effort {
    /// It takes what time it needs.
    Once,
    /// It is given up after so long.
    Within(Duration),
    /// It goes on until the host can be reached.
    Looks(Look),
}

/// What came over a link.
pub(crate) struct Came {
    link: LinkId,
    what: What,
}

enum What {
    /// In order.
    Frames(Vec<(Lane, Bytes)>),
    /// The link has ended, for this reason.
    End(String),
}

/// A link of the session.
pub(crate) struct Line {
    pub(crate) outbound: Outbound,
    /// A future waits for room in `outbound`.
    pub(crate) waiting: bool,
    /// The kind of link, for people.
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// How long the host's answer took when it was made.
    pub(crate) round_trip: Option<Duration>,
    inbound: SpawnHandle,
}

/// Attempts to get a link that have come to nothing yet.
#[derive(Default)]
pub(crate) struct Attempts {
    running: BTreeMap<LinkId, (Way, SpawnHandle)>,
    last: u64,
    /// The next ones.
    next: Option<SpawnHandle>,
    /// So many times in a row somebody was there and refused.
    refused: u32,
    /// Something random.
    seed: u64,
}

impl Attempts {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Whether something is tried, or will be.
    fn busy(&self) -> bool {
        self.next.is_some() || !self.running.is_empty()
    }

    /// Whether this kind is being tried.
    pub(crate) fn tries(&self, way: Way) -> bool {
        self.running.values().any(|(running, _)| *running == way)
    }

    fn give_up(&mut self, attempt: LinkId, ctx: &mut Context<Remote>) -> bool {
        let running = self.running.remove(&attempt);
        running.is_some_and(|(_, handle)| ctx.cancel_future(handle))
    }

    /// The next one; what was to be the next one before is not.
    pub(crate) fn next_is(&mut self, next: SpawnHandle, ctx: &mut Context<Remote>) {
        if let Some(before) = self.next.replace(next) {
            ctx.cancel_future(before);
        }
    }

    /// Whether any is under way.
    pub(crate) fn running(&self) -> bool {
        !self.running.is_empty()
    }

    /// All but this one are given up.
    fn cancel(&mut self, but: Option<LinkId>, ctx: &mut Context<Remote>) {
        let given_up = self.running.extract_if(.., |id, _| Some(*id) != but).map(|(_, (_, handle))| handle);
        for attempt in given_up.chain(self.next.take()) {
            ctx.cancel_future(attempt);
        }
    }
}

impl Remote {
    /// Tries to get a link for a new session.
    pub(crate) fn try_to_begin(&mut self, ctx: &mut Context<Self>) {
        self.way = self.wish.first();
        self.attempt(self.way, Effort::Once, ctx);
        if self.wish == Wish::Auto {
            self.attempt(self.way.other(), Effort::Once, ctx);
        }
    }

    /// Tries to get a link of this kind.
    pub(crate) fn attempt(&mut self, way: Way, effort: Effort, ctx: &mut Context<Self>) -> LinkId {
        self.attempts.last += 1;
        let id = LinkId(self.attempts.last);
        let look = if let Effort::Looks(look) = effort { Some(look) } else { None };
        let attempt = (self.connector)(way, look).into_actor(self).map(move |attempt, act, ctx| {
            act.attempts.running.remove(&id);
            act.attempted(id, way, attempt, ctx);
        });
        self.attempts.running.insert(id, (way, ctx.spawn(attempt)));
        if let Effort::Within(limit) = effort {
            ctx.run_later(limit, move |act, ctx| {
                if act.attempts.give_up(id, ctx) {
                    act.switched(id, Err("the host does not answer in time".to_owned()));
                }
            });
        }
        id
    }

    /// Nothing is heard on the link of the moment: it may be dead, and another one be had.
    pub(crate) fn quiet(&mut self, ctx: &mut Context<Self>) {
        tracing::debug!("the host is quiet; looking for another link");
        self.look_again(ctx);
    }

    /// Tries again and again to get a link for a session that has none, or may have none: of each kind one attempt at a
    /// time.
    pub(crate) fn try_to_resume(&mut self, ctx: &mut Context<Self>) {
        self.attempts.next = None;
        let outage = self.live.as_ref().and_then(Live::outage);
        let Some(outage) = outage.filter(|_| !self.ending()) else {
            // The link of the moment lives after all.
            return self.stop_trying(self.awaited(), ctx);
        };
        let look =
            Look { outage, round_trip: self.round_trip(), seed: self.attempts.seed ^ self.attempts.last };
        // What the user has asked for is tried again, too, where the session has moved to something else.
        let other = (self.wish == Wish::Auto || self.way != self.wish.first()).then(|| self.way.other());
        for way in [Some(self.way), other].into_iter().flatten() {
            if !self.attempts.tries(way) {
                self.attempt(way, Effort::Looks(look), ctx);
            }
        }
        self.try_to_resume_after(look.pause(Duration::ZERO), ctx);
    }

    fn try_to_resume_after(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let next = ctx.run_later(pause, Self::try_to_resume);
        self.attempts.next_is(next, ctx);
    }

    /// Somebody is there, and does not want this session: each time more so.
    fn ask_less_often(&mut self, ctx: &mut Context<Self>) {
        if self.live.is_some() && self.attempts.next.is_some() {
            let pause = (REFUSED * (1 << self.attempts.refused.min(8))).min(REFUSED_AT_MOST);
            self.attempts.refused += 1;
            self.try_to_resume_after(pause, ctx);
        }
    }

    fn attempted(&mut self, id: LinkId, way: Way, attempt: Attempt, ctx: &mut Context<Self>) {
        match attempt {
            Ok(linked) => {
                self.attempts.refused = 0;
                self.linked(id, way, linked, ctx);
            }
            // Anybody on the way may have said so: a session that there is does not end by it.
            Err(NoLink::AnotherHost(text)) if self.live.is_some() => {
                tracing::warn!("{text}");
                self.switched(id, Err(text));
                self.ask_less_often(ctx);
            }
            Err(NoLink::AnotherHost(text)) => self.refused(Refusal::NotAllowed, text, ctx),
            Err(NoLink::Refused { reason, text }) => {
                self.switched(id, Err(text.clone()));
                self.refused(reason, text, ctx);
                self.ask_less_often(ctx);
            }
            // A session that goes on has its next attempt already, and of two kinds the other one may come.
            Err(error) if self.live.is_some() || !self.attempts.running.is_empty() => {
                tracing::debug!(%error, %way, "no link");
                self.switched(id, Err(error.to_string()));
            }
            Err(error) => self.try_again(error.to_string(), Duration::ZERO, ctx),
        }
    }

    /// A link is there: for a new session, for one that has none, or for one that may want it.
    fn linked(&mut self, id: LinkId, way: Way, linked: Linked, ctx: &mut Context<Self>) {
        if self.ending() {
            return;
        }
        let Some(live) = &self.live else {
            self.session += 1;
            self.vm = Some(linked.vm.clone());
            self.live = Some(Live::new(self.tap.clone(), self.start));
            // The other kind may be better, and may be slower to come.
            let session = self.session;
            ctx.run_later(RACE, move |act, ctx| {
                if act.session == session && act.live.as_ref().is_some_and(|live| live.outage().is_none()) {
                    act.stop_trying(act.awaited(), ctx);
                }
            });
            return self.join(id, way, linked, ctx);
        };
        let outage = live.outage().is_some();
        let better = || self.quality.better(way, linked.round_trip, live.quality(RACE));
        if !outage && !self.switching(id) && !better() {
            return tracing::debug!(%way, "another link, and no better one: it is let go");
        }
        self.stop_trying(Some(id), ctx);
        if outage {
            // It may be dead by now.
            let round_trips = linked.round_trip.unwrap_or_default() * TAKING_ON_ROUND_TRIPS;
            ctx.run_later(TAKING_ON.max(round_trips), Self::look_again);
        }
        self.join(id, way, linked, ctx);
    }

    fn join(&mut self, id: LinkId, way: Way, linked: Linked, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let driven = Driven::start(linked.link, &Handle::current());
        let name = driven.profile.name;
        let kind = LinkKind { ordered: driven.profile.ordered, lossy: driven.profile.lossy };
        let link = NewLink { id, kind, binding: driven.binding, opens: true };
        let (outbound, mut inbound, end) = driven.split();
        let frames = stream::poll_fn(move |cx| inbound.poll_batch(cx, FRAMES_PER_TURN)).map(What::Frames);
        // The end comes after everything that was said before it.
        let came = frames.chain(end.map(What::End).into_stream()).map(move |what| Came { link: id, what });
        let round_trip = linked.round_trip;
        let line = Line { outbound, waiting: false, name, way, round_trip, inbound: ctx.add_stream(came) };
        let Some(live) = &mut self.live else { return };
        match live.join(now, link, line) {
            Ok(()) => self.transmit(ctx),
            Err(error) => {
                tracing::info!(%error, "the session does not take a link");
                self.switched(id, Err(error.to_string()));
            }
        }
    }

    /// The session is on a link that it was not on before.
    pub(crate) fn session_attached(&mut self, link: LinkId, resumed: bool, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        if resumed {
            self.quality.left(self.way);
        } else {
            self.quality.begins();
        }
        self.way = live.way(link).unwrap_or(self.way);
        let (transport, after) = (live.transport(link), live.attached(now));
        self.switched(link, Ok(transport.to_owned()));
        if resumed {
            let after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            return self.events.say(&Event::Resumed { transport, after_ms });
        }
        self.totals.sessions += 1;
        let vm = self.vm.clone().unwrap_or_default();
        self.events.say(&Event::Connected { vm, transport });
        self.welcomed(ctx);
    }

    /// The session is on no link. It goes on with the next one.
    pub(crate) fn session_detached(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let reason = live.detached(now);
        if !self.ending() {
            self.events.say(&Event::Disconnected { reason, again_in_ms: 0 });
        }
        // Somebody may wait for a link that is there and opens: it may take the session on all the same.
        let opens = |link: &LinkId| self.live.as_ref().is_some_and(|live| live.way(*link).is_some());
        self.stop_trying(self.awaited().filter(opens), ctx);
        self.try_to_resume(ctx);
    }

    fn came(&mut self, Came { link, what }: Came, ctx: &mut Context<Self>) {
        match what {
            What::Frames(frames) => self.receive(link, frames, ctx),
            What::End(reason) => {
                self.switched(link, Err(reason.clone()));
                self.line_lost(link, reason, ctx);
                // Whoever waited for the goodbye may have lost patience.
                self.farewell.take().map(|said| said.send(()));
            }
        }
    }

    /// A link is no more that the session had not moved to yet: the one that was waited for, and for which everything
    /// else was given up.
    pub(crate) fn look_again(&mut self, ctx: &mut Context<Self>) {
        if let Some(reason) = self.live.as_ref().and_then(Live::came_to_nothing) {
            return self.session_lost(reason, ctx);
        }
        if !self.attempts.busy() {
            self.try_to_resume(ctx);
        }
    }

    /// The session has no use for a link any more; what it was handed still goes.
    pub(crate) fn retired(&mut self, link: LinkId, ctx: &mut Context<Self>) {
        if let Some(line) = self.live.as_mut().and_then(|live| live.retire(link)) {
            hang_up(line, ctx);
            self.look_again(ctx);
        }
    }

    /// A link of the session is no more.
    pub(crate) fn line_lost(&mut self, link: LinkId, reason: String, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        if let Some(line) = self.live.as_mut().and_then(|live| live.leave(now, link, reason)) {
            hang_up(line, ctx);
            self.route_events(ctx);
            self.look_again(ctx);
        }
    }

    /// The session is over, or has what it wants: nothing more is tried but this.
    pub(crate) fn stop_trying(&mut self, but: Option<LinkId>, ctx: &mut Context<Self>) {
        self.attempts.cancel(but, ctx);
        self.stay_unless(but);
    }
}

/// Lets go of a link: it closes in good order when it has sent what it was handed.
pub(crate) fn hang_up(line: Line, ctx: &mut Context<Remote>) {
    ctx.cancel_future(line.inbound);
}

impl StreamHandler<Came> for Remote {
    fn handle(&mut self, came: Came, ctx: &mut Self::Context) {
        self.came(came, ctx);
    }

    /// One link has ended; the actor goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}
