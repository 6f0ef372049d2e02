//! The controllers: how they start, and what happens when one ends.

use std::time::Duration;

use actix::prelude::*;
use hda_ctrl::{HdaCtrl, Wish};
use pci::{Bus, ConfigSpace, Restarts};
use tokio::sync::mpsc;
use usb_ctrl::UsbCtrl;
use wire::{ToRemote, usb::Completion};

use crate::{Ended, Event, Tether, VmSession, shared::SharedBus, sound::Sound};

/// Batches of completions on their way into the controller.
const COMPLETION_BATCHES: usize = 16;

/// A supervised child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Child {
    /// The USB controller's actor.
    Usb,
    /// The HD Audio controller's actor.
    Hda,
}

/// What the parent keeps for the USB controller, and where it is at the moment.
pub(crate) struct UsbSeat {
    bus: SharedBus,
    config: fn() -> ConfigSpace,
    xhci: xhci::Config,
    restarts: Restarts,
    generation: u32,
    pub(crate) addr: Option<Addr<UsbCtrl>>,
    pub(crate) completions: Option<mpsc::Sender<Vec<Completion>>>,
}

/// Numbers of runs that an HdaCtrl has for itself, with all the models that it builds.
const RUNS: u32 = 1 << 24;

/// What the parent keeps for the HD Audio controller, and where it is at the moment.
pub(crate) struct HdaSeat {
    bus: SharedBus,
    config: fn() -> ConfigSpace,
    hda: hda::Config,
    pub(crate) codec: Wish,
    restarts: Restarts,
    generation: u32,
    pub(crate) addr: Option<Addr<HdaCtrl>>,
    pub(crate) sound: Sound,
}

impl UsbSeat {
    pub(crate) fn new(bus: Bus, config: fn() -> ConfigSpace, xhci: xhci::Config) -> Self {
        let (bus, restarts) = (SharedBus::new(bus), Restarts::default());
        Self { bus, config, xhci, restarts, generation: 0, addr: None, completions: None }
    }
}

impl HdaSeat {
    pub(crate) fn new(bus: Bus, config: fn() -> ConfigSpace, hda: hda::Config, codec: Wish) -> Self {
        let (bus, restarts, sound) = (SharedBus::new(bus), Restarts::default(), Sound::default());
        Self { bus, config, hda, codec, restarts, generation: 0, addr: None, sound }
    }
}

impl VmSession {
    pub(crate) fn start_child(&mut self, child: Child, ctx: &mut Context<Self>) {
        match child {
            Child::Usb => self.start_usb(ctx),
            Child::Hda => self.start_hda(ctx),
        }
    }

    fn start_usb(&mut self, ctx: &mut Context<Self>) {
        self.usb.generation += 1;
        let tether = Tether::new(&ctx.address(), Child::Usb, self.usb.generation);
        let (sender, completions) = mpsc::channel(COMPLETION_BATCHES);
        let parts = usb_ctrl::Parts {
            bus: self.usb.bus.lend(),
            config: (self.usb.config)(),
            xhci: xhci::Config { first_request: self.ports.next_request(), ..self.usb.xhci.clone() },
            completions,
            session: ctx.address().recipient(),
            plugged: ctx.address().recipient(),
            lent: self.ports.attached(),
            // Moved into the parts here, outside the actor: a start that fails or panics reports, too.
            tether: Box::new(tether),
        };
        self.usb.completions = Some(sender);
        self.live.iter_mut().for_each(|live| live.keys.restart());
        match UsbCtrl::new(parts) {
            Ok(controller) => self.usb.addr = Some(controller.start()),
            Err(error) => tracing::error!(vm = %self.name, %error, "the USB controller cannot start"),
        }
    }

    fn start_hda(&mut self, ctx: &mut Context<Self>) {
        // The remote may have heard the actor before: this one's runs are others.
        let runs_before = self.hda.generation.wrapping_mul(RUNS);
        self.hda.generation += 1;
        let tether = Tether::new(&ctx.address(), Child::Hda, self.hda.generation);
        let parts = hda_ctrl::Parts {
            bus: self.hda.bus.lend(),
            config: (self.hda.config)(),
            hda: hda::Config { runs_before, ..self.hda.hda },
            reports: self.hda.sound.reports(),
            jacks: self.hda.sound.jacks(),
            round_trip: self.hda.sound.round_trip(),
            codec: self.wish(),
            session: ctx.address().recipient(),
            tether: Box::new(tether),
        };
        match HdaCtrl::new(parts) {
            Ok(controller) => self.hda.addr = Some(controller.start()),
            Err(error) => tracing::error!(vm = %self.name, %error, "the sound controller cannot start"),
        }
    }

    /// Judges the end of a child: stale, start again after a while, or give up.
    pub(crate) fn child_ended(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        let now = self.start.elapsed();
        let (generation, restarts) = match ended.child {
            Child::Usb => (self.usb.generation, &mut self.usb.restarts),
            Child::Hda => (self.hda.generation, &mut self.hda.restarts),
        };
        if ended.generation != generation {
            return;
        }
        metrics::counter!("farbus_child_ends").increment(1);
        let Some(due) = restarts.failed(now) else { return self.give_up(ended.child, ctx) };
        let after = due.saturating_sub(now);
        let (child, panicked) = (ended.child, ended.panicked);
        tracing::error!(vm = %self.name, ?child, panicked, ?after, "a controller's actor ended; starting it again");
        self.forget_child(child, ctx);
        ctx.run_later(after.max(Duration::from_millis(1)), move |act, ctx| act.start_child(child, ctx));
    }

    fn give_up(&mut self, child: Child, ctx: &mut Context<Self>) {
        tracing::error!(vm = %self.name, ?child, "ended too often; the device stays dead until the worker is started anew");
        self.forget_child(child, ctx);
        self.tell(Event::GaveUp { child });
    }

    pub(crate) fn to_usb<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        UsbCtrl: Handler<M>,
    {
        if let Some(usb) = &self.usb.addr {
            usb.do_send(message);
        }
    }

    fn forget_child(&mut self, child: Child, ctx: &mut Context<Self>) {
        match child {
            Child::Usb => {
                self.usb.addr = None;
                self.usb.completions = None;
            }
            Child::Hda => {
                self.hda.addr = None;
                // Nobody listens any more.
                let stops = self.hda.sound.stop_recordings();
                self.send(stops.map(ToRemote::Audio).collect(), ctx);
            }
        }
    }
}
