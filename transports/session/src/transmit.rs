//! Outwards: which frame goes next.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use wire::{Lane, Message};

use crate::{
    HEADER_LEN, LinkId, Session,
    frame::{Header, Kind, frame_cost},
    lanes::RELIABLE,
    links::{EARLY_BYTES, State},
    session::Ending,
};

/// For each byte of BULK, as many bytes of other lanes may go first: a twentieth is reserved.
const URGENT_PER_BULK: usize = 19;

impl Session {
    /// The most urgent frame for the link of the moment. To be asked for when the link has room for one and not before:
    /// the session counts it as sent, and one that is not handed on breaks its lane while that link lives.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Message> {
        self.poll_transmit_on(now, self.link()?)
    }

    /// The most urgent frame for this link: nothing but what attaches and detaches it, if it is not the one of the
    /// moment.
    pub fn poll_transmit_on(&mut self, now: Duration, link: LinkId) -> Option<Message> {
        self.now = self.now.max(now);
        let path = self.links.get_mut(link)?;
        match &mut path.state {
            State::Current(_) => self.urgent_frame(now),
            State::Awaits => None,
            State::Opens(opens) if !opens.due => None,
            State::Opens(_) => self.opening(now, link),
            State::Lingers { detach, .. } => {
                let due = std::mem::take(detach);
                let epoch = path.epoch;
                due.then(|| self.frame_of(epoch, Kind::Detach, Bytes::new()))
            }
            State::Refused(reason) => {
                let reason = *reason;
                self.retire(link);
                Some(self.frame_of(0, Kind::Reset, reason.encode()))
            }
        }
    }

    /// The most urgent frame of a session that is attached.
    fn urgent_frame(&mut self, now: Duration) -> Option<Message> {
        if self.closed() {
            return None;
        }
        for lane in Lane::ALL {
            if let Some(before) = self.config.age(lane).and_then(|age| now.checked_sub(age)) {
                self.tx.of_mut(lane).expire(before, self.stats.lanes.of_mut(lane));
            }
        }
        let current = self.links.current_mut()?;
        if std::mem::take(&mut current.answer_due)
            && let Some(answer) = current.answer
        {
            return self.answer(answer);
        }
        // The peer keeps what overtakes the answer, but not more than this.
        if !current.confirmed && current.early_bytes >= EARLY_BYTES {
            return None;
        }
        let frame = self.frame_after_answer(now)?;
        if let Some(current) = self.links.current_mut().filter(|current| !current.confirmed) {
            current.early_bytes += frame.len();
        }
        Some(frame)
    }

    fn frame_after_answer(&mut self, now: Duration) -> Option<Message> {
        let liveness = self.liveness(now);
        if let Some(number) = liveness.pong() {
            return Some(self.bare(Lane::Ctl, Kind::Pong, number));
        }
        if let Some((number, unanswered)) = liveness.ping(now) {
            if unanswered {
                self.stats.pinged(None);
            }
            return Some(self.bare(Lane::Ctl, Kind::Ping, number));
        }
        let due = self.tell_due;
        let telling = |lane: &Lane| {
            let rx = self.rx.of(*lane);
            rx.has_urgent_news() || due && rx.has_news()
        };
        if let Some(lane) = RELIABLE.into_iter().find(telling) {
            return Some(self.status(lane));
        }
        self.tell_due = false;
        let max_chunk = self.max_chunk();
        if !self.tx.of(Lane::Bulk).ready(max_chunk) {
            self.cap.starved();
        }
        self.choose(max_chunk).and_then(|lane| self.chunk(lane, max_chunk)).or_else(|| self.farewell())
    }

    /// Acknowledgement and credit, with nothing that carries them.
    fn status(&mut self, lane: Lane) -> Message {
        match self.rx.of_mut(lane).tell_all() {
            Some(received) => self.bare(lane, Kind::Received, received),
            None => self.bare(lane, Kind::Status, 0),
        }
    }

    /// The longest chunk of the moment, bytes.
    fn max_chunk(&self) -> usize {
        self.pace.chunk(self.config.chunk(), self.cap.limit() / 4, self.cap.rate())
    }

    /// The lane whose chunk goes next.
    fn choose(&self, max_chunk: usize) -> Option<Lane> {
        let ready = |lane: &Lane| self.tx.of(*lane).ready(max_chunk);
        let urgent = Lane::ALL.into_iter().filter(|lane| *lane != Lane::Bulk).find(ready);
        let bulk = self.bulk_ready(max_chunk).then_some(Lane::Bulk);
        if self.bulk_waited >= URGENT_PER_BULK * max_chunk { bulk.or(urgent) } else { urgent.or(bulk) }
    }

    /// Whether BULK has a chunk that the path has room for. Of the last messages nobody awaits an answer.
    fn bulk_ready(&self, max_chunk: usize) -> bool {
        let tx = self.tx.of(Lane::Bulk);
        let allowed = || self.cap.allows(tx.in_flight(), tx.next_cost(max_chunk));
        tx.ready(max_chunk) && (matches!(self.ending, Ending::Closing(_)) || allowed())
    }

    fn chunk(&mut self, lane: Lane, max_chunk: usize) -> Option<Message> {
        let bulk_ready = self.bulk_ready(max_chunk);
        let patience = self.stats.patience();
        let tx = self.tx.of_mut(lane);
        let cost = tx.next_cost(max_chunk);
        let chunk = tx.pop(self.now, patience, max_chunk, self.stats.lanes.of_mut(lane))?;
        self.pace.took(self.now, HEADER_LEN + chunk.len());
        let mut asks = false;
        if lane == Lane::Bulk {
            self.bulk_waited = self.bulk_waited.saturating_sub(URGENT_PER_BULK * chunk.len());
            if cost > 0 {
                let next = frame_cost(max_chunk);
                asks = self.cap.sent(self.now, (chunk.end(), cost), tx.in_flight(), next);
            }
        } else if bulk_ready {
            self.bulk_waited = self.bulk_waited.saturating_add(chunk.len());
        }
        let mut header = self.header(lane, Kind::Data, chunk.seq);
        (header.first, header.last, header.asks) = (chunk.first, chunk.last, asks);
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

    /// A frame that attaches or detaches a link.
    pub(crate) fn frame_of(&self, epoch: u32, kind: Kind, body: Bytes) -> Message {
        let header = Header::bare(kind, self.role, epoch);
        Message { lane: Lane::Ctl, head: Bytes::copy_from_slice(&header.encode()), body }
    }

    /// A frame without a chunk.
    fn bare(&mut self, lane: Lane, kind: Kind, seq: u64) -> Message {
        let head = Bytes::copy_from_slice(&self.header(lane, kind, seq).encode());
        Message { lane, head, body: Bytes::new() }
    }

    fn header(&mut self, lane: Lane, kind: Kind, seq: u64) -> Header {
        let tells = !lane.may_lose() && matches!(kind, Kind::Data | Kind::Status | Kind::Received);
        let (ack, limit) = if tells { self.rx.of_mut(lane).tell() } else { (0, 0) };
        Header { seq, ack, limit, ..Header::bare(kind, self.role, self.links.epoch) }
    }
}
