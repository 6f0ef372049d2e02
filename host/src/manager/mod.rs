//! `farbus-host serve`: the connection manager. It authenticates remotes, associates them with VMs, and starts and
//! supervises one worker process per VM. It holds no guest memory and parses nothing of a remote but its first
//! handshake frame, and the head of a request at the web endpoint.

mod book;
mod door;
mod limits;
mod pairing;
mod process;
mod registry;
mod revoking;
mod seen;
mod token;
mod web;

use std::{net::SocketAddr, path::PathBuf, process::ExitStatus, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use control_socket::{Server, SocketFile};
use noise_tcp::{PublicKey, SecretKey};
use pci::Restarts;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use crate::{
    cli::{LogFormat, Serve},
    config::Config,
    control::{self, Reply, Request},
    exported::{self, Exported},
    handoff::{ToManager, ToWorker},
    report::{Report, Reporter},
    state::State,
};
use book::Book;
use door::Inside;
use limits::Trusted;
use pairing::Waiting;
use process::Launch;
use registry::Registry;
use revoking::Stamp;
use seen::AllSeen;
use web::SharedCalls;
pub(crate) use web::tls;

/// How long a worker may take to end by itself when the manager ends.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often it is looked whether the state was changed by hand.
const STATE: Duration = Duration::from_secs(1);

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// The configuration, the key or the address cannot be used.
pub(crate) fn serve(args: &Serve, log: LogFormat) -> Result<()> {
    let config = Config::load(&args.config.config)?;
    let key = crate::load_key(&config.key_file)?;
    config.metrics.map_or(Ok(()), exported::serve)?;
    let reporter = Reporter { json: args.json };
    let launch = Launch { config: args.config.config.clone(), log };
    System::new().block_on(run(config, key, reporter, launch))
}

async fn run(config: Config, key: SecretKey, reporter: Reporter, launch: Launch) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = door::listen(&config.listen)
        .await
        .with_context(|| format!("listening on {} (the key `listen` of the configuration)", config.listen))?;
    let address: SocketAddr = listener.local_addr()?;
    let web = web::bind(&config).await?;
    let state_file = State::beside(&config.key_file);
    let stamp = Stamp::of(&state_file);
    let state = State::load(&state_file)?;
    let socket = control_socket(&config, &key);
    let registry = Arc::new(Registry::new(config.vm, state));
    let public = key.public();
    let (trusted, calls) = (Trusted::default(), SharedCalls::default());
    let parts = Parts {
        registry: Arc::clone(&registry),
        reporter,
        launch,
        address,
        key: public,
        state_file,
        stamp,
        trusted: trusted.clone(),
        calls: Rc::clone(&calls),
        web: web.as_ref().map(|web| web.status.clone()),
    };
    let manager = ConnectionManager::new(parts).start();
    // Kept until the end: then the socket's file goes.
    let _control = socket.map(|(server, file)| {
        let manager = manager.clone();
        actix::spawn(async move {
            let ending = |_| Reply::Error("the host is ending".to_owned());
            server.serve(async |request: Request| manager.send(request).await.unwrap_or_else(ending)).await;
        });
        file
    });
    reporter.say(&Report::Listening { address: address.to_string(), host_key: public.to_string() });
    if let Some(web) = web {
        let control::WebStatus { address, fingerprint } = web.status.clone();
        reporter.say(&Report::Web { address, fingerprint });
        actix::spawn(web.serve(Arc::clone(&registry), calls, trusted.clone()));
    }
    let limits = door::limits(&trusted);
    let inside = Inside { key, registry, reporter, manager: manager.clone(), limits, start: Instant::now() };
    let door = actix::spawn(door::accept_all(listener, inside));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending: every worker is asked to stop");
    door.abort();
    manager.send(EndAll).await.context("the connection manager is gone")?;
    Ok(())
}

/// The control socket. Serving VMs is more than being asked about it: where there can be none, there is none.
fn control_socket(config: &Config, key: &SecretKey) -> Option<(Server, SocketFile)> {
    let bound = control::socket(config, &key.public())
        .and_then(|path| Server::bind(&path).context(control::ELSEWHERE));
    bound
        .inspect_err(|error| {
            tracing::error!("`farbus-host pair`, `revoke` and the like will not work: {error:#}")
        })
        .ok()
}

/// What a ConnectionManager is made of.
struct Parts {
    registry: Arc<Registry>,
    reporter: Reporter,
    launch: Launch,
    /// Where remotes connect to.
    address: SocketAddr,
    key: PublicKey,
    state_file: PathBuf,
    stamp: Option<Stamp>,
    trusted: Trusted,
    calls: SharedCalls,
    web: Option<control::WebStatus>,
}

/// The actor that supervises the workers.
struct ConnectionManager {
    registry: Arc<Registry>,
    reporter: Reporter,
    launch: Launch,
    address: SocketAddr,
    key: PublicKey,
    state_file: PathBuf,
    /// Of the state as it was read last.
    stamp: Option<Stamp>,
    book: Book,
    waiting: Waiting,
    trusted: Trusted,
    /// Those by the web endpoint.
    calls: SharedCalls,
    web: Option<control::WebStatus>,
    seen: AllSeen,
    exported: Exported,
    restarts: std::collections::BTreeMap<String, Restarts>,
    start: Instant,
    ending: bool,
}

/// A worker said something.
#[derive(Message)]
#[rtype(result = "()")]
struct Said {
    vm: String,
    message: ToManager,
}

/// A worker's process has ended, or could not be started.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    vm: String,
    status: std::io::Result<ExitStatus>,
}

/// Every worker is stopped; answered when all are gone.
#[derive(Message)]
#[rtype(result = "()")]
struct EndAll;

impl ConnectionManager {
    fn new(parts: Parts) -> Self {
        let Parts { registry, reporter, launch, address, key, state_file, stamp, trusted, calls, web } =
            parts;
        Self {
            registry,
            reporter,
            launch,
            address,
            key,
            state_file,
            stamp,
            book: Book::default(),
            waiting: Waiting::default(),
            trusted,
            calls,
            web,
            seen: AllSeen::default(),
            exported: Exported::default(),
            restarts: Default::default(),
            start: Instant::now(),
            ending: false,
        }
    }

    fn answer(&mut self, request: Request, ctx: &mut Context<Self>) -> ResponseFuture<Reply> {
        let reply = match request {
            Request::Pair { vm } => self.open_pairing(&vm, ctx),
            Request::Await { pairing } => return self.await_pairing(pairing),
            Request::Revoke { key } => self.revoke(&key),
            Request::Allow { key } => self.allow(&key),
            Request::WebToken { vm, seconds } => self.make_token(&vm, seconds),
            Request::DropWebTokens { vm } => self.drop_tokens(&vm),
            Request::Status => self.status(),
        };
        Box::pin(std::future::ready(reply))
    }

    fn start_worker(&mut self, vm: String, ctx: &mut Context<Self>) {
        let (to_worker, messages) = mpsc::channel(registry::HANDOFFS);
        match self.launch.start(&vm) {
            Ok(worker) => {
                self.registry.worker_started(&vm, worker.id(), to_worker);
                let (said, ended) = (ctx.address().recipient(), ctx.address().recipient());
                actix::spawn(worker.attend(vm, messages, said, ended));
            }
            Err(error) => ctx.notify(Ended { vm, status: Err(error) }),
        }
    }

    fn say(&mut self, vm: String, message: ToManager) {
        let report = match message {
            ToManager::Ready => match self.registry.ready(&vm) {
                Some((policy, worker)) => Report::VmReady {
                    usb: policy.usb_socket().display().to_string(),
                    hda: policy.hda_socket().display().to_string(),
                    vm,
                    worker,
                },
                None => return,
            },
            ToManager::Linked { remote, transport } => {
                let remote = PublicKey(remote);
                self.registry.remote_linked(&vm, remote);
                self.linked(&vm, remote, &transport);
                // Its key may have been revoked since it was let in.
                self.send_away_if_refused(&vm, remote);
                Report::Linked { remote: remote.to_string(), transport, vm }
            }
            // It keeps the VM while its devices are held.
            ToManager::Detached { reason } => {
                self.away(&vm);
                Report::Detached { vm, reason }
            }
            ToManager::Resumed { transport, after_ms } => {
                self.back(&vm, &transport);
                Report::Resumed { vm, transport, after_ms }
            }
            ToManager::Proved { from } => return self.proved(vm, from),
            ToManager::LinkLost { reason } => {
                self.registry.remote_left(&vm);
                self.left(&vm);
                Report::LinkLost { vm, reason }
            }
            ToManager::Attached { name, id } => Report::Attached { vm, name, id },
            ToManager::Lent(lent) => return self.lent(vm, lent),
            ToManager::Counted(counted) => match self.counted(vm, *counted) {
                Some(report) => report,
                None => return,
            },
            ToManager::Measured(measures) => return self.exported.measured(&vm, measures),
            ToManager::Signalled { ask, outcome } => {
                return self.calls.borrow_mut().answered(&vm, ask, outcome);
            }
            ToManager::Called { call, remote, hello } => {
                return self.judge(vm, call, PublicKey(remote), hello);
            }
            ToManager::HungUp { call } => return self.calls.borrow_mut().over(&vm, call),
            ToManager::GaveUp { controller } => Report::GaveUp { vm, controller },
        };
        self.reporter.say(&report);
    }

    fn worker_ended(&mut self, vm: String, status: std::io::Result<ExitStatus>, ctx: &mut Context<Self>) {
        self.registry.worker_ended(&vm);
        self.calls.borrow_mut().worker_ended(&vm);
        self.left(&vm);
        Exported::worker_ended(&vm);
        if self.ending {
            return;
        }
        let status = status.map_or_else(|error| format!("cannot be started: {error}"), |s| s.to_string());
        let now = self.start.elapsed();
        let due = self.restarts.entry(vm.clone()).or_default().failed(now);
        let after = due.map(|due| due.saturating_sub(now));
        let again_in_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self.reporter.say(&Report::WorkerEnded { vm: vm.clone(), status, again_in_ms });
        if let Some(after) = after {
            ctx.run_later(after, move |act, ctx| act.start_worker(vm, ctx));
        }
    }
}

impl Actor for ConnectionManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for vm in self.registry.names() {
            self.start_worker(vm, ctx);
        }
        ctx.run_interval(STATE, |act, _| act.look_at_state());
    }
}

impl Handler<Request> for ConnectionManager {
    type Result = ResponseFuture<Reply>;

    fn handle(&mut self, request: Request, ctx: &mut Self::Context) -> Self::Result {
        self.answer(request, ctx)
    }
}

impl Handler<Said> for ConnectionManager {
    type Result = ();

    fn handle(&mut self, Said { vm, message }: Said, _: &mut Self::Context) {
        self.say(vm, message);
    }
}

impl Handler<Ended> for ConnectionManager {
    type Result = ();

    fn handle(&mut self, Ended { vm, status }: Ended, ctx: &mut Self::Context) {
        self.worker_ended(vm, status, ctx);
    }
}

impl Handler<EndAll> for ConnectionManager {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: EndAll, _: &mut Self::Context) -> Self::Result {
        self.ending = true;
        let registry = Arc::clone(&self.registry);
        Box::pin(async move {
            for worker in registry.workers() {
                let _ = worker.send((ToWorker::Stop, None)).await;
            }
            if tokio::time::timeout(LAST_WORDS, registry.all_gone()).await.is_err() {
                tracing::warn!("a worker did not end in time; it ends when it sees that its manager is gone");
            }
        })
    }
}
