//! The door: accepts connections, reads one frame of each, decides. What comes in here is anybody's, and gets what
//! [`Limits`] allow.

use std::{cell::RefCell, io, net::SocketAddr, os::fd::OwnedFd, rc::Rc, sync::Arc, time::Duration};

use actix::Addr;
use anyhow::{Context as _, Result, bail};
use noise_tcp::{FirstFrame, HandshakeError, SecretKey, pairing::Asked};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::AbortHandle,
    time::Instant,
};
use wire::control::Answer;

use super::{
    ConnectionManager,
    limits::{self, PlaceId, Source, Trusted},
    pairing,
    registry::{Decision, Registry},
    seen::LetIn,
};
use crate::{
    handoff::ToWorker,
    report::{Report, Reporter},
};

/// How long to wait after the system could not accept (no descriptors left, most likely).
const BREATHER: Duration = Duration::from_millis(100);

/// Connections that the kernel keeps until they are accepted. A flood that fills this queue makes it drop what others
/// say, and they say it again after a second only; the kernel's own limit (net.core.somaxconn) may be lower.
const QUEUE: u32 = 4096;

/// The limits of connections that are tasks of the manager's thread.
pub(super) type Limits = Rc<RefCell<limits::Limits<AbortHandle>>>;

/// The limits of a door at which nobody has been yet.
pub(super) fn limits(trusted: &Trusted) -> Limits {
    Rc::new(RefCell::new(limits::Limits::new(trusted)))
}

/// What everybody who is let in meets.
pub(super) struct Inside {
    pub(super) key: SecretKey,
    pub(super) registry: Arc<Registry>,
    pub(super) reporter: Reporter,
    pub(super) manager: Addr<ConnectionManager>,
    pub(super) limits: Limits,
    /// The time of the limits counts from here.
    pub(super) start: Instant,
}

/// Listens at the first of an address's places that can be had.
///
/// # Errors
/// None can.
pub(super) async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "it is the name of no address"));
    for place in tokio::net::lookup_host(address).await? {
        let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        outcome = socket.and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(place)?;
            socket.listen(QUEUE)
        });
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Accepts for ever.
pub(super) async fn accept_all(listener: TcpListener, inside: Inside) {
    let inside = Rc::new(inside);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let pushed_out = enter(&inside, stream, from);
                if pushed_out {
                    // Who was pushed out goes now, and who came speaks before he is pushed out himself.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// Gives a connection a place and a task; whether another one had to go for it.
fn enter(inside: &Rc<Inside>, stream: TcpStream, from: SocketAddr) -> bool {
    let source = Source::of(from.ip());
    let id = inside.limits.borrow_mut().number();
    let place = Taken::new(&inside.limits, id);
    let theirs = Rc::clone(inside);
    let task = actix::spawn(async move {
        let welcomed = tokio::time::timeout(noise_tcp::DEADLINE, theirs.welcome(stream, from, source)).await;
        if let Err(error) = welcomed.unwrap_or(Err(HandshakeError::Deadline.into())) {
            tracing::debug!(%from, "a connection came to nothing: {error:#}");
        }
        drop(place);
    });
    let pushed_out = inside.limits.borrow_mut().enter(id, source, task.abort_handle());
    pushed_out.inspect(AbortHandle::abort).is_some()
}

/// A place in the hall, given back on drop.
pub(super) struct Taken(Limits, PlaceId);

impl Taken {
    pub(super) fn new(limits: &Limits, id: PlaceId) -> Self {
        Self(Rc::clone(limits), id)
    }

    /// Whoever had it has shown who it is.
    pub(super) fn give_back(&self) {
        self.0.borrow_mut().leave(self.1);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Inside {
    async fn welcome(&self, mut stream: TcpStream, from: SocketAddr, source: Source) -> Result<()> {
        let first = noise_tcp::read_first(&mut stream).await?;
        if !self.limits.borrow_mut().afford(source, self.start.elapsed()) {
            bail!("too many first messages of late");
        }
        if Asked::is(&first) {
            return pairing::serve(stream, from, &first, &self.key, &self.manager).await;
        }
        self.admit(stream, from, first).await
    }

    /// Hands a remote to its VM's worker, or tells it why not.
    async fn admit(&self, stream: TcpStream, from: SocketAddr, first: FirstFrame) -> Result<()> {
        let caller = match noise_tcp::identify(&first, &self.key) {
            Err(HandshakeError::NotForUs) => {
                noise_tcp::not_for_us(stream, &self.key).await?;
                return Err(HandshakeError::NotForUs.into());
            }
            other => other?,
        };
        match self.registry.decide(caller.key, &caller.hello) {
            Decision::Adopt { vm, worker } => {
                let (key, name) = (caller.key, caller.hello.name);
                self.manager.do_send(LetIn { vm: vm.clone(), key, name });
                let socket = OwnedFd::from(stream.into_std()?);
                let message = ToWorker::Adopt { first: first.as_bytes().to_vec() };
                let handed = worker.send((message, Some(socket))).await;
                handed.ok().with_context(|| format!("the worker of VM `{vm}` has just ended"))
            }
            Decision::Refuse { reason, text } => {
                let remote = format!("{} ({from})", caller.key);
                self.reporter.say(&Report::Refused { remote, text: text.clone() });
                noise_tcp::refuse(stream, first, &self.key, &Answer::Refused { reason, text }).await?;
                Ok(())
            }
        }
    }
}
