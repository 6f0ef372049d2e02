//! Who gets in, who does not, and what they are told.

use std::future::poll_fn;

use bytes::Bytes;
use common::{
    config, hello,
    raw::{LINK, Raw, Seen},
    welcome,
};
use link::{Frame, Link};
use noise::MessageError;
use webrtc::{Answerer, Error, Incoming, Offerer, SecretKey, WebRtc};
use wire::{
    Lane,
    control::{Answer, Refusal},
};

mod common;

async fn say(link: &mut WebRtc, body: &'static [u8]) {
    poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
    let (head, body) = (Bytes::from_static(b"#"), Bytes::from_static(body));
    link.send(Frame { lane: Lane::Int, head, body }).unwrap();
    poll_fn(|cx| link.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn both_ends_know_each_other_and_share_a_binding() {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let offerer = Offerer::new(&config()).await.unwrap();
    let answerer = Answerer::new(&config(), offerer.offer()).await.unwrap();
    offerer.take_answer(answerer.answer()).await.unwrap();
    let serve = async {
        let incoming = answerer.caller(&host).await.unwrap();
        assert_eq!((incoming.caller().key, &incoming.caller().hello), (remote.public(), &hello()));
        incoming.accept(&welcome()).await.unwrap()
    };
    let (public, hello) = (host.public(), hello());
    let (mut there, here) = tokio::join!(serve, offerer.connect(public, &remote, &hello));
    let (mut here, told) = here.unwrap();
    assert_eq!(told, welcome());
    assert_eq!((here.peer(), there.peer()), (host.public().into(), remote.public().into()));
    assert_eq!(here.binding(), there.binding());
    say(&mut here, b"ping").await;
    let (lane, bytes) = poll_fn(|cx| there.poll_receive(cx)).await.unwrap();
    assert_eq!((lane, &bytes[..]), (Lane::Int, &b"#ping"[..]));
}

#[tokio::test]
async fn a_remote_with_the_wrong_host_key_gets_no_link() {
    let (host, other, remote) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
    let offerer = Offerer::new(&config()).await.unwrap();
    let answerer = Answerer::new(&config(), offerer.offer()).await.unwrap();
    offerer.take_answer(answerer.answer()).await.unwrap();
    let (other, hello) = (other.public(), hello());
    let (there, here) = tokio::join!(answerer.caller(&host), offerer.connect(other, &remote, &hello));
    assert!(matches!(there.err(), Some(Error::Handshake(MessageError::NotForUs))));
    assert!(matches!(here.err(), Some(Error::Unreachable)));
}

#[tokio::test]
async fn a_refused_remote_learns_why() {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let refused = Answer::Refused { reason: Refusal::Busy, text: "VM `a` is taken".to_owned() };
    let offerer = Offerer::new(&config()).await.unwrap();
    let answerer = Answerer::new(&config(), offerer.offer()).await.unwrap();
    offerer.take_answer(answerer.answer()).await.unwrap();
    let serve = async { answerer.caller(&host).await.unwrap().refuse(&refused).await.unwrap() };
    let (public, hello) = (host.public(), hello());
    let ((), here) = tokio::join!(serve, offerer.connect(public, &remote, &hello));
    match here.err().unwrap() {
        Error::Refused { reason: Refusal::Busy, text } => assert_eq!(text, "VM `a` is taken"),
        other => panic!("{other:?}"),
    }
}

/// Passes on everything that comes at one raw peer to another one.
async fn relay(from: &mut Raw, to: &[std::sync::Arc<dyn async_rtc::data_channel::DataChannel>]) {
    while let Some(seen) = from.seen.recv().await {
        if let Seen::Message(channel, bytes) = seen {
            let _ = to[channel].send(bytes[..].into()).await;
        }
    }
}

#[tokio::test]
async fn somebody_in_between_who_passes_on_the_handshake_gets_no_link() {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let (mut to_remote, mut to_host) = (Raw::new().await, Raw::new().await);
    // The attacker owns signalling: each end gets a description with the attacker's certificate.
    let offerer = Offerer::new(&config()).await.unwrap();
    let answer = to_remote.answer(offerer.offer()).await;
    offerer.take_answer(&answer).await.unwrap();
    let answerer = Answerer::new(&config(), &to_host.offer().await).await.unwrap();
    to_host.take_answer(answerer.answer()).await;
    let (remote_channels, host_channels) = (to_remote.channels.clone(), to_host.channels.clone());
    let relays = async {
        tokio::join!(to_remote.ready(), to_host.ready());
        tokio::join!(relay(&mut to_remote, &host_channels), relay(&mut to_host, &remote_channels));
    };
    let (public, hello) = (host.public(), hello());
    let ends = async {
        let there = async { answerer.caller(&host).await.map(|incoming| incoming.caller().clone()) };
        let here = async { offerer.connect(public, &remote, &hello).await.map(|_| ()) };
        tokio::join!(there, here)
    };
    let (there, here) = tokio::select! {
        () = relays => panic!("the relays have no end"),
        ends = ends => ends,
    };
    assert!(matches!(there, Err(Error::Handshake(MessageError::NotForUs))), "{there:?}");
    assert!(here.is_err(), "{here:?}");
}

/// What a host gets to know of a raw remote that does something.
async fn host_of(act: impl AsyncFnOnce(&mut Raw)) -> Result<Incoming, Error> {
    let mut raw = Raw::new().await;
    let answerer = Answerer::new(&config(), &raw.offer().await).await.unwrap();
    // A generous host: its limit is not what keeps a raw peer from long messages.
    raw.take_answer(&answerer.answer().replace("a=max-message-size:65536", "a=max-message-size:262144"))
        .await;
    let act = async {
        raw.ready().await;
        act(&mut raw).await;
        while raw.seen.recv().await.is_some() {}
    };
    let key = SecretKey::generate();
    tokio::select! {
        incoming = answerer.caller(&key) => incoming,
        () = act => panic!("the host neither answers nor hangs up"),
    }
}

#[tokio::test]
async fn what_breaks_the_rules_before_the_handshake_is_named() {
    let cases: [(&str, usize, &[u8], &str); 5] = [
        ("a kind that is none", LINK, &[0x77], "message of kind 0x77"),
        ("a frame on no lane", LINK, &[0, 1, 2], "a frame on no lane"),
        ("a torn close", LINK, &[5, 0], "torn close"),
        ("a handshake on a lane", 0, &[4, 1], "on Ctl: Handshake"),
        ("pieces without end", 4, &[1], "a frame of 0 bytes, or pieces of none"),
    ];
    for (name, channel, message, what) in cases {
        match host_of(async |raw: &mut Raw| raw.send(channel, message).await).await.err() {
            Some(Error::Misbehaved(told)) => assert!(told.starts_with(what), "{name}: {told}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let text = host_of(async |raw: &mut Raw| raw.channels[1].send_text("hello").await.unwrap()).await;
    assert!(matches!(text.err(), Some(Error::Misbehaved(what)) if what == "a message of text"));
    let another = async |raw: &mut Raw| drop(raw.connection.create_data_channel("more", None).await.unwrap());
    let another = host_of(another).await;
    let what = "a channel that was not agreed on";
    assert!(matches!(another.err(), Some(Error::Misbehaved(told)) if told == what));
}

#[tokio::test]
async fn a_handshake_of_garbage_identifies_nobody() {
    for garbage in [vec![4], vec![4, 1], [&[4, 1], &[9; 96][..]].concat(), vec![4; 900]] {
        let outcome = host_of(async |raw: &mut Raw| raw.send(LINK, &garbage).await).await;
        assert!(matches!(outcome.err(), Some(Error::Handshake(MessageError::NotForUs))), "{garbage:02x?}");
    }
    let long = host_of(async |raw: &mut Raw| raw.send(LINK, &[4; 2000]).await).await;
    assert!(matches!(long.err(), Some(Error::Handshake(MessageError::TooLong(1999)))));
}

#[tokio::test]
async fn who_says_nothing_runs_into_the_deadline() {
    let mut raw = Raw::new().await;
    let answerer = Answerer::new(&config(), &raw.offer().await).await.unwrap();
    raw.take_answer(answerer.answer()).await;
    let silent = async {
        raw.ready().await;
        // Nothing more will come, so time runs on to the deadline at once.
        tokio::time::pause();
        while raw.seen.recv().await.is_some() {}
    };
    let key = SecretKey::generate();
    let outcome = tokio::select! {
        outcome = answerer.caller(&key) => outcome,
        () = silent => panic!("the host hangs up without a word"),
    };
    assert!(matches!(outcome.err(), Some(Error::Deadline)));
}

#[tokio::test]
async fn a_message_that_is_too_long_does_no_harm() {
    // The crate below drops it, and may drop what came with it.
    let outcome = host_of(async |raw: &mut Raw| {
        raw.send(1, &[0; 100_000]).await;
        raw.send(LINK, &[4, 1]).await;
    });
    let outcome = outcome.await.err();
    let known = matches!(
        outcome,
        Some(Error::Handshake(_) | Error::Misbehaved(_) | Error::Unreachable | Error::Deadline)
    );
    assert!(known, "{outcome:?}");
}
