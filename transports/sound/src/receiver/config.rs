//! How a stream is received, and what came of it.

use core::time::Duration;

/// Whose clock follows whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocking {
    /// The sender's clock follows the device ([`crate::clock::Pacer`]): frames come out as they are.
    SenderFollows,
    /// The device has a clock of its own, and this rate (hertz): frames are resampled.
    Resample(u32),
}

/// How a stream is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Whose clock follows whose.
    pub clocking: Clocking,
    /// How much the device asks for at once.
    pub period: Duration,
    /// What waits at first, e.g. [`crate::jitter::START_LAN`].
    pub start: Duration,
    /// Whether silence may be left out when more waits than has to, as after a stall. Not for a file.
    pub skips_silence: bool,
}

impl Config {
    /// For a device of a local network that the sender follows.
    pub const LAN: Self = Self {
        clocking: Clocking::SenderFollows,
        period: Duration::from_millis(10),
        start: crate::jitter::START_LAN,
        skips_silence: true,
    };

    /// The same with what is known of the link: how long a message to the sender and its answer take.
    #[must_use]
    pub fn over(self, round_trip: Option<Duration>) -> Self {
        let near = round_trip.is_some_and(|trip| trip < crate::jitter::NEAR);
        Self { start: if near { self.start.min(crate::jitter::START_NEAR) } else { self.start }, ..self }
    }
}

/// What happened since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that were played as they came.
    pub played: u64,
    /// Frames that did not come in time, or could not be read.
    pub lost: u64,
    /// Those of them that were made up; for the others the time line had waited already.
    pub concealed: u64,
    /// Frames of silence, or made up, for which the time line waited.
    pub waited: u64,
    /// Frames that were cut out, because too many waited: of silence, if there was time to wait for it.
    pub cut: u64,
    /// Frames that were decoded or made up, heard or not: what it cost.
    pub decoded: u64,
    /// Packets that came when their time was over.
    pub late: u64,
    /// Packets that came twice; copies and answers are not counted.
    pub duplicate: u64,
    /// Packets that could not be read, or for which there was no room.
    pub refused: u64,
}
