//! Small cases, all of them: a cut after every frame, and every order of the steps of a tiny network.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use session::{Config, Event, LinkId, LinkKind, NewLink, ProtocolError, Session};
use wire::{Lane, Message};

use crate::{
    frames::{joined, message, whole},
    world::{CHANNELS, HOST, KINDS, REMOTE, World, identity, tight},
};

#[test]
fn a_cut_after_every_frame_leaves_no_trace() {
    let mut cuts = 0;
    for kind in KINDS {
        for next in KINDS {
            for told in [[true, true], [true, false], [false, true]] {
                for k in 0.. {
                    let mut world = World::new(k, &tight(1_000));
                    world.connect(kind, [false, true]);
                    world.settle();
                    for lane in [Lane::Bulk, Lane::Int, Lane::Ctl] {
                        world.send(HOST, lane, 2_500);
                        world.send(REMOTE, lane, 1_500);
                    }
                    if cut_after(&mut world, k as usize, told) {
                        break;
                    }
                    cuts += 1;
                    world.connect(next, [false, true]);
                    world.settle();
                    world.check_equal(&format!("{kind:?}, cut after {k}, then {next:?}"));
                    let [host, remote] = &world.ends;
                    let moves = |end: &crate::world::End| {
                        end.session.stats().resumes + end.session.stats().hand_overs
                    };
                    assert_eq!((moves(host), moves(remote)), (1, 1));
                }
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 27 * 15);
}

/// Carries so many frames, then cuts; tells these ends. True if there were not so many.
fn cut_after(world: &mut World, frames: usize, told: [bool; 2]) -> bool {
    let until = world.arrived + frames;
    while world.arrived < until {
        let mut moved = false;
        for end in [HOST, REMOTE] {
            moved |= world.transmit(0, end);
            moved |= world.arrived < until && world.arrive(0, end);
        }
        if !moved {
            return true;
        }
    }
    world.cables[0].cut = true;
    for end in [HOST, REMOTE] {
        if told[end] {
            world.notice(0, end);
        }
    }
    false
}

/// A step of the tiny network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// This end of this link gives it a frame.
    Transmit(usize, usize),
    /// The oldest frame of this lane arrives at this end of this link.
    Arrive(usize, usize, Lane),
    /// The link breaks and both notice, or only this end: a host mostly notices last.
    Cut(usize, Option<usize>),
    /// The next link comes up.
    Connect,
}

const LANES: [Lane; 2] = [Lane::Ctl, Lane::Bulk];

/// What has become of the network after some steps: it is rebuilt from them, as sessions are no values to copy.
struct Tiny {
    ends: [Session; 2],
    links: Vec<TinyLink>,
    received: Vec<(Lane, Bytes)>,
    cuts: usize,
    grain: Grain,
}

/// How much one step carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// One frame.
    Frame,
    /// All that there is.
    Burst,
}

#[derive(Default)]
struct TinyLink {
    up: [bool; 2],
    to: [[VecDeque<Bytes>; 2]; 2],
    broken: bool,
}

const NOW: Duration = Duration::from_secs(1);

fn sent() -> Vec<(Lane, Message)> {
    [Lane::Ctl, Lane::Bulk, Lane::Bulk]
        .into_iter()
        .enumerate()
        .map(|(n, lane)| (lane, message(lane, n as u32, 20)))
        .collect()
}

impl Tiny {
    fn new(grain: Grain) -> Self {
        let config = Config { int: tight(256).int, ..tight(256) };
        let ends = [Session::host(identity(1), config.clone()), Session::remote(config)];
        let mut tiny = Self { ends, links: Vec::new(), received: Vec::new(), cuts: 0, grain };
        tiny.connect();
        // The session begins; then the host has three messages.
        for _ in 0..8 {
            for end in [REMOTE, HOST] {
                tiny.transmit(0, end);
                for lane in LANES {
                    tiny.arrive(0, end, lane);
                }
            }
        }
        assert!(tiny.ends.iter().all(|end| end.link().is_some()));
        for (_, message) in sent() {
            tiny.ends[HOST].send(message).unwrap();
        }
        tiny
    }

    fn connect(&mut self) {
        let id = LinkId(self.links.len() as u64);
        // The second of three is a link that lets small lanes overtake.
        let kind = if id.0 == 1 { CHANNELS } else { LinkKind::STREAM };
        let mut up = [false; 2];
        for end in [HOST, REMOTE] {
            let new = NewLink { id, kind, binding: [id.0 as u8; 32], opens: end == REMOTE };
            up[end] = self.ends[end].link_up(NOW, new).is_ok();
        }
        self.links.push(TinyLink { up, ..TinyLink::default() });
    }

    fn transmit(&mut self, link: usize, end: usize) -> bool {
        if !self.links[link].up[end] {
            return false;
        }
        let frame = self.ends[end].poll_transmit_on(NOW, LinkId(link as u64));
        self.drain(end);
        let Some(frame) = frame else { return false };
        let lane = frame.lane;
        let Some(queue) = LANES.iter().position(|known| *known == lane) else { return true };
        if self.links[link].up[1 - end] && !self.links[link].broken {
            self.links[link].to[1 - end][queue].push_back(joined(frame));
        }
        true
    }

    fn arrive(&mut self, link: usize, end: usize, lane: Lane) -> bool {
        let queue = usize::from(lane != Lane::Ctl);
        if !self.links[link].up[end] {
            return false;
        }
        let Some(frame) = self.links[link].to[end][queue].pop_front() else { return false };
        let outcome = self.ends[end].receive_on(NOW, LinkId(link as u64), lane, frame);
        match outcome {
            Ok(()) => {}
            // The slower of two attaches: this end drops the link, the other one notices at once.
            Err(ProtocolError::Epoch { .. }) => self.break_link(link, None),
            Err(error) => panic!("{error}"),
        }
        self.drain(end);
        true
    }

    fn drain(&mut self, end: usize) {
        while let Some(event) = self.ends[end].poll_event() {
            match event {
                Event::Message(lane, bytes) => {
                    self.ends[end].consumed(lane, bytes.len());
                    self.received.push((lane, bytes));
                }
                Event::Retired(link) => self.links[link.0 as usize].up[end] = false,
                Event::Attached { .. } | Event::Detached => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn cut(&mut self, link: usize, only: Option<usize>) -> bool {
        if self.cuts == 2 || self.links[link].broken {
            return false;
        }
        self.cuts += 1;
        self.break_link(link, only);
        true
    }

    fn break_link(&mut self, link: usize, only: Option<usize>) {
        self.links[link].broken = true;
        self.links[link].to = Default::default();
        for end in [HOST, REMOTE] {
            if only.is_none_or(|only| only == end) && std::mem::take(&mut self.links[link].up[end]) {
                self.ends[end].link_down(NOW, LinkId(link as u64));
                self.drain(end);
            }
        }
    }

    /// Carries out a step. False if it is none.
    fn step(&mut self, step: Step) -> bool {
        let done = match step {
            Step::Transmit(link, end) => {
                link < self.links.len() && self.repeat(|tiny| tiny.transmit(link, end))
            }
            Step::Arrive(link, end, lane) => {
                link < self.links.len() && self.repeat(|tiny| tiny.arrive(link, end, lane))
            }
            Step::Cut(link, only) => link < self.links.len() && self.cut(link, only),
            Step::Connect => {
                // Another link is worth a try when one is broken, and once while none is.
                let allowed = self.links.len() < 3 && self.links.len() <= self.cuts + 1;
                if allowed {
                    self.connect();
                }
                allowed
            }
        };
        if done {
            self.check_prefix();
        }
        done
    }

    fn repeat(&mut self, mut carry: impl FnMut(&mut Self) -> bool) -> bool {
        let any = carry(self);
        while any && self.grain == Grain::Burst && carry(self) {}
        any
    }

    fn check_prefix(&self) {
        for lane in LANES {
            let sent: Vec<_> =
                sent().into_iter().filter(|(l, _)| *l == lane).map(|(_, m)| whole(&m)).collect();
            let came: Vec<_> = self.received.iter().filter(|(l, _)| *l == lane).map(|(_, m)| m).collect();
            assert!(came.len() <= sent.len() && came.iter().zip(&sent).all(|(a, b)| *a == b), "{lane:?}");
        }
    }

    /// What makes two networks the same, as far as anything can be seen of it.
    fn fingerprint(&self) -> String {
        let links: Vec<_> = self.links.iter().map(|link| (link.up, &link.to, link.broken)).collect();
        // What was counted so far changes nothing.
        let without_stats = |end: &Session| {
            let all = format!("{end:?}");
            let (before, rest) = all.split_once("stats: Stats {").expect("a session has them");
            let (_, after) = rest.split_once(" liveness: ").expect("the field after them");
            format!("{before}{after}")
        };
        let [host, remote] = self.ends.each_ref().map(without_stats);
        format!("{host} {remote} {links:?} {:?} {}", self.received.len(), self.cuts)
    }

    /// With one more link and no more cuts, all comes.
    fn ends_well(&mut self) -> bool {
        for link in 0..self.links.len() {
            self.break_link(link, None);
        }
        self.connect();
        let link = self.links.len() - 1;
        for _ in 0..40 {
            if self.received.len() == sent().len() {
                break;
            }
            for end in [REMOTE, HOST] {
                self.transmit(link, end);
                for lane in LANES {
                    self.arrive(link, end, lane);
                }
            }
        }
        self.check_prefix();
        self.received.len() == sent().len()
    }
}

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Connect];
    for link in 0..3 {
        for end in [HOST, REMOTE] {
            steps.push(Step::Transmit(link, end));
            steps.extend(LANES.map(|lane| Step::Arrive(link, end, lane)));
        }
        steps.extend([None, Some(REMOTE)].map(|only| Step::Cut(link, only)));
    }
    steps
}

/// Three messages on two lanes, three links and two cuts: every state that any order of the steps leads to within this
/// depth has delivered a prefix of what was sent, and from each of them one more link brings the rest. Returns how many.
fn search(grain: Grain, depth: usize) -> usize {
    let steps = steps();
    let mut seen = HashSet::new();
    let mut frontier = vec![Vec::new()];
    let mut states = 0;
    for depth in 1..=depth {
        let mut deeper = Vec::new();
        for path in frontier {
            for step in &steps {
                let mut tiny = Tiny::new(grain);
                let path: Vec<Step> = [&path[..], &[*step]].concat();
                if !path.iter().fold(true, |_, step| tiny.step(*step)) || !seen.insert(tiny.fingerprint()) {
                    continue;
                }
                states += 1;
                assert!(tiny.ends_well(), "{path:?}");
                deeper.push(path);
            }
        }
        frontier = deeper;
        println!("{grain:?}, depth {depth}: {states} states, {} new", frontier.len());
    }
    states
}

#[test]
fn every_order_of_frames_up_to_a_depth_ends_well() {
    assert!(search(Grain::Frame, 9) > 2_000);
}

#[test]
fn every_order_of_bursts_up_to_a_depth_ends_well() {
    assert!(search(Grain::Burst, 12) > 9_000);
}
