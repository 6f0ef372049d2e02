//! The door: accepts connections, reads one frame of each, decides. What comes in here is anybody's.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use anyhow::{Context as _, Result};
use dashmap::DashMap;
use noise_tcp::{HandshakeError, SecretKey, pairing::Asked};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use wire::control::Answer;

use super::{
    ConnectionManager, pairing,
    registry::{Decision, Registry},
};
use crate::{
    handoff::ToWorker,
    report::{Report, Reporter},
};

/// Connections that have not shown who they are yet, in all.
const HALF_OPEN: usize = 32;
/// The same, from one address.
const HALF_OPEN_PER_SOURCE: usize = 8;
/// How long to wait after the system could not accept (no descriptors left, most likely).
const BREATHER: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn accept_all(
    listener: TcpListener,
    key: Arc<SecretKey>,
    registry: Arc<Registry>,
    reporter: Reporter,
    manager: Addr<ConnectionManager>,
) {
    let half_open = Arc::new(Semaphore::new(HALF_OPEN));
    let sources = Arc::new(Sources::default());
    loop {
        // A place first: connections beyond the limit wait in the kernel's queue, which has its own.
        let Ok(place) = Arc::clone(&half_open).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let Some(source) = sources.enter(from.ip()) else { continue };
        let (key, registry, manager) = (Arc::clone(&key), Arc::clone(&registry), manager.clone());
        actix::spawn(async move {
            if let Err(error) = welcome(stream, from, &key, &registry, reporter, &manager).await {
                tracing::info!(%from, "a connection came to nothing: {error:#}");
            }
            drop((place, source));
        });
    }
}

/// Connections by source address.
#[derive(Default)]
struct Sources(DashMap<IpAddr, usize>);

/// One connection's entry, given back on drop.
struct Entered(Arc<Sources>, IpAddr);

impl Sources {
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Entered> {
        let mut count = self.0.entry(source).or_insert(0);
        (*count < HALF_OPEN_PER_SOURCE).then(|| {
            *count += 1;
            Entered(Arc::clone(self), source)
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.remove_if_mut(&self.1, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

async fn welcome(
    mut stream: TcpStream,
    from: SocketAddr,
    key: &SecretKey,
    registry: &Registry,
    reporter: Reporter,
    manager: &Addr<ConnectionManager>,
) -> Result<()> {
    let first = noise_tcp::read_first(&mut stream).await?;
    if Asked::is(&first) {
        return pairing::serve(stream, from, &first, key, manager).await;
    }
    let caller = match noise_tcp::identify(&first, key) {
        Err(HandshakeError::NotForUs) => {
            noise_tcp::not_for_us(stream, key).await?;
            return Err(HandshakeError::NotForUs.into());
        }
        other => other?,
    };
    match registry.decide(caller.key, &caller.hello) {
        Decision::Adopt { vm, worker } => {
            let socket = OwnedFd::from(stream.into_std()?);
            let message = ToWorker::Adopt { first: first.as_bytes().to_vec() };
            let handed = worker.send((message, Some(socket))).await;
            handed.ok().with_context(|| format!("the worker of VM `{vm}` has just ended"))
        }
        Decision::Refuse { reason, text } => {
            reporter.say(&Report::Refused { remote: format!("{} ({from})", caller.key), text: text.clone() });
            noise_tcp::refuse(stream, first, key, &Answer::Refused { reason, text }).await?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places_and_gives_them_back() {
        let sources = Arc::new(Sources::default());
        let (noisy, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let held: Vec<_> = std::iter::from_fn(|| sources.enter(noisy)).collect();
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE);
        assert!(sources.enter(other).is_some());
        drop(held);
        assert!(sources.0.is_empty());
    }
}
