//! Whose clock the sample clock follows: that of the remote's sound card, as far as there is one.
//!
//! ```text
//!   no stream is reported ─────► free: back to the host's time
//!   one, or several that agree ► the one that has been reported for longest is followed
//!   two that disagree ─────────► nobody, until one of them has ended: they play on different cards
//! ```
//! Two streams agree as long as their buffers are equally far from where they should be: what one clock cannot keep for
//! both of them has two clocks.

use std::time::Duration;

use sound::clock::{Limits, Pace, Pacer};
use wire::audio::{Reception, StreamId};

/// A stream of which nothing was said for so long is not listened to.
const SILENT: Duration = Duration::from_secs(1);
/// Between buffers of one clock, that of a card that asks for more at once included, microseconds.
const DISAGREE: i64 = 15_000;
/// Reports that an error is averaged over.
const MEAN: i64 = 16;

/// The sample clock's pace.
#[derive(Debug)]
pub(crate) struct Follow {
    pacer: Pacer,
    /// In the order of their first report; as many as there are streams at most.
    heard: Vec<Listener>,
    at_odds: bool,
}

/// What is known of one stream's buffer at the remote.
#[derive(Debug)]
struct Listener {
    stream: StreamId,
    last: Duration,
    /// How much more waits than should, on average, microseconds.
    error: i64,
}

impl Follow {
    pub(crate) fn new() -> Self {
        Self { pacer: Pacer::new(Limits::SAMPLE_CLOCK), heard: Vec::new(), at_odds: false }
    }

    /// What the remote says of a stream that plays.
    pub(crate) fn observe(&mut self, now: Duration, reception: &Reception) {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let error = micros(reception.level).saturating_sub(micros(reception.target));
        match self.heard.iter_mut().find(|listener| listener.stream == reception.stream) {
            Some(listener) => {
                listener.error += (error.clamp(-1_000_000, 1_000_000) - listener.error) / MEAN;
                listener.last = now;
            }
            None => self.heard.push(Listener { stream: reception.stream, last: now, error: 0 }),
        }
        self.forget_silent(now);
        if self.heard.first().is_some_and(|leader| leader.stream == reception.stream) {
            self.pacer.observe(now, reception.level, reception.target);
        }
    }

    /// The stream plays no more.
    pub(crate) fn ended(&mut self, now: Duration, stream: StreamId) {
        self.heard.retain(|listener| listener.stream != stream);
        self.judge(now);
    }

    /// Another remote has come: nothing is known of its clock.
    pub(crate) fn forget(&mut self, now: Duration) {
        self.heard.clear();
        self.judge(now);
        self.pacer.forget();
    }

    /// How much faster than the host's time the clock is to run, parts per billion.
    pub(crate) fn ppb(&mut self, now: Duration) -> i32 {
        self.forget_silent(now);
        self.pacer.ratio(now)
    }

    fn forget_silent(&mut self, now: Duration) {
        self.heard.retain(|listener| now.saturating_sub(listener.last) < SILENT);
        self.judge(now);
    }

    fn judge(&mut self, now: Duration) {
        let errors = || self.heard.iter().map(|listener| listener.error);
        let spread = errors().max().unwrap_or(0) - errors().min().unwrap_or(0);
        self.at_odds = self.heard.len() > 1 && (self.at_odds || spread > DISAGREE);
        let pace = match (self.heard.is_empty(), self.at_odds) {
            (true, _) => Pace::Free,
            (_, true) => Pace::Host,
            (_, false) => Pace::Remote,
        };
        if pace != self.pacer.pace() {
            self.pacer.set_pace(now, pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// The remote's buffer of a stream, whose card is this much faster than the host, parts per million.
    struct Card {
        stream: u8,
        ppm: f64,
        level: f64,
    }

    impl Card {
        fn new(stream: u8, ppm: f64) -> Self {
            Self { stream, ppm, level: 0.02 }
        }

        fn report(&mut self, follow: &mut Follow, now: Duration) {
            self.level += (f64::from(follow.ppb(now)) / 1e9 - self.ppm / 1e6) * STEP.as_secs_f64();
            let reception = Reception {
                stream: StreamId(self.stream),
                run: 1,
                position: 0,
                at: now,
                level: Duration::from_secs_f64(self.level.max(0.0)),
                target: Duration::from_millis(20),
                jitter: Duration::ZERO,
                loss: 0,
                burst: 0,
                concealed: 0,
                slipped: 0,
                late: 0,
                duplicate: 0,
                xruns: 0,
            };
            follow.observe(now, &reception);
        }
    }

    fn ppm(follow: &mut Follow, now: Duration) -> i32 {
        follow.ppb(now) / 1_000
    }

    #[test]
    fn one_card_is_followed_within_20_ppm_in_15_seconds_and_let_go_when_it_falls_silent() {
        let (mut follow, mut card) = (Follow::new(), Card::new(4, -180.0));
        (0..150).for_each(|n| card.report(&mut follow, STEP * n));
        assert!((-200..=-160).contains(&ppm(&mut follow, STEP * 150)));
        assert_eq!(follow.ppb(STEP * 400), 0);
    }

    #[test]
    fn two_streams_of_one_card_are_followed_together() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 90.0), Card::new(5, 90.0));
        for n in 0..3_000 {
            one.report(&mut follow, STEP * n);
            if n > 700 {
                two.report(&mut follow, STEP * n);
            }
        }
        assert!((85..=95).contains(&ppm(&mut follow, STEP * 3_000)));
    }

    #[test]
    fn two_cards_are_followed_by_nobody_until_one_is_left() {
        let (mut follow, mut one, mut two) = (Follow::new(), Card::new(4, 400.0), Card::new(5, -400.0));
        for n in 0..3_000 {
            one.report(&mut follow, STEP * n);
            two.report(&mut follow, STEP * n);
        }
        assert_eq!(follow.ppb(STEP * 3_000), 0);
        follow.ended(STEP * 3_000, StreamId(4));
        two.level = 0.02;
        (3_000..3_600).for_each(|n| two.report(&mut follow, STEP * n));
        assert!((-420..=-380).contains(&ppm(&mut follow, STEP * 3_600)));
    }

    #[test]
    fn what_a_remote_says_moves_the_clock_no_faster_and_no_further_than_it_may() {
        let (mut follow, mut before) = (Follow::new(), 0);
        for n in 0..2_000u32 {
            let mut card = Card { stream: (n % 16) as u8, ppm: 0.0, level: f64::from(n % 7) * 900.0 };
            card.report(&mut follow, STEP * n);
            let ppb = follow.ppb(STEP * n);
            assert!(ppb.abs() <= 1_000_000 && (ppb - before).abs() <= 5_001, "{before} to {ppb}");
            before = ppb;
        }
    }
}
