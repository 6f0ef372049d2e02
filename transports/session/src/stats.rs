//! What a session has carried.

use std::time::Duration;

use wire::Lane;

use crate::lanes::Lanes;

/// Never sooner: acknowledgements wait, too.
const LEAST_PATIENCE: Duration = Duration::from_millis(60);
/// Before a round trip was measured.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(250);

/// The answer to a ping that takes longer, and longer than three round trips, was lost on its way, or its ping was: what is
/// below a link says it again, TCP after 200 ms and SCTP after a second.
const LATE: Duration = Duration::from_millis(200);

/// What one lane has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Messages whose last chunk was handed to the link.
    pub sent_messages: u64,
    /// Frames handed to the link, chunks of messages only.
    pub sent_frames: u64,
    /// Bytes of messages handed to the link.
    pub sent_bytes: u64,
    /// Messages received whole.
    pub received_messages: u64,
    /// Frames received, chunks of messages only.
    pub received_frames: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// Messages that did not fit a queue or an inbox that drops its oldest.
    pub dropped_messages: u64,
    /// Frames of a lane that may lose that came late or again, or belonged to a message with a gap.
    pub discarded_frames: u64,
    /// Frames of a lane that may lose that never came, or came late: one, at least, for each gap.
    pub missing_frames: u64,
    /// Frames that were sent again: over a new link, or because they seemed to be lost.
    pub retransmitted_frames: u64,
    /// Frames of a reliable lane that came again, and were dropped.
    pub duplicate_frames: u64,
}

/// What a session has carried.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) lanes: Lanes<LaneStats>,
    /// The latest round trip of a ping, as the application sees it.
    pub round_trip: Option<Duration>,
    /// The shortest round trip so far.
    pub shortest_round_trip: Option<Duration>,
    /// How much the round trip varies: the mean difference between one and the next, smoothed over 16.
    pub jitter: Duration,
    /// The round trip over the link of the moment, smoothed over 8.
    pub(crate) smooth_round_trip: Option<Duration>,
    /// Pings that were answered, or given up when the next one went.
    pub pings: u64,
    /// Those of them whose answer did not come in time. It tells of loss on every kind of link, also where all is said
    /// again below it.
    pub late_pings: u64,
    /// Frames of another epoch or of a link that is gone, dropped.
    pub stale_frames: u64,
    /// How often the session went on after it had lost its link.
    pub resumes: u64,
    /// How often it moved to another link while it had one, as far as this end knew.
    pub hand_overs: u64,
    /// The time without a link, all outages that are over together.
    pub detached: Duration,
}

impl Stats {
    /// What this lane has carried.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> LaneStats {
        *self.lanes.of(lane)
    }

    /// What was sent again of all that was sent, and missing of all that was received: parts of a million.
    #[must_use]
    pub fn loss_ppm(&self) -> u64 {
        let sum =
            |of: fn(LaneStats) -> u64| Lane::ALL.map(|lane| of(self.lane(lane))).into_iter().sum::<u64>();
        let lost = sum(|lane| lane.retransmitted_frames + lane.missing_frames);
        let all = sum(|lane| {
            lane.sent_frames + lane.retransmitted_frames + lane.received_frames + lane.missing_frames
        });
        lost.saturating_mul(1_000_000) / all.max(1)
    }

    /// A ping was answered after this time, or was not when the next one went.
    pub(crate) fn pinged(&mut self, answered: Option<Duration>) {
        let in_time = LATE.max(self.smooth_round_trip.unwrap_or_default() * 3);
        self.pings += 1;
        self.late_pings += u64::from(answered.is_none_or(|after| after > in_time));
    }

    pub(crate) fn measured(&mut self, round_trip: Duration) {
        if let Some(before) = self.round_trip {
            self.jitter = smooth(self.jitter, before.abs_diff(round_trip), 16);
        }
        self.round_trip = Some(round_trip);
        self.shortest_round_trip =
            Some(self.shortest_round_trip.map_or(round_trip, |shortest| shortest.min(round_trip)));
        let before = self.smooth_round_trip.unwrap_or(round_trip);
        self.smooth_round_trip = Some(smooth(before, round_trip, 8));
    }

    /// How long a frame may stay unacknowledged before it is sent again where frames get lost.
    pub(crate) fn patience(&self) -> Duration {
        self.smooth_round_trip.map_or(UNKNOWN_PATIENCE, |round_trip| LEAST_PATIENCE.max(round_trip * 3))
    }
}

/// Moves a mean towards a sample by the `parts`-th part of the way.
fn smooth(mean: Duration, sample: Duration, parts: u32) -> Duration {
    mean - mean / parts + sample / parts
}
