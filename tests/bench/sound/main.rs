//! What sound costs in time and work: from the guest's buffer to the card's callback and from the microphone's callback to
//! the guest's buffer, over loopback and over a bad network; and the processor's time for each stream. `make bench` runs
//! it; alone it is `cargo bench -p farbus --bench sound`.
//!
//! The machine is noisy, so nothing here is a test: it prints, says which goals were reached, and always ends with 0.

mod desk;
mod host;
mod network;
mod pump;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hda_ctrl::Wish;
use link::Link;
use rustix::time::{ClockId, clock_gettime};
use wire::audio::{Encoding, Format};

pub(crate) const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };
/// What is left out at the beginning of a measurement (for a minute a receiver does not trust what it knows of the network
/// enough to make less wait), and how long it takes.
const WARM_UP: Duration = Duration::from_secs(75);
const LENGTH: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    // Cargo passes flags for the built-in harness; there are none here.
    ensure!(!cfg!(debug_assertions), "this measures release programs: cargo bench -p farbus");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    println!("sound: load average before {}", load()?);
    let pcm = once(network::loopback().await?, Wish::Pcm, true).await?;
    println!("PCM over loopback, to a card with periods of 10 ms");
    println!("  guest's buffer to the card's callback   {}", pcm.played);
    goal("p50 <= 18 ms", pcm.played.p50, 18.0);
    goal("p99 <= 25 ms", pcm.played.p99, 25.0);
    println!("  microphone's callback to the guest      {}", pcm.recorded);
    goal("p99 <= 40 ms", pcm.recorded.p99, 40.0);
    println!("  {}", pcm.remarks);
    let opus = once(network::bad(), Wish::Opus, false).await?;
    println!("Opus over 20 ms with 5 ms of jitter and 2 % loss");
    println!("  guest's buffer to the card's callback   {}", opus.played);
    println!("  {}", opus.remarks);
    println!("processor time for each stream, both ends and their encryption, percent of one core");
    for (name, wish) in [("PCM", Wish::Pcm), ("Opus", Wish::Opus)] {
        for streams in [1, 4, 16] {
            let percent = cost(wish, streams).await?;
            let most = if wish == Wish::Pcm { 0.5 } else { 1.8 };
            let verdict = if percent <= most { "reached" } else { "MISSED" };
            println!("  {name:<4} {streams:>2} streams   {percent:>5.2} % (goal {most}, one end) {verdict}");
        }
    }
    println!("load average after {}", load()?);
    Ok(())
}

fn goal(name: &str, value: f64, most: f64) {
    println!("  -> {name}: {}", if value <= most { "reached" } else { "MISSED" });
}

/// Latencies in milliseconds.
pub(crate) struct Times {
    p50: f64,
    p99: f64,
    count: usize,
}

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN);
        Self { p50: at(50), p99: at(99), count: times.len() }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:>6.1} ms  p99 {:>6.1} ms  ({} frames)", self.p50, self.p99, self.count)
    }
}

struct Outcome {
    played: Times,
    recorded: Times,
    remarks: String,
}

type Ends = (Box<dyn Link>, Box<dyn Link>);

/// One stream each way for a while.
async fn once((here, there): Ends, wish: Wish, records: bool) -> Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let host = host::start(here, wish, 1, records, Arc::clone(&stop));
    let desk = tokio::spawn(desk::run(there, wish, Arc::clone(&stop)));
    let begin = Instant::now() + WARM_UP;
    tokio::time::sleep(WARM_UP + LENGTH).await;
    stop.store(true, Relaxed);
    let passed = host.join().ok().context("the host")??;
    let heard = desk.await?;

    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let added =
        |(at, frame): &(Instant, u64)| Some(millis(at.saturating_duration_since(passed.when(*frame)?)));
    let played = heard.card.played.iter().filter(|(at, _)| *at > begin).filter_map(added).collect();
    // The frame before the guest's position was handed out with the period that it was in.
    let recorded = passed.recorded.iter().filter(|(at, number)| *at > begin && *number > 0).filter_map(
        |(at, number)| {
            let period = heard.card.recorded.partition_point(|(_, last)| last < number);
            Some(millis(at.saturating_duration_since(heard.card.recorded.get(period)?.0)))
        },
    );
    let last = |what: fn(&wire::audio::Reception) -> Duration| {
        heard.last.as_ref().map_or(0.0, |last| millis(what(last)))
    };
    let sound::Counters { played: frames, lost, concealed, waited, cut, .. } = heard.counters;
    let remarks = format!(
        "{}: {frames} frames played, {lost} lost, {concealed} made up, {waited} waited, {cut} cut, {} xruns; level {:.1} ms of {:.1}, jitter {:.1} ms",
        if heard.opus { "Opus" } else { "PCM" },
        heard.card.xruns,
        last(|last| last.level),
        last(|last| last.target),
        last(|last| last.jitter),
    );
    Ok(Outcome { played: Times::of(played), recorded: Times::of(recorded.collect()), remarks })
}

/// Percent of one core for each stream. A VM has four.
async fn cost(wish: Wish, streams: u8) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut hosts, mut desks) = (Vec::new(), Vec::new());
    for _ in 0..streams.div_ceil(4) {
        let (here, there) = network::loopback().await?;
        hosts.push(host::start(here, wish, streams.min(4), false, Arc::clone(&stop)));
        desks.push(tokio::spawn(desk::run(there, wish, Arc::clone(&stop))));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, since) = (processor(), Instant::now());
    tokio::time::sleep(SHORT).await;
    let spent = processor() - before;
    let passed = since.elapsed();
    stop.store(true, Relaxed);
    for host in hosts {
        host.join().ok().context("the host")??;
    }
    for desk in desks {
        desk.await?;
    }
    Ok(spent.as_secs_f64() * 100.0 / passed.as_secs_f64() / f64::from(streams))
}

/// What this process has used of all processors.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The load averages of this computer: what else ran meanwhile.
fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
