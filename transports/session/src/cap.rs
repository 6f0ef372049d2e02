//! How much of BULK may be on its way: what the path holds and about a millisecond more, as urgent messages meet it there.
//!
//! Two rules, both from what the peer says to have received:
//! - **Never less than the path needs.** At a rate `r` and a shortest round trip `t` the path holds `r * t`. The bound is
//!   that and a budget: a millisecond at this rate, or more where round trips are long or differ much: what is lost below
//!   comes late, and everything behind it. Until it has once been high enough it grows fast.
//! - **No more than helps.** The bound tries to be lower for a while, and stays there if the rate does: at first as low as
//!   the path needs, if that was too bold a quarter lower each time. It tries to be a quarter higher, and stays there if
//!   the rate rises. So it finds its place also where round trips say little: on paths that hold frames back and let them
//!   go in bursts. There one span says little, too: a try has some, and is compared with all since the one before.
//!
//! ```text
//!           ┌────────── no use: back, and wait longer ◄─────┐
//!           ▼                                               │
//!   settle ─► measure ─► wait n spans ─► lower, or higher ─► settle ─► measure
//!   (a round trip)  ▲                                               │
//!                   └──────────── it helps: stay, and go on ◄───────┘
//! ```
//! A span in which the application had nothing to send says nothing, and is measured again. Now and then the bound falls
//! for a round trip, so that the shortest one is seen although the lane is never idle.

mod round_trips;

use std::{collections::VecDeque, time::Duration};

use round_trips::{Shortest, Swing};

/// The bound at first, bytes: what a LAN needs.
const FIRST: u64 = 64 * 1024;
/// The shortest chunk of a longer message, with its header, bytes.
const CHUNK: u64 = 4 * 1024 + 128;
/// The lowest bound, bytes.
const LEAST: u64 = 2 * CHUNK;
/// What an urgent message may wait for at the bottleneck beside a short round trip.
const BUDGET: Duration = Duration::from_millis(1);
/// What one round trip is late by, others are, too: the path needs so many times the mean of it. But not more than two of
/// the shortest: what makes them differ may be our own queue.
const SWINGS: u32 = 3;
/// Chunks that are late by more than this and a round trip queue somewhere.
const QUEUE: Duration = Duration::from_millis(4);
/// The peer is asked so often in what is on its way beyond what the path holds.
const ASKS: u64 = 3;
/// A rate is measured for so long, and for a round trip, at least.
const SPAN: Duration = Duration::from_millis(16);
/// A round trip in between is as good for a rate that is too low, if it is not shorter than this.
const GLANCE: Duration = Duration::from_millis(4);
/// Spans between two tries, at least and at most.
const WAITS: (u32, u32) = (2, 32);
/// Spans of a try: from one to the next, rates differ more than by what a bound costs, as much comes in bursts.
const TRY: u32 = 4;

/// The bound of what is on its way.
#[derive(Debug)]
pub(crate) struct Cap {
    most: u64,
    limit: u64,
    /// The bound has never been seen to be high enough.
    young: bool,
    shortest: Shortest,
    swing: Swing,
    /// What the peer was asked about, oldest first.
    asked: VecDeque<Asked>,
    /// The offset up to which the peer has all, and since when.
    arrived: (u64, Duration),
    /// What goes up to this offset has gone by another path before.
    again_until: u64,
    /// The bound is low until what was asked from this offset on has arrived.
    drain: Option<u64>,
    span: Span,
    phase: Phase,
    /// The next try to be lower leaves nothing but what the path needs.
    bold: bool,
    wait: u32,
    /// Bytes per second of the last span.
    rate: Option<u64>,
}

/// A chunk that the peer was asked about.
#[derive(Debug, Clone, Copy)]
struct Asked {
    end: u64,
    sent: Duration,
    /// What had arrived then, and when it had.
    arrived: (u64, Duration),
    /// Nothing more could go after it.
    last: bool,
}

#[derive(Debug, Clone, Copy)]
enum Span {
    /// What was sent under another bound ends here.
    Settle(u64),
    /// A span began; the bound has been what it is for longer.
    Measure { since: (u64, Duration), from: (u64, Duration) },
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Wait { spans: u32, lower_next: bool },
    Try { lower: bool, spans: u32, limit_before: u64, rate_before: u64 },
}

impl Cap {
    /// Never above `most`, bytes.
    pub(crate) fn new(most: u64) -> Self {
        let most = most.max(LEAST);
        Self {
            most,
            limit: FIRST.min(most),
            young: true,
            shortest: Shortest::default(),
            swing: Swing::default(),
            asked: VecDeque::new(),
            arrived: (0, Duration::ZERO),
            again_until: 0,
            drain: None,
            span: Span::Settle(0),
            phase: Phase::Wait { spans: 0, lower_next: true },
            bold: true,
            wait: WAITS.0,
            rate: None,
        }
    }

    /// The same for another path, on which nothing is. What was sent before, up to this offset, may have arrived already: that
    /// the peer has it says nothing about this path.
    pub(crate) fn reset(&mut self, again_until: u64) {
        *self = Self { again_until, ..Self::new(self.most) };
    }

    /// The bound of the moment, bytes.
    pub(crate) fn limit(&self) -> u64 {
        match (self.drain, self.shortest.get()) {
            (Some(_), Some(shortest)) => {
                let held = u128::from(self.limit) * shortest.as_nanos();
                let all = (shortest + self.budget(shortest)).as_nanos();
                u64::try_from(held / all / 2).unwrap_or(u64::MAX).clamp(LEAST, self.limit)
            }
            _ => self.limit,
        }
    }

    /// The rate of the last span in which the lane was busy, bytes per second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether a chunk that costs so much may go when so much is on its way. Something always may while the peer has
    /// nothing to answer, and what was lost always: nothing that follows it counts as arrived before it is there.
    pub(crate) fn allows(&self, in_flight: u64, cost: u64) -> bool {
        self.asked.is_empty() || cost == 0 || in_flight.saturating_add(cost) <= self.limit()
    }

    /// A chunk of this cost goes that ends at this offset; so much is on its way then, and the next may cost `next`.
    /// Whether the peer has to say when it has it: a few times in what may be on its way, and before nothing more may go.
    pub(crate) fn sent(&mut self, now: Duration, (end, cost): (u64, u64), in_flight: u64, next: u64) -> bool {
        if in_flight <= cost {
            // Nothing was on its way: the time before says nothing about the path.
            self.arrived = (end.saturating_sub(in_flight), now);
        }
        let limit = self.limit();
        let since = self.asked.back().map_or(in_flight, |asked| end.saturating_sub(asked.end));
        // What has arrived and is not known to have leaves the path idle, unless the budget is more.
        let (budget, all) = self.shortest.get().map_or((1, 1), |shortest| {
            let budget = self.budget(shortest);
            (budget.as_nanos(), (shortest + budget).as_nanos())
        });
        let part = u128::from(limit / ASKS) * budget / all;
        let last = in_flight.saturating_add(next) > limit;
        let asks = u128::from(since) >= part || last;
        if asks {
            self.asked.push_back(Asked { end, sent: now, arrived: self.arrived, last });
        }
        asks
    }

    /// The application had nothing to send although something might have gone.
    pub(crate) fn starved(&mut self) {
        if let Span::Measure { .. } = self.span {
            self.settle();
        }
    }

    /// Something small was answered after this time.
    pub(crate) fn round_trip(&mut self, now: Duration, round_trip: Duration) {
        if self.shortest.saw(now, round_trip) {
            self.drain = Some(self.last_asked());
        }
    }

    /// The peer has everything up to this offset.
    pub(crate) fn arrived(&mut self, now: Duration, offset: u64) {
        let news = offset.saturating_sub(self.arrived.0);
        if news == 0 {
            return;
        }
        self.arrived = (offset, now);
        let mut latest = None;
        while let Some(asked) = self.asked.pop_front_if(|asked| asked.end <= offset) {
            latest = Some(asked);
        }
        let Some(asked) = latest.filter(|asked| asked.end > self.again_until) else { return };
        let round_trip = now.saturating_sub(asked.sent);
        // Between the bounds before and in a try they differ by what the bounds do.
        if matches!(self.span, Span::Measure { .. }) || matches!(self.phase, Phase::Wait { .. }) {
            self.swing.saw(round_trip);
        }
        if self.young && asked.last {
            self.grow(news, round_trip);
        }
        if self.shortest.saw(now, round_trip) {
            self.drain = Some(self.last_asked());
        } else if self.drain.is_some_and(|from| asked.end > from) {
            // A path that has become shorter shows it only bit by bit, below the queue that it was given.
            let fell = self.shortest.fell();
            self.drain = fell.then(|| self.last_asked());
            if fell {
                // What the tries have shown was another path's.
                (self.bold, self.wait) = (true, WAITS.0);
                self.phase = Phase::Wait { spans: 0, lower_next: true };
            }
            self.settle();
        }
        let glance = now.saturating_sub(asked.arrived.1);
        if self.young || glance >= GLANCE {
            self.raise(per_second(offset.saturating_sub(asked.arrived.0), glance));
        }
        self.measure(now);
    }

    /// The bound held the lane back, and is not known to be high enough: it doubles within a round trip, until chunks queue.
    fn grow(&mut self, news: u64, round_trip: Duration) {
        self.young = self.shortest.get().is_none_or(|shortest| round_trip < shortest * 2 + QUEUE);
        if self.young && self.limit < self.most {
            self.limit = self.limit.saturating_add(news).min(self.most);
            self.settle();
        }
    }

    fn last_asked(&self) -> u64 {
        self.asked.back().map_or(self.arrived.0, |asked| asked.end)
    }

    /// What an urgent message may wait for at the bottleneck.
    fn budget(&self, shortest: Duration) -> Duration {
        BUDGET.max(shortest / 4).max((self.swing.mean * SWINGS).min(shortest * 2))
    }

    /// What a path of this rate needs.
    fn need(&self, rate: u64) -> Option<u64> {
        let shortest = self.shortest.get()?;
        let held = if self.young { shortest * 2 } else { shortest };
        let need = u128::from(rate) * (held + self.budget(shortest)).as_nanos() / 1_000_000_000;
        // A chunk is on its way until all of it has arrived.
        Some(u64::try_from(need).unwrap_or(u64::MAX).saturating_add(CHUNK).clamp(LEAST, self.most))
    }

    /// Whether the bound was too low for a path of this rate.
    fn raise(&mut self, rate: u64) -> bool {
        let Some(need) = self.need(rate).filter(|need| *need > self.limit) else { return false };
        self.limit = need;
        self.phase = Phase::Wait { spans: 0, lower_next: true };
        self.settle();
        true
    }

    fn settle(&mut self) {
        self.span = Span::Settle(self.last_asked());
    }

    fn measure(&mut self, now: Duration) {
        match self.span {
            Span::Settle(until) if self.arrived.0 >= until && self.drain.is_none() => {
                self.span = Span::Measure { since: self.arrived, from: self.arrived };
                self.swing.another_bound();
            }
            Span::Settle(_) => {}
            Span::Measure { .. } if self.drain.is_some() => self.settle(),
            Span::Measure { since, from } => {
                let bytes = self.arrived.0 - from.0;
                let time = now.saturating_sub(from.1);
                if bytes >= self.limit && time >= SPAN.max(self.shortest.get().unwrap_or_default()) {
                    let rate = per_second(bytes, time);
                    self.rate = Some(rate);
                    self.span = Span::Measure { since, from: self.arrived };
                    self.young = false;
                    if !self.raise(rate) {
                        self.step(self.arrived.0 - since.0, now.saturating_sub(since.1));
                    }
                }
            }
        }
    }

    /// A span is over. So much has arrived in this time under the bound of the moment.
    fn step(&mut self, bytes: u64, time: Duration) {
        let rate = per_second(bytes, time);
        match &mut self.phase {
            Phase::Wait { spans, .. } if *spans > 0 => *spans -= 1,
            Phase::Wait { lower_next, .. } => {
                let lower = *lower_next;
                self.attempt(lower, rate);
            }
            Phase::Try { lower, spans, limit_before, rate_before } => {
                *spans += 1;
                let (lower, spans) = (*lower, *spans);
                let (limit_before, rate_before) = (*limit_before, *rate_before);
                let (helps, hopeless) = if lower {
                    // A chunk may have missed the end by little.
                    let most = per_second(bytes + CHUNK, time);
                    (most >= rate_before - rate_before / 32, rate < rate_before - rate_before / 4)
                } else {
                    let soon = spans > 1 && rate < rate_before + rate_before / 32;
                    (rate >= rate_before + rate_before / 16, soon)
                };
                if hopeless || spans >= TRY && !helps {
                    self.bold &= !lower;
                    self.limit = limit_before;
                    self.pause(!lower);
                } else if spans >= TRY {
                    self.wait = WAITS.0;
                    self.attempt(lower, if lower { rate_before } else { rate });
                }
            }
        }
    }

    fn attempt(&mut self, lower: bool, rate: u64) {
        let limit_before = self.limit;
        let need = self.need(rate).unwrap_or(self.limit);
        self.limit = if lower {
            // Where the bound delays an urgent message by less than a budget more, there is little to win by boldness.
            let worth = limit_before - need.min(limit_before) > rate / 1_000;
            let lower = if self.bold && worth { need } else { limit_before - limit_before / 4 };
            lower.max(need).min(limit_before)
        } else {
            (limit_before + limit_before / 4).min(self.most)
        };
        if self.limit.abs_diff(limit_before) < limit_before / 16 {
            self.limit = limit_before;
            return self.pause(!lower);
        }
        self.phase = Phase::Try { lower, spans: 0, limit_before, rate_before: rate };
        self.settle();
    }

    fn pause(&mut self, lower_next: bool) {
        self.phase = Phase::Wait { spans: self.wait, lower_next };
        self.wait = (self.wait * 2).min(WAITS.1);
        self.settle();
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let time = time.as_nanos().max(1_000);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / time).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
