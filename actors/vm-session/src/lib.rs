//! The VmSession actor: one VM, one remote at a time. It supervises both controllers and carries messages between
//! them and the link of the moment.
//!
//! ```text
//!   UsbCtrl ──Submit──►┐                            ┌──► outbound (bounded) ──► link::drive ──► remote
//!   HdaCtrl ──Play────►├── VmSession ── Session ────┤        (I/O runtime)
//!   UsbCtrl ◄─stream───┤                            └──◄ inbound (bounded) ◄───
//!   HdaCtrl ◄─stream───┘
//! ```
//!
//! Everything but the link's I/O runs on the arbiter this actor was started on. What must survive a child (the
//! port map, the bus, the session) belongs here; a child that ends is noticed by its [`Tether`] and started again
//! within limits. A lost link is not a crash: it is a state. Today the devices are then unplugged cleanly and plugged
//! again when a remote returns, both jacks are empty, and the guest's sound runs on: into silence, and out of it.
#![forbid(unsafe_code)]

mod carried;
mod children;
mod link_of_the_moment;
mod ports;
mod send_away;
mod session_io;
mod shared;
mod sound;
mod tether;

use std::time::Duration;

use actix::prelude::*;
use capture::Tap;
use hda_ctrl::Play;
pub use hda_ctrl::Wish;
use link::{Link, PeerKey};
use pci::Bus;
use session::{Role, Session};
use tokio::{runtime::Handle, time::Instant};
use usb_ctrl::Submit;
use wire::ToRemote;

pub use carried::{Carried, LaneCarried};
pub use children::Child;
use children::{HdaSeat, UsbSeat};
use link_of_the_moment::{CurrentLink, Inbound, LinkEnded};
use ports::Ports;
pub use send_away::SendAway;
use session_io::Backlog;
pub use tether::{Ended, Tether};

/// A remote's authenticated link for this VM.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LinkUp {
    /// The link. A link that is there already is closed: its remote has been replaced.
    pub link: Box<dyn Link>,
}

/// The remote, if there is one, is sent away and nothing runs any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// What happens to a VM, told to whoever runs it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Event {
    /// A remote is there.
    Linked {
        /// Its authenticated key.
        remote: PeerKey,
    },
    /// The remote is gone.
    LinkLost {
        /// Why, for people.
        reason: String,
    },
    /// A device is lent.
    Attached {
        /// Its name, for people.
        name: String,
        /// `idVendor` and `idProduct`.
        id: (u16, u16),
    },
    /// Counters, once a second while they move.
    Counted(Box<Counters>),
    /// A child ended too often; the device it stood for is lost until the worker is started anew.
    GaveUp {
        /// Which.
        child: Child,
    },
}

/// What went to the remote since the start, and how it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of sound sent.
    pub frames: u64,
    /// USB requests sent.
    pub requests: u64,
    /// Links that came up.
    pub links: u64,
    /// Devices that are lent at the moment.
    pub devices: u64,
    /// What the session of the moment has carried.
    pub carried: Carried,
}

/// What a VmSession is made of.
pub struct Parts {
    /// The VM's name, for logs.
    pub name: String,
    /// The bus of the USB controller.
    pub usb: Bus,
    /// The USB controller's configuration space.
    pub usb_config: fn() -> pci::ConfigSpace,
    /// The USB controller's own settings; its first request is chosen here.
    pub xhci: xhci::Config,
    /// The bus of the HD Audio controller.
    pub hda: Bus,
    /// The HD Audio controller's configuration space.
    pub hda_config: fn() -> pci::ConfigSpace,
    /// The HD Audio controller's own settings.
    pub hda_settings: hda::Config,
    /// How what the guest plays is sent.
    pub codec: Wish,
    /// The runtime for the link's I/O and encryption.
    pub io: Handle,
    /// Records what goes to the remote's devices, and what comes of it.
    pub tap: Option<Tap>,
    /// Who is told what happens.
    pub events: Recipient<Event>,
}

/// The actor.
pub struct VmSession {
    name: String,
    usb: UsbSeat,
    hda: HdaSeat,
    io: Handle,
    tap: Option<Tap>,
    events: Recipient<Event>,
    start: Instant,
    ports: Ports,
    session: Session,
    backlog: Backlog,
    link: Option<CurrentLink>,
    generation: u32,
    counters: Counters,
    counted: Counters,
    timer: Option<(Duration, SpawnHandle)>,
}

impl VmSession {
    /// A session without a remote; its controllers start with it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            name: parts.name,
            usb: UsbSeat::new(parts.usb, parts.usb_config, parts.xhci),
            hda: HdaSeat::new(parts.hda, parts.hda_config, parts.hda_settings, parts.codec),
            io: parts.io,
            tap: parts.tap,
            events: parts.events,
            start: Instant::now(),
            ports: Ports::default(),
            session: Session::new(Role::Host, session::Config::default()),
            backlog: Backlog::default(),
            link: None,
            generation: 0,
            counters: Counters::default(),
            counted: Counters::default(),
            timer: None,
        }
    }

    fn tell(&self, event: Event) {
        self.events.do_send(event);
    }

    fn count(&mut self) {
        self.hda.sound.set_round_trip(self.session.stats().round_trip);
        self.counters.devices = self.ports.attached().len() as u64;
        self.counters.carried = Carried::by(&self.session);
        if self.counters != self.counted {
            self.counted = self.counters;
            self.tell(Event::Counted(Box::new(self.counters)));
        }
    }
}

impl Actor for VmSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_child(Child::Usb, ctx);
        self.start_child(Child::Hda, ctx);
        ctx.run_interval(Duration::from_secs(1), |act, _| act.count());
    }
}

impl Handler<LinkUp> for VmSession {
    type Result = ();

    fn handle(&mut self, LinkUp { link }: LinkUp, ctx: &mut Self::Context) {
        self.link_up(link, ctx);
    }
}

impl StreamHandler<Inbound> for VmSession {
    fn handle(&mut self, frames: Inbound, ctx: &mut Self::Context) {
        self.receive(frames, ctx);
    }

    /// The link's own end says so with its reason (`LinkEnded`).
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<LinkEnded> for VmSession {
    type Result = ();

    fn handle(&mut self, ended: LinkEnded, ctx: &mut Self::Context) {
        if self.link.as_ref().is_some_and(|link| link.generation == ended.generation) {
            self.link_lost(&ended.reason, ctx);
        }
    }
}

impl Handler<Submit> for VmSession {
    type Result = ();

    fn handle(&mut self, Submit(messages): Submit, ctx: &mut Self::Context) {
        let known = messages.into_iter().filter_map(|message| self.ports.address(message));
        let known: Vec<_> = known.collect();
        self.record(&known);
        let known: Vec<_> = known.into_iter().map(ToRemote::Usb).collect();
        self.counters.requests += known.len() as u64;
        self.send(known, ctx);
    }
}

impl Handler<Play> for VmSession {
    type Result = ();

    fn handle(&mut self, Play(messages): Play, ctx: &mut Self::Context) {
        self.counters.frames += self.hda.sound.note(&messages);
        self.send(messages.into_iter().map(ToRemote::Audio).collect(), ctx);
    }
}

impl Handler<Ended> for VmSession {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        self.child_ended(ended, ctx);
    }
}

impl Handler<Stop> for VmSession {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.say_goodbye(ctx);
        self.count();
        ctx.stop();
    }
}
