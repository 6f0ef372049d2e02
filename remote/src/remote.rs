//! The Remote actor: connects, comes back, and carries messages between the session and what is lent.
//!
//! ```text
//!              connected                       link lost, or the host leaves
//!   Waiting ───────────────► Linked(session) ───────────────────────────────► Waiting (back-off)
//!      │ refused for good, or asked to end       │ asked to end, or sent away for good
//!      └──────────────────────────────────────►  ended: goodbye said, sound finished, an exit code
//! ```
//! A new link is a new session: every device is attached anew. The functions themselves (a disk's content, a keyboard's
//! keys that wait) outlive it.

use std::{process::ExitCode, time::Duration};

use actix::prelude::*;
use futures_util::future::BoxFuture;
use link::Link;
use noise_tcp::HandshakeError;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::{
    Lane, ToHost, ToRemote,
    control::{self, Answer, Refusal},
    usb::{self, DeviceId},
};

use crate::{
    backoff::Backoff,
    events::{Event, Events, Totals},
    lent::Lent,
    live::{Inbound, LinkEnded, Live},
    port::{self, Do, Ended, Ends, What},
    sound::{End, Heard, Report},
};

/// The exit code for a host that refuses for good.
pub(crate) const REFUSED: u8 = 3;
/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Tries to get a link: what came of it.
pub(crate) type Connector = Box<dyn Fn() -> BoxFuture<'static, Attempt>>;
/// A link with the host's answer, or why there is none.
pub(crate) type Attempt = Result<(Box<dyn Link>, Answer), HandshakeError>;

/// What a Remote is made of.
pub(crate) struct Parts {
    pub(crate) connector: Connector,
    /// Where links are driven.
    pub(crate) io: Handle,
    pub(crate) events: Events,
    pub(crate) seed: u64,
    /// Told once, with the exit code.
    pub(crate) ended: oneshot::Sender<ExitCode>,
}

/// The actor.
pub(crate) struct Remote {
    connector: Connector,
    io: Handle,
    events: Events,
    backoff: Backoff,
    /// None when it is ending.
    ended: Option<oneshot::Sender<ExitCode>>,
    farewell: Option<oneshot::Sender<()>>,
    totals: Totals,
    pub(crate) start: Instant,
    lent: Vec<Lent>,
    last_device: u32,
    /// Where ports say what ended, by lane; none while somebody listens there.
    pub(crate) ends: Ends<Option<mpsc::Receiver<Ended>>>,
    sound: Option<Sound>,
    pub(crate) live: Option<Live>,
    /// Counts sessions; what comes from an older one is not for this one.
    pub(crate) session: u64,
}

/// The sound, as the Remote knows it.
#[derive(Clone)]
pub(crate) struct Sound {
    /// Its mailbox is bounded: sound that finds it full is late, and lost.
    pub(crate) heard: Recipient<Heard>,
    pub(crate) end: Recipient<End>,
}

/// What is lent: known before the Remote connects.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Lend {
    pub(crate) lent: Vec<Lent>,
    pub(crate) ends: Ends<mpsc::Receiver<Ended>>,
    pub(crate) sound: Sound,
}

/// The user wants to end.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

impl Remote {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { connector, io, events, seed, ended } = parts;
        Self {
            connector,
            io,
            events,
            backoff: Backoff::new(seed),
            ended: Some(ended),
            farewell: None,
            totals: Totals::default(),
            start: Instant::now(),
            lent: Vec::new(),
            last_device: 0,
            ends: Ends::default(),
            sound: None,
            live: None,
            session: 0,
        }
    }

    fn try_to_connect(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn((self.connector)().into_actor(self).map(|attempt, act, ctx| match attempt {
            Ok((link, Answer::Welcome { vm })) => act.linked(link, vm, ctx),
            Ok((_, Answer::Refused { reason, text })) | Err(HandshakeError::Refused { reason, text }) => {
                act.refused(reason, text, ctx);
            }
            Err(error) => act.try_again(error.to_string(), Duration::ZERO, ctx),
        }));
    }

    fn ending(&self) -> bool {
        self.ended.is_none()
    }

    fn linked(&mut self, link: Box<dyn Link>, vm: String, ctx: &mut Context<Self>) {
        if self.ending() {
            return;
        }
        self.session += 1;
        self.totals.sessions += 1;
        self.live = Some(Live::start(link, self.session, &self.io, self, ctx));
        self.events.say(&Event::Connected { vm });
        for number in 0..self.lent.len() {
            self.attach(number, ctx);
        }
    }

    /// Lends a device under a new id, from its beginning.
    fn attach(&mut self, number: usize, ctx: &mut Context<Self>) {
        let Some(lent) = self.lent.get_mut(number) else { return };
        self.last_device += 1;
        let attachment = lent.renew(DeviceId(self.last_device), self.session);
        self.events.say(&Event::Attached {
            device: attachment.device.0,
            vendor: attachment.vendor,
            product: attachment.product,
            name: attachment.name.clone(),
        });
        self.send(ToHost::Control(control::ToHost::Attached(attachment)), ctx);
    }

    /// A device failed: it is gone for the host, and comes back unless it fails too often.
    fn device_gone(&mut self, number: usize, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(lent) = self.lent.get_mut(number) else { return };
        let (device, again) = (lent.attachment.device, lent.failed(now));
        let name = lent.attachment.name.clone();
        self.events.say(&Event::Detached { device: device.0, name, again: again.is_some() });
        self.send(ToHost::Control(control::ToHost::Detached { device }), ctx);
        if let Some(after) = again {
            let session = self.session;
            ctx.run_later(after, move |act, ctx| {
                if act.session == session && act.live.is_some() {
                    act.attach(number, ctx);
                }
            });
        }
    }

    fn refused(&mut self, reason: Refusal, text: String, ctx: &mut Context<Self>) {
        let again = matches!(reason, Refusal::Busy | Refusal::Unavailable);
        self.events.say(&Event::Refused { reason: format!("{reason:?}"), text: text.clone(), again });
        if again {
            return self.try_again(format!("refused: {text}"), Duration::ZERO, ctx);
        }
        tracing::error!("the host refuses this remote: {text}");
        self.finish(ExitCode::from(REFUSED), ctx);
    }

    fn try_again(&mut self, reason: String, lasted: Duration, ctx: &mut Context<Self>) {
        if self.ending() {
            return;
        }
        let after = self.backoff.after(lasted);
        let again_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.events.say(&Event::Disconnected { reason, again_in_ms });
        ctx.run_later(after, |act, ctx| {
            if !act.ending() {
                act.try_to_connect(ctx);
            }
        });
    }

    /// Takes the session down; how long it lasted.
    fn hang_up(&mut self, ctx: &mut Context<Self>) -> Option<Duration> {
        let live = self.live.take()?;
        let lasted = self.start.elapsed().saturating_sub(live.since);
        live.cancel(ctx);
        self.hear(Heard::Silence);
        self.listen(ctx);
        Some(lasted)
    }

    /// The link is gone, for whatever reason.
    pub(crate) fn link_lost(&mut self, reason: String, ctx: &mut Context<Self>) {
        if let Some(lasted) = self.hang_up(ctx) {
            self.try_again(reason, lasted, ctx);
        }
    }

    fn hear(&self, what: Heard) {
        let Some(sound) = &self.sound else { return };
        match what {
            Heard::Silence => sound.heard.do_send(what),
            // What is dropped here shows as a gap there.
            Heard::Audio(_) => drop(sound.heard.try_send(what)),
        }
    }

    /// Carries out what the host said.
    pub(crate) fn route(&mut self, message: ToRemote, lane: Lane, length: usize, ctx: &mut Context<Self>) {
        match message {
            // Credited when the port has taken it.
            ToRemote::Usb(message) => return self.route_usb(message, (lane, length), ctx),
            ToRemote::Audio(message) => self.hear(Heard::Audio(message)),
            ToRemote::Control(control::ToRemote::Bye { text, retry: true }) => {
                return self.link_lost(text, ctx);
            }
            ToRemote::Control(control::ToRemote::Bye { text, retry: false }) => {
                self.events.say(&Event::Refused { reason: "Bye".to_owned(), text, again: false });
                return self.finish(ExitCode::from(REFUSED), ctx);
            }
        }
        if let Some(live) = &mut self.live {
            live.consumed(lane, length);
        }
    }

    fn route_usb(&mut self, message: usb::ToRemote, credit: (Lane, usize), ctx: &mut Context<Self>) {
        let (usb::ToRemote::Submit(usb::Request { device, .. })
        | usb::ToRemote::Cancel { device, .. }
        | usb::ToRemote::Reset { device, .. }
        | usb::ToRemote::Streams { device, .. }) = &message;
        let port = self.lent.iter().find(|lent| lent.attachment.device == *device).map(|lent| &lent.port);
        let what = match message {
            usb::ToRemote::Submit(request) => What::Submit(request),
            usb::ToRemote::Cancel { endpoint, through, .. } => What::Cancel { endpoint, through },
            usb::ToRemote::Reset { id, .. } => What::Reset { id },
            usb::ToRemote::Streams { id, endpoints, count, .. } => What::Streams { id, endpoints, count },
        };
        match port {
            // The host's credit bounds what may wait there.
            Some(port) => port.do_send(Do { what, credit }),
            None => self.nobodys(what, credit, ctx),
        }
    }

    /// A message for a device that is not lent.
    fn nobodys(&mut self, what: What, (lane, length): (Lane, usize), ctx: &mut Context<Self>) {
        let Some(live) = &mut self.live else { return };
        let completion = match what {
            What::Submit(request) => port::nobody(lane, request.id, Some(&request.payload)),
            What::Reset { id } | What::Streams { id, .. } => port::nobody(lane, id, None),
            What::Cancel { .. } | What::Renew { .. } => return live.consumed(lane, length),
        };
        live.queue(ToHost::Completed(completion), length);
        self.transmit(ctx);
    }

    /// What a port has to say.
    pub(crate) fn ended(&mut self, lane: Lane, ended: Ended, ctx: &mut Context<Self>) {
        let Ended { session, port, completions, taken, gone } = ended;
        let Some(live) = self.live.as_mut().filter(|_| session == self.session) else { return };
        self.totals.requests += completions.len() as u64;
        completions.into_iter().for_each(|completion| live.queue(ToHost::Completed(completion), 0));
        live.consumed(lane, taken);
        if gone {
            self.device_gone(port, ctx);
        }
    }

    /// Ends: says goodbye, lets the sound finish, then tells the exit code.
    fn finish(&mut self, code: ExitCode, ctx: &mut Context<Self>) {
        let Some(ended) = self.ended.take() else { return };
        let (said, goodbye) = oneshot::channel();
        if let Some(live) = &mut self.live {
            live.close("the remote ends");
            self.farewell = Some(said);
            self.transmit(ctx);
            self.hang_up_when_said(ctx);
        }
        let sound = self.sound.take();
        let finished = async move {
            // A goodbye that takes too long is not said.
            let _ = tokio::time::timeout(FAREWELL, goodbye).await;
            match sound {
                Some(sound) => sound.end.send(End).await.unwrap_or_default(),
                None => Totals::default(),
            }
        };
        ctx.spawn(finished.into_actor(self).map(move |heard, act, ctx| {
            let totals = Totals { sessions: act.totals.sessions, requests: act.totals.requests, ..heard };
            act.events.say(&Event::Ended(totals));
            // Nobody waits any more: the process is ending already.
            let _ = ended.send(code);
            ctx.stop();
        }));
    }

    /// The goodbye is on its way: what is left is to close the link after it.
    pub(crate) fn hang_up_when_said(&mut self, ctx: &mut Context<Self>) {
        if self.ending() && self.live.as_ref().is_some_and(Live::closed) {
            self.hang_up(ctx);
        }
    }
}

impl Actor for Remote {
    type Context = Context<Self>;
}

impl Handler<Lend> for Remote {
    type Result = ();

    fn handle(&mut self, Lend { lent, ends, sound }: Lend, ctx: &mut Self::Context) {
        (self.lent, self.ends, self.sound) = (lent, ends.map(Some), Some(sound));
        self.listen(ctx);
        self.try_to_connect(ctx);
    }
}

impl Handler<Report> for Remote {
    type Result = ();

    fn handle(&mut self, Report(report): Report, ctx: &mut Self::Context) {
        self.send(ToHost::Audio(report), ctx);
    }
}

impl StreamHandler<Inbound> for Remote {
    fn handle(&mut self, frames: Inbound, ctx: &mut Self::Context) {
        self.receive(frames, ctx);
    }

    /// The link's own end says so with its reason ([`LinkEnded`]).
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<LinkEnded> for Remote {
    type Result = ();

    fn handle(&mut self, ended: LinkEnded, ctx: &mut Self::Context) {
        if ended.session != self.session {
            return;
        }
        self.link_lost(ended.reason, ctx);
        if let Some(said) = self.farewell.take() {
            // Whoever waited for it may have lost patience.
            let _ = said.send(());
        }
    }
}

impl Handler<Leave> for Remote {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        self.finish(ExitCode::SUCCESS, ctx);
    }
}
