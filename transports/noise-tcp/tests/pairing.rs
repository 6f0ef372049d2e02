//! A pairing over a connection: what both ends learn, and what a peer gets that plays for time.

use noise_tcp::{
    HandshakeError, PublicKey, SecretKey,
    pairing::{self, Asked, Code, PairError, Paired},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use wire::control::{Answer, Hello};

fn hello() -> Hello {
    Hello { version: wire::VERSION, vm: None, name: "desk".to_owned(), signalling: false }
}

/// The host's side, up to its last word.
async fn serve(listener: &TcpListener, host: &SecretKey, code: &Code) -> Result<PublicKey, PairError> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let first = noise_tcp::read_first(&mut stream).await?;
    assert!(Asked::is(&first));
    let (offered, offer) = Asked::read(&first)?.offer(host, code);
    pairing::say(&mut stream, &offer).await?;
    let (judging, answer) = offered.taken(&pairing::listen(&mut stream).await?)?;
    pairing::say(&mut stream, &answer).await?;
    let guest = judging.judge(&pairing::listen(&mut stream).await?)?;
    let key = guest.key();
    assert_eq!(guest.hello().name, "desk");
    pairing::say(&mut stream, &guest.tell(&Answer::Welcome { vm: "a".to_owned() })?).await?;
    Ok(key)
}

#[tokio::test]
async fn both_ends_learn_each_others_keys_over_a_connection() {
    let (host, remote, code) = (SecretKey::generate(), SecretKey::generate(), Code::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (hello, typed) = (hello(), code.clone());
    let (there, here) = tokio::join!(
        serve(&listener, &host, &code),
        pairing::pair(addr, &remote, &hello, &typed, |_| Ok(()))
    );
    assert_eq!(there.unwrap(), remote.public());
    assert_eq!(here.unwrap(), Paired { host: host.public(), vm: "a".to_owned() });
}

#[tokio::test]
async fn a_host_whose_key_is_known_to_be_another_one_is_told_nothing_that_depends_on_the_code() {
    let (host, remote, code) = (SecretKey::generate(), SecretKey::generate(), Code::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (hello, typed) = (hello(), code.clone());
    let pinned = SecretKey::generate().public().fingerprint();
    let known = |key: PublicKey| Err(HandshakeError::AnotherHost { pinned, found: key.fingerprint() });
    let (there, here) =
        tokio::join!(serve(&listener, &host, &code), pairing::pair(addr, &remote, &hello, &typed, known));
    assert!(matches!(there, Err(PairError::Connection(HandshakeError::ClosedByRemote))), "{there:?}");
    let error = here.unwrap_err().to_string();
    assert!(error.contains(&host.public().fingerprint().to_string()), "{error}");
    assert!(error.contains(&pinned.to_string()), "{error}");
}

#[tokio::test]
async fn a_host_that_plays_for_time_or_talks_too_much_is_left() {
    for (said, stay) in [(&[][..], true), (&[0, 99, 0, 1], true), (&[0xff, 0xff, 0], false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (remote, code, hello) = (SecretKey::generate(), Code::generate(), hello());
        let slow = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = noise_tcp::read_first(&mut stream).await;
            stream.write_all(said).await.unwrap();
            // Nothing more will come, so time runs on to the deadline at once.
            if stay {
                tokio::time::pause();
            }
            stream
        };
        let (_stream, outcome): (TcpStream, _) =
            tokio::join!(slow, pairing::pair(addr, &remote, &hello, &code, |_| Ok(())));
        if stay {
            tokio::time::resume();
        }
        match outcome {
            Err(PairError::Connection(HandshakeError::Deadline)) => assert!(stay),
            Err(PairError::Connection(HandshakeError::TooLong(65_535))) => assert!(!stay),
            other => panic!("{said:?}: {other:?}"),
        }
    }
}
