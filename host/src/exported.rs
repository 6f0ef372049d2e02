//! The metrics endpoint: what workers count, labelled with their VMs, for Prometheus. Off unless the configuration says
//! where; it has a thread of its own, and no authentication.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result};
use metrics::{Label, counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::{
    counted::{Counted, LaneCounted},
    measured::{Measure, Value},
};

/// Serves metrics there, from now on.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let exporter = PrometheusBuilder::new().with_http_listener(address).with_recommended_naming(true);
    exporter
        .install()
        .with_context(|| format!("serving metrics at {address} (the key `metrics` of the configuration)"))
}

/// Measures of one VM's controllers that are exported; there are a tenth of it.
const MEASURES: usize = 512;

/// What was exported last of each VM: sessions and workers begin at zero again, exported counters never do.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    counted: BTreeMap<String, Counted>,
    /// Of measures that are counts, by VM.
    counts: BTreeMap<String, BTreeMap<Series, u64>>,
}

/// What tells one measure from another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Exported {
    /// Exports what a VM's worker has counted.
    pub(crate) fn export(&mut self, vm: &str, counted: &Counted) {
        let none = Counted::default();
        let before = self.counted.get(vm).unwrap_or(&none);
        for (name, count) in grown(before, counted) {
            counter!(name, "vm" => vm.to_owned()).increment(count);
        }
        gauge!("farbus_devices", "vm" => vm.to_owned()).set(counted.devices as f64);
        if let Some(round_trip) = counted.round_trip_us {
            gauge!("farbus_round_trip_seconds", "vm" => vm.to_owned()).set(seconds(round_trip));
        }
        gauge!("farbus_jitter_seconds", "vm" => vm.to_owned()).set(seconds(counted.jitter_us));
        gauge!("farbus_loss_ratio", "vm" => vm.to_owned()).set(seconds(counted.loss_ppm));
        let none = LaneCounted::default();
        for (at, lane) in counted.lanes.iter().enumerate() {
            let labels = [("vm", vm.to_owned()), ("lane", lane.lane.clone())];
            for (name, count) in lane_grown(before.lanes.get(at).unwrap_or(&none), lane) {
                counter!(name, &labels).increment(count);
            }
            gauge!("farbus_lane_queued_bytes", &labels).set(lane.queued_bytes as f64);
        }
        self.counted.insert(vm.to_owned(), counted.clone());
    }

    /// Exports what a VM's controllers have measured.
    pub(crate) fn measured(&mut self, vm: &str, measures: Vec<Measure>) {
        let counts = self.counts.entry(vm.to_owned()).or_default();
        for Measure { name, labels, value } in measures {
            let mut all = vec![Label::new("vm", vm.to_owned())];
            all.extend(labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone())));
            match value {
                Value::Level(level) => gauge!(name, all).set(level),
                Value::Count(count) => {
                    let known = counts.len();
                    let series = Series { name: name.clone(), labels };
                    if known >= MEASURES && !counts.contains_key(&series) {
                        continue;
                    }
                    let before = counts.insert(series, count).unwrap_or_default();
                    counter!(name, all).increment(since(before, count));
                }
            }
        }
    }

    /// Exports whether a VM has a remote.
    pub(crate) fn linked(vm: &str, linked: bool) {
        gauge!("farbus_linked", "vm" => vm.to_owned()).set(f64::from(u8::from(linked)));
    }

    /// Exports that a VM's worker has ended.
    pub(crate) fn worker_ended(vm: &str) {
        counter!("farbus_worker_ends", "vm" => vm.to_owned()).increment(1);
    }
}

fn grown(before: &Counted, now: &Counted) -> [(&'static str, u64); 6] {
    let since = |of: fn(&Counted) -> u64| since(of(before), of(now));
    [
        ("farbus_sound_frames", since(|c| c.frames)),
        ("farbus_usb_requests", since(|c| c.requests)),
        ("farbus_links", since(|c| c.links)),
        ("farbus_resumes", since(|c| c.resumes)),
        ("farbus_hand_overs", since(|c| c.hand_overs)),
        ("farbus_held_milliseconds", since(|c| c.held_ms)),
    ]
}

fn lane_grown(before: &LaneCounted, now: &LaneCounted) -> [(&'static str, u64); 7] {
    let since = |of: fn(&LaneCounted) -> u64| since(of(before), of(now));
    [
        ("farbus_lane_sent_bytes", since(|l| l.sent_bytes)),
        ("farbus_lane_received_bytes", since(|l| l.received_bytes)),
        ("farbus_lane_sent_frames", since(|l| l.sent_frames)),
        ("farbus_lane_received_frames", since(|l| l.received_frames)),
        ("farbus_lane_retransmitted_frames", since(|l| l.retransmitted_frames)),
        ("farbus_lane_discarded_frames", since(|l| l.discarded_frames)),
        ("farbus_lane_dropped_messages", since(|l| l.dropped_messages)),
    ]
}

/// How much a count has grown; one that shrank has begun anew.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Seconds of microseconds, or a ratio of parts of a million.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_begins_anew_is_added_to_what_was_exported() {
        let exporter = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
        let lane = |sent_bytes| LaneCounted { lane: "bulk".to_owned(), sent_bytes, ..LaneCounted::default() };
        let counted = |requests, sent| Counted { requests, lanes: vec![lane(sent)], ..Counted::default() };
        metrics::with_local_recorder(&exporter, || {
            let mut exported = Exported::default();
            for (requests, sent) in [(5, 100), (7, 150), (1, 20)] {
                exported.export("desk", &counted(requests, sent));
            }
            Exported::linked("desk", true);
            let labels = vec![("stream".to_owned(), "1".to_owned())];
            let measure =
                |name: &str, value| Measure { name: name.to_owned(), labels: labels.clone(), value };
            for count in [3, 4, 1] {
                exported.measured("desk", vec![measure("farbus_slips", Value::Count(count))]);
            }
            exported.measured("desk", vec![measure("farbus_play_rate_hz", Value::Level(48_000.0))]);
        });
        let text = exporter.handle().render();
        for line in [
            "farbus_usb_requests_total{vm=\"desk\"} 8",
            "farbus_lane_sent_bytes_total{vm=\"desk\",lane=\"bulk\"} 170",
            "farbus_linked{vm=\"desk\"} 1",
            "farbus_slips_total{vm=\"desk\",stream=\"1\"} 5",
            "farbus_play_rate_hz{vm=\"desk\",stream=\"1\"} 48000",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
