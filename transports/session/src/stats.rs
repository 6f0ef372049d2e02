//! What a session has carried.

use std::time::Duration;

use wire::Lane;

use crate::lanes::Lanes;

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
}

/// What a session has carried.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) lanes: Lanes<LaneStats>,
    /// The latest round trip of a ping, as the application sees it.
    pub round_trip: Option<Duration>,
    /// The shortest round trip so far.
    pub shortest_round_trip: Option<Duration>,
    /// Frames of another epoch, dropped.
    pub stale_frames: u64,
}

impl Stats {
    /// What this lane has carried.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> LaneStats {
        *self.lanes.of(lane)
    }

    pub(crate) fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
        self.shortest_round_trip =
            Some(self.shortest_round_trip.map_or(round_trip, |shortest| shortest.min(round_trip)));
    }
}
