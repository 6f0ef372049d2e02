//! The links that a session has at the moment, and how far each has come.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use wire::Lane;

use crate::{claim::ResetReason, frame::Kind};

/// A link that is not attached after so long is of no use.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// HELLO and ATTACH are said again after so long, where frames may be lost or late.
const OPENING_AGAIN: Duration = Duration::from_millis(250);
/// What may be sent, and is kept, before the one who speaks first has the answer, bytes. Part of the protocol.
pub(crate) const EARLY_BYTES: usize = 256 * 1024;

/// The most links that a session has at a time: the one it uses, and some that come or go.
pub const MAX_LINKS: usize = 4;

/// The name of a link, chosen by the owner: not used before in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a kind of link does to frames, indexed by lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkKind {
    /// Whether frames of a lane arrive in the order they were sent.
    pub ordered: [bool; Lane::ALL.len()],
    /// Whether frames of a lane may be lost, or come twice, although the link lives.
    pub lossy: [bool; Lane::ALL.len()],
}

impl LinkKind {
    /// Every frame of a lane arrives once, in the order they were sent: TCP.
    pub const STREAM: Self = Self { ordered: [true; Lane::ALL.len()], lossy: [false; Lane::ALL.len()] };

    /// Whether every frame of this lane arrives once, in the order they were sent.
    #[must_use]
    pub fn strict(&self, lane: Lane) -> bool {
        let of = |flags: &[bool]| flags.get(lane as usize).copied().unwrap_or_default();
        of(&self.ordered) && !of(&self.lossy)
    }
}

/// A link that has come up: its peer's key is known and is the one that the session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLink {
    /// Its name.
    pub id: LinkId,
    /// What it does to frames.
    pub kind: LinkKind,
    /// What both ends of this link, and no other link, have. A claim to the session is good for one binding.
    pub binding: [u8; 32],
    /// Whether this end speaks first. One end should; if both do, the remote wins.
    pub opens: bool,
}

/// Why a link was not taken. It is of no use to this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefused {
    /// The session is over.
    #[error("the session is over")]
    Over,
    /// It has [`MAX_LINKS`] links, and has left none of them.
    #[error("the session has {MAX_LINKS} links")]
    TooMany,
    /// The name is in use.
    #[error("the session has a link of this name")]
    Known,
    /// Only a remote asks for a new session, and a session made by [`crate::Session::new`] has one link only.
    #[error("there is no session to go on with")]
    Nothing,
}

/// A link and how far it has come.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) id: LinkId,
    pub(crate) kind: LinkKind,
    pub(crate) binding: [u8; 32],
    /// When it came up.
    pub(crate) since: Duration,
    /// The epoch that it carries, or that we have asked for.
    pub(crate) epoch: u32,
    pub(crate) state: State,
}

impl Path {
    /// Whether it has become useless.
    pub(crate) fn over(&self, now: Duration) -> bool {
        match &self.state {
            State::Awaits | State::Opens(_) | State::Refused(_) => self.since + OPENING_TIME <= now,
            State::Lingers { until, .. } => *until <= now,
            State::Current(_) => false,
        }
    }

    /// When its state changes by itself.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let deadline = self.since + OPENING_TIME;
        match &self.state {
            State::Awaits | State::Refused(_) => Some(deadline),
            State::Opens(Opens { due: false, said: Some(said), .. }) if !self.kind.strict(Lane::Ctl) => {
                Some(deadline.min(*said + OPENING_AGAIN))
            }
            State::Opens(_) => Some(deadline),
            State::Lingers { until, detach_at, .. } => Some(detach_at.unwrap_or(*until)),
            State::Current(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum State {
    /// The peer speaks first.
    Awaits,
    /// We speak first, and await the answer.
    Opens(Opens),
    /// The session is here.
    Current(Current),
    /// The session has gone elsewhere.
    Lingers {
        until: Duration,
        /// The peer has to be told.
        detach: bool,
        /// The peer may use this link until it has the answer on the new one: it is told by then, or at this time.
        detach_at: Option<Duration>,
    },
    /// The peer has to be told that there is no session for it.
    Refused(ResetReason),
}

#[derive(Debug)]
pub(crate) struct Opens {
    /// HELLO or ATTACH.
    pub(crate) kind: Kind,
    /// It is to be said, for the first time or again.
    pub(crate) due: bool,
    /// When it was said.
    pub(crate) said: Option<Duration>,
    /// Frames that overtook the answer, and their bytes.
    pub(crate) early: VecDeque<(Lane, Bytes)>,
    pub(crate) early_bytes: usize,
}

impl Opens {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, due: true, said: None, early: VecDeque::new(), early_bytes: 0 }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Current {
    /// The answer that we have given, if the peer spoke first.
    pub(crate) answer: Option<Kind>,
    /// It is due.
    pub(crate) answer_due: bool,
    /// The peer is known to have the answer, or needs none.
    pub(crate) confirmed: bool,
    /// Bytes sent before that.
    pub(crate) early_bytes: usize,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    paths: Vec<Path>,
    /// The epoch of the session.
    pub(crate) epoch: u32,
    /// The highest epoch that we have asked for.
    asked: u32,
    /// The session is on a link, as far as it knows.
    pub(crate) attached: bool,
    /// Since when it is not.
    pub(crate) detached_since: Option<Duration>,
}

impl Links {
    pub(crate) fn get(&self, id: LinkId) -> Option<&Path> {
        self.paths.iter().find(|path| path.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: LinkId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.iter_mut()
    }

    pub(crate) fn push(&mut self, path: Path) {
        self.paths.push(path);
    }

    pub(crate) fn full(&self) -> bool {
        self.paths.len() >= MAX_LINKS
    }

    /// Of the links that the session has left, the one that it left first.
    pub(crate) fn left_first(&self) -> Option<LinkId> {
        let left = self.paths.iter().filter_map(|path| match path.state {
            State::Lingers { until, .. } => Some((until, path.id)),
            _ => None,
        });
        left.min().map(|(_, id)| id)
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Path> {
        let at = self.paths.iter().position(|path| path.id == id)?;
        Some(self.paths.swap_remove(at))
    }

    pub(crate) fn current(&self) -> Option<(&Path, &Current)> {
        self.paths.iter().find_map(|path| match &path.state {
            State::Current(current) => Some((path, current)),
            _ => None,
        })
    }

    pub(crate) fn current_mut(&mut self) -> Option<&mut Current> {
        self.paths.iter_mut().find_map(|path| match &mut path.state {
            State::Current(current) => Some(current),
            _ => None,
        })
    }

    /// The peer is on the link of the moment, too: it needs none of those before.
    pub(crate) fn confirm(&mut self) {
        if let Some(current) = self.current_mut().filter(|current| !current.confirmed) {
            current.confirmed = true;
            self.detach_left(None);
        }
    }

    /// The peer has to be told by now which links were left, or by this time.
    pub(crate) fn detach_left(&mut self, by: Option<Duration>) {
        for path in &mut self.paths {
            if let State::Lingers { detach, detach_at, .. } = &mut path.state {
                *detach |= detach_at.take_if(|at| by.is_none_or(|by| *at <= by)).is_some();
            }
        }
    }

    /// An epoch that neither end has seen.
    pub(crate) fn ask(&mut self) -> u32 {
        self.asked = self.asked.max(self.epoch).saturating_add(1);
        self.asked
    }

    /// The highest epoch that we have asked for and await the answer of.
    pub(crate) fn awaited(&self) -> Option<u32> {
        let opens = |path: &&Path| matches!(path.state, State::Opens(_));
        self.paths.iter().filter(opens).map(|path| path.epoch).max()
    }
}
