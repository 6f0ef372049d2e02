//! What a worker's controllers measure (`metrics::counter!` and `gauge!`), on its way to the manager, which exports it.
//! Nothing is recorded unless the configuration asks for metrics.

use std::sync::{Arc, atomic::Ordering};

use anyhow::{Context as _, Result};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, set_global_recorder,
};
use metrics_util::registry::{AtomicStorage, Registry};
use serde::{Deserialize, Serialize};

/// Measures in one message: with names and labels as ours are, less than half a packet.
const TOGETHER: usize = 24;

/// One measure at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: Value,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value {
    /// How often something happened since the worker started.
    Count(u64),
    /// How much of something there is.
    Level(f64),
}

/// What this process has measured.
#[derive(Clone)]
pub(crate) struct Measured(Arc<Registry<Key, AtomicStorage>>);

impl Measured {
    /// Records from now on what this process measures.
    ///
    /// # Errors
    /// Something else records it already.
    pub(crate) fn record() -> Result<Self> {
        let measured = Self::new();
        set_global_recorder(measured.clone()).context("recording what the controllers measure")?;
        Ok(measured)
    }

    fn new() -> Self {
        Self(Arc::new(Registry::atomic()))
    }

    /// All measures of this moment, as many together as fit a packet.
    pub(crate) fn all(&self) -> Vec<Vec<Measure>> {
        let mut all = Vec::new();
        self.0.visit_counters(|key, count| {
            all.push(measure(key, Value::Count(count.load(Ordering::Relaxed))));
        });
        self.0.visit_gauges(|key, level| {
            all.push(measure(key, Value::Level(f64::from_bits(level.load(Ordering::Relaxed)))));
        });
        all.chunks(TOGETHER).map(<[_]>::to_vec).collect()
    }
}

fn measure(key: &Key, value: Value) -> Measure {
    let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
    Measure { name: key.name().to_owned(), labels: labels.collect(), value }
}

impl Recorder for Measured {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |counter| Counter::from_arc(Arc::clone(counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| Gauge::from_arc(Arc::clone(gauge)))
    }

    /// There are none in a worker.
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_said_in_packets_that_fit() {
        let measured = Measured::new();
        metrics::with_local_recorder(&measured, || {
            for stream in 0..30 {
                let labels = [("stream", stream.to_string())];
                metrics::gauge!("farbus_play_concealed_frames", &labels).set(f64::MAX);
            }
            metrics::counter!("farbus_hda_slip_us").absolute(7);
            metrics::counter!("farbus_hda_slip_us").absolute(9);
        });
        let all = measured.all();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [24, 7]);
        let slip = Measure { name: "farbus_hda_slip_us".to_owned(), labels: vec![], value: Value::Count(9) };
        assert!(all.concat().contains(&slip));
        for together in all {
            let bytes = rmp_serde::to_vec_named(&together).unwrap();
            assert!(bytes.len() < 4096, "{}", bytes.len());
        }
    }
}
