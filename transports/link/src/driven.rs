//! A link that runs on a runtime, as who owns the session sees it: two bounded channels and an end.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};
use wire::Lane;

use crate::{Frame, Link, LinkEnd, PeerKey, Profile, drive};

/// Frames chosen, but not yet taken by the link: few, so that the choice is made late.
const OUTBOUND_FRAMES: usize = 4;
/// Room for so many is worth waking up for: the others keep the link busy meanwhile.
const OUTBOUND_ROOM: usize = 2;
/// Frames received, but not yet taken by the session.
const INBOUND_FRAMES: usize = 48;

/// What became of [`Outbound::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// There was nothing more to send.
    Drained,
    /// The link has no room: go on after [`Outbound::room`].
    Full,
    /// The link has ended, or ends.
    Ended,
}

/// The way out to a driven link. When all of them are dropped the link sends what it was handed, and closes.
#[derive(Debug, Clone)]
pub struct Outbound(mpsc::Sender<Frame>);

impl Outbound {
    /// Hands frames over for as long as there is room and `next` has one. It is asked only when there is room.
    pub fn fill(&self, mut next: impl FnMut() -> Option<Frame>) -> Filled {
        loop {
            match self.0.try_reserve() {
                Ok(room) => match next() {
                    Some(frame) => room.send(frame),
                    None => return Filled::Drained,
                },
                Err(TrySendError::Full(())) => return Filled::Full,
                Err(TrySendError::Closed(())) => return Filled::Ended,
            }
        }
    }

    /// Waits until there is room for some frames, or the link has ended.
    pub async fn room(self) {
        // An end shows when it is filled again.
        drop(self.0.reserve_many(OUTBOUND_ROOM).await);
    }
}

/// What came over a driven link. When it is dropped the link closes.
#[derive(Debug)]
pub struct Inbound(mpsc::Receiver<(Lane, Bytes)>);

impl Inbound {
    /// The next frames, at most `limit`; none after the end.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Option<Vec<(Lane, Bytes)>>> {
        let mut frames = Vec::with_capacity(limit);
        self.0.poll_recv_many(cx, &mut frames, limit).map(|count| (count > 0).then_some(frames))
    }
}

/// A link that runs by [`drive()`].
#[derive(Debug)]
pub struct Driven {
    /// What it can do.
    pub profile: Profile,
    /// The key that its peer proved to own.
    pub peer: PeerKey,
    /// What both of its ends, and no other link, have.
    pub binding: [u8; 32],
    /// The way out.
    pub outbound: Outbound,
    /// The way in.
    pub inbound: Inbound,
    end: JoinHandle<LinkEnd>,
}

impl Driven {
    /// Runs a link there until it ends or both ways are dropped.
    #[must_use]
    pub fn start(link: Box<dyn Link>, on: &Handle) -> Self {
        let (profile, peer, binding) = (link.profile().clone(), link.peer(), link.binding());
        let (outbound, to_link) = mpsc::channel(OUTBOUND_FRAMES);
        let (from_link, inbound) = mpsc::channel(INBOUND_FRAMES);
        let end = on.spawn(drive(link, to_link, from_link));
        let (outbound, inbound) = (Outbound(outbound), Inbound(inbound));
        Self { profile, peer, binding, outbound, inbound, end }
    }

    /// Its two ways, and its end with the reason, for people.
    pub fn split(self) -> (Outbound, Inbound, impl Future<Output = String> + Send + 'static) {
        let Self { outbound, inbound, end, .. } = self;
        let reason = async move {
            match end.await {
                Ok(end) => end.to_string(),
                Err(error) => format!("the link's driver failed: {error}"),
            }
        };
        (outbound, inbound, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{LinkError, pair};

    fn frame(n: u8) -> Frame {
        Frame { lane: Lane::Int, head: Bytes::new(), body: vec![n].into() }
    }

    #[tokio::test]
    async fn frames_are_chosen_only_when_there_is_room_and_the_rest_goes_when_there_is_again() {
        let (a, mut b) = pair();
        let (outbound, _inbound, _end) = Driven::start(Box::new(a), &Handle::current()).split();
        let mut waiting = (0..100).map(frame);
        let mut asked = 0;
        let filled = outbound.fill(|| {
            asked += 1;
            waiting.next()
        });
        assert_eq!((filled, asked), (Filled::Full, OUTBOUND_FRAMES));
        let rest = async {
            while outbound.fill(|| waiting.next()) == Filled::Full {
                outbound.clone().room().await;
            }
        };
        let heard = async {
            for n in 0..100 {
                assert_eq!(poll_fn(|cx| b.poll_receive(cx)).await.unwrap().1, vec![n]);
            }
        };
        tokio::join!(rest, heard);
    }

    #[tokio::test]
    async fn a_driven_link_whose_ways_are_dropped_closes_in_good_order() {
        let (a, mut b) = pair();
        let (outbound, inbound, end) = Driven::start(Box::new(a), &Handle::current()).split();
        let mut last = Some(frame(1));
        assert_eq!(outbound.fill(|| last.take()), Filled::Drained);
        drop((outbound, inbound));
        assert_eq!(poll_fn(|cx| b.poll_receive(cx)).await.unwrap().1, vec![1]);
        assert!(matches!(poll_fn(|cx| b.poll_receive(cx)).await, Err(LinkError::Closed(_))));
        drop(b);
        assert_eq!(end.await, "the link is closed");
    }
}
