//! The session itself: which frame goes next, and what a frame that came means.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use wire::{Lane, Message};

use crate::{
    Config, HEADER_LEN, MAX_MESSAGE, ProtocolError, Role, Stats,
    frame::{Header, Kind},
    lanes::{Lanes, RELIABLE},
    liveness::Liveness,
    pace::Pace,
    rx::Rx,
    tx::Tx,
};

/// The epoch of a session's first link.
const EPOCH: u32 = 0;
/// For each byte of BULK, as many bytes of other lanes may go first: a twentieth is reserved.
const URGENT_PER_BULK: usize = 19;
/// The longest reason that travels with a close, bytes.
const MAX_REASON: usize = 256;

/// What the application is told, most urgent lane first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message, in one piece. Say [`Session::consumed`] when it was accepted.
    Message(Lane, Bytes),
    /// Nothing was heard for [`Config::dead_after`].
    PeerSilent,
    /// The peer ended the session, for this reason. Nothing comes after it.
    PeerClosed(String),
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
    role: Role,
    config: Config,
    tx: Lanes<Tx>,
    rx: Lanes<Rx>,
    stats: Stats,
    /// None until time is known.
    liveness: Option<Liveness>,
    /// The latest time that was passed.
    now: Duration,
    /// When acknowledgements that wait become due.
    tell_at: Option<Duration>,
    /// They are due.
    tell_due: bool,
    pace: Pace,
    /// Bytes of other lanes that went first while BULK was ready.
    bulk_waited: usize,
    peer_silent: bool,
    ending: Ending,
}

/// How far the end of the session has come.
#[derive(Debug)]
enum Ending {
    Open,
    /// We said [`Session::close`]: what is queued goes first.
    Closing(String),
    /// We have sent CLOSE.
    Closed,
    /// The peer has sent CLOSE; the reason is taken when the application was told.
    ClosedByPeer(Option<String>),
}

impl Session {
    /// A session that begins now. Time begins with the first call that passes it.
    #[must_use]
    pub fn new(role: Role, config: Config) -> Self {
        Self {
            role,
            tx: Lanes::new(|lane| Tx::new(config.lane(lane).queue, lane.may_lose())),
            rx: Lanes::new(|lane| Rx::new(lane, config.lane(lane).window)),
            config,
            stats: Stats::default(),
            liveness: None,
            now: Duration::ZERO,
            tell_at: None,
            tell_due: false,
            pace: Pace::default(),
            bulk_waited: 0,
            peer_silent: false,
            ending: Ending::Open,
        }
    }

    /// Queues a message on its lane. AUDIO and ISO drop their oldest message rather than refuse one.
    ///
    /// # Errors
    /// The message comes back: its lane is full, it is too long, or the session is closed.
    pub fn send(&mut self, message: Message) -> Result<(), SendError> {
        let lane = message.lane;
        if !matches!(self.ending, Ending::Open) {
            return Err(SendError::Closed(message));
        }
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(message));
        }
        self.tx.of_mut(lane).push(message, self.stats.lanes.of_mut(lane)).map_err(SendError::Full)
    }

    /// Bytes that wait on this lane to be handed to the link, a header for each message included.
    #[must_use]
    pub fn queued(&self, lane: Lane) -> usize {
        self.tx.of(lane).queued()
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

    /// Whether the session is over: its last frame was handed to the link, or the peer ended it.
    #[must_use]
    pub fn closed(&self) -> bool {
        matches!(self.ending, Ending::Closed | Ending::ClosedByPeer(_))
    }

    /// The most urgent frame. To be asked for when the link has room for one and not before: the session counts it as
    /// sent, and one that is not handed on breaks its lane.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Message> {
        if self.closed() {
            return None;
        }
        let liveness = self.liveness(now);
        if let Some(number) = liveness.pong() {
            return Some(self.bare(Lane::Ctl, Kind::Pong, number));
        }
        if let Some(number) = liveness.ping(now) {
            return Some(self.bare(Lane::Ctl, Kind::Ping, number));
        }
        let due = self.tell_due;
        let telling = |lane: &Lane| {
            let rx = self.rx.of(*lane);
            rx.has_urgent_news() || due && rx.has_news()
        };
        if let Some(lane) = RELIABLE.into_iter().find(telling) {
            return Some(self.bare(lane, Kind::Status, 0));
        }
        self.tell_due = false;
        self.choose().and_then(|lane| self.chunk(lane)).or_else(|| self.farewell())
    }

    /// Takes a frame that came on this lane.
    ///
    /// # Errors
    /// The peer broke the protocol: drop the link. The session takes nothing more in a useful way.
    pub fn receive(&mut self, now: Duration, lane: Lane, mut frame: Bytes) -> Result<(), ProtocolError> {
        let header = Header::decode(&frame, lane, self.role)?;
        if header.epoch != EPOCH {
            self.stats.stale_frames += 1;
            return Ok(());
        }
        self.liveness(now).heard(now);
        if self.closed() {
            return Ok(());
        }
        frame.advance(HEADER_LEN);
        match header.kind {
            Kind::Data | Kind::Status => {
                if !lane.may_lose() {
                    self.tx.of_mut(lane).acknowledge(lane, header.ack, header.limit)?;
                }
                if header.kind == Kind::Data {
                    self.rx.of_mut(lane).receive(&header, frame, self.stats.lanes.of_mut(lane))?;
                    self.tell_soon(lane);
                }
            }
            Kind::Ping => self.liveness(now).asked_by_peer(header.seq),
            Kind::Pong => {
                if let Some(round_trip) = self.liveness(now).answered(now, header.seq) {
                    self.stats.measured(round_trip);
                }
            }
            Kind::Close => {
                let reason = frame.get(..frame.len().min(MAX_REASON)).unwrap_or_default();
                self.ending = Ending::ClosedByPeer(Some(String::from_utf8_lossy(reason).into_owned()));
            }
        }
        Ok(())
    }

    /// What the application has to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        for lane in Lane::ALL {
            if let Some(message) = self.rx.of_mut(lane).pop() {
                return Some(Event::Message(lane, message));
            }
        }
        if std::mem::take(&mut self.peer_silent) {
            return Some(Event::PeerSilent);
        }
        match &mut self.ending {
            Ending::ClosedByPeer(reason) => reason.take().map(Event::PeerClosed),
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
        let heartbeat = self.liveness.as_ref().map_or(Duration::ZERO, |l| l.next(self.config.dead_after));
        Some(self.tell_at.map_or(heartbeat, |at| at.min(heartbeat)))
    }

    /// Does what has become due. Then drain [`Self::poll_event`] and [`Self::poll_transmit`].
    pub fn on_timeout(&mut self, now: Duration) {
        if self.closed() {
            return;
        }
        let (heartbeat, dead_after) = (self.config.heartbeat, self.config.dead_after);
        self.peer_silent |= self.liveness(now).on_timeout(now, heartbeat, dead_after);
        self.tell_due |= self.tell_at.take_if(|at| *at <= now).is_some();
    }

    /// What it has carried.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn liveness(&mut self, now: Duration) -> &mut Liveness {
        self.now = self.now.max(now);
        self.liveness.get_or_insert_with(|| Liveness::new(now))
    }

    /// Lets acknowledgement and credit of this lane wait for a frame that can carry them, but not for long.
    fn tell_soon(&mut self, lane: Lane) {
        if self.tell_at.is_none() && !self.tell_due && !lane.may_lose() && self.rx.of(lane).has_news() {
            self.tell_at = Some(self.now + self.config.ack_delay);
        }
    }

    /// The lane whose chunk goes next.
    fn choose(&self) -> Option<Lane> {
        let max_chunk = self.pace.chunk(self.config.chunk());
        let ready = |lane: &Lane| self.tx.of(*lane).ready(max_chunk);
        let urgent = Lane::ALL.into_iter().filter(|lane| *lane != Lane::Bulk).find(ready);
        let bulk = ready(&Lane::Bulk).then_some(Lane::Bulk);
        if self.bulk_waited >= URGENT_PER_BULK * max_chunk { bulk.or(urgent) } else { urgent.or(bulk) }
    }

    fn chunk(&mut self, lane: Lane) -> Option<Message> {
        let max_chunk = self.pace.chunk(self.config.chunk());
        let bulk_ready = self.tx.of(Lane::Bulk).ready(max_chunk);
        let chunk = self.tx.of_mut(lane).pop(max_chunk, self.stats.lanes.of_mut(lane))?;
        self.pace.took(self.now, HEADER_LEN + chunk.len());
        if lane == Lane::Bulk {
            self.bulk_waited = self.bulk_waited.saturating_sub(URGENT_PER_BULK * chunk.len());
        } else if bulk_ready {
            self.bulk_waited = self.bulk_waited.saturating_add(chunk.len());
        }
        let mut header = self.header(lane, Kind::Data, chunk.seq);
        (header.first, header.last) = (chunk.first, chunk.last);
        let mut head = BytesMut::with_capacity(HEADER_LEN + chunk.head.len());
        head.extend_from_slice(&header.encode());
        head.extend_from_slice(&chunk.head);
        Some(Message { lane, head: head.freeze(), body: chunk.body })
    }

    /// CLOSE, when all that was queued before has gone.
    fn farewell(&mut self) -> Option<Message> {
        let Ending::Closing(reason) = &mut self.ending else { return None };
        if !RELIABLE.into_iter().all(|lane| self.tx.of(lane).is_empty()) {
            return None;
        }
        let body = Bytes::from(std::mem::take(reason));
        self.ending = Ending::Closed;
        Some(Message { body, ..self.bare(Lane::Ctl, Kind::Close, 0) })
    }

    /// A frame without a chunk.
    fn bare(&mut self, lane: Lane, kind: Kind, seq: u64) -> Message {
        let head = Bytes::copy_from_slice(&self.header(lane, kind, seq).encode());
        Message { lane, head, body: Bytes::new() }
    }

    fn header(&mut self, lane: Lane, kind: Kind, seq: u64) -> Header {
        let tells = !lane.may_lose() && matches!(kind, Kind::Data | Kind::Status);
        let (ack, limit) = if tells { self.rx.of_mut(lane).tell() } else { (0, 0) };
        Header { kind, first: false, last: false, from: self.role, epoch: EPOCH, seq, ack, limit }
    }
}
