//! The receiving end of a stream: packets in when they come, frames out when the device asks.
//!
//! ```text
//!   packets ─► queue ─ decode ─► frames ─ (resample) ─► device
//!
//!            enough waits                nothing has come
//!   waiting ─────────────► playing ───────────────────────► starved     the time line stands still: a slip
//!      ▲                      ▲  ◄── the next frames come ─────┘ │
//!      └── drained, and all was played; or starved for more than 250 ms: the newest sound is next
//! ```
//! A missing frame is made up only when something later has come: then the time line goes on.

mod arrival;
mod config;
mod following;
mod holes;
mod meter;
mod playout;
mod ring;

use core::{ops::Range, time::Duration};

use wire::audio::{Coded, Format, Missing, Reception, StreamId};

use crate::{
    codec::Decoder,
    frames_in,
    jitter::{Queue, Target},
    redundancy::{Ask, Asker},
    resample::Unfit,
    time_of,
};
pub use config::{Clocking, Config, Counters};
use following::Following;
use holes::Holes;
use meter::Meter;
use playout::{Held, State};

/// How often there is a report.
const REPORT: Duration = Duration::from_millis(100);
/// What may be ahead of the next frame at most: a second.
const WINDOW: Duration = Duration::from_secs(1);
/// The longest block of any codec.
const LONGEST_BLOCK: Duration = Duration::from_millis(120);
/// A device that asks for more at once is given silence for the rest.
const LONGEST_PERIOD: Duration = crate::appetite::LONGEST;
/// Packets in a row whose loss is only noticed, and repaired, at its end; longer rows are not waited for.
const LONGEST_ROW: u64 = 8;
/// For how long a loss makes room for repairs.
const LOSSY: Duration = Duration::from_secs(60);

/// One run of a stream, or one recording, on its way to a device.
#[derive(Debug)]
pub struct Receiver {
    stream: StreamId,
    run: u32,
    format: Format,
    config: Config,
    queue: Queue<Held>,
    decoder: Decoder,
    /// Decoded frames that were not played yet, interleaved.
    decoded: Vec<i32>,
    state: State,
    drained: bool,
    /// Nothing has come for long.
    stalled: bool,
    /// Until when more than should wait is dropped, after that.
    catching_up: Option<Duration>,
    /// Frames to wait, because the target has grown, or because of what is lacking after there was nothing to play.
    owed: u64,
    refilling: bool,
    /// Frames for which there was nothing to play before something came.
    lacked: u64,
    /// Frames that the device has in reserve, and how many of them it waits for.
    reserve: u64,
    behind: u64,
    target: Target,
    meter: Meter,
    following: Option<Following>,
    /// The last frames that were played as they came.
    past: Vec<i32>,
    scratch: Vec<i32>,
    /// Of the last pull: see [`Self::fillers`].
    fillers: Vec<Range<usize>>,
    asker: Asker,
    holes: Holes,
    round_trip: Option<Duration>,
    lossy_until: Duration,
    /// The most frames that were lost in a row in that time.
    row: u64,
    packet: u64,
    /// How far back the copies reach, in frames.
    reach: u64,
    counters: Counters,
    /// Nothing was played that was not sent like this.
    exact: bool,
    report: Option<Reception>,
    reported: Option<Duration>,
    slowest: Duration,
    looked: Option<Duration>,
    /// What repairs take.
    repair: Duration,
}

impl Receiver {
    /// For the run that this packet is the first seen of.
    ///
    /// # Errors
    /// The stream's rate cannot be converted to the device's.
    pub fn new(first: &Coded, config: Config) -> Result<Self, Unfit> {
        let Coded { stream, run, format, block, .. } = first;
        Self::at(*stream, *run, *format, block.position, config)
    }

    /// For a run whose next frame is `position`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(
        stream: StreamId,
        run: u32,
        format: Format,
        position: u64,
        config: Config,
    ) -> Result<Self, Unfit> {
        let window = frames_in(WINDOW, format.rate);
        // PCM is the heaviest; as much again for a block that is over in part, and for Opus that pretends to be short.
        let heaviest = usize::try_from(window).unwrap_or(usize::MAX) * format.frame_bytes() as usize * 2;
        let following = match config.clocking {
            Clocking::SenderFollows => None,
            Clocking::Resample(rate) => Some(Following::new(format.rate, rate, format.channels)?),
        };
        Ok(Self {
            stream,
            run,
            format,
            config,
            queue: Queue::new(position, window, heaviest),
            decoder: Decoder::new(format),
            decoded: Vec::new(),
            state: State::Waiting,
            drained: false,
            stalled: false,
            catching_up: None,
            owed: 0,
            refilling: false,
            lacked: 0,
            reserve: 0,
            behind: 0,
            target: Target::new(config.start),
            meter: Meter::new(format.rate),
            following,
            past: Vec::new(),
            scratch: Vec::new(),
            fillers: Vec::new(),
            asker: Asker::default(),
            holes: Holes::default(),
            round_trip: None,
            lossy_until: Duration::ZERO,
            row: 0,
            packet: 0,
            reach: 0,
            counters: Counters::default(),
            exact: true,
            report: None,
            reported: None,
            slowest: Duration::ZERO,
            looked: None,
            repair: Duration::ZERO,
        })
    }

    /// Whether a packet belongs to this run.
    #[must_use]
    pub fn receives(&self, coded: &Coded) -> bool {
        (self.stream, self.run, self.format) == (coded.stream, coded.run, coded.format)
    }

    /// Takes a packet at the time of its arrival; one of another run is dropped.
    pub fn push(&mut self, now: Duration, coded: &Coded) {
        if !self.receives(coded) {
            return;
        }
        let furthest = coded.copies.iter().map(|copy| copy.position).min();
        if !coded.again {
            self.reach = furthest.map_or(0, |first| coded.block.position.saturating_sub(first));
        }
        self.arrive(now, &coded.block, !coded.again);
        // Most copies are of what is here already: that is not worth counting.
        for copy in &coded.copies {
            if !self.queue.knows(copy.position) {
                self.store(copy);
            }
        }
    }

    /// No more frames follow for now: what waits is played, and the end of it is no slip. The next packet begins anew.
    pub fn drain(&mut self) {
        self.drained = true;
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.queue.load().0 == 0 && self.decoded.is_empty()
    }

    /// The time to the sender and back, when it answers [`Missing`]; `None`: it does not.
    pub fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
    }

    /// How unevenly the device takes frames from now on: more waits, or less.
    pub fn set_period(&mut self, period: Duration) {
        self.config.period = period;
    }

    /// What the sender is to be asked for now, once. To be called after each packet, and with each request of the device.
    pub fn missing(&mut self) -> Option<Missing> {
        let round_trip = self.round_trip?;
        if self.asker.is_idle() {
            return None;
        }
        let (queue, rate, playing) = (&self.queue, self.format.rate, self.playing());
        let reserve = self.reserve.saturating_sub(self.behind);
        // Where nothing is overtaken, what was jumped over is lost; else it may come by itself as long as there is time.
        let patient = self.meter.reordered();
        let last_call = round_trip.saturating_add(time_of(2 * self.packet, rate));
        let gaps = self.asker.ask(|first| {
            let left = time_of(first.saturating_add(reserve).saturating_sub(playing), rate);
            if queue.knows(first) || left <= round_trip {
                Ask::Never
            } else if patient && left > last_call {
                Ask::Later
            } else {
                Ask::Now
            }
        });
        let (stream, run) = (self.stream, self.run);
        (!gaps.is_empty()).then_some(Missing { stream, run, gaps })
    }

    /// What happened since the run began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether every frame so far was played as it was sent, once, in its turn; a slip between two frames is no change.
    #[must_use]
    pub fn exact(&self) -> bool {
        self.exact && self.following.is_none() && self.counters.lost == 0 && self.counters.cut == 0
    }

    /// Which frames of the last pull are no part of the run, in order: the time line waited there. They say nothing of
    /// what the device got if its frames are resampled.
    #[must_use]
    pub fn fillers(&self) -> &[Range<usize>] {
        &self.fillers
    }

    /// The frame that is played next.
    #[must_use]
    pub fn playing(&self) -> u64 {
        self.queue.head().saturating_sub(self.decoded_frames())
    }

    /// Frames that wait.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queue.end().saturating_sub(self.playing())
    }

    /// A report for the sender, ten times a second at most. There is none while nothing comes.
    pub fn report(&mut self) -> Option<Reception> {
        self.report.take()
    }

    fn decoded_frames(&self) -> u64 {
        (self.decoded.len() / self.channels()) as u64
    }

    fn channels(&self) -> usize {
        self.format.channels.max(1).into()
    }
}
