//! The desk: what `farbus-remote` does between a link and a sound card with periods of 10 ms, with the same receiver and
//! sender; the card is a timer. (The program itself has no place from which the moment of a callback could be told.)
//!
//! ```text
//!   link ─► Receiver ◄─ as packets come: what the ring lacks ─ ring ◄─ every 10 ms, 480 frames: the card
//!   link ◄─ Sender   ◄─ as packets come: what is there ─────── ring ◄─ every 10 ms, 480 frames: the microphone
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use link::Link;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use session::Role;
use sound::{
    Config, Receiver, Sender,
    appetite::Appetite,
    choice::{Chooser, Wish},
};
use tokio::sync::mpsc;
use wire::{
    Lane, ToRemote,
    audio::{self, Coded, StreamId},
};

use crate::{FORMAT, host::said, pump::pump};

/// Of `farbus-remote`: how often sinks are looked after, when something comes and if nothing does; how much more waits
/// after the card had not enough; and how evenly its ring is filled.
const SOONEST: Duration = Duration::from_millis(2);
const LATEST: Duration = Duration::from_micros(2_500);
const MORE: Duration = Duration::from_millis(4);
const EVENLY: Duration = Duration::from_millis(1);
/// The card's period; as much waits before it starts.
const PERIOD: usize = 480;

/// The first stream's frames on their way to the card, each run of them with the number of its first.
struct Ring {
    runs: VecDeque<(Option<u64>, usize)>,
    waiting: usize,
    appetite: Appetite,
    /// When the card took a period last, and how often it could not.
    taken: Option<Instant>,
    xruns: u64,
    playing: bool,
    /// Every 48th frame that was put here, and when.
    put: Vec<(Instant, u64)>,
}

impl Default for Ring {
    fn default() -> Self {
        let (runs, put, appetite) = (VecDeque::new(), Vec::new(), Appetite::new(FORMAT.rate));
        Self { runs, waiting: 0, appetite, taken: None, xruns: 0, playing: false, put }
    }
}

/// What the card has done.
#[derive(Debug, Default)]
pub(crate) struct Card {
    /// Every 48th frame that was handed to it, and when.
    pub(crate) played: Vec<(Instant, u64)>,
    /// The number of a frame of the microphone and when it was handed out, period by period.
    pub(crate) recorded: Vec<(Instant, u32)>,
    pub(crate) xruns: u64,
}

/// What both threads of the desk share.
#[derive(Default)]
struct Shared {
    ring: Mutex<(Ring, VecDeque<u32>)>,
    card: Mutex<Card>,
}

/// What is known at the end.
pub(crate) struct Heard {
    pub(crate) card: Card,
    /// Every 48th frame of the first stream that has come, and when; and that was put into the card's ring.
    pub(crate) came: Vec<(Instant, u64)>,
    pub(crate) put: Vec<(Instant, u64)>,
    pub(crate) counters: sound::Counters,
    pub(crate) opus: bool,
    pub(crate) last: Option<audio::Reception>,
    /// What the host says of the microphone.
    pub(crate) microphone: Option<audio::Reception>,
}

/// Plays and records until it is stopped.
pub(crate) async fn run(link: Box<dyn Link>, wish: Wish, stop: Arc<AtomicBool>) -> Heard {
    let shared = Arc::new(Shared::default());
    let card = {
        let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
        thread::spawn(move || card(&shared, &stop))
    };
    let (out, saying) = mpsc::unbounded_channel();
    let (come, mut coming) = mpsc::unbounded_channel::<(Lane, Bytes, Option<Duration>)>();
    let pump = tokio::spawn(pump(link, Role::Remote, saying, move |lane, bytes, trip| {
        let _ = come.send((lane, bytes, trip));
    }));
    let mut desk = Desk {
        start: Instant::now(),
        wish,
        voices: BTreeMap::new(),
        microphone: None,
        trip: None,
        looked: Duration::ZERO,
        opus: false,
        came: Vec::new(),
        said: None,
    };
    let mut due = tokio::time::Instant::now();
    while !stop.load(Relaxed) {
        tokio::select! {
            biased;
            message = coming.recv() => {
                let Some(message) = message else { break };
                desk.take(message, &shared);
                while let Ok(message) = coming.try_recv() {
                    desk.take(message, &shared);
                }
                if desk.start.elapsed() - desk.looked < SOONEST {
                    continue;
                }
            }
            () = tokio::time::sleep_until(due) => {}
        }
        desk.look_after(&shared).into_iter().for_each(|message| drop(out.send(said(message))));
        due = tokio::time::Instant::now() + LATEST;
    }
    drop(out);
    pump.abort();
    card.join().expect("the card").expect("a timer");
    let first = desk.voices.values().next();
    Heard {
        card: std::mem::take(&mut *shared.card.lock().expect("no panic")),
        came: desk.came,
        put: std::mem::take(&mut shared.ring.lock().expect("no panic").0.put),
        counters: first.map(|voice| voice.receiver.counters()).unwrap_or_default(),
        last: first.and_then(|voice| voice.last),
        opus: desk.opus,
        microphone: desk.said,
    }
}

struct Voice {
    receiver: Receiver,
    last: Option<audio::Reception>,
    /// Of all voices but the first, for which the card does not need to be told apart.
    due: Option<Instant>,
}

struct Desk {
    start: Instant,
    wish: Wish,
    voices: BTreeMap<StreamId, Voice>,
    microphone: Option<(Sender, Chooser)>,
    trip: Option<Duration>,
    looked: Duration,
    opus: bool,
    came: Vec<(Instant, u64)>,
    said: Option<audio::Reception>,
}

/// Of these frames every 48th, with the moment.
fn marked(now: Instant, frames: std::ops::Range<u64>) -> impl Iterator<Item = (Instant, u64)> {
    (frames.start.next_multiple_of(48)..frames.end).step_by(48).map(move |frame| (now, frame))
}

impl Desk {
    fn take(&mut self, (lane, bytes, trip): (Lane, Bytes, Option<Duration>), shared: &Shared) {
        self.trip = trip;
        if let Ok(ToRemote::Audio(message)) = ToRemote::decode(lane, bytes) {
            self.hear(message, shared);
        }
    }

    fn hear(&mut self, message: audio::ToRemote, shared: &Shared) {
        let now = self.start.elapsed();
        match message {
            audio::ToRemote::PlayCoded(coded) => self.play(now, &coded, shared),
            audio::ToRemote::Record { stream, run, format } => {
                let chooser = Chooser::new(self.wish, format);
                self.microphone =
                    Some((Sender::new(stream, run, format, 0, chooser.plan(self.trip)), chooser));
            }
            audio::ToRemote::Reception(reception) => {
                self.said = Some(reception);
                if let Some((sender, chooser)) = &mut self.microphone {
                    sender.set_plan(chooser.observe(now, &reception, self.trip));
                }
            }
            _ => {}
        }
    }

    fn play(&mut self, now: Duration, coded: &Coded, shared: &Shared) {
        let config = Config { period: EVENLY, ..Config::LAN }.over(self.trip);
        self.opus = coded.block.codec == audio::Codec::Opus;
        let first = self.voices.is_empty();
        let fresh = || {
            let mut receiver = Receiver::new(coded, config).expect("a stream");
            if first {
                let (holds, takes, unasked) = shared.ring.lock().expect("no panic").0.begin();
                receiver.set_ring(holds, takes, unasked);
            }
            Voice { receiver, last: None, due: None }
        };
        let voice = self.voices.entry(coded.stream).or_insert_with(fresh);
        voice.receiver.push(now, coded);
        if self.voices.keys().next() == Some(&coded.stream) && !coded.again {
            let first = coded.block.position;
            self.came.extend(marked(Instant::now(), first..first + u64::from(coded.block.frames)));
        }
    }

    fn look_after(&mut self, shared: &Shared) -> Vec<audio::ToHost> {
        let (now, mut out, mut samples) = (self.start.elapsed(), Vec::new(), Vec::new());
        let mut first = true;
        self.looked = now;
        for voice in self.voices.values_mut() {
            let (wants, least) = if std::mem::take(&mut first) {
                let ring = &mut shared.ring.lock().expect("no panic").0;
                if std::mem::take(&mut ring.xruns) > 0 {
                    voice.receiver.ran_out(now, MORE);
                }
                ring.wants(now)
            } else {
                let wants = voice.wants();
                (wants, wants)
            };
            voice.receiver.set_round_trip(self.trip);
            voice.receiver.supply(now, wants, least, &mut samples);
            if voice.due.is_none() {
                shared.ring.lock().expect("no panic").0.take(&voice.receiver, samples.len() / 2);
            }
            let report = voice.receiver.report();
            voice.last = report.or(voice.last);
            out.extend(report.map(audio::ToHost::Reception));
            out.extend(voice.receiver.missing().map(audio::ToHost::Missing));
        }
        self.record(now, shared, &mut out);
        out
    }

    fn record(&mut self, now: Duration, shared: &Shared, out: &mut Vec<audio::ToHost>) {
        let Some((sender, _)) = &mut self.microphone else { return };
        let pcm: Vec<u8> = {
            let mut ring = shared.ring.lock().expect("no panic");
            ring.1.drain(..).flat_map(u32::to_le_bytes).collect()
        };
        let mut coded = Vec::new();
        sender.push(now, &pcm, &mut coded);
        out.extend(coded.into_iter().map(audio::ToHost::RecordedCoded));
    }
}

impl Voice {
    /// What a card of its own would want: as much as time has passed.
    fn wants(&mut self) -> usize {
        let due = *self.due.get_or_insert_with(Instant::now);
        let frames = (due.elapsed().as_secs_f64() * f64::from(FORMAT.rate)) as usize;
        self.due = Some(due + sound::time_of(frames as u64, FORMAT.rate));
        frames
    }
}

impl Ring {
    /// How long ago the card took a period, and how many frames that were.
    fn took(&self) -> (Duration, u64) {
        self.taken.map_or((Duration::ZERO, 0), |taken| (taken.elapsed(), PERIOD as u64))
    }

    /// Frames follow.
    fn begin(&mut self) -> (Duration, Duration, u64) {
        let (since, most) = self.took();
        self.appetite.begin(self.waiting as u64, most, since)
    }

    /// What it wants now, and what it has to have.
    fn wants(&mut self, now: Duration) -> (usize, usize) {
        let waiting = self.waiting as u64;
        let wants = self.appetite.wants(now, waiting);
        (wants as usize, self.appetite.needs(waiting, self.took()) as usize)
    }

    /// Notes which frames of the run the last pull has got.
    fn take(&mut self, receiver: &Receiver, frames: usize) {
        let fillers = receiver.fillers();
        let lost: usize = fillers.iter().map(|range| range.end - range.start).sum();
        let (mut next, mut at) = (receiver.playing().saturating_sub((frames - lost) as u64), 0);
        let now = Instant::now();
        for filler in fillers.iter().cloned().chain(std::iter::once(frames..frames)) {
            self.put.extend(marked(now, next..next + (filler.start - at) as u64));
            self.runs.push_back((Some(next), filler.start - at));
            self.runs.push_back((None, filler.end - filler.start));
            next += (filler.start - at) as u64;
            at = filler.end;
        }
        self.waiting += frames;
        self.appetite.got(frames as u64);
    }

    /// A period of the card.
    fn callback(&mut self, now: Instant, card: &mut Card) {
        self.taken = Some(now);
        self.playing |= self.waiting >= PERIOD;
        if !self.playing {
            return;
        }
        let mut left = PERIOD;
        while let Some((first, frames)) = self.runs.front_mut().filter(|_| left > 0) {
            let some = left.min(*frames);
            if let Some(first) = first {
                card.played.extend(marked(now, *first..*first + some as u64));
                *first += some as u64;
            }
            (*frames, left, self.waiting) = (*frames - some, left - some, self.waiting - some);
            if *frames == 0 {
                self.runs.pop_front();
            }
        }
        if left > 0 {
            self.playing = false;
            card.xruns += 1;
            self.xruns += 1;
        }
    }
}

/// The card's thread.
fn card(shared: &Shared, stop: &AtomicBool) -> Result<()> {
    let timer = timer(sound::time_of(PERIOD as u64, FORMAT.rate))?;
    let mut number = 0;
    while !stop.load(Relaxed) {
        // A card goes on while its thread does not run, and asks for more at once afterwards.
        let mut periods = [0; 8];
        rustix::io::read(&timer, &mut periods)?;
        let now = Instant::now();
        let (mut ring, mut card) =
            (shared.ring.lock().expect("no panic"), shared.card.lock().expect("no panic"));
        for _ in 0..u64::from_ne_bytes(periods) {
            ring.0.callback(now, &mut card);
            ring.1.extend(number + 1..=number + PERIOD as u32);
            number += PERIOD as u32;
            card.recorded.push((now, number));
        }
        // Without anybody who listens nothing waits.
        let late = ring.1.len().saturating_sub(4 * PERIOD);
        ring.1.drain(..late);
    }
    Ok(())
}

/// A timer that rings this often, in less than a second.
pub(crate) fn timer(every: Duration) -> Result<std::os::fd::OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let every = Timespec { tv_sec: 0, tv_nsec: every.subsec_nanos().into() };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
    Ok(timer)
}
