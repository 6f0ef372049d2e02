//! Two sessions, all links between them, and what they do to frames: a value. Time moves when a test says so.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use session::{
    Config, Event, HEADER_LEN, Identity, LaneConfig, LinkId, LinkKind, MAX_MESSAGE, NewLink, ProtocolError,
    Secret, SendError, Session, SessionId,
};
use wire::{Lane, Message};

use crate::frames::{Random, joined, message, whole};

pub(crate) const RELIABLE: [Lane; 3] = [Lane::Ctl, Lane::Int, Lane::Bulk];
pub(crate) const HOST: usize = 0;
pub(crate) const REMOTE: usize = 1;
pub(crate) const ATTACH: u8 = 18;
pub(crate) const DATA: u8 = 1;

/// WebRTC data channels: small lanes overtake, BULK does not, AUDIO and ISO may lose.
pub(crate) const CHANNELS: LinkKind =
    LinkKind { ordered: [false, false, false, false, true], lossy: [false, false, true, true, false] };
/// Everything may be lost, overtaken or doubled.
pub(crate) const DATAGRAMS: LinkKind = LinkKind { ordered: [false; 5], lossy: [true; 5] };
pub(crate) const KINDS: [LinkKind; 3] = [LinkKind::STREAM, CHANNELS, DATAGRAMS];

pub(crate) fn identity(number: u8) -> Identity {
    Identity { id: SessionId([number; 16]), secret: Secret::new([number ^ 0x5a; 32]) }
}

/// Small enough that bounds bite; it does not expire.
pub(crate) fn tight(max_chunk: usize) -> Config {
    let lane = LaneConfig { queue: 20_000, window: 64 * 1024 };
    let expire_after = Duration::from_secs(1 << 20);
    Config {
        ctl: lane,
        int: lane,
        audio: lane,
        iso: lane,
        bulk: lane,
        max_chunk,
        expire_after,
        ..Config::default()
    }
}

/// One end and what its application has seen and sent.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) sent: [Vec<Bytes>; Lane::ALL.len()],
    pub(crate) received: [Vec<Bytes>; Lane::ALL.len()],
    held: VecDeque<(Lane, usize)>,
    pub(crate) events: Vec<Event>,
    /// The end of the session, once it was told.
    pub(crate) over: Option<Event>,
}

/// A link, and what is on its way to each end.
#[derive(Clone)]
pub(crate) struct Cable {
    pub(crate) new: NewLink,
    /// Whether each end has it.
    pub(crate) up: [bool; 2],
    /// Nothing arrives any more.
    pub(crate) cut: bool,
    to: [[VecDeque<Bytes>; Lane::ALL.len()]; 2],
}

impl Cable {
    pub(crate) fn waiting(&self, end: usize) -> usize {
        self.to[end].iter().map(VecDeque::len).sum()
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) ends: [End; 2],
    pub(crate) cables: Vec<Cable>,
    pub(crate) random: Random,
    /// Every ATTACH that was ever said, with the end that it was said to.
    pub(crate) attaches: Vec<(usize, Bytes)>,
    cables_so_far: u64,
    messages: u32,
    /// An end has said that the session is to end.
    pub(crate) closing: bool,
    /// Frames that have arrived.
    pub(crate) arrived: usize,
}

impl World {
    pub(crate) fn new(seed: u64, config: &Config) -> Self {
        let end = |session| End {
            session,
            sent: Default::default(),
            received: Default::default(),
            held: VecDeque::new(),
            events: Vec::new(),
            over: None,
        };
        Self {
            now: Duration::from_secs(seed % 100),
            ends: [end(Session::host(identity(7), config.clone())), end(Session::remote(config.clone()))],
            cables: Vec::new(),
            random: Random(seed),
            attaches: Vec::new(),
            cables_so_far: 0,
            messages: 0,
            closing: false,
            arrived: 0,
        }
    }

    /// A new cable; each end that opens speaks first. An end that has no use for it does not take it.
    pub(crate) fn connect(&mut self, kind: LinkKind, opens: [bool; 2]) -> usize {
        self.cables_so_far += 1;
        let mut binding = [0; 32];
        binding[..8].copy_from_slice(&self.cables_so_far.to_le_bytes());
        let new = NewLink { id: LinkId(self.cables_so_far), kind, binding, opens: false };
        let take = |end: &mut End, opens| end.session.link_up(self.now, NewLink { opens, ..new }).is_ok();
        let [host, remote] = &mut self.ends;
        let up = [take(host, opens[HOST]), take(remote, opens[REMOTE])];
        self.cables.push(Cable { new, up, cut: false, to: Default::default() });
        let at = self.cables.len() - 1;
        for end in [HOST, REMOTE] {
            if !up[end] {
                self.close(at, end);
            }
        }
        at
    }

    /// This end closes the cable: what is on its way to the other end still arrives, then the cable is gone.
    pub(crate) fn close(&mut self, cable: usize, end: usize) {
        self.cables[cable].up[end] = false;
        self.cables[cable].to[end] = Default::default();
    }

    /// The cable breaks and this end notices.
    pub(crate) fn notice(&mut self, cable: usize, end: usize) {
        let id = self.cables[cable].new.id;
        self.cables[cable].cut = true;
        if std::mem::take(&mut self.cables[cable].up[end]) {
            self.ends[end].session.link_down(self.now, id);
            self.drain(end);
        }
    }

    /// An application sends the next message, if there is room.
    pub(crate) fn send(&mut self, end: usize, lane: Lane, size: usize) -> bool {
        let next = message(lane, self.messages, size);
        let bytes = whole(&next);
        let End { session, sent, .. } = &mut self.ends[end];
        match session.send(next) {
            Ok(()) => {
                self.messages += 1;
                sent[lane as usize].push(bytes);
                true
            }
            Err(SendError::Full(_)) => false,
            Err(SendError::Closed(_)) if self.ended() => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// This end gives the cable one frame, if the cable has room.
    pub(crate) fn transmit(&mut self, cable: usize, end: usize) -> bool {
        let Cable { new, up, cut, .. } = self.cables[cable];
        let to = 1 - end;
        if !up[end] || self.cables[cable].waiting(to) >= 8 {
            return false;
        }
        let frame = self.ends[end].session.poll_transmit_on(self.now, new.id);
        self.drain(end);
        let Some(Message { lane, .. }) = frame else { return false };
        let bytes = joined(frame.expect("a frame"));
        if bytes[0] == ATTACH {
            self.attaches.push((to, bytes.clone()));
        }
        if up[to] && !cut {
            self.cables[cable].to[to][lane as usize].push_back(bytes);
        }
        true
    }

    /// One frame arrives at this end, as the kind of the cable has it. An end that has to drop the link does it.
    pub(crate) fn arrive(&mut self, cable: usize, end: usize) -> bool {
        let Some((lane, frame)) = self.take(cable, end) else {
            let Cable { up, cut, .. } = self.cables[cable];
            if up[end] && !up[1 - end] && !cut {
                self.notice(cable, end);
            }
            return false;
        };
        self.arrived += 1;
        match self.receive(self.cables[cable].new.id, end, lane, frame) {
            Ok(()) => {}
            // The slower of two attaches. Nothing else goes wrong between honest ends.
            Err(ProtocolError::Epoch { .. }) => self.notice(cable, end),
            Err(error) => panic!("{error}"),
        }
        true
    }

    /// Nothing is taken over a link but what was sent in the epoch in which the session was on it.
    fn receive(&mut self, link: LinkId, end: usize, lane: Lane, frame: Bytes) -> Result<(), ProtocolError> {
        let epoch = u32::from_le_bytes(frame[4..8].try_into().unwrap());
        let End { session, events, .. } = &mut self.ends[end];
        let on = |event: &Event| matches!(event, Event::Attached { link: l, epoch: e, .. } if (*l, *e) == (link, epoch));
        let fenced = frame[0] == DATA && !events.iter().any(on);
        let before = session.stats().lane(lane).received_frames;
        let outcome = session.receive_on(self.now, link, lane, frame);
        assert!(!fenced || session.stats().lane(lane).received_frames == before, "a fenced frame was taken");
        self.drain(end);
        outcome
    }

    fn take(&mut self, cable: usize, end: usize) -> Option<(Lane, Bytes)> {
        let Self { cables, random, .. } = self;
        let Cable { new, up, to, cut } = &mut cables[cable];
        if !up[end] || *cut {
            return None;
        }
        let queues = &mut to[end];
        let lanes: Vec<_> = Lane::ALL.into_iter().filter(|l| !queues[*l as usize].is_empty()).collect();
        let lane = *lanes.get(random.below(lanes.len() as u64) as usize)?;
        let queue = &mut queues[lane as usize];
        let at = if new.kind.ordered[lane as usize] { 0 } else { random.below(queue.len() as u64) as usize };
        let frame = queue.remove(at)?;
        if new.kind.lossy[lane as usize] {
            match random.below(8) {
                0 => return self.take(cable, end),
                1 => queue.push_back(frame.clone()),
                _ => {}
            }
        }
        Some((lane, frame))
    }

    /// Takes all events; messages are held until they are accepted, links that are of no use are closed.
    fn drain(&mut self, end: usize) {
        while let Some(event) = self.ends[end].session.poll_event() {
            let End { held, received, events, over, .. } = &mut self.ends[end];
            assert_eq!(*over, None, "end {end} is told more after the end: {event:?}");
            match event {
                Event::PeerClosed(_) | Event::Expired | Event::Reset(_) => *over = Some(event),
                Event::Message(lane, bytes) => {
                    held.push_back((lane, bytes.len()));
                    received[lane as usize].push(bytes);
                }
                Event::Retired(link) => {
                    events.push(event);
                    if let Some(cable) = self.cables.iter().position(|cable| cable.new.id == link) {
                        self.close(cable, end);
                    }
                }
                other => events.push(other),
            }
        }
    }

    /// The application accepts the oldest message that it has received.
    pub(crate) fn accept_one(&mut self, end: usize) -> bool {
        let End { session, held, .. } = &mut self.ends[end];
        held.pop_front().map(|(lane, len)| session.consumed(lane, len)).is_some()
    }

    /// Time passes up to the next thing that either end wants to do, at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) {
        let next = self.ends.iter().filter_map(|end| end.session.poll_timeout()).min();
        self.now = next.unwrap_or(self.now + limit).clamp(self.now, self.now + limit);
        for end in [HOST, REMOTE] {
            self.ends[end].session.on_timeout(self.now);
            self.drain(end);
        }
        self.cables.retain(|cable| cable.up != [false; 2]);
    }

    /// Everything that can go on goes on, until all has come, both know of the end, or a minute has passed.
    pub(crate) fn settle(&mut self) {
        let end = self.now + Duration::from_secs(60);
        while self.now < end && !self.settled() {
            let mut moved = false;
            for cable in 0..self.cables.len() {
                for end in [HOST, REMOTE] {
                    moved |= self.transmit(cable, end) | self.arrive(cable, end);
                }
            }
            moved |= self.accept_one(HOST) | self.accept_one(REMOTE);
            self.hang_up();
            if !moved {
                self.wait(Duration::from_millis(30));
            }
        }
        self.check_bounds();
    }

    /// Who has nothing more to say closes its cables.
    fn hang_up(&mut self) {
        for end in [HOST, REMOTE] {
            if self.ends[end].session.closed() {
                (0..self.cables.len()).for_each(|cable| self.close(cable, end));
            }
        }
    }

    fn settled(&self) -> bool {
        let over = self.ends.iter().all(|end| end.session.closed());
        if self.ended() { over } else { self.together() && self.all_has_come() }
    }

    fn all_has_come(&self) -> bool {
        let nothing_left = |end: &End| {
            let empty = |lane| end.session.queued(lane) == 0 && end.session.unaccepted(lane) == 0;
            RELIABLE.into_iter().all(empty)
        };
        self.ends.iter().all(nothing_left)
    }

    /// Whether both ends are on the same link.
    pub(crate) fn together(&self) -> bool {
        let [host, remote] = &self.ends;
        let on = |end: &End| end.session.link().map(|link| (link, end.session.epoch()));
        on(host).is_some() && on(host) == on(remote)
    }

    /// Whether an end has closed the session, or found it over.
    pub(crate) fn ended(&self) -> bool {
        self.closing || self.ends.iter().any(|end| end.session.closed())
    }

    /// What may be in memory, whatever happens.
    pub(crate) fn check_bounds(&self) {
        for (at, end) in self.ends.iter().enumerate() {
            for lane in Lane::ALL {
                let queued = end.session.queued(lane);
                assert!(
                    queued <= 20_000.max(MAX_MESSAGE + HEADER_LEN),
                    "end {at} queues {queued} on {lane:?}"
                );
                let (kept, unaccepted) = (end.session.kept(lane), end.session.unaccepted(lane));
                // A window and the message that was in the making when it was full.
                let longest = end.sent[lane as usize].iter().map(Bytes::len).max().unwrap_or(0) as u64;
                assert!(kept <= 64 * 1024 + longest * 9 / 8 + 64, "end {at} keeps {kept} on {lane:?}");
                assert!(kept <= unaccepted, "end {at} keeps what was accepted on {lane:?}");
            }
            let [other, _] = [&self.ends[1 - at], end];
            for lane in RELIABLE {
                let (sent, came) = (&other.sent[lane as usize], &end.received[lane as usize]);
                assert!(came.len() <= sent.len(), "end {at} got more than was sent on {lane:?}");
                let last = came.len().saturating_sub(1);
                assert_eq!(
                    came.get(last),
                    sent.get(last).filter(|_| !came.is_empty()),
                    "end {at} on {lane:?}"
                );
            }
        }
    }

    /// What has come is the beginning of what was sent.
    pub(crate) fn check_prefix(&self, name: &str) {
        for (from, to) in [(HOST, REMOTE), (REMOTE, HOST)] {
            for lane in RELIABLE {
                let (sent, came) =
                    (&self.ends[from].sent[lane as usize], &self.ends[to].received[lane as usize]);
                assert!(sent.starts_with(came), "{name}: {to} got something else on {lane:?}");
            }
        }
    }

    /// Everything that was sent has come, once and in order.
    pub(crate) fn check_equal(&self, name: &str) {
        for (from, to) in [(HOST, REMOTE), (REMOTE, HOST)] {
            for lane in RELIABLE {
                let (sent, came) =
                    (&self.ends[from].sent[lane as usize], &self.ends[to].received[lane as usize]);
                let equal = sent == came;
                assert!(equal, "{name}: {from} sent {}, {to} got {} on {lane:?}", sent.len(), came.len());
                assert_eq!(self.ends[from].session.kept(lane), 0, "{name}: {lane:?} keeps what has come");
                assert_eq!(self.ends[from].session.unaccepted(lane), 0, "{name}: {lane:?}");
            }
            for lane in [Lane::Audio, Lane::Iso] {
                let mut sent = self.ends[from].sent[lane as usize].iter();
                let thinned =
                    self.ends[to].received[lane as usize].iter().all(|came| sent.any(|next| next == came));
                assert!(thinned, "{name}: {lane:?} out of order or twice");
            }
        }
    }
}
