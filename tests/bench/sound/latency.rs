//! How long sound takes, as a whole and stage by stage.
//!
//! ```text
//!   guest's position ──► packet ── link ──► jitter buffer ──► card's ring ──► card's callback
//!          └─ complete, sent and here ─┘└─ until it is due ─┘└─ until it is taken ─┘
//! ```

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hda_ctrl::Wish;
use link::Link;
use wire::audio::Reception;

use crate::{
    desk::{self, Heard},
    host::{self, Guest, Passed},
};

/// What is left out at the beginning of a measurement, and how long it takes.
const WARM_UP: Duration = Duration::from_secs(75);
const LENGTH: Duration = Duration::from_secs(30);

/// The two ends of a link.
pub(crate) type Ends = (Box<dyn Link>, Box<dyn Link>);

/// Latencies in milliseconds.
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    count: usize,
}

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN);
        Self { p50: at(50), p99: at(99), count: times.len() }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:>6.1} ms  p99 {:>6.1} ms  ({} frames)", self.p50, self.p99, self.count)
    }
}

/// What came of a measurement.
pub(crate) struct Outcome {
    pub(crate) played: Times,
    pub(crate) recorded: Times,
    /// The stages of playback, by name.
    pub(crate) stages: [(&'static str, Times); 3],
    pub(crate) remarks: Vec<String>,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One stream each way for a while.
pub(crate) async fn once((here, there): Ends, wish: Wish, records: bool) -> Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let guest = Guest { streams: 1, records, looks: true };
    let host = host::start(here, wish, guest, Arc::clone(&stop));
    let desk = tokio::spawn(desk::run(there, wish, Arc::clone(&stop)));
    let begin = Instant::now() + WARM_UP;
    tokio::time::sleep(WARM_UP + LENGTH).await;
    stop.store(true, Relaxed);
    let passed = host.join().ok().context("the host")??;
    let heard = desk.await?;

    let added =
        |(at, frame): &(Instant, u64)| Some(millis(at.saturating_duration_since(passed.when(*frame)?)));
    let played = heard.card.played.iter().filter(|(at, _)| *at > begin).filter_map(added).collect();
    // The frame before the guest's position was handed out with the period that it was in.
    let recorded = passed.recorded.iter().filter(|(at, number)| *at > begin && *number > 0).filter_map(
        |(at, number)| {
            let period = heard.card.recorded.partition_point(|(_, last)| last < number);
            Some(millis(at.saturating_duration_since(heard.card.recorded.get(period)?.0)))
        },
    );
    Ok(Outcome {
        played: Times::of(played),
        recorded: Times::of(recorded.collect()),
        stages: stages(begin, &passed, &heard),
        remarks: remarks(&heard),
    })
}

/// Of each frame that the card has taken: where it was, and for how long.
fn stages(begin: Instant, passed: &Passed, heard: &Heard) -> [(&'static str, Times); 3] {
    let by_frame = |marks: &[(Instant, u64)]| -> HashMap<u64, Instant> {
        marks.iter().rev().map(|(at, frame)| (*frame, *at)).collect()
    };
    let (came, put) = (by_frame(&heard.came), by_frame(&heard.put));
    let mut spent = [Vec::new(), Vec::new(), Vec::new()];
    for (at, frame) in heard.card.played.iter().filter(|(at, _)| *at > begin) {
        let (Some(passed), Some(came), Some(put)) = (passed.when(*frame), came.get(frame), put.get(frame))
        else {
            continue;
        };
        let moments = [passed, *came, *put, *at];
        for (stage, pair) in spent.iter_mut().zip(moments.windows(2)) {
            stage.push(millis(pair[1].saturating_duration_since(pair[0])));
        }
    }
    let [way, waits, ring] = spent.map(Times::of);
    [("packet complete, sent and here", way), ("in the jitter buffer", waits), ("in the card's ring", ring)]
}

fn remarks(heard: &Heard) -> Vec<String> {
    let buffer = |Reception { level, target, jitter, slipped, .. }: &Reception| {
        let [level, target, jitter] = [level, target, jitter].map(|time| millis(*time));
        format!("level {level:.1} ms of {target:.1}, jitter {jitter:.1} ms, {slipped} frames slipped")
    };
    let sound::Counters { played: frames, lost, concealed, waited, cut, .. } = heard.counters;
    let codec = if heard.opus { "Opus" } else { "PCM" };
    let xruns = heard.card.xruns;
    let counts = format!(
        "{codec}: {frames} frames played, {lost} lost, {concealed} made up, {waited} waited, {cut} cut, {xruns} xruns"
    );
    let desk = heard.last.iter().map(|last| format!("the desk's jitter buffer at the end: {}", buffer(last)));
    let host = heard.microphone.iter().map(|last| format!("the microphone's: {}", buffer(last)));
    std::iter::once(counts).chain(desk).chain(host).collect()
}
