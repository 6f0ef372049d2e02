//! What a receiver measures: its level, how late packets are, how many are lost. Between two requests of the device its
//! time passes evenly, so that a level does not depend on where in a period a packet comes.

use core::time::Duration;
use std::collections::VecDeque;

use super::holes::Holes;
use crate::{frames_in, jitter::Delays, time_of};

/// How many packets are remembered, to tell those that come twice.
const RECENT: usize = 256;

/// The measures of one run.
#[derive(Debug)]
pub(super) struct Meter {
    rate: u32,
    pub(super) delays: Delays,
    /// When the device asked last.
    asked_at: Option<Duration>,
    /// The frame that was next then, how many it got of the run, and how many it got in all.
    before: u64,
    taken: u64,
    asked: u64,
    /// Frames that the device has asked for in all before that.
    line: u64,
    /// Sum in microseconds, and number, of levels since the last report.
    levels: (u64, u32),
    arrived: Option<Duration>,
    /// The places of the last packets.
    recent: VecDeque<u64>,
    /// The end of the furthest packet.
    furthest: Option<u64>,
    /// Since the last report, and between the two before it.
    counts: [Counts; 2],
    /// Packets have overtaken each other.
    reordered: bool,
    /// Of the delays since the line was found: the sum in microseconds, their number, and the last.
    mean: (i64, i64, i64),
}

/// Packets that came, that did not, and where those should have been.
#[derive(Debug, Default)]
struct Counts {
    came: u32,
    lost: u32,
    holes: Holes,
}

/// What happened to the packets since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    /// Parts per million.
    pub(super) loss: u32,
    /// Hundredths.
    pub(super) burst: u16,
}

impl Meter {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            delays: Delays::default(),
            asked_at: None,
            before: 0,
            taken: 0,
            asked: 0,
            line: 0,
            levels: (0, 0),
            arrived: None,
            recent: VecDeque::new(),
            furthest: None,
            counts: Default::default(),
            reordered: false,
            mean: (0, 0, 0),
        }
    }

    /// Positions begin anew.
    pub(super) fn restart(&mut self) {
        self.furthest = None;
        self.forget_line();
    }

    /// Positions and the device's time line have nothing to do with each other any more: what is late is found anew.
    pub(super) fn forget_line(&mut self) {
        self.delays.interrupt();
        self.mean = (0, 0, 0);
    }

    /// The device asks for `asked` frames, and gets `taken` of the run's, of which the first is `before`.
    pub(super) fn pulled(&mut self, now: Duration, before: u64, taken: u64, asked: u64) {
        // Who asks for nothing does not say that time has passed.
        if asked == 0 {
            return;
        }
        self.line = self.line.saturating_add(self.asked);
        (self.asked_at, self.before, self.taken, self.asked) = (Some(now), before, taken, asked);
    }

    /// Whether a packet for this place has come before, not counting copies and answers.
    pub(super) fn repeated(&self, position: u64) -> bool {
        self.furthest.is_some_and(|furthest| position < furthest) && self.recent.contains(&position)
    }

    /// Takes the place of a packet; which frames before it are missing now. `stored`: it came in time.
    pub(super) fn order(&mut self, position: u64, frames: u64, stored: bool) -> Option<(u64, u64)> {
        let end = position.saturating_add(frames);
        let [now, before] = &mut self.counts;
        let furthest = *self.furthest.get_or_insert(position);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(position);
        if position < furthest {
            // It was counted as lost when a later one came, possibly before the last report.
            if stored {
                let counts = if before.holes.fill(position, end) {
                    before
                } else if now.holes.fill(position, end) || before.lost == 0 {
                    now
                } else {
                    before
                };
                counts.lost = counts.lost.saturating_sub(1);
                counts.came = counts.came.saturating_add(1);
                self.reordered = true;
            }
            return None;
        }
        self.furthest = Some(end);
        now.came = now.came.saturating_add(1);
        let gap = position - furthest;
        (gap > 0).then(|| {
            let packets = u32::try_from(gap.div_ceil(frames.max(1))).unwrap_or(u32::MAX);
            now.lost = now.lost.saturating_add(packets);
            now.holes.leave(furthest, position);
            (furthest, gap)
        })
    }

    /// Whether packets have overtaken each other.
    pub(super) fn reordered(&self) -> bool {
        self.reordered
    }

    /// Notes how much waits after an arrival.
    pub(super) fn level(&mut self, now: Duration, end: u64) {
        let passed = self.passed(now).min(time_of(self.taken, self.rate));
        let waits = time_of(end.saturating_sub(self.before), self.rate).saturating_sub(passed);
        let micros = u64::try_from(waits.as_nanos() / 1_000).unwrap_or(u64::MAX);
        self.levels = (self.levels.0.saturating_add(micros), self.levels.1.saturating_add(1));
    }

    /// Frames to wait for at a request of the device until what waits (`queued`, measured as [`Self::level`] does) is the
    /// target; 0: it is.
    pub(super) fn wait(&self, now: Duration, queued: u64, target: Duration) -> u64 {
        let since = self.arrived.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        // As if the last packet had been as fast as all are on average.
        let (sum, count, last) = self.mean;
        let slower = last.saturating_sub(sum.checked_div(count).unwrap_or(last));
        let more = Duration::from_micros(slower.max(0).unsigned_abs());
        let less = Duration::from_micros(slower.min(0).unsigned_abs());
        let waits = time_of(queued, self.rate).saturating_add(since).saturating_add(more);
        frames_in(target.saturating_add(less).saturating_sub(waits), self.rate)
    }

    /// Notes how late a packet is on the device's time line. Whether the sender's time line has slipped.
    pub(super) fn delay(&mut self, now: Duration, position: u64, frames: u64) -> bool {
        // What comes right behind another was late because of that one: it is counted once.
        let apart = time_of(frames, self.rate) / 8;
        let behind = self.arrived.replace(now).is_some_and(|before| now.saturating_sub(before) < apart);
        if behind {
            return false;
        }
        let delay = self.relative(now, position);
        let (sum, count, _) = self.mean;
        self.mean = (sum.saturating_add(delay), count.saturating_add(1), delay);
        self.delays.note(now, delay)
    }

    fn relative(&self, now: Duration, position: u64) -> i64 {
        let passed = self.passed(now).min(time_of(self.asked, self.rate));
        let line = (time_of(self.line, self.rate) + passed).as_micros();
        let line = i64::try_from(line).unwrap_or(i64::MAX);
        let place = i64::try_from(time_of(position, self.rate).as_micros()).unwrap_or(i64::MAX);
        line.saturating_sub(place)
    }

    fn passed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.asked_at.unwrap_or(now))
    }

    /// The mean level since this was asked last.
    pub(super) fn take_level(&mut self) -> Option<Duration> {
        let (sum, count) = core::mem::take(&mut self.levels);
        sum.checked_div(count.into()).map(Duration::from_micros)
    }

    /// The losses between the two times before that this was asked: packets that were overtaken have come by now.
    pub(super) fn take_losses(&mut self) -> Losses {
        let [now, before] = core::mem::take(&mut self.counts);
        self.counts = [Counts::default(), now];
        let Counts { came, lost, holes } = before;
        let all = u64::from(came) + u64::from(lost);
        let loss = (u64::from(lost) * 1_000_000).checked_div(all).unwrap_or(0);
        let burst = u64::from(lost) * 100 / holes.count().max(1);
        Losses { loss: loss as u32, burst: u16::try_from(burst).unwrap_or(u16::MAX) }
    }
}
