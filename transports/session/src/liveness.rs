//! Heartbeat: who asks, who answers, and who has fallen silent.

use std::time::Duration;

/// The heartbeat of a session that has begun.
#[derive(Debug)]
pub(crate) struct Liveness {
    heard: Duration,
    ping_at: Duration,
    ping_due: bool,
    /// The ping that was sent last, if its pong has not come: its number and time.
    asked: Option<(u64, Duration)>,
    pings: u64,
    /// The ping to answer. A newer one replaces it: a peer that floods us with pings gets one pong.
    pong: Option<u64>,
    silence: Silence,
}

/// How long nothing was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Silence {
    None,
    /// Long enough for another link to be of use.
    Quiet,
    /// Too long.
    Dead,
}

/// After how long it is which.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) quiet: Duration,
    pub(crate) dead: Duration,
}

impl Liveness {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            heard: now,
            ping_at: now,
            ping_due: false,
            asked: None,
            pings: 0,
            pong: None,
            silence: Silence::None,
        }
    }

    /// When the next ping is due.
    pub(crate) fn ping_at(&self) -> Duration {
        self.ping_at
    }

    /// Whether the peer was heard not long ago.
    pub(crate) fn well(&self) -> bool {
        self.silence == Silence::None
    }

    /// Something came from the peer.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        self.silence = Silence::None;
    }

    /// The next time at which [`Self::on_timeout`] has to run.
    pub(crate) fn next(&self, limits: Limits) -> Duration {
        let worse = match self.silence {
            Silence::None => self.heard + limits.quiet.min(limits.dead),
            Silence::Quiet => self.heard + limits.dead,
            Silence::Dead => return self.ping_at,
        };
        // Only when it comes first: otherwise the timer would move with every frame that is heard.
        if worse < self.ping_at { worse } else { self.ping_at }
    }

    /// Returns how silent the peer is, if that is worse than before.
    pub(crate) fn on_timeout(
        &mut self,
        now: Duration,
        heartbeat: Duration,
        limits: Limits,
    ) -> Option<Silence> {
        if now >= self.ping_at {
            self.ping_due = true;
            self.ping_at = now + heartbeat;
        }
        let silence = match now.saturating_sub(self.heard) {
            silent if silent >= limits.dead => Silence::Dead,
            silent if silent >= limits.quiet => Silence::Quiet,
            _ => Silence::None,
        };
        let worse = silence > self.silence;
        self.silence = self.silence.max(silence);
        worse.then_some(silence)
    }

    /// The number of a ping that is due, and whether the one before it is still to be answered.
    pub(crate) fn ping(&mut self, now: Duration) -> Option<(u64, bool)> {
        if !std::mem::take(&mut self.ping_due) {
            return None;
        }
        self.pings += 1;
        let before = self.asked.replace((self.pings, now));
        Some((self.pings, before.is_some()))
    }

    /// The number of a pong that is due.
    pub(crate) fn pong(&mut self) -> Option<u64> {
        self.pong.take()
    }

    /// A ping came.
    pub(crate) fn asked_by_peer(&mut self, number: u64) {
        self.pong = Some(number);
    }

    /// A pong came. Returns the round trip if it answers the latest ping.
    pub(crate) fn answered(&mut self, now: Duration, number: u64) -> Option<Duration> {
        let (_, sent) = self.asked.take_if(|(asked, _)| *asked == number)?;
        Some(now.saturating_sub(sent))
    }
}
