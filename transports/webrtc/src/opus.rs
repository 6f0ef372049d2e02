//! Sound to a browser: a track of its own, whose jitter buffer, concealment and clock are the browser's.

use std::sync::Arc;

use async_rtc::{
    media_stream::{
        MediaStreamTrack,
        track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP},
    },
    peer_connection::{MediaEngine, PeerConnection},
    rtp_transceiver::RtpSender,
};
use bytes::Bytes;
use rtc::{
    peer_connection::configuration::media_engine::MIME_TYPE_OPUS,
    rtp,
    rtp_transceiver::rtp_sender::{
        RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
    },
};

use crate::Error;

/// The longest packet, bytes: it has to fit a datagram.
const MAX_PACKET: usize = 1200;
/// Browsers offer Opus under this number.
const PAYLOAD_TYPE: u8 = 111;

/// A track that carries Opus to the peer. RFC 7587.
pub struct OpusTrack {
    track: Arc<TrackLocalStaticRTP>,
    header: rtp::Header,
}

impl OpusTrack {
    /// Sends a packet. `timestamp` is that of its first sample, in samples of 48 kHz; it may wrap. Returns whether the
    /// packet was taken: not if it is longer than 1200 bytes, or the connection has ended.
    pub async fn send(&mut self, timestamp: u32, packet: Bytes) -> bool {
        if packet.len() > MAX_PACKET {
            return false;
        }
        self.header.timestamp = timestamp;
        self.header.sequence_number = self.header.sequence_number.wrapping_add(1);
        self.track.write_rtp(rtp::Packet { header: self.header.clone(), payload: packet }).await.is_ok()
    }
}

/// A track that was added, before it is known what the peer calls its codec.
pub(crate) struct Added {
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    ssrc: u32,
}

impl Added {
    /// Adds a track. `ssrc` is a random number.
    pub(crate) async fn new(connection: &dyn PeerConnection, ssrc: u32) -> Result<Self, Error> {
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: codec(),
            ..Default::default()
        };
        let name = || "farbus".to_owned();
        let track = MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Audio, vec![coding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let sender = connection.add_track(track.clone()).await.map_err(Error::SetUp)?;
        Ok(Self { track, sender, ssrc })
    }

    /// The track, once the descriptions are exchanged; none if the peer does not take Opus.
    pub(crate) async fn agreed(self) -> Option<OpusTrack> {
        let parameters = self.sender.get_parameters().await.ok()?.rtp_parameters;
        let codec = parameters.codecs.first()?;
        let header = rtp::Header {
            version: 2,
            payload_type: codec.payload_type,
            ssrc: self.ssrc,
            ..rtp::Header::default()
        };
        Some(OpusTrack { track: self.track, header })
    }
}

/// What the connection knows of media: Opus, or nothing.
pub(crate) fn media(opus: bool) -> Result<MediaEngine, Error> {
    let mut media = MediaEngine::default();
    if opus {
        let codec = RTCRtpCodecParameters { rtp_codec: codec(), payload_type: PAYLOAD_TYPE };
        media.register_codec(codec, RtpCodecKind::Audio).map_err(Error::SetUp)?;
    }
    Ok(media)
}

fn codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        // An answer repeats what the offer has: a page that wants both channels writes `stereo=1` into its offer.
        sdp_fmtp_line: "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}
