use super::*;

/// The credit of the peer, bytes.
const WINDOW: u64 = 4 << 20;
const STEP: Duration = Duration::from_micros(50);

/// A path with a bottleneck.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// Bytes per second.
    rate: f64,
    round_trip: Duration,
    /// What arrives waits for the next multiple of this time.
    gathers: Duration,
    /// One chunk of so many comes a round trip late, and what is behind it, too; as over TCP.
    loses_one_of: u64,
    /// Arrivals are late by up to this.
    jitter: Duration,
    /// Answers wait for the same bottleneck, and take so many bytes of it; as on the air, where one at a time speaks.
    shares: u32,
}

impl Path {
    const fn new(rate: f64, round_trip_us: u64) -> Self {
        Self {
            rate,
            round_trip: Duration::from_micros(round_trip_us),
            gathers: Duration::ZERO,
            loses_one_of: u64::MAX,
            jitter: Duration::ZERO,
            shares: 0,
        }
    }
}

/// A lane that always has something to send, over a path that may change.
struct Run {
    cap: Option<Cap>,
    path: Path,
    now: Duration,
    sent: u64,
    base: u64,
    /// When the bottleneck is free again.
    free: Duration,
    last_arrival: Duration,
    /// When the peer is to answer, and what it has then.
    asks: VecDeque<(Duration, u64)>,
    /// When its answers come.
    answers: VecDeque<(Duration, u64)>,
    random: u64,
}

/// What was seen in a while.
#[derive(Debug)]
struct Seen {
    /// Bytes per second.
    rate: f64,
    /// What an urgent message would have waited for at the bottleneck.
    p50: Duration,
    p99: Duration,
}

impl Run {
    /// With a bound, or with the window alone.
    fn new(path: Path, bound: bool) -> Self {
        Self {
            cap: bound.then(|| Cap::new(WINDOW)),
            path,
            now: Duration::from_secs(3),
            sent: 0,
            base: 0,
            free: Duration::ZERO,
            last_arrival: Duration::ZERO,
            asks: VecDeque::new(),
            answers: VecDeque::new(),
            random: 1,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below.max(1)
    }

    fn send(&mut self) {
        loop {
            let limit = self.cap.as_ref().map_or(WINDOW, Cap::limit);
            let soon = if self.path.rate > 32e6 { self.path.rate / 1e3 } else { self.path.rate / 2e3 };
            let cost = (limit / 4).min(soon as u64).clamp(4_192, 61_472);
            let flight = self.sent - self.base;
            let allowed = self.cap.as_ref().is_none_or(|cap| cap.allows(flight, cost));
            if !allowed || flight + cost > WINDOW {
                return;
            }
            self.sent += cost;
            let now = self.now;
            let asks =
                self.cap.as_mut().is_none_or(|cap| cap.sent(now, (self.sent, cost), flight + cost, cost));
            self.free = self.free.max(now) + Duration::from_secs_f64(cost as f64 / self.path.rate);
            let lost = self.path.loses_one_of < u64::MAX && self.random(self.path.loses_one_of) == 0;
            let late = if lost { self.path.round_trip } else { Duration::ZERO };
            let jitter = Duration::from_nanos(self.random(self.path.jitter.as_nanos() as u64 + 1));
            let mut arrival = (self.free + self.path.round_trip / 2 + late + jitter).max(self.last_arrival);
            if !self.path.gathers.is_zero() {
                let times = arrival.as_nanos().div_ceil(self.path.gathers.as_nanos());
                arrival = self.path.gathers * u32::try_from(times).unwrap();
            }
            self.last_arrival = arrival;
            if asks {
                self.asks.push_back((arrival, self.sent));
            }
        }
    }

    fn answer(&mut self) {
        while let Some((at, offset)) = self.asks.pop_front_if(|(at, _)| *at <= self.now) {
            let mut from = at;
            if self.path.shares > 0 {
                let time = Duration::from_secs_f64(f64::from(self.path.shares) / self.path.rate);
                self.free = self.free.max(at) + time;
                from = self.free;
            }
            self.answers.push_back((from + self.path.round_trip / 2, offset));
        }
    }

    fn go_on(&mut self, time: Duration) -> Seen {
        let (end, before, mut waits) = (self.now + time, self.base, Vec::new());
        while self.now < end {
            self.answer();
            while let Some((_, offset)) = self.answers.pop_front_if(|(at, _)| *at <= self.now) {
                self.base = offset;
                if let Some(cap) = &mut self.cap {
                    cap.arrived(self.now, offset);
                }
            }
            self.send();
            waits.push(self.free.saturating_sub(self.now));
            self.now += STEP;
        }
        waits.sort_unstable();
        let at = |percent| waits[(waits.len() - 1) * percent / 100];
        Seen { rate: (self.base - before) as f64 / time.as_secs_f64(), p50: at(50), p99: at(99) }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_path_is_filled_and_an_urgent_message_waits_little() {
    for path in [
        Path::new(12.5e6, 100),
        Path::new(12.5e6, 2_000),
        Path::new(125e6, 200),
        Path::new(1e9, 100),
        Path::new(1e6, 10_000),
        Path::new(5e6, 40_000),
        Path::new(50e6, 20_000),
    ] {
        let mut run = Run::new(path, true);
        let ramp = run.go_on(ms(2_000));
        // Long enough for the memory of round trips to pass twice.
        let seen = run.go_on(ms(50_000));
        let possible = Run::new(path, false).go_on(ms(10_000)).rate;
        assert!(seen.rate >= 0.97 * possible, "{path:?}: {seen:?}, of {possible}");
        assert!(ramp.rate >= 0.9 * possible, "{path:?}: {ramp:?} at first, of {possible}");
        let chunk = Duration::from_secs_f64(8_400.0 / path.rate);
        let most = chunk + BUDGET.max(path.round_trip / 4) * 3 / 2;
        assert!(seen.p50 <= most, "{path:?}: {seen:?}");
        assert!(seen.p99 <= (most + chunk) * 2, "{path:?}: {seen:?}");
    }
}

#[test]
fn what_the_path_does_to_single_frames_does_not_hold_the_lane_back() {
    let plain = Path::new(5e6, 40_000);
    for path in [
        Path { loses_one_of: 33, ..plain },
        Path { jitter: ms(10), ..plain },
        Path { jitter: ms(10), loses_one_of: 33, round_trip: ms(100), ..plain },
        Path { gathers: ms(10), ..Path::new(25e6, 2_000) },
        Path { jitter: ms(8), ..Path::new(12.5e6, 2_000) },
    ] {
        let mut run = Run::new(path, true);
        run.go_on(ms(3_000));
        let seen = run.go_on(ms(60_000));
        let possible = Run::new(path, false).go_on(ms(20_000)).rate;
        assert!(seen.rate >= 0.95 * possible, "{path:?}: {seen:?}, of {possible}");
    }
}

#[test]
fn where_answers_wait_behind_the_lane_itself_an_urgent_message_waits_little_soon() {
    for (round_trip, shares, least) in [(100, 200, 0.94), (100, 500, 0.9), (1_000, 200, 0.85)] {
        let path = Path { shares, ..Path::new(12.5e6, round_trip) };
        let mut run = Run::new(path, true);
        // A ping before the lane has anything to send.
        run.cap.as_mut().unwrap().round_trip(ms(1), path.round_trip);
        let ramp = run.go_on(ms(1_000));
        let seen = run.go_on(ms(20_000));
        let most = BUDGET * 5 / 4 + path.round_trip / 4;
        assert!(ramp.p50 <= BUDGET * 3 / 2, "{path:?}: {ramp:?} at first");
        assert!(seen.p50 <= most && seen.p99 <= most * 5 / 2, "{path:?}: {seen:?}");
        assert!(seen.rate >= least * path.rate, "{path:?}: {seen:?}");
    }
}

#[test]
fn a_path_that_changes_is_followed() {
    let paths = [
        Path::new(100e6, 500),
        Path::new(5e6, 500),
        Path::new(5e6, 60_000),
        Path::new(50e6, 60_000),
        Path::new(12.5e6, 1_000),
        Path::new(1e9, 200),
    ];
    let mut run = Run::new(paths[0], true);
    for path in paths {
        run.path = path;
        run.go_on(ms(30_000));
        let seen = run.go_on(ms(10_000));
        let possible = Run::new(path, false).go_on(ms(10_000)).rate;
        assert!(seen.rate >= 0.97 * possible, "{path:?}: {seen:?}, of {possible}");
        let most = BUDGET.max(path.round_trip / 4).max(Duration::from_secs_f64(8_400.0 / path.rate)) * 3 / 2;
        assert!(seen.p50 <= most, "{path:?}: {seen:?}");
    }
}

#[test]
fn something_may_always_go_while_nothing_is_asked() {
    let mut cap = Cap::new(WINDOW);
    let mut end = 0;
    while cap.allows(end, 20_000) {
        end += 20_000;
        cap.sent(ms(1), (end, 20_000), end, 20_000);
    }
    assert!((40_000..=FIRST).contains(&end), "{end}");
    cap.arrived(ms(2), end - 1);
    assert!(!cap.allows(100 * FIRST, 1), "the last one is asked about");
    cap.arrived(ms(3), end);
    assert!(cap.allows(100 * FIRST, 1), "nobody would answer");
    cap.reset(0);
    assert_eq!((cap.limit(), cap.rate()), (FIRST, None));
}

#[test]
fn what_is_little_is_not_asked_about() {
    let mut cap = Cap::new(WINDOW);
    for at in 1..100 {
        assert!(!cap.sent(ms(at), (at * 100, 100), 100, 16_448), "it is alone on its way");
        cap.arrived(ms(at), at * 100);
    }
    assert_eq!(cap.limit(), FIRST);
}

#[test]
fn a_lane_that_runs_dry_says_nothing_about_the_path() {
    let path = Path::new(125e6, 1_000);
    let mut run = Run::new(path, true);
    run.go_on(ms(2_000));
    let cap = run.cap.as_mut().unwrap();
    let (limit, rate) = (cap.limit(), cap.rate());
    let (mut now, mut end) = (run.now + ms(1_000), run.sent);
    cap.starved();
    cap.arrived(now, end);
    // A transfer now and then.
    for _ in 0..1_000 {
        now += ms(5);
        let asks = cap.sent(now, (end + 64_000, 64_000), 64_000, 64_000);
        cap.starved();
        end += 64_000;
        cap.arrived(now + ms(2), end);
        assert!(asks || cap.limit() >= 64_000 * 3);
    }
    assert_eq!(cap.rate(), rate);
    assert!(cap.limit() >= limit / 2, "{} of {limit}", cap.limit());
}
