//! Two ends of a link on loopback.

use noise_tcp::{NoiseTcp, SecretKey};
use tokio::net::TcpListener;
use wire::control::{Answer, Hello};

/// The remote's end and the host's.
pub(crate) async fn pair() -> (NoiseTcp, NoiseTcp) {
    let (host, remote) = (SecretKey::generate(), SecretKey::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let hello = Hello { version: wire::VERSION, vm: None, name: String::new(), signalling: false };
    let answer = Answer::Welcome { vm: "a".to_owned() };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let first = noise_tcp::read_first(&mut stream).await.unwrap();
        noise_tcp::accept(stream, first, &host, &answer).await.unwrap()
    };
    let (there, here) = tokio::join!(serve, noise_tcp::connect(addr, host.public(), &remote, &hello));
    (here.unwrap().0, there)
}
