//! Inwards: what a frame that came means.

use std::time::Duration;

use bytes::{Buf, Bytes};
use wire::Lane;

use crate::{
    Event, HEADER_LEN, LinkId, ProtocolError, ResetReason, Session,
    frame::{Header, Kind},
    links::State,
    session::{Ending, MAX_REASON},
};

impl Session {
    /// Takes a frame that came on this lane of the link of the moment.
    ///
    /// # Errors
    /// The peer broke the protocol: drop the link. The session takes nothing more in a useful way.
    pub fn receive(&mut self, now: Duration, lane: Lane, frame: Bytes) -> Result<(), ProtocolError> {
        let Some(link) = self.link() else {
            Header::decode(&frame, lane, self.role)?;
            self.stats.stale_frames += 1;
            return Ok(());
        };
        self.receive_on(now, link, lane, frame)
    }

    /// Takes a frame that came on this lane of this link. Frames of a link that is gone are dropped.
    ///
    /// # Errors
    /// The peer broke the protocol: drop this link and say [`Self::link_down`]. Nothing that was broken has been taken; an
    /// honest peer can attach again.
    pub fn receive_on(
        &mut self,
        now: Duration,
        link: LinkId,
        lane: Lane,
        mut frame: Bytes,
    ) -> Result<(), ProtocolError> {
        let header = Header::decode(&frame, lane, self.role)?;
        self.now = self.now.max(now);
        match self.links.get(link).map(|path| &path.state) {
            Some(State::Current(_)) => self.receive_current(now, link, lane, &header, frame),
            Some(State::Awaits) => {
                frame.advance(HEADER_LEN);
                self.receive_opening(now, link, &header, &frame)
            }
            Some(State::Opens(_)) => self.receive_answer(now, link, lane, &header, frame),
            Some(State::Lingers { .. }) => self.receive_late(link, lane, &header, frame),
            Some(State::Refused(_)) | None => self.stale(),
        }
    }

    pub(crate) fn stale(&mut self) -> Result<(), ProtocolError> {
        self.stats.stale_frames += 1;
        Ok(())
    }

    pub(crate) fn receive_current(
        &mut self,
        now: Duration,
        link: LinkId,
        lane: Lane,
        header: &Header,
        mut frame: Bytes,
    ) -> Result<(), ProtocolError> {
        if !self.resumes && header.kind.moves() {
            return Err(ProtocolError::Unexpected(header.kind as u8));
        }
        if matches!(header.kind, Kind::Hello | Kind::Attach | Kind::Welcome | Kind::Attached) {
            self.said_again(header);
            return self.stale();
        }
        if header.kind == Kind::Reset {
            frame.advance(HEADER_LEN);
            let reason = ResetReason::decode(&frame)?;
            self.finish(Event::Reset(reason), ResetReason::Closed);
            return Ok(());
        }
        if header.epoch != self.links.epoch {
            return self.stale();
        }
        self.liveness(now).heard(now);
        self.links.confirm();
        if self.closed() {
            return Ok(());
        }
        frame.advance(HEADER_LEN);
        match header.kind {
            Kind::Data | Kind::Status | Kind::Received => {
                self.told_by_peer(lane, header)?;
                if lane == Lane::Bulk {
                    self.cap.arrived(now, self.tx.of(lane).base());
                }
                if header.kind == Kind::Data {
                    self.rx.of_mut(lane).receive(header, frame, self.stats.lanes.of_mut(lane))?;
                    self.tell_soon(lane);
                }
            }
            Kind::Ping => self.liveness(now).asked_by_peer(header.seq),
            Kind::Pong => {
                if let Some(round_trip) = self.liveness(now).answered(now, header.seq) {
                    self.stats.pinged(Some(round_trip));
                    self.stats.measured(round_trip);
                    self.cap.round_trip(now, round_trip);
                }
            }
            Kind::Close => self.closed_by_peer(&frame),
            Kind::Detach => self.detached_by_peer(now, link),
            Kind::Hello | Kind::Welcome | Kind::Attach | Kind::Attached | Kind::Reset => {}
        }
        Ok(())
    }

    /// Takes what a frame says of what we have sent.
    fn told_by_peer(&mut self, lane: Lane, header: &Header) -> Result<(), ProtocolError> {
        if !lane.may_lose() {
            self.tx.of_mut(lane).acknowledge(lane, header.ack, header.limit)?;
        }
        if header.kind == Kind::Received {
            self.tx.of_mut(lane).arrived(lane, header.seq)?;
        }
        Ok(())
    }

    /// The link has been left: what was on its way over it is taken by number, whichever link is first to bring it.
    fn receive_late(
        &mut self,
        link: LinkId,
        lane: Lane,
        header: &Header,
        mut frame: Bytes,
    ) -> Result<(), ProtocolError> {
        let ours = self.links.get(link).is_some_and(|path| path.epoch == header.epoch);
        let carries = matches!(header.kind, Kind::Data | Kind::Status | Kind::Received);
        if ours && header.kind == Kind::Close && !self.closed() {
            frame.advance(HEADER_LEN);
            self.closed_by_peer(&frame);
            return Ok(());
        }
        if !ours || !carries || self.closed() {
            return self.stale();
        }
        self.told_by_peer(lane, header)?;
        if header.kind == Kind::Data {
            frame.advance(HEADER_LEN);
            self.rx.of_mut(lane).receive_late(header, frame, self.stats.lanes.of_mut(lane))?;
            self.tell_soon(lane);
        }
        Ok(())
    }

    fn closed_by_peer(&mut self, said: &[u8]) {
        let reason = said.get(..said.len().min(MAX_REASON)).unwrap_or_default();
        let reason = String::from_utf8_lossy(reason).into_owned();
        self.finish(Event::PeerClosed(reason), ResetReason::Closed);
    }

    /// The session is over; the application gets what has come, and then this.
    pub(crate) fn finish(&mut self, told: Event, reason: ResetReason) {
        if !self.closed() {
            self.ending = Ending::Over { told: Some(told), reason };
        }
    }
}
