//! A remote made by hand: its session and its links are the test's.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use functions::Function;
use lab::farbus::{Host, PATIENCE};
use link::{Link, Recorder, Recording};
use noise_tcp::{HandshakeError, NoiseTcp, SecretKey};
use session::{Config, Event, LinkId, LinkKind, NewLink, Session};
use tokio::time::{Sleep, timeout};
use wire::{
    Lane, ToHost, ToRemote,
    control::{self, Answer, Attachment, Hello},
    usb::{self, DeviceId},
};

/// The only device that it lends.
const DEVICE: DeviceId = DeviceId(1);
/// More frames than any of these tests says over one link.
const KEPT: usize = 1 << 14;

/// Connects to the host with this key; no session yet.
pub(crate) async fn connect(host: &Host, key: &SecretKey) -> Result<NoiseTcp, HandshakeError> {
    let hello =
        Hello { version: wire::VERSION, vm: Some("a".to_owned()), name: String::new(), signalling: false };
    let public = host.key.parse().expect("the host prints its key");
    let (link, answer) = noise_tcp::connect(&*host.address, public, key, &hello).await?;
    match answer {
        Answer::Welcome { .. } => Ok(link),
        Answer::Refused { reason, text } => Err(HandshakeError::Refused { reason, text }),
    }
}

/// A session, and the link it is on.
pub(crate) struct Remote {
    session: Session,
    link: Recorder<NoiseTcp>,
    id: LinkId,
    start: Instant,
    timer: std::pin::Pin<Box<Sleep>>,
    device: Option<Box<dyn Function + Send>>,
    /// Whether it reads what the host says.
    pub(crate) reads: bool,
}

impl Remote {
    /// A new session over this link; the recording is of all that passes.
    pub(crate) async fn begin(link: NoiseTcp) -> Result<(Self, Recording)> {
        let (link, recording) = Recorder::new(link, KEPT);
        let start = Instant::now();
        let mut remote = Self {
            session: Session::remote(Config::default()),
            link,
            id: LinkId(0),
            start,
            timer: Box::pin(tokio::time::sleep_until(start.into())),
            device: None,
            reads: true,
        };
        remote.open(false).await?;
        Ok((remote, recording))
    }

    /// The same session over another link; the one before is dropped.
    pub(crate) async fn go_on(&mut self, link: NoiseTcp) -> Result<Recording> {
        let (link, recording) = Recorder::new(link, KEPT);
        self.session.link_down(self.start.elapsed(), self.id);
        self.link = link;
        self.open(true).await?;
        Ok(recording)
    }

    async fn open(&mut self, again: bool) -> Result<()> {
        self.id = LinkId(self.id.0 + 1);
        let profile = self.link.profile();
        let kind = LinkKind { ordered: profile.ordered, lossy: profile.lossy };
        let new = NewLink { id: self.id, kind, binding: self.link.binding(), opens: true };
        self.session.link_up(self.start.elapsed(), new)?;
        self.until(|remote| remote.session.link() == Some(remote.id)).await?;
        let moves = self.session.stats().resumes;
        anyhow::ensure!((moves > 0) == again, "{moves} resumes");
        Ok(())
    }

    /// Lends this device.
    pub(crate) fn lend(&mut self, device: impl Function + Send + 'static) -> Result<()> {
        let (vendor, product) = device.id();
        let (speed, profile) = (device.speed(), device.profile());
        let attachment =
            Attachment { device: DEVICE, speed, vendor, product, name: "by hand".to_owned(), profile };
        self.device = Some(Box::new(device));
        self.say(ToHost::Control(control::ToHost::Attached(attachment)))
    }

    fn say(&mut self, message: ToHost) -> Result<()> {
        Ok(self.session.send(message.encode())?)
    }

    /// Lives until this is so.
    pub(crate) async fn until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let lives = poll_fn(|cx| {
            self.turn(cx)?;
            if done(self) { Poll::Ready(anyhow::Ok(())) } else { Poll::Pending }
        });
        timeout(PATIENCE, lives).await.context("it does not come to that")?
    }

    /// Lives while something else is done.
    pub(crate) async fn beside<T>(&mut self, other: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = other => done,
            ended = self.until(|_| false) => bail!("the session is over: {ended:?}"),
        }
    }

    /// Moves everything that can be moved.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.step(cx)? {}
        Ok(())
    }

    /// Whether something moved.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let (now, mut moved) = (self.start.elapsed(), false);
        while self.link.poll_ready(cx)?.is_ready() {
            let Some(frame) = self.session.poll_transmit_on(now, self.id) else { break };
            self.link.send(frame)?;
        }
        let _ = self.link.poll_flush(cx)?;
        while self.reads
            && let Poll::Ready(came) = self.link.poll_receive(cx)
        {
            let (lane, frame) = came?;
            self.session.receive_on(now, self.id, lane, frame)?;
            moved = true;
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(lane, bytes) => self.hear(lane, bytes)?,
                Event::Expired | Event::Reset(_) | Event::PeerClosed(_) => bail!("{event:?}"),
                _ => {}
            }
        }
        moved |= self.carry_out(now)?;
        if let Some(at) = self.session.poll_timeout() {
            self.timer.as_mut().reset((self.start + at).into());
            if self.timer.as_mut().poll(cx).is_ready() {
                self.session.on_timeout(self.start.elapsed());
                moved = true;
            }
        }
        Ok(moved)
    }

    fn hear(&mut self, lane: Lane, bytes: Bytes) -> Result<()> {
        self.session.consumed(lane, bytes.len());
        let Some(device) = &mut self.device else { return Ok(()) };
        match ToRemote::decode(lane, bytes)? {
            ToRemote::Usb(usb::ToRemote::Submit(request)) => device.submit(request),
            ToRemote::Usb(usb::ToRemote::Follow(follow)) => device.submit(follow.into()),
            ToRemote::Usb(usb::ToRemote::Cancel { endpoint, through, .. }) => {
                device.cancel(endpoint, through)
            }
            ToRemote::Usb(usb::ToRemote::Reset { id, .. }) => {
                let (result, moved) = (device.reset(id), usb::Moved::Out(0));
                let end = usb::Completion { id, result, moved, packets: Vec::new(), lane: Lane::Ctl };
                self.say(ToHost::Completed(end))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What the device has done goes, as far as there is room.
    fn carry_out(&mut self, now: Duration) -> Result<bool> {
        let mut moved = false;
        for lane in [Lane::Ctl, Lane::Int, Lane::Bulk] {
            while self.session.room(lane) > wire::MAX_BODY
                || lane != Lane::Bulk && self.session.room(lane) > 1 << 16
            {
                let Some(end) = self.device.as_mut().and_then(|device| device.poll(now, lane)) else { break };
                self.say(ToHost::Completed(end))?;
                moved = true;
            }
        }
        Ok(moved)
    }
}
