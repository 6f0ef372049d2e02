//! The remote's sound: packets in, a sink that takes them at its own pace, reports back; and a microphone, as far as it
//! is granted and the VM listens.
//!
//! ```text
//!   PlayCoded ─────► Sound ── Voice, one for each stream of the VM: Receiver ◄─wants─ dyn Sink ── paced | card
//!   Pause, Apart ──►   │ │                                           │
//!   timer ─────────►   │ └◄── events, Reception, Missing (to the host)┘
//!   Record ────────►   └─── Microphone ◄── dyn Source ── WAV file | ramp | card ──► RecordedCoded (to the host)
//!   what is there ─►   Sense ─────────────────────────────────────────────────────► Jack (to the host)
//! ```
//! It has a thread of its own: opening a card or writing a file holds up nobody's keys.

mod adapt;
#[cfg(feature = "cpal")]
mod card;
mod convert;
mod drift;
mod microphone;
mod pace;
mod paced;
mod place;
mod ramp;
mod sense;
pub(crate) mod status;
mod voice;
mod wav;

use std::{collections::BTreeMap, time::Duration};

use ::sound::choice::Wish;
use actix::prelude::*;
use tokio::time::Instant;
use wire::audio::{Coded, Jack, StreamId, ToHost, ToRemote, Volume};

#[cfg(feature = "cpal")]
pub(crate) use card::names;
pub(crate) use pace::Pace;
pub(crate) use place::{Input, Output};
pub(crate) use sense::Headphones;

use crate::events::{Event, Events, Totals};
use microphone::Microphone;
use place::{Sink, Source};
use sense::{Found, Sense};
use status::{Playing, Status};
use voice::Voice;

/// How often sinks and the microphone are looked after while there is sound: whenever something has come, but not more often
/// than that; and if nothing comes.
const SOONEST: Duration = Duration::from_millis(2);
const LATEST: Duration = Duration::from_micros(2_500);
/// How often it is looked which devices there are.
const LOOK: Duration = Duration::from_secs(1);
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
    /// There is a link: the host knows of nothing yet.
    Linked,
    /// How long a message to the host and its answer take.
    RoundTrip(Duration),
    /// The link is gone: whatever plays has ended, and nobody listens.
    Silence,
}

/// What the user wants of the sound. The answer is how it is then.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Status")]
pub(crate) enum Ask {
    /// To know.
    Status,
    /// The microphone muted, or not.
    Mute(bool),
    /// Headphones plugged in, or not.
    Headphones(Headphones),
}

/// A report for the host.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Report(pub(crate) ToHost);

/// The end of this actor, when everything it has is where it belongs; what it all came to.
#[derive(Debug, Message)]
#[rtype(result = "Totals")]
pub(crate) struct End;

/// What sound is made of.
pub(crate) struct Parts {
    pub(crate) output: Output,
    pub(crate) input: Input,
    pub(crate) headphones: Headphones,
    /// How the microphone is sent.
    pub(crate) codec: Wish,
    pub(crate) events: Events,
    pub(crate) host: Recipient<Report>,
}

/// The actor.
pub(crate) struct Sound {
    output: Output,
    events: Events,
    host: Recipient<Report>,
    start: Instant,
    voices: BTreeMap<StreamId, Voice>,
    microphone: Microphone,
    /// None while another thread looks.
    sense: Option<Sense>,
    found: Found,
    headphones: Headphones,
    plugged_headphones: bool,
    totals: Totals,
    /// When sinks and the microphone were looked after last, and what does it if nothing comes; none while nothing plays.
    looked: Instant,
    timer: Option<SpawnHandle>,
    /// They are looked after as soon as everything that has come is heard.
    called: bool,
    /// How loud the VM has its streams set.
    volumes: BTreeMap<StreamId, Volume>,
    round_trip: Option<Duration>,
}

impl Sound {
    pub(crate) fn new(Parts { output, input, headphones, codec, events, host }: Parts) -> Self {
        Self {
            sense: Some(Sense::new(output.place().clone(), input.place().clone())),
            microphone: Microphone::new(input, codec, events),
            output,
            events,
            host,
            start: Instant::now(),
            voices: BTreeMap::new(),
            found: Found::default(),
            headphones,
            plugged_headphones: false,
            totals: Totals::default(),
            looked: Instant::now(),
            timer: None,
            called: false,
            volumes: BTreeMap::new(),
            round_trip: None,
        }
    }

    fn play(&mut self, packet: &Coded) {
        let now = self.start.elapsed();
        if packet.stream.0 >= STREAMS {
            return;
        }
        let plays = self.voices.get(&packet.stream).is_some_and(|voice| voice.plays(packet));
        if !plays {
            self.silence(packet.stream);
            let sink = self.output.open(packet.format);
            let voice = Voice::new(packet, sink, self.round_trip, self.events);
            self.voices.extend(voice.map(|voice| (packet.stream, voice)));
        }
        if let Some(voice) = self.voices.get_mut(&packet.stream) {
            voice.play(now, packet);
        }
    }

    fn look_after(&mut self, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        for voice in self.voices.values_mut() {
            voice.set_round_trip(self.round_trip);
            voice.look_after(now).into_iter().for_each(|report| self.host.do_send(Report(report)));
        }
        match self.microphone.look_after(now) {
            Ok(packets) => packets.into_iter().for_each(|packet| self.host.do_send(Report(packet))),
            Err(error) => {
                tracing::warn!("microphone: {error:#}");
                self.look(true, ctx);
            }
        }
    }

    /// Looks which devices there are, on another thread: it may take long. `wrong`: the microphone has failed.
    fn look(&mut self, wrong: bool, ctx: &mut Context<Self>) {
        let Some(mut sense) = self.sense.take() else { return };
        let looked = tokio::task::spawn_blocking(move || (sense.look(wrong), sense));
        ctx.spawn(looked.into_actor(self).map(|looked, act, _| {
            if let Ok((found, sense)) = looked {
                (act.sense, act.found) = (Some(sense), found);
                act.plug();
            }
        }));
    }

    /// Tells the host what has been plugged in or pulled out.
    fn plug(&mut self) {
        let headphones = match self.headphones {
            Headphones::Auto => self.found.headphones,
            Headphones::Yes => true,
            Headphones::No => false,
        };
        if self.microphone.present() != self.found.microphone {
            self.microphone.plug(self.found.microphone);
            self.tell(Jack::Microphone, self.found.microphone);
        }
        if std::mem::replace(&mut self.plugged_headphones, headphones) != headphones {
            self.tell(Jack::Headphone, headphones);
        }
    }

    fn tell(&self, jack: Jack, present: bool) {
        self.events.say(&Event::Jack { jack: format!("{jack:?}").to_lowercase(), present });
        self.host.do_send(Report(ToHost::Jack { jack, present }));
    }

    /// A new host takes every jack for empty.
    fn tell_all(&self) {
        for (jack, present) in
            [(Jack::Microphone, self.microphone.present()), (Jack::Headphone, self.plugged_headphones)]
        {
            if present {
                self.tell(jack, present);
            }
        }
    }

    /// A card that has failed may be there again, or there is another.
    fn play_again(&mut self) {
        for voice in self.voices.values_mut() {
            if voice.lost_its_card() && self.output.comes_back() {
                voice.go_on(self.output.open(voice.format()));
            }
        }
    }

    fn playing(&self) -> Vec<Playing> {
        let volume = |stream: &StreamId| self.volumes.get(stream).copied().map(status::Volume::from);
        self.voices.iter().map(|(stream, voice)| voice.status(volume(stream))).collect()
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
        self.microphone.stop_all();
    }

    /// Looks after the sinks again and again while something plays.
    fn keep_looking(&mut self, ctx: &mut Context<Self>) {
        if !self.sounds() || self.called {
            return;
        }
        if self.timer.is_none() {
            self.set_timer(ctx);
        } else if self.looked.elapsed() >= SOONEST {
            self.called = true;
            let look = async {}.into_actor(self).map(|(), act, ctx| act.look_and_go_on(ctx));
            ctx.spawn(look);
        }
    }

    fn look_and_go_on(&mut self, ctx: &mut Context<Self>) {
        self.called = false;
        self.look_after(ctx);
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if self.sounds() {
            self.set_timer(ctx);
        }
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        self.looked = Instant::now();
        self.timer = Some(ctx.run_later(LATEST, |act, ctx| {
            act.timer = None;
            act.look_and_go_on(ctx);
        }));
    }

    fn sounds(&self) -> bool {
        self.voices.values().any(Voice::playing) || self.microphone.listened_to()
    }
}

impl Actor for Sound {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.look(false, ctx);
        ctx.run_interval(LOOK, |act, ctx| {
            if !act.microphone.open() {
                act.look(false, ctx);
            }
            act.play_again();
        });
    }
}

impl Handler<Heard> for Sound {
    type Result = ();

    fn handle(&mut self, heard: Heard, ctx: &mut Self::Context) {
        match heard {
            Heard::Audio(ToRemote::PlayCoded(packet)) => self.play(&packet),
            Heard::Audio(ToRemote::Pause { stream, run, position }) => {
                if let Some(voice) = self.voices.get_mut(&stream) {
                    voice.pause(run, position);
                }
            }
            Heard::Audio(ToRemote::Apart { stream, run }) => {
                if let Some(voice) = self.voices.get_mut(&stream) {
                    voice.adapt(run);
                }
            }
            Heard::Audio(ToRemote::Record { stream, run, format }) => {
                self.microphone.record(stream, run, format);
            }
            Heard::Audio(ToRemote::StopRecord { stream, run }) => self.microphone.stop(stream, Some(run)),
            Heard::Audio(ToRemote::Reception(reception)) => {
                self.microphone.set_round_trip(self.round_trip);
                self.microphone.observe(self.start.elapsed(), &reception);
            }
            Heard::Audio(ToRemote::Missing(missing)) => {
                let answers = self.microphone.answer(&missing);
                answers.into_iter().for_each(|answer| self.host.do_send(Report(answer)));
            }
            Heard::Audio(ToRemote::Volume(volume)) => drop(self.volumes.insert(volume.stream, volume)),
            Heard::RoundTrip(round_trip) => self.round_trip = Some(round_trip),
            Heard::Linked => self.tell_all(),
            Heard::Silence => {
                self.round_trip = None;
                self.volumes.clear();
                self.silence_all();
            }
        }
        // Sinks and the microphone are looked after when everything that has come by now has been heard.
        self.keep_looking(ctx);
    }
}

impl Handler<Ask> for Sound {
    type Result = MessageResult<Ask>;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> Self::Result {
        match ask {
            Ask::Status => {}
            Ask::Mute(muted) => self.microphone.mute(muted),
            Ask::Headphones(headphones) => self.headphones = headphones,
        }
        self.plug();
        MessageResult(Status {
            playing: self.playing(),
            microphone: self.microphone.status(self.round_trip),
            headphones: self.plugged_headphones,
        })
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
