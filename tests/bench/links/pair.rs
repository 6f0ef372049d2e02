//! Two ends of a link on loopback.

use std::fmt;

use anyhow::Result;
use link::Link;
use noise_tcp::SecretKey;
use tokio::net::TcpListener;
use webrtc::{Answerer, Config, Offerer};
use wire::control::{Answer, Hello};

/// A kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    NoiseTcp,
    WebRtc,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoiseTcp => "noise-tcp",
            Self::WebRtc => "webrtc",
        })
    }
}

/// The remote's end and the host's.
pub(crate) type Pair = (Box<dyn Link>, Box<dyn Link>);

fn hello() -> Hello {
    Hello { version: wire::VERSION, vm: None, name: String::new(), signalling: false }
}

fn welcome() -> Answer {
    Answer::Welcome { vm: "bench".to_owned() }
}

/// A fresh link of this kind.
pub(crate) async fn pair(way: Way) -> Result<Pair> {
    match way {
        Way::NoiseTcp => noise_tcp().await,
        Way::WebRtc => web_rtc().await,
    }
}

async fn noise_tcp() -> Result<Pair> {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, hello, answer) = (listener.local_addr()?, hello(), welcome());
    let serve = async {
        let (mut stream, _) = listener.accept().await?;
        let first = noise_tcp::read_first(&mut stream).await?;
        anyhow::Ok(noise_tcp::accept(stream, first, &host, &answer).await?)
    };
    let connect = async { anyhow::Ok(noise_tcp::connect(address, host.public(), &remote, &hello).await?.0) };
    let (there, here) = tokio::try_join!(serve, connect)?;
    Ok((Box::new(here), Box::new(there)))
}

async fn web_rtc() -> Result<Pair> {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let config = Config { bind: vec![([127, 0, 0, 1], 0).into()], ..Config::default() };
    let offerer = Offerer::new(&config).await?;
    let answerer = Answerer::new(&config, offerer.offer()).await?;
    offerer.take_answer(answerer.answer()).await?;
    let (public, hello, answer) = (host.public(), hello(), welcome());
    let serve = async { anyhow::Ok(answerer.caller(&host).await?.accept(&answer).await?) };
    let connect = async { anyhow::Ok(offerer.connect(public, &remote, &hello).await?.0) };
    let (there, here) = tokio::try_join!(serve, connect)?;
    Ok((Box::new(here), Box::new(there)))
}
