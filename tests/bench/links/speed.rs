//! Throughput and round trips, in turn, several rounds. What the middle round shows counts.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    bar, end,
    pair::{Way, pair},
    percentile,
    pipe::Pipe,
    plain,
};

const ROUNDS: u32 = 5;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Messages: how long, how many for the throughput, how many there and back. The longest take half a second:
/// how a stack begins is no part of their throughput.
const SIZES: [(usize, usize, usize); 3] = [(64, 100_000, 4_000), (16 * KIB, 8_000, 1_500), (MIB, 2_000, 100)];
/// WebRTC sends so many times fewer: it needs as long for them.
const SLOWER: usize = 20;
/// A message that says that all has come, bytes.
const WORD: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    Tcp,
    Tls,
    Link(Way),
    Session(Way),
}

const STACKS: [Stack; 6] = [
    Stack::Tcp,
    Stack::Tls,
    Stack::Link(Way::NoiseTcp),
    Stack::Session(Way::NoiseTcp),
    Stack::Link(Way::WebRtc),
    Stack::Session(Way::WebRtc),
];

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Tcp => "raw TCP".to_owned(),
            Self::Tls => "tokio-rustls".to_owned(),
            Self::Link(way) => format!("{way}, link alone"),
            Self::Session(way) => format!("{way}, session"),
        };
        f.pad(&name)
    }
}

/// What was measured with messages of one length.
#[derive(Debug, Clone, Copy)]
struct Figure {
    /// Bytes per second.
    rate: f64,
    p50: Duration,
    p99: Duration,
}

impl Figure {
    /// What counts of some rounds; none of none.
    fn of(rounds: &[Self]) -> Option<Self> {
        let middle =
            |time: fn(&Self) -> Duration| percentile(&mut rounds.iter().map(time).collect::<Vec<_>>(), 50);
        let mut rates: Vec<_> = rounds.iter().map(|round| round.rate).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let rate = *rates.get(rates.len() / 2)?;
        Some(Self { rate, p50: middle(|round| round.p50), p99: middle(|round| round.p99) })
    }
}

/// Measures all stacks with all sizes, and prints.
pub(crate) fn measure(runtime: &Runtime) -> Result<()> {
    println!("speed on loopback, {ROUNDS} rounds; the ratio is that to raw TCP");
    for (size, count, trips) in SIZES {
        let mut rounds: [Vec<Figure>; STACKS.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (stack, rounds) in STACKS.into_iter().zip(&mut rounds) {
                rounds.push(one(runtime, stack, size, count, trips).with_context(|| format!("{stack}"))?);
            }
        }
        report(size, &rounds.map(|rounds| Figure::of(&rounds)));
    }
    Ok(())
}

fn report(size: usize, figures: &[Option<Figure>]) {
    let Some(Some(tcp)) = figures.first() else { return };
    println!(
        "  messages of {}",
        if size < KIB { format!("{size} B") } else { format!("{} KiB", size / KIB) }
    );
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    for (stack, figure) in STACKS.iter().zip(figures) {
        let Some(Figure { rate, p50, p99 }) = figure else { continue };
        println!(
            "    {stack:<22} {:>7.1} MB/s {:>5.2}   p50 {:>7.1} us {:>5.2}   p99 {:>7.1} us {:>5.2}",
            rate / 1e6,
            rate / tcp.rate,
            us(*p50),
            p50.div_duration_f64(tcp.p50),
            us(*p99),
            p99.div_duration_f64(tcp.p99),
        );
    }
    let of = |wanted| STACKS.iter().position(|stack| *stack == wanted).and_then(|at| figures[at]);
    for stack in [Stack::Link(Way::NoiseTcp), Stack::Session(Way::NoiseTcp)] {
        let Some(ours) = of(stack) else { continue };
        if size == MIB {
            let name = format!("{stack}: raw TCP / it, 1 MiB (that is, at least 60 %)");
            bar(&name, tcp.rate / ours.rate, 1.0 / 0.6);
        }
        if size == WORD {
            bar(
                &format!("{stack}: round trip p50 / raw TCP's, 64 B"),
                ours.p50.div_duration_f64(tcp.p50),
                1.5,
            );
        }
    }
}

/// The rate with both ends on the runtime's threads, the round trips with both on one thread: who wakes whom on which
/// core is chance, and differs by more than what is to be measured.
fn one(runtime: &Runtime, stack: Stack, size: usize, count: usize, trips: usize) -> Result<Figure> {
    let slow = matches!(stack, Stack::Link(Way::WebRtc) | Stack::Session(Way::WebRtc)) && size == MIB;
    let count = if slow { count / SLOWER } else { count };
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut times = match stack {
        Stack::Tcp => single.block_on(async { there_and_back(plain::tcp().await?, size, trips).await }),
        Stack::Tls => single.block_on(async { there_and_back(plain::tls().await?, size, trips).await }),
        Stack::Link(way) => single.block_on(async { there_and_back(pair(way).await?, size, trips).await }),
        Stack::Session(way) => single
            .block_on(async { there_and_back(end::session(pair(way).await?).await?, size, trips).await }),
    }?;
    let rate = match stack {
        Stack::Tcp => runtime.block_on(async { stream(plain::tcp().await?, size, count).await }),
        Stack::Tls => runtime.block_on(async { stream(plain::tls().await?, size, count).await }),
        Stack::Link(way) => runtime.block_on(async { stream(pair(way).await?, size, count).await }),
        Stack::Session(way) => {
            runtime.block_on(async { stream(end::session(pair(way).await?).await?, size, count).await })
        }
    }?;
    Ok(Figure { rate, p50: percentile(&mut times, 50), p99: percentile(&mut times, 99) })
}

/// How long a message and its answer take, one after another.
async fn there_and_back<P: Pipe>(
    (mut near, mut far): (P, P),
    size: usize,
    trips: usize,
) -> Result<Vec<Duration>> {
    let bytes = Bytes::from(vec![0x5a; size]);
    let warm_up = trips / 10;
    let answer = bytes.clone();
    let answers: JoinHandle<Result<()>> = tokio::spawn(async move {
        loop {
            far.receive(size).await?;
            far.send(answer.clone()).await?;
            far.flush().await?;
        }
    });
    let mut times = Vec::with_capacity(trips);
    for trip in 0..warm_up + trips {
        let start = Instant::now();
        near.send(bytes.clone()).await?;
        near.flush().await?;
        near.receive(size).await?;
        if trip >= warm_up {
            times.push(start.elapsed());
        }
    }
    answers.abort();
    Ok(times)
}

/// Bytes per second of messages that follow each other.
async fn stream<P: Pipe>((mut near, mut far): (P, P), size: usize, count: usize) -> Result<f64> {
    let bytes = Bytes::from(vec![0x5a; size]);
    let warm_up = count / 20;
    let takes = tokio::spawn(async move {
        for part in [warm_up, count] {
            for _ in 0..part {
                far.receive(size).await?;
            }
            far.send(Bytes::from_static(&[1; WORD])).await?;
            far.flush().await?;
        }
        // It lives until the other end has heard it.
        let _ = far.receive(WORD).await;
        anyhow::Ok(())
    });
    let mut start = Instant::now();
    for part in [warm_up, count] {
        start = Instant::now();
        for _ in 0..part {
            near.send(bytes.clone()).await?;
        }
        near.flush().await?;
        near.receive(WORD).await?;
    }
    let passed = start.elapsed();
    takes.abort();
    Ok((count * size) as f64 / passed.as_secs_f64())
}
