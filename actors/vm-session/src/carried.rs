//! What the session has carried, as it is told to whoever runs the VM.

use std::time::Duration;

use wire::Lane;

use crate::live::Live;

/// What a session has carried since it began, and how the way to the remote is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// The latest round trip, once there was one.
    pub round_trip: Option<Duration>,
    /// How much round trips vary.
    pub jitter: Duration,
    /// Frames that were sent again or did not come, of all, parts of a million.
    pub loss_ppm: u64,
    /// How often the session went on after it had lost its link.
    pub resumes: u64,
    /// How often it moved to another link while it had one.
    pub hand_overs: u64,
    /// The time without a link, all outages that are over together.
    pub held: Duration,
    /// In the order of [`Lane::ALL`].
    pub lanes: [LaneCarried; Lane::ALL.len()],
}

/// What one lane of a session has carried, and what waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneCarried {
    /// Bytes of messages handed to the link.
    pub sent_bytes: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// Frames handed to the link.
    pub sent_frames: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Frames sent again.
    pub retransmitted_frames: u64,
    /// Frames received that were of no use: late, or part of a message with a gap.
    pub discarded_frames: u64,
    /// Messages that found no room, and were dropped.
    pub dropped_messages: u64,
    /// Bytes that wait to be handed to the link, or for room in the session.
    pub queued_bytes: u64,
}

impl Carried {
    /// What this session has carried.
    pub(crate) fn by(Live { session, backlog, .. }: &Live) -> Self {
        let stats = session.stats();
        Self {
            round_trip: stats.round_trip,
            jitter: stats.jitter,
            loss_ppm: stats.loss_ppm(),
            resumes: stats.resumes,
            hand_overs: stats.hand_overs,
            held: stats.detached,
            lanes: Lane::ALL.map(|lane| {
                let of = stats.lane(lane);
                LaneCarried {
                    sent_bytes: of.sent_bytes,
                    received_bytes: of.received_bytes,
                    sent_frames: of.sent_frames,
                    received_frames: of.received_frames,
                    retransmitted_frames: of.retransmitted_frames,
                    discarded_frames: of.discarded_frames,
                    dropped_messages: of.dropped_messages,
                    queued_bytes: (session.queued(lane) + backlog.waiting(lane)) as u64,
                }
            }),
        }
    }
}
