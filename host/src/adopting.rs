//! Remotes that the manager let in, but that have not proved their keys yet: a first message may be a replay.

use std::{collections::VecDeque, net::TcpStream as StdTcpStream, os::fd::OwnedFd, sync::Arc};

use actix::Recipient;
use anyhow::Result;
use link::Link;
use noise_tcp::{FirstFrame, SecretKey};
use tokio::{net::TcpStream, runtime::Handle, sync::mpsc, task::AbortHandle};
use vm_session::LinkUp;
use wire::control::Answer;

use crate::{handoff::ToManager, signalling};

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
    going_on: VecDeque<AbortHandle>,
}

impl Adopting {
    pub(crate) fn new(
        vm: &str,
        key: SecretKey,
        io: Handle,
        to_manager: mpsc::WeakSender<ToManager>,
        session: Recipient<LinkUp>,
    ) -> Self {
        let answer = Answer::Welcome { vm: vm.to_owned() };
        Self {
            key: Arc::new(key),
            answer,
            io,
            to_manager,
            session,
            going_on: VecDeque::with_capacity(AT_ONCE),
        }
    }

    /// Goes on with the handshake of the remote that said `first`; then the session has a new link.
    pub(crate) fn adopt(&mut self, first: Vec<u8>, socket: OwnedFd) {
        self.going_on.retain(|handshake| !handshake.is_finished());
        if self.going_on.len() == AT_ONCE {
            self.going_on.pop_front().inspect(AbortHandle::abort);
        }
        let (key, answer) = (Arc::clone(&self.key), self.answer.clone());
        let (to_manager, session) = (self.to_manager.clone(), self.session.clone());
        let handshake = self.io.spawn(async move {
            match handshake(first, socket, &key, &answer, &to_manager).await {
                Ok(link) => session.do_send(LinkUp { link }),
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
        return Ok(Box::new(signalling::answer(link, near, key, answer).await?));
    }
    Ok(Box::new(link))
}
