//! Runs a link on the I/O runtime.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use wire::Lane;

use crate::{Frame, Link, LinkError, Stats};

/// How long the last frames may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Frames that are taken from a link before they are handed on together: whoever takes them is woken once for all. Bytes,
/// too: what comes fast takes some 0.1 ms for so many.
const TOGETHER: (usize, usize) = (16, 256 * 1024);

/// How a driven link ended.
#[derive(Debug)]
pub struct LinkEnd {
    /// Why; [`LinkError::ClosedHere`] if one of the two channels was dropped on our side.
    pub error: LinkError,
    /// What it had carried.
    pub stats: Stats,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Carries frames between a link and two bounded channels until one of the three ends.
///
/// The next frame leaves `outbound` only when the link has room for it: keep that channel small, then the choice of what
/// is urgent is made late. A full `inbound` stops the link from reading, so its bound holds for the peer, too.
/// When all senders of `outbound` or the receiver of `inbound` are dropped, what `outbound` still holds is sent and the
/// link closed in good order, as far as that is possible within two seconds.
pub async fn drive(
    mut link: Box<dyn Link>,
    mut outbound: mpsc::Receiver<Frame>,
    inbound: mpsc::Sender<(Lane, Bytes)>,
) -> LinkEnd {
    let mut came = Came { together: TOGETHER.0.min(inbound.max_capacity()), ..Came::default() };
    let error = loop {
        match inbound.try_reserve_many(came.frames.len()) {
            Ok(room) => room.zip(came.frames.drain(..)).for_each(|(room, frame)| room.send(frame)),
            Err(TrySendError::Full(())) => {}
            Err(TrySendError::Closed(())) => break LinkError::ClosedHere,
        }
        let waiting = came.frames.len();
        tokio::select! {
            error = poll_fn(|cx| turn(&mut *link, &mut outbound, &mut came, cx)) => match error {
                Some(error) => break error,
                None => continue,
            },
            room = inbound.reserve_many(waiting), if waiting > 0 => if room.is_err() {
                break LinkError::ClosedHere;
            },
            () = inbound.closed(), if waiting == 0 => break LinkError::ClosedHere,
        }
    };
    if matches!(error, LinkError::ClosedHere) {
        match tokio::time::timeout(FAREWELL, finish(&mut *link, &mut outbound)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the link broke while it was closed"),
            Err(_) => tracing::debug!("the peer takes too long to take the last frames"),
        }
    }
    LinkEnd { error, stats: link.stats() }
}

/// Sends what was queued before the end, then closes.
async fn finish(link: &mut dyn Link, outbound: &mut mpsc::Receiver<Frame>) -> Result<(), LinkError> {
    outbound.close();
    while let Some(frame) = outbound.recv().await {
        poll_fn(|cx| link.poll_ready(cx)).await?;
        link.send(frame)?;
    }
    link.close("the session ended");
    poll_fn(|cx| link.poll_close(cx)).await
}

/// What has come over a link, and how much of it is over.
#[derive(Default)]
struct Came {
    /// To be handed on.
    frames: Vec<(Lane, Bytes)>,
    /// So many at most.
    together: usize,
    /// Why nothing can be sent.
    unwritable: Option<LinkError>,
    /// Why nothing more comes.
    end: Option<LinkError>,
}

/// Moves what can be moved. Ready with an error when the link has ended, with none when frames are to be handed on.
/// A link that cannot be written any more is read to its end: the peer may have said more, and why it left.
fn turn(
    link: &mut dyn Link,
    outbound: &mut mpsc::Receiver<Frame>,
    came: &mut Came,
    cx: &mut Context<'_>,
) -> Poll<Option<LinkError>> {
    if came.unwritable.is_none() {
        match send(link, outbound, cx) {
            Poll::Ready(error @ (LinkError::Lost(_) | LinkError::Closed(_))) => came.unwritable = Some(error),
            Poll::Ready(error) => return Poll::Ready(Some(error)),
            Poll::Pending => {}
        }
    }
    if !came.frames.is_empty() {
        return Poll::Pending;
    }
    let mut bytes = 0;
    while came.end.is_none() && came.frames.len() < came.together && bytes < TOGETHER.1 {
        match link.poll_receive(cx) {
            Poll::Ready(Ok((lane, frame))) => {
                bytes += frame.len();
                came.frames.push((lane, frame));
            }
            Poll::Ready(Err(error)) => came.end = Some(error),
            Poll::Pending if came.frames.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    if !came.frames.is_empty() {
        return Poll::Ready(None);
    }
    Poll::Ready(match came.end.take() {
        Some(error @ LinkError::Closed(_)) => Some(error),
        error => came.unwritable.take().or(error),
    })
}

/// Sends while there is room and something to send, flushes when there is nothing more. Ready only when it ended.
fn send(link: &mut dyn Link, outbound: &mut mpsc::Receiver<Frame>, cx: &mut Context<'_>) -> Poll<LinkError> {
    loop {
        if let Err(error) = ready!(link.poll_ready(cx)) {
            return Poll::Ready(error);
        }
        match outbound.poll_recv(cx) {
            Poll::Ready(Some(frame)) => {
                if let Err(error) = link.send(frame) {
                    return Poll::Ready(error);
                }
            }
            Poll::Ready(None) => return Poll::Ready(LinkError::ClosedHere),
            Poll::Pending => match ready!(link.poll_flush(cx)) {
                Ok(()) => return Poll::Pending,
                Err(error) => return Poll::Ready(error),
            },
        }
    }
}
