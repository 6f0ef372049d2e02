//! The remote's sound: packets in, a sink that takes them at its own pace, reports back.
//!
//! ```text
//!   Play(packet) ──► Sound ──► dyn Sink ── none | WAV file, paced | sound card
//!   Pause ─────────►   │          │
//!   timer ─────────►   └◄─Progress┘──► Played (to the host, ten times a second), events
//! ```

#[cfg(feature = "cpal")]
mod card;
mod jitter;
mod wav;

use std::time::Duration;

use actix::prelude::*;
use anyhow::{Context as _, Result};
use tokio::time::Instant;
use wire::audio::{Format, Packet, StreamId, ToHost, ToRemote};

#[cfg(feature = "cpal")]
pub(crate) use card::outputs;

use crate::{
    cli::Audio,
    events::{Event, Events},
};

/// How often a sink is looked after: the period of the WAV file's sound card.
const PERIOD: Duration = Duration::from_millis(5);
/// How often the host hears how far the sink has come.
const REPORT: Duration = Duration::from_millis(100);

/// Sound from the host.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Heard(pub(crate) ToRemote);

/// The link is gone: whatever plays has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Silence;

/// A report for the host.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Report(pub(crate) ToHost);

/// How far a sink has come with the run that plays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Frames that have left for the sound card.
    pub(crate) played: u64,
    /// Frames that wait.
    pub(crate) queued: u64,
    /// Times that the sound card wanted a frame and there was none.
    pub(crate) underruns: u64,
    /// Frames given up, because too many waited.
    pub(crate) dropped: u64,
}

/// A place for sound. One run plays at a time; time is since an arbitrary start.
pub(crate) trait Sink {
    /// A run begins. Its frames have this format.
    fn start(&mut self, format: Format) -> Result<()>;
    /// Takes whole frames of the run.
    fn push(&mut self, now: Duration, pcm: &[u8]) -> Result<()>;
    /// No more frames follow for now: what waits is played although it may be less than a good start.
    fn drain(&mut self);
    /// Lets time pass.
    fn tick(&mut self, now: Duration) -> Result<Progress>;
    /// The run is over: everything taken is where it belongs (a file is complete).
    fn stop(&mut self) -> Result<()>;
    /// The file that the run is written to, if it is one.
    fn file(&self) -> Option<String> {
        None
    }
}

/// The sink that was asked for.
///
/// # Errors
/// This build has no sound cards.
pub(crate) fn sink(audio: &Audio) -> Result<Box<dyn Sink>> {
    Ok(match audio {
        Audio::None => Box::new(Nowhere::default()),
        Audio::Wav(file) => Box::new(wav::WavFile::new(file.clone())),
        #[cfg(feature = "cpal")]
        Audio::Cpal(device) => Box::new(card::Card::new(device.clone())),
        #[cfg(not(feature = "cpal"))]
        Audio::Cpal(_) => {
            anyhow::bail!("this build has no sound cards: build with the feature `cpal`, or use wav:FILE")
        }
    })
}

/// The run that plays.
struct Run {
    stream: StreamId,
    run: u32,
    format: Format,
    /// The next frame expected, and the first one that came.
    next: u64,
    first: u64,
    gaps: u64,
    /// The host has said how many frames there are.
    ends_at: Option<u64>,
    audible: bool,
    progress: Progress,
}

/// The actor.
pub(crate) struct Sound {
    sink: Box<dyn Sink>,
    events: Events,
    host: Recipient<Report>,
    start: Instant,
    run: Option<Run>,
    reported: Duration,
}

impl Sound {
    pub(crate) fn new(sink: Box<dyn Sink>, events: Events, host: Recipient<Report>) -> Self {
        Self { sink, events, host, start: Instant::now(), run: None, reported: Duration::ZERO }
    }

    fn play(&mut self, packet: Packet) -> Result<()> {
        let same =
            |run: &Run| (run.stream, run.run, run.format) == (packet.stream, packet.run, packet.format);
        if !self.run.as_ref().is_some_and(same) {
            self.finish()?;
            self.sink.start(packet.format).context("starting the sound")?;
            self.run = Some(Run {
                stream: packet.stream,
                run: packet.run,
                format: packet.format,
                next: packet.position,
                first: packet.position,
                gaps: 0,
                ends_at: None,
                audible: false,
                progress: Progress::default(),
            });
        }
        let now = self.start.elapsed();
        let Some(run) = &mut self.run else { return Ok(()) };
        if packet.position < run.next {
            // It came too late to be in order: its frames are counted as missing already.
            return Ok(());
        }
        let frames = packet.pcm.len() as u64 / u64::from(packet.format.frame_bytes());
        run.gaps += packet.position - run.next;
        run.next = packet.position.saturating_add(frames);
        run.ends_at = None;
        self.sink.push(now, &packet.pcm).context("playing")?;
        self.look_after()
    }

    fn pause(&mut self, stream: StreamId, run: u32, position: u64) -> Result<()> {
        if let Some(playing) = self.run.as_mut().filter(|r| (r.stream, r.run) == (stream, run)) {
            playing.gaps += position.saturating_sub(playing.next);
            playing.ends_at = Some(position);
            self.sink.drain();
        }
        self.look_after()
    }

    fn look_after(&mut self) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let now = self.start.elapsed();
        run.progress = self.sink.tick(now)?;
        if run.progress.played > 0 && !run.audible {
            run.audible = true;
            self.events.say(&started(run, self.sink.file()));
        }
        if now.saturating_sub(self.reported) >= REPORT {
            self.reported = now;
            self.host.do_send(Report(played(run)));
        }
        if run.ends_at.is_some() && run.progress.queued == 0 {
            self.finish()?;
        }
        Ok(())
    }

    /// Ends the run: what has come was played, or never will be.
    fn finish(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let file = self.sink.file();
        self.sink.stop().context("ending the sound")?;
        self.host.do_send(Report(played(&run)));
        self.events.say(&Event::SoundStopped {
            stream: run.stream.0,
            run: run.run,
            frames: run.progress.played,
            gaps: run.gaps + run.progress.dropped,
            underruns: run.progress.underruns,
            file,
        });
        Ok(())
    }

    /// A sink that fails is not the end: the next run tries it again.
    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            tracing::error!("sound: {error:#}");
            self.run = None;
        }
    }
}

fn started(run: &Run, file: Option<String>) -> Event {
    let Format { rate, encoding, channels } = run.format;
    let bits = encoding.significant_bits();
    Event::SoundStarted { stream: run.stream.0, run: run.run, rate, bits, channels, file }
}

fn played(run: &Run) -> ToHost {
    let position = run.first.saturating_add(run.progress.played);
    let queued = u32::try_from(run.progress.queued).unwrap_or(u32::MAX);
    ToHost::Played { stream: run.stream, run: run.run, position, queued }
}

impl Actor for Sound {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PERIOD, |act, _| {
            let result = act.look_after();
            act.check(result);
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let result = self.finish();
        self.check(result);
    }
}

impl Handler<Heard> for Sound {
    type Result = ();

    fn handle(&mut self, Heard(message): Heard, _: &mut Self::Context) {
        let result = match message {
            ToRemote::Play(packet) => self.play(packet),
            ToRemote::Pause { stream, run, position } => self.pause(stream, run, position),
        };
        self.check(result);
    }
}

impl Handler<Silence> for Sound {
    type Result = ();

    fn handle(&mut self, _: Silence, _: &mut Self::Context) {
        let result = self.finish();
        self.check(result);
    }
}

/// The end of this actor, when everything it has is where it belongs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct End;

impl Handler<End> for Sound {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        let result = self.finish();
        self.check(result);
        ctx.stop();
    }
}

/// The sink that only counts.
#[derive(Debug, Default)]
struct Nowhere {
    frame_bytes: usize,
    played: u64,
}

impl Sink for Nowhere {
    fn start(&mut self, format: Format) -> Result<()> {
        *self = Self { frame_bytes: format.frame_bytes() as usize, played: 0 };
        Ok(())
    }

    fn push(&mut self, _: Duration, pcm: &[u8]) -> Result<()> {
        self.played += (pcm.len() / self.frame_bytes.max(1)) as u64;
        Ok(())
    }

    fn drain(&mut self) {}

    fn tick(&mut self, _: Duration) -> Result<Progress> {
        Ok(Progress { played: self.played, ..Progress::default() })
    }

    fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}
