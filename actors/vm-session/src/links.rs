//! The links: newcomers, which have not said yet what they want, and those of the session. Their I/O runs elsewhere.
//!
//! ```text
//!  LinkUp ─► newcomer ──first frame: HELLO──► the session of before ends, a new one begins on this link
//!               │     ──first frame: ATTACH─► one more link of the session, which may move to it
//!               └─ anything else, nothing for 5 s, or too many of them: closed
//! ```

use std::time::Duration;

use actix::prelude::*;
use futures_util::{
    FutureExt,
    stream::{self, StreamExt},
};
use link::{Driven, Outbound, PeerKey};
use session::{LinkId, LinkKind, NewLink, Opening, ResetReason};
use wire::Lane;

use crate::{LinkUp, VmSession, track::Track};

/// The most frames that one item of the inbound stream carries: each is up to 60 KiB to put together, and a guest waits.
const FRAMES_PER_TURN: usize = 4;
/// A link that has said nothing for so long is closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Links that have said nothing yet; one more, and the oldest is closed.
const NEWCOMERS: usize = 4;

/// What came over a link.
pub(crate) struct Came {
    link: LinkId,
    what: What,
}

enum What {
    /// In order.
    Frames(Vec<(Lane, bytes::Bytes)>),
    /// The link has ended, for this reason.
    End(String),
}

/// What the arbiter holds of a link. Dropped by [`hang_up`] only, so that nothing more comes of it.
pub(crate) struct Line {
    pub(crate) outbound: Outbound,
    /// A future waits for room in `outbound`.
    pub(crate) waiting: bool,
    /// The kind of link, for people.
    pub(crate) name: &'static str,
    /// What it has, and no other link.
    pub(crate) binding: [u8; 32],
    /// Where sound goes, if not on the AUDIO lane.
    pub(crate) track: Option<Track>,
    inbound: SpawnHandle,
}

/// A link that has not said what it wants.
pub(crate) struct Newcomer {
    pub(crate) line: Line,
    peer: PeerKey,
    link: NewLink,
}

impl VmSession {
    /// A link is there. What it is for is known when its first frame comes.
    pub(crate) fn link_up(&mut self, LinkUp { link, track }: LinkUp, ctx: &mut Context<Self>) {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let driven = Driven::start(link, &self.io);
        let (peer, name) = (driven.peer, driven.profile.name);
        let kind = LinkKind { ordered: driven.profile.ordered, lossy: driven.profile.lossy };
        let binding = driven.binding;
        let link = NewLink { id, kind, binding, opens: false };
        let (outbound, mut inbound, end) = driven.split();
        let frames = stream::poll_fn(move |cx| inbound.poll_batch(cx, FRAMES_PER_TURN)).map(What::Frames);
        // The end comes after everything that was said before it.
        let came = frames.chain(end.map(What::End).into_stream()).map(move |what| Came { link: id, what });
        let track = track.map(Track::new);
        let line = Line { outbound, waiting: false, name, binding, track, inbound: ctx.add_stream(came) };
        if self.newcomers.len() >= NEWCOMERS
            && let Some((_, oldest)) = self.newcomers.pop_first()
        {
            hang_up(oldest.line, ctx);
        }
        self.newcomers.insert(id, Newcomer { line, peer, link });
        ctx.run_later(PATIENCE, move |act, ctx| {
            if let Some(silent) = act.newcomers.remove(&id) {
                tracing::info!(vm = %act.name, "a remote connected and said nothing; it is let go");
                hang_up(silent.line, ctx);
            }
        });
    }

    /// A newcomer says what it wants.
    fn open(&mut self, newcomer: Newcomer, first: &(Lane, bytes::Bytes), ctx: &mut Context<Self>) {
        let Newcomer { line, peer, link } = newcomer;
        match Opening::of(first.0, first.1.clone()) {
            // The manager has let it in when the VM was free, which may be long ago.
            Ok(Opening::New)
                if self.live.as_ref().is_some_and(|live| live.peer != peer) && !self.takeover =>
            {
                tracing::info!(vm = %self.name, ?peer, "a remote comes too late: another one has the VM");
                hang_up(line, ctx);
            }
            Ok(Opening::New) => {
                self.begin(peer, ctx);
                self.join(line, link, ctx);
            }
            Ok(Opening::Resume(id)) => {
                let own = self.live.as_ref().is_some_and(|live| live.owns(peer, id));
                if own {
                    return self.join(line, link, ctx);
                }
                let mut refusal = Some(session::refusal(ResetReason::Unknown));
                line.outbound.fill(|| refusal.take());
                hang_up(line, ctx);
            }
            Err(error) => {
                tracing::warn!(vm = %self.name, %error, "a link that begins with nonsense");
                hang_up(line, ctx);
            }
        }
    }

    /// Links of this remote that have said nothing yet are closed.
    pub(crate) fn turn_away(&mut self, remote: PeerKey, ctx: &mut Context<Self>) {
        let theirs = self.newcomers.extract_if(.., |_, newcomer| newcomer.peer == remote);
        theirs.for_each(|(_, newcomer)| hang_up(newcomer.line, ctx));
    }

    /// One more link for the session.
    fn join(&mut self, line: Line, link: NewLink, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return hang_up(line, ctx) };
        match live.session.link_up(now, link) {
            Ok(()) => drop(live.lines.insert(link.id, line)),
            Err(error) => {
                tracing::info!(vm = %self.name, %error, "a link is not taken");
                hang_up(line, ctx);
            }
        }
    }

    fn came(&mut self, Came { link, what }: Came, ctx: &mut Context<Self>) {
        if let Some(newcomer) = self.newcomers.remove(&link) {
            match &what {
                What::Frames(frames) => {
                    let Some(first) = frames.first() else { return };
                    self.open(newcomer, first, ctx);
                }
                What::End(_) => return,
            }
        }
        match what {
            What::Frames(frames) => self.receive(link, frames, ctx),
            What::End(reason) => self.link_lost(link, &reason, ctx),
        }
    }

    /// A link of the session is no more.
    pub(crate) fn link_lost(&mut self, link: LinkId, reason: &str, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(live) = &mut self.live else { return };
        let Some(line) = live.lines.remove(&link) else { return };
        tracing::debug!(vm = %self.name, ?link, reason, "a link has ended");
        live.lost = reason.to_owned();
        live.session.link_down(now, link);
        hang_up(line, ctx);
        self.go_on(ctx);
    }

    /// This link is of no use to the session any more; what it was handed still goes.
    pub(crate) fn retire(&mut self, link: LinkId, ctx: &mut Context<Self>) {
        if let Some(line) = self.live.as_mut().and_then(|live| live.lines.remove(&link)) {
            hang_up(line, ctx);
        }
    }
}

/// Lets go of a link: it closes in good order when it has sent what it was handed.
pub(crate) fn hang_up(line: Line, ctx: &mut Context<VmSession>) {
    ctx.cancel_future(line.inbound);
}

impl Handler<LinkUp> for VmSession {
    type Result = ();

    fn handle(&mut self, link: LinkUp, ctx: &mut Self::Context) {
        self.link_up(link, ctx);
    }
}

impl StreamHandler<Came> for VmSession {
    fn handle(&mut self, came: Came, ctx: &mut Self::Context) {
        self.came(came, ctx);
    }

    /// One link has ended; the actor goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}
