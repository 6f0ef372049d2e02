//! What an urgent message waits for bulk that saturates a slow line, in virtual time.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use session::{Config, Event, Role, Session};
use wire::{Lane, Message};

const STEP: Duration = Duration::from_micros(20);
const EVERY: Duration = Duration::from_millis(4);

/// One direction of a line: what is sent waits its turn, and then takes its time.
struct Line {
    /// Bytes per second.
    rate: f64,
    one_way: Duration,
    free: Duration,
    flight: VecDeque<(Duration, Lane, Bytes)>,
}

impl Line {
    fn new(rate: f64, one_way: Duration) -> Self {
        Self { rate, one_way, free: Duration::ZERO, flight: VecDeque::new() }
    }

    fn send(&mut self, now: Duration, frame: Message) {
        let bytes = Bytes::from([frame.head, frame.body].concat());
        self.free = self.free.max(now) + Duration::from_secs_f64(bytes.len() as f64 / self.rate);
        self.flight.push_back((self.free + self.one_way, frame.lane, bytes));
    }

    fn take(&mut self, now: Duration) -> Option<(Lane, Bytes)> {
        self.flight.pop_front_if(|(at, ..)| *at <= now).map(|(_, lane, frame)| (lane, frame))
    }
}

/// The waits of urgent messages beyond the line's own time, in order, and the rate of bulk, bytes per second.
struct Seen {
    waits: Vec<Duration>,
    rate: f64,
}

/// Saturates a line with messages of so many bytes.
fn saturate(rate: f64, one_way: Duration, bulk: usize, time: Duration) -> Seen {
    let (mut host, mut remote) =
        (Session::new(Role::Host, Config::default()), Session::new(Role::Remote, Config::default()));
    let (mut down, mut up) = (Line::new(rate, one_way), Line::new(rate, one_way));
    let body = Bytes::from(vec![7; bulk]);
    let (start, ramp) = (Duration::from_secs(1), Duration::from_secs(2));
    let (mut now, mut next, mut waits, mut bytes) = (start, start, Vec::new(), 0);
    while now < start + ramp + time {
        if next <= now {
            let stamp = Bytes::copy_from_slice(&(now.as_nanos() as u64).to_le_bytes());
            host.send(Message { lane: Lane::Int, head: Bytes::new(), body: stamp }).unwrap();
            next += EVERY;
        }
        for session in [&mut host, &mut remote] {
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.on_timeout(now);
            }
        }
        while let Some((lane, frame)) = up.take(now) {
            host.receive(now, lane, frame).unwrap();
        }
        while let Some((lane, frame)) = down.take(now) {
            remote.receive(now, lane, frame).unwrap();
        }
        while let Some(Event::Message(lane, message)) = remote.poll_event() {
            remote.consumed(lane, message.len());
            match message.first_chunk() {
                Some(stamp) if lane == Lane::Int && now > start + ramp => {
                    let sent = Duration::from_nanos(u64::from_le_bytes(*stamp));
                    waits.push((now - sent).saturating_sub(one_way));
                }
                _ if now > start + ramp => bytes += message.len(),
                _ => {}
            }
        }
        while let Some(frame) = {
            while host.room(Lane::Bulk) >= bulk {
                host.send(Message { lane: Lane::Bulk, head: Bytes::new(), body: body.clone() }).unwrap();
            }
            host.poll_transmit(now)
        } {
            down.send(now, frame);
        }
        while let Some(frame) = remote.poll_transmit(now) {
            up.send(now, frame);
        }
        now += STEP;
    }
    waits.sort_unstable();
    Seen { waits, rate: bytes as f64 / time.as_secs_f64() }
}

#[test]
fn an_urgent_message_waits_about_a_millisecond_for_bulk_and_bulk_fills_the_line() {
    // MB/s, one way in ms, the wait allowed in half of the cases and in all but a hundredth, us.
    for (rate, one_way, p50, p99) in [
        (12.5, 0, 1_500, 2_500),
        (12.5, 1, 1_500, 3_000),
        (125.0, 0, 1_200, 1_600),
        (2.5, 2, 4_000, 8_000),
        (5.0, 20, 13_000, 50_000),
    ] {
        for bulk in [64 << 10, 1 << 20] {
            let Seen { waits, rate: reached } =
                saturate(rate * 1e6, Duration::from_millis(one_way), bulk, Duration::from_secs(25));
            let at = |percent| waits[(waits.len() - 1) * percent / 100];
            let case = format!(
                "{rate} MB/s, {one_way} ms, {bulk} B: p50 {:?} p99 {:?} at {reached}",
                at(50),
                at(99)
            );
            assert!(at(50) <= Duration::from_micros(p50), "{case}");
            assert!(at(99) <= Duration::from_micros(p99), "{case}");
            assert!(reached >= 0.97 * rate * 1e6, "{case}");
        }
    }
}
