//! The ways between the two ends.

use std::time::Duration;

use anyhow::{Context as _, Result};
use link::{Faults, Faulty};
use noise_tcp::SecretKey;
use tokio::net::TcpListener;
use wire::control::{Answer, Hello};

use crate::latency::Ends;

/// The product's own link over loopback: the host's end and the desk's.
pub(crate) async fn loopback() -> Result<Ends> {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let hello = Hello { version: wire::VERSION, vm: None, name: String::new(), signalling: false };
    let answer = Answer::Welcome { vm: "a".to_owned() };
    let serve = async {
        let (mut stream, _) = listener.accept().await?;
        let first = noise_tcp::read_first(&mut stream).await?;
        anyhow::Ok(noise_tcp::accept(stream, first, &host, &answer).await?)
    };
    let connect = noise_tcp::connect(listener.local_addr()?, host.public(), &remote, &hello);
    let (here, there) = tokio::join!(serve, connect);
    Ok((Box::new(here?), Box::new(there.context("connecting")?.0)))
}

/// A link in memory that is 20 ms long, give or take 5, and loses 2 % of the packets of sound each way: it stands for one
/// by datagrams.
pub(crate) fn bad() -> Ends {
    let (here, there) = link::pair();
    let delay = Some(Duration::from_millis(15)..Duration::from_millis(25));
    let faults = |seed| Faults { seed, loss_percent: 2, delay: delay.clone(), ..Faults::default() };
    (Box::new(Faulty::new(here, faults(1))), Box::new(Faulty::new(there, faults(2))))
}
