//! A pair of links in memory: bounded, ordered, and without loss, like one TCP connection.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use wire::Lane;

use crate::{Frame, Link, LinkError, PeerKey, Profile, Stats, cut_reason};

/// Makes each pair's binding its own.
static PAIRS: AtomicU64 = AtomicU64::new(1);

/// How a pair in memory is made.
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// What both ends say of themselves. A profile that loses or reorders needs a [`crate::Faulty`] that does it.
    pub profile: Profile,
    /// Frames that one direction holds at most.
    pub capacity: usize,
    /// The keys that the first and the second end claim.
    pub keys: [PeerKey; 2],
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let lossless = [false; Lane::ALL.len()];
        Self {
            profile: Profile {
                name: "memory",
                max_frame: 65_536,
                good_frame: 16_384 + 256,
                ordered: [true; Lane::ALL.len()],
                lossy: lossless,
            },
            capacity: 16,
            keys: [PeerKey([1; 32]), PeerKey([2; 32])],
        }
    }
}

/// Two ends of one link in memory, each with room for 16 frames.
#[must_use]
pub fn pair() -> (Memory, Memory) {
    pair_with(MemoryConfig::default())
}

/// Two ends of one link in memory.
#[must_use]
pub fn pair_with(config: MemoryConfig) -> (Memory, Memory) {
    let mut binding = [0; 32];
    binding[..8].copy_from_slice(&PAIRS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    let (there, back) = (Arc::new(Mutex::new(Pipe::default())), Arc::new(Mutex::new(Pipe::default())));
    let end = |key, out: &Arc<Mutex<Pipe>>, input: &Arc<Mutex<Pipe>>| Memory {
        profile: config.profile.clone(),
        capacity: config.capacity.max(1),
        peer: key,
        binding,
        out: Arc::clone(out),
        input: Arc::clone(input),
        closed: false,
        stats: Stats::default(),
    };
    (end(config.keys[1], &there, &back), end(config.keys[0], &back, &there))
}

/// One direction.
#[derive(Default)]
struct Pipe {
    frames: VecDeque<(Lane, Bytes)>,
    /// Set when the writer has closed (a reason) or vanished (none).
    end: Option<Option<String>>,
    /// The reader is gone.
    unread: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

/// One end of a link in memory.
pub struct Memory {
    profile: Profile,
    capacity: usize,
    peer: PeerKey,
    binding: [u8; 32],
    out: Arc<Mutex<Pipe>>,
    input: Arc<Mutex<Pipe>>,
    closed: bool,
    stats: Stats,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn room(&self, pipe: &Pipe) -> Result<bool, LinkError> {
        if self.closed {
            Err(LinkError::ClosedHere)
        } else if pipe.unread {
            Err(LinkError::Lost(io::ErrorKind::BrokenPipe.into()))
        } else {
            Ok(pipe.frames.len() < self.capacity)
        }
    }
}

impl Link for Memory {
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
        let mut pipe = lock(&self.out);
        match self.room(&pipe) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                pipe.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        let (len, max) = (frame.len(), self.profile.max_frame);
        if len > max {
            return Err(LinkError::TooLong { len, max });
        }
        let mut pipe = lock(&self.out);
        if !self.room(&pipe)? {
            return Err(LinkError::NotReady);
        }
        let mut bytes = BytesMut::with_capacity(len);
        bytes.extend_from_slice(&frame.head);
        bytes.extend_from_slice(&frame.body);
        pipe.frames.push_back((frame.lane, bytes.freeze()));
        Pipe::wake(&mut pipe.reader);
        drop(pipe);
        self.stats.count_sent(len);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(self.room(&lock(&self.out)).map(|_| ()))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        if self.closed {
            return Poll::Ready(Err(LinkError::ClosedHere));
        }
        let mut pipe = lock(&self.input);
        if let Some((lane, bytes)) = pipe.frames.pop_front() {
            Pipe::wake(&mut pipe.writer);
            drop(pipe);
            self.stats.count_received(bytes.len());
            return Poll::Ready(Ok((lane, bytes)));
        }
        match &pipe.end {
            Some(Some(reason)) => Poll::Ready(Err(LinkError::Closed(reason.clone()))),
            Some(None) => Poll::Ready(Err(LinkError::Lost(io::ErrorKind::UnexpectedEof.into()))),
            None => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn close(&mut self, reason: &str) {
        self.closed = true;
        let mut pipe = lock(&self.out);
        pipe.end.get_or_insert_with(|| Some(cut_reason(reason).to_owned()));
        Pipe::wake(&mut pipe.reader);
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut pipe = lock(&self.out);
        pipe.end.get_or_insert(None);
        Pipe::wake(&mut pipe.reader);
        drop(pipe);
        let mut pipe = lock(&self.input);
        pipe.unread = true;
        pipe.frames.clear();
        Pipe::wake(&mut pipe.writer);
    }
}
