//! The web endpoint: HTTPS by which somebody with a token asks for a link over WebRTC, in the manner of WHIP (RFC 9725).
//!
//! ```text
//!  page ── POST offer ──► endpoint ── token? room? ──► worker: Answering ── answer ──► 201, Location, ETag
//!       ◄──────── ICE, DTLS, then Noise over the connection's own channel ───────────► worker: who is it?
//!                                  manager: registry.decide ◄── Called ── worker
//! ```
//! A token is leave to ask. Who gets the VM is decided as for TCP, by the key that is proved in the connection. What is
//! read here is a request's head, and its body as text; descriptions are read by the worker of the VM they are for.
//! A connection is for one request, and takes a place among few until it has shown a token.

mod calls;
mod request;
pub(crate) mod tls;

use std::{cell::RefCell, convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{
    LazyConfigAcceptor,
    rustls::{ServerConfig, server::Acceptor},
};

use super::{
    door::{self, Limits, Taken},
    limits::{Source, Trusted},
    registry::Registry,
};
use crate::{
    config::{Config, rtc::IceServer},
    control::WebStatus,
};
pub(super) use calls::Calls;
use request::Visit;

/// The time for the handshake of TLS.
const TLS: Duration = Duration::from_secs(5);
/// The time for a whole connection: an answer waits for a worker, and that for servers that tell its address.
const CONNECTION: Duration = Duration::from_secs(20);
/// The longest head of a request, bytes.
const HEAD: usize = 16 << 10;
/// How long to wait after the system could not accept.
const BREATHER: Duration = Duration::from_millis(100);

/// The calls, for the endpoint and the manager; both are on one thread.
pub(super) type SharedCalls = Rc<RefCell<Calls>>;

/// The endpoint, bound.
pub(super) struct Web {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    origins: Vec<String>,
    servers: Vec<IceServer>,
    /// Where it is, and its certificate's fingerprint.
    pub(super) status: WebStatus,
}

/// What every visitor meets.
struct Endpoint {
    tls: Arc<ServerConfig>,
    registry: Arc<Registry>,
    calls: SharedCalls,
    limits: Limits,
    start: Instant,
    origins: Vec<String>,
    /// The servers of ICE that a remote may want as well.
    servers: Vec<IceServer>,
}

/// Binds the endpoint if there is to be one.
///
/// # Errors
/// Its address or its certificate cannot be had.
pub(super) async fn bind(config: &Config) -> Result<Option<Web>> {
    let Some(web) = &config.web else { return Ok(None) };
    let identity = match web.own() {
        Some((certificate, key)) => tls::Identity::load(certificate, key),
        None => tls::Identity::load_or_create(&tls::beside(&config.key_file)),
    };
    let identity = identity.context("the certificate of the web endpoint")?;
    let listener = door::listen(&web.listen.to_string())
        .await
        .with_context(|| format!("listening on {} (`listen` of [web])", web.listen))?;
    let address = listener.local_addr()?.to_string();
    let status = WebStatus { address, fingerprint: identity.fingerprint() };
    let servers = config.webrtc.ice_servers.clone();
    Ok(Some(Web { listener, tls: identity.config()?, origins: web.origins.clone(), servers, status }))
}

impl Web {
    /// Serves for ever.
    pub(super) async fn serve(self, registry: Arc<Registry>, calls: SharedCalls, trusted: Trusted) {
        let Self { listener, tls, origins, servers, .. } = self;
        let (limits, start) = (door::limits(&trusted), Instant::now());
        let endpoint = Rc::new(Endpoint { tls, registry, calls, limits, start, origins, servers });
        loop {
            match listener.accept().await {
                Ok((stream, from)) => endpoint.enter(stream, from),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }
}

impl Endpoint {
    /// Gives a connection a place and a task.
    fn enter(self: &Rc<Self>, stream: TcpStream, from: SocketAddr) {
        let source = Source::of(from.ip());
        let id = self.limits.borrow_mut().number();
        let place = Taken::new(&self.limits, id);
        let this = Rc::clone(self);
        let task = actix::spawn(async move {
            if let Err(error) = this.welcome(stream, from, source, &place).await {
                tracing::debug!(%from, "a web connection came to nothing: {error:#}");
            }
        });
        let pushed_out = self.limits.borrow_mut().enter(id, source, task.abort_handle());
        pushed_out.inspect(tokio::task::AbortHandle::abort);
    }

    async fn welcome(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        source: Source,
        place: &Taken,
    ) -> Result<()> {
        let near = stream.local_addr()?.ip();
        let hello = timeout(TLS, LazyConfigAcceptor::new(Acceptor::default(), stream));
        let hello = hello.await.context("nothing is said")??;
        // A handshake of TLS costs as much as one of ours. Who says nothing has cost nothing.
        if !self.limits.borrow_mut().afford(source, self.start.elapsed()) {
            bail!("too many connections of late");
        }
        let stream =
            timeout(TLS, hello.into_stream(Arc::clone(&self.tls))).await.context("TLS takes too long")??;
        let visit = Visit { endpoint: self, place, from, near };
        let answer = service_fn(async |request| Ok::<_, Infallible>(visit.answer(request).await));
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(HEAD).half_close(false);
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        Ok(timeout(CONNECTION, connection).await.context("a request takes too long")??)
    }
}
