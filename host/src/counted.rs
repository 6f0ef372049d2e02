//! What a worker counts, as it is said to the manager, shown by `farbus-host status --json`, and exported.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vm_session::{Counters, LaneCarried};
use wire::Lane;

/// What a VM's worker has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Frames of sound sent since the worker started.
    pub(crate) frames: u64,
    /// USB requests sent since then.
    pub(crate) requests: u64,
    /// Links that came up since then.
    pub(crate) links: u64,
    /// Devices that are lent.
    pub(crate) devices: u64,
    /// The latest round trip, microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// How much round trips vary, microseconds.
    pub(crate) jitter_us: u64,
    /// Frames that were sent again or did not come, of all, parts of a million.
    pub(crate) loss_ppm: u64,
    /// How often this session went on after it had lost its link.
    pub(crate) resumes: u64,
    /// How often it moved to another link.
    pub(crate) hand_overs: u64,
    /// How long it was without a link in all, milliseconds.
    pub(crate) held_ms: u64,
    /// What its lanes have carried.
    pub(crate) lanes: Vec<LaneCounted>,
}

/// What a lane of the session has carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneCounted {
    pub(crate) lane: String,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_frames: u64,
    pub(crate) received_frames: u64,
    /// Frames sent again.
    pub(crate) retransmitted_frames: u64,
    /// Frames received that were of no use.
    pub(crate) discarded_frames: u64,
    /// Messages that found no room.
    pub(crate) dropped_messages: u64,
    /// Bytes that wait.
    pub(crate) queued_bytes: u64,
}

impl Counted {
    /// Whether it says of sound, requests and links what this one says.
    pub(crate) fn moved_as(&self, other: &Self) -> bool {
        (self.frames, self.requests, self.links) == (other.frames, other.requests, other.links)
    }
}

impl From<Counters> for Counted {
    fn from(counters: Counters) -> Self {
        let Counters { frames, requests, links, devices, carried } = counters;
        Self {
            frames,
            requests,
            links,
            devices,
            round_trip_us: carried.round_trip.map(micros),
            jitter_us: micros(carried.jitter),
            loss_ppm: carried.loss_ppm,
            resumes: carried.resumes,
            hand_overs: carried.hand_overs,
            held_ms: micros(carried.held) / 1000,
            lanes: Lane::ALL.into_iter().zip(carried.lanes).map(LaneCounted::from).collect(),
        }
    }
}

impl From<(Lane, LaneCarried)> for LaneCounted {
    fn from((lane, carried): (Lane, LaneCarried)) -> Self {
        let LaneCarried {
            sent_bytes,
            received_bytes,
            sent_frames,
            received_frames,
            retransmitted_frames,
            discarded_frames,
            dropped_messages,
            queued_bytes,
        } = carried;
        Self {
            lane: format!("{lane:?}").to_lowercase(),
            sent_bytes,
            received_bytes,
            sent_frames,
            received_frames,
            retransmitted_frames,
            discarded_frames,
            dropped_messages,
            queued_bytes,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use vm_session::Carried;

    use super::*;

    #[test]
    fn what_a_worker_has_counted_is_told_field_by_field() {
        let lane = |at: u64| LaneCarried {
            sent_bytes: at + 1,
            received_bytes: at + 2,
            sent_frames: at + 3,
            received_frames: at + 4,
            retransmitted_frames: at + 5,
            discarded_frames: at + 6,
            dropped_messages: at + 7,
            queued_bytes: at + 8,
        };
        let carried = Carried {
            round_trip: Some(Duration::from_micros(11)),
            jitter: Duration::from_micros(12),
            loss_ppm: 13,
            resumes: 14,
            hand_overs: 15,
            held: Duration::from_millis(16),
            lanes: [100, 200, 300, 400, 500].map(lane),
        };
        let counters = Counters { frames: 21, requests: 22, links: 23, devices: 24, carried };
        let lane = |lane: &str, at: u64| LaneCounted {
            lane: lane.to_owned(),
            sent_bytes: at + 1,
            received_bytes: at + 2,
            sent_frames: at + 3,
            received_frames: at + 4,
            retransmitted_frames: at + 5,
            discarded_frames: at + 6,
            dropped_messages: at + 7,
            queued_bytes: at + 8,
        };
        let expected = Counted {
            frames: 21,
            requests: 22,
            links: 23,
            devices: 24,
            round_trip_us: Some(11),
            jitter_us: 12,
            loss_ppm: 13,
            resumes: 14,
            hand_overs: 15,
            held_ms: 16,
            lanes: [("ctl", 100), ("int", 200), ("audio", 300), ("iso", 400), ("bulk", 500)]
                .map(|(name, at)| lane(name, at))
                .into(),
        };
        assert_eq!(Counted::from(counters), expected);
    }

    #[test]
    fn the_largest_report_fits_a_packet_of_the_workers_channel() {
        let mut counters =
            Counters { frames: u64::MAX, requests: u64::MAX, links: u64::MAX, ..Counters::default() };
        counters.carried.round_trip = Some(Duration::MAX);
        counters.carried.lanes.iter_mut().for_each(|lane| lane.sent_bytes = u64::MAX);
        let bytes = rmp_serde::to_vec_named(&Counted::from(counters)).unwrap();
        assert!(bytes.len() < 4096, "{}", bytes.len());
    }
}
