//! What is asked over HTTP, and what is answered. RFC 9725, with VMs where it has streams.
//!
//! | | |
//! |---|---|
//! | `POST /api/v1/vms/{vm}/rtc` | an offer, `application/sdp`: 201 with the answer, `Location` and `ETag` |
//! | `PATCH` there, `If-Match: "n"` | candidates, `application/trickle-ice-sdpfrag`: 204 |
//! | `PATCH` there, `If-Match: "*"` or `*` | ICE restart, in the same form: 200 with ours, another `ETag` |
//! | `DELETE` there | the call, and the link that it has become, is over: 200 |

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full as Body, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
};
use tokio::time::timeout;

use super::{Endpoint, calls::Full};
use crate::{
    config::rtc::IceServer,
    control::client::seconds_since_1970,
    handoff::{Signal, Signalled, ToWorker},
    manager::door::Taken,
    state::tokens,
};

/// What descriptions are.
const SDP: &str = "application/sdp";
/// What fragments of them are. RFC 8840 §9.
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// The time for a request's body.
const BODY: Duration = Duration::from_secs(5);
/// The time for a worker's answer.
const WORKER: Duration = Duration::from_secs(10);

/// A connection with its request.
pub(super) struct Visit<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) place: &'a Taken,
    pub(super) from: SocketAddr,
    /// The address at which it has reached the host.
    pub(super) near: IpAddr,
}

type Answer = Response<Body<Bytes>>;

/// Why a request is refused: the status, and a sentence for people.
struct Refused(StatusCode, &'static str, Option<(HeaderName, &'static str)>);

impl Refused {
    const fn new(status: StatusCode, text: &'static str) -> Self {
        Self(status, text, None)
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self(self.0, self.1, Some((name, value)))
    }
}

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
struct Path<'a> {
    vm: &'a str,
    call: Option<&'a str>,
}

impl<'a> Path<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (vm, rest) = path.strip_prefix("/api/v1/vms/")?.split_once('/')?;
        match rest.strip_prefix("rtc")? {
            "" => Some(Self { vm, call: None }),
            call => Some(Self { vm, call: Some(call.strip_prefix('/')?) }),
        }
    }
}

impl Visit<'_> {
    /// The answer, whatever is asked.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = self.try_answer(request).await.unwrap_or_else(|Refused(status, text, more)| {
            let mut answer = Response::new(Body::from(format!("{text}\n")));
            *answer.status_mut() = status;
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            if let Some((name, value)) = more {
                answer.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            answer
        });
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let (head, body) = request.into_parts();
        let path = Path::of(head.uri.path());
        let path = path.ok_or(Refused::new(StatusCode::NOT_FOUND, "there is nothing here"))?;
        let (media, allow) = match path.call {
            None => (SDP, "POST"),
            Some(_) => (FRAGMENT, "PATCH, DELETE"),
        };
        let known = match path.call {
            None => head.method == Method::POST,
            Some(_) => head.method == Method::PATCH || head.method == Method::DELETE,
        };
        if !known {
            let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, "not in this way");
            return Err(refused.with(header::ALLOW, allow));
        }
        self.check_origin(&head.headers)?;
        let token = self.check_token(&head.headers, path.vm)?;
        if head.method == Method::DELETE {
            return self.hang_up(&path, &token).await;
        }
        check_media(&head.headers, media)?;
        let text = read(&head.headers, body).await?;
        // It has shown a token and said what it wants: from here on it is the token's calls that are bounded.
        self.place.give_back();
        match path.call {
            None => self.begin(path.vm, &token, text).await,
            Some(_) => self.amend(&path, &token, &head.headers, text).await,
        }
    }

    /// Pages of elsewhere may not ask, whatever they know.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = host.is_some_and(|host| origin.strip_prefix("https://") == Some(host));
        if own || self.endpoint.origins.iter().any(|known| known == origin) {
            return Ok(());
        }
        Err(Refused::new(StatusCode::FORBIDDEN, "pages of this origin may not ask: see `origins` of [web]"))
    }

    /// The hash of the token, if it is for this VM.
    fn check_token(&self, headers: &HeaderMap, vm: &str) -> Result<String, Refused> {
        const HOW: Refused =
            Refused::new(StatusCode::UNAUTHORIZED, "a token is needed: `farbus-host web-token VM` makes one");
        let unknown = || HOW.with(header::WWW_AUTHENTICATE, "Bearer");
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or_else(unknown)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown());
        }
        let hash = tokens::hash(token.trim());
        let of = self.endpoint.registry.token_vm(&hash, seconds_since_1970()).ok_or_else(unknown)?;
        // Nothing is said of whether there is such a VM.
        if of != vm {
            return Err(Refused::new(StatusCode::FORBIDDEN, "the token is for another VM"));
        }
        Ok(hash)
    }

    async fn begin(&self, vm: &str, token: &str, sdp: String) -> Result<Answer, Refused> {
        let begun = self.endpoint.calls.borrow_mut().begin(vm, token, self.from);
        let (name, call) = begun.map_err(|full| match full {
            Full::Token => {
                Refused::new(StatusCode::TOO_MANY_REQUESTS, "this token has enough calls: end one")
                    .with(header::RETRY_AFTER, "15")
            }
            Full::All | Full::Nameless => unavailable("no room for one more call"),
        })?;
        let (from, near) = (self.from, self.near);
        let answer = self.ask(vm, call, Signal::Offer { sdp, from, near }).await;
        if answer.is_err() {
            self.endpoint.calls.borrow_mut().over(vm, call);
        }
        let mut answer = text(StatusCode::CREATED, SDP, answer?, "\"0\"")?;
        let headers = answer.headers_mut();
        let location = HeaderValue::try_from(format!("/api/v1/vms/{vm}/rtc/{name}"));
        headers.insert(header::LOCATION, location.map_err(|_| unavailable("a VM without a name"))?);
        headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
        let now = seconds_since_1970();
        for link in self.endpoint.servers.iter().flat_map(|server| links(server, now)) {
            headers.append(header::LINK, link);
        }
        Ok(answer)
    }

    async fn amend(
        &self,
        path: &Path<'_>,
        token: &str,
        headers: &HeaderMap,
        fragment: String,
    ) -> Result<Answer, Refused> {
        let (call, etag) = self.find(path, token)?;
        let wanted = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        match wanted {
            None => {
                Err(Refused::new(StatusCode::PRECONDITION_REQUIRED, "say If-Match: with the ETag, or \"*\""))
            }
            Some("*" | "\"*\"") => {
                let ours = self.ask(path.vm, call, Signal::Restart(fragment)).await?;
                let etag = {
                    let mut calls = self.endpoint.calls.borrow_mut();
                    let call =
                        path.call.and_then(|name| calls.find(name, path.vm, token)).ok_or_else(gone)?;
                    call.restarts += 1;
                    call.etag()
                };
                text(StatusCode::OK, FRAGMENT, ours, &etag)
            }
            Some(wanted) if wanted == etag => {
                self.ask(path.vm, call, Signal::Candidates(fragment)).await?;
                empty(StatusCode::NO_CONTENT)
            }
            Some(_) => Err(Refused::new(StatusCode::PRECONDITION_FAILED, "ICE was restarted since then")),
        }
    }

    async fn hang_up(&self, path: &Path<'_>, token: &str) -> Result<Answer, Refused> {
        let (call, _) = self.find(path, token)?;
        self.place.give_back();
        self.ask(path.vm, call, Signal::HangUp).await?;
        self.endpoint.calls.borrow_mut().over(path.vm, call);
        empty(StatusCode::OK)
    }

    /// The number and the ETag of the call that is asked about.
    fn find(&self, path: &Path<'_>, token: &str) -> Result<(u64, String), Refused> {
        let mut calls = self.endpoint.calls.borrow_mut();
        let call = path.call.and_then(|name| calls.find(name, path.vm, token)).ok_or_else(gone)?;
        Ok((call.number, call.etag()))
    }

    /// Asks the VM's worker.
    async fn ask(&self, vm: &str, call: u64, signal: Signal) -> Result<String, Refused> {
        let worker = self.endpoint.registry.worker(vm);
        let worker = worker.ok_or(unavailable("the VM has no worker at the moment; try again"))?;
        let (ask, answered) = self.endpoint.calls.borrow_mut().ask(vm);
        let message = ToWorker::Signal { call, ask, signal };
        worker.try_send((message, None)).map_err(|_| unavailable("the VM's worker is busy; try again"))?;
        match timeout(WORKER, answered).await {
            Ok(Ok(Signalled::Done(text))) => Ok(text),
            Ok(Ok(Signalled::Useless(text))) => {
                tracing::info!(from = %self.from, vm, "a signal of no use: {text}");
                Err(Refused::new(StatusCode::BAD_REQUEST, "the session description cannot be used"))
            }
            Ok(Ok(Signalled::Failed(text))) => {
                tracing::warn!(from = %self.from, vm, "a signal came to nothing: {text}");
                Err(unavailable("no connection can be set up at the moment; try again"))
            }
            Ok(Err(_)) => Err(unavailable("the VM's worker has just ended; try again")),
            Err(_) => Err(unavailable("the VM's worker does not answer; try again")),
        }
    }
}

fn gone() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "there is no such call, or it is over")
}

fn unavailable(text: &'static str) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, text).with(header::RETRY_AFTER, "1")
}

fn empty(status: StatusCode) -> Result<Answer, Refused> {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    Ok(answer)
}

fn text(status: StatusCode, media: &'static str, text: String, etag: &str) -> Result<Answer, Refused> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::ETAG, HeaderValue::try_from(etag).map_err(|_| gone())?);
    Ok(answer)
}

/// What is sent has to be of this kind, and so has what is wanted.
fn check_media(headers: &HeaderMap, media: &'static str) -> Result<(), Refused> {
    let value = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let bare = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if value(header::CONTENT_TYPE).map(bare).as_deref() != Some(media) {
        let refused = Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not a description of this kind");
        return Err(refused.with(header::ACCEPT, media));
    }
    let takes = |kind: String| kind == media || kind == "application/*" || kind == "*/*";
    if value(header::ACCEPT).is_some_and(|accept| !accept.split(',').map(bare).any(takes)) {
        return Err(Refused::new(StatusCode::NOT_ACCEPTABLE, "the answer would be of the same kind"));
    }
    Ok(())
}

/// The body, as text.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<String, Refused> {
    const LONG: Refused = Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "a description has at most 64 KiB");
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > webrtc::MAX_SDP as u64) {
        return Err(LONG);
    }
    let body = timeout(BODY, Limited::new(body, webrtc::MAX_SDP).collect()).await;
    let body = body.map_err(|_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the body takes too long"))?;
    let body = body.map_err(|error| {
        let long = error.downcast_ref::<LengthLimitError>().is_some();
        if long { LONG } else { Refused::new(StatusCode::BAD_REQUEST, "the body ends early") }
    })?;
    String::from_utf8(body.to_bytes().into())
        .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "a description is text"))
}

/// A server of ICE, as values of `Link` at this time, in seconds since 1970. RFC 9725 §4.6.
fn links(server: &IceServer, now: u64) -> Vec<HeaderValue> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let (user, password) = server.credentials(now);
    let link = |url: &String| {
        let mut link = format!("<{url}>; rel=\"ice-server\"");
        if !user.is_empty() {
            let (user, password) = (quoted(&user), quoted(&password));
            link += &format!("; username={user}; credential={password}; credential-type=\"password\"");
        }
        HeaderValue::try_from(link).ok()
    };
    server.urls.iter().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_vm_and_maybe_a_call() {
        for (path, expected) in [
            ("/api/v1/vms/a/rtc", Some(("a", None))),
            ("/api/v1/vms/a/rtc/x", Some(("a", Some("x")))),
            ("/api/v1/vms/a/rtcx", None),
            ("/api/v1/vms/a", None),
            ("/api/v2/vms/a/rtc", None),
            ("/", None),
        ] {
            assert_eq!(Path::of(path), expected.map(|(vm, call)| Path { vm, call }), "{path}");
        }
    }

    #[test]
    fn servers_are_told_as_whip_has_it() {
        let mut server = IceServer {
            urls: vec!["turn:192.0.2.1:3478".to_owned()],
            username: "u\"".to_owned(),
            credential: "p".to_owned(),
            secret: String::new(),
        };
        let link = links(&server, 0).remove(0);
        assert_eq!(
            link.to_str().unwrap(),
            "<turn:192.0.2.1:3478>; rel=\"ice-server\"; username=\"u\\\"\"; credential=\"p\"; credential-type=\"password\""
        );
        server.secret = "north".to_owned();
        let [before, after] = [1, 2].map(|now| links(&server, now).remove(0));
        let told = after.to_str().unwrap();
        assert!(before != after && told.contains("username=\"86402:u") && !told.contains("north"), "{told}");
    }
}
