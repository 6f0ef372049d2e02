//! The Remote actor: connects, comes back, and carries messages between the session and what is lent.
//!
//! ```text
//!              connected                       link lost, or the host leaves
//!   Waiting ───────────────► Linked(session) ───────────────────────────────► Waiting (back-off)
//!      │ refused for good, or asked to end
//!      └──────────────────────────────────────► ended, with an exit code
//! ```
//! A new link is a new session: every device is attached anew. The functions themselves (a disk's content, a keyboard's
//! keys that wait) outlive it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use actix::prelude::*;
use link::Link;
use noise_tcp::{HandshakeError, NoiseTcp, SecretKey};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use wire::{
    ToHost, ToRemote,
    control::{self, Answer, Attachment, Hello, Refusal},
    usb::{self, DeviceId},
};

use crate::{
    backoff::Backoff,
    cli::Connect,
    events::{Event, Events},
    live::{Inbound, LinkEnded, Live},
    port::{self, Completed, Do},
    sound::{End, Heard, Report, Silence, Sound},
};

/// The exit code for a host that refuses for good.
pub(crate) const REFUSED: u8 = 3;

/// A device that is lent.
pub(crate) struct Lent {
    /// Where its messages go.
    pub(crate) port: Recipient<Do>,
    /// How it is presented; the id is this session's.
    pub(crate) attachment: Attachment,
}

/// What a Remote is made of.
pub(crate) struct Parts {
    pub(crate) connect: Connect,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) io: Handle,
    pub(crate) events: Events,
    pub(crate) seed: u64,
    /// Told once, with the exit code.
    pub(crate) ended: oneshot::Sender<ExitCode>,
}

/// The actor.
pub(crate) struct Remote {
    connect: Connect,
    key: Arc<SecretKey>,
    io: Handle,
    events: Events,
    backoff: Backoff,
    ended: Option<oneshot::Sender<ExitCode>>,
    pub(crate) start: Instant,
    lent: Vec<Lent>,
    sound: Option<Addr<Sound>>,
    pub(crate) live: Option<Live>,
    /// Counts sessions; what comes from an older one is not for this one.
    pub(crate) session: u64,
}

/// What is lent: known before the Remote connects.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Lend {
    pub(crate) lent: Vec<Lent>,
    pub(crate) sound: Addr<Sound>,
}

/// The user wants to end.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

impl Remote {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { connect, key, io, events, seed, ended } = parts;
        Self {
            connect,
            key,
            io,
            events,
            backoff: Backoff::new(seed),
            ended: Some(ended),
            start: Instant::now(),
            lent: Vec::new(),
            sound: None,
            live: None,
            session: 0,
        }
    }

    fn try_to_connect(&mut self, ctx: &mut Context<Self>) {
        let hello = Hello { version: wire::VERSION, vm: self.connect.vm.clone(), name: host_name() };
        let (address, host, key) = (self.connect.host.clone(), self.connect.host_key, Arc::clone(&self.key));
        let attempt = self.io.spawn(async move { noise_tcp::connect(&*address, host, &key, &hello).await });
        ctx.spawn(attempt.into_actor(self).map(|result, act, ctx| match result {
            Ok(Ok((link, answer))) => act.linked(link, answer, ctx),
            Ok(Err(HandshakeError::Refused { reason, text })) => act.refused(reason, text, ctx),
            Ok(Err(error)) => act.try_again(error.to_string(), ctx),
            Err(error) => act.try_again(format!("the attempt failed: {error}"), ctx),
        }));
    }

    fn linked(&mut self, link: NoiseTcp, answer: Answer, ctx: &mut Context<Self>) {
        let Answer::Welcome { vm } = answer else { return };
        self.backoff.succeeded();
        self.session += 1;
        self.live = Some(Live::start(Box::new(link) as Box<dyn Link>, self.session, &self.io, self, ctx));
        self.events.say(&Event::Connected { vm });
        let session = self.session;
        let mut attached = Vec::new();
        for (number, lent) in self.lent.iter_mut().enumerate() {
            lent.port.do_send(Do::Renew { session });
            lent.attachment.device = DeviceId(number as u32 + 1);
            attached.push(lent.attachment.clone());
        }
        for attachment in attached {
            self.events.say(&Event::Attached { name: attachment.name.clone() });
            self.send(ToHost::Control(control::ToHost::Attached(attachment)), ctx);
        }
    }

    fn refused(&mut self, reason: Refusal, text: String, ctx: &mut Context<Self>) {
        let again = matches!(reason, Refusal::Busy | Refusal::Unavailable);
        self.events.say(&Event::Refused { text: text.clone(), again });
        if again {
            return self.try_again(text, ctx);
        }
        tracing::error!("the host refuses this remote: {text}");
        self.end(ExitCode::from(REFUSED), ctx);
    }

    fn try_again(&mut self, reason: String, ctx: &mut Context<Self>) {
        let after = self.backoff.failed();
        let again_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.events.say(&Event::Disconnected { reason, again_in_ms });
        ctx.run_later(after.max(Duration::from_millis(1)), Self::try_to_connect);
    }

    /// The link is gone, for whatever reason.
    pub(crate) fn link_lost(&mut self, reason: String, ctx: &mut Context<Self>) {
        if let Some(live) = self.live.take() {
            live.cancel(ctx);
        }
        if let Some(sound) = &self.sound {
            sound.do_send(Silence);
        }
        self.try_again(reason, ctx);
    }

    /// Carries out what the host said.
    pub(crate) fn route(&mut self, message: ToRemote, ctx: &mut Context<Self>) {
        match message {
            ToRemote::Usb(message) => self.route_usb(message, ctx),
            ToRemote::Audio(message) => {
                if let Some(sound) = &self.sound {
                    sound.do_send(Heard(message));
                }
            }
            ToRemote::Control(control::ToRemote::Bye { text, retry }) => {
                if retry {
                    return self.link_lost(text, ctx);
                }
                // Another remote took the VM, or the host ends: coming back at once would only fight.
                self.backoff.failed();
                self.link_lost(text, ctx);
            }
        }
    }

    fn route_usb(&mut self, message: usb::ToRemote, ctx: &mut Context<Self>) {
        let (usb::ToRemote::Submit(usb::Request { device, .. })
        | usb::ToRemote::Cancel { device, .. }
        | usb::ToRemote::Reset { device, .. }) = &message;
        let port = self.lent.iter().find(|lent| lent.attachment.device == *device).map(|lent| &lent.port);
        match (port, message) {
            (Some(port), usb::ToRemote::Submit(request)) => port.do_send(Do::Submit(request)),
            (Some(port), usb::ToRemote::Cancel { endpoint, through, .. }) => {
                port.do_send(Do::Cancel { endpoint, through });
            }
            (Some(port), usb::ToRemote::Reset { id, .. }) => port.do_send(Do::Reset { id }),
            (None, usb::ToRemote::Submit(request)) => {
                self.send(ToHost::Completed(port::nobody(&request)), ctx);
            }
            (None, other) => tracing::debug!(?other, "for a device that is not lent"),
        }
    }

    fn end(&mut self, code: ExitCode, ctx: &mut Context<Self>) {
        if let Some(ended) = self.ended.take() {
            // Nobody waits any more: the process is ending already.
            let _ = ended.send(code);
        }
        ctx.stop();
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().take(64).collect()
}

impl Actor for Remote {
    type Context = Context<Self>;
}

impl Handler<Lend> for Remote {
    type Result = ();

    fn handle(&mut self, Lend { lent, sound }: Lend, ctx: &mut Self::Context) {
        self.lent = lent;
        self.sound = Some(sound);
        self.try_to_connect(ctx);
    }
}

impl Handler<Completed> for Remote {
    type Result = ();

    fn handle(&mut self, Completed { session, completions }: Completed, ctx: &mut Self::Context) {
        if session == self.session && self.live.is_some() {
            self.send_all(completions.into_iter().map(ToHost::Completed), ctx);
        }
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
        if ended.session == self.session && self.live.is_some() {
            self.link_lost(ended.reason, ctx);
        }
    }
}

impl Handler<Leave> for Remote {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        if let Some(live) = self.live.take() {
            live.cancel(ctx);
        }
        let sound = self.sound.take();
        // The sound's file is complete before the process may end.
        let finished = async move {
            if let Some(sound) = sound {
                let _ = sound.send(End).await;
            }
        };
        Box::pin(finished.into_actor(self).map(|(), act, ctx| act.end(ExitCode::SUCCESS, ctx)))
    }
}
