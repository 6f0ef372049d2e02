//! The ways to a host: Noise over TCP, and WebRTC, whose offer and answer go over a connection of the first kind. The
//! host's port is all that has to be known.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use futures_util::{FutureExt, future::BoxFuture};
use link::{Frame, Link, LinkError};
use noise_tcp::{HandshakeError, NoiseTcp, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use webrtc::{IceServer, Offerer};
use wire::{
    Lane,
    control::{Answer, Hello, Refusal},
};

use crate::look::Look;

/// Of the connections that are made to a host that is looked for, every so many-th is made by its name.
const BY_NAME: u32 = 25;
/// How often the time doubles that a host has for its answer on a connection that came about.
const DOUBLINGS: u32 = 2;
/// How long the host may take to answer an offer.
const ANSWER: Duration = Duration::from_secs(5);

/// A kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Noise over one TCP connection: the fastest on a good network.
    NoiseTcp,
    /// WebRTC data channels over UDP: sound does not wait for what was lost.
    Webrtc,
}

impl Way {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::NoiseTcp => Self::Webrtc,
            Self::Webrtc => Self::NoiseTcp,
        }
    }

    /// How long an attempt may take on a link whose round trip is known, or not.
    pub(crate) fn limit(self, round_trip: Option<Duration>) -> Duration {
        let (least, round_trips) = match self {
            Self::NoiseTcp => (Duration::from_secs(1), 8),
            Self::Webrtc => (Duration::from_secs(6), 16),
        };
        round_trip.map_or(least, |round_trip| least.max(round_trip * round_trips))
    }

    /// How long an attempt may take on a connection that took so long, when so many before it were not answered. Each
    /// asks the host for work, and may be kept for it by whoever took the connection; so there are not many of them.
    fn patience(self, took: Duration, unanswered: u32) -> Duration {
        let limit = self.limit(Some(took));
        limit.max((limit * (1 << unanswered.min(DOUBLINGS))).min(noise_tcp::DEADLINE))
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoiseTcp => "noise-tcp",
            Self::Webrtc => "webrtc",
        })
    }
}

/// Which links are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// Noise over TCP only.
    NoiseTcp,
    /// WebRTC only.
    Webrtc,
    /// Both at first, and the better one is kept, by its round trip and loss; the other one again when it gets bad.
    Auto,
}

impl Wish {
    /// The kind that is tried first.
    pub(crate) fn first(self) -> Way {
        match self {
            Self::NoiseTcp | Self::Auto => Way::NoiseTcp,
            Self::Webrtc => Way::Webrtc,
        }
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLink {
    /// The host does not want this remote.
    #[error("refused: {text}")]
    Refused { reason: Refusal, text: String },
    /// Who answers has another key than the host, or somebody on the way says so.
    #[error("{0}")]
    AnotherHost(String),
    /// Something else.
    #[error("{0}")]
    Failed(String),
}

/// A link whose host has said who has what.
pub(crate) struct Linked {
    pub(crate) link: Box<dyn Link>,
    pub(crate) vm: String,
    /// How long the host's answer in the handshake took.
    pub(crate) round_trip: Option<Duration>,
}

/// What an attempt comes to.
pub(crate) type Attempt = Result<Linked, NoLink>;
/// Tries to get a link of a kind: once, or for a session that looks for its host, until that can be reached.
pub(crate) type Connector = Box<dyn Fn(Way, Option<Look>) -> BoxFuture<'static, Attempt>>;

/// What it takes to connect.
pub(crate) struct To {
    pub(crate) address: String,
    pub(crate) host: PublicKey,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) hello: Hello,
    /// STUN and TURN servers for WebRTC.
    pub(crate) ice: Vec<IceServer>,
    /// Only what TURN servers relay is told to the host.
    pub(crate) relay_only: bool,
    /// Where the host was last.
    pub(crate) reached: watch::Sender<Option<SocketAddr>>,
    /// So many connections in a row came about, and nobody answered there: by TCP, and for WebRTC.
    pub(crate) unanswered: [AtomicU32; 2],
}

/// Connects to this host, in either way.
pub(crate) fn connector(to: To) -> Connector {
    let to = Arc::new(to);
    Box::new(move |way, look| {
        let to = Arc::clone(&to);
        async move {
            match look {
                None => link(&to, way, to.connect().await?).await,
                Some(look) => {
                    let (stream, took) = look.first(|made| Arc::clone(&to).connect_again(made)).await;
                    // What hangs from here on is given up: a new connection may do better.
                    let unanswered = &to.unanswered[usize::from(way == Way::Webrtc)];
                    let limit = way.patience(took, unanswered.load(Ordering::Relaxed));
                    let answered = timeout(limit, link(&to, way, stream)).await;
                    match &answered {
                        Ok(_) => unanswered.store(0, Ordering::Relaxed),
                        Err(_) => drop(unanswered.fetch_add(1, Ordering::Relaxed)),
                    }
                    let late = |_| Err(NoLink::Failed(format!("the host does not answer within {limit:?}")));
                    answered.unwrap_or_else(late)
                }
            }
        }
        .boxed()
    })
}

impl To {
    async fn connect(&self) -> Result<TcpStream, NoLink> {
        let connected = timeout(noise_tcp::DEADLINE, TcpStream::connect(&*self.address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok(connected.map_err(HandshakeError::Connect)?)
    }

    /// Connects to where the host was last; at first and once in a while by its name, which may lead to elsewhere by
    /// now, and for which the network may be missing.
    async fn connect_again(self: Arc<Self>, made: u32) -> io::Result<TcpStream> {
        let reached = *self.reached.borrow();
        match reached.filter(|_| !made.is_multiple_of(BY_NAME)) {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect(&*self.address).await,
        }
    }
}

async fn link(to: &To, way: Way, stream: TcpStream) -> Attempt {
    match way {
        Way::NoiseTcp => by_tcp(to, stream, &to.hello).await.map(|(link, vm)| {
            let round_trip = link.round_trip();
            Linked { link: Box::new(link), vm, round_trip }
        }),
        Way::Webrtc => by_webrtc(to, stream).await,
    }
}

async fn by_tcp(to: &To, stream: TcpStream, hello: &Hello) -> Result<(NoiseTcp, String), NoLink> {
    let address = stream.peer_addr()?;
    let (link, answer) = noise_tcp::connect_over(stream, to.host, &to.key, hello).await?;
    to.reached.send_replace(Some(address));
    Ok((link, welcomed(answer)?))
}

async fn by_webrtc(to: &To, stream: TcpStream) -> Attempt {
    let hello = Hello { signalling: true, ..to.hello.clone() };
    let (mut signalling, _) = by_tcp(to, stream, &hello).await?;
    let (ice_servers, relay_only) = (to.ice.clone(), to.relay_only);
    let mut config = webrtc::Config { ice_servers, relay_only, ..webrtc::Config::default() };
    // Whatever leads to the host leads back: loopback is nowhere in the default.
    config.bind.push((signalling.local_addr()?.ip(), 0).into());
    let offerer = Offerer::new(&config).await?;
    let offer = Frame { lane: Lane::Ctl, head: offerer.offer().to_owned().into(), body: Default::default() };
    let answer = timeout(ANSWER, exchange(&mut signalling, offer)).await;
    let answer = answer.map_err(|_| NoLink::Failed("the host does not answer the offer".to_owned()))??;
    offerer.take_answer(&answer).await?;
    let begun = Instant::now();
    let (link, answer) = offerer.connect(to.host, &to.key, &to.hello).await?;
    tracing::debug!(after = ?begun.elapsed(), "a connection by WebRTC has come about");
    let round_trip = link.round_trip();
    Ok(Linked { link: Box::new(link), vm: welcomed(answer)?, round_trip })
}

/// Sends one frame, and takes one.
async fn exchange(link: &mut NoiseTcp, frame: Frame) -> Result<String, NoLink> {
    poll_fn(|cx| link.poll_ready(cx)).await?;
    link.send(frame)?;
    poll_fn(|cx| link.poll_flush(cx)).await?;
    let (_, answer) = poll_fn(|cx| link.poll_receive(cx)).await?;
    String::from_utf8(answer.into()).map_err(|_| NoLink::Failed("the host's answer is no text".to_owned()))
}

fn welcomed(answer: Answer) -> Result<String, NoLink> {
    match answer {
        Answer::Welcome { vm } => Ok(vm),
        Answer::Refused { reason, text } => Err(NoLink::Refused { reason, text }),
    }
}

impl From<HandshakeError> for NoLink {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused { reason, text } => Self::Refused { reason, text },
            HandshakeError::AnotherHost { .. } => Self::AnotherHost(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<webrtc::Error> for NoLink {
    fn from(error: webrtc::Error) -> Self {
        match error {
            webrtc::Error::Refused { reason, text } => Self::Refused { reason, text },
            other => Self::Failed(format!("WebRTC: {other}")),
        }
    }
}

impl From<LinkError> for NoLink {
    fn from(error: LinkError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for NoLink {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_takes_connections_and_does_not_answer_gets_more_and_more_time_up_to_a_bound() {
        let ms = Duration::from_millis;
        for (way, took, expected) in [
            (Way::NoiseTcp, 1, [1_000, 2_000, 4_000, 4_000]),
            (Way::NoiseTcp, 200, [1_600, 3_200, 5_000, 5_000]),
            (Way::NoiseTcp, 1_000, [8_000, 8_000, 8_000, 8_000]),
            (Way::Webrtc, 1, [6_000, 6_000, 6_000, 6_000]),
        ] {
            for (unanswered, expected) in (0..).zip(expected) {
                let patience = way.patience(ms(took), unanswered);
                assert_eq!(patience, ms(expected), "{way}, {took} ms, the {unanswered}. time");
            }
        }
    }
}
