//! Remotes that the manager let in, but that have not proved their keys yet: a first message may be a replay.
//!
//! ```text
//!  first message ──► a place among strangers ── key proved ──► LinkUp
//!                                                    └── signalling ──► a place among calls ── WebRTC ──► LinkUp
//! ```
//! Whoever replays first messages pushes out strangers only: who has proved its key keeps what it has begun.

use std::{
    collections::VecDeque,
    net::{IpAddr, TcpStream as StdTcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::Recipient;
use anyhow::Result;
use link::Link;
use noise_tcp::{FirstFrame, NoiseTcp, SecretKey};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use vm_session::LinkUp;
use wire::control::Answer;

use crate::{config::Rtc, control::client::seconds_since_1970, handoff::ToManager, signalling};

/// Handshakes of a kind at the same time; one more ends the one that has lasted longest. A remote needs one round trip
/// for its own over TCP, and the manager lets one source in 20 times a second.
const AT_ONCE: usize = 8;

/// How long the offer, the candidates and the connection of a handshake by WebRTC may take in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Finishes handshakes on the link runtime.
pub(crate) struct Adopting {
    tools: Arc<Tools>,
    io: Handle,
    strangers: Places,
}

/// What every handshake needs.
struct Tools {
    key: Arc<SecretKey>,
    answer: Answer,
    to_manager: mpsc::WeakSender<ToManager>,
    session: Recipient<LinkUp>,
    rtc: Arc<Rtc>,
    /// The handshakes by WebRTC of remotes that have proved their keys.
    calls: Places,
    /// How long each of those may take.
    patience: Duration,
}

/// The handshakes that go on. They come from several threads.
#[derive(Debug, Default)]
struct Places(Mutex<VecDeque<AbortHandle>>);

impl Places {
    fn enter<T>(&self, handshake: &JoinHandle<T>) {
        let mut going_on = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        going_on.retain(|handshake| !handshake.is_finished());
        if going_on.len() == AT_ONCE {
            going_on.pop_front().inspect(AbortHandle::abort);
        }
        going_on.push_back(handshake.abort_handle());
    }
}

impl Adopting {
    pub(crate) fn new(
        vm: &str,
        key: Arc<SecretKey>,
        io: Handle,
        to_manager: mpsc::WeakSender<ToManager>,
        session: Recipient<LinkUp>,
        rtc: Arc<Rtc>,
    ) -> Self {
        let answer = Answer::Welcome { vm: vm.to_owned() };
        let (calls, patience) = (Places::default(), PATIENCE);
        let tools = Tools { key, answer, to_manager, session, rtc, calls, patience };
        Self { tools: Arc::new(tools), io, strangers: Places::default() }
    }

    /// Goes on with the handshake of the remote that said `first`; then the session has a new link.
    pub(crate) fn adopt(&mut self, first: Vec<u8>, socket: OwnedFd) {
        let tools = Arc::clone(&self.tools);
        let handshake = self.io.spawn(async move {
            if let Err(error) = tools.finish(first, socket).await {
                tracing::info!("a remote was let in, but did not finish its handshake: {error:#}");
            }
        });
        self.strangers.enter(&handshake);
    }
}

impl Tools {
    async fn finish(self: &Arc<Self>, first: Vec<u8>, socket: OwnedFd) -> Result<()> {
        let socket = StdTcpStream::from(socket);
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket)?;
        let from = stream.peer_addr()?;
        let near = stream.local_addr()?.ip();
        let first = FirstFrame::from_bytes(first)?;
        let signalling = noise_tcp::identify(&first, &self.key)?.hello.signalling;
        let link = noise_tcp::accept(stream, first, &self.key, &self.answer).await?;
        if let Some(to_manager) = self.to_manager.upgrade() {
            // A manager that does not listen for so long has lost the right to know.
            let _ = to_manager.try_send(ToManager::Proved { from });
        }
        if signalling {
            self.calls.enter(&tokio::spawn(Arc::clone(self).call(link, near)));
        } else {
            self.link_up(Box::new(link));
        }
        Ok(())
    }

    /// Answers the offer that comes by this link; then the session has the other one.
    async fn call(self: Arc<Self>, link: NoiseTcp, near: IpAddr) {
        let rtc = self.rtc.at(near, seconds_since_1970());
        let linked = timeout(self.patience, signalling::answer(link, &self.key, &self.answer, &rtc)).await;
        match linked.unwrap_or_else(|late| Err(late.into())) {
            Ok(link) => self.link_up(Box::new(link)),
            Err(error) => tracing::info!("a remote has offered WebRTC, and did not come by it: {error:#}"),
        }
    }

    fn link_up(&self, link: Box<dyn Link>) {
        self.session.do_send(LinkUp { link, track: None });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        net::{Ipv4Addr, SocketAddr},
    };

    use actix::prelude::*;
    use bytes::Bytes;
    use link::Frame;
    use tokio::{
        io::AsyncReadExt,
        net::TcpListener,
        sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };
    use webrtc::Offerer;
    use wire::{Lane, control::Hello};

    use super::*;

    /// Has whatever links come.
    struct Session(UnboundedSender<LinkUp>);

    impl Actor for Session {
        type Context = Context<Self>;
    }

    impl Handler<LinkUp> for Session {
        type Result = ();

        fn handle(&mut self, link: LinkUp, _: &mut Self::Context) {
            let _ = self.0.send(link);
        }
    }

    /// A worker's end of the door, and a first message that somebody has seen on the network.
    struct World {
        adopting: Adopting,
        key: SecretKey,
        listener: TcpListener,
        seen: Vec<u8>,
        links: UnboundedReceiver<LinkUp>,
        told: mpsc::Receiver<ToManager>,
        _events: mpsc::Sender<ToManager>,
    }

    impl World {
        async fn new(remote: &SecretKey) -> Self {
            let key = SecretKey::generate();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (linked, links) = unbounded_channel();
            let session = Session(linked).start().recipient();
            let (events, told) = mpsc::channel(4);
            let (own, rtc) = (Arc::new(key.clone()), Arc::default());
            let adopting = Adopting::new("a", own, Handle::current(), events.downgrade(), session, rtc);
            let mut world = Self { adopting, key, listener, seen: Vec::new(), links, told, _events: events };
            let caller = world.connect(remote, false);
            let (mut seen, _) = world.listener.accept().await.unwrap();
            world.seen = noise_tcp::read_first(&mut seen).await.unwrap().as_bytes().to_vec();
            caller.abort();
            world
        }

        fn connect(&self, remote: &SecretKey, signalling: bool) -> JoinHandle<NoiseTcp> {
            let (address, host, remote) =
                (self.listener.local_addr().unwrap(), self.key.public(), remote.clone());
            let hello = hello(signalling);
            tokio::spawn(async move { noise_tcp::connect(address, host, &remote, &hello).await.unwrap().0 })
        }

        /// Lets in whoever connects next; where it is.
        async fn adopt(&mut self) -> SocketAddr {
            let (mut stream, from) = self.listener.accept().await.unwrap();
            let first = noise_tcp::read_first(&mut stream).await.unwrap().as_bytes().to_vec();
            self.adopting.adopt(first, stream.into_std().unwrap().into());
            from
        }

        /// Plays the first message again that was seen.
        async fn replay(&mut self) -> TcpStream {
            let address = self.listener.local_addr().unwrap();
            let (ours, theirs) = tokio::join!(TcpStream::connect(address), self.listener.accept());
            self.adopting.adopt(self.seen.clone(), theirs.unwrap().0.into_std().unwrap().into());
            ours.unwrap()
        }
    }

    fn hello(signalling: bool) -> Hello {
        Hello { version: wire::VERSION, vm: None, name: String::new(), signalling }
    }

    #[actix::test]
    async fn replays_push_each_other_out_and_the_remote_itself_comes_in() {
        let remote = SecretKey::generate();
        let mut world = World::new(&remote).await;
        let mut replays = Vec::new();
        for _ in 0..AT_ONCE {
            replays.push(world.replay().await);
        }
        let genuine = world.connect(&remote, false);
        let from = world.adopt().await;

        genuine.await.unwrap();
        assert_eq!(world.told.recv().await, Some(ToManager::Proved { from }));
        assert!(world.links.recv().await.is_some());
        let mut answer = Vec::new();
        // A reset or an end: the oldest replay is gone either way, and its deadline has not come yet.
        let _ = replays.remove(0).read_to_end(&mut answer).await;
        assert!(world.adopting.strangers.0.lock().unwrap().len() <= AT_ONCE);
    }

    #[actix::test]
    async fn replays_do_not_push_out_a_remote_that_comes_by_webrtc() {
        let remote = SecretKey::generate();
        let mut world = World::new(&remote).await;
        let genuine = world.connect(&remote, true);
        world.adopt().await;
        let mut signalling = genuine.await.unwrap();
        assert!(matches!(world.told.recv().await, Some(ToManager::Proved { .. })));
        let mut replays = Vec::new();
        for _ in 0..2 * AT_ONCE {
            replays.push(world.replay().await);
        }

        let mut config = webrtc::Config::default();
        config.bind.push((Ipv4Addr::LOCALHOST, 0).into());
        let offerer = Offerer::new(&config).await.unwrap();
        let offer = Frame { lane: Lane::Ctl, head: offerer.offer().to_owned().into(), body: Bytes::new() };
        poll_fn(|cx| signalling.poll_ready(cx)).await.unwrap();
        signalling.send(offer).unwrap();
        poll_fn(|cx| signalling.poll_flush(cx)).await.unwrap();
        let (_, answer) = poll_fn(|cx| signalling.poll_receive(cx)).await.unwrap();
        offerer.take_answer(str::from_utf8(&answer).unwrap()).await.unwrap();
        // Its end lives until the host has the other one.
        let (_link, answer) = offerer.connect(world.key.public(), &remote, &hello(false)).await.unwrap();
        assert!(matches!(answer, Answer::Welcome { .. }));
        assert!(world.links.recv().await.is_some());
    }

    #[actix::test]
    async fn a_remote_that_takes_too_long_in_all_is_let_go() {
        let remote = SecretKey::generate();
        let mut world = World::new(&remote).await;
        // Less than any step may take.
        Arc::get_mut(&mut world.adopting.tools).unwrap().patience = Duration::from_secs(1);
        let genuine = world.connect(&remote, true);
        world.adopt().await;
        let mut signalling = genuine.await.unwrap();
        assert!(matches!(world.told.recv().await, Some(ToManager::Proved { .. })));
        // It owes an offer now, and has five seconds for it.
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        assert!(poll_fn(|cx| signalling.poll_receive(cx)).await.is_err());
        assert!(begun.elapsed() <= Duration::from_millis(1_010), "{:?}", begun.elapsed());
        assert!(world.links.try_recv().is_err());
    }
}
