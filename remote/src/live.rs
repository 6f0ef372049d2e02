//! The session: messages out when its link has room, messages in as they come. It outlives its links.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use link::Filled;
use session::{Config, Event as SessionEvent, LinkId, LinkRefused, NewLink, Session};
use tokio::time::Instant;
use wire::{Lane, Message, ToHost, ToRemote};

use crate::{
    links::{Line, hang_up},
    port,
    remote::Remote,
    session_status::SessionStatus,
    ways::Way,
};

/// How long a session is kept without a link: longer than a host holds anything. The host's word counts.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How the link does that a session is on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct On {
    pub(crate) link: LinkId,
    /// Its round trip when it was made, as far as that is known.
    pub(crate) made: Option<Duration>,
    /// And the latest one.
    pub(crate) now: Option<Duration>,
    /// How many pings of the session were answered or given up by now, and how many of them were answered late or not at all.
    pub(crate) pings: u64,
    pub(crate) late_pings: u64,
}

/// A session, and the links it has.
pub(crate) struct Live {
    session: Session,
    lines: BTreeMap<LinkId, Line>,
    /// Messages that the session has no room for yet, and the credit of their lane that each gives back when it goes.
    /// Bounded: ports are listened to only while their lane has none, and the rest is what the host has credit for.
    backlog: [VecDeque<(Message, usize)>; Lane::ALL.len()],
    timer: Option<(Duration, SpawnHandle)>,
    /// Records what passes.
    tap: Option<capture::Tap>,
    /// When time began for the session.
    start: Instant,
    pub(crate) since: Duration,
    /// Since when it has no link.
    detached: Option<Duration>,
    /// Why the last link was lost.
    lost: String,
}

impl Live {
    pub(crate) fn new(tap: Option<capture::Tap>, start: Instant) -> Self {
        Self {
            session: Session::remote(Config { expire_after: PATIENCE, ..Config::default() }),
            lines: BTreeMap::new(),
            backlog: Default::default(),
            timer: None,
            tap,
            start,
            since: start.elapsed(),
            detached: None,
            lost: String::new(),
        }
    }

    /// One more link.
    pub(crate) fn join(&mut self, now: Duration, link: NewLink, line: Line) -> Result<(), LinkRefused> {
        self.session.link_up(now, link)?;
        self.lines.insert(link.id, line);
        Ok(())
    }

    /// A link that is of no use any more, which is handed back.
    pub(crate) fn retire(&mut self, link: LinkId) -> Option<Line> {
        self.lines.remove(&link)
    }

    /// One link less, which is handed back: it was lost, or has broken the rules.
    pub(crate) fn leave(&mut self, now: Duration, link: LinkId, reason: String) -> Option<Line> {
        let line = self.lines.remove(&link)?;
        // Of the others nobody wants to hear.
        if self.session.link().is_none_or(|on| on == link) {
            self.lost = reason;
        }
        self.session.link_down(now, link);
        Some(line)
    }

    /// Which way a link goes.
    pub(crate) fn way(&self, link: LinkId) -> Option<Way> {
        self.lines.get(&link).map(|line| line.way)
    }

    /// The kind of a link.
    pub(crate) fn transport(&self, link: LinkId) -> &'static str {
        self.lines.get(&link).map_or("none", |line| line.name)
    }

    /// The link that it is on.
    pub(crate) fn on(&self) -> Option<On> {
        let (link, stats) = (self.session.link()?, self.session.stats());
        let made = self.lines.get(&link)?.round_trip;
        Some(On { link, made, now: stats.round_trip, pings: stats.pings, late_pings: stats.late_pings })
    }

    /// The round trip of the link it is on: at the beginning that of its handshake, as it is compared with another one's.
    pub(crate) fn quality(&self, beginning: Duration) -> Option<Duration> {
        let On { made, now, .. } = self.on()?;
        let young = self.start.elapsed().saturating_sub(self.since) < beginning;
        if young { made.or(now) } else { now.or(made) }
    }

    /// How it does, and its link.
    pub(crate) fn status(&self) -> SessionStatus {
        let transport = self.session.link().map(|link| self.transport(link));
        let away = self.detached.map(|since| self.start.elapsed().saturating_sub(since));
        let waiting = |lane: Lane| self.backlog[lane as usize].iter().map(|(message, _)| message.len()).sum();
        SessionStatus::new(&self.session, transport, away, waiting)
    }

    /// It has no link from now on; why.
    pub(crate) fn detached(&mut self, now: Duration) -> String {
        self.detached = Some(now);
        match std::mem::take(&mut self.lost) {
            none if none.is_empty() => "the host has left the link for one that does not answer".to_owned(),
            reason => reason,
        }
    }

    /// It has one; how long it had none.
    pub(crate) fn attached(&mut self, now: Duration) -> Option<Duration> {
        self.detached.take().map(|since| now.saturating_sub(since))
    }

    /// How long it has had no link, if it has none, or one that may be dead.
    pub(crate) fn outage(&self) -> Option<Duration> {
        let quiet = self.session.quiet().then_some(Duration::ZERO);
        let detached = self.detached.map(|since| self.start.elapsed().saturating_sub(since));
        detached.or(quiet)
    }

    /// It is over: nothing more comes in; what was handed to links still goes out.
    pub(crate) fn cancel(self, ctx: &mut Context<Remote>) {
        self.lines.into_values().for_each(|line| hang_up(line, ctx));
        if let Some((_, timer)) = self.timer {
            ctx.cancel_future(timer);
        }
    }

    /// It is over, and somebody waits for the ends of its links.
    pub(crate) fn let_go(mut self, ctx: &mut Context<Remote>) {
        self.lines.clear();
        self.cancel(ctx);
    }

    /// Says goodbye after everything that waits.
    pub(crate) fn close(&mut self, reason: &str) {
        self.fill_session();
        self.session.close(reason);
    }

    /// Why it will never begin, if it has not, and has no link on which it could.
    pub(crate) fn came_to_nothing(&self) -> Option<String> {
        let nothing = self.session.id().is_none() && self.lines.is_empty();
        nothing.then(|| format!("the host did not begin a session: {}", self.lost))
    }

    /// Whether the host has welcomed it.
    pub(crate) fn begun(&self) -> bool {
        self.session.id().is_some()
    }

    /// How long a message to the host and its answer take, if that is known by now.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.session.stats().round_trip
    }

    /// Whether the goodbye is on its way.
    pub(crate) fn closed(&self) -> bool {
        self.session.closed()
    }

    /// Whether a lane has room for more ends of requests.
    pub(crate) fn listens(&self, lane: Lane) -> bool {
        self.backlog[lane as usize].is_empty()
    }

    /// Gives credit back to the host.
    pub(crate) fn consumed(&mut self, lane: Lane, bytes: usize) {
        self.session.consumed(lane, bytes);
    }

    /// Queues a message; when it goes, so much credit of its lane goes back with it.
    pub(crate) fn queue(&mut self, message: ToHost, credit: usize) {
        if let (Some(tap), ToHost::Completed(end)) = (&mut self.tap, &message) {
            tap.ended(end);
        }
        let message = message.encode();
        if message.lane.may_lose() {
            self.give(message);
        } else {
            self.backlog[message.lane as usize].push_back((message, credit));
        }
    }

    fn fill_session(&mut self) {
        for lane in Lane::ALL {
            let queue = lane as usize;
            while self.backlog[queue].front().is_some_and(|(m, _)| self.session.room(lane) >= m.len()) {
                let Some((message, credit)) = self.backlog[queue].pop_front() else { break };
                self.give(message);
                self.session.consumed(lane, credit);
            }
        }
    }

    fn give(&mut self, message: Message) {
        if let Err(error) = self.session.send_at(self.start.elapsed(), message) {
            tracing::error!(%error, "the session refused a message that it had room for");
        }
    }

    /// What the session says next; an error if it is over.
    fn next_event(&mut self) -> Result<Option<Next>, String> {
        match self.session.poll_event() {
            None => Ok(None),
            Some(SessionEvent::Message(lane, bytes)) => {
                let length = bytes.len();
                let message =
                    ToRemote::decode(lane, bytes).map_err(|e| format!("the host sent nonsense: {e}"))?;
                if let (Some(tap), ToRemote::Usb(message)) = (&mut self.tap, &message)
                    && let Some(request) = message.request()
                {
                    tap.submitted(&request);
                }
                Ok(Some(Next::Message(message, lane, length)))
            }
            Some(SessionEvent::PeerClosed(reason)) => Err(format!("the host ended the session: {reason}")),
            Some(SessionEvent::Expired) => Err("no link for too long".to_owned()),
            Some(SessionEvent::Reset(reason)) => Err(format!("the host has no such session: {reason:?}")),
            Some(SessionEvent::Attached { link, resumed, .. }) => Ok(Some(Next::Attached { link, resumed })),
            Some(SessionEvent::Detached) => Ok(Some(Next::Detached)),
            Some(SessionEvent::Retired(link)) => Ok(Some(Next::Retired(link))),
            Some(SessionEvent::PeerQuiet) => Ok(Some(Next::Quiet)),
            Some(SessionEvent::PeerSilent) => Ok(Some(Next::Silent)),
        }
    }
}

/// What a session says next.
enum Next {
    /// A message of the host, the lane it came by and its length.
    Message(ToRemote, Lane, usize),
    /// It is on this link now.
    Attached { link: LinkId, resumed: bool },
    /// It is on none.
    Detached,
    /// It has no use for this link any more; what it was handed still goes.
    Retired(LinkId),
    /// Nothing was heard for a while.
    Quiet,
    /// Nothing was heard on the link of the moment for too long.
    Silent,
}

impl Remote {
    pub(crate) fn send(&mut self, message: ToHost, ctx: &mut Context<Self>) {
        if let Some(live) = &mut self.live {
            live.queue(message, 0);
        }
        self.transmit(ctx);
    }

    /// Moves messages into the session and frames out of it, until one of them has no more.
    pub(crate) fn transmit(&mut self, ctx: &mut Context<Self>) {
        if let Some(live) = &mut self.live {
            live.fill_session();
            let links = live.lines.iter().filter(|(_, line)| !line.waiting);
            for link in links.map(|(link, _)| *link).collect::<Vec<_>>() {
                self.transmit_on(link, ctx);
            }
            self.set_timer(ctx);
        }
        self.listen(ctx);
    }

    fn transmit_on(&mut self, link: LinkId, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let Some(outbound) = live.lines.get(&link).map(|line| line.outbound.clone()) else { return };
        let filled = outbound.fill(|| {
            let frame = live.session.poll_transmit_on(now, link)?;
            live.fill_session();
            Some(frame)
        });
        if filled == Filled::Full {
            live.lines.get_mut(&link).iter_mut().for_each(|line| line.waiting = true);
            let room = fut::wrap_future::<_, Self>(outbound.room());
            ctx.spawn(room.map(move |(), act, ctx| act.has_room(link, ctx)));
        }
    }

    fn has_room(&mut self, link: LinkId, ctx: &mut Context<Self>) {
        if let Some(line) = self.live.as_mut().and_then(|live| live.lines.get_mut(&link)) {
            line.waiting = false;
            self.transmit(ctx);
            self.hang_up_when_said(ctx);
        }
    }

    /// Takes frames from a link. A host that breaks the protocol of the session loses it.
    pub(crate) fn receive(&mut self, link: LinkId, frames: Vec<(Lane, Bytes)>, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = self.live.as_mut().filter(|live| live.lines.contains_key(&link)) else { return };
        let taken =
            frames.into_iter().try_for_each(|(lane, frame)| live.session.receive_on(now, link, lane, frame));
        let Err(error) = taken else { return self.route_events(ctx) };
        let reason = format!("the host broke the protocol: {error}");
        if live.session.link() == Some(link) {
            self.session_lost(reason, ctx);
        } else {
            self.line_lost(link, reason, ctx);
        }
    }

    pub(crate) fn route_events(&mut self, ctx: &mut Context<Self>) {
        while let Some(live) = &mut self.live {
            match live.next_event() {
                Ok(Some(Next::Message(message, lane, length))) => self.route(message, lane, length, ctx),
                Ok(Some(Next::Attached { link, resumed })) => self.session_attached(link, resumed, ctx),
                Ok(Some(Next::Detached)) => self.session_detached(ctx),
                Ok(Some(Next::Retired(link))) => {
                    self.switched(link, Err("the host does not take the session there".to_owned()));
                    self.retired(link, ctx);
                }
                Ok(Some(Next::Quiet)) => self.quiet(ctx),
                Ok(Some(Next::Silent)) => {
                    if let Some(link) = live.session.link() {
                        self.line_lost(link, "the host has fallen silent".to_owned(), ctx);
                    }
                }
                Ok(None) => break,
                Err(reason) => return self.session_lost(reason, ctx),
            }
        }
        self.transmit(ctx);
        self.hang_up_when_said(ctx);
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let Some(at) = live.session.poll_timeout() else { return };
        // A timer that rings too early does no harm, and a new one for every frame would cost more.
        if live.timer.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        if let Some((_, timer)) = live.timer.take() {
            ctx.cancel_future(timer);
        }
        let ring = |act: &mut Self, ctx: &mut Context<Self>| {
            if let Some(live) = &mut act.live {
                live.timer = None;
                live.session.on_timeout(act.start.elapsed());
                act.route_events(ctx);
            }
        };
        live.timer = Some((at, ctx.run_later(at.saturating_sub(now), ring)));
    }

    /// Listens to the ports, lane by lane, while the session takes what they say. Without a session it is forgotten.
    pub(crate) fn listen(&mut self, ctx: &mut Context<Self>) {
        for (at, lane) in port::LANES.into_iter().enumerate() {
            if self.live.as_ref().is_some_and(|live| !live.listens(lane)) {
                continue;
            }
            let Some(mut ends) = self.ends[at].take() else { continue };
            let heard = fut::wrap_future::<_, Self>(async move { (ends.recv().await, ends) });
            ctx.spawn(heard.map(move |(ended, ends), act, ctx| {
                let Some(ended) = ended else { return };
                act.ends[at] = Some(ends);
                act.ended(lane, ended, ctx);
                act.transmit(ctx);
            }));
        }
    }
}
