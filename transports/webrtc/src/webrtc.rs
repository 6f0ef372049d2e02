//! The link: frames on the channels of a connection whose peer is known.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use link::{Frame, Link, LinkError, PeerKey, Profile, Stats, cut_reason};
use tokio::time::Sleep;
use wire::Lane;

use crate::{
    Control, OpusTrack,
    handshake::Met,
    line::{Event, Line},
    message::{MAX_FRAME, Outgoing, PIECE},
    peer::ordered,
};

/// What every link of this kind can do.
pub const PROFILE: Profile = Profile {
    name: "webrtc",
    max_frame: MAX_FRAME,
    good_frame: PIECE - 1,
    ordered: [
        ordered(Lane::Ctl),
        ordered(Lane::Int),
        ordered(Lane::Audio),
        ordered(Lane::Iso),
        ordered(Lane::Bulk),
    ],
    lossy: [false, false, true, true, false],
};

/// The lanes' and the link's own.
const CHANNELS: usize = Lane::ALL.len() + 1;
/// How long a closed link waits for the peer to have everything: aborting the connection would take back what was sent.
const LINGER: Duration = Duration::from_millis(1500);
/// BULK that waits to be sent, bytes: more than the credit that a session gives, so that it never fills up beside one.
const BULK_ROOM: usize = 8 << 20;
/// What waits on any other lane, bytes. A lane that may lose drops what is more.
const ROOM: usize = 256 << 10;

/// A link over WebRTC. Made by [`crate::Offerer::connect`] and [`crate::Incoming::accept`].
pub struct WebRtc {
    line: Line,
    peer: PeerKey,
    binding: [u8; 32],
    round_trip: Option<Duration>,
    stats: Stats,
    /// Bytes that wait to be handed to SCTP, by lane.
    waiting: [usize; Lane::ALL.len()],
    /// Frames taken and handed out on the lanes that do not lose.
    sent: u64,
    received: u64,
    /// Channels on which nothing comes any more.
    ended: usize,
    /// The peer has closed: after so many frames, for this reason.
    close: Option<(u64, String)>,
    state: State,
}

enum State {
    Open,
    /// Closed by us; the rest of the way is [`Link::poll_close`]'s.
    Closing(Closing),
    /// Closed by the peer, in good order, and everything was handed out.
    Closed(String),
    Lost(io::ErrorKind),
    Misbehaved(String),
}

enum Closing {
    /// The peer has to say that it has everything.
    Linger(Option<Pin<Box<Sleep>>>),
    HangUp(Pin<Box<dyn Future<Output = ()> + Send>>),
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

impl WebRtc {
    pub(crate) fn new(line: Line, Met { peer, binding, round_trip }: Met) -> Self {
        Self {
            line,
            peer,
            binding,
            round_trip,
            stats: Stats::default(),
            waiting: [0; Lane::ALL.len()],
            sent: 0,
            received: 0,
            ended: 0,
            close: None,
            state: State::Open,
        }
    }

    /// How long the peer's answer took in the handshake; none at the end that answered.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// A handle for what is to be done while the link is driven elsewhere.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { peer: self.line.peer.clone() }
    }

    /// The track that carries sound to the peer, once: if [`crate::Config::opus`] says so and the peer has offered to take
    /// it. It works as long as the link lives.
    pub fn take_opus(&mut self) -> Option<OpusTrack> {
        self.line.opus.take()
    }

    /// Takes note of what has happened, and wakes the task when more does.
    fn poll_events(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = self.line.events.poll_recv(cx) {
            match event {
                Event::Sent(lane, len) => self.waiting[lane as usize] -= len,
                Event::Close { frames, reason } => {
                    self.close = Some((frames, reason));
                    // Who has closed reads no more.
                    if matches!(self.state, State::Closing(_)) {
                        self.line.send(Outgoing::Closed);
                    }
                }
                Event::Closed => self.hang_up(),
                Event::Ended => {
                    self.ended += 1;
                    if self.ended == CHANNELS {
                        self.end(State::Lost(io::ErrorKind::ConnectionReset));
                    }
                }
                Event::Failed => self.end(State::Lost(io::ErrorKind::TimedOut)),
                Event::Misbehaved(what) => {
                    self.line.peer.hang_up();
                    self.end(State::Misbehaved(what));
                }
                Event::Opened | Event::Ready { .. } | Event::Handshake(_) => {}
            }
        }
    }

    fn end(&mut self, state: State) {
        match self.state {
            State::Open => self.state = state,
            State::Closing(_) => self.hang_up(),
            _ => {}
        }
    }

    /// The peer has what we sent, or has gone.
    fn hang_up(&mut self) {
        if let State::Closing(closing @ Closing::Linger(_)) = &mut self.state {
            let peer = self.line.peer.clone();
            *closing = Closing::HangUp(Box::pin(async move { peer.close().await }));
        }
    }

    /// The next frame that has come, the most urgent first.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<(Lane, Bytes)> {
        for lane in Lane::ALL {
            if let Poll::Ready(Some(frame)) = self.line.inbound[lane as usize].poll_recv(cx) {
                self.received += u64::from(!lane.may_lose());
                return Poll::Ready((lane, frame));
            }
        }
        Poll::Pending
    }

    /// The peer has closed and everything that it sent before was handed out.
    fn over(&mut self) -> bool {
        let Some((_, reason)) = self.close.take_if(|(frames, _)| *frames <= self.received) else {
            return false;
        };
        self.line.send(Outgoing::Closed);
        self.state = State::Closed(reason);
        true
    }

    fn room(&self) -> bool {
        Lane::ALL.into_iter().all(|lane| {
            let room = if lane == Lane::Bulk { BULK_ROOM } else { ROOM };
            lane.may_lose() || self.waiting[lane as usize] < room
        })
    }
}

impl Link for WebRtc {
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
        self.poll_events(cx);
        self.state.check()?;
        if self.room() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        self.state.check()?;
        let (len, max, lane) = (frame.len(), MAX_FRAME, frame.lane);
        if len > max {
            return Err(LinkError::TooLong { len, max });
        }
        if !self.room() {
            return Err(LinkError::NotReady);
        }
        self.stats.count_sent(len);
        self.sent += u64::from(!lane.may_lose());
        if !lane.may_lose() || self.waiting[lane as usize] < ROOM {
            self.waiting[lane as usize] += len;
            self.line.send_frame(frame);
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.poll_events(cx);
        self.state.check()?;
        if self.waiting.iter().all(|bytes| *bytes == 0) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Lane, Bytes), LinkError>> {
        self.poll_events(cx);
        // What has come is still handed out when the connection has broken.
        if matches!(self.state, State::Open | State::Lost(_))
            && let Poll::Ready((lane, frame)) = self.poll_frame(cx)
        {
            self.stats.count_received(frame.len());
            return Poll::Ready(Ok((lane, frame)));
        }
        self.over();
        self.state.check()?;
        Poll::Pending
    }

    fn close(&mut self, reason: &str) {
        if self.state.check().is_ok() {
            let reason = cut_reason(reason).to_owned();
            self.line.send(Outgoing::Close { frames: self.sent, reason });
            self.state = State::Closing(Closing::Linger(None));
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            self.poll_events(cx);
            // Nobody reads what comes, and nobody shall wait for it.
            while matches!(self.state, State::Closing(_)) && self.poll_frame(cx).is_ready() {}
            let State::Closing(closing) = &mut self.state else { return Poll::Ready(self.state.check()) };
            match closing {
                Closing::Linger(patience) => {
                    let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
                    ready!(patience.as_mut().poll(cx));
                    self.hang_up();
                }
                Closing::HangUp(hang_up) => {
                    ready!(hang_up.as_mut().poll(cx));
                    *closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
