//! A host at the other end of links in memory, and actors that only record what they are told.

use std::{
    cell::Cell,
    future::poll_fn,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use capture::Tap;
use futures_util::FutureExt;
use link::{Link, Memory};
use session::{
    Config, Event, Identity, LinkId, LinkKind, NewLink, Opening, ResetReason, Secret, Session, SessionId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::{
    Lane, Message, ToHost, ToRemote,
    control::{self, Attachment, Profile, Refusal},
    usb::{DeviceId, Endpoint, Payload, Request, RequestId, Setup, Speed, Transfer},
};

use crate::{
    cli::Format,
    events::{Events, Gone, Totals},
    lent::Lent,
    port::{self, Do, Ended, Ends, PortId, What},
    ports::{self, Unlend, Whom},
    remote::{Begin, Parts, Remote, Sound},
    sound::{End, Heard},
    usb::which::{self, Class, Input, Selector},
    ways::{Attempt, Linked, NoLink, Wish},
};

/// An actor that passes on what it is told.
pub(crate) struct Probe<M>(pub(crate) mpsc::UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: actix::Message<Result = ()> + Unpin + 'static> Handler<M> for Probe<M> {
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
    M: actix::Message<Result = ()> + Unpin + 'static,
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
    /// Attempts so far, and how many of them have come to something.
    tried: Arc<[AtomicUsize; 2]>,
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
        let tried = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let count = Arc::clone(&tried);
        let connector = Box::new(move |_, _| {
            let next = Arc::clone(&next);
            let count = Arc::clone(&count);
            count[0].fetch_add(1, Ordering::Relaxed);
            let outcome = async move {
                let outcome = next.lock().await.recv().await.expect("the world lasts");
                count[1].fetch_add(1, Ordering::Relaxed);
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
            tried,
            outcomes: Cell::new(0),
        }
    }

    fn comes_to(&self, outcome: Attempt) {
        self.outcomes.set(self.outcomes.get() + 1);
        assert!(self.attempts.send(outcome).is_ok());
    }

    /// How many attempts there were so far.
    pub(crate) fn tried(&self) -> usize {
        self.tried[0].load(Ordering::Relaxed)
    }

    /// Waits until every outcome was taken by an attempt.
    pub(crate) async fn until_tried(&self) {
        while self.tried[1].load(Ordering::Relaxed) < self.outcomes.get() {
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

/// The ways to and from a link.
type Ways = (mpsc::Sender<Message>, mpsc::Receiver<(Lane, Bytes)>);

/// The host's end of a session, and the link it is on.
pub(crate) struct Host {
    session: Session,
    start: Instant,
    link: LinkId,
    outbound: mpsc::Sender<Message>,
    inbound: mpsc::Receiver<(Lane, Bytes)>,
    /// Links that it does not listen to any more.
    others: Vec<Ways>,
    /// Why the remote says it left.
    pub(crate) left: Option<String>,
    /// The remote's credit is kept from it.
    pub(crate) withholds: bool,
}

impl Host {
    fn new(link: Memory) -> Self {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let identity = Identity { id: SessionId([id; 16]), secret: Secret::new([id; 32]) };
        let session = Session::host(identity, Config::default());
        let (outbound, inbound) = (mpsc::channel(1).0, mpsc::channel(1).1);
        let start = Instant::now();
        let mut host = Self {
            session,
            start,
            link: LinkId(0),
            outbound,
            inbound,
            others: Vec::new(),
            left: None,
            withholds: false,
        };
        host.join(link);
        host
    }

    /// One more link, which may be listened to or not; the other end of it.
    fn one_more(&mut self) -> Memory {
        let (mine, theirs) = link::pair();
        self.join(mine);
        theirs
    }

    /// One more link, which is the only one that is listened to from now on.
    fn join(&mut self, link: Memory) {
        self.link = LinkId(self.link.0 + 1);
        let new = NewLink { id: self.link, kind: LinkKind::STREAM, binding: link.binding(), opens: false };
        self.session.link_up(self.start.elapsed(), new).unwrap();
        let (outbound, to_link) = mpsc::channel(4);
        let (from_link, inbound) = mpsc::channel(64);
        tokio::spawn(link::drive(Box::new(link), to_link, from_link));
        let outbound = std::mem::replace(&mut self.outbound, outbound);
        let inbound = std::mem::replace(&mut self.inbound, inbound);
        self.others.push((outbound, inbound));
    }

    /// Nothing more passes over the link, which stays open for as long as this lives.
    pub(crate) fn stand_still(&mut self) -> impl Sized + use<> {
        let outbound = std::mem::replace(&mut self.outbound, mpsc::channel(1).0);
        let inbound = std::mem::replace(&mut self.inbound, mpsc::channel(1).1);
        (outbound, inbound)
    }

    /// Takes the session on over the newest link, over which nothing comes back. In time it says so over the one before.
    pub(crate) async fn answers_in_vain(&mut self) -> impl Sized + use<> {
        let (lane, claim) = self.inbound.recv().await.expect("the remote asks for the session");
        self.session.receive_on(self.start.elapsed(), self.link, lane, claim).unwrap();
        assert_eq!(self.session.link(), Some(self.link));
        let dead = self.stand_still();
        let before = LinkId(self.link.0 - 1);
        let (outbound, _) = self.others.last().expect("a link before");
        loop {
            if let Some(frame) = self.session.poll_transmit_on(self.start.elapsed(), before) {
                outbound.send(frame).await.expect("the link before lives");
                return dead;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.session.on_timeout(self.start.elapsed());
        }
    }

    /// The link breaks; the session does not.
    pub(crate) fn cut(&mut self) {
        (self.outbound, self.inbound) = (mpsc::channel(1).0, mpsc::channel(1).1);
        self.others.clear();
        self.session.link_down(self.start.elapsed(), self.link);
    }

    pub(crate) async fn say(&mut self, message: ToRemote) {
        self.session.send(message.encode()).unwrap();
        self.transmit().await;
    }

    /// Says it if there is room to say it.
    pub(crate) async fn offer(&mut self, message: ToRemote) -> bool {
        let message = message.encode();
        while self.session.room(message.lane) < message.len() {
            let before = self.session.queued(message.lane);
            self.settle(Duration::from_millis(200)).await;
            if self.session.queued(message.lane) == before {
                return false;
            }
        }
        let offered = self.session.send(message).is_ok();
        self.transmit().await;
        offered
    }

    /// Lets things go on for so long; messages of the remote meanwhile are lost.
    pub(crate) async fn settle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(Some(_)) = tokio::time::timeout_at(until, self.next()).await {}
    }

    async fn transmit(&mut self) {
        while let Some(frame) = self.session.poll_transmit_on(self.start.elapsed(), self.link) {
            if self.outbound.send(frame).await.is_err() {
                return;
            }
        }
    }

    /// The next message of the remote; none when the link has ended.
    pub(crate) async fn next(&mut self) -> Option<ToHost> {
        loop {
            match self.session.poll_event() {
                Some(Event::Message(lane, bytes)) => {
                    if !self.withholds {
                        self.session.consumed(lane, bytes.len());
                    }
                    return Some(ToHost::decode(lane, bytes).unwrap());
                }
                Some(Event::PeerClosed(reason)) => self.left = Some(reason),
                Some(Event::PeerSilent) => panic!("the remote has fallen silent"),
                Some(Event::Attached { .. } | Event::Detached | Event::Retired(_) | Event::PeerQuiet)
                | None => {}
                Some(end @ (Event::Expired | Event::Reset(_))) => panic!("{end:?}"),
            }
            self.transmit().await;
            let timeout = self.session.poll_timeout().unwrap_or(Duration::from_secs(3600));
            tokio::select! {
                frame = self.inbound.recv() => {
                    let (lane, frame) = frame?;
                    self.session.receive_on(self.start.elapsed(), self.link, lane, frame).unwrap();
                }
                () = tokio::time::sleep_until(self.start + timeout) => {
                    self.session.on_timeout(self.start.elapsed());
                }
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> ToHost {
        self.next().await.expect("the remote has more to say")
    }

    /// The devices that the remote attaches first.
    pub(crate) async fn attached(&mut self) -> [DeviceId; 2] {
        let mut ids = [DeviceId(0); 2];
        for (id, name) in ids.iter_mut().zip(["a", "b"]) {
            *id = self.hears_of(name).await;
        }
        ids
    }

    /// The device that is attached next, which has this name.
    pub(crate) async fn hears_of(&mut self, name: &str) -> DeviceId {
        let message = self.hear().await;
        let ToHost::Control(control::ToHost::Attached(attached)) = message else { panic!("{message:?}") };
        assert_eq!(attached.name, name);
        attached.device
    }

    /// Waits until the link has ended; messages meanwhile are lost.
    pub(crate) async fn until_gone(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// A control transfer that asks for a device descriptor.
pub(crate) fn request(device: DeviceId, id: u64) -> Request {
    let setup = Setup { request_type: 0x80, request: 6, value: 0x0100, index: 0, length: 18 };
    Request {
        id: RequestId(id),
        device,
        endpoint: Endpoint::CONTROL,
        transfer: Transfer::Control(setup),
        payload: Payload::In { max: 18 },
    }
}
