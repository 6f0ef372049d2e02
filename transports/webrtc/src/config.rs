//! What can be chosen.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_rtc::runtime::{Runtime, TokioRuntime};

/// A STUN or TURN server.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct IceServer {
    /// `stun:host:port` or `turn:host:port`, over UDP. Those over TCP or TLS are passed by.
    pub urls: Vec<String>,
    /// The user, TURN only.
    pub username: String,
    /// The password, TURN only: best a short-lived one.
    pub credential: String,
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({:?})", self.urls)
    }
}

/// How an end of a link is set up. The two ends need not agree.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP addresses to bind; each gives a candidate. `0.0.0.0` stands for every interface but loopback, at the time
    /// it is bound, and again at every restart.
    pub bind: Vec<SocketAddr>,
    /// Servers that tell our outer address, or relay. None: candidates of this host only.
    pub ice_servers: Vec<IceServer>,
    /// Whether only relays are told to the peer, so that it does not learn our addresses. Needs a TURN server.
    pub relay_only: bool,
    /// What SCTP holds of each lane at most, unacknowledged, bytes: on a slow line it is the queue in the network that
    /// urgent frames meet.
    pub in_flight: usize,
    /// What it may become for ISO and BULK where the path holds more, bytes: this much for each round trip is the throughput.
    pub in_flight_max: usize,
    /// A peer that nothing was heard of for so long is gone.
    pub lost_after: Duration,
    /// Whether a host adds an Opus track for its sound, if the offer has a section for one.
    pub opus: bool,
    /// Who gives sockets, time and tasks; its UDP sockets get larger buffers. Tests put bad networks here.
    pub runtime: Arc<dyn Runtime>,
}

impl Default for Config {
    /// All IPv4 and IPv6 interfaces, no servers, 64 KiB to 1 MiB in flight, lost after 3 s, no track, tokio.
    fn default() -> Self {
        Self {
            bind: vec![([0; 4], 0).into(), ([0u16; 8], 0).into()],
            ice_servers: Vec::new(),
            relay_only: false,
            in_flight: 64 * 1024,
            in_flight_max: 1024 * 1024,
            lost_after: Duration::from_secs(3),
            opus: false,
            runtime: Arc::new(TokioRuntime),
        }
    }
}
