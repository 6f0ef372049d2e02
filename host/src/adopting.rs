//! Remotes that the manager let in, but that have not proved their keys yet: a first message may be a replay.

use std::{collections::VecDeque, net::TcpStream as StdTcpStream, os::fd::OwnedFd, sync::Arc};

use actix::Recipient;
use anyhow::Result;
use link::Link;
use noise_tcp::{FirstFrame, SecretKey};
use tokio::{net::TcpStream, runtime::Handle, sync::mpsc, task::AbortHandle};
use vm_session::LinkUp;
use wire::control::Answer;

use crate::{config::Rtc, handoff::ToManager, signalling};

/// Handshakes at the same time; one more ends the one that has lasted longest. A remote needs one round trip for its
/// own, and the manager lets one source in 20 times a second.
const AT_ONCE: usize = 8;

/// Finishes handshakes on the link runtime.
pub(crate) struct Adopting {
    key: Arc<SecretKey>,
    answer: Answer,
    io: Handle,
    to_manager: mpsc::WeakSender<ToManager>,
    session: Recipient<LinkUp>,
    rtc: Arc<Rtc>,
    going_on: VecDeque<AbortHandle>,
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
        Self { key, answer, io, to_manager, session, rtc, going_on: VecDeque::with_capacity(AT_ONCE) }
    }

    /// Goes on with the handshake of the remote that said `first`; then the session has a new link.
    pub(crate) fn adopt(&mut self, first: Vec<u8>, socket: OwnedFd) {
        self.going_on.retain(|handshake| !handshake.is_finished());
        if self.going_on.len() == AT_ONCE {
            self.going_on.pop_front().inspect(AbortHandle::abort);
        }
        let (key, answer) = (Arc::clone(&self.key), self.answer.clone());
        let (to_manager, session, rtc) =
            (self.to_manager.clone(), self.session.clone(), Arc::clone(&self.rtc));
        let handshake = self.io.spawn(async move {
            match handshake(first, socket, &key, &answer, &to_manager, &rtc).await {
                Ok(link) => session.do_send(LinkUp { link, track: None }),
                Err(error) => {
                    tracing::info!("a remote was let in, but did not finish its handshake: {error:#}");
                }
            }
        });
        self.going_on.push_back(handshake.abort_handle());
    }
}

async fn handshake(
    first: Vec<u8>,
    socket: OwnedFd,
    key: &SecretKey,
    answer: &Answer,
    to_manager: &mpsc::WeakSender<ToManager>,
    rtc: &Rtc,
) -> Result<Box<dyn Link>> {
    let socket = StdTcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from_std(socket)?;
    let from = stream.peer_addr()?;
    let near = stream.local_addr()?.ip();
    let first = FirstFrame::from_bytes(first)?;
    let signalling = noise_tcp::identify(&first, key)?.hello.signalling;
    let link = noise_tcp::accept(stream, first, key, answer).await?;
    if let Some(to_manager) = to_manager.upgrade() {
        // A manager that does not listen for so long has lost the right to know.
        let _ = to_manager.try_send(ToManager::Proved { from });
    }
    if signalling {
        return Ok(Box::new(signalling::answer(link, key, answer, &rtc.at(near)).await?));
    }
    Ok(Box::new(link))
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;
    use tokio::{
        io::AsyncReadExt,
        net::TcpListener,
        sync::mpsc::{UnboundedSender, unbounded_channel},
    };
    use wire::control::Hello;

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

    #[actix::test]
    async fn replays_push_each_other_out_and_the_remote_itself_comes_in() {
        let (key, remote) = (SecretKey::generate(), SecretKey::generate());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (linked, mut links) = unbounded_channel();
        let session = Session(linked).start().recipient();
        let (events, mut told) = mpsc::channel(4);
        let mut adopting = Adopting::new(
            "a",
            Arc::new(key.clone()),
            Handle::current(),
            events.downgrade(),
            session,
            Arc::default(),
        );
        let connect = |remote: SecretKey, host| {
            let hello = Hello { version: wire::VERSION, vm: None, name: String::new(), signalling: false };
            tokio::spawn(async move { noise_tcp::connect(addr, host, &remote, &hello).await.map(drop) })
        };
        // A first message, seen on the network.
        let caller = connect(remote.clone(), key.public());
        let (mut seen, _) = listener.accept().await.unwrap();
        let first = noise_tcp::read_first(&mut seen).await.unwrap().as_bytes().to_vec();
        caller.abort();

        let mut replays = Vec::new();
        for _ in 0..AT_ONCE {
            let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
            replays.push(ours.unwrap());
            adopting.adopt(first.clone(), theirs.unwrap().0.into_std().unwrap().into());
        }
        let genuine = connect(remote, key.public());
        let (mut stream, from) = listener.accept().await.unwrap();
        let first = noise_tcp::read_first(&mut stream).await.unwrap().as_bytes().to_vec();
        adopting.adopt(first, stream.into_std().unwrap().into());

        genuine.await.unwrap().unwrap();
        assert_eq!(told.recv().await, Some(ToManager::Proved { from }));
        assert!(links.recv().await.is_some());
        let mut answer = Vec::new();
        // A reset or an end: the oldest replay is gone either way, and its deadline has not come yet.
        let _ = replays.remove(0).read_to_end(&mut answer).await;
        assert!(adopting.going_on.len() <= AT_ONCE);
    }
}
