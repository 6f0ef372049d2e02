//! PCM or Opus, how long a packet is, and what is sent twice: by what the receiver reports.
//!
//! ```text
//!            bad twice in a row (0.2 s)
//!   good ───────────────────────────────► bad      each of codec and redundancy on its own
//!        ◄───────────────────────────────
//!            good for 30 s, by a wider margin
//! ```

use core::time::Duration;

use wire::audio::{Codec, Format, Reception};

use crate::{
    codec::{opus_frames, whole_frames},
    redundancy::Distances,
};

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Whatever the link bears.
    #[default]
    Auto,
    /// PCM, always.
    Pcm,
    /// Opus wherever it can be: see [`crate::codec`].
    Opus,
}

impl core::str::FromStr for Wish {
    type Err = UnknownWish;

    /// `auto`, `pcm` or `opus`.
    fn from_str(text: &str) -> Result<Self, UnknownWish> {
        match text {
            "auto" => Ok(Self::Auto),
            "pcm" => Ok(Self::Pcm),
            "opus" => Ok(Self::Opus),
            _ => Err(UnknownWish),
        }
    }
}

/// Not a codec that can be wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the codec is `auto`, `pcm` or `opus`")]
pub struct UnknownWish;

/// How a stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What writes the frames.
    pub codec: Codec,
    /// Frames of one packet.
    pub frames: u16,
    /// At which distances copies follow.
    pub distances: Distances,
    /// Bits per second for Opus.
    pub bits: u32,
}

/// When something is bad, and when it is good again; between the two all stays as it is.
#[derive(Debug, Clone, Copy)]
struct Band {
    good: u64,
    bad: u64,
}

/// Parts per million of packets.
const LOSS_OF_PCM: Band = Band { good: 2_000, bad: 20_000 };
const LOSS_WITHOUT_COPIES: Band = Band { good: 200, bad: 2_000 };
/// Microseconds.
const ROUND_TRIP: Band = Band { good: 25_000, bad: 40_000 };
const JITTER: Band = Band { good: 8_000, bad: 20_000 };
/// A round trip of a local network.
const LOCAL: Duration = Duration::from_millis(10);
/// Up to what round trip half as long packets are worth their work, microseconds.
const NEAR: Band = Band { good: 10_000, bad: 20_000 };
/// Reports in a row that make a link bad.
const BAD_REPORTS: u32 = 2;
/// For how long it has to be good the first time, and how often that doubles: a link may be good only because of what was
/// done about it, and each time that it is tried again is heard.
const GOOD_FOR: Duration = Duration::from_secs(30);
const DOUBLINGS: u32 = 6;
/// Losses in a row, on average and in hundredths, that copies nearby do not survive.
const BURSTY: u16 = 150;
/// Bits per second and channel.
const OPUS_BITS: u32 = 64_000;
/// Packets of PCM where both ends are near and in time, of an ordinary stream, and of one over a link that is slow anyway.
const QUICK: Duration = Duration::from_micros(2_500);
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_millis(10);

/// Two states with hysteresis.
#[derive(Debug, Clone, Copy, Default)]
struct Switch {
    bad: bool,
    /// How often it has become bad.
    falls: u32,
    reports: u32,
    good_since: Option<Duration>,
}

impl Switch {
    fn observe(&mut self, now: Duration, values: &[(Band, u64)]) {
        let bad = values.iter().any(|(band, value)| *value >= band.bad);
        let good = values.iter().all(|(band, value)| *value < band.good);
        self.reports = if bad { self.reports.saturating_add(1) } else { 0 };
        self.good_since = if good { self.good_since.or(Some(now)) } else { None };
        let good_for = GOOD_FOR * 2_u32.pow(self.falls.saturating_sub(1).min(DOUBLINGS));
        if self.reports >= BAD_REPORTS {
            self.falls = self.falls.saturating_add(u32::from(!self.bad));
            self.bad = true;
        } else if self.good_since.is_some_and(|since| now.saturating_sub(since) >= good_for) {
            self.bad = false;
        }
    }
}

/// The choice for one stream.
#[derive(Debug, Clone)]
pub struct Chooser {
    wish: Wish,
    format: Format,
    codec: Switch,
    copies: Switch,
    packets: Switch,
    /// Loss comes and goes between reports: its mean over some seconds, parts per million.
    loss: u64,
    burst: u16,
}

impl Chooser {
    /// Begins as on a good link.
    #[must_use]
    pub fn new(wish: Wish, format: Format) -> Self {
        let (codec, copies, packets) = (Switch::default(), Switch::default(), Switch::default());
        Self { wish, format, codec, copies, packets, loss: 0, burst: 100 }
    }

    /// Takes a report of the receiver; the plan from now on. `round_trip`: to the receiver and back; a link of which nothing
    /// is known is taken for one of a local network.
    pub fn observe(&mut self, now: Duration, reception: &Reception, round_trip: Option<Duration>) -> Plan {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.loss = (self.loss * 31 + u64::from(reception.loss)) / 32;
        if reception.loss > 0 {
            self.burst = ((u32::from(self.burst) * 7 + u32::from(reception.burst)) / 8) as u16;
        }
        let way = round_trip.unwrap_or_default();
        // On a link that is short, it is the computers at its ends that are late: another codec would be as late.
        let jitter = if way < LOCAL { 0 } else { micros(reception.jitter) };
        let measures = [(LOSS_OF_PCM, self.loss), (ROUND_TRIP, micros(way)), (JITTER, jitter)];
        self.codec.observe(now, &measures);
        let loss = (LOSS_WITHOUT_COPIES, self.loss);
        self.copies.observe(now, &[loss]);
        // Where computers are late, more packets would be more work for them.
        self.packets.observe(now, &[loss, (NEAR, micros(way)), (JITTER, micros(reception.jitter))]);
        self.plan(round_trip)
    }

    /// The plan of the moment.
    #[must_use]
    pub fn plan(&self, round_trip: Option<Duration>) -> Plan {
        let slow = round_trip > Some(Duration::from_micros(ROUND_TRIP.bad));
        let near = !self.packets.bad && round_trip.unwrap_or_default().as_micros() < NEAR.bad.into();
        let packet = if slow { LONG } else { SHORT };
        let wanted = match self.wish {
            Wish::Auto => self.codec.bad,
            Wish::Pcm => false,
            Wish::Opus => true,
        };
        let opus = opus_frames(packet, self.format).filter(|_| wanted);
        let pcm = if near { QUICK } else { packet };
        let (codec, frames) = opus.map_or((Codec::Pcm, self.pcm_frames(pcm)), |f| (Codec::Opus, f));
        let distances = match (self.copies.bad, self.burst > BURSTY) {
            (false, _) => Distances::NONE,
            (true, false) if codec == Codec::Opus => Distances::new(&[2, 4]),
            (true, false) => Distances::new(&[2]),
            (true, true) if codec == Codec::Opus => Distances::new(&[4, 8]),
            (true, true) => Distances::new(&[8]),
        };
        Plan { codec, frames, distances, bits: OPUS_BITS * u32::from(self.format.channels) }
    }

    fn pcm_frames(&self, packet: Duration) -> u16 {
        let frames = crate::frames_in(packet, self.format.rate);
        whole_frames(packet, self.format.rate)
            .unwrap_or_else(|| u16::try_from(frames).unwrap_or(u16::MAX))
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_falls_again_and_again_is_tried_less_and_less_often() {
        let mut switch = Switch::default();
        let mut now = Duration::ZERO;
        for expected in [30, 60, 120, 240, 480, 960, 1_920, 1_920] {
            for _ in 0..BAD_REPORTS {
                switch.observe(now, &[(ROUND_TRIP, ROUND_TRIP.bad)]);
            }
            let fell = now;
            while switch.bad {
                now += Duration::from_secs(1);
                switch.observe(now, &[(ROUND_TRIP, 0)]);
            }
            // The first good report comes a second after the fall.
            assert_eq!((now - fell).as_secs(), expected + 1);
        }
    }
}
