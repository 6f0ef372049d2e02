//! The remote's end of a link in memory.

use std::{collections::BTreeMap, future::poll_fn, task::Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use link::{Link, Memory, MemoryConfig, PeerKey};
use session::{LinkId, LinkKind, NewLink, Session};
use tokio::time::Instant;
use wire::{
    Lane, ToHost, ToRemote,
    control::{Attachment, Profile},
    usb::{self, Completion, DeviceId, Moved, Request, RequestId, Speed, Transfer},
};

use crate::world::World;

/// The remote's end of a session, driven by hand.
pub(crate) struct Remote {
    links: BTreeMap<LinkId, Memory>,
    last: u64,
    session: Session,
    start: Instant,
}

impl Remote {
    /// Without a link.
    pub(crate) fn new() -> Self {
        let session = Session::remote(session::Config::default());
        Self { links: BTreeMap::new(), last: 0, session, start: Instant::now() }
    }

    /// Gets one more link, and the session onto it.
    pub(crate) async fn join(&mut self, world: &World) {
        let id = self.open(world).await;
        self.until_on(id).await;
    }

    /// Waits until the session is on this link.
    pub(crate) async fn until_on(&mut self, id: LinkId) {
        while self.session.link() != Some(id) {
            self.receive().await;
        }
    }

    /// What the link that it is on has, and no other.
    pub(crate) fn binding(&self) -> [u8; 32] {
        self.session.link().and_then(|link| self.links.get(&link)).expect("it is on a link").binding()
    }

    /// The key by which the host knows it.
    pub(crate) fn key(&self) -> PeerKey {
        MemoryConfig::default().keys[1]
    }

    /// Asks for a session that the host does not have; the host's answer.
    pub(crate) async fn refused(&mut self, world: &World) -> session::ResetReason {
        self.open(world).await;
        loop {
            match self.session.poll_event() {
                Some(session::Event::Reset(reason)) => return reason,
                Some(_) => {}
                None => self.receive().await,
            }
        }
    }

    /// Answers what the host asks, which is no message.
    pub(crate) async fn hear_nothing(&mut self) {
        while self.receive().now_or_never().is_some() {}
        while let Some(event) = self.session.poll_event() {
            assert!(!matches!(event, session::Event::Message(..)), "{event:?}");
        }
    }

    /// Says hello with this key, and does not wait.
    pub(crate) async fn ask(&mut self, world: &World, key: PeerKey) {
        let default = MemoryConfig::default();
        let keys = default.keys.map(|_| key);
        let link = world.link_of(MemoryConfig { keys, ..default }).await;
        self.open_on(link).await;
    }

    async fn open(&mut self, world: &World) -> LinkId {
        self.open_on(world.link().await).await
    }

    /// Gets this link, and asks for the session.
    pub(crate) async fn open_on(&mut self, link: Memory) -> LinkId {
        self.last += 1;
        let id = LinkId(self.last);
        let new = NewLink { id, kind: LinkKind::STREAM, binding: link.binding(), opens: true };
        self.session.link_up(self.start.elapsed(), new).expect("a session that wants a link");
        self.links.insert(id, link);
        self.flush().await;
        id
    }

    /// Ends the session in good order.
    pub(crate) async fn leave(&mut self) {
        self.session.close("the remote ends");
        self.flush().await;
    }

    /// All links break.
    pub(crate) fn cut(&mut self) {
        for (id, link) in std::mem::take(&mut self.links) {
            drop(link);
            self.session.link_down(self.start.elapsed(), id);
        }
    }

    /// Says something to the host.
    pub(crate) async fn say(&mut self, message: ToHost) {
        self.session.send(message.encode()).expect("room in the session");
        self.flush().await;
    }

    /// Lends a device.
    pub(crate) async fn lend(&mut self, device: u32) {
        self.lend_as(device, Profile::default()).await;
    }

    /// Lends a device with this profile.
    pub(crate) async fn lend_as(&mut self, device: u32, profile: Profile) {
        self.lend_at(Speed::High, device, profile).await;
    }

    /// The same, of this speed.
    pub(crate) async fn lend_at(&mut self, speed: Speed, device: u32, profile: Profile) {
        let attachment = Attachment {
            device: DeviceId(device),
            speed,
            vendor: 1,
            product: 2,
            name: "a device".into(),
            profile,
        };
        self.say(ToHost::Control(wire::control::ToHost::Attached(attachment))).await;
    }

    /// The next transfer of this kind that the guest asks for; port resets before it are done.
    pub(crate) async fn asked_for(&mut self, kind: impl Fn(&Transfer) -> bool) -> Request {
        loop {
            match self.hear().await {
                ToRemote::Usb(usb::ToRemote::Submit(request)) if kind(&request.transfer) => return request,
                ToRemote::Usb(usb::ToRemote::Reset { id, .. }) => self.end(id, Moved::Out(0)).await,
                _ => {}
            }
        }
    }

    /// A request ends well.
    pub(crate) async fn end(&mut self, id: RequestId, moved: Moved) {
        let (result, packets, lane) = (Ok(()), Vec::new(), Lane::Int);
        self.say(ToHost::Completed(Completion { id, result, moved, packets, lane })).await;
    }

    /// Says something that is no message.
    pub(crate) async fn say_raw(&mut self, lane: Lane, body: Bytes) {
        self.session.send(wire::Message { lane, head: Bytes::new(), body }).expect("room in the session");
        self.flush().await;
    }

    /// The next message from the host.
    pub(crate) async fn hear(&mut self) -> ToRemote {
        loop {
            match self.session.poll_event() {
                Some(session::Event::Message(lane, bytes)) => {
                    self.session.consumed(lane, bytes.len());
                    return ToRemote::decode(lane, bytes).expect("the host speaks properly");
                }
                Some(session::Event::Retired(link)) => drop(self.links.remove(&link)),
                Some(_) => {}
                None => self.receive().await,
            }
        }
    }

    /// Takes a frame of any link.
    async fn receive(&mut self) {
        let links = &mut self.links;
        let frame = poll_fn(|cx| {
            let mut ready = links.iter_mut().filter_map(|(id, link)| match link.poll_receive(cx) {
                Poll::Ready(frame) => Some((*id, frame)),
                Poll::Pending => None,
            });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        });
        let (id, frame) = frame.await;
        let (lane, frame): (Lane, Bytes) = frame.expect("a live link");
        let now = self.start.elapsed();
        self.session.receive_on(now, id, lane, frame).expect("the host keeps the protocol");
        self.flush().await;
    }

    /// Whether the host has closed every link, as far as can be seen now.
    pub(crate) fn closed(&mut self) -> bool {
        self.links.values_mut().all(|link| {
            let received = poll_fn(|cx| link.poll_receive(cx)).now_or_never();
            matches!(received, Some(Err(_)))
        })
    }

    async fn flush(&mut self) {
        let now = self.start.elapsed();
        for (id, link) in &mut self.links {
            while let Some(frame) = self.session.poll_transmit_on(now, *id) {
                // The host may have hung up already; what it said before can still be read.
                if poll_fn(|cx| link.poll_ready(cx)).await.is_err() {
                    break;
                }
                link.send(frame).expect("room on the link");
            }
            drop(poll_fn(|cx| link.poll_flush(cx)).await);
        }
    }
}
