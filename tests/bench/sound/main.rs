//! What sound costs in time and work: from the guest's buffer to the card's callback and from the microphone's callback to
//! the guest's buffer, over loopback and over a bad network; the processor's time for each stream, and for Opus alone; and
//! for comparison the same sound through PulseAudio. `make bench` runs it; alone it is `cargo bench -p farbus --bench
//! sound`, or parts of it: `-- latency opus cost codec reference`.
//!
//! The machine is noisy, so nothing here is a test: it prints, says which goals were reached, and always ends with 0.

mod codec;
mod cost;
mod desk;
mod host;
mod latency;
mod network;
mod pulse;
mod pump;

use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use hda_ctrl::Wish;
use wire::audio::{Encoding, Format};

pub(crate) const FORMAT: Format = Format { rate: 48_000, encoding: Encoding::S16, channels: 2 };

/// The parts, in the order in which they are measured.
const PARTS: [&str; 5] = ["latency", "opus", "cost", "codec", "reference"];

fn main() -> Result<()> {
    ensure!(!cfg!(debug_assertions), "this measures release programs: cargo bench -p farbus");
    // Cargo passes flags for the built-in harness; there are none here.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let unknown = wanted.iter().find(|part| !PARTS.contains(&part.as_str()));
    ensure!(unknown.is_none(), "the parts are {}", PARTS.join(", "));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("sound: load average before {}", load()?);
    for part in PARTS.iter().filter(|part| wanted.is_empty() || wanted.iter().any(|one| one == *part)) {
        match *part {
            "latency" => runtime.block_on(latency())?,
            "opus" => runtime.block_on(opus())?,
            "cost" => runtime.block_on(cost())?,
            "codec" => codec(),
            _ => reference(),
        }
    }
    println!("load average after {}", load()?);
    Ok(())
}

async fn latency() -> Result<()> {
    let pcm = latency::once(network::loopback().await?, Wish::Pcm, true).await?;
    println!("PCM over loopback, to a card with periods of 10 ms");
    println!("  guest's buffer to the card's callback   {}", pcm.played);
    goal("p50 <= 18 ms", pcm.played.p50, 18.0);
    goal("p99 <= 25 ms", pcm.played.p99, 25.0);
    for (stage, times) in &pcm.stages {
        println!("     {stage:<36} {times}");
    }
    println!("  microphone's callback to the guest      {}", pcm.recorded);
    goal("p99 <= 40 ms", pcm.recorded.p99, 40.0);
    pcm.remarks.iter().for_each(|remark| println!("  {remark}"));
    Ok(())
}

async fn opus() -> Result<()> {
    let opus = latency::once(network::bad(), Wish::Opus, false).await?;
    println!("Opus over 20 ms with 5 ms of jitter and 2 % loss");
    println!("  guest's buffer to the card's callback   {}", opus.played);
    for (stage, times) in &opus.stages {
        println!("     {stage:<36} {times}");
    }
    opus.remarks.iter().for_each(|remark| println!("  {remark}"));
    Ok(())
}

async fn cost() -> Result<()> {
    println!("processor time for each stream, percent of one core, with the encryption of its end");
    for (name, wish, most) in [("PCM", Wish::Pcm, 0.5), ("Opus", Wish::Opus, 1.8)] {
        for streams in [1, 4, 16] {
            let cost::Cost { host, desk } = cost::cost(wish, streams).await?;
            let verdict = if host.max(desk) <= most { "reached" } else { "MISSED" };
            println!(
                "  {name:<4} {streams:>2} streams   host {host:>5.2} %   desk {desk:>5.2} %   <= {most} %: {verdict}"
            );
        }
    }
    Ok(())
}

fn codec() {
    println!("Opus by itself, 48 kHz stereo, 10 s of sound");
    codec::lines().iter().for_each(|line| println!("  {line}"));
}

fn reference() {
    println!(
        "for comparison, PulseAudio's tunnel over loopback, from the player's input to the last daemon's output"
    );
    pulse::lines().iter().for_each(|line| println!("  {line}"));
}

fn goal(name: &str, value: f64, most: f64) {
    println!("  -> {name}: {}", if value <= most { "reached" } else { "MISSED" });
}

/// The load averages of this computer: what else ran meanwhile.
fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
