//! Sizes and times of a session. The two ends need not agree on them.

use std::time::Duration;

use wire::Lane;

use crate::liveness::Limits;

/// The longest chunk, bytes: with its header it fits every link.
pub const MAX_CHUNK: usize = 60 * 1024;
/// What may be sent on a reliable lane before the peer has announced its own limit. Part of the protocol.
pub(crate) const INITIAL_WINDOW: usize = 64 * 1024;
/// The shortest chunk, bytes: below it headers would be most of the traffic.
const MIN_CHUNK: usize = 256;

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end with the VM.
    Host,
    /// The end with the devices.
    Remote,
}

/// The bounds of one lane, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// What may wait to be sent. One message is always taken by an empty queue.
    pub queue: usize,
    /// What may be received and not yet accepted by the application; at least 64 KiB on reliable lanes.
    pub window: usize,
}

/// Sizes and times of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bounds of CTL.
    pub ctl: LaneConfig,
    /// The bounds of INT.
    pub int: LaneConfig,
    /// The bounds of AUDIO.
    pub audio: LaneConfig,
    /// What has waited on AUDIO for so long is late, and dropped; by [`crate::Session::send_at`] it is known since when.
    pub audio_age: Duration,
    /// The bounds of ISO.
    pub iso: LaneConfig,
    /// What has waited on ISO for so long is late, as on AUDIO. A host's controller waits a second for an isochronous
    /// transfer; after that nobody wants it.
    pub iso_age: Duration,
    /// The bounds of BULK. A window below bandwidth x round trip slows the lane down; of a larger one so much is used as the
    /// path needs.
    pub bulk: LaneConfig,
    /// Messages are cut into chunks of at most this, 256 to [`MAX_CHUNK`] bytes; of at most 16 KiB (and the head of a
    /// message) while the link is not fast, and of less, down to 4 KiB, where it is known to be slow. A chunk and its [`crate::HEADER_LEN`] must fit the link.
    pub max_chunk: usize,
    /// The time between two pings.
    pub heartbeat: Duration,
    /// The peer is quiet when nothing was heard for so long: more than a heartbeat and a round trip.
    pub quiet_after: Duration,
    /// The peer is silent when nothing was heard for so long.
    pub dead_after: Duration,
    /// Acknowledgements and credit that nothing else carries wait for at most this time.
    pub ack_delay: Duration,
    /// The session ends when it had no link for so long.
    pub expire_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const KIB: usize = 1024;
        let lane = |queue, window| LaneConfig { queue, window };
        Self {
            ctl: lane(256 * KIB, 256 * KIB),
            int: lane(256 * KIB, 256 * KIB),
            audio: lane(256 * KIB, 256 * KIB),
            audio_age: Duration::from_millis(150),
            iso: lane(256 * KIB, 256 * KIB),
            iso_age: Duration::from_secs(1),
            bulk: lane(2048 * KIB, 4096 * KIB),
            max_chunk: MAX_CHUNK,
            heartbeat: Duration::from_secs(1),
            quiet_after: Duration::from_millis(1500),
            dead_after: Duration::from_secs(3),
            ack_delay: Duration::from_millis(25),
            expire_after: Duration::from_secs(30),
        }
    }
}

impl Config {
    pub(crate) fn lane(&self, lane: Lane) -> LaneConfig {
        let LaneConfig { queue, window } = match lane {
            Lane::Ctl => self.ctl,
            Lane::Int => self.int,
            Lane::Audio => self.audio,
            Lane::Iso => self.iso,
            Lane::Bulk => self.bulk,
        };
        let least = if lane.may_lose() { 0 } else { INITIAL_WINDOW };
        LaneConfig { queue, window: window.max(least) }
    }

    /// How long a message may wait on this lane.
    pub(crate) fn age(&self, lane: Lane) -> Option<Duration> {
        match lane {
            Lane::Audio => Some(self.audio_age),
            Lane::Iso => Some(self.iso_age),
            Lane::Ctl | Lane::Int | Lane::Bulk => None,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { quiet: self.quiet_after, dead: self.dead_after }
    }

    pub(crate) fn chunk(&self) -> usize {
        self.max_chunk.clamp(MIN_CHUNK, MAX_CHUNK)
    }
}
