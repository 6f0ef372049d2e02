//! The session itself: what its owner tells it and asks it.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use wire::{Lane, Message};

use crate::{
    Config, Identity, LinkId, LinkKind, MAX_MESSAGE, ResetReason, Role, SessionId, Stats,
    cap::Cap,
    lanes::{Lanes, RELIABLE},
    links::{Current, Links, Path, State},
    liveness::{Liveness, Silence},
    pace::Pace,
    rx::Rx,
    tx::Tx,
};

/// The longest reason that travels with a close, bytes.
pub(crate) const MAX_REASON: usize = 256;
/// What the application is told: of links first, then messages, most urgent lane first, then the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session is on this link now, and was not before. Not told by a session made by [`Session::new`].
    Attached {
        /// The link.
        link: LinkId,
        /// How many links the session has had before this one, and attempts at one.
        epoch: u32,
        /// Whether it goes on; otherwise it begins.
        resumed: bool,
    },
    /// The session is on no link. It goes on if one comes up before [`Config::expire_after`].
    Detached,
    /// This link is of no use to the session any more: close it, what it was handed still has to go.
    Retired(LinkId),
    /// A message, in one piece. Say [`Session::consumed`] when it was accepted.
    Message(Lane, Bytes),
    /// Nothing was heard for [`Config::quiet_after`] on the link of the moment: another link may help. Told once, until
    /// something is heard.
    PeerQuiet,
    /// Nothing was heard for [`Config::dead_after`] on the link of the moment. If it is given up for that: close it and
    /// say [`Session::link_down`].
    PeerSilent,
    /// The peer ended the session, for this reason. Nothing comes after it.
    PeerClosed(String),
    /// The session had no link for too long. Nothing comes after it.
    Expired,
    /// The peer has no such session, or it cannot go on: begin a new one. Nothing comes after it.
    Reset(ResetReason),
}

/// Why a message was not taken; it comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane's queue has no room. Try again when [`Session::room`] says so.
    #[error("no room on lane {:?} for a message of {} bytes", .0.lane, .0.len())]
    Full(Message),
    /// It is longer than [`MAX_MESSAGE`].
    #[error("message of {} bytes is too long", .0.len())]
    TooLong(Message),
    /// The session was closed, by us or by the peer.
    #[error("the session is closed")]
    Closed(Message),
}

/// One end of a session. See the crate's documentation for its rules.
#[derive(Debug)]
pub struct Session {
    pub(crate) role: Role,
    pub(crate) config: Config,
    /// None until the host has said it, and for ever if the session has one link only.
    pub(crate) identity: Option<Identity>,
    /// Whether the session goes on when its link is lost.
    pub(crate) resumes: bool,
    pub(crate) links: Links,
    pub(crate) tx: Lanes<Tx>,
    pub(crate) rx: Lanes<Rx>,
    pub(crate) stats: Stats,
    /// None until time is known.
    pub(crate) liveness: Option<Liveness>,
    /// The latest time that was passed.
    pub(crate) now: Duration,
    /// When acknowledgements that wait become due.
    pub(crate) tell_at: Option<Duration>,
    /// They are due.
    pub(crate) tell_due: bool,
    pub(crate) pace: Pace,
    /// What of BULK may be on its way.
    pub(crate) cap: Cap,
    /// Bytes of other lanes that went first while BULK was ready.
    pub(crate) bulk_waited: usize,
    /// What is to be told of the peer's silence.
    pub(crate) silence: Option<Silence>,
    pub(crate) link_events: VecDeque<Event>,
    pub(crate) ending: Ending,
}

/// How far the end of the session has come.
#[derive(Debug)]
pub(crate) enum Ending {
    Open,
    /// We said [`Session::close`]: what is queued goes first.
    Closing(String),
    /// We have sent CLOSE.
    Closed,
    /// It is over for another reason.
    Over {
        /// What the application has to be told yet.
        told: Option<Event>,
        /// What a peer is answered that wants it to go on.
        reason: ResetReason,
    },
}

impl Session {
    /// A session that begins now, on one link that keeps the order of each lane, and ends with it. Time begins with the
    /// first call that passes it. Its link is 0, for the calls that want to know.
    #[must_use]
    pub fn new(role: Role, config: Config) -> Self {
        let mut session = Self::over_links(role, None, false, config);
        session.links.attached = true;
        session.links.push(Path {
            id: LinkId(0),
            kind: LinkKind::STREAM,
            binding: [0; 32],
            since: Duration::ZERO,
            epoch: 0,
            state: State::Current(Current { confirmed: true, ..Current::default() }),
        });
        session
    }

    /// The host's end of a session that can move from link to link. Its remote learns the identity over the first one.
    /// Its id and secret have to be random and new; this crate has no source of randomness.
    #[must_use]
    pub fn host(identity: Identity, config: Config) -> Self {
        Self::over_links(Role::Host, Some(identity), true, config)
    }

    /// The remote's end of a session that can move from link to link.
    #[must_use]
    pub fn remote(config: Config) -> Self {
        Self::over_links(Role::Remote, None, true, config)
    }

    fn over_links(role: Role, identity: Option<Identity>, resumes: bool, config: Config) -> Self {
        Self {
            role,
            identity,
            resumes,
            links: Links::default(),
            tx: Lanes::new(|lane| Tx::new(lane, &config, resumes)),
            rx: Lanes::new(|lane| Rx::new(lane, config.lane(lane).window)),
            cap: Cap::new((config.lane(Lane::Bulk).window + MAX_MESSAGE) as u64),
            config,
            stats: Stats::default(),
            liveness: None,
            now: Duration::ZERO,
            tell_at: None,
            tell_due: false,
            pace: Pace::default(),
            bulk_waited: 0,
            silence: None,
            link_events: VecDeque::new(),
            ending: Ending::Open,
        }
    }

    /// The name of the session, once it has one.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.identity.as_ref().map(|identity| identity.id)
    }

    /// The link that the session is on.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        self.links.current().map(|(path, _)| path.id)
    }

    /// How many links it has had before this one, and attempts at one.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.links.epoch
    }

    /// Since when it has been on no link; none while it is on one, and before the first.
    #[must_use]
    pub fn detached_since(&self) -> Option<Duration> {
        self.links.detached_since
    }

    /// Whether nothing has been heard for [`Config::quiet_after`] on the link of the moment.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.links.attached && self.liveness.as_ref().is_some_and(|liveness| !liveness.well())
    }

    /// Queues a message on its lane, with a link or without. AUDIO and ISO drop their oldest message rather than refuse
    /// one, and every message without a link: it would be late.
    ///
    /// # Errors
    /// The message comes back: its lane is full, it is too long, or the session is over.
    pub fn send(&mut self, message: Message) -> Result<(), SendError> {
        self.enqueue(message, None)
    }

    /// The same, and on AUDIO and ISO it is dropped if it has not begun to go after [`Config::audio_age`] and
    /// [`Config::iso_age`]: whatever the link is like, nobody gets it late.
    ///
    /// # Errors
    /// Those of [`Self::send`].
    pub fn send_at(&mut self, now: Duration, message: Message) -> Result<(), SendError> {
        self.now = self.now.max(now);
        self.enqueue(message, Some(self.now))
    }

    fn enqueue(&mut self, message: Message, since: Option<Duration>) -> Result<(), SendError> {
        let lane = message.lane;
        if !matches!(self.ending, Ending::Open) {
            return Err(SendError::Closed(message));
        }
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(message));
        }
        let stats = self.stats.lanes.of_mut(lane);
        if lane.may_lose() && !self.links.attached {
            stats.dropped_messages += 1;
            return Ok(());
        }
        self.tx.of_mut(lane).push(message, since, stats).map_err(SendError::Full)
    }

    /// Bytes that wait on this lane to be handed to the link, a header for each message included.
    #[must_use]
    pub fn queued(&self, lane: Lane) -> usize {
        self.tx.of(lane).queued()
    }

    /// Bytes of this lane that are kept, headers included, because the peer may not have received them. At most the
    /// lane's window and one message. Zero on lanes that may lose, and if the session ends with its link.
    #[must_use]
    pub fn kept(&self, lane: Lane) -> u64 {
        self.tx.of(lane).kept()
    }

    /// The longest message that [`Self::send`] takes on this lane now without dropping one.
    #[must_use]
    pub fn room(&self, lane: Lane) -> usize {
        self.tx.of(lane).room()
    }

    /// Bytes of this lane that the link was given and the peer's application has not accepted, headers included;
    /// what was queued only is not in it. Zero on lanes that may lose.
    #[must_use]
    pub fn unaccepted(&self, lane: Lane) -> u64 {
        if lane.may_lose() { 0 } else { self.tx.of(lane).unaccepted() }
    }

    /// Ends the session for this reason (cut to 256 bytes): messages that wait still go first, as the peer's credit
    /// allows; no new ones are taken.
    pub fn close(&mut self, reason: &str) {
        if matches!(self.ending, Ending::Open) {
            let end = reason.floor_char_boundary(MAX_REASON);
            self.ending = Ending::Closing(reason.get(..end).unwrap_or_default().to_owned());
        }
    }

    /// Whether the session is over: its last frame was handed to the link, the peer ended it, or it expired.
    /// Close all its links then, after what they were handed.
    #[must_use]
    pub fn closed(&self) -> bool {
        matches!(self.ending, Ending::Closed | Ending::Over { .. })
    }

    /// What the application has to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        if matches!(self.ending, Ending::Over { told: None, .. }) {
            // Links may go yet, but that is no news any more.
            return None;
        }
        if let Some(event) = self.link_events.pop_front() {
            return Some(event);
        }
        for lane in Lane::ALL {
            if let Some(message) = self.rx.of_mut(lane).pop() {
                return Some(Event::Message(lane, message));
            }
        }
        match self.silence.take() {
            Some(Silence::Quiet) => return Some(Event::PeerQuiet),
            Some(Silence::Dead) => return Some(Event::PeerSilent),
            Some(Silence::None) | None => {}
        }
        match &mut self.ending {
            Ending::Over { told, .. } => told.take(),
            _ => None,
        }
    }

    /// The application has accepted so many bytes of messages of this lane, in the order it got them: their credit goes
    /// back to the peer. Without it the lane stops, and nothing else does. AUDIO and ISO need none.
    pub fn consumed(&mut self, lane: Lane, bytes: usize) {
        if !lane.may_lose() {
            self.rx.of_mut(lane).consumed(bytes);
            self.tell_soon(lane);
        }
    }

    /// When [`Self::on_timeout`] wants to be called next; it may be called earlier, too. Ask again after every call of
    /// another method. Feed what the link has received before: it may show that the peer is not silent.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closed() {
            return None;
        }
        let expiry = self.links.detached_since.map(|since| since.saturating_add(self.config.expire_after));
        self.current_timeout()
            .into_iter()
            .chain(self.links.iter().filter_map(Path::timeout))
            .chain(expiry)
            .min()
    }

    fn current_timeout(&self) -> Option<Duration> {
        self.links.current()?;
        let heartbeat = self.liveness.as_ref().map_or(Duration::ZERO, |l| l.next(self.config.limits()));
        let losses = RELIABLE.into_iter().filter_map(|lane| self.tx.of(lane).next_loss());
        losses.chain(self.tell_at).chain([heartbeat]).min()
    }

    /// Does what has become due. Then drain [`Self::poll_event`] and [`Self::poll_transmit`].
    pub fn on_timeout(&mut self, now: Duration) {
        if self.closed() {
            return;
        }
        self.now = self.now.max(now);
        self.expire(now);
        self.links_on_timeout(now);
        if self.links.current().is_none() {
            return;
        }
        let (heartbeat, limits) = (self.config.heartbeat, self.config.limits());
        let liveness = self.liveness(now);
        let asks = now >= liveness.ping_at();
        self.silence = liveness.on_timeout(now, heartbeat, limits).or(self.silence);
        self.tell_due |= self.tell_at.take_if(|at| *at <= now).is_some();
        let patience = self.stats.patience();
        for lane in RELIABLE {
            self.tx.of_mut(lane).on_timeout(now, patience);
            if asks {
                self.rx.of_mut(lane).doubt();
            }
        }
    }

    /// What it has carried.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn liveness(&mut self, now: Duration) -> &mut Liveness {
        self.now = self.now.max(now);
        self.liveness.get_or_insert_with(|| Liveness::new(now))
    }

    /// Lets acknowledgement and credit of this lane wait for a frame that can carry them, but not for long.
    pub(crate) fn tell_soon(&mut self, lane: Lane) {
        if self.tell_at.is_none() && !self.tell_due && !lane.may_lose() && self.rx.of(lane).has_news() {
            self.tell_at = Some(self.now + self.config.ack_delay);
        }
    }
}
