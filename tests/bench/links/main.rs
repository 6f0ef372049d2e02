//! What links and sessions cost, beside bare TCP and TLS: throughput and round trips, what an urgent message waits for
//! bulk, how soon a session goes on after a cut, and what a move between links costs. `make bench` runs it; alone it is
//! `cargo bench -p farbus --bench links`, which measures the release programs as they were last built.
//!
//! Figures vary with what else the machine does, so nothing here is a test: it prints, says which bars were reached, and
//! ends with 0 unless something does not work.

mod end;
mod moves;
mod pair;
mod pipe;
mod plain;
mod resume;
mod shaped;
mod speed;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

fn main() -> Result<()> {
    // Cargo passes flags for the built-in harness; there are none here.
    ensure!(!cfg!(debug_assertions), "this measures release programs: cargo bench -p farbus");
    // As the programs do.
    link::keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if shaped::is_inside() {
        return runtime.block_on(shaped::measure());
    }
    println!("links: load average before {}", load()?);
    if wanted("speed") {
        speed::measure(&runtime).context("speed")?;
    }
    if wanted("urgent") {
        shaped::run().context("on a slow line")?;
    }
    if wanted("moves") {
        runtime.block_on(moves::measure()).context("moves")?;
    }
    if wanted("resume") {
        runtime.block_on(resume::measure()).context("resume")?;
    }
    println!("load average after {}", load()?);
    Ok(())
}

/// Whether a part is asked for: all are, unless some are named (`cargo bench -p farbus --bench links -- moves`).
fn wanted(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

fn load() -> Result<String> {
    let all = std::fs::read_to_string("/proc/loadavg")?;
    Ok(all.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Says whether a figure is within its bar.
fn bar(name: &str, figure: f64, limit: f64) {
    let verdict = if figure <= limit { "reached" } else { "MISSED" };
    println!("  -> {name}: {figure:.2} (bar {limit:.2}) {verdict}");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What so many percent of these times do not exceed; zero of none.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}
