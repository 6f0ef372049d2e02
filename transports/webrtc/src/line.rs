//! A connection with its channels: what comes and goes on them, before and after the peer is known.
//!
//! One channel for each lane, and one for the link itself: ordered and reliable, for the handshake and the close. Two tasks
//! for each. Readers only pass on, and read for ever: a channel that nobody reads stops them all.
//! Writers wait where SCTP has enough of their lane.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use async_rtc::data_channel::{DataChannel, DataChannelEvent};
use bytes::{Bytes, BytesMut};
use link::Frame;
use tokio::sync::{Notify, mpsc};
use wire::Lane;

use crate::{
    Config, Error, OpusTrack,
    message::{MAX_FRAME, Outgoing, Received},
    peer::Peer,
    writer::Writer,
};

/// Frames of a lane that wait for the reader of the link; then the channel is not read on.
const INBOUND: usize = 64;
/// A peer sends so many messages on the channel of the link at most: ready or heard or both, two of the handshake,
/// close, closed.
const LINK_MESSAGES: usize = 6;
/// The time in which the other channels follow one that has ended.
const MOMENT: Duration = Duration::from_secs(1);

/// What happens to a connection, apart from frames that come.
#[derive(Debug)]
pub(crate) enum Event {
    /// The channels are open.
    Opened,
    /// The peer's channels are open. `asks`: it does not know that ours are.
    Ready { asks: bool },
    /// A message of the handshake came.
    Handshake(Bytes),
    /// The peer has closed the link, after so many frames on the reliable lanes.
    Close { frames: u64, reason: String },
    /// The peer has everything that was sent before our close.
    Closed,
    /// A frame of so many bytes was handed to SCTP, or dropped.
    Sent(Lane, usize),
    /// Nothing comes on the channel of a lane any more.
    Ended,
    /// The connection has broken.
    Failed,
    /// The peer broke the rules.
    Misbehaved(String),
}

/// A connection with its channels.
pub(crate) struct Line {
    pub(crate) peer: Arc<Peer>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    /// Frames that came, by lane.
    pub(crate) inbound: [mpsc::Receiver<Bytes>; Lane::ALL.len()],
    /// Whether our channels are open, and the peer's.
    pub(crate) opened: bool,
    pub(crate) ready: bool,
    /// Messages of the handshake that nobody has asked for yet.
    pub(crate) handshake: VecDeque<Bytes>,
    outbound: [mpsc::UnboundedSender<Outgoing>; Lane::ALL.len()],
    link: mpsc::UnboundedSender<Outgoing>,
    /// The track for sound, until somebody takes it.
    pub(crate) opus: Option<OpusTrack>,
}

impl Line {
    pub(crate) async fn new(config: &Config, mdns: bool, opus: bool) -> Result<Self, Error> {
        let (tell, events) = mpsc::unbounded_channel();
        let peer = Arc::new(Peer::new(config, mdns, opus, tell.clone()).await?);
        let mut inbound = Vec::with_capacity(Lane::ALL.len());
        let mut outbound = Vec::with_capacity(Lane::ALL.len());
        let iso = peer.channel(Some(Lane::Iso)).await?;
        let open = async |lane: Option<Lane>| {
            let channel = if lane == Some(Lane::Iso) { iso.clone() } else { peer.channel(lane).await? };
            let (to_link, from_channel) = mpsc::channel(INBOUND);
            let (from_link, to_channel) = mpsc::unbounded_channel();
            let progress = Arc::new(Notify::new());
            let reader = Reader::new(lane, to_link, tell.clone(), progress.clone());
            tokio::spawn(reader.run(channel.clone(), Arc::downgrade(&peer)));
            let writer = Writer::new(lane, channel, iso.clone(), progress, config);
            tokio::spawn(writer.run(to_channel, tell.clone()));
            Ok::<_, Error>((from_channel, from_link))
        };
        for lane in Lane::ALL {
            let (from_channel, to_channel) = open(Some(lane)).await?;
            inbound.push(from_channel);
            outbound.push(to_channel);
        }
        let (_, link) = open(None).await?;
        let whole = || Error::Unreachable;
        Ok(Self {
            peer,
            events,
            opened: false,
            ready: false,
            link,
            opus: None,
            handshake: VecDeque::new(),
            inbound: inbound.try_into().map_err(|_| whole())?,
            outbound: outbound.try_into().map_err(|_| whole())?,
        })
    }

    /// Hands a frame to the writer of its lane; in vain if the connection has ended.
    pub(crate) fn send_frame(&self, frame: Frame) {
        let _ = self.outbound[frame.lane as usize].send(Outgoing::Frame(frame));
    }

    /// Hands a message to the writer of the link's channel; in vain if the connection has ended.
    pub(crate) fn send(&self, message: Outgoing) {
        let _ = self.link.send(message);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.peer.hang_up();
    }
}

/// Passes on what comes on the channel of a lane, or of the link.
struct Reader {
    lane: Option<Lane>,
    frames: mpsc::Sender<Bytes>,
    tell: mpsc::UnboundedSender<Event>,
    /// Tells the writer that SCTP has room.
    progress: Arc<Notify>,
    /// What came of a frame in pieces.
    partial: BytesMut,
    /// Messages that came on the channel of the link.
    messages: usize,
    misbehaved: bool,
}

impl Reader {
    fn new(
        lane: Option<Lane>,
        frames: mpsc::Sender<Bytes>,
        tell: mpsc::UnboundedSender<Event>,
        progress: Arc<Notify>,
    ) -> Self {
        Self { lane, frames, tell, progress, partial: BytesMut::new(), messages: 0, misbehaved: false }
    }

    /// Reads until the channel is closed.
    async fn run(mut self, channel: Arc<dyn DataChannel>, peer: Weak<Peer>) {
        while let Some(event) = channel.poll().await {
            match event {
                DataChannelEvent::OnOpen if self.lane.is_none() => self.tell(Event::Opened),
                // Who has misbehaved is read, but not listened to.
                DataChannelEvent::OnMessage(_) if self.misbehaved => {}
                DataChannelEvent::OnMessage(message) => {
                    let taken = if message.is_string {
                        Err("a message of text".to_owned())
                    } else {
                        self.take(message.data.freeze()).await
                    };
                    if let Err(what) = taken {
                        self.misbehaved = true;
                        self.tell(Event::Misbehaved(what));
                    }
                }
                DataChannelEvent::OnBufferedAmountLow => self.progress.notify_one(),
                DataChannelEvent::OnClose => break,
                _ => {}
            }
        }
        self.tell(Event::Ended);
        // All channels end together. If this one does not, the others have a moment to pass on what has come.
        tokio::time::sleep(MOMENT).await;
        if let Some(peer) = peer.upgrade() {
            peer.close().await;
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.tell.send(event);
    }

    async fn take(&mut self, message: Bytes) -> Result<(), String> {
        let message = Received::decode(message)?;
        let Some(lane) = self.lane else { return self.take_note(message) };
        match message {
            Received::Frame(frame) if self.partial.is_empty() => self.pass(lane, frame).await,
            Received::Frame(rest) => {
                self.join(&rest)?;
                let frame = std::mem::take(&mut self.partial).freeze();
                self.pass(lane, frame).await;
            }
            Received::More(piece) if lane == Lane::Bulk => self.join(&piece)?,
            Received::Nudge if lane == Lane::Iso => {}
            other => return Err(format!("on {lane:?}: {other:?}")),
        }
        Ok(())
    }

    /// Takes a message of the link's channel.
    fn take_note(&mut self, message: Received) -> Result<(), String> {
        self.messages += 1;
        if self.messages > LINK_MESSAGES {
            return Err(format!("{} messages that are no frames", self.messages));
        }
        self.tell(match message {
            Received::Ready => Event::Ready { asks: true },
            Received::Heard => Event::Ready { asks: false },
            Received::Handshake(message) => Event::Handshake(message),
            Received::Close { frames, reason } => Event::Close { frames, reason },
            Received::Closed => Event::Closed,
            Received::Frame(_) | Received::More(_) | Received::Nudge => {
                return Err("a frame on no lane".to_owned());
            }
        });
        Ok(())
    }

    fn join(&mut self, piece: &[u8]) -> Result<(), String> {
        if piece.is_empty() || self.partial.len() + piece.len() > MAX_FRAME {
            return Err(format!("a frame of {} bytes, or pieces of none", self.partial.len() + piece.len()));
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    async fn pass(&self, lane: Lane, frame: Bytes) {
        // Without a reader of the link the channel is still read. On lanes that may lose, nobody waits for it either.
        if lane.may_lose() {
            let _ = self.frames.try_send(frame);
        } else {
            let _ = self.frames.send(frame).await;
        }
    }
}
