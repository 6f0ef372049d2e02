//! A link that remembers what passed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use wire::Lane;

use crate::{Frame, Link, LinkError, PeerKey, Profile, Stats};

/// The way a recorded frame went, seen from the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

/// A recorded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its way.
    pub way: Way,
    /// Its lane.
    pub lane: Lane,
    /// All of it.
    pub frame: Bytes,
}

/// What a [`Recorder`] has seen: the latest frames, as many as it was told to keep.
#[derive(Debug, Clone)]
pub struct Recording {
    entries: Arc<Mutex<VecDeque<Entry>>>,
    keep: usize,
}

impl Recording {
    /// The frames so far, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.keep {
            entries.pop_front();
        }
        if self.keep > 0 {
            entries.push_back(entry);
        }
    }
}

/// A link that remembers what passed.
pub struct Recorder<L> {
    inner: L,
    recording: Recording,
}

impl<L: Link> Recorder<L> {
    /// Wraps a link; the recording keeps the latest `keep` frames and outlives it.
    #[must_use]
    pub fn new(inner: L, keep: usize) -> (Self, Recording) {
        let recording = Recording { entries: Arc::default(), keep };
        (Self { inner, recording: recording.clone() }, recording)
    }
}

impl<L: Link> Link for Recorder<L> {
    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn peer(&self) -> PeerKey {
        self.inner.peer()
    }

    fn binding(&self) -> [u8; 32] {
        self.inner.binding()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_ready(cx)
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        let mut bytes = BytesMut::with_capacity(frame.len());
        bytes.extend_from_slice(&frame.head);
        bytes.extend_from_slice(&frame.body);
        let lane = frame.lane;
        self.inner.send(frame)?;
        self.recording.push(Entry { way: Way::Sent, lane, frame: bytes.freeze() });
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        let (lane, frame) = std::task::ready!(self.inner.poll_receive(cx))?;
        self.recording.push(Entry { way: Way::Received, lane, frame: frame.clone() });
        Poll::Ready(Ok((lane, frame)))
    }

    fn close(&mut self, reason: &str) {
        self.inner.close(reason);
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_close(cx)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}
