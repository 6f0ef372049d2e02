//! `farbus-host vm NAME`: one VM's worker. Its main thread is the VM's arbiter: both vfio-user sockets, both
//! controllers and the session live there. Links run on a second runtime.

use std::{path::Path, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use anyhow::{Context as _, Result};
use capture::{Tap, Totals, Writer};
use link::PeerKey;
use noise_tcp::SecretKey;
use tokio::{runtime::Handle, sync::mpsc, time::MissedTickBehavior};
use vfio_user::Server;
use vm_session::{Event, Parts, SendAway, Stop, VmSession};

use crate::{
    adopting::Adopting,
    answering::{Answering, Calls},
    cli::VmWorker,
    config::{Config, Interrupts, OnBusy, Rtc, Vm},
    control::client::seconds_since_1970,
    handoff::{self, Channel, ToManager, ToWorker},
    lent::LentDevice,
    measured::Measured,
};

/// Threads for links: one is enough for one remote, two keep encryption and decryption apart.
const IO_THREADS: usize = 2;
/// Events on their way to the manager.
const EVENTS: usize = 256;
/// How often the manager hears what the controllers measure.
const MEASURE: Duration = Duration::from_secs(1);

/// Runs the worker until the manager says stop, or is gone.
///
/// # Errors
/// It was started by hand, a socket cannot be made, or the key cannot be read.
pub(crate) fn run(args: &VmWorker) -> Result<()> {
    let config = Config::load(&args.config.config)?;
    let vm = config.vm(&args.vm)?.clone();
    let control = handoff::inherited()?;
    let key = crate::load_key(&config.key_file)?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("farbus-link")
        .enable_all()
        .build()
        .context("starting the link runtime")?;
    let handle = io.handle().clone();
    let name = args.vm.clone();
    let (tap, capture) = vm.capture.as_deref().map(start_capture).transpose()?.unzip();
    let measured = config.metrics.map(|_| Measured::record()).transpose()?;
    metrics::gauge!("farbus_worker_start_seconds").set(seconds_since_1970() as f64);
    let remotes = Remotes { key: Arc::new(key), rtc: Arc::new(config.webrtc), io: handle };
    let outcome = System::new().block_on(serve(name, vm, control, remotes, tap, measured));
    io.shutdown_background();
    if let Some(writer) = capture {
        end_capture(writer, &args.vm);
    }
    outcome
}

fn start_capture(file: &Path) -> Result<(Tap, Writer)> {
    capture::record_into(file, "farbus-host").with_context(|| format!("the capture {}", file.display()))
}

/// Says what a capture does not have.
fn end_capture(writer: Writer, vm: &str) {
    match writer.finish() {
        Ok(Totals { records, dropped: 0 }) => tracing::info!(vm, records, "the capture is whole"),
        Ok(Totals { records, dropped }) => {
            tracing::warn!(vm, records, dropped, "the file was too slow for the capture");
        }
        Err(error) => tracing::error!(vm, %error, "the capture could not be written"),
    }
}

/// What it takes to meet remotes.
struct Remotes {
    key: Arc<SecretKey>,
    rtc: Arc<Rtc>,
    /// The link runtime.
    io: Handle,
}

async fn serve(
    name: String,
    vm: Vm,
    control: std::os::unix::net::UnixDatagram,
    Remotes { key, rtc, io }: Remotes,
    tap: Option<Tap>,
    measured: Option<Measured>,
) -> Result<()> {
    let channel = Rc::new(Channel::new(control).context("the manager's channel")?);
    let (events, mut happened) = mpsc::channel(EVENTS);
    // When the session is gone, nobody tells anything any more: whoever only adopts does not keep this worker alive.
    let to_manager = events.downgrade();
    let teller = Teller { events }.start();
    std::fs::create_dir_all(&vm.socket_dir)
        .with_context(|| format!("making the socket folder {}", vm.socket_dir.display()))?;
    let (usb_config, xhci) = usb_function(vm.interrupts);
    let session = VmSession::new(Parts {
        name: name.clone(),
        usb: bind(&vm.usb_socket(), usb_config, vm.socket_mode)?,
        usb_config,
        xhci,
        hda: bind(&vm.hda_socket(), hda::config_space, vm.socket_mode)?,
        hda_config: hda::config_space,
        hda_settings: hda::Config { speakers: vm.speakers.into(), ..hda::Config::default() },
        codec: vm.audio_codec.into(),
        hold: vm.hold.into(),
        takeover: vm.on_busy == OnBusy::Takeover,
        io: io.clone(),
        tap,
        events: teller.recipient(),
    })
    .start();
    let calls = Calls { links: session.clone().recipient(), ends: session.clone().recipient() };
    let mut answering = Answering::new(key.clone(), io.clone(), to_manager.clone(), calls, rtc.clone());
    let mut adopting = Adopting::new(&name, key, io, to_manager, session.clone().recipient(), rtc);
    channel.send(&ToManager::Ready, None).await.context("telling the manager")?;

    let mut measure = tokio::time::interval(MEASURE);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = measure.tick(), if measured.is_some() => {
                for measures in measured.iter().flat_map(Measured::all) {
                    let message = ToManager::Measured(measures);
                    channel.send(&message, None).await.context("telling the manager")?;
                }
            },
            event = happened.recv() => match event {
                Some(event) => channel.send(&event, None).await.context("telling the manager")?,
                None => break,
            },
            message = channel.receive::<ToWorker>() => match message.context("hearing the manager")? {
                Some((ToWorker::Adopt { first }, Some(socket))) => adopting.adopt(first, socket),
                Some((ToWorker::Adopt { .. }, None)) => tracing::error!("a remote was handed over without its socket"),
                Some((ToWorker::Signal { call, ask, signal }, _)) => answering.signal(call, ask, signal),
                Some((ToWorker::Judged { call, answer }, _)) => answering.judged(call, answer),
                Some((ToWorker::SendAway { remote, text }, _)) => {
                    session.do_send(SendAway { remote: PeerKey(remote), text });
                }
                Some((ToWorker::Stop, _)) | None => break,
            },
        }
    }
    // A session that is gone already has nothing left to say.
    let _ = session.send(Stop).await;
    Ok(())
}

/// The USB controller with these interrupts. (The HD Audio controller has one vector, so MSI is all it needs.)
fn usb_function(interrupts: Interrupts) -> (fn() -> pci::ConfigSpace, xhci::Config) {
    match interrupts {
        Interrupts::Msi => (xhci::config_space, xhci::Config::default()),
        Interrupts::Msix => {
            let vectors = xhci::config_space_msix().layout().msix;
            (xhci::config_space_msix, xhci::Config { vectors, ..xhci::Config::default() })
        }
    }
}

fn bind(socket: &Path, config: fn() -> pci::ConfigSpace, mode: u32) -> Result<pci::Bus> {
    let options = vfio_user::Options { mode, ..vfio_user::Options::default() };
    let server = Server::bind(socket, config().layout(), options)
        .with_context(|| format!("serving the socket {}", socket.display()))?;
    server.into_bus().with_context(|| format!("serving the socket {}", socket.display()))
}

/// Turns what happens to the VM into messages for the manager.
struct Teller {
    events: mpsc::Sender<ToManager>,
}

impl Actor for Teller {
    type Context = Context<Self>;
}

impl Handler<Event> for Teller {
    type Result = ();

    fn handle(&mut self, event: Event, _: &mut Self::Context) {
        // A manager that does not listen for so long has lost the right to know.
        let _ = self.events.try_send(ToManager::from(event));
    }
}

impl From<Event> for ToManager {
    fn from(event: Event) -> Self {
        match event {
            Event::Linked { remote, transport } => {
                Self::Linked { remote: remote.0, transport: transport.to_owned() }
            }
            Event::Detached { reason } => Self::Detached { reason },
            Event::Resumed { transport, after } => Self::Resumed {
                transport: transport.to_owned(),
                after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            },
            Event::LinkLost { reason } => Self::LinkLost { reason },
            Event::Attached { name, id: (vendor, product) } => {
                Self::Attached { name, id: format!("{vendor:04x}:{product:04x}") }
            }
            Event::Lent(lent) => Self::Lent(lent.into_iter().map(LentDevice::from).collect()),
            Event::Counted(counters) => Self::Counted(Box::new((*counters).into())),
            Event::GaveUp { child } => Self::GaveUp { controller: format!("{child:?}") },
        }
    }
}
