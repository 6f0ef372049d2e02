//! HTTPS as small as it can be: one request for each connection, to a server whose certificate is pinned.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

/// A server, and the fingerprint that it has printed.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: String,
}

/// What it has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
    /// As it came.
    pub(crate) raw: Vec<u8>,
}

impl Answer {
    /// Reads an answer.
    pub(crate) fn of(raw: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(raw.clone())?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned(), raw })
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Server {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let provider = Arc::new(default_provider());
        let pinned = Pinned { fingerprint: self.fingerprint.clone(), provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("farbus-host")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// Says this, and reads what is answered.
    pub(crate) async fn say(&self, request: &[u8]) -> Result<Answer> {
        let mut stream = self.connect().await?;
        stream.write_all(request).await?;
        read(&mut stream).await
    }

    /// Asks in the usual form.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer> {
        self.say(&request(method, path, headers, body)).await
    }
}

/// A request with its body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: farbus\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    format!("{text}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads an answer to its end.
pub(crate) async fn read(stream: &mut TlsStream<TcpStream>) -> Result<Answer> {
    let mut raw = Vec::new();
    timeout(lab::farbus::PATIENCE, stream.read_to_end(&mut raw)).await.context("no answer")??;
    Answer::of(raw)
}

/// SHA-256 of a certificate, as it is printed.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let hash: Vec<_> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    hash.join(":")
}

/// One certificate is good: the one with this fingerprint.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint(own) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("another certificate than the one whose fingerprint was printed".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A host with one VM `a` and a web endpoint.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: lab::farbus::Host,
    pub(crate) server: Server,
}

impl World {
    /// `seat`: more lines of the VM's table; `web`: of the endpoint's.
    pub(crate) async fn start(seat: &str, web: &str) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, seat, web).await
    }

    /// The same in this folder.
    pub(crate) async fn start_in(folder: tempfile::TempDir, seat: &str, web: &str) -> Result<Self> {
        let extra = format!("{seat}\n[web]\nlisten = \"127.0.0.1:0\"\n{web}\n");
        let seat = lab::farbus::Seat { name: "a".to_owned(), folder: folder.path().join("a"), extra };
        let mut host = lab::farbus::Host::start_with(folder.path(), vec![seat]).await?;
        let said = host.program.wait_for("web").await?;
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let server = Server { address: text("address").parse()?, fingerprint: text("fingerprint") };
        Ok(Self { folder, host, server })
    }

    /// Runs `farbus-host` with these arguments; what it prints.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = tokio::process::Command::new(lab::farbus::binary("farbus-host")?);
        command.args(arguments).args(["--json", "--config"]).arg(self.folder.path().join("host.toml"));
        let output = command.output().await?;
        ensure!(output.status.success(), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A token for the VM.
    pub(crate) async fn token(&self) -> Result<String> {
        let made = self.command(&["web-token", "a"]).await?;
        Ok(made["web_token"]["token"].as_str().context("a token")?.to_owned())
    }
}
