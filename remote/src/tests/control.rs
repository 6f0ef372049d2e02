//! The control socket, in a folder of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use actix::prelude::*;
use control_socket::SocketFile;

use crate::{
    control::{self, Outcome, Reply, Request, client},
    ports::Report,
    sound::{
        Headphones,
        status::{Microphone, Status},
    },
};

/// Says what it was asked.
struct Clerk;

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Request> for Clerk {
    type Result = MessageResult<Request>;

    fn handle(&mut self, request: Request, _: &mut Self::Context) -> Self::Result {
        let (bus_port, reason) = (Some("1-2".to_owned()), format!("{request:?}"));
        let outcome = Outcome { bus_port, id: None, name: "stick".into(), lent: true, reason };
        MessageResult(match request {
            Request::Lend { .. } => Reply::Lend(vec![outcome]),
            Request::Return { .. } => Reply::Return(vec![outcome]),
            Request::Status => Reply::Status {
                report: Report { vm: None, session: None, lent: vec![] },
                kept: vec![outcome],
                sound: Status::default(),
            },
            Request::Mute { muted } => {
                let microphone = Microphone { muted, granted: true, present: true, ..Microphone::default() };
                Reply::Sound(Status { microphone, ..Status::default() })
            }
            Request::Switch { to } => Reply::Switched { transport: to.to_string() },
            Request::Headphones { plugged } => {
                Reply::Sound(Status { headphones: plugged == Headphones::Yes, ..Status::default() })
            }
        })
    }
}

struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    _file: SocketFile,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let file = control::listen(Some(path.clone()), Clerk.start().recipient()).unwrap();
    World { _folder: folder, path, _file: file }
}

/// What a client that blocks does, beside the server.
async fn beside<R: Send + 'static>(client: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(client).await.unwrap()
}

/// Writes this and reads lines until the end.
fn converse(path: &Path, said: &[u8]) -> Vec<serde_json::Value> {
    let mut stream = UnixStream::connect(path).unwrap();
    // A server that has had enough closes, and does not read the rest.
    let _ = stream.write_all(said);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        lines.push(serde_json::from_str(&line).unwrap());
    }
    lines
}

#[actix::test]
async fn each_request_has_its_reply() {
    let world = world().await;
    for (request, part) in [
        (Request::Lend { usb: "class=storage".parse().unwrap() }, "Lend { usb: Class(Storage) }"),
        (Request::Return { what: "7".parse().unwrap() }, "Return { what: Device(7) }"),
        (Request::Return { what: "1-2".parse().unwrap() }, "Port { bus: 1, ports: [2] }"),
        (Request::Status, "Status"),
    ] {
        let path = world.path.clone();
        let reply = beside(move || client::ask(&path, &request)).await.unwrap();
        let (Reply::Lend(outcomes) | Reply::Return(outcomes) | Reply::Status { kept: outcomes, .. }) = reply
        else {
            panic!("{reply:?}")
        };
        assert!(outcomes[0].reason.contains(part), "{outcomes:?}");
    }
}

#[actix::test]
async fn what_is_asked_of_the_sound_is_answered_with_how_it_is() {
    let world = world().await;
    for (request, words) in [
        (Request::Mute { muted: true }, "microphone: muted\n"),
        (Request::Mute { muted: false }, "microphone: the VM does not listen\n"),
        (Request::Headphones { plugged: Headphones::Yes }, "headphones: plugged in\n"),
    ] {
        let path = world.path.clone();
        let reply = beside(move || client::ask(&path, &request)).await.unwrap();
        let Reply::Sound(sound) = reply else { panic!("{reply:?}") };
        assert_eq!(sound.to_string(), words);
    }
}

#[actix::test]
async fn a_request_that_is_none_is_answered_with_what_would_be_right() {
    let world = world().await;
    let path = world.path.clone();
    let said = b"{\"do\":\"dance\"}\n{\"do\":\"lend\",\"usb\":\"disk\"}\n{\"do\":\"status\"}\n";
    let replies = beside(move || converse(&path, said)).await;
    assert_eq!(replies.len(), 3, "{replies:?}");
    assert!(replies[0]["error"].as_str().unwrap().contains("lend"), "{replies:?}");
    assert!(replies[1]["error"].as_str().unwrap().contains("class=storage"), "{replies:?}");
    assert!(replies[2]["status"]["kept"].is_array());
}

#[actix::test]
async fn a_client_says_what_is_wrong_with_the_other_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    let error = client::ask(&path, &Request::Status).unwrap_err();
    assert!(format!("{error:#}").contains("farbus-remote connect"), "{error:#}");
    let listener = UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 100]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\n").unwrap();
    });
    let error = beside(move || client::ask(&path, &Request::Status)).await.unwrap_err();
    other.join().unwrap();
    assert!(format!("{error:#}").contains("something else"), "{error:#}");
}
