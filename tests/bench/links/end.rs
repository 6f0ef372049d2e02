//! One end of a session as the product runs it: each link has a driver on the runtime, and the next frame is chosen
//! when a link has room.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use link::{Driven, Filled, Inbound, Link, Outbound};
use session::{Config, Event, Identity, LinkId, LinkKind, NewLink, Role, Secret, Session, SessionId};
use tokio::{runtime::Handle, time::Sleep};
use wire::{Lane, Message};

use crate::pair::Pair;

/// Frames that are taken from a link at a time.
const BATCH: usize = 16;
/// A bulk message that saturates a link, bytes.
const BULK: usize = 64 << 10;

/// One end of a session, and its links.
pub(crate) struct End {
    session: Session,
    role: Role,
    start: Instant,
    lines: Vec<Line>,
    came: VecDeque<(Lane, Bytes)>,
    timer: Pin<Box<Sleep>>,
    /// Sent again and again while there is room.
    flood: Option<Message>,
}

struct Line {
    id: LinkId,
    outbound: Outbound,
    inbound: Inbound,
    /// A wait for room.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A session's two ends, the remote's first, without a link.
pub(crate) fn ends() -> (End, End) {
    let identity = Identity { id: SessionId([1; 16]), secret: Secret::new([2; 32]) };
    let start = Instant::now();
    let end = |session, role| End {
        session,
        role,
        start,
        lines: Vec::new(),
        came: VecDeque::new(),
        timer: Box::pin(tokio::time::sleep_until(start.into())),
        flood: None,
    };
    (
        end(Session::remote(Config::default()), Role::Remote),
        end(Session::host(identity, Config::default()), Role::Host),
    )
}

/// A session's two ends, the remote's first, that are on this link.
pub(crate) async fn session((remote_link, host_link): Pair) -> Result<(End, End)> {
    let (mut remote, mut host) = ends();
    let id = LinkId(1);
    remote.join(id, remote_link)?;
    host.join(id, host_link)?;
    poll_fn(|cx| {
        let turned = remote.turn(cx).and_then(|()| host.turn(cx));
        let on = |end: &End| end.link() == Some(id);
        match turned {
            Ok(()) if !(on(&remote) && on(&host)) => Poll::Pending,
            done => Poll::Ready(done),
        }
    })
    .await?;
    Ok((remote, host))
}

impl End {
    /// One more link; the remote speaks first.
    pub(crate) fn join(&mut self, id: LinkId, link: Box<dyn Link>) -> Result<()> {
        let driven = Driven::start(link, &Handle::current());
        let kind = LinkKind { ordered: driven.profile.ordered, lossy: driven.profile.lossy };
        let new = NewLink { id, kind, binding: driven.binding, opens: self.role == Role::Remote };
        self.session.link_up(self.start.elapsed(), new)?;
        let (outbound, inbound, _) = driven.split();
        self.lines.push(Line { id, outbound, inbound, room: None });
        Ok(())
    }

    /// The link that it is on.
    pub(crate) fn link(&self) -> Option<LinkId> {
        self.session.link()
    }

    /// Saturates BULK from now on, or no more.
    pub(crate) fn flood(&mut self, on: bool) {
        let message = Message { lane: Lane::Bulk, head: Bytes::new(), body: vec![7; BULK].into() };
        self.flood = on.then_some(message);
    }

    /// Moves everything that can be moved; who polls it is woken when there is more.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.step(cx)? {}
        Ok(())
    }

    /// Whether something moved.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let Self { session, lines, came, start, timer, flood, .. } = self;
        let (now, mut moved) = (start.elapsed(), false);
        let mut ended = Vec::new();
        let next = |session: &mut Session, id| {
            while let Some(bulk) = flood.as_ref().filter(|bulk| session.room(Lane::Bulk) >= bulk.len()) {
                if session.send(bulk.clone()).is_err() {
                    break;
                }
            }
            session.poll_transmit_on(now, id)
        };
        for Line { id, outbound, inbound, room } in lines.iter_mut() {
            if room.as_mut().is_some_and(|room| room.as_mut().poll(cx).is_ready()) {
                *room = None;
            }
            if room.is_none() && outbound.fill(|| next(session, *id)) == Filled::Full {
                *room = Some(Box::pin(outbound.clone().room()));
                moved = true;
            }
            if let Poll::Ready(batch) = inbound.poll_batch(cx, BATCH) {
                moved = true;
                match batch {
                    None => ended.push(*id),
                    Some(frames) => {
                        for (lane, frame) in frames {
                            session.receive_on(now, *id, lane, frame)?;
                        }
                    }
                }
            }
        }
        ended.iter().for_each(|id| session.link_down(now, *id));
        while let Some(event) = session.poll_event() {
            match event {
                Event::Message(lane, bytes) => came.push_back((lane, bytes)),
                Event::Retired(id) => ended.push(id),
                Event::PeerClosed(_) | Event::Expired | Event::Reset(_) => bail!("the session is over"),
                Event::Attached { .. } | Event::Detached | Event::PeerQuiet | Event::PeerSilent => {}
            }
        }
        lines.retain(|line| !ended.contains(&line.id));
        if let Some(at) = session.poll_timeout() {
            timer.as_mut().reset((*start + at).into());
            if timer.as_mut().poll(cx).is_ready() {
                session.on_timeout(start.elapsed());
                moved = true;
            }
        }
        Ok(moved)
    }

    /// Gives the session a message that it has room for; it goes with the next turn.
    pub(crate) fn say(&mut self, message: Message) -> Result<()> {
        Ok(self.session.send(message)?)
    }

    /// Gives the session a message when it has room for it.
    pub(crate) async fn send(&mut self, message: Message) -> Result<()> {
        let mut message = Some(message);
        poll_fn(|cx| {
            self.turn(cx)?;
            match message.take_if(|next| self.session.room(next.lane) >= next.len()) {
                None => Poll::Pending,
                Some(next) => {
                    self.session.send(next)?;
                    Poll::Ready(self.turn(cx))
                }
            }
        })
        .await
    }

    /// The next message, if it has come already.
    pub(crate) fn take(&mut self) -> Option<(Lane, Bytes)> {
        let (lane, bytes) = self.came.pop_front()?;
        self.session.consumed(lane, bytes.len());
        Some((lane, bytes))
    }

    /// The next message.
    pub(crate) async fn receive(&mut self) -> Result<(Lane, Bytes)> {
        poll_fn(|cx| {
            self.turn(cx)?;
            self.take().map_or(Poll::Pending, |message| Poll::Ready(Ok(message)))
        })
        .await
    }
}
