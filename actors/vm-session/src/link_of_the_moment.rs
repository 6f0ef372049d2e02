//! The link of the moment: its I/O runs elsewhere, two bounded channels lead to it.

use actix::prelude::*;
use capture::Tap;
use futures_util::stream::{self, Stream};
use hda_ctrl::RemoteCame;
use link::Link;
use session::{Role, Session};
use tokio::sync::mpsc;
use usb_ctrl::Detach;
use wire::{Lane, Message, ToRemote, control};

use crate::{Event, VmSession, session_io::Backlog};

/// Frames chosen, but not yet taken by the link: small, so that the choice is made late.
const OUTBOUND_FRAMES: usize = 4;
/// Frames received, but not yet taken by the session.
const INBOUND_FRAMES: usize = 64;
/// The most frames that one item of the inbound stream carries: each is up to 60 KiB to put together, and a guest waits.
const FRAMES_PER_TURN: usize = 4;

/// Frames from the link, in order.
pub(crate) struct Inbound {
    pub(crate) generation: u32,
    pub(crate) frames: Vec<(Lane, bytes::Bytes)>,
}

/// The link of this generation has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkEnded {
    pub(crate) generation: u32,
    pub(crate) reason: String,
}

/// What the arbiter knows of the link.
pub(crate) struct CurrentLink {
    pub(crate) generation: u32,
    pub(crate) outbound: mpsc::Sender<Message>,
    /// A future waits for room in `outbound`.
    pub(crate) waiting: bool,
    inbound: SpawnHandle,
}

impl VmSession {
    /// A link is there: the one before it ends, a new session begins.
    pub(crate) fn link_up(&mut self, link: Box<dyn Link>, ctx: &mut Context<Self>) {
        if self.link.is_some() {
            self.say_goodbye(ctx);
            self.link_lost("another remote took the VM over", ctx);
        }
        self.generation += 1;
        let generation = self.generation;
        let remote = link.peer();
        let (outbound, to_link) = mpsc::channel(OUTBOUND_FRAMES);
        let (from_link, inbound) = mpsc::channel(INBOUND_FRAMES);
        let io = self.io.spawn(link::drive(link, to_link, from_link));
        let ended = async move {
            match io.await {
                Ok(end) => end.to_string(),
                Err(error) => format!("the link's driver failed: {error}"),
            }
        };
        ctx.spawn(
            ended.into_actor(self).map(move |reason, _, ctx| ctx.notify(LinkEnded { generation, reason })),
        );
        let inbound = ctx.add_stream(batches(generation, inbound));
        self.link = Some(CurrentLink { generation, outbound, waiting: false, inbound });
        self.session = Session::new(Role::Host, session::Config::default());
        self.backlog = Backlog::default();
        self.tap.iter_mut().for_each(Tap::renew);
        self.counters.links += 1;
        self.tell(Event::Linked { remote });
        if let Some(hda) = &self.hda.addr {
            hda.do_send(RemoteCame);
        }
        self.transmit(ctx);
    }

    /// The link is gone: a clean unplug of everything that was lent, and of what is in the jacks.
    pub(crate) fn link_lost(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if let Some(link) = self.link.take() {
            ctx.cancel_future(link.inbound);
        }
        for device in self.ports.detach_all() {
            self.to_usb(Detach { device });
        }
        self.hda.sound.unplug();
        self.set_timer(None, ctx);
        self.tell(Event::LinkLost { reason: reason.to_owned() });
    }

    /// Tells the remote that the session ends, as far as there is room to say it.
    pub(crate) fn say_goodbye(&mut self, ctx: &mut Context<Self>) {
        let text = "the host ends this session".to_owned();
        self.send(vec![ToRemote::Control(control::ToRemote::Bye { text, retry: false })], ctx);
    }

    pub(crate) fn to_usb<M>(&self, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        usb_ctrl::UsbCtrl: Handler<M>,
    {
        if let Some(usb) = &self.usb.addr {
            usb.do_send(message);
        }
    }
}

/// Frames in batches: what has come in the meantime, at most [`FRAMES_PER_TURN`].
fn batches(
    generation: u32,
    mut inbound: mpsc::Receiver<(Lane, bytes::Bytes)>,
) -> impl Stream<Item = Inbound> {
    stream::poll_fn(move |cx| {
        let mut frames = Vec::with_capacity(FRAMES_PER_TURN);
        inbound
            .poll_recv_many(cx, &mut frames, FRAMES_PER_TURN)
            .map(|count| (count > 0).then_some(Inbound { generation, frames }))
    })
}
