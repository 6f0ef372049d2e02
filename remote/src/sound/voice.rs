//! A voice: one run of one stream of the VM, on its way into its sink.
//!
//! ```text
//!            packets                    Pause, and all that waited was played; or nothing came for long
//!   paused ────────► playing (a stretch) ────────────────────────────────────► paused ── another run ──► gone
//!            sound_started      sound_heard                       sound_stopped
//! ```
//! What comes goes into a [`Receiver`]; what the sink wants is pulled out of it, on each tick. A sink that fails leaves a
//! clock that nobody hears; another sink may follow. If the host says that its clock follows another card than this one, the
//! sink is made to take frames as fast as they come ([`Adapt`]): the receiver is not concerned.

use std::time::Duration;

use ::sound::{Config, Receiver};
use anyhow::Result;
use wire::audio::{Codec, Coded, Format, Reception, StreamId, ToHost};

use super::{
    Pace, Sink,
    adapt::Adapt,
    drift::Drift,
    paced::Paced,
    status::{Playing, Volume, Way},
};
use crate::events::{Counts, Event, Events};

/// A stretch of which nothing has come for so long has ended: its pause was lost on the way.
const LOST: Duration = Duration::from_secs(2);
/// How much more waits after the sink was not looked after in time.
const MORE: Duration = Duration::from_millis(4);

/// The voice.
pub(super) struct Voice {
    stream: StreamId,
    run: u32,
    format: Format,
    receiver: Receiver,
    sink: Box<dyn Sink>,
    /// The sink is only a clock: the card has failed.
    failed: bool,
    events: Events,
    /// The end of what has come, or of what the host has said that there is.
    end: u64,
    /// Counted here, beside what the receiver counts; and of sinks before this one.
    more: Counts,
    /// Up to where the sink has every frame of the run, or what stands for it.
    handed: u64,
    /// The sink got something else than frames of the run.
    dry: bool,
    stretch: Option<Stretch>,
    totals: Counts,
    samples: Vec<i32>,
    codec: Codec,
    round_trip: Option<Duration>,
    last: Option<Reception>,
    drift: Drift,
    /// The host does not follow the card.
    adapt: Option<Adapt>,
    /// Of this sink, so far.
    xruns: u64,
    /// It was given no more frames lately.
    drained: bool,
}

/// Frames that play without a stop.
struct Stretch {
    /// What there was before it.
    before: Counts,
    /// The host has said that this was all.
    complete: bool,
    heard: bool,
    last: Duration,
}

impl Voice {
    /// A voice for the run of this packet. None: nothing can play it.
    pub(super) fn new(
        first: &Coded,
        sink: Result<Box<dyn Sink>>,
        round_trip: Option<Duration>,
        events: Events,
    ) -> Option<Self> {
        let Coded { stream, run, format, ref block, .. } = *first;
        let (sink, failed) = or_clock(format, sink);
        let skips_silence = !sink.keeps_all();
        let config = Config { period: sink.period(), skips_silence, ..Config::LAN }.over(round_trip);
        let receiver = Receiver::new(first, config)
            .inspect_err(|error| tracing::warn!("the VM's sound cannot be played: {error}"))
            .ok()?;
        Some(Self {
            stream,
            run,
            format,
            receiver,
            sink,
            failed,
            events,
            end: block.position,
            more: Counts::default(),
            handed: block.position,
            dry: false,
            stretch: None,
            totals: Counts::default(),
            samples: Vec::new(),
            codec: block.codec,
            round_trip,
            last: None,
            drift: Drift::default(),
            adapt: None,
            xruns: 0,
            drained: true,
        })
    }

    /// Whether a packet belongs to this run.
    pub(super) fn plays(&self, packet: &Coded) -> bool {
        self.receiver.receives(packet)
    }

    /// Whether it has frames to play, or may get more.
    pub(super) fn playing(&self) -> bool {
        self.stretch.is_some()
    }

    /// Whether it has frames to play, and no sink; one that has failed is let go, whether it plays or not: a driver waits
    /// for it.
    pub(super) fn lost_its_card(&mut self) -> bool {
        let alive = self.sink.check();
        self.check(alive);
        self.failed && self.playing()
    }

    /// What its sink has to play.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Goes on with another sink. What waited in the one before it was not heard.
    pub(super) fn go_on(&mut self, sink: Result<Box<dyn Sink>>) {
        self.more.underruns += self.sink.xruns();
        self.xruns = 0;
        (self.sink, self.failed) = or_clock(self.format, sink);
        if let Some(adapt) = &self.adapt {
            self.sink.adapt(adapt.ratio());
        }
        self.receiver.set_period(self.sink.period());
        self.begin_sink();
    }

    /// The sink begins with nothing, or with what is left of what it had.
    fn begin_sink(&mut self) {
        let (holds, takes, waiting) = self.sink.begin().unwrap_or_default();
        self.receiver.set_ring(holds, takes, waiting);
        self.drained = false;
    }

    /// How long a message to the host and its answer take; None: it is not known.
    pub(super) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
        self.receiver.set_round_trip(round_trip);
    }

    /// How it is, for people and programs.
    pub(super) fn status(&self, volume: Option<Volume>) -> Playing {
        let counts =
            self.stretch.as_ref().map_or(self.totals, |stretch| self.totals.with(self.since(stretch)));
        let queued = self.receiver.queued().saturating_add(self.sink.waiting());
        let way = Way::new(self.codec, self.last, self.round_trip, self.drift.ppm(self.format.rate));
        let (stream, format, resampled_to) = (self.stream.0, self.format.into(), self.sink.resampled_to());
        Playing { stream, format, resampled_to, queued, counts, way, volume }
    }

    /// Everything so far.
    fn counts(&self) -> Counts {
        let counters = self.receiver.counters();
        let mut counts = self.more;
        counts += Counts {
            frames: counters.played,
            gaps: counters.lost,
            skipped: counters.cut,
            underruns: self.sink.xruns(),
            concealed: counters.concealed,
            waited: counters.waited,
        };
        counts
    }

    fn since(&self, stretch: &Stretch) -> Counts {
        self.counts().since(stretch.before)
    }

    /// All its stretches that have ended.
    pub(super) fn totals(&self) -> Counts {
        self.totals
    }

    /// Takes a packet of this run.
    pub(super) fn play(&mut self, now: Duration, packet: &Coded) {
        if self.stretch.is_none() {
            self.begin(packet.block.position, now);
        }
        self.receiver.push(now, packet);
        self.codec = packet.block.codec;
        self.end = self.end.max(packet.block.position.saturating_add(packet.block.frames.into()));
        if let Some(stretch) = &mut self.stretch {
            (stretch.complete, stretch.last) = (false, now);
        }
        self.keep_excess(now);
    }

    /// A file is given what a card would skip.
    fn keep_excess(&mut self, now: Duration) {
        if self.sink.keeps_all() {
            self.samples.clear();
            self.more.skipped += self.receiver.take_excess(now, &mut self.samples);
            let missing = self.missing_before(self.samples.len() / usize::from(self.format.channels));
            let taken = self.sink.skip(missing).and_then(|()| self.sink.take(&self.samples, &[]));
            self.check(taken);
        }
    }

    /// The VM has stopped at this frame; it may go on later.
    pub(super) fn pause(&mut self, run: u32, position: u64) {
        let Some(stretch) = self.stretch.as_mut().filter(|_| run == self.run) else { return };
        stretch.complete = true;
        self.receiver.drain();
        self.more.gaps = self.more.gaps.saturating_add(position.saturating_sub(self.end));
        self.end = self.end.max(position);
    }

    /// The host's clock follows another card than this one, to the end of this run.
    pub(super) fn adapt(&mut self, run: u32) {
        if run == self.run && self.adapt.is_none() {
            let stream = self.stream.0;
            tracing::info!(stream, run, "the VM's clock follows another sound card than this stream's");
            self.adapt = Some(Adapt::new());
        }
    }

    /// Lets time pass; sometimes there is something to say to the host.
    pub(super) fn look_after(&mut self, now: Duration) -> Vec<ToHost> {
        if self.stretch.is_none() {
            return Vec::new();
        }
        let drained = self.feed(now);
        let played = self.counts().frames;
        let (stream, run) = (self.stream.0, self.run);
        let Some(stretch) = &mut self.stretch else { return Vec::new() };
        if !stretch.heard && played > stretch.before.frames {
            stretch.heard = true;
            self.events.say(&Event::SoundHeard { stream, run });
        }
        if drained || now.saturating_sub(stretch.last) > LOST {
            self.stop();
        }
        let xruns = u32::try_from(self.counts().underruns).unwrap_or(u32::MAX);
        let report = self.receiver.report().map(|report| Reception { xruns, ..report });
        report.iter().for_each(|report| self.follow(report));
        self.last = report.or(self.last);
        let missing = self.receiver.missing().map(ToHost::Missing);
        report.map(ToHost::Reception).into_iter().chain(missing).collect()
    }

    /// Where the card is in the run says how fast it runs, as long as the time line goes on without a slip; and what waits
    /// says how fast it should, if the host does not follow it.
    fn follow(&mut self, report: &Reception) {
        if self.last.is_none_or(|last| last.slipped != report.slipped) {
            self.drift.forget();
            self.adapt.iter_mut().for_each(Adapt::slipped);
        }
        let faster = self.adapt.as_ref().map_or(0, Adapt::ratio);
        self.drift.note(report.at, report.position, faster);
        if let Some(adapt) = &mut self.adapt {
            self.sink.adapt(adapt.observe(report));
            self.receiver.set_period(self.sink.period());
        }
    }

    /// Gives the sink what it wants; whether it has everything there is, and has played it.
    fn feed(&mut self, now: Duration) -> bool {
        if self.stretch.as_ref().is_some_and(|stretch| stretch.complete) && self.receiver.idle() {
            self.sink.drain();
            self.drained = true;
            return self.sink.waiting() == 0;
        }
        if self.drained || self.sink.outgrown() {
            self.begin_sink();
        }
        self.keep_excess(now);
        let wants = self.sink.wants(now);
        let Some(frames) = self.check(wants) else { return false };
        if frames == 0 && self.receiver.behind() == 0 {
            return false;
        }
        self.note_xruns(now);
        let least = self.sink.needs(frames);
        self.receiver.supply(now, frames, least, &mut self.samples);
        let dry = !self.receiver.fillers().is_empty();
        let plays = self.stretch.as_ref().is_some_and(|stretch| stretch.heard && !stretch.complete);
        self.more.underruns += u64::from(dry && plays && !self.dry);
        self.dry = dry;
        let taken = self.hand_on();
        self.check(taken);
        false
    }

    /// A card that ran out of frames will do so again unless more wait for it.
    fn note_xruns(&mut self, now: Duration) {
        let xruns = self.sink.xruns();
        if xruns > std::mem::replace(&mut self.xruns, xruns) {
            self.receiver.ran_out(now, MORE);
        }
    }

    /// Gives the sink what was pulled, and before it what is missing in front of it: frames that never came, for which the
    /// time line has waited, or that there was no time for.
    fn hand_on(&mut self) -> Result<()> {
        let channels = usize::from(self.format.channels);
        let fillers = self.receiver.fillers();
        let of_run =
            self.samples.len() / channels - fillers.iter().map(ExactSizeIterator::len).sum::<usize>();
        let up_to = self.receiver.playing();
        let missing = up_to.saturating_sub(of_run as u64).saturating_sub(self.handed);
        self.handed = self.handed.max(up_to);
        let waited = fillers.last().map_or(0, |filler| filler.end * channels);
        let (before, after) = self.samples.split_at(waited.min(self.samples.len()));
        self.sink.take(before, fillers)?;
        self.sink.skip(missing)?;
        self.sink.take(after, &[])
    }

    /// How many frames are missing in front of so many that are handed on now.
    fn missing_before(&mut self, frames: usize) -> u64 {
        let up_to = self.receiver.playing();
        let missing = up_to.saturating_sub(frames as u64).saturating_sub(self.handed);
        self.handed = self.handed.max(up_to);
        missing
    }

    /// Ends the stretch, whether everything was played or not.
    pub(super) fn stop(&mut self) {
        let Some(stretch) = self.stretch.take() else { return };
        self.drained = true;
        self.drift.forget();
        self.receiver.drain();
        let settled = self.sink.settle();
        self.check(settled);
        let counts = self.since(&stretch);
        self.totals += counts;
        let (stream, run) = (self.stream.0, self.run);
        self.events.say(&Event::SoundStopped { stream, run, counts, file: self.sink.file() });
    }

    fn begin(&mut self, position: u64, now: Duration) {
        let Format { rate, encoding, channels } = self.format;
        let bits = encoding.significant_bits();
        let (stream, run, file) = (self.stream.0, self.run, self.sink.file());
        self.events.say(&Event::SoundStarted { stream, run, position, rate, bits, channels, file });
        self.adapt.iter_mut().for_each(Adapt::begin);
        let before = self.counts();
        self.stretch = Some(Stretch { before, complete: false, heard: false, last: now });
    }

    /// A sink that fails is not the end: the VM's clock runs on, and it is tried again.
    fn check<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.go_on(Err(error));
                None
            }
        }
    }
}

/// A sink, or a clock in its place.
fn or_clock(format: Format, sink: Result<Box<dyn Sink>>) -> (Box<dyn Sink>, bool) {
    match sink {
        Ok(sink) => (sink, false),
        Err(error) => {
            tracing::error!("sound: {error:#}");
            (Box::new(Paced::new(format, Pace::default(), None)), true)
        }
    }
}

#[cfg(test)]
mod tests;
