//! One peer connection of the crate below, set up by the rules that it asks for (README).

use std::{sync::Arc, time::Duration};

use async_rtc::{
    data_channel::{DataChannel, RTCDataChannelInit},
    peer_connection::{
        PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCCertificate,
        RTCConfigurationBuilder, RTCIceCandidateInit, RTCIceGatheringState, RTCIceServer,
        RTCIceTransportPolicy, RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder, crypto,
    },
};
use rtc::{ice::mdns::MulticastDnsMode, peer_connection::certificate::CertificateParams};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use wire::Lane;

use crate::{
    Config, Error,
    error::malformed,
    line::Event,
    opus::{self, Added},
    runtime::{Roomy, receive_window},
    sdp,
};

/// The id of the link's own channel, behind those of the lanes.
const LINK: u16 = Lane::ALL.len() as u16;
/// Threads that run all connections of the process; the first connection's number wins.
const REACTORS: usize = 2;
/// The time between two connectivity checks of one pair. RFC 8445 §14.2.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Checks of a pair before it is given up: three seconds of them.
const CHECKS: u16 = 60;
/// How long servers have to tell their candidates.
const GATHERING: Duration = Duration::from_secs(3);

/// A connection, from its first description to its close.
pub(crate) struct Peer {
    connection: Arc<dyn PeerConnection>,
    /// SHA-256 of our certificate.
    pub(crate) fingerprint: [u8; 32],
    gathering: watch::Receiver<RTCIceGatheringState>,
    /// Where it was made: whoever drops it may be elsewhere.
    runtime: tokio::runtime::Handle,
    /// Whether it was ended from here.
    over: watch::Sender<bool>,
}

impl Peer {
    /// Binds sockets and starts the driver. `mdns`: candidates of the peer may be names. `opus`: it may take sound.
    pub(crate) async fn new(
        config: &Config,
        mdns: bool,
        opus: bool,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, Error> {
        let provider = crypto::default_provider()
            .map_err(|error| Error::SetUp(async_rtc::error::Error::Crypto(error.to_string())))?;
        let certificate = certificate(provider.crypto())?;
        let fingerprint = digest(certificate.dtls_certificate.certificate.first())?;
        let servers = config.ice_servers.iter().map(|server| RTCIceServer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: server.credential.clone(),
        });
        let policy =
            if config.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
        let configuration = RTCConfigurationBuilder::new()
            .with_ice_servers(servers.collect())
            .with_ice_transport_policy(policy)
            .with_certificates(vec![certificate])
            .build();
        let mdns = if mdns { MulticastDnsMode::QueryOnly } else { MulticastDnsMode::Disabled };
        let half = config.lost_after / 2;
        let settings = SettingEngineBuilder::new()
            .with_crypto_provider(provider)
            .with_ice_timeouts(Some(half), Some(half), Some(config.lost_after / 6))
            .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(CHECKS))
            .with_sctp_max_receive_buffer_size(receive_window())
            .with_multicast_dns_mode(mdns)
            // Sockets are bound anew at a restart.
            .with_discard_local_candidates_during_ice_restart(true)
            .build();
        let (gathering_tx, gathering) = watch::channel(RTCIceGatheringState::New);
        let connection = PeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_setting_engine(settings)
            .with_media_engine(opus::media(opus)?)
            .with_handler(Arc::new(Handler { events, gathering: gathering_tx }))
            .with_runtime(Arc::new(Roomy(config.runtime.clone())))
            .with_udp_addrs(config.bind.clone())
            // Our writers stop before; no queue is without a bound.
            .with_data_channel_send_buffer_limit(config.in_flight.max(config.in_flight_max).max(1))
            .with_dedicated_reactor_pool_size(REACTORS)
            .build()
            .await
            .map_err(Error::SetUp)?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Self {
            connection: Arc::new(connection),
            fingerprint,
            gathering,
            runtime,
            over: watch::Sender::new(false),
        })
    }

    /// The channel of a lane, or of the link itself. Both ends make it, so nothing is negotiated.
    pub(crate) async fn channel(&self, lane: Option<Lane>) -> Result<Arc<dyn DataChannel>, Error> {
        let init = RTCDataChannelInit {
            ordered: lane.is_none_or(ordered),
            max_retransmits: lane.is_some_and(Lane::may_lose).then_some(0),
            negotiated: Some(lane.map_or(LINK, |lane| lane as u16)),
            ..RTCDataChannelInit::default()
        };
        let label = lane.map_or_else(|| "link".to_owned(), |lane| format!("{lane:?}").to_lowercase());
        self.connection.create_data_channel(&label, Some(init)).await.map_err(Error::SetUp)
    }

    /// A track for sound, to be added after the offer was taken and before it is answered.
    pub(crate) async fn add_opus(&self) -> Result<Added, Error> {
        // The certificate is random, so its hash is.
        let [a, b, c, d, ..] = self.fingerprint;
        Added::new(&*self.connection, u32::from_be_bytes([a, b, c, d])).await
    }

    /// Takes the peer's offer.
    pub(crate) async fn take_offer(&self, offer: RTCSessionDescription) -> Result<(), Error> {
        self.connection.set_remote_description(offer).await.map_err(malformed)
    }

    /// Our offer, with all our candidates. `restart`: under new ICE credentials.
    pub(crate) async fn offer(&self, restart: bool) -> Result<String, Error> {
        if restart {
            self.connection.restart_ice().await.map_err(Error::SetUp)?;
        }
        let offer = self.connection.create_offer(None).await.map_err(Error::SetUp)?;
        self.describe(offer).await
    }

    /// Our answer to the offer that was taken, with all our candidates.
    pub(crate) async fn answer(&self) -> Result<String, Error> {
        let answer = self.connection.create_answer(None).await.map_err(malformed)?;
        self.describe(answer).await
    }

    /// Takes the peer's answer to our offer.
    pub(crate) async fn take_answer(&self, answer: &str) -> Result<(), Error> {
        self.connection.set_remote_description(sdp::answer(answer)?).await.map_err(malformed)
    }

    /// Takes a candidate that the peer's description did not have: `candidate:...`.
    pub(crate) async fn add_candidate(&self, candidate: &str) -> Result<(), Error> {
        if candidate.len() > 1024 {
            return Err(malformed("a candidate that is too long"));
        }
        let candidate = RTCIceCandidateInit {
            candidate: candidate.trim().trim_start_matches("a=").to_owned(),
            sdp_mline_index: Some(0),
            ..RTCIceCandidateInit::default()
        };
        self.connection.add_ice_candidate(candidate).await.map_err(malformed)
    }

    /// SHA-256 of the certificate that the peer has shown, and proved to have the key of.
    pub(crate) async fn remote_fingerprint(&self) -> Result<[u8; 32], Error> {
        let sctp = self.connection.sctp().await.ok_or(Error::Unreachable)?;
        let shown = sctp.transport().get_remote_certificates().await.map_err(|_| Error::Unreachable)?;
        digest(shown.first())
    }

    /// Takes our own description, and completes it with candidates.
    async fn describe(&self, description: RTCSessionDescription) -> Result<String, Error> {
        let mut gathering = self.gathering.clone();
        // What was gathered for an earlier description does not count.
        gathering.mark_unchanged();
        self.connection.set_local_description(description).await.map_err(malformed)?;
        let complete = async {
            while gathering.changed().await.is_ok() {
                if *gathering.borrow_and_update() == RTCIceGatheringState::Complete {
                    break;
                }
            }
        };
        if tokio::time::timeout(GATHERING, complete).await.is_err() {
            tracing::debug!("servers do not answer: without their candidates");
        }
        Ok(self.connection.local_description().await.ok_or(Error::Unreachable)?.sdp)
    }

    /// Ends the connection: tells the peer, frees the sockets.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "a connection that ends badly");
        }
    }

    /// Waits until it was ended from here.
    pub(crate) async fn ended(&self) {
        // Its other end is here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Ends the connection, but not at once.
    pub(crate) fn hang_up(&self) {
        self.over.send_replace(true);
        let connection = self.connection.clone();
        self.runtime.spawn(async move { connection.close().await });
    }
}

/// Whether frames of a lane arrive in the order they were sent.
pub(crate) const fn ordered(lane: Lane) -> bool {
    matches!(lane, Lane::Bulk)
}

/// A certificate for one connection.
fn certificate(crypto: &dyn crypto::RTCCrypto) -> Result<RTCCertificate, Error> {
    let set_up =
        |error: &dyn std::fmt::Display| Error::SetUp(async_rtc::error::Error::Other(error.to_string()));
    let params = CertificateParams::new(vec!["farbus".to_owned()]).map_err(|error| set_up(&error))?;
    RTCCertificate::generate(crypto, crypto::SignatureScheme::EcdsaP256Sha256, params).map_err(Error::SetUp)
}

fn digest(certificate: Option<impl AsRef<[u8]>>) -> Result<[u8; 32], Error> {
    Ok(Sha256::digest(certificate.ok_or(Error::Unreachable)?.as_ref()).into())
}

/// Runs on the driver, so it does nothing but pass on.
struct Handler {
    events: mpsc::UnboundedSender<Event>,
    gathering: watch::Sender<RTCIceGatheringState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathering.send_replace(state);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if matches!(state, RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed) {
            let _ = self.events.send(Event::Failed);
        }
    }

    async fn on_data_channel(&self, _: Arc<dyn DataChannel>) {
        let _ = self.events.send(Event::Misbehaved("a channel that was not agreed on".to_owned()));
    }
}
