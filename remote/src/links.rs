//! The links of the session: how they come, what comes over them, and how they go.
//!
//! ```text
//!   no session:   one attempt at a time, with growing pauses
//!   detached:     attempts side by side, many at first: the first link that is there takes the session on
//!   switch:       one attempt beside the link of the moment: the session moves when both are there
//! ```

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::{
    FutureExt,
    stream::{self, StreamExt},
};
use link::{Driven, Link, Outbound};
use noise_tcp::HandshakeError;
use session::{LinkId, LinkKind, NewLink};
use tokio::runtime::Handle;
use wire::{Lane, control::Answer};

use crate::{
    events::Event,
    live::Live,
    remote::{Attempt, Remote},
};

/// The most frames that one item of the inbound stream carries.
const FRAMES_PER_TURN: usize = 16;
/// An attempt to go on with a session has at least so long: more than the handshake takes on most links.
const ATTEMPT: Duration = Duration::from_secs(1);
/// On a slow link it has so many round trips.
const ATTEMPT_ROUND_TRIPS: u32 = 8;

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
    inbound: SpawnHandle,
}

/// Attempts to get a link that have come to nothing yet.
#[derive(Default)]
pub(crate) struct Attempts {
    running: BTreeMap<u64, SpawnHandle>,
    last: u64,
    /// The next one.
    next: Option<SpawnHandle>,
}

impl Attempts {
    /// Whether something is tried, or will be.
    fn busy(&self) -> bool {
        self.next.is_some() || !self.running.is_empty()
    }

    /// All are given up.
    fn cancel(&mut self, ctx: &mut Context<Remote>) {
        for attempt in std::mem::take(&mut self.running).into_values().chain(self.next.take()) {
            ctx.cancel_future(attempt);
        }
    }
}

/// How long to wait for the next attempt when a session has had no link for so long: a network that is back is to be
/// found at once while somebody may still wait for it.
fn pause(outage: Duration) -> Duration {
    Duration::from_millis(match outage.as_millis() {
        0..1_000 => 50,
        1_000..5_000 => 100,
        5_000..60_000 => 500,
        // The host has given the devices up by now.
        _ => 5_000,
    })
}

impl Remote {
    /// Tries once to get a link.
    pub(crate) fn try_to_connect(&mut self, ctx: &mut Context<Self>) {
        self.attempts.last += 1;
        let number = self.attempts.last;
        let attempt = (self.connector)().into_actor(self).map(move |attempt, act, ctx| {
            act.attempts.running.remove(&number);
            act.attempted(LinkId(number), attempt, ctx);
        });
        self.attempts.running.insert(number, ctx.spawn(attempt));
    }

    /// Nothing is heard on the link of the moment: it may be dead, and another one be had.
    pub(crate) fn quiet(&mut self, ctx: &mut Context<Self>) {
        tracing::debug!("the host is quiet; looking for another link");
        if !self.attempts.busy() {
            self.try_to_resume(ctx);
        }
    }

    /// Tries again and again to get a link for a session that has none, or may have none.
    pub(crate) fn try_to_resume(&mut self, ctx: &mut Context<Self>) {
        self.attempts.next = None;
        let outage = self.live.as_ref().and_then(Live::outage);
        let Some(outage) = outage.filter(|_| !self.ending()) else { return };
        self.try_to_connect(ctx);
        let limit =
            self.round_trip().map_or(ATTEMPT, |round_trip| ATTEMPT.max(round_trip * ATTEMPT_ROUND_TRIPS));
        let number = self.attempts.last;
        ctx.run_later(limit, move |act, ctx| {
            act.attempts.running.remove(&number).map(|attempt| ctx.cancel_future(attempt));
        });
        self.attempts.next = Some(ctx.run_later(pause(outage), Self::try_to_resume));
    }

    fn attempted(&mut self, id: LinkId, attempt: Attempt, ctx: &mut Context<Self>) {
        match attempt {
            Ok((link, Answer::Welcome { vm })) => self.linked(id, link, vm, ctx),
            Ok((_, Answer::Refused { reason, text })) | Err(HandshakeError::Refused { reason, text }) => {
                self.refused(reason, text, ctx);
            }
            // A session that goes on has its next attempt already.
            Err(error) if self.live.is_some() => tracing::debug!(%error, "no link"),
            Err(error) => self.try_again(error.to_string(), Duration::ZERO, ctx),
        }
    }

    /// A link is there, for the session that there is or for a new one.
    fn linked(&mut self, id: LinkId, link: Box<dyn Link>, vm: String, ctx: &mut Context<Self>) {
        if self.ending() {
            return;
        }
        self.attempts.cancel(ctx);
        self.vm = Some(vm);
        if self.live.is_none() {
            self.session += 1;
            self.live = Some(Live::new(self.tap.clone(), self.start));
        }
        let now = self.start.elapsed();
        let driven = Driven::start(link, &Handle::current());
        let name = driven.profile.name;
        let kind = LinkKind { ordered: driven.profile.ordered, lossy: driven.profile.lossy };
        let link = NewLink { id, kind, binding: driven.binding, opens: true };
        let (outbound, mut inbound, end) = driven.split();
        let frames = stream::poll_fn(move |cx| inbound.poll_batch(cx, FRAMES_PER_TURN)).map(What::Frames);
        // The end comes after everything that was said before it.
        let came = frames.chain(end.map(What::End).into_stream()).map(move |what| Came { link: id, what });
        let line = Line { outbound, waiting: false, name, inbound: ctx.add_stream(came) };
        let Some(live) = &mut self.live else { return };
        match live.join(now, link, line) {
            Ok(()) => self.transmit(ctx),
            Err(error) => tracing::info!(%error, "the session does not take a link"),
        }
    }

    /// The session is on a link that it was not on before.
    pub(crate) fn session_attached(&mut self, link: LinkId, resumed: bool, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let (transport, after) = (live.transport(link), live.attached(now));
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
        self.attempts.cancel(ctx);
        self.try_to_resume(ctx);
    }

    fn came(&mut self, Came { link, what }: Came, ctx: &mut Context<Self>) {
        match what {
            What::Frames(frames) => self.receive(link, frames, ctx),
            What::End(reason) => {
                self.line_lost(link, reason, ctx);
                // Whoever waited for the goodbye may have lost patience.
                self.farewell.take().map(|said| said.send(()));
            }
        }
    }

    /// A link of the session is no more.
    pub(crate) fn line_lost(&mut self, link: LinkId, reason: String, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        if let Some(line) = self.live.as_mut().and_then(|live| live.leave(now, link, reason)) {
            hang_up(line, ctx);
            self.route_events(ctx);
        }
    }

    /// The session is over, or ends: nothing more is tried.
    pub(crate) fn stop_trying(&mut self, ctx: &mut Context<Self>) {
        self.attempts.cancel(ctx);
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
