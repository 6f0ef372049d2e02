//! The running host's end of the control socket.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix::{Message, Recipient};
use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{REQUEST, Reply, Request};

/// How long a peer may take for a request, or to read its reply.
const PATIENCE: Duration = Duration::from_secs(60);
/// Peers at the same time; others wait.
const PEERS: usize = 16;

/// Somebody of this computer asks something.
#[derive(Debug, Message)]
#[rtype(result = "Reply")]
pub(crate) struct Asked(pub(crate) Request);

/// The socket.
#[derive(Debug)]
pub(crate) struct Server(UnixListener);

/// The socket's file; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "removing {}", self.0.display());
        }
    }
}

impl Server {
    /// Listens there; a socket that somebody left behind is replaced.
    ///
    /// # Errors
    /// Somebody listens there already, something else is there, or it cannot be made.
    pub(crate) fn bind(path: &Path) -> Result<(Self, SocketFile)> {
        let shown = path.display();
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                bail!("{shown} is there and no socket; set another `control` in the configuration");
            }
            if StdStream::connect(path).is_ok() {
                bail!("another farbus-host with this key runs: it listens at {shown}");
            }
            fs::remove_file(path).with_context(|| format!("removing the old control socket {shown}"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("the control socket {shown}"))?;
        let file = SocketFile(path.to_owned());
        // Who connects before this is looked at all the same.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("the control socket {shown}"))?;
        Ok((Self(listener), file))
    }

    /// Answers this user's requests for as long as it is polled.
    pub(crate) async fn serve(self, manager: Recipient<Asked>) {
        let peers = Arc::new(Semaphore::new(PEERS));
        let us = rustix::process::geteuid().as_raw();
        loop {
            let Ok(peer) = Arc::clone(&peers).acquire_owned().await else { return };
            match self.0.accept().await {
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|them| [us, 0].contains(&them.uid())) => {
                    let manager = manager.clone();
                    actix::spawn(async move {
                        converse(stream, &manager).await;
                        drop(peer);
                    });
                }
                Ok(_) => tracing::warn!("another user tried the control socket"),
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    // No file descriptor is left, most likely: one will be.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn converse(mut stream: UnixStream, manager: &Recipient<Asked>) {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    while let Ok(Some(line)) = tokio::time::timeout(PATIENCE, line(&mut read)).await.unwrap_or(Ok(None)) {
        let whole = line.len() <= REQUEST;
        let reply = if whole { answer(&line, manager).await } else { too_long() };
        let mut reply = serde_json::to_vec(&reply).unwrap_or_default();
        reply.push(b'\n');
        let written = tokio::time::timeout(PATIENCE, write.write_all(&reply)).await;
        if !whole || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next line, or as much of it as shows that it is too long; none at the end.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = REQUEST as u64 + 1;
    read.take(limit).read_until(b'\n', &mut line).await?;
    Ok((!line.is_empty()).then_some(line))
}

fn too_long() -> Reply {
    Reply::Error(format!("a request has at most {REQUEST} bytes"))
}

async fn answer(line: &[u8], manager: &Recipient<Asked>) -> Reply {
    match serde_json::from_slice(line) {
        Ok(request) => {
            let reply = manager.send(Asked(request)).await;
            reply.unwrap_or_else(|_| Reply::Error("the host is ending".to_owned()))
        }
        Err(error) => Reply::Error(format!("not a request: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader as StdReader, Write},
        os::unix::fs::MetadataExt,
    };

    use actix::prelude::*;

    use super::*;

    /// Says what it was asked.
    struct Clerk;

    impl Actor for Clerk {
        type Context = Context<Self>;
    }

    impl Handler<Asked> for Clerk {
        type Result = MessageResult<Asked>;

        fn handle(&mut self, Asked(request): Asked, _: &mut Self::Context) -> Self::Result {
            MessageResult(Reply::Error(format!("{request:?}")))
        }
    }

    /// Asks from a thread of its own.
    async fn ask(path: PathBuf, line: Vec<u8>) -> String {
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect(path).unwrap();
            stream.write_all(&line).unwrap();
            let mut reply = String::new();
            StdReader::new(stream).read_line(&mut reply).unwrap();
            reply
        });
        asked.await.unwrap()
    }

    #[actix::test]
    async fn the_socket_is_its_users_alone_and_answers_whatever_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.sock");
        let (server, file) = Server::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let serving = actix::spawn(server.serve(Clerk.start().recipient()));
        let long = [&[b' '; REQUEST][..], b"\n"].concat();
        for (line, says) in [
            (&b"{\"do\":\"revoke\",\"key\":\"x\"}\n"[..], "Revoke"),
            (b"{\"do\":\"pair\",\"vm\":\"a\"}\n", "Pair"),
            (b"{\"do\":\"pair\",\"vm\":\"a\",\"more\":1}\n", "not a request"),
            (b"\xff\n", "not a request"),
            (&long, "at most"),
        ] {
            let reply = ask(path.clone(), line.to_vec()).await;
            assert!(reply.contains(says), "{says}: {reply}");
        }
        assert!(Server::bind(&path).unwrap_err().to_string().contains("another farbus-host"));
        serving.abort();
        drop(file);
        assert!(!path.exists());
    }

    #[actix::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_anything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Server::bind(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(Server::bind(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
