//! A peer that does what it wants: the crate below, without ours.

use std::sync::Arc;

use async_rtc::{
    data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit},
    media_stream::track_remote::{TrackRemote, TrackRemoteEvent},
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
        RTCSessionDescription, SettingEngineBuilder,
    },
};
use bytes::BytesMut;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use tokio::sync::{mpsc, watch};

/// The channel of the link; those of the lanes are before it.
pub(crate) const LINK: usize = 5;
/// A message on the channel of the link: our channels are open.
pub(crate) const READY: &[u8] = &[2];

struct Handler(watch::Sender<bool>, mpsc::UnboundedSender<Seen>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.0.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let see = self.1.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let _ = see.send(Seen::Sound(packet.header.timestamp, packet.payload.to_vec()));
                }
            }
        });
    }
}

/// What happens at a raw peer, by channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Opened(usize),
    Message(usize, Vec<u8>),
    Sound(u32, Vec<u8>),
    Closed(usize),
}

pub(crate) struct Raw {
    pub(crate) connection: Arc<dyn PeerConnection>,
    pub(crate) channels: Vec<Arc<dyn DataChannel>>,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    gathered: watch::Receiver<bool>,
}

impl Raw {
    pub(crate) async fn new() -> Self {
        let (gather, gathered) = watch::channel(false);
        let (see, seen) = mpsc::unbounded_channel();
        let mut media = MediaEngine::default();
        media.register_default_codecs().unwrap();
        let long_messages = SettingEngineBuilder::new()
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(256 << 10))
            .build();
        let connection: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_handler(Arc::new(Handler(gather, see.clone())))
                .with_media_engine(media)
                .with_setting_engine(long_messages)
                .with_udp_addrs(vec!["127.0.0.1:0"])
                .build()
                .await
                .unwrap(),
        );
        let mut channels = Vec::new();
        for id in 0..=LINK {
            let init = RTCDataChannelInit { negotiated: Some(id as u16), ..Default::default() };
            let channel = connection.create_data_channel("raw", Some(init)).await.unwrap();
            channels.push(channel.clone());
            let see = see.clone();
            tokio::spawn(async move {
                while let Some(event) = channel.poll().await {
                    let _ = see.send(match event {
                        DataChannelEvent::OnOpen => Seen::Opened(id),
                        DataChannelEvent::OnMessage(message) => Seen::Message(id, message.data.to_vec()),
                        DataChannelEvent::OnClose => Seen::Closed(id),
                        _ => continue,
                    });
                }
            });
        }
        Self { connection, channels, seen, gathered }
    }

    async fn described(&mut self, description: RTCSessionDescription) -> String {
        self.connection.set_local_description(description).await.unwrap();
        self.gathered.wait_for(|complete| *complete).await.unwrap();
        self.connection.local_description().await.unwrap().sdp
    }

    pub(crate) async fn offer(&mut self) -> String {
        let offer = self.connection.create_offer(None).await.unwrap();
        self.described(offer).await
    }

    pub(crate) async fn answer(&mut self, offer: &str) -> String {
        let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
        self.connection.set_remote_description(offer).await.unwrap();
        let answer = self.connection.create_answer(None).await.unwrap();
        self.described(answer).await
    }

    pub(crate) async fn take_answer(&self, answer: &str) {
        let answer = RTCSessionDescription::answer(answer.to_owned()).unwrap();
        self.connection.set_remote_description(answer).await.unwrap();
    }

    pub(crate) async fn send(&self, channel: usize, message: &[u8]) {
        self.channels[channel].send(BytesMut::from(message)).await.unwrap();
    }

    /// Waits until the channels at both ends are open.
    pub(crate) async fn ready(&mut self) {
        loop {
            match self.seen.recv().await.unwrap() {
                Seen::Opened(LINK) => self.send(LINK, READY).await,
                Seen::Message(LINK, _) => break,
                _ => {}
            }
        }
        self.send(LINK, READY).await;
    }
}
