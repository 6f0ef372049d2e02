//! `farbus-host serve`: the connection manager. It authenticates remotes, associates them with VMs, and starts and
//! supervises one worker process per VM. It holds no guest memory and parses nothing of a remote but its first
//! handshake frame.

mod door;
mod process;
mod registry;

use std::{net::SocketAddr, process::ExitStatus, sync::Arc, time::Duration};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use noise_tcp::{PublicKey, SecretKey};
use pci::Restarts;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use crate::{
    cli::{LogFormat, Serve},
    config::Config,
    handoff::{ToManager, ToWorker},
    report::{Report, Reporter},
};
use process::Launch;
use registry::Registry;

/// How long a worker may take to end by itself when the manager ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// The configuration, the key or the address cannot be used.
pub(crate) fn serve(args: &Serve, log: LogFormat) -> Result<()> {
    let config = Config::load(&args.config.config)?;
    let key = crate::load_key(&config.key_file)?;
    let reporter = Reporter { json: args.json };
    let launch = Launch { config: args.config.config.clone(), log };
    System::new().block_on(run(config, key, reporter, launch))
}

async fn run(config: Config, key: SecretKey, reporter: Reporter, launch: Launch) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind(&config.listen)
        .await
        .with_context(|| format!("listening on {} (the key `listen` of the configuration)", config.listen))?;
    let address: SocketAddr = listener.local_addr()?;
    let registry = Arc::new(Registry::new(config.vm));
    let host_key = key.public().to_string();
    let manager = ConnectionManager::new(Arc::clone(&registry), reporter, launch).start();
    reporter.say(&Report::Listening { address: address.to_string(), host_key });
    let door = actix::spawn(door::accept_all(listener, Arc::new(key), registry, reporter));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending: every worker is asked to stop");
    door.abort();
    manager.send(EndAll).await.context("the connection manager is gone")?;
    Ok(())
}

/// The actor that supervises the workers.
struct ConnectionManager {
    registry: Arc<Registry>,
    reporter: Reporter,
    launch: Launch,
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
    fn new(registry: Arc<Registry>, reporter: Reporter, launch: Launch) -> Self {
        let start = Instant::now();
        Self { registry, reporter, launch, restarts: Default::default(), start, ending: false }
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

    fn say(&self, vm: String, message: ToManager) {
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
                Report::Linked { remote: remote.to_string(), transport, vm }
            }
            // It keeps the VM while its devices are held.
            ToManager::Detached { reason } => Report::Detached { vm, reason },
            ToManager::Resumed { transport, after_ms } => Report::Resumed { vm, transport, after_ms },
            ToManager::LinkLost { reason } => {
                self.registry.remote_left(&vm);
                Report::LinkLost { vm, reason }
            }
            ToManager::Attached { name, id } => Report::Attached { vm, name, id },
            ToManager::Counted { frames, requests, links } => Report::Counted { vm, frames, requests, links },
            ToManager::GaveUp { controller } => Report::GaveUp { vm, controller },
        };
        self.reporter.say(&report);
    }

    fn worker_ended(&mut self, vm: String, status: std::io::Result<ExitStatus>, ctx: &mut Context<Self>) {
        self.registry.worker_ended(&vm);
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
