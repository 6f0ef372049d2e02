//! The remote's sound: packets in, a sink that takes them at its own pace, reports back.
//!
//! ```text
//!   Play(packet) ──► Sound ── Voice, one for each stream of the VM ──► dyn Sink ── nowhere | WAV file, paced | card
//!   Pause ─────────►   │                                                  │
//!   timer ─────────►   └◄──────────────── Progress ───────────────────────┘──► Played (to the host), events
//! ```
//! It has a thread of its own: opening a card or writing a file holds up nobody's keys.

#[cfg(feature = "cpal")]
mod card;
mod jitter;
mod nowhere;
mod voice;
mod wav;

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use anyhow::Result;
use tokio::time::Instant;
use wire::audio::{Format, Packet, StreamId, ToHost, ToRemote};

#[cfg(feature = "cpal")]
pub(crate) use card::outputs;

use crate::{
    cli::Audio,
    events::{Events, Totals},
};
use voice::Voice;

/// How often sinks are looked after while something plays: the period of the WAV file's sound card.
const PERIOD: Duration = Duration::from_millis(5);
/// Packets that wait at most; what comes then is late, and lost.
const MAILBOX: usize = 256;
/// Streams of HD Audio: their numbers have four bits.
const STREAMS: u8 = 16;

/// Sound from the host.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Heard {
    /// What the host said.
    Audio(ToRemote),
    /// The link is gone: whatever plays has ended.
    Silence,
}

/// A report for the host.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Report(pub(crate) ToHost);

/// The end of this actor, when everything it has is where it belongs; what it all came to.
#[derive(Debug, Message)]
#[rtype(result = "Totals")]
pub(crate) struct End;

/// How far a sink has come with its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Frames that have left for the sound card.
    pub(crate) played: u64,
    /// Frames that wait.
    pub(crate) queued: u64,
    /// Times that the sound card wanted a frame and there was none.
    pub(crate) underruns: u64,
    /// Frames that had no time of their own, because too many waited.
    pub(crate) skipped: u64,
}

/// A place for the sound of one run. Time is since an arbitrary start. Dropping it ends it.
pub(crate) trait Sink {
    /// Takes whole frames.
    fn push(&mut self, now: Duration, pcm: &[u8]) -> Result<()>;
    /// No more frames follow for now: what waits is played although it may be less than a good start.
    fn drain(&mut self);
    /// Lets time pass.
    fn tick(&mut self, now: Duration) -> Result<Progress>;
    /// Everything taken and played is where it belongs (a file is complete); more may follow.
    fn settle(&mut self) -> Result<()>;
    /// The file that it is written to, if it is one.
    fn file(&self) -> Option<String>;
}

/// Where sound goes.
pub(crate) struct Output {
    audio: Audio,
    runs: u32,
}

impl Output {
    /// The place that was asked for.
    ///
    /// # Errors
    /// This build has no sound cards.
    pub(crate) fn new(audio: Audio) -> Result<Self> {
        anyhow::ensure!(
            cfg!(feature = "cpal") || !matches!(audio, Audio::Cpal(_)),
            "this build has no sound cards: build with the feature `cpal`, or use wav:FILE"
        );
        Ok(Self { audio, runs: 0 })
    }

    fn open(&mut self, format: Format) -> Result<Box<dyn Sink>> {
        self.runs += 1;
        Ok(match &self.audio {
            Audio::Wav(file) => Box::new(wav::WavFile::create(wav::path(file, self.runs), format)?),
            #[cfg(feature = "cpal")]
            Audio::Cpal(wanted) => Box::new(card::Card::open(wanted.as_deref(), format)?),
            _ => Box::new(nowhere::Nowhere::new(format)),
        })
    }
}

/// The actor.
pub(crate) struct Sound {
    output: Output,
    events: Events,
    host: Recipient<Report>,
    start: Instant,
    voices: BTreeMap<StreamId, Voice>,
    totals: Totals,
    looking: bool,
}

impl Sound {
    pub(crate) fn new(output: Output, events: Events, host: Recipient<Report>) -> Self {
        let (voices, totals) = (BTreeMap::new(), Totals::default());
        Self { output, events, host, start: Instant::now(), voices, totals, looking: false }
    }

    fn play(&mut self, packet: &Packet) {
        let now = self.start.elapsed();
        if packet.stream.0 >= STREAMS {
            return;
        }
        let plays = self.voices.get(&packet.stream).is_some_and(|voice| voice.plays(packet));
        if !plays {
            self.silence(packet.stream);
            let sink = self.output.open(packet.format);
            self.voices.insert(packet.stream, Voice::new(packet, sink, self.events));
        }
        if let Some(voice) = self.voices.get_mut(&packet.stream) {
            voice.play(now, packet);
        }
    }

    fn look_after(&mut self) {
        let now = self.start.elapsed();
        for voice in self.voices.values_mut() {
            if let Some(report) = voice.look_after(now) {
                self.host.do_send(Report(report));
            }
        }
    }

    /// Ends a stream: what has come was played, or never will be.
    fn silence(&mut self, stream: StreamId) {
        if let Some(mut voice) = self.voices.remove(&stream) {
            voice.stop();
            self.totals.sound += voice.totals();
        }
    }

    fn silence_all(&mut self) {
        for stream in self.voices.keys().copied().collect::<Vec<_>>() {
            self.silence(stream);
        }
    }

    /// Looks after the sinks again and again while something plays.
    fn keep_looking(&mut self, ctx: &mut Context<Self>) {
        if !self.looking && self.voices.values().any(Voice::playing) {
            self.looking = true;
            ctx.run_later(PERIOD, |act, ctx| {
                act.looking = false;
                act.look_after();
                act.keep_looking(ctx);
            });
        }
    }
}

impl Actor for Sound {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Heard> for Sound {
    type Result = ();

    fn handle(&mut self, heard: Heard, ctx: &mut Self::Context) {
        match heard {
            Heard::Audio(ToRemote::Play(packet)) => self.play(&packet),
            Heard::Audio(ToRemote::Pause { stream, run, position }) => {
                if let Some(voice) = self.voices.get_mut(&stream) {
                    voice.pause(run, position);
                }
            }
            // There is no microphone yet: the guest hears silence.
            Heard::Audio(ToRemote::Record { .. } | ToRemote::StopRecord { .. }) => {}
            Heard::Audio(
                message @ (ToRemote::PlayCoded(_)
                | ToRemote::Reception(_)
                | ToRemote::Missing(_)
                | ToRemote::Volume(_)),
            ) => tracing::debug!(?message, "nothing listens to this yet"),
            Heard::Silence => self.silence_all(),
        }
        self.look_after();
        self.keep_looking(ctx);
    }
}

impl Handler<End> for Sound {
    type Result = MessageResult<End>;

    fn handle(&mut self, _: End, ctx: &mut Self::Context) -> Self::Result {
        self.silence_all();
        ctx.stop();
        MessageResult(self.totals)
    }
}
