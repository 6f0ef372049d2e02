//! What is recorded, on its way from the remote: a receiver for each recording, from which the model is given what the
//! guest's clock is about to take.
//!
//! ```text
//!   remote ── RecordedCoded ──► Receiver ── as time passes ──► hda's recorder (a millisecond ahead)
//!     ▲                            │
//!     └── Reception, Missing ◄─────┘
//! ```
//! A recording begins exact: frames pass as they came, and where the time line has to wait the guest hears silence. When
//! its buffer drifts away from where it should be, because the microphone's clock is not the one that the sample clock
//! follows, it is resampled from then on.

use std::{collections::BTreeMap, time::Duration};

use hda::Packet;
use sound::{Config, Receiver, codec, frames_in};
use wire::audio::{Codec, Coded, Format, Reception, StreamId, ToRemote};

/// What the model has beyond what it is about to take: it may be asked for positions in between.
const AHEAD: Duration = Duration::from_millis(1);
/// The most that it is given at once; a host that was later than that lets time slip.
const LATEST: Duration = Duration::from_millis(200);
/// How much comes at once: a microphone hands out its periods.
const PERIOD: Duration = Duration::from_millis(10);
/// How a recording begins.
const CONFIG: Config = Config { period: PERIOD, ..Config::LAN };
/// For so long nothing is known of a microphone's clock.
const UNKNOWN: Duration = Duration::from_secs(30);
/// A buffer that is further from its target, on average, drifts: microseconds.
const DRIFTS: i64 = 10_000;
/// Reports that an error is averaged over.
const MEAN: i64 = 32;

/// All recordings.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    recordings: BTreeMap<StreamId, Recording>,
    /// When the model was given frames last.
    fed: Duration,
    round_trip: Option<Duration>,
}

/// One of them.
#[derive(Debug)]
struct Recording {
    run: u32,
    format: Format,
    /// The last packet was Opus.
    opus: bool,
    /// None before the first packet.
    receiver: Option<Receiver>,
    resampled: bool,
    since: Duration,
    /// How much more waits than should, on average, microseconds.
    error: i64,
    /// The index of the next frame for the model.
    position: u64,
}

impl Capture {
    /// The remote was asked to record.
    pub(crate) fn begin(&mut self, now: Duration, stream: StreamId, run: u32, format: Format) {
        if self.recordings.is_empty() {
            // Nobody has been given anything since the last one: that time is no part of this one.
            self.fed = now;
        }
        let (receiver, resampled, since) = (None, false, now);
        let (opus, error, position) = (false, 0, 0);
        let recording = Recording { run, format, opus, receiver, resampled, since, error, position };
        self.recordings.insert(stream, recording);
    }

    /// It was asked to stop.
    pub(crate) fn end(&mut self, stream: StreamId) {
        self.recordings.remove(&stream);
    }

    /// All recordings, which have ended with the model that wanted them.
    pub(crate) fn end_all(&mut self) -> Vec<(StreamId, u32)> {
        let all = std::mem::take(&mut self.recordings).into_iter();
        all.map(|(stream, recording)| (stream, recording.run)).collect()
    }

    /// How long a message to the remote and its answer take; none: that is not known.
    pub(crate) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
    }

    /// Takes a packet of a recording; one that nobody has asked for is dropped. Appends what to ask the remote for.
    pub(crate) fn push(&mut self, now: Duration, coded: &Coded, out: &mut Vec<ToRemote>) {
        let Some(recording) = self.recordings.get_mut(&coded.stream) else { return };
        if (recording.run, recording.format) != (coded.run, coded.format) {
            return;
        }
        recording.opus = coded.block.codec == Codec::Opus;
        if recording.receiver.is_none() {
            recording.since = now;
            recording.receiver = Receiver::new(coded, CONFIG.over(self.round_trip)).ok();
        }
        if let Some(receiver) = &mut recording.receiver {
            receiver.set_round_trip(self.round_trip);
            receiver.push(now, coded);
            out.extend(receiver.missing().map(ToRemote::Missing));
        }
    }

    /// Whether the model needs frames before it goes on.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        !self.recordings.is_empty() && now.saturating_sub(self.fed) >= AHEAD
    }

    /// What the model is to be given now, if so many frames `wait` there already; appends what to tell the remote.
    pub(crate) fn pull(
        &mut self,
        now: Duration,
        wait: impl Fn(StreamId) -> Option<u64>,
        out: &mut Vec<ToRemote>,
    ) -> Vec<Packet> {
        let passed = now.saturating_sub(std::mem::replace(&mut self.fed, now)).min(LATEST);
        let mut packets = Vec::new();
        for (stream, recording) in &mut self.recordings {
            let Some(waiting) = wait(*stream) else { continue };
            let wanted = frames_in(passed + AHEAD, recording.format.rate).saturating_sub(waiting);
            packets.extend(recording.pull(now, *stream, wanted));
            if let Some(report) = recording.report(now, *stream, self.round_trip) {
                out.push(ToRemote::Reception(report));
            }
        }
        packets
    }
}

impl Recording {
    fn pull(&mut self, now: Duration, stream: StreamId, frames: u64) -> Option<Packet> {
        let (run, format, position) = (self.run, self.format, self.position);
        let receiver = self.receiver.as_mut().filter(|_| frames > 0)?;
        let channels = usize::from(format.channels);
        let mut samples = vec![0; usize::try_from(frames).ok()? * channels];
        receiver.pull(now, &mut samples);
        if !self.resampled {
            for filler in receiver.fillers() {
                let filler = filler.start * channels..filler.end * channels;
                samples.get_mut(filler).unwrap_or_default().fill(0);
            }
        }
        self.position += frames;
        Some(Packet { stream, run, position, format, pcm: codec::pcm(format, &samples) })
    }

    /// What there is to tell the remote; whether the clocks drift apart is looked at as often.
    fn report(&mut self, now: Duration, stream: StreamId, round_trip: Option<Duration>) -> Option<Reception> {
        let receiver = self.receiver.as_mut()?;
        let report = receiver.report()?;
        let drift = self.resampled.then(|| receiver.ratio());
        measure(&report, self.format, self.opus, drift, round_trip.unwrap_or_default());
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        self.error += (micros(report.level).saturating_sub(micros(report.target)) - self.error) / MEAN;
        let known = now.saturating_sub(self.since) >= UNKNOWN;
        // Not in the middle of silence that is none of the microphone's.
        let heard = receiver.fillers().is_empty();
        if !self.resampled && known && heard && self.error.abs() > DRIFTS && receiver.resample().is_ok() {
            tracing::info!(stream = stream.0, "the microphone's clock drifts: it is resampled from now on");
            self.resampled = true;
        }
        Some(report)
    }
}

/// What an operator sees. Times in milliseconds; the way here is taken for half of the way there and back. The drift is
/// known once it is resampled.
fn measure(report: &Reception, format: Format, opus: bool, drift: Option<i32>, round_trip: Duration) {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let labels = [("stream", report.stream.0.to_string())];
    let gauge = |name: &'static str, value: f64| metrics::gauge!(name, &labels).set(value);
    gauge("farbus_record_rate_hz", format.rate.into());
    gauge("farbus_record_bits", format.encoding.significant_bits().into());
    gauge("farbus_record_channels", format.channels.into());
    gauge("farbus_record_opus", f64::from(u8::from(opus)));
    gauge("farbus_record_round_trip_ms", millis(round_trip));
    gauge("farbus_record_latency_ms", millis(report.level + round_trip / 2));
    gauge("farbus_record_jitter_ms", millis(report.jitter));
    gauge("farbus_record_loss_ppm", report.loss.into());
    gauge("farbus_record_concealed_frames", report.concealed.into());
    gauge("farbus_record_slipped_frames", report.slipped.into());
    drift.into_iter().for_each(|drift| gauge("farbus_record_drift_ppb", drift.into()));
}

#[cfg(test)]
mod tests {
    use sound::samples::widen;
    use wire::audio::{Block, Encoding};

    use super::*;

    const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S32, channels: 1 };
    const STREAM: StreamId = StreamId(0);
    const MS: Duration = Duration::from_millis(1);

    fn coded(run: u32, position: u64, pcm: Vec<u8>) -> Coded {
        let frames = (pcm.len() / 4) as u16;
        let block = Block { position, frames, codec: Codec::Pcm, payload: pcm.into() };
        Coded { stream: STREAM, run, again: false, format: FORMAT, block, copies: Vec::new() }
    }

    /// A guest that takes what it is given each millisecond, and a microphone this much faster than it, in ppm, whose
    /// frames are numbered from 1 on.
    fn record(seconds: u32, ppm: i64) -> (Vec<i32>, Capture) {
        let mut capture = Capture::default();
        capture.begin(Duration::ZERO, STREAM, 1, FORMAT);
        let (mut heard, mut out, mut sent, mut had) = (Vec::new(), Vec::new(), 0u64, 0u64);
        for n in 0..seconds * 1_000 {
            let said = i64::from(n) * (48_000_000 + ppm * 48) / 1_000_000;
            while sent + 240 <= said.unsigned_abs() {
                let pcm: Vec<u8> = (sent + 1..=sent + 240).flat_map(|n| (n as i32).to_le_bytes()).collect();
                capture.push(MS * n, &coded(1, sent, pcm), &mut out);
                sent += 240;
            }
            had = had.saturating_sub(48);
            for packet in capture.pull(MS * n, |_| Some(had), &mut out) {
                widen(FORMAT.encoding, &packet.pcm, &mut heard);
                had += packet.pcm.len() as u64 / 4;
            }
        }
        (heard, capture)
    }

    #[test]
    fn a_microphone_of_the_same_clock_is_heard_frame_by_frame() {
        let (heard, capture) = record(60, 0);
        let sound: Vec<i32> = heard.into_iter().skip_while(|sample| *sample == 0).collect();
        assert!(sound.len() > 59 * 48_000 && sound.iter().zip(1..).all(|(heard, said)| *heard == said));
        assert!(!capture.recordings[&STREAM].resampled);
    }

    #[test]
    fn a_microphone_of_another_clock_is_resampled_and_its_latency_stays() {
        for ppm in [-600, 600] {
            let (heard, capture) = record(240, ppm);
            let recording = &capture.recordings[&STREAM];
            let receiver = recording.receiver.as_ref().unwrap();
            assert!(recording.resampled, "{ppm} ppm");
            let off = i64::from(receiver.ratio()) / 1_000 - ppm;
            assert!(off.abs() < 100, "{ppm} ppm: {off} off");
            assert!(receiver.queued() < 48 * 60, "{ppm} ppm: {} frames wait", receiver.queued());
            assert!((heard.len() as i64 - 240 * 48_000).abs() < 4_800);
            // A slow one runs dry before anybody knows. A fast one is heard without any jump, as far as the filter's
            // 24 bits can tell: to some frames.
            let sound = heard.into_iter().skip_while(|sample| *sample == 0).take(60 * 48_000);
            let sound: Vec<i32> = sound.collect();
            let mut jumps = sound.windows(2).filter(|pair| (pair[1] - pair[0]).abs() > 8);
            let jump = jumps.next().filter(|_| ppm > 0);
            assert_eq!(jump, None, "{ppm} ppm");
        }
    }

    #[test]
    fn an_operator_sees_how_a_microphone_is_heard_and_its_drift_once_that_is_known() {
        for ppm in [0, 600] {
            let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
            let seen = recorder.handle();
            let (_, capture) = metrics::with_local_recorder(&recorder, || record(120, ppm));
            let seen = seen.render();
            let value = |name: &str| {
                let line = format!("farbus_record_{name}{{stream=\"{}\"}} ", STREAM.0);
                seen.lines().find_map(|seen| seen.strip_prefix(&line)?.parse::<f64>().ok())
            };
            for (name, expected) in
                [("rate_hz", 48_000.0), ("bits", 32.0), ("channels", 1.0), ("opus", 0.0), ("loss_ppm", 0.0)]
            {
                assert_eq!(value(name), Some(expected), "{name} in\n{seen}");
            }
            let counters = capture.recordings[&STREAM].receiver.as_ref().unwrap().counters();
            assert_eq!(value("concealed_frames"), Some(counters.concealed as f64));
            assert!(value("latency_ms").is_some_and(|ms| (5.0..60.0).contains(&ms)), "{seen}");
            assert!(value("jitter_ms").is_some() && value("slipped_frames").is_some(), "{seen}");
            let drift = value("drift_ppb");
            assert!(if ppm == 0 { drift.is_none() } else { drift > Some(300_000.0) }, "{ppm} ppm: {drift:?}");
        }
    }

    /// From a microphone that is this much faster than the guest, in ppm, to the guest: the longest latency of so many
    /// hours, and its mean in the second hour and in the last one, in ms.
    fn latency(hours: u64, ppm: i64) -> (f64, f64, f64) {
        const SLOW: Format = Format { rate: 8_000, ..FORMAT };
        const STEP: u32 = 10;
        let (mut capture, mut out) = (Capture::default(), Vec::new());
        capture.begin(Duration::ZERO, STREAM, 1, SLOW);
        let (mut sent, mut had, mut worst) = (0u64, 0u64, 0);
        let mut means = vec![0; hours as usize];
        let mut faults = None;
        let step = 8 * u64::from(STEP);
        for n in 0..hours * 360_000 {
            let now = STEP * MS * n as u32;
            let said = (n * step).saturating_add_signed((n * step) as i64 * ppm / 1_000_000);
            while sent + step <= said {
                let coded = Coded { format: SLOW, ..coded(1, sent, vec![9; 4 * step as usize]) };
                capture.push(now, &coded, &mut out);
                sent += step;
            }
            had = had.saturating_sub(step);
            let given = capture.pull(now, |_| Some(had), &mut out);
            had += given.iter().map(|packet| packet.pcm.len() as u64 / 4).sum::<u64>();
            out.clear();
            let receiver = capture.recordings[&STREAM].receiver.as_ref();
            let waits = had + receiver.map_or(0, |receiver| said - receiver.playing());
            worst = worst.max(waits);
            if n % 360_000 == 359_999 {
                let counters = receiver.map(Receiver::counters).unwrap_or_default();
                let sum = counters.waited + counters.cut + counters.lost + counters.late;
                assert_eq!(*faults.get_or_insert(sum), sum, "hour {}: {counters:?}", n / 360_000);
            }
            means[(n / 360_000) as usize] += waits;
        }
        assert!(capture.recordings[&STREAM].resampled);
        let millis = |frames: u64| frames as f64 / 8.0;
        let mean = |hour: usize| millis(means[hour]) / 360_000.0;
        (millis(worst), mean(1), mean(means.len() - 1))
    }

    fn day(ppm: i64) {
        let (worst, first, last) = latency(24, ppm);
        println!(
            "24 h at {ppm:+} ppm: {worst:.1} ms at worst, {first:.2} ms at first, {last:.2} ms in the end"
        );
        assert!(worst < 150.0, "{ppm} ppm: {worst} ms");
        assert!((last - first).abs() <= 1.0, "{ppm} ppm: from {first} to {last} ms");
    }

    #[test]
    fn the_latency_of_a_day_of_a_fast_microphone_stays_below_150_ms_and_ends_as_it_began() {
        day(200);
    }

    #[test]
    fn the_latency_of_a_day_of_a_slow_microphone_stays_below_150_ms_and_ends_as_it_began() {
        day(-200);
    }

    #[test]
    fn the_time_before_a_recording_is_no_part_of_it() {
        let (mut capture, mut out) = (Capture::default(), Vec::new());
        capture.begin(MS * 100, STREAM, 1, FORMAT);
        // More comes at once than has to wait, before the model has asked for anything.
        capture.push(MS * 100, &coded(1, 0, vec![1; 40 * 48 * 4]), &mut out);
        let packets = capture.pull(MS * 101, |_| Some(0), &mut out);
        let given: usize = packets.iter().map(|packet| packet.pcm.len() / 4).sum();
        assert_eq!(given, 96, "the millisecond that has passed, and the next");
        let receiver = capture.recordings[&STREAM].receiver.as_ref().unwrap();
        assert_eq!((receiver.queued(), receiver.counters().waited), (38 * 48, 0));
    }

    #[test]
    fn what_nobody_has_asked_for_is_dropped() {
        let (mut capture, mut out) = (Capture::default(), Vec::new());
        capture.push(MS, &coded(1, 0, vec![1; 400]), &mut out);
        capture.begin(MS, STREAM, 2, FORMAT);
        capture.push(MS, &coded(1, 0, vec![1; 400]), &mut out);
        assert!(capture.pull(MS * 9, |_| Some(0), &mut out).is_empty() && out.is_empty());
        assert_eq!(capture.end_all(), [(STREAM, 2)]);
    }
}
