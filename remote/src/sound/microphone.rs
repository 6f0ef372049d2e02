//! The microphone: one source for all recordings that the VM makes of it, open only while there are any.
//!
//! ```text
//!            Record, there, not muted                 samples, each tick
//!   closed ───────────────────────────► open(source) ─────► converters ─► Sender ─► RecordedCoded
//!     ▲   StopRecord, muted, no link        │ fails: it is tried again every second
//!     └─────────────────────────────────────┘
//! ```
//! While it is muted it is closed, as far as this computer can see; the VM hears silence and does not know.

use std::{collections::BTreeMap, time::Duration};

use ::sound::{
    Sender,
    choice::{Chooser, Plan, Wish},
};
use anyhow::Result;
use wire::audio::{Coded, Format, Missing, Reception, StreamId, ToHost};

use super::{Input, STREAMS, Source, convert::Converter, drift::Drift, status};
use crate::events::{Event, Events};

/// How long a source that cannot be opened, or has failed, is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// The microphone.
pub(super) struct Microphone {
    input: Input,
    wish: Wish,
    round_trip: Option<Duration>,
    events: Events,
    source: Option<Box<dyn Source>>,
    /// When a source failed last, or could not be opened.
    failed: Option<Duration>,
    recordings: BTreeMap<StreamId, Recording>,
    present: bool,
    muted: bool,
    /// Of sources that are closed.
    xruns: u64,
    /// How fast the source of the moment is, and the frames that it has had.
    drift: Drift,
    heard: u64,
}

/// What the VM wants of it.
struct Recording {
    run: u32,
    format: Format,
    /// None until the source is open, or if it cannot be had in this format.
    converter: Option<Converter>,
    sender: Sender,
    chooser: Chooser,
    plan: Plan,
    sent: u64,
    lost: u64,
    last: Option<Reception>,
}

impl Microphone {
    pub(super) fn new(input: Input, wish: Wish, events: Events) -> Self {
        let (round_trip, recordings) = (None, BTreeMap::new());
        let (source, failed, present, muted, xruns) = (None, None, false, false, 0);
        let (drift, heard) = (Drift::default(), 0);
        Self {
            input,
            wish,
            round_trip,
            events,
            source,
            failed,
            recordings,
            present,
            muted,
            xruns,
            drift,
            heard,
        }
    }

    /// The VM wants to hear it, from now on.
    pub(super) fn record(&mut self, stream: StreamId, run: u32, format: Format) {
        if stream.0 >= STREAMS || !self.input.granted() {
            return;
        }
        self.stop(stream, None);
        let Format { rate, encoding, channels } = format;
        let bits = encoding.significant_bits();
        self.events.say(&Event::RecordingStarted { stream: stream.0, run, rate, bits, channels });
        let chooser = Chooser::new(self.wish, format);
        let plan = chooser.plan(self.round_trip);
        let sender = Sender::new(stream, run, format, 0, plan);
        let (converter, sent, lost, last) = (None, 0, 0, None);
        let recording = Recording { run, format, converter, sender, chooser, plan, sent, lost, last };
        self.recordings.insert(stream, recording);
        self.source.iter().for_each(|source| self.recordings.values_mut().for_each(|r| r.begin(&**source)));
    }

    /// The VM wants to hear it no more: this run of the stream, or whichever there is.
    pub(super) fn stop(&mut self, stream: StreamId, run: Option<u32>) {
        let is_it = |recording: &Recording| run.is_none_or(|run| run == recording.run);
        if !self.recordings.get(&stream).is_some_and(is_it) {
            return;
        }
        if let Some(Recording { run, sent: frames, lost, .. }) = self.recordings.remove(&stream) {
            self.events.say(&Event::RecordingStopped { stream: stream.0, run, frames, lost });
        }
        self.close_if_unwanted();
    }

    /// Nobody listens.
    pub(super) fn stop_all(&mut self) {
        for stream in self.recordings.keys().copied().collect::<Vec<_>>() {
            self.stop(stream, None);
        }
    }

    pub(super) fn mute(&mut self, muted: bool) {
        self.muted = muted;
        self.close_if_unwanted();
    }

    /// It was plugged in or pulled out.
    pub(super) fn plug(&mut self, present: bool) {
        self.present = present;
        self.failed = None;
        self.close_if_unwanted();
    }

    /// How long a message to the host and its answer take; none: it is not known.
    pub(super) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
    }

    /// What the host says of a recording that it receives.
    pub(super) fn observe(&mut self, now: Duration, reception: &Reception) {
        let recording = self.recordings.get_mut(&reception.stream);
        if let Some(recording) = recording.filter(|recording| recording.run == reception.run) {
            recording.plan = recording.chooser.observe(now, reception, self.round_trip);
            recording.sender.set_plan(recording.plan);
            recording.last = Some(*reception);
        }
    }

    /// What is sent once more, as the host lacks it.
    pub(super) fn answer(&mut self, missing: &Missing) -> Vec<ToHost> {
        let mut coded = Vec::new();
        if let Some(recording) = self.recordings.get_mut(&missing.stream) {
            recording.sender.answer(missing, &mut coded);
        }
        coded.into_iter().map(ToHost::RecordedCoded).collect()
    }

    /// Whether it is there, as far as is known.
    pub(super) fn present(&self) -> bool {
        self.present
    }

    /// Whether it is open: it need not be looked for.
    pub(super) fn open(&self) -> bool {
        self.source.is_some()
    }

    /// Whether the VM listens, so that time brings packets.
    pub(super) fn listened_to(&self) -> bool {
        !self.recordings.is_empty()
    }

    fn wanted(&self) -> bool {
        self.listened_to() && self.present && !self.muted
    }

    fn close_if_unwanted(&mut self) {
        if !self.wanted() {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(source) = self.source.take() {
            self.drift.forget();
            self.xruns += source.xruns();
        }
        self.recordings.values_mut().for_each(|recording| recording.converter = None);
    }

    /// Lets time pass: what was heard meanwhile. An error: the device that was open is gone.
    pub(super) fn look_after(&mut self, now: Duration) -> Result<Vec<ToHost>> {
        if !self.wanted() {
            return Ok(Vec::new());
        }
        if self.source.is_none() {
            self.open_source(now);
        }
        let heard = self.listen(now);
        if heard.is_err() {
            self.failed = Some(now);
            self.close();
        }
        heard
    }

    fn open_source(&mut self, now: Duration) {
        let wait = self.failed.is_some_and(|at| now.saturating_sub(at) < AGAIN);
        let Some(recording) = self.recordings.values().next().filter(|_| !wait) else { return };
        match self.input.open(recording.format) {
            Ok(source) => {
                self.recordings.values_mut().for_each(|recording| recording.begin(&*source));
                (self.source, self.failed) = (Some(source), None);
            }
            Err(error) => {
                tracing::warn!("the microphone cannot be opened: {error:#}");
                self.failed = Some(now);
            }
        }
    }

    fn listen(&mut self, now: Duration) -> Result<Vec<ToHost>> {
        let Some(source) = &mut self.source else { return Ok(Vec::new()) };
        let mut samples = Vec::new();
        let mut lost = source.pull(now, &mut samples)?;
        let Format { rate, channels, .. } = source.format();
        let late = (samples.len() / usize::from(channels))
            .saturating_sub(sound::frames_in(sound::jitter::CAP, rate) as usize);
        samples.drain(..late * usize::from(channels));
        lost += late as u64;
        self.heard += (samples.len() / usize::from(channels)) as u64 + lost;
        if !samples.is_empty() {
            self.drift.note(now, self.heard, 0);
        }
        let mut packets = Vec::new();
        for (stream, recording) in &mut self.recordings {
            recording.lose(now, *stream, (lost, rate), &mut packets);
            recording.take(now, &samples, &mut packets);
        }
        Ok(packets.into_iter().map(ToHost::RecordedCoded).collect())
    }

    fn drift_ppm(&self) -> Option<i32> {
        self.drift.ppm(self.source.as_ref()?.format().rate)
    }

    /// How it is, for people and programs.
    pub(super) fn status(&self, round_trip: Option<Duration>) -> status::Microphone {
        let drift = self.drift_ppm();
        let recording = |(stream, r): (&StreamId, &Recording)| status::Recording {
            stream: stream.0,
            format: r.format.into(),
            frames: r.sent,
            lost: r.lost,
            way: status::Way::new(r.plan.codec, r.last, round_trip, drift),
        };
        status::Microphone {
            granted: self.input.granted(),
            present: self.present,
            muted: self.muted,
            device: self.source.as_ref().map(|source| source.format().into()),
            recordings: self.recordings.iter().map(recording).collect(),
            xruns: self.xruns + self.source.as_ref().map_or(0, |source| source.xruns()),
        }
    }
}

impl Recording {
    /// Hears a source from now on.
    fn begin(&mut self, source: &dyn Source) {
        if self.converter.is_some() {
            return;
        }
        match Converter::new(source.format(), self.format) {
            Ok(converter) => self.converter = Some(converter),
            Err(error) => tracing::warn!("the VM cannot have the microphone as {:?}: {error:#}", self.format),
        }
    }

    /// Frames of the source, at its rate, will never come: they leave their place.
    fn lose(&mut self, now: Duration, stream: StreamId, (frames, rate): (u64, u32), out: &mut Vec<Coded>) {
        let lost = u128::from(frames) * u128::from(self.format.rate) / u128::from(rate.max(1));
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        if lost > 0 {
            self.lost = self.lost.saturating_add(lost);
            self.sender.flush(now, out);
            let position = self.sender.position().saturating_add(lost);
            self.sender = Sender::new(stream, self.run, self.format, position, self.plan);
        }
    }

    fn take(&mut self, now: Duration, samples: &[i32], out: &mut Vec<Coded>) {
        let Some(converter) = &mut self.converter else { return };
        let pcm = converter.convert(samples);
        self.sent += pcm.len() as u64 / u64::from(self.format.frame_bytes());
        self.sender.push(now, &pcm, out);
    }
}
