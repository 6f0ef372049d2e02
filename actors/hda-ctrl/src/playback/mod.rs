//! What is played, on its way to the remote: a sender for each stream's run, and how it is sent by what the remote says.
//!
//! ```text
//!   hda ── Play, Pause ─┬► Runs ── PlayCoded ──► remote     PCM: at once
//!                       └► Coder: Runs ─► PlayCoded ─► remote     Opus: on a thread of its own
//!                            ▲ plan                  │
//!                          Chooser ◄── Reception ────┤
//!                          Runs    ◄── Missing ──────┘
//! ```
//! A stream that has been Opus once stays with the coder until another remote comes: nothing overtakes anything.

mod coder;
mod runs;

use std::{collections::BTreeMap, time::Duration};

use hda::Packet;
use sound::choice::{Chooser, Plan, Wish};
use wire::audio::{Codec, Format, Missing, Reception, StreamId, ToRemote, Volume};

pub(crate) use coder::Session;
use coder::{Coder, Job};
use runs::Runs;

/// All streams that play.
pub(crate) struct Playback {
    wish: Wish,
    round_trip: Option<Duration>,
    streams: BTreeMap<StreamId, Stream>,
    runs: Runs,
    coder: Coder,
    /// How loud the guest has them: one who comes later has to hear it.
    volumes: BTreeMap<StreamId, Volume>,
}

/// One of them. It outlives its runs, so that the next one begins with what is known of the link.
#[derive(Debug)]
struct Stream {
    run: u32,
    format: Format,
    chooser: Chooser,
    plan: Plan,
    /// The coder has it.
    away: bool,
    /// Frames for the coder, of which it can make no packet yet: it is not woken for less. And how many those are, with what
    /// waits there.
    held: Vec<Packet>,
    frames: usize,
}

impl Playback {
    /// `session`: where goes what the coder has written.
    pub(crate) fn new(wish: Wish, session: Session) -> Self {
        Self {
            wish,
            round_trip: None,
            streams: BTreeMap::new(),
            runs: Runs::default(),
            coder: Coder::new(session),
            volumes: BTreeMap::new(),
        }
    }

    /// From the next frames on it is sent as this says.
    pub(crate) fn set_wish(&mut self, wish: Wish) {
        if std::mem::replace(&mut self.wish, wish) != wish {
            self.streams.clear();
            self.runs.clear();
            self.coder.forget();
        }
    }

    /// How long a message to the remote and its answer take; none: that is not known.
    pub(crate) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
    }

    /// Another remote has come: nothing is known of the way to it, and it has heard nothing. What to tell it.
    pub(crate) fn begin_anew(&mut self) -> Vec<ToRemote> {
        self.streams.clear();
        self.runs.clear();
        self.coder.forget();
        self.volumes.values().copied().map(ToRemote::Volume).collect()
    }

    /// Takes what else the model has for the remote, and appends what goes there at once.
    pub(crate) fn send(&mut self, now: Duration, message: ToRemote, out: &mut Vec<ToRemote>) {
        match message {
            ToRemote::Pause { stream, run, .. } if self.is_away(stream) => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    self.coder.play(now, stream);
                    stream.frames = 0;
                }
                self.coder.take(Job::Pause(now, stream, run, message));
            }
            ToRemote::Pause { stream, run, .. } => {
                self.runs.flush(now, stream, run, out);
                out.push(message);
            }
            ToRemote::Volume(volume) => {
                self.volumes.insert(volume.stream, volume);
                out.push(message);
            }
            message => out.push(message),
        }
    }

    /// Takes frames of the guest, and appends what goes to the remote at once.
    pub(crate) fn play(&mut self, now: Duration, packet: Packet, out: &mut Vec<ToRemote>) {
        let Packet { stream: id, run, format, .. } = packet;
        let (wish, round_trip) = (self.wish, self.round_trip);
        let begin = || {
            let chooser = Chooser::new(wish, format);
            let plan = chooser.plan(round_trip);
            Stream { run, format, chooser, plan, away: false, held: Vec::new(), frames: 0 }
        };
        let stream = self.streams.entry(id).or_insert_with(begin);
        if stream.format != format {
            self.coder.play(now, stream);
            *stream = Stream { away: stream.away, ..begin() };
        }
        if std::mem::replace(&mut stream.run, run) != run {
            self.coder.play(now, stream);
            stream.frames = 0;
        }
        if !stream.away && stream.plan.codec == Codec::Opus {
            stream.away = true;
            if let Some(run) = self.runs.take(id) {
                stream.frames = run.waiting();
                self.coder.take(Job::Adopt(id, Box::new(run)));
            }
        }
        if stream.away {
            stream.frames += packet.pcm.len() / format.frame_bytes() as usize;
            stream.held.push(packet);
            if stream.frames >= stream.plan.frames.into() {
                self.coder.play(now, stream);
            }
        } else {
            self.runs.play(now, &packet, stream.plan, out);
        }
    }

    fn is_away(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.away)
    }

    /// What the remote says of its end, while the sample clock follows its card by so many parts per billion, if it does;
    /// whether it is about a run that plays.
    pub(crate) fn observe(&mut self, now: Duration, reception: &Reception, drift: Option<i32>) -> bool {
        let Some(stream) = self.streams.get_mut(&reception.stream) else { return false };
        if stream.run != reception.run {
            return false;
        }
        let plan = stream.chooser.observe(now, reception, self.round_trip);
        if plan != stream.plan {
            tracing::info!(stream = reception.stream.0, ?plan, "sound is sent in another way");
            stream.plan = plan;
        }
        stream.measure(reception, self.round_trip, drift);
        true
    }

    /// Sends once more what the remote lacks, as far as that makes sense.
    pub(crate) fn answer(&mut self, missing: Missing, out: &mut Vec<ToRemote>) {
        if self.is_away(missing.stream) {
            self.coder.take(Job::Answer(missing));
        } else {
            self.runs.answer(&missing, out);
        }
    }
}

impl Stream {
    /// What an operator sees. Times in milliseconds; the way there is taken for half of the way there and back.
    fn measure(&self, reception: &Reception, round_trip: Option<Duration>, drift: Option<i32>) {
        let round_trip = round_trip.unwrap_or_default();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let labels = [("stream", reception.stream.0.to_string())];
        let gauge = |name: &'static str, value: f64| metrics::gauge!(name, &labels).set(value);
        let Format { rate, encoding, channels } = self.format;
        gauge("farbus_play_rate_hz", rate.into());
        gauge("farbus_play_bits", encoding.significant_bits().into());
        gauge("farbus_play_channels", channels.into());
        gauge("farbus_play_opus", if self.plan.codec == Codec::Opus { 1.0 } else { 0.0 });
        gauge("farbus_play_latency_ms", millis(reception.level + round_trip / 2));
        gauge("farbus_play_round_trip_ms", millis(round_trip));
        gauge("farbus_play_jitter_ms", millis(reception.jitter));
        gauge("farbus_play_loss_ppm", reception.loss.into());
        gauge("farbus_play_concealed_frames", reception.concealed.into());
        gauge("farbus_play_slipped_frames", reception.slipped.into());
        gauge("farbus_play_xruns", reception.xruns.into());
        drift.into_iter().for_each(|drift| gauge("farbus_play_drift_ppb", drift.into()));
    }
}

#[cfg(test)]
mod tests;
