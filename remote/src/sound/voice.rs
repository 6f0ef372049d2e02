//! A voice: one run of one stream of the VM, on its way into its sink.
//!
//! ```text
//!            Play                       Pause, and all that waited was played; or nothing came for long
//!   paused ────────► playing (a stretch) ────────────────────────────────────► paused ── another run ──► gone
//!            sound_started      sound_heard                       sound_stopped
//! ```
//! A sink that fails leaves it without one; another may follow.

use std::time::Duration;

use anyhow::Result;
use wire::audio::{Format, Packet, StreamId, ToHost};

use super::{Progress, Sink, status::Playing};
use crate::events::{Counts, Event, Events};

/// How often the host hears how far the sink has come.
const REPORT: Duration = Duration::from_millis(100);
/// A stretch of which nothing has come for so long has ended: its pause was lost on the way.
const LOST: Duration = Duration::from_secs(2);

/// The voice.
pub(super) struct Voice {
    stream: StreamId,
    run: u32,
    format: Format,
    /// None when it has failed.
    sink: Option<Box<dyn Sink>>,
    events: Events,
    /// The next frame expected.
    next: u64,
    /// How far the sink has come, and those before it that have failed.
    progress: Progress,
    before: Progress,
    stretch: Option<Stretch>,
    totals: Counts,
    reported: Duration,
}

/// Frames that play without a stop.
struct Stretch {
    /// How far the sink had come before it.
    before: Progress,
    frames: u64,
    gaps: u64,
    /// The host has said that this was all.
    complete: bool,
    heard: bool,
    last: Duration,
}

impl Voice {
    /// A voice for the run of this packet.
    pub(super) fn new(packet: &Packet, sink: Result<Box<dyn Sink>>, events: Events) -> Self {
        let mut voice = Self {
            stream: packet.stream,
            run: packet.run,
            format: packet.format,
            sink: None,
            events,
            next: packet.position,
            progress: Progress::default(),
            before: Progress::default(),
            stretch: None,
            totals: Counts::default(),
            reported: Duration::ZERO,
        };
        voice.sink = voice.check(sink);
        voice
    }

    /// Whether a packet belongs to this run.
    pub(super) fn plays(&self, packet: &Packet) -> bool {
        (self.run, self.format) == (packet.run, packet.format)
    }

    /// Whether it has frames to play, or may get more.
    pub(super) fn playing(&self) -> bool {
        self.stretch.is_some()
    }

    /// Whether it has frames to play, and no sink; one that has failed is let go, whether it plays or not: a driver waits
    /// for it.
    pub(super) fn lost_its_card(&mut self, now: Duration) -> bool {
        if let Some(progress) = self.sink.as_mut().map(|sink| sink.tick(now)) {
            self.check(progress);
        }
        self.sink.is_none() && self.playing()
    }

    /// What its sink has to play.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Goes on with another sink. What waited in the one before it was not heard.
    pub(super) fn go_on(&mut self, sink: Result<Box<dyn Sink>>) {
        self.before = self.progress;
        self.sink = self.check(sink);
    }

    /// How it is, for people and programs.
    pub(super) fn status(&self) -> Playing {
        let counts =
            self.stretch.as_ref().map_or(self.totals, |stretch| self.totals.with(self.counts(stretch)));
        Playing { stream: self.stream.0, format: self.format.into(), queued: self.progress.queued, counts }
    }

    fn counts(&self, stretch: &Stretch) -> Counts {
        Counts {
            frames: stretch.frames,
            gaps: stretch.gaps,
            skipped: self.progress.skipped - stretch.before.skipped,
            underruns: self.progress.underruns - stretch.before.underruns,
        }
    }

    /// All its stretches that have ended.
    pub(super) fn totals(&self) -> Counts {
        self.totals
    }

    /// Takes frames of this run.
    pub(super) fn play(&mut self, now: Duration, packet: &Packet) {
        // What comes too late to be in order was counted as missing already.
        if packet.position < self.next {
            return;
        }
        let frames = packet.pcm.len() as u64 / u64::from(self.format.frame_bytes());
        let missing = packet.position - self.next;
        if self.stretch.is_none() {
            self.begin(packet.position, now);
        }
        if let Some(stretch) = &mut self.stretch {
            stretch.frames = stretch.frames.saturating_add(frames);
            stretch.gaps = stretch.gaps.saturating_add(missing);
            (stretch.complete, stretch.last) = (false, now);
        }
        self.next = packet.position.saturating_add(frames);
        let pushed = self.sink.as_mut().map_or(Ok(()), |sink| sink.push(now, &packet.pcm));
        self.check(pushed);
    }

    /// The VM has stopped at this frame; it may go on later.
    pub(super) fn pause(&mut self, run: u32, position: u64) {
        let Some(stretch) = self.stretch.as_mut().filter(|_| run == self.run) else { return };
        stretch.gaps = stretch.gaps.saturating_add(position.saturating_sub(self.next));
        self.next = self.next.max(position);
        stretch.complete = true;
        if let Some(sink) = &mut self.sink {
            sink.drain();
        }
    }

    /// Lets time pass; sometimes there is something to report.
    pub(super) fn look_after(&mut self, now: Duration) -> Option<ToHost> {
        self.stretch.as_ref()?;
        let progress = self.sink.as_mut().map(|sink| sink.tick(now));
        if let Some(progress) = progress.and_then(|progress| self.check(progress)) {
            self.progress = progress + self.before;
        }
        let stretch = self.stretch.as_mut()?;
        if !stretch.heard && self.progress.played > stretch.before.played {
            stretch.heard = true;
            self.events.say(&Event::SoundHeard { stream: self.stream.0, run: self.run });
        }
        let lost = now.saturating_sub(stretch.last) > LOST;
        let over = (stretch.complete && self.progress.queued == 0) || lost;
        if over {
            self.stop();
        }
        let due = now.saturating_sub(self.reported) >= REPORT;
        (over || due).then(|| {
            self.reported = now;
            self.played()
        })
    }

    /// Ends the stretch, whether everything was played or not.
    pub(super) fn stop(&mut self) {
        let Some(stretch) = self.stretch.take() else { return };
        let settled = self.sink.as_mut().map_or(Ok(()), |sink| sink.settle());
        self.check(settled);
        let counts = self.counts(&stretch);
        self.totals += counts;
        let (stream, run) = (self.stream.0, self.run);
        self.events.say(&Event::SoundStopped { stream, run, counts, file: self.file() });
    }

    fn begin(&mut self, position: u64, now: Duration) {
        let Format { rate, encoding, channels } = self.format;
        let bits = encoding.significant_bits();
        let (stream, run, file) = (self.stream.0, self.run, self.file());
        self.events.say(&Event::SoundStarted { stream, run, position, rate, bits, channels, file });
        let before = self.progress;
        self.stretch = Some(Stretch { before, frames: 0, gaps: 0, complete: false, heard: false, last: now });
    }

    fn file(&self) -> Option<String> {
        self.sink.as_ref().and_then(|sink| sink.file())
    }

    /// Everything before what waits has left for the sound card, or never came.
    fn played(&self) -> ToHost {
        let position = self.next.saturating_sub(self.progress.queued);
        let queued = u32::try_from(self.progress.queued).unwrap_or(u32::MAX);
        ToHost::Played { stream: self.stream, run: self.run, position, queued }
    }

    /// A sink that fails is not the end: the VM's clock runs on, and it is tried again.
    fn check<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!("sound: {error:#}");
                self.sink = None;
                self.progress.queued = 0;
                None
            }
        }
    }
}
