//! What holds the controller together: registers that act, and the order in which work is done. xHCI 1.2 §4.2, §5.4.

use core::time::Duration;

use pci::Cx;
use wire::usb::{Completion, Failure};

use crate::{
    Output, Owner, Xhci,
    budget::Budget,
    command::CommandRing,
    endpoint::{CONTROL, Endpoint, LAST},
    event_ring::RingError,
    interrupter::Events,
    port::{Port, Protocol},
    registers::{
        Register, Write,
        operational::{Operational, UsbCmd, UsbSts},
        runtime::Runtime,
    },
    slot::{SlotId, Slots},
    transfer::{Hands, SlotEffect},
    trb::event::Event,
};

impl Xhci {
    pub(crate) fn read_dword(&self, now: Duration, offset: u64) -> u32 {
        match Register::at(offset, &self.shape) {
            Some(Register::Constant(value)) => value,
            Some(Register::Operational(register)) => self.read_operational(register),
            Some(Register::Port(index, register)) => {
                self.ports.get(usize::from(index)).map_or(0, |port| port.read(register))
            }
            Some(Register::Runtime(Runtime::MfIndex)) => self.frames.index(now),
            Some(Register::Runtime(Runtime::Interrupter(index, register))) => {
                self.events.read(now, index, register)
            }
            Some(Register::Doorbell(_)) | None => 0,
        }
    }

    fn read_operational(&self, register: Operational) -> u32 {
        match register {
            Operational::UsbCmd => self.usbcmd.raw_value(),
            Operational::UsbSts => self.usbsts.raw_value(),
            Operational::PageSize => register.row().reset,
            Operational::DnCtrl => self.notifications,
            Operational::CrcrLow | Operational::CrcrHigh => self.commands.read(register),
            Operational::DcbaapLow => self.dcbaap as u32,
            Operational::DcbaapHigh => (self.dcbaap >> 32) as u32,
            Operational::Config => self.configure,
        }
    }

    pub(crate) fn write_dword(&mut self, cx: &mut Cx<'_, Output>, offset: u64, write: Write) {
        match Register::at(offset, &self.shape) {
            Some(Register::Operational(register)) => self.write_operational(cx, register, write),
            Some(Register::Port(index, register)) => {
                let Some(port) = self.ports.get_mut(usize::from(index)) else { return };
                let request = port.write(cx.now, register, write);
                self.carry_out(cx, index, request);
            }
            Some(Register::Runtime(Runtime::Interrupter(index, register))) => {
                self.events.write(cx.now, index, register, write);
            }
            Some(Register::Doorbell(index)) => self.ring_doorbell(cx, index, write),
            Some(Register::Constant(_) | Register::Runtime(Runtime::MfIndex)) | None => {}
        }
    }

    fn write_operational(&mut self, cx: &mut Cx<'_, Output>, register: Operational, write: Write) {
        let value = register.row().apply(self.read_operational(register), write);
        match register {
            Operational::UsbCmd => self.command(cx, UsbCmd::new_with_raw_value(value), write),
            Operational::UsbSts => self.usbsts = UsbSts::new_with_raw_value(value),
            Operational::PageSize => {}
            Operational::DnCtrl => self.notifications = value,
            Operational::CrcrLow | Operational::CrcrHigh => self.write_crcr(cx, register, write),
            Operational::DcbaapLow => {
                self.dcbaap = Write { value, mask: u32::MAX }.into_low(self.dcbaap);
            }
            Operational::DcbaapHigh => {
                self.dcbaap = Write { value, mask: u32::MAX }.into_high(self.dcbaap);
            }
            Operational::Config => self.configure = value,
        }
    }

    /// USBCMD is written. xHCI 1.2 §5.4.1.
    fn command(&mut self, cx: &mut Cx<'_, Output>, command: UsbCmd, write: Write) {
        let asked = UsbCmd::new_with_raw_value(write.bits());
        if asked.reset() {
            return self.reset_controller(cx);
        }
        if !self.usbcmd.enable_wrap_event() {
            // Wraps before it was enabled are no news.
            self.frames.take_wrap(cx.now);
        }
        let failed = self.usbsts.controller_error();
        let (was_running, run) = (self.usbcmd.run(), command.run() && !failed);
        self.usbcmd = command.with_run(run);
        if !run && was_running {
            self.end_waiting(cx);
            self.stop(cx.now);
        }
        if !run {
            self.save_or_restore(asked);
        }
        if run && !was_running {
            self.start(cx.now);
        }
    }

    /// A driver saves the state before the power may go, and restores it afterwards. All of it is still here unless there
    /// was a reset: then the driver sets everything up anew. xHCI 1.2 §4.23.2.
    fn save_or_restore(&mut self, asked: UsbCmd) {
        if asked.save_state() {
            self.events.save();
            self.saved = true;
        }
        if asked.restore_state() {
            if core::mem::take(&mut self.saved) {
                self.events.restore();
            } else {
                self.usbsts = self.usbsts.with_save_restore_error(true);
            }
        }
    }

    fn start(&mut self, now: Duration) {
        self.usbsts = self.usbsts.with_halted(false);
        self.frames.start(now);
        self.ports.iter_mut().for_each(|port| port.announce());
        // Results that came while it was halted are told now.
        self.work.extend(self.slots.iter().flat_map(|slot| (CONTROL..=LAST).map(|dci| (slot.id, dci))));
    }

    fn stop(&mut self, now: Duration) {
        self.usbcmd = self.usbcmd.with_run(false);
        self.usbsts = self.usbsts.with_halted(true);
        self.frames.stop(now);
        self.commands.halt();
    }

    /// Guest memory that must be there is not: the controller halts. xHCI 1.2 §4.10.2.6.
    pub(crate) fn fail_system(&mut self, now: Duration) {
        self.stop(now);
        self.usbsts = self.usbsts.with_system_error(true);
        tracing::debug!("host system error");
    }

    /// The guest's structures make no sense: the controller halts until it is reset.
    pub(crate) fn fail_controller(&mut self, now: Duration) {
        self.stop(now);
        self.usbsts = self.usbsts.with_controller_error(true);
        tracing::debug!("host controller error");
    }

    /// HCRST, and every reset from outside: everything to its defaults, transfers cancelled, and the devices
    /// presented anew. xHCI 1.2 §4.2, §5.4.1.
    pub(crate) fn reset_controller(&mut self, cx: &mut Cx<'_, Output>) {
        let mut budget = Budget::new();
        let bound: Vec<_> = self.slots.iter().map(|slot| (slot.id, slot.device)).collect();
        for (id, _) in &bound {
            for dci in CONTROL..=LAST {
                self.with_endpoint(cx, &mut budget, *id, dci, |endpoint, hands| endpoint.close(hands));
            }
        }
        let Self {
            config: _,
            shape,
            usbcmd,
            usbsts,
            notifications,
            dcbaap,
            configure,
            frames,
            wrap_event,
            commands,
            events,
            ports,
            slots,
            requests: _, // ids go on
            work,
            starved,
            paced,
            saved,
        } = self;
        *usbcmd = UsbCmd::DEFAULT;
        *usbsts = UsbSts::DEFAULT;
        *notifications = 0;
        *dcbaap = 0;
        *configure = 0;
        *frames = Default::default();
        *wrap_event = false;
        *commands = CommandRing::default();
        *events = Events::new(shape.interrupters);
        ports.iter_mut().for_each(|port| port.reset());
        *slots = Slots::new(shape.slots);
        work.clear();
        starved.clear();
        paced.clear();
        *saved = false;
        // USB 3 links are reset with the controller; USB 2 devices keep their state until their port is reset.
        for device in bound.into_iter().filter_map(|(_, device)| device) {
            let usb3 = |port: &Port| port.device() == Some(device) && port.protocol() == Protocol::Usb3;
            if let Some(index) = self.ports.iter().position(usb3) {
                self.reset_device_of(cx, index as u8);
            }
        }
    }

    /// MaxSlotsEn, as far as there are slots. xHCI 1.2 §5.4.7.
    pub(crate) fn max_slots_enabled(&self) -> u8 {
        u8::try_from(self.configure & 0xff).unwrap_or(u8::MAX).min(self.shape.slots)
    }

    fn ring_doorbell(&mut self, cx: &mut Cx<'_, Output>, index: u8, write: Write) {
        if self.usbsts.halted() {
            return;
        }
        let target = (write.bits() & 0xff) as u8;
        let Some(id) = SlotId::new(index) else {
            if target == 0 {
                self.commands.ring();
            }
            return;
        };
        let stream = write.bits() >> 16;
        let Some(endpoint) = self.slots.get_mut(id).and_then(|slot| slot.endpoint_mut(target)) else {
            return;
        };
        if endpoint.ring(cx.dma, (stream & 0xffff) as u16) {
            self.work.insert((id, target));
        }
    }

    /// A completion finds the one who waits for it.
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_, Output>, completion: Completion) {
        let id = completion.id;
        let mut budget = Budget::new();
        match self.requests.settle(id) {
            Some(Owner::Endpoint(slot, dci)) => {
                self.with_endpoint(cx, &mut budget, slot, dci, |endpoint, hands| {
                    endpoint.complete(hands, id, completion);
                });
                self.work.insert((slot, dci));
            }
            Some(Owner::Fence(slot, dci)) => {
                if completion.result == Err(Failure::Cancelled) {
                    // A stop of the control endpoint has hit it, but the guest was told that it is done.
                    self.with_endpoint(cx, &mut budget, slot, dci, |endpoint, hands| {
                        endpoint.renew_fence(hands, id)
                    });
                } else if let Some(endpoint) = self.slots.get_mut(slot).and_then(|s| s.endpoint_mut(dci)) {
                    endpoint.lift_fence(id, completion.result.is_ok());
                }
                self.work.insert((slot, dci));
            }
            Some(Owner::Streams(slot)) => {
                let given = completion.result.map_or(0, |()| completion.moved.len());
                self.answer_streams(slot, id, given);
            }
            Some(Owner::Port(index)) => self.end_reset(cx, index, id, completion.result.is_ok()),
            None => {}
        }
        if self.requests.has_credit() {
            self.work.extend(core::mem::take(&mut self.starved));
        }
    }

    /// Lends an endpoint everything it needs for one step.
    pub(crate) fn with_endpoint<R>(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        id: SlotId,
        dci: u8,
        step: impl FnOnce(&mut Endpoint, &mut Hands<'_, '_>) -> R,
    ) -> Option<R> {
        let slot = self.slots.get_mut(id)?;
        let port = slot.port.and_then(|port| self.ports.get(usize::from(port)));
        let mut effects = Vec::new();
        let mut hands = Hands {
            device: slot.device,
            profile: port.map(|port| &**port.profile()),
            gated: port.is_none_or(|port| port.gated()),
            frame: (self.frames.index(cx.now) >> 3) as u16,
            interrupter: slot.context.hub.interrupter().value(),
            enabled: slot.enabled(),
            starved: false,
            cx,
            events: &mut self.events,
            requests: &mut self.requests,
            budget,
            effects: &mut effects,
        };
        let result = step(slot.endpoint_mut(dci)?, &mut hands);
        if hands.starved {
            self.starved.insert((id, dci));
        }
        match slot.endpoint(dci).and_then(Endpoint::due) {
            Some(at) => drop(self.paced.insert((id, dci), at)),
            None => drop(self.paced.remove(&(id, dci))),
        }
        for effect in core::mem::take(hands.effects) {
            for dci in CONTROL + 1..=LAST {
                let Some(endpoint) = slot.endpoint_mut(dci) else { continue };
                match effect {
                    SlotEffect::FlushInterface if endpoint.reads_reports_ahead(&hands) => {}
                    SlotEffect::FlushInterface => endpoint.void(&mut hands, None),
                    SlotEffect::ResetTransport if !endpoint.is_bulk_only(&hands) => {}
                    SlotEffect::Flush | SlotEffect::ResetTransport => {
                        endpoint.take_back(&mut hands);
                        endpoint.void(&mut hands, None);
                    }
                    SlotEffect::ClearHalt { endpoint: index, fence } if index == dci => {
                        endpoint.take_back(&mut hands);
                        endpoint.void(&mut hands, fence);
                    }
                    SlotEffect::Expect { endpoint: index, after, next } if index == dci => {
                        endpoint.expect(&mut hands, after, next);
                    }
                    SlotEffect::FailNext { endpoint: index } if index == dci => {
                        endpoint.fail_next(&mut hands);
                        self.work.insert((id, dci));
                    }
                    SlotEffect::ClearHalt { .. }
                    | SlotEffect::Expect { .. }
                    | SlotEffect::FailNext { .. } => {}
                }
            }
        }
        Some(result)
    }

    /// Does everything that is due, within the budget of one call. The end of every entry into the model.
    pub(crate) fn run(&mut self, cx: &mut Cx<'_, Output>) {
        let mut budget = Budget::new();
        self.ports.iter_mut().for_each(|port| port.tick(cx.now));
        if !self.usbsts.halted() {
            let overdue = self.paced.iter().filter(|(_, at)| **at <= cx.now);
            self.work.extend(overdue.map(|(endpoint, _)| *endpoint));
            self.events.drain(cx.dma);
            self.announce_ports(cx);
            self.announce_wrap(cx);
            self.run_commands(cx, &mut budget);
            self.run_endpoints(cx, &mut budget);
            // What the endpoints have done may be what a command waits for.
            self.run_commands(cx, &mut budget);
        }
        match self.events.take_error() {
            Some(RingError::Memory) => self.fail_system(cx.now),
            Some(RingError::Segment) => self.fail_controller(cx.now),
            None => {}
        }
        let enabled = self.usbcmd.interrupter_enable();
        if self.events.interrupt(cx, enabled, self.config.vectors) {
            self.usbsts = self.usbsts.with_event_interrupt(true);
        }
    }

    fn announce_wrap(&mut self, cx: &mut Cx<'_, Output>) {
        self.wrap_event |= self.frames.take_wrap(cx.now) && self.usbcmd.enable_wrap_event();
        if self.wrap_event && self.events.ready() {
            self.wrap_event = false;
            self.events.post(cx.dma, 0, Event::MfIndexWrap);
        }
    }

    fn run_endpoints(&mut self, cx: &mut Cx<'_, Output>, budget: &mut Budget) {
        let mut unfinished = Vec::new();
        while let Some((id, dci)) = self.work.pop() {
            self.with_endpoint(cx, budget, id, dci, |endpoint, hands| endpoint.work(hands));
            if !budget.left() || !self.events.ready() {
                unfinished.push((id, dci));
                break;
            }
        }
        self.work.extend(unfinished);
    }

    /// When [`Self::run`] must be called again.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let ports = self.ports.iter().filter_map(|port| port.deadline()).min();
        let interrupts = self.events.deadline();
        if self.usbsts.halted() {
            return ports.into_iter().chain(interrupts).min();
        }
        let busy = self.events.ready() && (!self.work.is_empty() || self.commands.has_work());
        let wrap = self.frames.next_wrap().filter(|_| self.usbcmd.enable_wrap_event());
        let at_once = busy.then_some(Duration::ZERO);
        let commands = self.commands.deadline().filter(|_| self.events.ready());
        let lost = self.paced.values().copied().min().filter(|_| self.events.ready());
        [ports, interrupts, wrap, at_once, commands, lost].into_iter().flatten().min()
    }
}
