//! Two sessions over links that come and go, lose, reorder and double frames, and change them.

use core::time::Duration;
use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use session::{
    Config, Event, Identity, LaneConfig, LinkId, LinkKind, MAX_MESSAGE, NewLink, Opening, ProtocolError,
    Secret, Session, SessionId,
};
use wire::{Lane, Message};

/// Steps of one run.
const MOST_STEPS: usize = 600;
const WINDOW: usize = 64 << 10;

/// The first byte chooses: frames arrive as they were sent, or also changed.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut data = Unstructured::new(rest);
    let mut network = Network::new(first % 2 == 0);
    for _ in 0..MOST_STEPS {
        if data.is_empty() || network.step(&mut data).is_err() {
            break;
        }
        network.check();
    }
}

struct End {
    session: Session,
    sent: [Vec<Bytes>; Lane::ALL.len()],
    /// How many messages have come.
    came: [usize; Lane::ALL.len()],
}

struct Line {
    id: LinkId,
    up: [bool; 2],
    to: [VecDeque<(Lane, Bytes)>; 2],
}

struct Network {
    now: Duration,
    /// The host and the remote.
    ends: [End; 2],
    lines: Vec<Line>,
    so_far: u64,
    /// Frames arrive as they were sent.
    honest: bool,
    /// A frame was changed: what comes need not be what was sent.
    changed: bool,
}

impl Network {
    fn new(honest: bool) -> Self {
        let lane = LaneConfig { queue: WINDOW, window: WINDOW };
        let config = Config { ctl: lane, int: lane, bulk: lane, max_chunk: 300, ..Config::default() };
        let identity = Identity { id: SessionId([1; 16]), secret: Secret::new([2; 32]) };
        let end = |session| End { session, sent: Default::default(), came: Default::default() };
        let ends = [end(Session::host(identity, config.clone())), end(Session::remote(config))];
        let mut network =
            Self { now: Duration::from_secs(1), ends, lines: Vec::new(), so_far: 0, honest, changed: false };
        network.connect(LinkKind::STREAM, [false, true]);
        network
    }

    fn step(&mut self, data: &mut Unstructured<'_>) -> Result<()> {
        let end = usize::from(data.arbitrary::<bool>()?);
        let line = if self.lines.is_empty() { None } else { Some(data.choose_index(self.lines.len())?) };
        match (data.int_in_range(0..=15_u8)?, line) {
            (0..=4, Some(line)) => self.transmit(line, end),
            (5..=9, Some(line)) => {
                let late = !self.honest && data.ratio(1, 8)? && self.lines[line].to[end].len() > 1;
                self.arrive(line, end, usize::from(late));
            }
            (10, _) => self.send(end, *data.choose(&Lane::ALL)?, data.int_in_range(0..=900)?),
            (11, _) => {
                self.now += Duration::from_millis(data.int_in_range(0..=2_000)?);
                for end in [0, 1] {
                    self.ends[end].session.on_timeout(self.now);
                    self.drain(end);
                }
            }
            (12, Some(line)) => self.lose(line, end),
            (13, _) if self.lines.len() < 6 => {
                let kind = LinkKind { ordered: data.arbitrary()?, lossy: data.arbitrary()? };
                self.connect(kind, data.arbitrary()?);
            }
            (14, Some(line)) if !self.honest => self.disturb(line, end, data)?,
            (15, _) => {
                let close = data.ratio(1, 8)?;
                if close {
                    self.ends[end].session.close("enough");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, kind: LinkKind, opens: [bool; 2]) {
        self.so_far += 1;
        let (id, now) = (LinkId(self.so_far), self.now);
        let new = |opens| NewLink { id, kind, binding: [id.0 as u8; 32], opens };
        let [host, remote] = &mut self.ends;
        let up = [host.session.link_up(now, new(opens[0])), remote.session.link_up(now, new(opens[1]))];
        self.lines.push(Line { id, up: up.map(|taken| taken.is_ok()), to: Default::default() });
    }

    fn transmit(&mut self, line: usize, end: usize) {
        let Line { id, up, to } = &mut self.lines[line];
        if let Some(Message { lane, head, body }) = self.ends[end].session.poll_transmit_on(self.now, *id)
            && up[end]
        {
            to[1 - end].push_back((lane, [head, body].concat().into()));
        }
        self.drain(end);
    }

    /// A line that is not of its kind is as good as one that changes frames.
    fn arrive(&mut self, line: usize, end: usize, at: usize) {
        self.changed |= at > 0;
        let Some((lane, frame)) = self.lines[line].to[end].remove(at) else { return };
        let taken = self.ends[end].session.receive_on(self.now, self.lines[line].id, lane, frame.clone());
        let _ = Opening::of(lane, frame);
        self.drain(end);
        match taken {
            Ok(()) => {}
            Err(error) => {
                let honest = matches!(error, ProtocolError::Epoch { .. } | ProtocolError::Unexpected(_));
                assert!(honest || self.changed, "{error}");
                self.lose(line, end);
            }
        }
    }

    fn send(&mut self, end: usize, lane: Lane, size: usize) {
        let End { session, sent, .. } = &mut self.ends[end];
        let number = sent[lane as usize].len() as u8;
        let body = Bytes::from(vec![number; size]);
        if session.send(Message { lane, head: Bytes::new(), body: body.clone() }).is_ok() {
            sent[lane as usize].push(body);
        }
    }

    /// This end loses the line; what was on its way to it is gone.
    fn lose(&mut self, line: usize, end: usize) {
        let Line { id, up, to } = &mut self.lines[line];
        (up[end], to[end]) = (false, VecDeque::new());
        self.ends[end].session.link_down(self.now, *id);
        self.drain(end);
        self.lines.retain(|line| line.up != [false; 2]);
    }

    /// A frame on its way is changed, cut, said twice or made up.
    fn disturb(&mut self, line: usize, end: usize, data: &mut Unstructured<'_>) -> Result<()> {
        self.changed = true;
        let to = &mut self.lines[line].to[end];
        let Some((lane, frame)) = to.back().cloned() else {
            let length = data.int_in_range(0..=140)?.min(data.len());
            to.push_back((*data.choose(&Lane::ALL)?, Bytes::copy_from_slice(data.bytes(length)?)));
            return Ok(());
        };
        let mut changed = frame.to_vec();
        match data.int_in_range(0..=2_u8)? {
            0 => changed[data.choose_index(frame.len())?] ^= 1 << data.int_in_range(0..=7)?,
            1 => changed.truncate(data.choose_index(frame.len())?),
            _ => {}
        }
        to.push_back((lane, changed.into()));
        Ok(())
    }

    fn drain(&mut self, end: usize) {
        while let Some(event) = self.ends[end].session.poll_event() {
            match event {
                Event::Message(lane, bytes) => self.came(end, lane, &bytes),
                Event::Retired(link) => {
                    for line in self.lines.iter_mut().filter(|line| line.id == link) {
                        line.up[end] = false;
                    }
                }
                Event::Attached { .. }
                | Event::Detached
                | Event::PeerQuiet
                | Event::PeerSilent
                | Event::PeerClosed(_)
                | Event::Expired
                | Event::Reset(_) => {}
            }
        }
    }

    /// Once and in order, unless somebody changed frames.
    fn came(&mut self, end: usize, lane: Lane, bytes: &Bytes) {
        let at = self.ends[end].came[lane as usize];
        self.ends[end].came[lane as usize] += 1;
        self.ends[end].session.consumed(lane, bytes.len());
        if !self.changed && !lane.may_lose() {
            assert_eq!(self.ends[1 - end].sent[lane as usize].get(at), Some(bytes), "{lane:?}");
        }
    }

    fn check(&self) {
        for End { session, .. } in &self.ends {
            for lane in Lane::ALL {
                assert!(session.kept(lane) <= ((WINDOW + MAX_MESSAGE) as u64) * 9 / 8, "{lane:?}");
            }
        }
    }
}
