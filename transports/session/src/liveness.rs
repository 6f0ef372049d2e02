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
    silent: bool,
}

impl Liveness {
    pub(crate) fn new(now: Duration) -> Self {
        Self { heard: now, ping_at: now, ping_due: false, asked: None, pings: 0, pong: None, silent: false }
    }

    /// When the next ping is due.
    pub(crate) fn ping_at(&self) -> Duration {
        self.ping_at
    }

    /// Something came from the peer.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        self.silent = false;
    }

    /// The next time at which [`Self::on_timeout`] has to run.
    pub(crate) fn next(&self, dead_after: Duration) -> Duration {
        let death = self.heard + dead_after;
        // Only when it comes first: otherwise the timer would move with every frame that is heard.
        if !self.silent && death < self.ping_at { death } else { self.ping_at }
    }

    /// Returns true when the peer has just fallen silent.
    pub(crate) fn on_timeout(&mut self, now: Duration, heartbeat: Duration, dead_after: Duration) -> bool {
        if now >= self.ping_at {
            self.ping_due = true;
            self.ping_at = now + heartbeat;
        }
        let fell_silent = !self.silent && now >= self.heard + dead_after;
        self.silent |= fell_silent;
        fell_silent
    }

    /// The number of a ping that is due.
    pub(crate) fn ping(&mut self, now: Duration) -> Option<u64> {
        if !std::mem::take(&mut self.ping_due) {
            return None;
        }
        self.pings += 1;
        self.asked = Some((self.pings, now));
        Some(self.pings)
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
