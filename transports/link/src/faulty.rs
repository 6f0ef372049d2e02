//! A link that misbehaves as told, the same way for the same seed.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use wire::Lane;

use crate::{Frame, Link, LinkError, PeerKey, Profile, Stats};

/// Frames that wait in a [`Faulty`] link at most, for their time or their turn.
const HELD: usize = 32;

/// What goes wrong, at the end that is wrapped.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Chooses among all ways to go wrong.
    pub seed: u64,
    /// End or stall after this many frames, both directions counted together.
    pub cut: Option<(u64, Cut)>,
    /// Lose this share of the frames received on AUDIO and ISO, percent.
    pub loss_percent: u8,
    /// Hand out this share of the frames received on AUDIO and ISO twice, percent.
    pub duplicate_percent: u8,
    /// Hold each received frame for a time out of this range; order within a lane stays.
    pub delay: Option<Range<Duration>>,
    /// Let frames of different lanes overtake each other.
    pub shuffle_lanes: bool,
}

/// How a cut looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends notice at once: a reset.
    Break,
    /// Nobody is told and nothing moves any more: a pulled cable.
    Stall,
}

/// A link that misbehaves as told.
pub struct Faulty<L> {
    /// None after a [`Cut::Break`].
    inner: Option<L>,
    profile: Profile,
    peer: PeerKey,
    binding: [u8; 32],
    faults: Faults,
    random: Random,
    frames: u64,
    held: [VecDeque<(Instant, Bytes)>; Lane::ALL.len()],
    /// The end of the inner link, reported when nothing is held any more.
    end: Option<LinkError>,
    timer: Option<Pin<Box<Sleep>>>,
    stats: Stats,
}

impl<L: Link> Faulty<L> {
    /// Wraps a link.
    #[must_use]
    pub fn new(inner: L, faults: Faults) -> Self {
        let mut profile = inner.profile().clone();
        if faults.loss_percent > 0 {
            for lane in Lane::ALL {
                profile.lossy[lane as usize] |= lane.may_lose();
            }
        }
        Self {
            profile,
            peer: inner.peer(),
            binding: inner.binding(),
            random: Random(faults.seed),
            stats: inner.stats(),
            inner: Some(inner),
            faults,
            frames: 0,
            held: Default::default(),
            end: None,
            timer: None,
        }
    }

    /// The link behind, unless it was cut.
    fn alive(&mut self) -> Poll<Result<&mut L, LinkError>> {
        match self.faults.cut {
            Some((after, Cut::Stall)) if self.frames >= after => return Poll::Pending,
            Some((after, Cut::Break)) if self.frames >= after => self.inner = None,
            _ => {}
        }
        Poll::Ready(self.inner.as_mut().ok_or_else(reset))
    }

    /// Takes frames from the link behind, as long as it has any and there is room.
    fn fill(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && self.held.iter().map(VecDeque::len).sum::<usize>() < HELD {
            let Poll::Ready(Ok(inner)) = self.alive() else { return };
            match inner.poll_receive(cx) {
                Poll::Ready(Ok((lane, frame))) => self.hold(lane, frame),
                Poll::Ready(Err(error)) => self.end = Some(error),
                Poll::Pending => return,
            }
        }
    }

    fn hold(&mut self, lane: Lane, frame: Bytes) {
        self.frames += 1;
        if lane.may_lose() && self.random.percent(self.faults.loss_percent) {
            return;
        }
        let delay = self.faults.delay.clone().map_or(Duration::ZERO, |range| {
            let width = range.end.saturating_sub(range.start).as_micros() as u64;
            range.start + Duration::from_micros(self.random.below(width.max(1)))
        });
        let due = Instant::now() + delay;
        if lane.may_lose() && self.random.percent(self.faults.duplicate_percent) {
            self.held[lane as usize].push_back((due, frame.clone()));
        }
        self.held[lane as usize].push_back((due, frame));
    }

    /// A held frame whose time has come.
    fn release(&mut self) -> Option<(Lane, Bytes)> {
        let now = Instant::now();
        let due = |lane: &Lane| self.held[*lane as usize].front().is_some_and(|(due, _)| *due <= now);
        let ready: Vec<Lane> = Lane::ALL.into_iter().filter(due).collect();
        let first =
            ready.iter().copied().min_by_key(|lane| self.held[*lane as usize].front().map(|(due, _)| *due));
        let lane = if self.faults.shuffle_lanes && !ready.is_empty() {
            ready[self.random.below(ready.len() as u64) as usize]
        } else {
            first?
        };
        self.held[lane as usize].pop_front().map(|(_, frame)| (lane, frame))
    }

    fn next_due(&self) -> Option<Instant> {
        self.held.iter().filter_map(|lane| lane.front()).map(|(due, _)| *due).min()
    }
}

fn reset() -> LinkError {
    LinkError::Lost(io::ErrorKind::ConnectionReset.into())
}

impl<L: Link> Link for Faulty<L> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn peer(&self) -> PeerKey {
        self.peer
    }

    fn binding(&self) -> [u8; 32] {
        self.binding
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        std::task::ready!(self.alive())?.poll_ready(cx)
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        let Poll::Ready(inner) = self.alive() else { return Err(LinkError::NotReady) };
        let len = frame.len();
        inner?.send(frame)?;
        self.frames += 1;
        self.stats.count_sent(len);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        std::task::ready!(self.alive())?.poll_flush(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        loop {
            self.fill(cx);
            std::task::ready!(self.alive())?;
            if let Some((lane, frame)) = self.release() {
                self.stats.count_received(frame.len());
                return Poll::Ready(Ok((lane, frame)));
            }
            let Some(due) = self.next_due() else {
                return self.end.take().map_or(Poll::Pending, |end| Poll::Ready(Err(end)));
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            timer.as_mut().reset(due);
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }

    fn close(&mut self, reason: &str) {
        if let Poll::Ready(Ok(inner)) = self.alive() {
            inner.close(reason);
        }
        self.held.iter_mut().for_each(VecDeque::clear);
        self.end = Some(LinkError::ClosedHere);
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        std::task::ready!(self.alive())?.poll_close(cx)
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

/// SplitMix64: enough to choose faults, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn percent(&mut self, share: u8) -> bool {
        self.below(100) < u64::from(share)
    }
}
