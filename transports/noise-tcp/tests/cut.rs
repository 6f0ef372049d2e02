//! Sessions over a connection that a proxy cuts or corrupts at a chosen byte: what arrived is an exact prefix, and the
//! end is noticed and named.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use link::{Link, LinkError};
use noise_tcp::{HandshakeError, NoiseTcp, SecretKey};
use session::{Config, Event, Role, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use wire::{
    Lane, Message,
    control::{Answer, Hello},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Cut,
    Flip,
    Nothing,
}

/// Forwards one connection to `to`; at byte `at` of what the caller sends, harm is done.
async fn proxy(to: std::net::SocketAddr, at: usize, harm: Harm) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let forward = async move {
        let (caller, _) = listener.accept().await.unwrap();
        let (mut from_caller, mut to_caller) = caller.into_split();
        let (mut from_host, mut to_host) = TcpStream::connect(to).await.unwrap().into_split();
        let back = async { tokio::io::copy(&mut from_host, &mut to_caller).await };
        let there = async {
            let (mut seen, mut buffer) = (0, [0; 5000]);
            while let Ok(len @ 1..) = from_caller.read(&mut buffer).await {
                let hit = (seen..seen + len).contains(&at);
                let mut len = len;
                match harm {
                    Harm::Cut if hit => len = at - seen,
                    Harm::Flip if hit => buffer[at - seen] ^= 0x10,
                    _ => {}
                }
                if to_host.write_all(&buffer[..len]).await.is_err() || hit && harm == Harm::Cut {
                    return;
                }
                seen += len;
            }
            let _ = to_host.shutdown().await;
            // The caller is done; the host still has its say.
            std::future::pending::<()>().await;
        };
        tokio::select! { _ = back => {}, () = there => {} }
    };
    (addr, tokio::spawn(forward))
}

/// Both ends through a proxy, as far as the handshake gets.
async fn pair(at: usize, harm: Harm) -> (Result<NoiseTcp, HandshakeError>, Result<NoiseTcp, HandshakeError>) {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, _proxy) = proxy(listener.local_addr().unwrap(), at, harm).await;
    let hello = Hello { version: wire::VERSION, vm: None, name: String::new(), signalling: false };
    let answer = Answer::Welcome { vm: "a".to_owned() };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let first = noise_tcp::read_first(&mut stream).await?;
        noise_tcp::accept(stream, first, &host, &answer).await
    };
    let (there, here) = tokio::join!(serve, noise_tcp::connect(addr, host.public(), &remote, &hello));
    (here.map(|(link, _)| link), there)
}

fn messages() -> Vec<Message> {
    let lane = |at: u32| if at.is_multiple_of(3) { Lane::Int } else { Lane::Bulk };
    let size = |at: u32| [40, 3_000, 70_000][(at % 3) as usize];
    (0..12)
        .map(|at| Message {
            lane: lane(at),
            head: Bytes::from(vec![at as u8; 32]),
            body: Bytes::from(vec![at as u8; size(at)]),
        })
        .collect()
}

/// Runs one end until the link ends or the session is closed. What it received, by lane, and how it ended.
async fn run(mut link: NoiseTcp, mut session: Session) -> ([Vec<Bytes>; 5], Option<LinkError>) {
    let mut received = <[Vec<Bytes>; 5]>::default();
    let end = poll_fn(|cx| {
        loop {
            while link.poll_ready(cx)?.is_ready() {
                let Some(frame) = session.poll_transmit(Duration::ZERO) else { break };
                link.send(frame)?;
            }
            let flushed = link.poll_flush(cx)?.is_ready();
            if flushed && session.closed() {
                return Poll::Ready(Ok(()));
            }
            let (lane, frame) = ready!(link.poll_receive(cx))?;
            session.receive(Duration::ZERO, lane, frame).unwrap();
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Message(lane, bytes) => {
                        session.consumed(lane, bytes.len());
                        received[lane as usize].push(bytes);
                    }
                    Event::PeerClosed(_) => return Poll::Ready(Ok(())),
                    Event::PeerQuiet | Event::PeerSilent => unreachable!("time stands still"),
                    other => panic!("{other:?} of a session with one link"),
                }
            }
        }
    })
    .await;
    if end.is_ok() {
        link.close("done");
        let _ = poll_fn(|cx| link.poll_close(cx)).await;
    }
    (received, end.err())
}

#[tokio::test]
async fn whatever_byte_it_is_cut_or_corrupted_at_what_arrived_is_a_prefix() {
    let sent = |lane| -> Vec<Bytes> {
        messages()
            .iter()
            .filter(|m| m.lane == lane)
            .map(|m| [&m.head[..], &m.body[..]].concat().into())
            .collect()
    };
    let whole = messages().iter().map(Message::len).sum::<usize>();
    // All of the handshake, then steps that meet records at every offset.
    let places = (0..180).step_by(7).chain((180..whole).step_by(9_973));
    let cases = places.flat_map(|at| [(at, Harm::Cut), (at, Harm::Flip)]).chain([(0, Harm::Nothing)]);
    let mut complete = 0;
    for (at, harm) in cases {
        let (here, there) = pair(at, harm).await;
        let (Ok(here), Ok(there)) = (here, there) else {
            assert!(at < 300, "{harm:?} at {at} broke the handshake");
            continue;
        };
        let mut sender = Session::new(Role::Remote, Config::default());
        messages().into_iter().for_each(|message| sender.send(message).unwrap());
        sender.close("that was all");
        let sender = tokio::spawn(run(here, sender));
        let receiver = run(there, Session::new(Role::Host, Config::default()));
        let (received, end) = tokio::time::timeout(Duration::from_secs(3), receiver)
            .await
            .unwrap_or_else(|_| panic!("{harm:?} at {at} was not noticed"));
        for lane in [Lane::Int, Lane::Bulk] {
            let (sent, came) = (sent(lane), &received[lane as usize]);
            assert!(sent.starts_with(came), "{harm:?} at {at}: lane {lane:?}");
        }
        match (harm, end) {
            (Harm::Cut, Some(LinkError::Lost(_))) | (Harm::Flip, Some(LinkError::Misbehaved(_))) => {}
            // A length that was made longer: the rest of the record never comes.
            (Harm::Flip, Some(LinkError::Lost(_))) => {}
            (Harm::Nothing, None) => {
                complete += 1;
                assert_eq!((received[1].len(), received[4].len()), (4, 8));
            }
            (_, end) => panic!("{harm:?} at {at} ended with {end:?}"),
        }
        sender.abort();
    }
    assert_eq!(complete, 1);
}
