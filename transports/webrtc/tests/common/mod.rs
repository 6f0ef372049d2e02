//! Two ends of a link on loopback.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod network;
pub(crate) mod raw;

use webrtc::{Answerer, Config, Error, Offerer, SecretKey, WebRtc};
use wire::control::{Answer, Hello};

/// Loopback only.
pub(crate) fn config() -> Config {
    Config { bind: vec![([127, 0, 0, 1], 0).into()], ..Config::default() }
}

pub(crate) fn hello() -> Hello {
    Hello { version: wire::VERSION, vm: Some("a".to_owned()), name: "desk".to_owned(), signalling: false }
}

pub(crate) fn welcome() -> Answer {
    Answer::Welcome { vm: "a".to_owned() }
}

/// The remote's end and the host's.
pub(crate) async fn pair() -> (WebRtc, WebRtc) {
    let (remote, host) = pair_with(&config(), &config()).await;
    (remote.unwrap(), host.unwrap())
}

/// The same, as far as it gets.
pub(crate) async fn pair_with(
    remote: &Config,
    host: &Config,
) -> (Result<WebRtc, Error>, Result<WebRtc, Error>) {
    let (host_key, remote_key) = (SecretKey::generate(), SecretKey::generate());
    let offerer = Offerer::new(remote).await.unwrap();
    let answerer = Answerer::new(host, offerer.offer()).await.unwrap();
    offerer.take_answer(answerer.answer()).await.unwrap();
    let public = host_key.public();
    let serve = async { answerer.caller(&host_key).await?.accept(&welcome()).await };
    let hello = hello();
    let (there, here) = tokio::join!(serve, offerer.connect(public, &remote_key, &hello));
    (here.map(|(link, _)| link), there)
}
