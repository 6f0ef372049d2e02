//! The processor's time for each stream, at either end.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hda_ctrl::Wish;

use crate::{desk, host, network};

const LENGTH: Duration = Duration::from_secs(10);

/// Percent of one core for each stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The controller, its codec and its side of the link, with encryption.
    pub(crate) host: f64,
    /// The remote's side of the link, its codec, the receiver and what stands for the card; and the sockets' events of both
    /// ends.
    pub(crate) desk: f64,
}

/// What so many streams cost. A VM has four.
pub(crate) async fn cost(wish: Wish, streams: u8) -> Result<Cost> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut hosts, mut desks) = (Vec::new(), Vec::new());
    for _ in 0..streams.div_ceil(4) {
        let (here, there) = network::loopback().await?;
        let guest = host::Guest { streams: streams.min(4), records: false, looks: false };
        hosts.push(host::start(here, wish, guest, Arc::clone(&stop)));
        desks.push(tokio::spawn(desk::run(there, wish, Arc::clone(&stop))));
    }
    // Everything plays, and is as it stays: the ends have found out that they are near.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, since) = (spent()?, Instant::now());
    tokio::time::sleep(LENGTH).await;
    let (after, passed) = (spent()?, since.elapsed());
    stop.store(true, Relaxed);
    for host in hosts {
        host.join().ok().context("the host")??;
    }
    for desk in desks {
        desk.await?;
    }
    let percent = |before: Duration, after: Duration| {
        (after - before).as_secs_f64() * 100.0 / passed.as_secs_f64() / f64::from(streams)
    };
    Ok(Cost { host: percent(before.0, after.0), desk: percent(before.1, after.1) })
}

/// What the threads of hosts have used of all processors, and all others of this process.
fn spent() -> Result<(Duration, Duration)> {
    let (mut hosts, mut others) = (Duration::ZERO, Duration::ZERO);
    for thread in fs::read_dir("/proc/self/task").context("listing threads")? {
        let path = thread?.path();
        // A thread may end meanwhile.
        let (Ok(name), Ok(spent)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let nanoseconds = spent.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        let sum = if [host::THREAD, "opus"].contains(&name.trim()) { &mut hosts } else { &mut others };
        *sum += Duration::from_nanos(nanoseconds);
    }
    Ok((hosts, others))
}
