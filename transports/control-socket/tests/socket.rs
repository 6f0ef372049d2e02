//! Both ends over a socket in a folder of its own.

use std::{
    fs,
    future::pending,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
};

use control_socket::{Answer, AskError, Line, QUESTION, Server, SocketError, SocketFile, client, server};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Heard(u32),
    Error(String),
}

impl Answer for Said {
    fn refused(why: String) -> Self {
        Self::Error(why)
    }
}

fn bound() -> (TempDir, PathBuf, Server, SocketFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let (server, file) = Server::bind(&path).unwrap();
    (folder, path, server, file)
}

/// What a peer that blocks sees of a server that repeats the numbers it is asked.
async fn beside<R: Send + 'static>(peer: impl FnOnce(PathBuf) -> R + Send + 'static) -> R {
    let (_folder, path, server, _file) = bound();
    tokio::select! {
        seen = spawn_blocking(move || peer(path)) => seen.unwrap(),
        () = server.serve(async |number: u32| Said::Heard(number)) => panic!("it ended"),
    }
}

/// Writes this and reads answers until the end.
fn converse(path: &Path, said: &[u8]) -> Vec<Said> {
    let mut stream = UnixStream::connect(path).unwrap();
    // A server that has had enough closes, and does not read the rest.
    let _ = stream.write_all(said);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
}

#[tokio::test]
async fn each_question_has_its_answer() {
    let heard = beside(|path| {
        let mut line = Line::open(&path).unwrap().unwrap();
        [7u32, 8].map(|number| line.ask::<Said>(&number, client::PATIENCE).unwrap())
    });
    assert_eq!(heard.await, [Said::Heard(7), Said::Heard(8)]);
}

#[tokio::test]
async fn nonsense_is_answered_and_the_conversation_goes_on() {
    let answers = beside(|path| converse(&path, b"nonsense\n{\"do\":\"dance\"}\n\xff\xfe\n\n-1\n9\n")).await;
    assert_eq!(answers.len(), 6, "{answers:?}");
    for answer in &answers[..5] {
        assert!(matches!(answer, Said::Error(why) if why.starts_with("not a request")), "{answer:?}");
    }
    assert_eq!(answers[5], Said::Heard(9));
}

#[tokio::test]
async fn a_question_is_refused_at_its_limit_and_ends_the_conversation() {
    let answers = beside(|path| converse(&path, &vec![b' '; QUESTION * 100])).await;
    // What it did not read may take its answer with it.
    assert!(answers.len() <= 1, "{answers:?}");
    let long = [&[b' '; QUESTION][..], b"\n7\n"].concat();
    let answers = beside(move |path| converse(&path, &long)).await;
    assert!(matches!(&answers[..], [Said::Error(why)] if why.contains("4096")), "{answers:?}");
    let whole = [&[b' '; QUESTION - 2][..], b"7\n8\n"].concat();
    let answers = beside(move |path| converse(&path, &whole)).await;
    assert_eq!(answers, [Said::Heard(7), Said::Heard(8)]);
}

#[tokio::test]
async fn who_asks_for_too_much_asks_nothing() {
    let error = beside(|path| {
        let mut line = Line::open(&path).unwrap().unwrap();
        line.ask::<Said>(&"x".repeat(QUESTION), client::PATIENCE).unwrap_err()
    });
    assert!(matches!(error.await, AskError::TooLong));
}

#[tokio::test]
async fn more_peers_than_there_are_places_wait_for_theirs() {
    let (_folder, path, server, _file) = bound();
    let peer = spawn_blocking(move || {
        let idle: Vec<_> = (0..server::PEERS).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut late = UnixStream::connect(&path).unwrap();
        late.write_all(b"7\n").unwrap();
        // The first one that goes makes room.
        drop(idle);
        let mut answer = String::new();
        BufReader::new(late).read_line(&mut answer).unwrap();
        answer
    });
    tokio::select! {
        answer = peer => assert!(answer.unwrap().contains('7')),
        () = server.serve(async |number: u32| Said::Heard(number)) => panic!("it ended"),
    }
}

#[tokio::test]
async fn a_question_that_waits_for_its_answer_keeps_no_other_from_it() {
    let (_folder, path, server, _file) = bound();
    let peer = spawn_blocking(move || {
        let mut waits = UnixStream::connect(&path).unwrap();
        waits.write_all(b"0\n").unwrap();
        let answers = converse(&path, b"7\n");
        drop(waits);
        answers
    });
    let answer = async |number: u32| match number {
        0 => pending().await,
        number => Said::Heard(number),
    };
    tokio::select! {
        answers = peer => assert_eq!(answers.unwrap(), [Said::Heard(7)]),
        () = server.serve(answer) => panic!("it ended"),
    }
}

#[tokio::test]
async fn the_socket_is_for_its_user_alone_and_goes_with_its_owner() {
    let (_folder, path, _server, file) = bound();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(file);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_anything_else_is_not() {
    let (folder, path, _server, _file) = bound();
    assert!(matches!(Server::bind(&path).unwrap_err(), SocketError::Taken(_)));
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(Server::bind(&stale).is_ok());
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(Server::bind(&file).unwrap_err(), SocketError::NoSocket(_)));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn of_many_that_start_at_once_one_listens_and_the_others_are_told_that_it_does() {
    for round in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        if round % 2 == 0 {
            drop(UnixListener::bind(&path).unwrap());
        }
        let together = Arc::new(Barrier::new(4));
        let starters = [(); 4].map(|()| {
            let (path, together) = (path.clone(), Arc::clone(&together));
            spawn_blocking(move || {
                together.wait();
                Server::bind(&path)
            })
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(starters).await.into_iter().map(Result::unwrap).partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        for error in lost.into_iter().map(Result::unwrap_err) {
            assert!(matches!(error, SocketError::Taken(_)), "round {round}: {error}");
        }
        assert!(UnixStream::connect(&path).is_ok(), "round {round}: nobody has removed it");
    }
}

#[tokio::test]
async fn a_socket_that_has_taken_the_place_of_another_one_stays_when_that_one_ends() {
    let (_folder, path, server, file) = bound();
    // As whoever knows of no claims does.
    fs::remove_file(&path).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    // From here on the inode of the first one could be given away.
    drop(server);
    drop(file);
    assert!(UnixStream::connect(&path).is_ok());
    assert!(matches!(Server::bind(&path).unwrap_err(), SocketError::Taken(_)), "it is no less taken");
}

#[tokio::test]
async fn nothing_is_left_of_a_socket_in_its_folder() {
    let (folder, path, server, file) = bound();
    assert!(Server::bind(&path).is_err());
    drop((server, file));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(Server::bind(&path).is_ok(), "it is free again");
}

#[test]
fn who_asks_learns_what_is_wrong_with_the_other_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    assert!(Line::open(&path).unwrap().is_none(), "nobody has been there");
    let listener = UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        for says in [&b"HTTP/1.1 400 Bad Request\n"[..], b""] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 100]);
            stream.write_all(says).unwrap();
        }
    });
    let ask = || Line::open(&path).unwrap().unwrap().ask::<Said>(&1, client::PATIENCE).unwrap_err();
    assert!(matches!(ask(), AskError::Answer(_)));
    assert!(matches!(ask(), AskError::Ended));
    other.join().unwrap();
    assert!(Line::open(&path).unwrap().is_none(), "it has left its socket behind");
}
