//! How soon a session goes on after a cut, once the network is back: the real programs, with a cable between them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::farbus::{Cable, Cut, Host, Program, monotonic_ns};

use crate::{bar, ms, percentile};

const ROUNDS: u32 = 6;
/// How long the network is away; a session without a link looks for one less and less often.
const RESETS: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(2_500), Duration::from_secs(8)];
/// The goal beyond a round trip, which is some 0.1 ms here, ms.
const GOAL: f64 = 50.0;

/// Measures, and prints.
pub(crate) async fn measure() -> Result<()> {
    println!("a session of the two programs that goes on after a cut, from the network's return");
    let folder = tempfile::tempdir()?;
    let mut host = Host::start(folder.path(), &["bench"]).await?;
    let cable = Cable::to(&host.address).await?;
    let mut remote = host.remote_by(&cable, "remote", "bench", &["--keyboard"])?;
    remote.wait_for("connected").await?;
    report("4 s of silence", &cable, &mut remote, Cut::Silent, Duration::from_secs(4)).await?;
    for outage in RESETS {
        report(&format!("{} s of resets", outage.as_secs_f64()), &cable, &mut remote, Cut::Reset, outage)
            .await?;
    }
    remote.stop().await?;
    host.program.stop().await?;
    Ok(())
}

async fn report(name: &str, cable: &Cable, remote: &mut Program, cut: Cut, outage: Duration) -> Result<()> {
    let mut times = Vec::new();
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
    let (p50, worst) = (percentile(&mut times, 50), percentile(&mut times, 100));
    println!("  after {name:<16} p50 {:>6.1} ms   worst of {ROUNDS} {:>6.1} ms", ms(p50), ms(worst));
    bar(&format!("after {name}: worst, ms"), ms(worst), GOAL);
    Ok(())
}
