//! How soon a session goes on after a cut, once the network is back: the real programs, with a cable between them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use lab::farbus::{Cable, Cut, Host, Program, monotonic_ns};

use crate::{bar, ms, percentile};

/// VMs, each with a remote and a cable of its own: long outages pass side by side, and end one after the other.
const DESKS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Outages of each desk.
const ROUNDS: u32 = 2;
/// Between the outages of two desks.
const APART: Duration = Duration::from_millis(211);
/// How long the network is away, ms. A silent one is noticed after three seconds.
const OUTAGES: [(Cut, u64); 7] = [
    (Cut::Reset, 300),
    (Cut::Reset, 2_500),
    (Cut::Reset, 8_000),
    (Cut::Reset, 20_000),
    (Cut::Silent, 4_000),
    (Cut::Silent, 8_000),
    (Cut::Silent, 20_000),
];
/// The goal beyond a round trip, which is some 0.1 ms here, ms.
const GOAL: f64 = 50.0;

/// A remote and its way to the host.
struct Desk {
    cable: Cable,
    remote: Program,
}

/// Measures, and prints.
pub(crate) async fn measure() -> Result<()> {
    println!("a session of the two programs that goes on after a cut, from the network's return");
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &DESKS).await?;
    let mut desks = Vec::new();
    for vm in DESKS {
        let cable = Cable::to(&host.address).await?;
        let mut remote = host.remote_by(&cable, vm, vm, &["--keyboard"])?;
        remote.wait_for("connected").await?;
        desks.push(Desk { cable, remote });
    }
    for (cut, outage) in OUTAGES {
        let outage = Duration::from_millis(outage);
        let of_desk = |(at, desk)| outages(desk, cut, outage, APART * at as u32);
        let times = try_join_all(desks.iter_mut().enumerate().map(of_desk)).await?;
        report(cut, outage, times.concat());
    }
    for Desk { mut remote, .. } in desks {
        remote.stop().await?;
    }
    host.program.stop().await?;
    Ok(())
}

/// Cuts a desk off again and again, for the first time after a while; how long it then took each time to go on.
async fn outages(desk: &mut Desk, cut: Cut, outage: Duration, begin: Duration) -> Result<Vec<Duration>> {
    let Desk { cable, remote } = desk;
    let mut times = Vec::new();
    tokio::time::sleep(begin).await;
    for round in 0..ROUNDS {
        cable.set(cut);
        // The remote tries at times of its own: each round ends at another moment of its pauses.
        tokio::time::sleep(outage + Duration::from_millis(17) * round).await;
        remote.wait_for("disconnected").await?;
        let back = monotonic_ns();
        cable.set(Cut::Whole);
        let resumed = remote.wait_for("resumed").await?["at_ns"].as_u64().context("a time")?;
        times.push(Duration::from_nanos(resumed.saturating_sub(back)));
    }
    Ok(times)
}

fn report(cut: Cut, outage: Duration, mut times: Vec<Duration>) {
    let kind = if cut == Cut::Silent { "silence" } else { "resets" };
    let name = format!("after {} s of {kind}", outage.as_secs_f64());
    let (p50, worst) = (percentile(&mut times, 50), percentile(&mut times, 100));
    println!("  {name:<24} p50 {:>6.1} ms   worst of {} {:>6.1} ms", ms(p50), times.len(), ms(worst));
    bar(&format!("{name}: worst, ms"), ms(worst), GOAL);
}
