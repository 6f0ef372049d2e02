//! The baselines: TCP as it is, and TLS by tokio-rustls, on loopback.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
        version::TLS13,
    },
};

use crate::pipe::Stream;

async fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (near, (far, _)) = (near?, far?);
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    Ok((near, far))
}

/// A bare connection.
pub(crate) async fn tcp() -> Result<(Stream<TcpStream>, Stream<TcpStream>)> {
    let (near, far) = connection().await?;
    Ok((Stream::new(near), Stream::new(far)))
}

/// TLS 1.3 with whatever rustls prefers on this processor.
pub(crate) async fn tls() -> Result<(Stream<TlsStream<TcpStream>>, Stream<TlsStream<TcpStream>>)> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    let (near, far) = connection().await?;
    let (connector, acceptor) = (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)));
    let connect = connector.connect(ServerName::try_from("localhost")?, near);
    let (near, far) = tokio::try_join!(connect, acceptor.accept(far))?;
    Ok((Stream::new(near.into()), Stream::new(far.into())))
}
