//! Calls of remotes by the web endpoint, at the worker: each is a connection that may become a link of the session.
//!
//! ```text
//!  manager ── Offer ─────────► call ── Answerer ──► answer, SDP text ──► manager ─► whoever asked
//!          ── Candidates ───►   │
//!          ── Restart ──────►   │  Noise over the connection: who is there?
//!          ◄─ Called ────────   │
//!          ── Judged ───────►   │  welcome: LinkUp ─► VmSession; or refused
//!          ── HangUp ───────►   │  HangUp ─► VmSession: the session ends, if it is on this link
//!          ◄─ HungUp ────────   ▼  the link has ended
//! ```
//! A live connection cannot move between processes, so it is here from its first moment; who may come in is decided by
//! the manager all the same, as it is for TCP.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use actix::Recipient;
use anyhow::{Context as _, Result};
use link::Link as _;
use noise_tcp::SecretKey;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};
use vm_session::{HangUp, LinkUp, OpusPacket};
use webrtc::{Answerer, Control, OpusTrack};
use wire::control::Answer;

use crate::{
    config::Rtc,
    control::client::seconds_since_1970,
    fragment::Fragment,
    handoff::{Signal, Signalled, ToManager},
};

/// Signals of one call that wait to be looked at.
const SIGNALS: usize = 4;

/// Packets of sound on their way to a track: 80 ms of them; late is lost.
const PACKETS: usize = 16;

/// A signal and its number.
type Asked = (u64, Signal);

/// All calls. Each is a task on the link runtime.
pub(crate) struct Answering {
    tools: Arc<Tools>,
    io: Handle,
    calls: HashMap<u64, Call>,
}

/// What every call needs.
struct Tools {
    key: Arc<SecretKey>,
    rtc: Arc<Rtc>,
    to_manager: mpsc::WeakSender<ToManager>,
    session: Calls,
}

/// What the session hears of calls.
pub(crate) struct Calls {
    /// That one has become a link.
    pub(crate) links: Recipient<LinkUp>,
    /// That one is over because its remote says so.
    pub(crate) ends: Recipient<HangUp>,
}

/// The way to one call.
struct Call {
    signals: mpsc::Sender<Asked>,
    verdict: Option<oneshot::Sender<Answer>>,
}

impl Answering {
    pub(crate) fn new(
        key: Arc<SecretKey>,
        io: Handle,
        to_manager: mpsc::WeakSender<ToManager>,
        session: Calls,
        rtc: Arc<Rtc>,
    ) -> Self {
        let tools = Arc::new(Tools { key, rtc, to_manager, session });
        Self { tools, io, calls: HashMap::new() }
    }

    /// Takes a signal. What becomes of it the manager is told by and by.
    pub(crate) fn signal(&mut self, call: u64, ask: u64, signal: Signal) {
        self.calls.retain(|_, call| !call.signals.is_closed());
        if let Signal::Offer { sdp, from, near } = signal {
            let ((signals, asked), (verdict, judged)) = (mpsc::channel(SIGNALS), oneshot::channel());
            self.calls.insert(call, Call { signals, verdict: Some(verdict) });
            let tools = Arc::clone(&self.tools);
            self.io.spawn(async move {
                let config = webrtc::Config { opus: true, ..tools.rtc.at(near, seconds_since_1970()) };
                tools.answer(call, ask, &sdp, &config, from, asked, judged).await;
                tools.tell(ToManager::HungUp { call }).await;
            });
            return;
        }
        let taken = self.calls.get(&call).is_some_and(|call| call.signals.try_send((ask, signal)).is_ok());
        if !taken {
            let outcome = Signalled::Failed("there is no such call, or it has more to do already".to_owned());
            let tools = Arc::clone(&self.tools);
            self.io.spawn(async move { tools.tell(ToManager::Signalled { ask, outcome }).await });
        }
    }

    /// The manager has decided.
    pub(crate) fn judged(&mut self, call: u64, answer: Answer) {
        let verdict = self.calls.get_mut(&call).and_then(|call| call.verdict.take());
        // It may have gone by itself.
        verdict.map(|verdict| verdict.send(answer));
    }
}

impl Tools {
    async fn tell(&self, message: ToManager) {
        if let Some(to_manager) = self.to_manager.upgrade() {
            let _ = to_manager.send(message).await;
        }
    }

    /// A call, from its offer to its end.
    #[expect(clippy::too_many_arguments, reason = "it is what a call consists of")]
    async fn answer(
        &self,
        call: u64,
        ask: u64,
        offer: &str,
        config: &webrtc::Config,
        from: SocketAddr,
        mut asked: mpsc::Receiver<Asked>,
        judged: oneshot::Receiver<Answer>,
    ) {
        let answerer = match Answerer::new(config, offer).await {
            Ok(answerer) => answerer,
            Err(error) => {
                let outcome = match error {
                    webrtc::Error::Sdp(error) => Signalled::Useless(error.to_string()),
                    error => Signalled::Failed(error.to_string()),
                };
                return self.tell(ToManager::Signalled { ask, outcome }).await;
            }
        };
        let (control, linked) = (answerer.control(), OnceLock::new());
        let outcome = Signalled::Done(answerer.answer().to_owned());
        self.tell(ToManager::Signalled { ask, outcome }).await;
        let admit = async {
            if let Err(error) = self.admit(call, answerer, from, judged, &linked).await {
                tracing::info!(%from, "a call came to nothing: {error:#}");
            }
            // From here on it ends when its link does.
            control.ended().await;
        };
        let follow = async {
            let mut offer = offer.to_owned();
            while let Some((ask, signal)) = asked.recv().await {
                if let (Signal::HangUp, Some(binding)) = (&signal, linked.get()) {
                    // Before the link ends, which would look like a loss. A session that is over needs no end.
                    let _ = self.session.ends.send(HangUp { binding: *binding }).await;
                }
                let outcome = follow(&control, &mut offer, signal).await;
                self.tell(ToManager::Signalled { ask, outcome }).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = admit => {}
            () = follow => {}
        }
    }

    /// Finds out who calls, and lets it in if the manager says so; by what its link is known then.
    async fn admit(
        &self,
        call: u64,
        answerer: Answerer,
        from: SocketAddr,
        judged: oneshot::Receiver<Answer>,
        linked: &OnceLock<[u8; 32]>,
    ) -> Result<()> {
        let incoming = answerer.caller(&self.key).await?;
        let caller = incoming.caller();
        let (remote, hello) = (caller.key.0, caller.hello.clone());
        self.tell(ToManager::Called { call, remote, hello }).await;
        let answer = timeout(webrtc::DEADLINE, judged).await.context("nobody has decided")??;
        if !matches!(answer, Answer::Welcome { .. }) {
            return Ok(incoming.refuse(&answer).await?);
        }
        let mut link = incoming.accept(&answer).await?;
        self.tell(ToManager::Proved { from }).await;
        let track = link.take_opus().map(play);
        // The first and only one.
        let _ = linked.set(link.binding());
        self.session.links.do_send(LinkUp { link: Box::new(link), track });
        Ok(())
    }
}

/// Feeds a track, as long as there is somebody who does.
fn play(mut track: OpusTrack) -> mpsc::Sender<OpusPacket> {
    let (packets, mut waiting) = mpsc::channel::<OpusPacket>(PACKETS);
    tokio::spawn(async move {
        while let Some(OpusPacket { timestamp, payload }) = waiting.recv().await {
            track.send(timestamp, payload).await;
        }
    });
    packets
}

/// Does to a connection what its remote signals.
async fn follow(control: &Control, offer: &mut String, signal: Signal) -> Signalled {
    let done = match signal {
        Signal::Candidates(text) => more(control, offer, &text).await.map(|()| String::new()),
        Signal::Restart(text) => restart(control, offer, &text).await,
        Signal::HangUp => {
            control.hang_up();
            Ok(String::new())
        }
        Signal::Offer { .. } => Err("there was an offer already".to_owned()),
    };
    done.map_or_else(Signalled::Useless, Signalled::Done)
}

async fn more(control: &Control, offer: &str, text: &str) -> Result<(), String> {
    let fragment = Fragment::parse(text)?;
    if !fragment.fits(offer) {
        return Err("candidates of another connection, or of before a restart".to_owned());
    }
    for candidate in &fragment.candidates {
        control.add_candidate(candidate).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn restart(control: &Control, offer: &mut String, text: &str) -> Result<String, String> {
    let restarted = Fragment::parse(text)?.restart(offer)?;
    let answer = control.answer_restart(&restarted).await.map_err(|error| error.to_string())?;
    *offer = restarted;
    Ok(Fragment::of(&answer))
}
