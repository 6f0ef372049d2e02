//! The devices of a Remote: they come and go at any time, and are attached anew in each session.
//!
//! An id of the wire is never used twice in a session; a port's id never at all. A device that goes is detached at once:
//! what the host asks of it later ends as disconnected here, what it was asked before ends so in its port.

use std::time::SystemTime;

use actix::prelude::*;
use serde::{Deserialize, Serialize};
use wire::{
    Lane, ToHost, control,
    usb::{self, DeviceId, Payload},
};

use crate::{
    events::{Event, Gone},
    flight::nobody,
    lent::{Lent, Traffic},
    live::Live,
    port::{Do, Ended, PortId, What},
    remote::Remote,
    session_status::SessionStatus,
};

/// Lends one device more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Lend(pub(crate) Lent);

/// Lends a device no longer. The answer: which one that was, and its name.
#[derive(Debug, Message)]
#[rtype(result = "Option<(PortId, String)>")]
pub(crate) struct Unlend {
    pub(crate) whom: Whom,
    pub(crate) because: Gone,
}

/// A lent device.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whom {
    /// What this port carries out.
    Port(PortId),
    /// The one that has this id in this session.
    Device(DeviceId),
}

/// What is lent, in the order of its lending.
#[derive(Debug, Message)]
#[rtype(result = "Report")]
pub(crate) struct Status;

/// The answer to [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The VM that has it; none while there is no session.
    pub(crate) vm: Option<String>,
    /// How the way there does.
    pub(crate) session: Option<SessionStatus>,
    /// What is lent.
    pub(crate) lent: Vec<Row>,
}

/// A lent device, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its id in this session; none while the VM does not have it.
    pub(crate) device: Option<u32>,
    /// Where it is plugged in, if it is a real one.
    pub(crate) bus_port: Option<String>,
    /// `idVendor:idProduct`.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) speed: String,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// Seconds since it was lent.
    pub(crate) lent_for_s: u64,
}

impl Row {
    fn new(lent: &Lent) -> Self {
        let Lent { attachment, attached, bus_port, traffic, since, .. } = lent;
        let lent_for = SystemTime::now().duration_since(*since).unwrap_or_default();
        Self {
            device: attached.then_some(attachment.device.0),
            bus_port: bus_port.clone(),
            id: format!("{:04x}:{:04x}", attachment.vendor, attachment.product),
            name: attachment.name.clone(),
            speed: format!("{:?}", attachment.speed).to_lowercase(),
            traffic: *traffic,
            lent_for_s: lent_for.as_secs(),
        }
    }
}

impl Remote {
    /// Lends a device under a new id, from its beginning.
    pub(crate) fn attach(&mut self, port: PortId, ctx: &mut Context<Self>) {
        let Some(lent) = self.lent.get_mut(&port) else { return };
        self.last_device += 1;
        let attachment = lent.renew(DeviceId(self.last_device), self.session);
        self.events.say(&Event::Attached {
            device: attachment.device.0,
            vendor: attachment.vendor,
            product: attachment.product,
            name: attachment.name.clone(),
            bus_port: lent.bus_port.clone(),
        });
        self.send(ToHost::Control(control::ToHost::Attached(attachment)), ctx);
    }

    fn detached(&mut self, lent: &Lent, because: Gone, again: bool, ctx: &mut Context<Self>) {
        let (device, bus_port) = (lent.attachment.device, lent.bus_port.clone());
        let name = lent.attachment.name.clone();
        self.events.say(&Event::Detached { device: device.0, name, bus_port, because, again });
        self.send(ToHost::Control(control::ToHost::Detached { device }), ctx);
    }

    /// A device failed: it is gone for the host, and comes back unless it fails too often.
    fn device_gone(&mut self, port: PortId, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let Some(mut lent) = self.lent.remove(&port) else { return };
        if lent.attached {
            let again = lent.failed(now);
            self.detached(&lent, Gone::Failed, again.is_some(), ctx);
            if let Some(after) = again {
                let session = self.session;
                ctx.run_later(after, move |act, ctx| {
                    if act.session == session && act.live.is_some() {
                        act.attach(port, ctx);
                    }
                });
            }
        }
        self.lent.insert(port, lent);
    }

    /// The host has unplugged a device, because there was no link for too long: it is lent anew.
    pub(crate) fn lend_again(&mut self, device: DeviceId, ctx: &mut Context<Self>) {
        let lent = self.lent.values().find(|lent| lent.attached && lent.attachment.device == device);
        let Some(port) = lent.map(|lent| lent.id) else { return };
        self.attach(port, ctx);
    }

    fn unlend(&mut self, whom: Whom, because: Gone, ctx: &mut Context<Self>) -> Option<(PortId, String)> {
        let is_it = |lent: &Lent| match whom {
            Whom::Port(port) => lent.id == port,
            Whom::Device(device) => lent.attached && lent.attachment.device == device,
        };
        let id = self.lent.values().find(|lent| is_it(lent))?.id;
        let lent = self.lent.remove(&id)?;
        if lent.attached {
            self.detached(&lent, because, false, ctx);
        }
        lent.tell(What::Unplug);
        Some((id, lent.attachment.name))
    }

    pub(crate) fn route_usb(
        &mut self,
        message: usb::ToRemote,
        credit: (Lane, usize),
        ctx: &mut Context<Self>,
    ) {
        let device = message.device();
        let lent = self.lent.values().find(|lent| lent.attached && lent.attachment.device == device);
        let port = lent.map(|lent| &lent.port);
        let what = match message {
            usb::ToRemote::Submit(request) => What::Submit(request),
            usb::ToRemote::Follow(follow) => What::Follow { after: follow.after, request: follow.into() },
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
            What::Submit(request) | What::Follow { request, .. } => {
                nobody(lane, request.id, matches!(request.payload, Payload::In { .. }))
            }
            What::Reset { id } | What::Streams { id, .. } => nobody(lane, id, false),
            What::Cancel { .. } | What::Renew { .. } | What::Unplug => return live.consumed(lane, length),
        };
        live.queue(ToHost::Completed(completion), length);
        self.transmit(ctx);
    }

    /// What a port has to say. One that is not lent any more still gives credit back.
    pub(crate) fn ended(&mut self, lane: Lane, ended: Ended, ctx: &mut Context<Self>) {
        let Ended { session, port, completions, taken, gone } = ended;
        let Some(live) = self.live.as_mut().filter(|_| session == self.session) else { return };
        self.totals.requests += completions.len() as u64;
        if let Some(lent) = self.lent.get_mut(&port) {
            completions.iter().for_each(|completion| lent.traffic.count(completion));
        }
        completions.into_iter().for_each(|completion| live.queue(ToHost::Completed(completion), 0));
        live.consumed(lane, taken);
        if gone {
            self.device_gone(port, ctx);
        }
    }
}

impl Handler<Lend> for Remote {
    type Result = ();

    fn handle(&mut self, Lend(lent): Lend, ctx: &mut Self::Context) {
        if self.ending() {
            return lent.tell(What::Unplug);
        }
        let id = lent.id;
        self.lent.insert(id, lent);
        if self.live.as_ref().is_some_and(Live::begun) {
            self.attach(id, ctx);
        }
    }
}

impl Handler<Unlend> for Remote {
    type Result = Option<(PortId, String)>;

    fn handle(&mut self, Unlend { whom, because }: Unlend, ctx: &mut Self::Context) -> Self::Result {
        self.unlend(whom, because, ctx)
    }
}

impl Handler<Status> for Remote {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        let lent = self.lent.values().map(Row::new).collect();
        let session = self.live.as_ref().map(Live::status);
        MessageResult(Report { vm: self.vm.clone(), session, lent })
    }
}
