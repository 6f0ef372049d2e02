//! Looks for a host that a session has lost: makes one connection after the other and takes the first that comes about.
//! What was sent into a network that is away is lost, and TCP itself says it again after one second, three, seven; so it
//! is the next new connection that finds the network when it is back.
//!
//! A connection that waits costs a packet and a socket. It says nothing yet, so the host has no work with those that are
//! left when one of them is there.

use std::{io, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

/// The time between two connections while the host may still hold the session and somebody waits for it.
const SOON: Duration = Duration::from_millis(40);
/// The same when it has most likely given the devices up.
const LATER: Duration = Duration::from_secs(1);
/// A host holds devices for 25 s if nothing else was configured.
const HELD: Duration = Duration::from_secs(60);
/// A connection is given up after so long: by then newer ones are as good.
const GIVE_UP: Duration = Duration::from_secs(1);

/// What a session looks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// How long it has had no link.
    pub(crate) outage: Duration,
    /// What a round trip took on its last one.
    pub(crate) round_trip: Option<Duration>,
    /// Makes its pauses others than those of everybody else.
    pub(crate) seed: u64,
}

impl Look {
    /// How long to wait for the next connection, or attempt, so long after the first of them: up to a fifth less than
    /// everybody, and not many in one round trip.
    pub(crate) fn pause(self, after: Duration) -> Duration {
        let pause = if self.outage + after < HELD { SOON } else { LATER };
        let pause = pause.max(self.round_trip.unwrap_or_default() / 8);
        let random = self.seed.wrapping_add(after.as_micros() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        pause - pause.mul_f64((random >> 40) as f64 / (1u64 << 24) as f64 / 5.0)
    }

    /// Makes connections until one comes about, however long that takes. It is told how many there were before. Returns
    /// the first, and how long it took.
    pub(crate) async fn first<T, F>(self, mut connect: impl FnMut(u32) -> F) -> (T, Duration)
    where
        F: Future<Output = io::Result<T>>,
    {
        let give_up = GIVE_UP.max(self.round_trip.unwrap_or_default() * 8);
        let (begun, mut made) = (Instant::now(), 0);
        let mut waiting = FuturesUnordered::new();
        loop {
            let since = Instant::now();
            waiting.push(timeout(give_up, connect(made)).map(move |came| (since, came)));
            made = made.wrapping_add(1);
            let pause = sleep(self.pause(begun.elapsed()));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some((since, came)) = waiting.next() => match came {
                        Ok(Ok(connection)) => return (connection, since.elapsed()),
                        Ok(Err(error)) => tracing::trace!(%error, "no connection"),
                        Err(_) => {}
                    },
                    () = &mut pause => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn look(round_trip: Option<Duration>) -> Look {
        Look { outage: Duration::ZERO, round_trip, seed: 7 }
    }

    /// What a network that is away does with a connection.
    #[derive(Debug, Clone, Copy)]
    enum Away {
        /// Nothing is heard.
        Silent,
        /// It is refused at once.
        Refuses,
    }

    /// A network that is back at this time, with this round trip; counts the connections that wait, and all.
    #[derive(Clone)]
    struct Network {
        away: Away,
        back: Instant,
        round_trip: Duration,
        waiting: Rc<Cell<usize>>,
        most: Rc<Cell<usize>>,
        all: Rc<Cell<u32>>,
    }

    struct Waits(Rc<Cell<usize>>);

    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    impl Network {
        fn new(away: Away, back: Duration, round_trip: Duration) -> Self {
            let back = Instant::now() + back;
            let (waiting, most, all) = Default::default();
            Self { away, back, round_trip, waiting, most, all }
        }

        async fn connect(self) -> io::Result<()> {
            self.all.set(self.all.get() + 1);
            self.waiting.set(self.waiting.get() + 1);
            self.most.set(self.most.get().max(self.waiting.get()));
            let _waits = Waits(Rc::clone(&self.waiting));
            match self.away {
                _ if Instant::now() >= self.back => sleep(self.round_trip).await,
                Away::Silent => std::future::pending().await,
                Away::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            }
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_is_back_is_found_within_40_ms_and_a_round_trip_while_the_host_holds() {
        for away in [Away::Silent, Away::Refuses] {
            for (known, round_trip) in [(None, 1), (Some(20), 20), (Some(1), 700), (Some(300), 250)] {
                for back in [0, 1, 39, 300, 2_500, 8_013, 20_000, 25_000, 59_000] {
                    let (known, round_trip) = (known.map(|ms| MS * ms), MS * round_trip);
                    let network = Network::new(away, MS * back, round_trip);
                    look(known).first(|_| network.clone().connect()).await;
                    let after = network.back.elapsed();
                    let case = format!("{away:?}, back after {back} ms, {round_trip:?}, was {known:?}");
                    assert!(after <= round_trip + 41 * MS, "{case}: found after {after:?}");
                    let most = network.most.get();
                    assert!(most <= 80, "{case}: {most} at once");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_look_becomes_slow_when_the_host_has_given_up() {
        let network = Network::new(Away::Silent, Duration::from_secs(660), MS);
        let count = Rc::clone(&network.all);
        tokio::select! {
            _ = look(Some(MS)).first(|_| network.clone().connect()) => panic!("the network is away"),
            () = sleep(HELD) => {}
        }
        let fast = count.replace(0);
        assert!((1_500..1_900).contains(&fast), "{fast} in a minute");
        let late = Look { outage: HELD, ..look(Some(MS)) };
        late.first(|_| network.clone().connect()).await;
        assert!(network.back.elapsed() <= LATER + MS);
        assert!((600..750).contains(&count.get()), "{} in ten minutes", count.get());
        assert_eq!(network.waiting.get(), 0, "none is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn many_in_one_round_trip_are_no_use() {
        let network = Network::new(Away::Silent, Duration::ZERO, 2_000 * MS);
        let (_, took) = look(Some(2_000 * MS)).first(|_| network.clone().connect()).await;
        assert!((2_000 * MS..2_010 * MS).contains(&took), "{took:?}");
        assert!(network.all.get() <= 11, "{}", network.all.get());
    }

    #[test]
    fn no_two_looks_keep_in_step() {
        let pauses = |seed| (0..20).map(|n| Look { seed, ..look(None) }.pause(MS * n)).collect::<Vec<_>>();
        assert_ne!(pauses(1), pauses(2));
        assert!(pauses(1).iter().all(|pause| (32 * MS..=SOON).contains(pause)));
    }
}
