//! What unanswered and late pings say of a link, whatever is said again below it.

use std::time::Duration;

use bytes::Bytes;
use session::{Config, Role, Session};
use wire::Lane;

const MS: Duration = Duration::from_millis(1);

/// All that this end has to say.
fn said(now: Duration, session: &mut Session) -> Vec<(Lane, Bytes)> {
    std::iter::from_fn(|| session.poll_transmit(now))
        .map(|frame| (frame.lane, [&frame.head[..], &frame.body[..]].concat().into()))
        .collect()
}

/// A host that pings a remote once a second.
struct Pings {
    now: Duration,
    host: Session,
    remote: Session,
}

impl Pings {
    fn new() -> Self {
        let new = |role| Session::new(role, Config::default());
        Self { now: Duration::from_secs(100), host: new(Role::Host), remote: new(Role::Remote) }
    }

    /// One ping, whose answer takes so long, or is lost.
    fn answered(&mut self, after: Option<Duration>) {
        self.now += Duration::from_secs(1);
        self.host.on_timeout(self.now);
        for (lane, frame) in said(self.now, &mut self.host) {
            self.remote.receive(self.now, lane, frame).unwrap();
        }
        for (lane, frame) in said(self.now, &mut self.remote) {
            if let Some(after) = after {
                self.host.receive(self.now + after, lane, frame).unwrap();
            }
        }
    }
}

#[test]
fn a_ping_is_late_after_200_ms_and_three_round_trips_or_when_the_next_one_goes_unanswered() {
    for (round_trip, answer, late) in [
        (7, Some(7), false),
        (7, Some(200), false),
        (7, Some(201), true),
        (7, None, true),
        (150, Some(440), false),
        (150, Some(460), true),
    ] {
        let mut pings = Pings::new();
        (0..100).for_each(|_| pings.answered(Some(MS * round_trip)));
        let before = pings.host.stats().pings;
        assert_eq!((before, pings.host.stats().late_pings), (100, 0));
        pings.answered(answer.map(|answer| MS * answer));
        pings.answered(Some(MS * round_trip));
        let stats = pings.host.stats();
        let case = format!("{answer:?} ms where {round_trip} is usual");
        assert_eq!((stats.pings - before, stats.late_pings), (2, u64::from(late)), "{case}");
    }
}
