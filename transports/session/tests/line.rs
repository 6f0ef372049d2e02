//! What an urgent message, or sound, waits for bulk that saturates a slow line, in virtual time.

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

/// What is to go first: a message each [`EVERY`], of so many bytes.
#[derive(Clone, Copy)]
struct Urgent {
    lane: Lane,
    bytes: usize,
}

/// The waits of urgent messages beyond the line's own time, in order, how many of them were sent, and the rate of bulk,
/// bytes per second.
struct Seen {
    waits: Vec<Duration>,
    sent: usize,
    /// Messages that were not sent, because they had waited too long.
    late: u64,
    rate: f64,
}

/// Saturates a line with messages of so many bytes.
fn saturate(rate: f64, one_way: Duration, urgent: Urgent, bulk: usize, time: Duration) -> Seen {
    let (mut host, mut remote) =
        (Session::new(Role::Host, Config::default()), Session::new(Role::Remote, Config::default()));
    let (mut down, mut up) = (Line::new(rate, one_way), Line::new(rate, one_way));
    let body = Bytes::from(vec![7; bulk]);
    let (start, ramp) = (Duration::from_secs(1), Duration::from_secs(2));
    let (mut now, mut next, mut waits, mut sent, mut bytes) = (start, start, Vec::new(), 0, 0);
    while now < start + ramp + time {
        if next <= now {
            let mut stamp = vec![0; urgent.bytes];
            stamp[..8].copy_from_slice(&(now.as_nanos() as u64).to_le_bytes());
            let message = Message { lane: urgent.lane, head: Bytes::new(), body: stamp.into() };
            host.send_at(now, message).unwrap();
            sent += usize::from(now > start + ramp);
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
                Some(stamp) if lane == urgent.lane && now > start + ramp => {
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
    let late = host.stats().lane(urgent.lane).dropped_messages;
    Seen { waits, sent, late, rate: bytes as f64 / time.as_secs_f64() }
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
            let urgent = Urgent { lane: Lane::Int, bytes: 8 };
            let one_way = Duration::from_millis(one_way);
            let Seen { waits, rate: reached, .. } =
                saturate(rate * 1e6, one_way, urgent, bulk, Duration::from_secs(25));
            let at = |percent| waits[(waits.len() - 1) * percent / 100];
            let case =
                format!("{rate} MB/s, {one_way:?}, {bulk} B: p50 {:?} p99 {:?} at {reached}", at(50), at(99));
            assert!(at(50) <= Duration::from_micros(p50), "{case}");
            assert!(at(99) <= Duration::from_micros(p99), "{case}");
            assert!(reached >= 0.97 * rate * 1e6, "{case}");
        }
    }
}

/// Sound waits as everything urgent does: for the chunk that is being handed to the line, and for what may be on its way
/// beyond what the line holds, a millisecond or a quarter of a round trip; also where it is a tenth of a slow line, as PCM is
/// in the last two cases.
#[test]
fn sound_waits_for_a_short_chunk_and_what_is_on_the_line_and_none_of_it_is_lost() {
    // MB/s, one way in ms, bytes of 4 ms of sound, the wait allowed in half of the cases, in all but a hundredth, and in all,
    // ms.
    for (rate, one_way, bytes, p50, p99, most) in [
        (125.0, 0, 1_000, 1, 2, 2),
        (12.5, 0, 1_000, 2, 2, 3),
        (12.5, 1, 1_000, 2, 3, 3),
        (12.5, 10, 1_000, 8, 18, 20),
        (2.5, 2, 200, 4, 8, 10),
        (5.0, 20, 200, 15, 40, 60),
        (2.5, 2, 1_000, 4, 8, 10),
        (5.0, 20, 1_000, 15, 40, 60),
    ] {
        for bulk in [64 << 10, 1 << 20] {
            let (urgent, one_way) = (Urgent { lane: Lane::Audio, bytes }, Duration::from_millis(one_way));
            let Seen { waits, sent, late, rate: reached } =
                saturate(rate * 1e6, one_way, urgent, bulk, Duration::from_secs(25));
            let at = |percent| waits[(waits.len() - 1) * percent / 100];
            let (half, nearly, all) = (at(50), at(99), at(100));
            let case = format!(
                "{bytes} B of sound, {rate} MB/s, {one_way:?}, {bulk} B: p50 {half:?} p99 {nearly:?} all {all:?} at {reached}"
            );
            println!("{case}");
            let allowed = [p50, p99, most].map(Duration::from_millis);
            assert!(half <= allowed[0] && nearly <= allowed[1] && all <= allowed[2], "{case}");
            // All but what is on its way in the end, and with what was at the beginning.
            let ways = (one_way + allowed[2]).as_millis() / EVERY.as_millis() + 1;
            assert!(waits.len().abs_diff(sent) <= ways as usize, "{case}: {} of {sent}", waits.len());
            assert_eq!(late, 0, "{case}: never sent, because it had waited too long");
            assert!(reached >= 0.85 * rate * 1e6, "{case}");
        }
    }
}
