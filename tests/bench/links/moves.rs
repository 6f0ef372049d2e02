//! What a session loses, and how long its messages wait, when it moves from one link to another while both live.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use link::{Faults, Faulty, Link};
use session::LinkId;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::{Lane, Message};

use crate::{
    bar,
    end::{End, session},
    ms,
    pair::{Pair, Way, pair},
    percentile,
};

/// How long each frame takes one way, on every link: a round trip is twice that.
const ONE_WAY: Duration = Duration::from_millis(10);
/// Messages each way, one at a time; the move begins after half of them.
const MESSAGES: usize = 600;
const EVERY: Duration = Duration::from_millis(2);
const ROUNDS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);
const MOVES: [(Way, Way); 3] =
    [(Way::NoiseTcp, Way::WebRtc), (Way::WebRtc, Way::NoiseTcp), (Way::NoiseTcp, Way::NoiseTcp)];

/// What came at one end.
struct Log {
    delays: Vec<Duration>,
    /// Messages that were not the next one.
    strays: usize,
}

impl Log {
    fn new() -> Self {
        Self { delays: Vec::with_capacity(MESSAGES), strays: 0 }
    }

    fn take(&mut self, end: &mut End, start: Instant) {
        while let Some((_, bytes)) = end.take() {
            let number =
                bytes.first_chunk().map_or(usize::MAX, |number| u64::from_le_bytes(*number) as usize);
            self.strays += usize::from(number != self.delays.len());
            self.delays.push(start.elapsed().saturating_sub(EVERY * number as u32));
        }
    }

    fn complete(&self) -> bool {
        self.delays.len() >= MESSAGES
    }
}

/// Measures moves between all kinds, and prints.
pub(crate) async fn measure() -> Result<()> {
    println!("a session that moves from link to link, {} ms of round trip", ms(ONE_WAY * 2));
    for (from, to) in MOVES {
        let (mut lost, mut gap, mut usual) = (0, Duration::ZERO, Vec::new());
        for _ in 0..ROUNDS {
            for Log { mut delays, strays } in hand_over(from, to).await? {
                lost += strays + (MESSAGES - delays.len());
                let mut after = delays.split_off(MESSAGES / 2);
                let p50 = percentile(&mut delays, 50);
                gap = gap.max(percentile(&mut after, 100).saturating_sub(p50));
                usual.push(percentile(&mut delays, 100).saturating_sub(p50));
            }
        }
        println!(
            "  {from} to {to}: longest wait beyond the median, worst of {ROUNDS} {:.2} ms (before the move {:.2} ms)",
            ms(gap),
            ms(percentile(&mut usual, 100))
        );
        bar(&format!("{from} to {to}: messages lost, doubled or out of order"), f64::from(lost as u32), 0.0);
        bar(&format!("{from} to {to}: gap / round trip"), gap.div_duration_f64(ONE_WAY * 2), 1.0);
    }
    Ok(())
}

fn slow((remote, host): Pair) -> Pair {
    let slow = |link| -> Box<dyn Link> {
        let delay = Some(ONE_WAY..ONE_WAY + Duration::from_micros(1));
        Box::new(Faulty::new(link, Faults { delay, ..Faults::default() }))
    };
    (slow(remote), slow(host))
}

/// What came at the remote and at the host.
async fn hand_over(from: Way, to: Way) -> Result<[Log; 2]> {
    let (mut remote, mut host) = session(slow(pair(from).await?)).await?;
    let next = LinkId(2);
    let mut links = Some(slow(pair(to).await?));
    let mut logs = [Log::new(), Log::new()];
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut said) = (Instant::now(), 0);
    let all = poll_fn(|cx| {
        loop {
            remote.turn(cx)?;
            host.turn(cx)?;
            logs[0].take(&mut remote, start);
            logs[1].take(&mut host, start);
            if logs.iter().all(Log::complete) && said == MESSAGES {
                return Poll::Ready(anyhow::Ok(()));
            }
            if said == MESSAGES || ticks.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
            if said == MESSAGES / 2
                && let Some((here, there)) = links.take()
            {
                host.join(next, there)?;
                remote.join(next, here)?;
            }
            for end in [&mut remote, &mut host] {
                let body = Bytes::copy_from_slice(&(said as u64).to_le_bytes());
                end.say(Message { lane: Lane::Int, head: Bytes::new(), body })?;
            }
            said += 1;
        }
    });
    timeout(PATIENCE, all).await.map_err(|_| anyhow::anyhow!("messages do not come"))??;
    ensure!((remote.link(), host.link()) == (Some(next), Some(next)), "the session has not moved");
    Ok(logs)
}
