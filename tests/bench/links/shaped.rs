//! What an urgent message waits for bulk that saturates a line of 100 Mbit/s: in a network namespace of its own, whose
//! loopback is that slow. It needs no rights, but `unshare`, `ip` and `tc`; where they do not work it says so.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Interval, MissedTickBehavior, interval},
};
use wire::{Lane, Message};

use crate::{
    bar,
    end::{End, session},
    ms,
    pair::{Way, pair},
    percentile,
};

/// Says that this process is in the namespace.
const INSIDE: &str = "--on-a-slow-line";
/// A port of 100 Mbit/s with 50 ms of queue, and packets as they are on a network.
const SHAPE: &str = "ip link set lo up mtu 1500 && tc qdisc replace dev lo root tbf rate 100mbit burst 16kb latency 50ms \
                     || exit 77; exec \"$0\" \"$1\"";
/// The line could not be made.
const NO_LINE: i32 = 77;
const MEGABITS: f64 = 100.0;
/// Urgent messages without bulk and beside it, and the time between two.
const IDLE: usize = 400;
const BESIDE: usize = 1_500;
const EVERY: Duration = Duration::from_millis(4);
/// Until bulk flows as fast as it will.
const RAMP: usize = 500;
/// Bytes of an urgent and of a bulk message of the baseline.
const URGENT: usize = 64;
const BULK: usize = 64 << 10;
/// The goal: so much more than without bulk, ms.
const GOAL: f64 = 2.0;

/// Whether this process is the one on the slow line.
pub(crate) fn is_inside() -> bool {
    std::env::args().any(|argument| argument == INSIDE)
}

/// Runs this program once more, on a slow line.
pub(crate) fn run() -> Result<()> {
    println!("an urgent message of 64 B beside bulk that saturates {MEGABITS} Mbit/s, one way");
    let own = std::env::current_exe().context("this program")?;
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", SHAPE])
        .args([own.as_os_str(), INSIDE.as_ref()])
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if !matches!(status.code(), Some(NO_LINE | 1)) => {
            bail!("the measurement ended with {status}")
        }
        failed => {
            println!("  not measured: a slow line cannot be made here ({failed:?})");
            Ok(())
        }
    }
}

/// Delays without bulk and beside it, and the bytes per second of bulk.
struct Figure {
    idle: Vec<Duration>,
    beside: Vec<Duration>,
    rate: f64,
}

/// Measures on the slow line that this process is on, and prints.
pub(crate) async fn measure() -> Result<()> {
    let baseline = fifo().await?;
    let raw = baseline.rate;
    report("raw TCP, one queue", baseline, None);
    for way in [Way::NoiseTcp, Way::WebRtc] {
        let name = format!("{way}, session");
        // Of each packet of WebRTC a twelfth is what UDP, DTLS and SCTP put in front, and answers take some of the line.
        let share = if matches!(way, Way::WebRtc) { 85 } else { 90 };
        report(&name, sessions(way).await.context(name.clone())?, Some((raw, share)));
    }
    Ok(())
}

/// Prints; `raw`: what a figure of ours is compared with, bytes of bulk per second, and how many percent are enough.
fn report(name: &str, Figure { mut idle, mut beside, rate }: Figure, raw: Option<(f64, u32)>) {
    beside.drain(..RAMP);
    let mut at = |percent| (ms(percentile(&mut idle, percent)), ms(percentile(&mut beside, percent)));
    let ((idle50, beside50), (idle99, beside99)) = (at(50), at(99));
    println!(
        "  {name:<20} idle p50 {idle50:>6.2} p99 {idle99:>6.2} ms   beside bulk p50 {beside50:>6.2} p99 {beside99:>6.2} ms   \
         bulk {:>5.1} Mbit/s",
        rate * 8e-6
    );
    if let Some((raw, share)) = raw {
        bar(&format!("{name}: p50 beside bulk - idle, ms"), beside50 - idle50, GOAL);
        bar(&format!("{name}: p99 beside bulk - idle, ms"), beside99 - idle99, GOAL);
        let name = format!("{name}: raw TCP's bulk / its (that is, at least {share} %)");
        bar(&name, raw / rate, 100.0 / f64::from(share));
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

fn stamp(start: Instant) -> [u8; 8] {
    (start.elapsed().as_nanos() as u64).to_le_bytes()
}

fn since(start: Instant, stamp: &[u8]) -> Option<Duration> {
    let sent = Duration::from_nanos(u64::from_le_bytes(*stamp.first_chunk()?));
    Some(start.elapsed().saturating_sub(sent))
}

async fn sessions(way: Way) -> Result<Figure> {
    let start = Instant::now();
    let (remote, mut host) = session(pair(way).await?).await?;
    let heard = tokio::spawn(hear(remote, start));
    say(&mut host, IDLE, start).await?;
    host.flood(true);
    say(&mut host, RAMP + BESIDE, start).await?;
    host.flood(false);
    // What is on its way has to arrive.
    let all = std::future::poll_fn(|cx| {
        host.turn(cx).map_or_else(|e| std::task::Poll::Ready(Err(e)), |()| std::task::Poll::Pending)
    });
    tokio::select! {
        heard = heard => heard?,
        failed = all => failed.and_then(|()| bail!("it has no end")),
    }
}

async fn say(end: &mut End, count: usize, start: Instant) -> Result<()> {
    let mut ticks = ticks();
    for _ in 0..count {
        std::future::poll_fn(|cx| {
            end.turn(cx)?;
            ticks.poll_tick(cx).map(|_| anyhow::Ok(()))
        })
        .await?;
        let mut body = stamp(start).to_vec();
        body.resize(URGENT, 0);
        end.send(Message { lane: Lane::Int, head: Bytes::new(), body: body.into() }).await?;
    }
    Ok(())
}

async fn hear(mut end: End, start: Instant) -> Result<Figure> {
    let mut log = Log::default();
    while !log.complete() {
        let (lane, bytes) = end.receive().await?;
        match lane {
            Lane::Int => log.urgent(since(start, &bytes)),
            _ => log.bulk(bytes.len()),
        }
    }
    Ok(log.figure())
}

/// What has come.
#[derive(Default)]
struct Log {
    delays: Vec<Duration>,
    bulk: usize,
    /// When the ramp was over, and what had come by then.
    from: Option<(Instant, usize)>,
}

impl Log {
    fn complete(&self) -> bool {
        self.delays.len() == IDLE + RAMP + BESIDE
    }

    fn bulk(&mut self, bytes: usize) {
        self.bulk += bytes;
    }

    fn urgent(&mut self, delay: Option<Duration>) {
        self.delays.extend(delay);
        if self.delays.len() == IDLE + RAMP {
            self.from = Some((Instant::now(), self.bulk));
        }
    }

    fn figure(mut self) -> Figure {
        let beside = self.delays.split_off(IDLE);
        let rate = self
            .from
            .map(|(from, before)| (self.bulk - before) as f64 / from.elapsed().as_secs_f64())
            .unwrap_or_default();
        Figure { idle: self.delays, beside, rate }
    }
}

/// The baseline: urgent and bulk messages one after the other on one connection, as it is.
async fn fifo() -> Result<Figure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (out, input) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (mut out, (mut input, _)) = (out?, input?);
    out.set_nodelay(true)?;
    let start = Instant::now();
    let heard = tokio::spawn(async move {
        let (mut log, mut buffer) = (Log::default(), vec![0; BULK]);
        while !log.complete() {
            let urgent = input.read_u8().await? == 1;
            let bytes = &mut buffer[..if urgent { URGENT } else { BULK }];
            input.read_exact(bytes).await?;
            if urgent { log.urgent(since(start, bytes)) } else { log.bulk(BULK) }
        }
        anyhow::Ok(log.figure())
    });
    let (mut ticks, mut said, bulk) = (ticks(), 0, vec![0; 1 + BULK]);
    // All of them are sent, however long the full buffer has kept them: each counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while said < IDLE + RAMP + BESIDE {
        let write =
            async { if said < IDLE { std::future::pending().await } else { std::future::ready(()).await } };
        tokio::select! {
            biased;
            due = ticks.tick() => {
                let due = due.into_std().saturating_duration_since(start).as_nanos() as u64;
                let mut urgent = [&[1][..], &due.to_le_bytes()].concat();
                urgent.resize(1 + URGENT, 0);
                out.write_all(&urgent).await?;
                said += 1;
            }
            () = write => out.write_all(&bulk).await?,
        }
    }
    heard.await?
}
