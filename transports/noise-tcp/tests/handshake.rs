//! Who gets in, who does not, and what they are told.

use std::future::poll_fn;

use bytes::Bytes;
use link::{Frame, Link};
use noise_tcp::{FirstFrame, HandshakeError, MessageError, NoiseTcp, SecretKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wire::{
    Lane,
    control::{Answer, Hello, Refusal},
};

fn hello() -> Hello {
    Hello { version: wire::VERSION, vm: Some("a".to_owned()), name: "desk".to_owned(), signalling: false }
}

fn welcome() -> Answer {
    Answer::Welcome { vm: "a".to_owned() }
}

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn first_of(listener: &TcpListener) -> (TcpStream, Result<FirstFrame, HandshakeError>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let first = noise_tcp::read_first(&mut stream).await;
    (stream, first)
}

async fn say(link: &mut NoiseTcp, body: &'static [u8]) {
    poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
    let (head, body) = (Bytes::from_static(b"#"), Bytes::from_static(body));
    link.send(Frame { lane: Lane::Int, head, body }).unwrap();
    poll_fn(|cx| link.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn both_ends_know_each_other_and_share_a_binding() {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let (listener, addr) = listen().await;
    let (public, me, answer) = (host.public(), remote.clone(), welcome());
    let serve = async {
        let (stream, first) = first_of(&listener).await;
        let first = first.unwrap();
        let caller = noise_tcp::identify(&first, &host).unwrap();
        assert_eq!((caller.key, caller.hello), (remote.public(), hello()));
        // As a worker process gets it.
        let first = FirstFrame::from_bytes(first.as_bytes().to_vec()).unwrap();
        noise_tcp::accept(stream, first, &host, &answer).await.unwrap()
    };
    let hello = hello();
    let (mut there, here) = tokio::join!(serve, noise_tcp::connect(addr, public, &me, &hello));
    let (mut here, told) = here.unwrap();
    assert_eq!(told, welcome());
    assert_eq!((here.peer(), there.peer()), (host.public().into(), remote.public().into()));
    assert_eq!(here.binding(), there.binding());
    say(&mut here, b"ping").await;
    let (lane, bytes) = poll_fn(|cx| there.poll_receive(cx)).await.unwrap();
    assert_eq!((lane, &bytes[..]), (Lane::Int, &b"#ping"[..]));
}

#[tokio::test]
async fn a_remote_with_the_wrong_host_key_is_told_what_to_check() {
    let (host, other, remote) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
    let (listener, addr) = listen().await;
    let serve = async {
        let (_, first) = first_of(&listener).await;
        assert!(matches!(noise_tcp::identify(&first.unwrap(), &host), Err(HandshakeError::NotForUs)));
    };
    let hello = hello();
    let (_, link) = tokio::join!(serve, noise_tcp::connect(addr, other.public(), &remote, &hello));
    let error = link.err().unwrap();
    assert!(matches!(error, HandshakeError::ClosedByHost), "{error:?}");
    assert!(error.to_string().contains("is --host-key right?"));
}

#[tokio::test]
async fn a_remote_that_expects_another_key_is_shown_both_fingerprints() {
    let (host, other, remote) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
    let (listener, addr) = listen().await;
    let serve = async {
        let (stream, _) = first_of(&listener).await;
        noise_tcp::not_for_us(stream, &host).await.unwrap();
    };
    let hello = hello();
    let (_, link) = tokio::join!(serve, noise_tcp::connect(addr, other.public(), &remote, &hello));
    let error = link.err().unwrap();
    assert!(matches!(error, HandshakeError::AnotherHost { .. }), "{error:?}");
    for key in [host.public(), other.public()] {
        assert!(error.to_string().contains(&key.fingerprint().to_string()), "{error}");
    }
    // A host that could not read the message although it has the key that was expected.
    let serve = async {
        let (stream, _) = first_of(&listener).await;
        noise_tcp::not_for_us(stream, &host).await.unwrap();
    };
    let (_, link) = tokio::join!(serve, noise_tcp::connect(addr, host.public(), &remote, &hello));
    assert!(matches!(link.err().unwrap(), HandshakeError::ClosedByHost));
}

#[tokio::test]
async fn a_refused_remote_learns_why() {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let (listener, addr) = listen().await;
    let refused = Answer::Refused { reason: Refusal::Busy, text: "VM `a` is taken".to_owned() };
    let serve = async {
        let (stream, first) = first_of(&listener).await;
        noise_tcp::refuse(stream, first.unwrap(), &host, &refused).await.unwrap();
    };
    let hello = hello();
    let (_, link) = tokio::join!(serve, noise_tcp::connect(addr, host.public(), &remote, &hello));
    match link.err().unwrap() {
        HandshakeError::Refused { reason: Refusal::Busy, text } => assert_eq!(text, "VM `a` is taken"),
        other => panic!("{other:?}"),
    }
}

/// Message 1 of a real remote, seen on the network.
async fn recorded_first_message(host: &SecretKey) -> Vec<u8> {
    let (listener, addr) = listen().await;
    let (key, public) = (SecretKey::generate(), host.public());
    let caller =
        tokio::spawn(async move { noise_tcp::connect(addr, public, &key, &hello()).await.map(|_| ()) });
    let (_, first) = first_of(&listener).await;
    caller.abort();
    first.unwrap().as_bytes().to_vec()
}

#[tokio::test]
async fn a_replayed_first_message_identifies_nobody() {
    let host = SecretKey::generate();
    let message = recorded_first_message(&host).await;
    let (listener, addr) = listen().await;
    let mut replayer = TcpStream::connect(addr).await.unwrap();
    replayer.write_u16(message.len() as u16).await.unwrap();
    replayer.write_all(&message).await.unwrap();
    let (stream, first) = first_of(&listener).await;
    let first = first.unwrap();
    assert!(noise_tcp::identify(&first, &host).is_ok(), "the message itself is genuine");
    // The replayer cannot read the answer, so its first record is a guess.
    replayer.write_all(&[&[0, 16][..], &[0x5a; 16]].concat()).await.unwrap();
    let outcome = noise_tcp::accept(stream, first, &host, &welcome()).await;
    assert!(matches!(outcome, Err(HandshakeError::Unproved(_))), "{:?}", outcome.err());
}

#[tokio::test]
async fn a_remote_that_never_confirms_is_no_link() {
    let host = SecretKey::generate();
    let message = recorded_first_message(&host).await;
    for hang_up in [true, false] {
        let (listener, addr) = listen().await;
        let mut replayer = TcpStream::connect(addr).await.unwrap();
        replayer.write_u16(message.len() as u16).await.unwrap();
        replayer.write_all(&message).await.unwrap();
        let (stream, first) = first_of(&listener).await;
        let kept = (!hang_up).then_some(replayer);
        tokio::time::pause();
        let outcome = noise_tcp::accept(stream, first.unwrap(), &host, &welcome()).await.err().unwrap();
        tokio::time::resume();
        match outcome {
            HandshakeError::ClosedByRemote => assert!(hang_up),
            HandshakeError::Deadline => assert!(kept.is_some()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn hostile_first_bytes_get_nobody_in() {
    let host = SecretKey::generate();
    let genuine = recorded_first_message(&host).await;
    let mut flipped = genuine.clone();
    flipped[40] ^= 1;
    let mut another_suite = genuine.clone();
    another_suite[0] ^= 3;
    let cases: [(&str, Vec<u8>); 7] = [
        ("empty", vec![]),
        ("the number of another suite", another_suite),
        ("a key and nothing else", vec![9; 32]),
        ("garbage", (0..200u8).collect()),
        ("all zero", vec![0; 200]),
        ("one bit flipped", flipped),
        ("cut short", genuine[..genuine.len() - 1].to_vec()),
    ];
    for (name, message) in cases {
        let first = FirstFrame::from_bytes(message).unwrap();
        let outcome = noise_tcp::identify(&first, &host);
        assert!(matches!(outcome, Err(HandshakeError::NotForUs)), "{name}: {outcome:?}");
    }
    assert!(matches!(FirstFrame::from_bytes(vec![0; 1025]), Err(MessageError::TooLong(1025))));
}

#[tokio::test]
async fn an_announced_length_beyond_the_limit_is_refused_at_once() {
    let (listener, addr) = listen().await;
    let mut hostile = TcpStream::connect(addr).await.unwrap();
    hostile.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (_, first) = first_of(&listener).await;
    assert!(matches!(first, Err(HandshakeError::TooLong(18_245))), "{first:?}");
}

#[tokio::test]
async fn who_dribbles_runs_into_the_deadline() {
    let (listener, addr) = listen().await;
    let mut hostile = TcpStream::connect(addr).await.unwrap();
    hostile.write_all(&[0, 200, 1, 2, 3]).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    // Nothing more will come, so time runs on to the deadline at once.
    tokio::time::pause();
    let outcome = noise_tcp::read_first(&mut stream).await;
    assert!(matches!(outcome, Err(HandshakeError::Deadline)), "{outcome:?}");
    drop(stream);
    let mut rest = Vec::new();
    // A reset or an end: the connection is gone either way.
    let _ = hostile.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}
