//! A remote among actors that only record what they are told, and what its attempts to connect come to.

use std::{
    cell::Cell,
    future::poll_fn,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use capture::Tap;
use futures_util::FutureExt;
use link::{Link, Memory};
use session::{Opening, ResetReason};
use tokio::sync::{mpsc, oneshot};
use wire::{
    Lane,
    control::{Attachment, Profile, Refusal},
    usb::{DeviceId, Speed},
};

use super::host::Host;
use crate::{
    cli::Format,
    events::{Events, Gone, Totals},
    lent::Lent,
    port::{self, Do, Ended, Ends, PortId, What},
    ports::{self, Unlend, Whom},
    remote::{Begin, Parts, Remote, Sound},
    sound::{End, Heard},
    usb::which::{self, Class, Input, Selector},
    ways::{Attempt, Linked, NoLink, Way, Wish},
};

/// An actor that passes on what it is told.
pub(crate) struct Probe<M>(pub(crate) mpsc::UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        let _ = self.0.send(message);
    }
}

impl Handler<End> for Probe<Heard> {
    type Result = MessageResult<End>;

    fn handle(&mut self, _: End, _: &mut Self::Context) -> Self::Result {
        MessageResult(Totals::default())
    }
}

/// A recipient, and what it was told.
pub(crate) fn probe<M>() -> (Addr<Probe<M>>, mpsc::UnboundedReceiver<M>)
where
    M: Message<Result = ()> + Unpin + 'static,
{
    let (sender, told) = mpsc::unbounded_channel();
    (Probe(sender).start(), told)
}

/// Where messages go that nobody looks at.
pub(crate) fn nowhere() -> Recipient<Do> {
    System::new().block_on(async { probe().0.recipient() })
}

pub(crate) fn attachment(name: &str) -> Attachment {
    let (speed, profile) = (Speed::High, Profile::default());
    Attachment { device: DeviceId(0), speed, vendor: 1, product: 2, name: name.to_owned(), profile }
}

/// A device of the bus with one interface of this class.
pub(crate) fn usb_device(port: &str, class: u8) -> which::Device {
    let Ok(Selector::Port { bus, ports }) = port.parse() else { panic!("{port} is no port") };
    which::Device {
        bus,
        ports,
        vendor: 0x1234,
        product: u16::from(class),
        speed: Some(Speed::High),
        class: Class::new(0, 0, 0),
        interfaces: vec![Class::new(class, 0, 0)],
        input: Input::Unknown,
        serial: None,
        maker: None,
        name: None,
    }
}

/// A remote that lends two devices, and everything around it.
pub(crate) struct World {
    pub(crate) remote: Addr<Remote>,
    /// What the devices were told to do.
    pub(crate) devices: [mpsc::UnboundedReceiver<Do>; 2],
    /// What the devices say.
    pub(crate) ends: Ends<mpsc::Sender<Ended>>,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    pub(crate) ended: oneshot::Receiver<ExitCode>,
    /// What the next attempts to connect come to; without any, they wait.
    attempts: mpsc::UnboundedSender<Attempt>,
    /// The kinds of the attempts so far, and how many of them have come to something.
    kinds: Arc<Mutex<Vec<Way>>>,
    came: Arc<AtomicUsize>,
    /// How many outcomes there were for them.
    outcomes: Cell<usize>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::recorded(None).await
    }

    /// What passes goes through this tap, too.
    pub(crate) async fn recorded(tap: Option<Tap>) -> Self {
        Self::made(tap, Wish::NoiseTcp).await
    }

    /// The remote tries these links.
    pub(crate) async fn trying(wish: Wish) -> Self {
        Self::made(None, wish).await
    }

    async fn made(tap: Option<Tap>, wish: Wish) -> Self {
        let (attempts, next) = mpsc::unbounded_channel();
        let next = Arc::new(tokio::sync::Mutex::new(next));
        let (kinds, came) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (tried, count) = (Arc::clone(&kinds), Arc::clone(&came));
        let connector = Box::new(move |way, _| {
            let next = Arc::clone(&next);
            let count = Arc::clone(&count);
            tried.lock().unwrap().push(way);
            let outcome = async move {
                let outcome = next.lock().await.recv().await.expect("the world lasts");
                count.fetch_add(1, Ordering::Relaxed);
                outcome
            };
            outcome.boxed()
        });
        let (said, ended) = oneshot::channel();
        let events = Events(Format::Json);
        let parts = Parts { connector, wish, events, seed: 1, tap, ended: said };
        let remote = Remote::new(parts).start();
        let ((a, told_a), (b, told_b)) = (probe(), probe());
        let lent = vec![
            Lent::new(PortId(0), a.recipient(), attachment("a")),
            Lent::new(PortId(1), b.recipient(), attachment("b")),
        ];
        let (ends, listening) = port::ends();
        let (sound, heard) = probe::<Heard>();
        let sound = Sound { heard: sound.clone().recipient(), end: sound.recipient() };
        remote.send(Begin { lent, ends: listening, sound }).await.unwrap();
        Self {
            remote,
            devices: [told_a, told_b],
            ends,
            heard,
            ended,
            attempts,
            kinds,
            came,
            outcomes: Cell::new(0),
        }
    }

    fn comes_to(&self, outcome: Attempt) {
        self.outcomes.set(self.outcomes.get() + 1);
        assert!(self.attempts.send(outcome).is_ok());
    }

    /// How many attempts there were so far.
    pub(crate) fn tried(&self) -> usize {
        self.kinds.lock().unwrap().len()
    }

    /// The kind of the latest of them.
    pub(crate) fn tries(&self) -> Option<Way> {
        self.kinds.lock().unwrap().last().copied()
    }

    /// Waits until every outcome was taken by an attempt.
    pub(crate) async fn until_tried(&self) {
        while self.came.load(Ordering::Relaxed) < self.outcomes.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The next attempt to connect reaches this host.
    pub(crate) fn accept(&self) -> Host {
        self.accept_in(None)
    }

    /// The same, and its answer in the handshake took so long.
    pub(crate) fn accept_in(&self, round_trip: Option<Duration>) -> Host {
        let (mine, theirs) = link::pair();
        self.comes_to(Ok(Linked { round_trip, ..to_vm(theirs) }));
        Host::new(mine)
    }

    /// The next attempt to connect reaches this host again.
    pub(crate) fn accept_again(&self, host: &mut Host) {
        self.accept_after(host, None);
    }

    /// The same, and its answer in the handshake took so long.
    pub(crate) fn accept_after(&self, host: &mut Host, round_trip: Option<Duration>) {
        let theirs = host.one_more();
        self.comes_to(Ok(Linked { round_trip, ..to_vm(theirs) }));
    }

    /// The next attempt comes to a link whose answer in the handshake took so long, and over which nothing is said.
    pub(crate) fn accept_beside(&self, round_trip: Option<Duration>) {
        let (_, theirs) = link::pair();
        self.comes_to(Ok(Linked { round_trip, ..to_vm(theirs) }));
    }

    /// The next attempt reaches somebody with another key.
    pub(crate) fn pose(&self) {
        self.comes_to(Err(NoLink::AnotherHost("another key".to_owned())));
    }

    /// The next attempt comes to nothing.
    pub(crate) fn fail(&self) {
        self.comes_to(Err(NoLink::Failed("no way".to_owned())));
    }

    /// The next attempt to connect reaches a host that does not know the session.
    pub(crate) async fn forget(&self) {
        let (mut mine, theirs) = link::pair();
        self.comes_to(Ok(to_vm(theirs)));
        let (lane, frame) = poll_fn(|cx| mine.poll_receive(cx)).await.unwrap();
        assert!(matches!(Opening::of(lane, frame), Ok(Opening::Resume(_))), "it wants to go on");
        poll_fn(|cx| mine.poll_ready(cx)).await.unwrap();
        mine.send(session::refusal(ResetReason::Unknown)).unwrap();
        poll_fn(|cx| mine.poll_flush(cx)).await.unwrap();
    }

    /// The next attempt is refused.
    pub(crate) fn refuse(&self, reason: Refusal) {
        let refused = NoLink::Refused { reason, text: "no".to_owned() };
        self.comes_to(Err(refused));
    }

    /// Lends one device more; what it is told.
    pub(crate) async fn lend(&self, id: u64, name: &str) -> mpsc::UnboundedReceiver<Do> {
        let (port, told) = probe();
        let lent = Lent::new(PortId(id), port.recipient(), attachment(name));
        self.remote.send(ports::Lend(lent)).await.unwrap();
        told
    }

    /// Lends a device no longer.
    pub(crate) async fn unlend(&self, whom: Whom) -> Option<(PortId, String)> {
        self.remote.send(Unlend { whom, because: Gone::Returned }).await.unwrap()
    }

    /// What a device is told next, with the credit for it.
    pub(crate) async fn told(&mut self, device: usize) -> (What, (Lane, usize)) {
        let Do { what, credit } = self.devices[device].recv().await.unwrap();
        (what, credit)
    }

    /// A device says something about a lane.
    pub(crate) async fn say(&self, lane: Lane, ended: Ended) {
        assert!(self.ends[port::place(lane)].send(ended).await.is_ok());
    }

    /// The exit code, as it is printed.
    pub(crate) async fn exit_code(&mut self) -> String {
        format!("{:?}", (&mut self.ended).await.unwrap())
    }
}

/// A link to the host's VM, as an attempt comes to it.
fn to_vm(link: Memory) -> Linked {
    Linked { link: Box::new(link), vm: "vm".to_owned(), round_trip: None }
}
