//! The end that is asked.
//!
//! What a peer can hold: one of [`PEERS`] places, a question's bytes, and its place for [`PATIENCE`] without a question.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::fs::{Mode, OFlags, open};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::{
    Answer, QUESTION, SocketError,
    claim::{self, Claim},
    place,
};

/// How long a peer may take for a question, or to read its answer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Peers at the same time; others wait.
pub const PEERS: usize = 16;
/// How long nobody is let in when that has failed: no file descriptor is left, most likely, and one will be.
const BREATH: Duration = Duration::from_secs(1);

/// The socket.
#[derive(Debug)]
pub struct Server(UnixListener);

/// The socket's file; it goes when this is dropped, unless another file has its name by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// While it is open, its inode is no other file's.
    file: File,
    /// Nobody of ours makes or removes a socket of this name until this has gone, after the socket.
    _claim: Claim,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = match claim::is_at(&self.file, &self.path) {
            Ok(true) => fs::remove_file(&self.path),
            Ok(false) => return tracing::debug!("{} is not ours any more", self.path.display()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(%error, "removing {}", self.path.display());
        }
    }
}

impl Server {
    /// Listens there; a socket that somebody left behind is replaced. Of several that want the same path at a time, one
    /// gets it. To be called in a tokio runtime.
    ///
    /// # Errors
    /// Somebody listens there already, something else is there, or it cannot be made.
    pub fn bind(path: &Path) -> Result<(Self, SocketFile), SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        let claim = Claim::of(path).map_err(failed)?.ok_or_else(|| SocketError::Taken(path.to_owned()))?;
        if fs::symlink_metadata(path).is_ok() {
            if !place::is_socket(path) {
                return Err(SocketError::NoSocket(path.to_owned()));
            }
            // Whoever listens has no claim: a program of another release.
            if place::answers_or_goes(path, &claim) {
                return Err(SocketError::Taken(path.to_owned()));
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let named = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(path, named, Mode::empty()).map_err(|error| failed(error.into()))?;
        let file = SocketFile { path: path.to_owned(), file: file.into(), _claim: claim };
        // Who connects before this is looked at all the same.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok((Self(listener), file))
    }

    /// Answers questions of this user and of root for as long as it is polled; conversations end with it.
    pub async fn serve<Q: DeserializeOwned, A: Answer>(self, answer: impl AsyncFn(Q) -> A) {
        let mut conversations = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = self.accept(), if conversations.len() < PEERS => {
                    conversations.push(converse(stream, &answer));
                }
                Some(()) = conversations.next() => {}
            }
        }
    }

    /// The next peer that may ask. Nothing is lost when this is dropped early.
    async fn accept(&self) -> UnixStream {
        let us = rustix::process::geteuid().as_raw();
        loop {
            match self.0.accept().await {
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|them| [us, 0].contains(&them.uid())) => {
                    return stream;
                }
                Ok(_) => tracing::warn!("another user tried the control socket"),
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    sleep(BREATH).await;
                }
            }
        }
    }
}

async fn converse<Q: DeserializeOwned, A: Answer>(mut stream: UnixStream, answer: &impl AsyncFn(Q) -> A) {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    while let Ok(Ok(Some(line))) = timeout(PATIENCE, line(&mut read)).await {
        let whole = line.len() <= QUESTION;
        let said = match serde_json::from_slice(&line) {
            _ if !whole => A::refused(format!("a question has at most {QUESTION} bytes")),
            Ok(question) => answer(question).await,
            Err(error) => A::refused(format!("not a request: {error}")),
        };
        let mut said = serde_json::to_vec(&said).unwrap_or_default();
        said.push(b'\n');
        let written = timeout(PATIENCE, write.write_all(&said)).await;
        if !whole || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next line, or as much of it as shows that it is too long; none at the end.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = QUESTION as u64 + 1;
    read.take(limit).read_until(b'\n', &mut line).await?;
    Ok((!line.is_empty()).then_some(line))
}
