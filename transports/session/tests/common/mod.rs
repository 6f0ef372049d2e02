//! Two sessions and the network between them, all of it a value: time moves when a test says so.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use session::{Config, Event, Role, Session};
use wire::{Lane, Message};

mod frames;
pub(crate) use frames::{Random, joined, message, whole};

/// One direction of the network: a queue per lane.
#[derive(Default)]
pub(crate) struct Wire {
    lanes: [VecDeque<Bytes>; Lane::ALL.len()],
}

impl Wire {
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn put(&mut self, frame: Message) {
        self.lanes[frame.lane as usize].push_back(joined(frame));
    }

    /// The next frame of some lane: order is kept within lanes only. On lanes that may lose, one of eight frames is
    /// lost, and one of eight comes twice or late.
    pub(crate) fn take(&mut self, random: &mut Random) -> Option<(Lane, Bytes)> {
        let lanes: Vec<_> = Lane::ALL.into_iter().filter(|l| !self.lanes[*l as usize].is_empty()).collect();
        let lane = *lanes.get(random.below(lanes.len() as u64) as usize)?;
        let queue = &mut self.lanes[lane as usize];
        let frame = queue.pop_front()?;
        if lane.may_lose() {
            match random.below(8) {
                0 => return self.take(random),
                1 => queue.push_back(frame.clone()),
                2 => queue.push_front(frame.clone()),
                _ => {}
            }
        }
        Some((lane, frame))
    }
}

/// One end and what its application has seen.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) received: [Vec<Bytes>; Lane::ALL.len()],
    /// Received, but not accepted yet.
    pub(crate) held: VecDeque<(Lane, usize)>,
    pub(crate) events: Vec<Event>,
}

impl End {
    pub(crate) fn new(role: Role, config: Config) -> Self {
        let session = Session::new(role, config);
        Self { session, received: Default::default(), held: VecDeque::new(), events: Vec::new() }
    }

    /// Takes all events; messages are held until they are accepted.
    pub(crate) fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(lane, bytes) => {
                    self.held.push_back((lane, bytes.len()));
                    self.received[lane as usize].push(bytes);
                }
                other => self.events.push(other),
            }
        }
    }

    /// Accepts the oldest message that was received.
    pub(crate) fn accept_one(&mut self) -> bool {
        self.held.pop_front().map(|(lane, len)| self.session.consumed(lane, len)).is_some()
    }

    pub(crate) fn of(&self, lane: Lane) -> &[Bytes] {
        &self.received[lane as usize]
    }
}

/// A host and a remote.
pub(crate) struct Pair {
    pub(crate) now: Duration,
    pub(crate) host: End,
    pub(crate) remote: End,
    pub(crate) down: Wire,
    pub(crate) up: Wire,
    pub(crate) random: Random,
}

impl Pair {
    pub(crate) fn new(seed: u64, config: &Config) -> Self {
        Self {
            now: Duration::from_secs(seed % 1000),
            host: End::new(Role::Host, config.clone()),
            remote: End::new(Role::Remote, config.clone()),
            down: Wire::default(),
            up: Wire::default(),
            random: Random(seed),
        }
    }

    /// The host gives the network one frame.
    pub(crate) fn host_transmits(&mut self) -> bool {
        self.host.session.poll_transmit(self.now).map(|frame| self.down.put(frame)).is_some()
    }

    /// The remote gives the network one frame.
    pub(crate) fn remote_transmits(&mut self) -> bool {
        self.remote.session.poll_transmit(self.now).map(|frame| self.up.put(frame)).is_some()
    }

    /// One frame arrives at the host.
    pub(crate) fn host_receives(&mut self) -> bool {
        let Some((lane, frame)) = self.up.take(&mut self.random) else { return false };
        self.host.session.receive(self.now, lane, frame).expect("an honest remote");
        self.host.drain();
        true
    }

    /// One frame arrives at the remote.
    pub(crate) fn remote_receives(&mut self) -> bool {
        let Some((lane, frame)) = self.down.take(&mut self.random) else { return false };
        self.remote.session.receive(self.now, lane, frame).expect("an honest host");
        self.remote.drain();
        true
    }

    /// Time passes up to the next thing that either end wants to do, at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) {
        let next = [&self.host, &self.remote].into_iter().filter_map(|end| end.session.poll_timeout()).min();
        self.now = next.unwrap_or(self.now + limit).clamp(self.now, self.now + limit);
        for end in [&mut self.host, &mut self.remote] {
            end.session.on_timeout(self.now);
            end.drain();
        }
    }
}
