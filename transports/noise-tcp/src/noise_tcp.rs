//! The link: records on a socket.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use link::{Frame, Link, LinkError, PeerKey, Profile, Stats, cut_reason};
use snow::TransportState;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use wire::Lane;

use crate::{
    low_water::LowWater,
    records::{Item, MAX_FRAME, Opener, RekeyAfter, Sealer},
    socket,
};

/// What every link of this kind can do.
pub const PROFILE: Profile = Profile {
    name: "noise-tcp",
    max_frame: MAX_FRAME,
    good_frame: 16 * 1024 + 256,
    ordered: [true; Lane::ALL.len()],
    lossy: [false; Lane::ALL.len()],
};

/// A direction takes its next key after so much.
const REKEY: RekeyAfter = RekeyAfter { records: 1 << 20, bytes: 1 << 30 };
/// Sealed bytes are written when they are so many, at the latest.
const TOGETHER: usize = 128 * 1024;
/// How long a closed link waits for the peer to hang up: closing a socket with unread bytes would take back what was sent.
const LINGER: Duration = Duration::from_secs(1);

/// A link over TCP with Noise. Made by [`crate::connect`] and [`crate::accept`].
pub struct NoiseTcp {
    stream: TcpStream,
    noise: TransportState,
    peer: PeerKey,
    binding: [u8; 32],
    sealer: Sealer,
    low_water: LowWater,
    start: Instant,
    opener: Opener,
    stats: Stats,
    state: State,
    round_trip: Option<Duration>,
}

enum State {
    Open,
    /// Closed by us; the rest of the way is [`Link::poll_close`]'s.
    Closing(Closing),
    /// Closed by the peer, in good order.
    Closed(String),
    Lost(io::ErrorKind),
    Misbehaved(String),
}

enum Closing {
    Notice(String),
    Flush,
    Shutdown,
    Linger(Pin<Box<Sleep>>),
    Done,
}

impl State {
    fn check(&self) -> Result<(), LinkError> {
        match self {
            Self::Open => Ok(()),
            Self::Closing(_) => Err(LinkError::ClosedHere),
            Self::Closed(reason) => Err(LinkError::Closed(reason.clone())),
            Self::Lost(kind) => Err(LinkError::Lost((*kind).into())),
            Self::Misbehaved(what) => Err(LinkError::Misbehaved(what.clone())),
        }
    }
}

impl NoiseTcp {
    pub(crate) fn new(stream: TcpStream, noise: TransportState, peer: PeerKey, binding: [u8; 32]) -> Self {
        Self {
            stream,
            noise,
            peer,
            binding,
            sealer: Sealer::new(REKEY),
            low_water: LowWater::new(),
            start: Instant::now(),
            opener: Opener::new(),
            stats: Stats::default(),
            state: State::Open,
            round_trip: None,
        }
    }

    /// How long the peer's answer took in the handshake; none at the end that answered.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(crate) fn answered_after(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Lets our direction take its next key after so many records or bytes, whichever comes first; 2^20 and 2^30 if
    /// nothing is said. The peer follows by itself.
    pub fn rekey_after(&mut self, records: u64, bytes: u64) {
        self.sealer.rekey_after(RekeyAfter { records, bytes });
    }

    /// Queues a record without frames: it proves that we own our key.
    pub(crate) fn confirm(&mut self) -> Result<(), LinkError> {
        self.sealer.seal(&mut self.noise)
    }

    /// Waits for the first record of the peer: it proves that the peer owns its key.
    pub(crate) fn poll_confirmed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.opener.open(&mut self.noise)? {
            ready!(self.poll_fill(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, error: LinkError) -> LinkError {
        let state = match &error {
            LinkError::Lost(source) => State::Lost(source.kind()),
            LinkError::Misbehaved(what) => State::Misbehaved(what.clone()),
            _ => return error,
        };
        if matches!(self.state, State::Open) {
            self.state = state;
        }
        error
    }

    /// Writes what is sealed.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.sealer.unwritten().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, self.sealer.unwritten()))? {
                0 => return Poll::Ready(Err(LinkError::Lost(io::ErrorKind::WriteZero.into()))),
                len => {
                    self.sealer.written(len);
                    if self.low_water.took(self.start.elapsed(), len) {
                        socket::low_water(&self.stream, self.low_water.mark());
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            if !self.sealer.is_empty() && self.sealer.room() {
                self.sealer.seal(&mut self.noise)?;
            }
            ready!(self.poll_write_out(cx))?;
            if self.sealer.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether a frame of any length can be taken: on a slow line when the last record is written, on a fast one some are
    /// written together.
    fn takes(&self) -> bool {
        let most = self.low_water.mark().min(TOGETHER);
        let sealer = &self.sealer;
        !sealer.full() && !sealer.torn() && sealer.room() && sealer.unwritten().len() < most
    }

    /// Writes until a frame of any length can be taken.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.takes() {
            if self.sealer.full() && self.sealer.room() && !self.sealer.torn() {
                self.sealer.seal(&mut self.noise)?;
            } else {
                ready!(self.poll_write_out(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the socket has.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut room = ReadBuf::new(self.opener.room());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        match room.filled().len() {
            0 => Poll::Ready(Err(LinkError::Lost(io::ErrorKind::UnexpectedEof.into()))),
            len => {
                self.opener.filled(len);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, LinkError>> {
        loop {
            if let Some(item) = self.opener.next(&mut self.noise)? {
                return Poll::Ready(Ok(item));
            }
            if !self.opener.open(&mut self.noise)? {
                ready!(self.poll_fill(cx))?;
            }
        }
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let State::Closing(closing) = &mut self.state else { return Poll::Ready(self.state.check()) };
            match closing {
                Closing::Notice(reason) => {
                    let reason = reason.clone();
                    ready!(self.poll_drain(cx))?;
                    self.sealer.push_close(&reason);
                    self.state = State::Closing(Closing::Flush);
                }
                Closing::Flush => {
                    ready!(self.poll_drain(cx))?;
                    self.state = State::Closing(Closing::Shutdown);
                }
                Closing::Shutdown => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    self.state = State::Closing(Closing::Linger(Box::pin(tokio::time::sleep(LINGER))));
                }
                Closing::Linger(patience) => {
                    if patience.as_mut().poll(cx).is_pending() {
                        let mut scrap = [0; 4096];
                        let mut scrap = ReadBuf::new(&mut scrap);
                        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scrap));
                        if read.is_ok() && !scrap.filled().is_empty() {
                            continue;
                        }
                    }
                    self.state = State::Closing(Closing::Done);
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Link for NoiseTcp {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn peer(&self) -> PeerKey {
        self.peer
    }

    fn binding(&self) -> [u8; 32] {
        self.binding
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.state.check()?;
        self.poll_room(cx).map_err(|error| self.end(error))
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        self.state.check()?;
        let (len, max) = (frame.len(), MAX_FRAME);
        if len > max {
            return Err(LinkError::TooLong { len, max });
        }
        if !self.takes() {
            return Err(LinkError::NotReady);
        }
        self.sealer.push(&frame, &mut self.noise).map_err(|error| self.end(error))?;
        self.stats.count_sent(len);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.state.check()?;
        self.poll_drain(cx).map_err(|error| self.end(error))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        // What has arrived is still handed out after a failed write, as long as it decrypts.
        if !matches!(self.state, State::Lost(_)) {
            self.state.check()?;
        }
        match ready!(self.poll_item(cx)) {
            Ok(Item::Frame(lane, bytes)) => {
                self.stats.count_received(bytes.len());
                Poll::Ready(Ok((lane, bytes)))
            }
            Ok(Item::Closed(reason)) => {
                self.state = State::Closed(reason.clone());
                Poll::Ready(Err(LinkError::Closed(reason)))
            }
            Err(error) => Poll::Ready(Err(self.end(error))),
        }
    }

    fn close(&mut self, reason: &str) {
        if self.state.check().is_ok() {
            self.state = State::Closing(Closing::Notice(cut_reason(reason).to_owned()));
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_hang_up(cx)
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
