//! A host at the other end of links in memory.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use bytes::Bytes;
use link::{Link as _, Memory};
use session::{Config, Event, Identity, LinkId, LinkKind, NewLink, Secret, Session, SessionId};
use tokio::{sync::mpsc, time::Instant};
use wire::{
    Lane, Message, ToHost, ToRemote, control,
    usb::{DeviceId, Endpoint, Payload, Request, RequestId, Setup, Transfer},
};

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
    /// How long what the remote says is on its way, frame by frame.
    pub(crate) delay: fn(usize) -> Duration,
    /// Frames so far, and those that are on their way.
    frames: usize,
    on_its_way: VecDeque<(Instant, LinkId, (Lane, Bytes))>,
}

impl Host {
    pub(super) fn new(link: Memory) -> Self {
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
            delay: |_| Duration::ZERO,
            frames: 0,
            on_its_way: VecDeque::new(),
        };
        host.join(link);
        host
    }

    /// One more link, which may be listened to or not; the other end of it.
    pub(super) fn one_more(&mut self) -> Memory {
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
        self.on_its_way.clear();
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
            if let Some((_, link, (lane, frame))) =
                self.on_its_way.pop_front_if(|(at, ..)| *at <= Instant::now())
            {
                self.session.receive_on(self.start.elapsed(), link, lane, frame).unwrap();
                continue;
            }
            let arrives = self.on_its_way.front().map(|(at, ..)| *at);
            let timeout = self.session.poll_timeout().unwrap_or(Duration::from_secs(3600));
            tokio::select! {
                frame = self.inbound.recv() => {
                    let at = Instant::now() + (self.delay)(self.frames);
                    self.frames += 1;
                    self.on_its_way.push_back((at, self.link, frame?));
                }
                () = tokio::time::sleep_until(arrives.unwrap_or_else(Instant::now)), if arrives.is_some() => {}
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
