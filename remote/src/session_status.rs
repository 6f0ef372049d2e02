//! How the session and its link do, for people and programs.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use session::Session;
use wire::Lane;

/// The session, and the link of the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// The kind of its link; none while it has none.
    pub(crate) transport: Option<String>,
    /// How long it has had none, milliseconds.
    pub(crate) away_ms: Option<u64>,
    /// The latest round trip, microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// How much round trips vary, microseconds.
    pub(crate) jitter_us: u64,
    /// Frames that were sent again or did not come, of all, parts of a million.
    pub(crate) loss_ppm: u64,
    /// How often it went on after it had lost its link.
    pub(crate) resumes: u64,
    /// How often it moved from one link to another.
    pub(crate) hand_overs: u64,
    /// How long it was without a link in all, outages that are over, milliseconds.
    pub(crate) held_ms: u64,
    /// Most urgent first.
    pub(crate) lanes: Vec<LaneStatus>,
}

/// What a lane has carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneStatus {
    pub(crate) lane: String,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Bytes that wait to be sent.
    pub(crate) queued_bytes: u64,
    /// Frames that were sent again.
    pub(crate) retransmitted_frames: u64,
    /// Messages that found no room, or were late.
    pub(crate) dropped_messages: u64,
}

impl SessionStatus {
    /// `waiting`: the bytes that wait for room on a lane of the session.
    pub(crate) fn new(
        session: &Session,
        transport: Option<&str>,
        away: Option<Duration>,
        waiting: impl Fn(Lane) -> usize,
    ) -> Self {
        let stats = session.stats();
        let lane = |lane: Lane| {
            let of = stats.lane(lane);
            LaneStatus {
                lane: format!("{lane:?}").to_lowercase(),
                sent_bytes: of.sent_bytes,
                received_bytes: of.received_bytes,
                queued_bytes: (session.queued(lane) + waiting(lane)) as u64,
                retransmitted_frames: of.retransmitted_frames,
                dropped_messages: of.dropped_messages,
            }
        };
        Self {
            transport: transport.map(str::to_owned),
            away_ms: away.map(|away| micros(away) / 1000),
            round_trip_us: stats.round_trip.map(micros),
            jitter_us: micros(stats.jitter),
            loss_ppm: stats.loss_ppm(),
            resumes: stats.resumes,
            hand_overs: stats.hand_overs,
            held_ms: micros(stats.detached) / 1000,
            lanes: Lane::ALL.map(lane).into(),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.transport, self.away_ms) {
            (Some(transport), _) => write!(f, "link: {transport}")?,
            (None, away) => write!(f, "link: none for {} ms; looking for one", away.unwrap_or_default())?,
        }
        let millis = |micros: u64| format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10);
        if let Some(round_trip) = self.round_trip_us {
            write!(f, ", round trip {}, jitter {}", millis(round_trip), millis(self.jitter_us))?;
        }
        write!(f, ", loss {}.{:04} %", self.loss_ppm / 10_000, self.loss_ppm % 10_000)?;
        let (resumes, hand_overs) = (self.resumes, self.hand_overs);
        writeln!(f, "; {resumes} outages of {} ms in all, {hand_overs} moves", self.held_ms)?;
        for LaneStatus { lane, sent_bytes, received_bytes, queued_bytes, retransmitted_frames, .. } in
            self.lanes.iter().filter(|lane| lane.sent_bytes + lane.received_bytes > 0)
        {
            writeln!(
                f,
                "  {lane:<5} {sent_bytes} bytes sent, {received_bytes} received, {queued_bytes} waiting, {retransmitted_frames} frames sent again"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use session::{Config, Identity, LinkId, LinkKind, NewLink, Secret, SessionId};
    use wire::Message;

    use super::*;

    /// A session and its host, and what carries their frames when it is told to.
    struct World {
        now: Duration,
        link: LinkId,
        ours: Session,
        host: Session,
    }

    impl World {
        fn new() -> Self {
            let identity = Identity { id: SessionId([1; 16]), secret: Secret::new([2; 32]) };
            let (ours, host) =
                (Session::remote(Config::default()), Session::host(identity, Config::default()));
            Self { now: Duration::ZERO, link: LinkId(0), ours, host }
        }

        fn pass(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        fn connect(&mut self) {
            self.link.0 += 1;
            let (kind, binding) = (LinkKind::STREAM, [self.link.0 as u8; 32]);
            let link = NewLink { id: self.link, kind, binding, opens: false };
            self.host.link_up(self.now, link).unwrap();
            self.ours.link_up(self.now, NewLink { opens: true, ..link }).unwrap();
            for _ in 0..3 {
                self.carry();
            }
            assert_eq!(self.ours.link(), Some(self.link));
        }

        fn cut(&mut self) {
            self.host.link_down(self.now, self.link);
            self.ours.link_down(self.now, self.link);
        }

        /// Carries what is said, and then the answers.
        fn carry(&mut self) {
            Self::one_way(self.now, self.link, &mut self.ours, &mut self.host);
            Self::one_way(self.now, self.link, &mut self.host, &mut self.ours);
        }

        fn one_way(now: Duration, link: LinkId, from: &mut Session, to: &mut Session) {
            while let Some(Message { lane, head, body }) = from.poll_transmit_on(now, link) {
                to.receive_on(now, link, lane, [head, body].concat().into()).unwrap();
            }
        }

        /// A ping whose answer takes so long.
        fn ping(&mut self, millis: u64) {
            self.pass(1000);
            self.ours.on_timeout(self.now);
            Self::one_way(self.now, self.link, &mut self.ours, &mut self.host);
            self.pass(millis);
            Self::one_way(self.now, self.link, &mut self.host, &mut self.ours);
        }
    }

    fn message(lane: Lane, size: usize) -> Message {
        Message { lane, head: Default::default(), body: vec![7; size].into() }
    }

    #[test]
    fn what_the_session_has_carried_is_told_field_by_field() {
        let mut world = World::new();
        world.connect();
        for (size, lane) in (1..).zip(Lane::ALL) {
            world.ours.send(message(lane, 10 * size)).unwrap();
            world.host.send(message(lane, 300 * size)).unwrap();
        }
        world.carry();
        // A frame on CTL, two on INT and five on BULK that the link loses, and twelve messages that are too late.
        for (count, lane) in (1..).zip(Lane::ALL).filter(|(_, lane)| !lane.may_lose()) {
            (0..count).for_each(|_| world.ours.send(message(lane, 1)).unwrap());
        }
        while world.ours.poll_transmit_on(world.now, world.link).is_some() {}
        world.cut();
        world.pass(1234);
        for (lane, count) in [(Lane::Audio, 8), (Lane::Iso, 4)] {
            (0..count).for_each(|_| world.ours.send(message(lane, 1)).unwrap());
        }
        (0..4).for_each(|_| world.connect());
        world.ping(7);
        world.ping(39);
        for (size, lane) in (1..).zip(Lane::ALL) {
            world.ours.send(message(lane, 50 * size)).unwrap();
        }
        let away = Some(Duration::from_millis(77));
        let waiting = |lane: Lane| 1000 * (lane as usize + 1);
        let status = SessionStatus::new(&world.ours, Some("webrtc"), away, waiting);

        let lane = |name: &str, sent, received, queued, retransmitted, dropped| LaneStatus {
            lane: name.to_owned(),
            sent_bytes: sent,
            received_bytes: received,
            queued_bytes: queued,
            retransmitted_frames: retransmitted,
            dropped_messages: dropped,
        };
        // What is queued has a header of 32 bytes.
        let lanes = vec![
            lane("ctl", 11, 300, 1082, 1, 0),
            lane("int", 22, 600, 2132, 2, 0),
            lane("audio", 30, 900, 3182, 0, 8),
            lane("iso", 40, 1200, 4232, 0, 4),
            lane("bulk", 55, 1500, 5282, 5, 0),
        ];
        let (loss_ppm, jitter_us) = (world.ours.stats().loss_ppm(), micros(world.ours.stats().jitter));
        assert!(loss_ppm > 100_000 && (1_000..30_000).contains(&jitter_us), "{loss_ppm} {jitter_us}");
        let expected = SessionStatus {
            transport: Some("webrtc".to_owned()),
            away_ms: Some(77),
            round_trip_us: Some(39_000),
            jitter_us,
            loss_ppm,
            resumes: 1,
            hand_overs: 3,
            held_ms: 1234,
            lanes,
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn people_read_the_kind_of_link_and_how_it_does() {
        let lane = LaneStatus { lane: "bulk".into(), sent_bytes: 12, ..LaneStatus::default() };
        let idle = LaneStatus { lane: "iso".into(), ..LaneStatus::default() };
        let status = SessionStatus {
            transport: Some("webrtc".into()),
            round_trip_us: Some(1234),
            loss_ppm: 12_345,
            resumes: 2,
            held_ms: 300,
            lanes: vec![lane, idle],
            ..SessionStatus::default()
        };
        let words = status.to_string();
        assert!(
            words
                .starts_with("link: webrtc, round trip 1.23 ms, jitter 0.00 ms, loss 1.2345 %; 2 outages of")
        );
        assert_eq!(serde_json::to_value(&status).unwrap()["loss_ppm"], 12_345);
        assert!(words.contains("bulk  12 bytes sent") && !words.contains("iso"), "{words}");
        let away = SessionStatus { transport: None, away_ms: Some(70), ..status };
        assert!(away.to_string().starts_with("link: none for 70 ms; looking for one"));
    }
}
