//! How a session gets onto a link, and onto the next.

use std::time::Duration;

use bytes::{Buf, Bytes};
use wire::Lane;

use crate::{
    Event, HEADER_LEN, Identity, LinkId, LinkRefused, NewLink, ProtocolError, ResetReason, Role, Session,
    claim::{self, Claim, Place, Purpose},
    config::MAX_CHUNK,
    frame::{Header, Kind},
    lanes::RELIABLE,
    links::{Current, EARLY_BYTES, Opens, Path, State},
    liveness::Liveness,
    pace::Pace,
    session::Ending,
};

impl Session {
    /// A link is there. Its peer's key has been checked by the caller: it is the one that the session belongs to. What
    /// is to be said on it comes from [`Self::poll_transmit_on`]; [`Event::Attached`] tells that the session is on it.
    /// The link of before, if there is one, stays in use until then.
    ///
    /// # Errors
    /// The session has no use for it.
    pub fn link_up(&mut self, now: Duration, link: NewLink) -> Result<(), LinkRefused> {
        self.now = self.now.max(now);
        self.expire(now);
        let NewLink { id, kind, binding, opens } = link;
        if self.closed() {
            return Err(LinkRefused::Over);
        }
        if self.links.get(id).is_some() {
            return Err(LinkRefused::Known);
        }
        if self.links.full() {
            // A link that the session has left may be of use for a moment yet; a new one is of more.
            let left = self.links.left_first().ok_or(LinkRefused::TooMany)?;
            self.retire(left);
        }
        let begins = self.identity.is_none() || self.begins();
        if !self.resumes || opens && begins && self.role == Role::Host {
            return Err(LinkRefused::Nothing);
        }
        let (epoch, state) = match (opens, begins) {
            (false, _) => (0, State::Awaits),
            (true, true) => (0, State::Opens(Opens::new(Kind::Hello))),
            (true, false) => (self.links.ask(), State::Opens(Opens::new(Kind::Attach))),
        };
        self.links.push(Path { id, kind, binding, since: now, epoch, state });
        Ok(())
    }

    /// Whether the first link is still to come, or its welcome.
    fn begins(&self) -> bool {
        !self.links.attached && self.links.detached_since.is_none()
    }

    /// HELLO or ATTACH.
    pub(crate) fn opening(&mut self, now: Duration, link: LinkId) -> Option<wire::Message> {
        let path = self.links.get_mut(link)?;
        let State::Opens(opens) = &mut path.state else { return None };
        (opens.due, opens.said) = (false, Some(now));
        let (kind, epoch, binding) = (opens.kind, path.epoch, path.binding);
        let body = if kind == Kind::Hello { claim::hello() } else { self.claim(kind, epoch, binding)? };
        Some(self.frame_of(epoch, kind, body))
    }

    /// WELCOME or ATTACHED, for the link of the moment.
    pub(crate) fn answer(&self, kind: Kind) -> Option<wire::Message> {
        let (path, _) = self.links.current()?;
        let body = match kind {
            Kind::Welcome => claim::welcome(*claim::VERSIONS.end(), self.identity.as_ref()?),
            _ => self.claim(kind, path.epoch, path.binding)?,
        };
        Some(self.frame_of(path.epoch, kind, body))
    }

    fn claim(&self, kind: Kind, epoch: u32, binding: [u8; 32]) -> Option<Bytes> {
        let purpose = Purpose { kind, sender: self.role, epoch, binding };
        let place = |lane| Place { next: self.rx.of(lane).next(), base: self.tx.of(lane).base() };
        Some(Claim::new(self.identity.as_ref()?, purpose, RELIABLE.map(place)).encode())
    }

    /// The first frame of a peer that speaks first.
    pub(crate) fn receive_opening(
        &mut self,
        now: Duration,
        link: LinkId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), ProtocolError> {
        match header.kind {
            Kind::Hello => self.welcome(now, link, header, body),
            Kind::Attach => self.receive_claim(now, link, header, body),
            kind => Err(ProtocolError::Unexpected(kind as u8)),
        }
    }

    fn welcome(
        &mut self,
        now: Duration,
        link: LinkId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), ProtocolError> {
        let common = claim::common_version(body)?;
        if self.role == Role::Remote || !self.begins() || self.closed() || header.epoch != 0 {
            return Err(ProtocolError::Unexpected(header.kind as u8));
        }
        match common {
            Some(_) => self.move_to(now, link, 0, None, Some(Kind::Welcome)),
            None => self.refuse(link, ResetReason::Version),
        }
        Ok(())
    }

    /// ATTACH: the peer claims to go on with this session over this link.
    fn receive_claim(
        &mut self,
        now: Duration,
        link: LinkId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), ProtocolError> {
        let claim = Claim::decode(header.kind, body)?;
        self.expire(now);
        let Some(identity) = self.identity.as_ref().filter(|identity| identity.id == claim.id) else {
            self.refuse(link, ResetReason::Unknown);
            return Ok(());
        };
        self.prove(link, header, &claim, identity)?;
        if let Some(reason) = self.over() {
            self.refuse(link, reason);
            return Ok(());
        }
        // Of two that asked for the same epoch the remote gets it.
        let yields = self.role == Role::Host;
        let ours =
            self.links.awaited().map_or(0, |asked| if yields { asked.saturating_sub(1) } else { asked });
        let current = self.links.epoch.max(ours);
        if header.epoch <= current {
            return Err(ProtocolError::Epoch { found: header.epoch, current });
        }
        if self.fits(&claim) {
            self.move_to(now, link, header.epoch, Some(&claim), Some(Kind::Attached));
        } else {
            self.refuse(link, ResetReason::Gap);
            self.finish(Event::Reset(ResetReason::Gap), ResetReason::Gap);
        }
        Ok(())
    }

    /// A frame on a link on which we spoke first.
    pub(crate) fn receive_answer(
        &mut self,
        now: Duration,
        link: LinkId,
        lane: Lane,
        header: &Header,
        mut frame: Bytes,
    ) -> Result<(), ProtocolError> {
        let Some(path) = self.links.get_mut(link) else { return Ok(()) };
        let State::Opens(opens) = &mut path.state else { return Ok(()) };
        let (asked, epoch, said) = (opens.kind, path.epoch, opens.said);
        match (header.kind, asked) {
            (Kind::Reset, _) => {
                frame.advance(HEADER_LEN);
                let reason = ResetReason::decode(&frame)?;
                self.retire(link);
                if !self.links.attached {
                    self.finish(Event::Reset(reason), ResetReason::Closed);
                }
                Ok(())
            }
            (Kind::Welcome, Kind::Hello) if header.epoch == 0 => {
                frame.advance(HEADER_LEN);
                let identity = claim::welcomed(&frame)?;
                if self.begins() {
                    self.identity = Some(identity);
                    self.answered(now, link, said, None)
                } else {
                    // Another link was faster, with another session.
                    self.retire(link);
                    Ok(())
                }
            }
            (Kind::Attached, Kind::Attach) if header.epoch == epoch => {
                frame.advance(HEADER_LEN);
                let claim = Claim::decode(header.kind, &frame)?;
                let identity = self.identity.as_ref().filter(|identity| identity.id == claim.id);
                self.prove(link, header, &claim, identity.ok_or(ProtocolError::Proof)?)?;
                self.answered(now, link, said, Some(&claim))
            }
            (Kind::Attach, _) if self.role == Role::Host || header.epoch > epoch => {
                frame.advance(HEADER_LEN);
                self.receive_claim(now, link, header, &frame)
            }
            (Kind::Hello | Kind::Welcome | Kind::Attach | Kind::Attached, _) => self.stale(),
            _ if header.epoch == epoch && said.is_some() && !lane.may_lose() => {
                opens.early_bytes += frame.len();
                if opens.early_bytes > EARLY_BYTES + MAX_CHUNK + HEADER_LEN {
                    return Err(ProtocolError::Early(opens.early_bytes));
                }
                opens.early.push_back((lane, frame));
                Ok(())
            }
            _ => self.stale(),
        }
    }

    /// The answer to what we said is right: the session is on this link, and what overtook the answer is taken.
    fn answered(
        &mut self,
        now: Duration,
        link: LinkId,
        said: Option<Duration>,
        claim: Option<&Claim>,
    ) -> Result<(), ProtocolError> {
        let fits = claim.is_none_or(|claim| self.fits(claim));
        let Some(path) = self.links.get_mut(link) else { return Ok(()) };
        let (epoch, early) = match &mut path.state {
            State::Opens(opens) => (path.epoch, std::mem::take(&mut opens.early)),
            _ => return Ok(()),
        };
        if !fits {
            self.refuse(link, ResetReason::Gap);
            self.finish(Event::Reset(ResetReason::Gap), ResetReason::Gap);
            return Ok(());
        }
        self.move_to(now, link, epoch, claim, None);
        if let Some(said) = said {
            self.stats.measured(now.saturating_sub(said));
        }
        early.into_iter().try_for_each(|(lane, frame)| self.receive_on(now, link, lane, frame))
    }

    /// Whether the sender of a claim owns the session, and means this link.
    fn prove(
        &self,
        link: LinkId,
        header: &Header,
        claim: &Claim,
        identity: &Identity,
    ) -> Result<(), ProtocolError> {
        let path = self.links.get(link).ok_or(ProtocolError::Unexpected(header.kind as u8))?;
        let (sender, epoch) = (header.from, header.epoch);
        claim.proves(identity, Purpose { kind: header.kind, sender, epoch, binding: path.binding })
    }

    /// Whether each end still has what the other needs. The peer's `next` may be older than its acknowledgements, which
    /// came over another link, so it is our `base` that tells the peer of a gap, and the peer's `base` that tells us.
    fn fits(&self, claim: &Claim) -> bool {
        RELIABLE.into_iter().zip(claim.places).all(|(lane, place)| {
            place.next <= self.tx.of(lane).next() && place.base <= self.rx.of(lane).next()
        })
    }

    /// The session is on this link from now on. Of the link before only what is on its way counts.
    fn move_to(
        &mut self,
        now: Duration,
        link: LinkId,
        epoch: u32,
        claim: Option<&Claim>,
        answer: Option<Kind>,
    ) {
        let confirmed = answer.is_none();
        let mut void = Vec::new();
        for path in self.links.iter_mut().filter(|path| path.id != link) {
            match &path.state {
                State::Current(_) => path.state = State::left(now, confirmed),
                State::Opens(_) if path.epoch <= epoch => void.push(path.id),
                _ => {}
            }
        }
        let Some(path) = self.links.get_mut(link) else { return };
        path.epoch = epoch;
        path.state = State::Current(Current { answer, answer_due: !confirmed, confirmed, early_bytes: 0 });
        let kind = path.kind;
        for lane in Lane::ALL {
            let stats = self.stats.lanes.of_mut(lane);
            let at = RELIABLE.iter().position(|reliable| *reliable == lane);
            let place = claim.zip(at).and_then(|(claim, at)| claim.places.get(at));
            self.tx.of_mut(lane).attach(place.map_or(0, |place| place.next), kind.strict(lane), stats);
            self.rx.of_mut(lane).attach(kind.strict(lane), stats);
        }
        self.stats.smooth_round_trip = None;
        self.count_attach(now);
        self.links.epoch = epoch;
        self.links.attached = true;
        self.links.detached_since = None;
        self.liveness = Some(Liveness::new(now));
        self.pace = Pace::default();
        self.cap.reset(self.tx.of(Lane::Bulk).next());
        (self.tell_at, self.tell_due, self.silence) = (None, false, None);
        self.link_events.push_back(Event::Attached { link, epoch, resumed: claim.is_some() });
        for link in void {
            self.retire(link);
        }
    }

    fn count_attach(&mut self, now: Duration) {
        if let Some(since) = self.links.detached_since {
            self.stats.resumes += 1;
            self.stats.detached += now.saturating_sub(since);
        } else if self.links.attached {
            self.stats.hand_overs += 1;
        }
    }

    /// What opened this link is said again: the answer may be lost.
    pub(crate) fn said_again(&mut self, header: &Header) {
        let epoch = self.links.epoch;
        let Some(current) = self.links.current_mut().filter(|current| !current.confirmed) else { return };
        let answered = match header.kind {
            Kind::Hello => current.answer == Some(Kind::Welcome),
            Kind::Attach => current.answer == Some(Kind::Attached),
            _ => false,
        };
        current.answer_due |= answered && header.epoch == epoch;
    }

    /// Why the session is over, if it is.
    fn over(&self) -> Option<ResetReason> {
        match &self.ending {
            Ending::Open | Ending::Closing(_) => None,
            Ending::Closed => Some(ResetReason::Closed),
            Ending::Over { reason, .. } => Some(*reason),
        }
    }

    fn refuse(&mut self, link: LinkId, reason: ResetReason) {
        if let Some(path) = self.links.get_mut(link) {
            path.state = State::Refused(reason);
        }
    }
}
