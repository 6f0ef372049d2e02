//! The UsbCtrl actor: an [`xhci`] model on a bus, between one VM and one session.
//!
//! ```text
//!   bus ──Transaction──►┐                       ┌─► Submit ──► session
//!   session ─completions►├─► turn(model, cx) ───┼─► Interrupts::raise
//!   session ─Attach/Detach►┤                    └─► alarm := model's deadline
//!   alarm ──────────────►┘
//! ```
//!
//! Every item is one *turn*: the model changes, what it asks for is carried out, the alarm is set anew. The actor
//! knows nothing of TRBs. Transactions, completions and alarms are streams, so none of them starves another;
//! messages are for control. If the model panics, [`pci::Device`] answers as a failed controller, and the devices
//! are attached anew once it is rebuilt.
#![forbid(unsafe_code)]

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use actix::prelude::*;
use alarm::{Alarm, Rang};
use futures_util::stream::{self, Stream};
use pci::{Bus, Device, Transaction, Turn};
use tokio::{sync::mpsc, time::Instant};
use wire::{
    control::Profile,
    usb::{Completion, DeviceId, RequestId, Speed, ToRemote},
};
use xhci::{Output, PortId, Xhci};

/// USB messages for the remote, in order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Submit(pub Vec<ToRemote>);

/// A device is lent from now on.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The device.
    pub device: DeviceId,
    /// The speed that chooses its port.
    pub speed: Speed,
    /// What is known of it beforehand.
    pub profile: Arc<Profile>,
}

/// A device is plugged in, or could not be: told whenever that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Plugged {
    /// The device.
    pub device: DeviceId,
    /// Into which port; none if all that fit its speed are taken.
    pub port: Option<PortId>,
}

/// A device is gone.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Detach {
    /// The device.
    pub device: DeviceId,
}

/// What a UsbCtrl is made of.
pub struct Parts {
    /// The bus that the guest is on.
    pub bus: Bus,
    /// The PCI function's configuration space.
    pub config: pci::ConfigSpace,
    /// The controller's own settings.
    pub xhci: xhci::Config,
    /// Ends of requests, from the session, in batches.
    pub completions: mpsc::Receiver<Vec<Completion>>,
    /// Where requests go.
    pub session: Recipient<Submit>,
    /// Who is told which device is in which port.
    pub plugged: Recipient<Plugged>,
    /// The devices that are lent already.
    pub lent: Vec<Attach>,
    /// Dropped with the actor, however it ends: the parent's way to notice.
    pub tether: Box<dyn Send>,
}

/// The actor.
pub struct UsbCtrl {
    device: Device<Xhci>,
    bus: Bus,
    completions: Option<mpsc::Receiver<Vec<Completion>>>,
    session: Recipient<Submit>,
    plugged: Recipient<Plugged>,
    lent: BTreeMap<DeviceId, Attach>,
    start: Instant,
    alarm: Alarm,
    alarm_at: Option<Duration>,
    out: Vec<Output>,
    next_request: Rc<Cell<u64>>,
    _tether: Box<dyn Send>,
}

impl UsbCtrl {
    /// A controller with nothing running yet.
    ///
    /// # Errors
    /// The system has no descriptors left for the alarm.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let next_request = Rc::new(Cell::new(parts.xhci.first_request.0));
        let first = Rc::clone(&next_request);
        let build =
            move || Xhci::new(xhci::Config { first_request: RequestId(first.get()), ..parts.xhci.clone() });
        Ok(Self {
            device: Device::new(parts.config, build),
            bus: parts.bus,
            completions: Some(parts.completions),
            session: parts.session,
            plugged: parts.plugged,
            lent: parts.lent.into_iter().map(|attach| (attach.device, attach)).collect(),
            start: Instant::now(),
            alarm: Alarm::new()?,
            alarm_at: None,
            out: Vec::new(),
            next_request,
            _tether: parts.tether,
        })
    }

    /// One turn: `step` changes the controller, then its effects are carried out.
    fn turn(&mut self, step: impl FnOnce(&mut Turn<'_, Xhci>)) {
        let now = self.start.elapsed();
        step(&mut self.device.turn(now, &*self.bus.dma, &mut self.out));
        self.carry_out(now);
    }

    fn tick(&mut self) {
        self.alarm_at = None;
        let now = self.start.elapsed();
        if self.device.tick(now, &*self.bus.dma, &mut self.out).rebuilt {
            metrics::counter!("farbus_usb_rebuilds").increment(1);
            self.forget_requests();
            self.attach_all(now);
        }
        self.carry_out(now);
    }

    /// A new model knows no request of the old one: the remote is told to forget them, too.
    fn forget_requests(&mut self) {
        for device in self.lent.keys() {
            let id = RequestId(self.next_request.replace(self.next_request.get() + 1));
            self.out.push(Output::Usb(ToRemote::Reset { device: *device, id }));
        }
    }

    fn attach_all(&mut self, now: Duration) {
        let mut turn = self.device.turn(now, &*self.bus.dma, &mut self.out);
        for lent in self.lent.values() {
            self.plugged.do_send(attach(&mut turn, lent.clone()));
        }
    }

    fn carry_out(&mut self, now: Duration) {
        let mut messages = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Usb(message) => messages.push(message),
                Output::Interrupt(vector) => self.bus.interrupts.raise(vector),
            }
        }
        if !messages.is_empty() {
            self.remember_ids(&messages);
            self.session.do_send(Submit(messages));
        }
        let deadline = self.device.deadline();
        if deadline != self.alarm_at {
            self.alarm.set(deadline.map(|at| at.saturating_sub(now)));
            self.alarm_at = deadline;
        }
    }

    /// Ids are never reused in a session, not even by a rebuilt model.
    fn remember_ids(&self, messages: &[ToRemote]) {
        for message in messages {
            if let Some(id) = message.id() {
                self.next_request.set(self.next_request.get().max(id.0 + 1));
            }
        }
    }
}

/// The batches, each with a pause behind it in which the guest's accesses have their turn: a batch may be a long copy.
fn one_by_one(mut batches: mpsc::Receiver<Vec<Completion>>) -> impl Stream<Item = Vec<Completion>> {
    let mut pause = false;
    stream::poll_fn(move |cx| {
        if std::mem::replace(&mut pause, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = ready!(batches.poll_recv(cx));
        pause = true;
        Poll::Ready(batch)
    })
}

fn attach(turn: &mut Turn<'_, Xhci>, Attach { device, speed, profile }: Attach) -> Plugged {
    let port = turn.with(|xhci, cx| xhci.attach(cx, device, speed, profile)).and_then(|port| {
        let warn = |error| tracing::warn!(device = device.0, %error, "the device is lent, but there is no port for it");
        port.map_err(warn).ok()
    });
    Plugged { device, port }
}

impl Actor for UsbCtrl {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let transactions = std::mem::replace(&mut self.bus.transactions, Box::pin(stream::empty()));
        ctx.add_stream(transactions);
        ctx.add_stream(self.alarm.clone());
        if let Some(completions) = self.completions.take() {
            ctx.add_stream(one_by_one(completions));
        }
        self.attach_all(self.start.elapsed());
        self.carry_out(self.start.elapsed());
    }
}

impl StreamHandler<Box<dyn Transaction>> for UsbCtrl {
    fn handle(&mut self, transaction: Box<dyn Transaction>, _: &mut Self::Context) {
        self.turn(|turn| transaction.perform(turn));
    }
}

impl StreamHandler<Rang> for UsbCtrl {
    fn handle(&mut self, _: Rang, _: &mut Self::Context) {
        self.tick();
    }
}

impl StreamHandler<Vec<Completion>> for UsbCtrl {
    fn handle(&mut self, batch: Vec<Completion>, _: &mut Self::Context) {
        self.turn(|turn| {
            for completion in batch {
                let _ = turn.with(|xhci, cx| xhci.complete(cx, completion));
            }
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {
        tracing::debug!("no more completions: the session is gone");
    }
}

impl Handler<Attach> for UsbCtrl {
    type Result = ();

    fn handle(&mut self, lent: Attach, _: &mut Self::Context) {
        self.lent.insert(lent.device, lent.clone());
        let plugged = self.plugged.clone();
        self.turn(|turn| plugged.do_send(attach(turn, lent)));
    }
}

impl Handler<Detach> for UsbCtrl {
    type Result = ();

    fn handle(&mut self, Detach { device }: Detach, _: &mut Self::Context) {
        self.lent.remove(&device);
        self.turn(|turn| {
            let _ = turn.with(|xhci, cx| xhci.detach(cx, device));
        });
    }
}
