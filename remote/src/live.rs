//! The link of the moment and its session: messages out when there is room, messages in as they come.

use std::{collections::VecDeque, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use link::Link;
use session::{Config, Event as SessionEvent, Role, Session};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use wire::{Lane, Message, ToHost, ToRemote};

use crate::{port, remote::Remote};

/// Frames chosen, but not yet taken by the link: small, so that the choice is made late.
const OUTBOUND_FRAMES: usize = 4;
/// Frames received, but not yet taken by the session.
const INBOUND_FRAMES: usize = 64;
/// The most frames that one item of the inbound stream carries.
const FRAMES_PER_TURN: usize = 16;

/// Frames from the link, in order.
pub(crate) struct Inbound {
    session: u64,
    frames: Vec<(Lane, Bytes)>,
}

/// The link of this session has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkEnded {
    pub(crate) session: u64,
    pub(crate) reason: String,
}

/// A session on its link.
pub(crate) struct Live {
    session: Session,
    outbound: mpsc::Sender<Message>,
    /// Messages that the session has no room for yet, and the credit of their lane that each gives back when it goes.
    /// Bounded: ports are listened to only while their lane has none, and the rest is what the host has credit for.
    backlog: [VecDeque<(Message, usize)>; Lane::ALL.len()],
    waiting: bool,
    inbound: SpawnHandle,
    timer: Option<(Duration, SpawnHandle)>,
    /// Records what passes.
    tap: Option<capture::Tap>,
    /// When time began for the session.
    start: Instant,
    pub(crate) since: Duration,
}

impl Live {
    pub(crate) fn start(
        link: Box<dyn Link>,
        session: u64,
        remote: &Remote,
        ctx: &mut Context<Remote>,
    ) -> Self {
        let (outbound, to_link) = mpsc::channel(OUTBOUND_FRAMES);
        let (from_link, inbound) = mpsc::channel(INBOUND_FRAMES);
        // On this thread: a frame that wakes another one costs more than to decrypt it.
        let driven = tokio::spawn(link::drive(link, to_link, from_link));
        let ended = async move {
            match driven.await {
                Ok(end) => end.to_string(),
                Err(error) => format!("the link's driver failed: {error}"),
            }
        };
        ctx.spawn(
            ended.into_actor(remote).map(move |reason, _, ctx| ctx.notify(LinkEnded { session, reason })),
        );
        let inbound = ctx.add_stream(batches(session, inbound));
        Self {
            session: Session::new(Role::Remote, Config::default()),
            outbound,
            backlog: Default::default(),
            waiting: false,
            inbound,
            timer: None,
            tap: remote.tap.clone(),
            start: remote.start,
            since: remote.start.elapsed(),
        }
    }

    /// Nothing more comes in; what was handed to the link still goes out.
    pub(crate) fn cancel(self, ctx: &mut Context<Remote>) {
        ctx.cancel_future(self.inbound);
        if let Some((_, timer)) = self.timer {
            ctx.cancel_future(timer);
        }
    }

    /// Says goodbye after everything that waits.
    pub(crate) fn close(&mut self, reason: &str) {
        self.fill_session();
        self.session.close(reason);
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

    /// The next message of the host, the lane it came by and its length.
    fn next_event(&mut self) -> Result<Option<(ToRemote, Lane, usize)>, String> {
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
                Ok(Some((message, lane, length)))
            }
            Some(SessionEvent::PeerSilent) => Err("the host has fallen silent".to_owned()),
            Some(SessionEvent::PeerClosed(reason)) => Err(format!("the host ended the session: {reason}")),
            // A session that ends with its link has no more to tell of links.
            Some(
                SessionEvent::Attached { .. }
                | SessionEvent::Detached
                | SessionEvent::Retired(_)
                | SessionEvent::Expired
                | SessionEvent::Reset(_),
            ) => Ok(None),
        }
    }
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
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return self.listen(ctx) };
        live.fill_session();
        while !live.waiting {
            match live.outbound.try_reserve() {
                Ok(permit) => match live.session.poll_transmit(now) {
                    Some(frame) => permit.send(frame),
                    None => break,
                },
                Err(TrySendError::Full(())) => {
                    live.waiting = true;
                    let (session, outbound) = (self.session, live.outbound.clone());
                    let room = fut::wrap_future::<_, Self>(async move { drop(outbound.reserve().await) });
                    ctx.spawn(room.map(move |(), act, ctx| act.has_room(session, ctx)));
                    break;
                }
                Err(TrySendError::Closed(())) => break,
            }
            live.fill_session();
        }
        self.set_timer(ctx);
        self.listen(ctx);
    }

    fn has_room(&mut self, session: u64, ctx: &mut Context<Self>) {
        if let Some(live) = self.live.as_mut().filter(|_| session == self.session) {
            live.waiting = false;
            self.transmit(ctx);
            self.hang_up_when_said(ctx);
        }
    }

    /// Takes frames from the link. A host that breaks the protocol loses the link.
    pub(crate) fn receive(&mut self, Inbound { session, frames }: Inbound, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        for (lane, frame) in frames {
            let Some(live) = self.live.as_mut().filter(|_| session == self.session) else { return };
            if let Err(error) = live.session.receive(now, lane, frame) {
                return self.link_lost(format!("the host broke the protocol: {error}"), ctx);
            }
        }
        self.route_events(ctx);
    }

    fn route_events(&mut self, ctx: &mut Context<Self>) {
        while let Some(live) = &mut self.live {
            match live.next_event() {
                Ok(Some((message, lane, length))) => self.route(message, lane, length, ctx),
                Ok(None) => break,
                Err(reason) => return self.link_lost(reason, ctx),
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

/// Frames in batches: what has come in the meantime, at most [`FRAMES_PER_TURN`].
fn batches(session: u64, mut inbound: mpsc::Receiver<(Lane, Bytes)>) -> impl Stream<Item = Inbound> {
    stream::poll_fn(move |cx| {
        let mut frames = Vec::with_capacity(FRAMES_PER_TURN);
        inbound
            .poll_recv_many(cx, &mut frames, FRAMES_PER_TURN)
            .map(|count| (count > 0).then_some(Inbound { session, frames }))
    })
}
