//! The command ring and its commands. xHCI 1.2 §4.6, §4.9.3.
//!
//! Every command is answered from local state, at once; only Stop Endpoint may wait for the remote, and not for
//! longer than [`crate::Config::stop_deadline`].

mod configure;
mod endpoints;
mod slots;
mod streams;

use core::time::Duration;

use pci::Cx;

use crate::{
    Output, Xhci,
    budget::Budget,
    registers::{
        Write,
        operational::{Crcr, Operational},
    },
    ring::{Fetched, RingPointer, fetch},
    slot::SlotId,
    trb::{
        command::Command,
        event::{CompletionCode, Event},
    },
};

/// The command ring.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandRing {
    pointer: RingPointer,
    /// CRR.
    running: bool,
    /// The doorbell has rung since the ring was found empty.
    rung: bool,
    /// A stop was asked for while a command was waiting.
    stop: bool,
    /// The upper half of the write that stopped the ring is still to come: it is no pointer.
    stopped_by_half: bool,
    /// The command that waits for the remote.
    waiting: Option<Waiting>,
}

/// A Stop Endpoint command that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    slot: SlotId,
    endpoint: u8,
    command: u64,
    deadline: Duration,
}

/// What became of a command.
enum Answer {
    /// It is done, for this slot.
    Done(CompletionCode, u8),
    /// It waits for the remote.
    Later(Waiting),
}

impl CommandRing {
    /// CRCR, one half.
    pub(crate) fn read(&self, register: Operational) -> u32 {
        match register {
            Operational::CrcrLow => Crcr::DEFAULT.with_running(self.running).raw_value(),
            _ => 0,
        }
    }

    /// When a command must be answered.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.waiting.map(|waiting| waiting.deadline)
    }

    /// Whether commands could be executed now.
    pub(crate) fn has_work(&self) -> bool {
        self.running && self.rung && self.waiting.is_none()
    }

    /// The doorbell of the command ring.
    pub(crate) fn ring(&mut self) {
        self.running = true;
        self.rung = true;
    }

    /// The controller has stopped running: so does the ring, where it is.
    pub(crate) fn halt(&mut self) {
        self.running = false;
        self.rung = false;
    }
}

impl Xhci {
    /// CRCR is written, one half. xHCI 1.2 §5.4.5, §4.6.1.1, §4.6.1.2.
    pub(crate) fn write_crcr(&mut self, cx: &mut Cx<'_, Output>, register: Operational, write: Write) {
        let asked = Crcr::new_with_raw_value(write.bits());
        let ring = &mut self.commands;
        if register == Operational::CrcrHigh {
            if !core::mem::take(&mut ring.stopped_by_half) && !ring.running {
                ring.pointer.at = write.into_high(ring.pointer.at);
            }
            return;
        }
        ring.stopped_by_half = ring.running && (asked.abort() || asked.stop());
        if ring.running {
            if asked.abort() {
                self.abort_command(cx);
            } else if asked.stop() {
                self.stop_commands(cx);
            }
            return;
        }
        let row = register.row();
        let raw = write.into_low(ring.pointer.to_raw()) & (u64::from(row.rw) | !0xffff_ffff);
        ring.pointer = RingPointer::from_raw(raw);
    }

    /// Answers the command that waits, and executes what is on the ring.
    pub(crate) fn run_commands(&mut self, cx: &mut Cx<'_, Output>, budget: &mut Budget) {
        self.finish_waiting(cx, budget);
        while self.commands.has_work() && self.events.ready() && budget.left() {
            match fetch(&mut self.commands.pointer, cx.dma, budget, false) {
                Fetched::Trb(at, raw) => {
                    budget.take_td();
                    let slot = raw.fields().slot();
                    match self.execute(cx, budget, Command::decode(raw), slot, at.at) {
                        Answer::Done(code, slot) => self.answer(cx, at.at, code, slot),
                        Answer::Later(waiting) => {
                            self.commands.waiting = Some(waiting);
                            self.finish_waiting(cx, budget);
                        }
                    }
                }
                Fetched::Empty | Fetched::ChainEnd => self.commands.rung = false,
                Fetched::OutOfBudget => return,
                Fetched::Endless(_) => return self.fail_controller(cx.now),
                Fetched::Fault(_) => return self.fail_system(cx.now),
            }
        }
    }

    fn execute(
        &mut self,
        cx: &mut Cx<'_, Output>,
        budget: &mut Budget,
        command: Command,
        number: u8,
        at: u64,
    ) -> Answer {
        let slot = SlotId::new(number).filter(|id| self.slots.get(*id).is_some());
        let code = match (command, slot) {
            (Command::NoOp | Command::SetLatencyTolerance, _) => CompletionCode::Success,
            (Command::EnableSlot, _) => {
                let (code, number) = self.enable_slot();
                return Answer::Done(code, number);
            }
            (Command::PortBandwidth { context, speed }, _) => self.port_bandwidth(cx.dma, context, speed),
            (Command::Unsupported, _) => CompletionCode::TrbError,
            (_, None) => CompletionCode::SlotNotEnabledError,
            (Command::DisableSlot, Some(id)) => self.disable_slot(cx, budget, id),
            (Command::AddressDevice { input, block }, Some(id)) => {
                self.address_device(cx, budget, id, input, block)
            }
            (Command::ConfigureEndpoint { deconfigure: true, .. }, Some(id)) => {
                self.deconfigure(cx, budget, id)
            }
            (Command::ConfigureEndpoint { input, deconfigure: false }, Some(id)) => {
                self.configure_endpoint(cx, budget, id, input)
            }
            (Command::EvaluateContext { input }, Some(id)) => self.evaluate_context(cx.dma, id, input),
            (Command::ResetDevice, Some(id)) => self.reset_device(cx, budget, id),
            (Command::ResetEndpoint { endpoint, preserve }, Some(id)) => {
                self.reset_endpoint(cx.dma, id, endpoint, preserve)
            }
            (Command::SetTrDequeue { endpoint, stream, pointer }, Some(id)) => {
                self.set_dequeue(cx.dma, id, endpoint, stream, pointer)
            }
            (Command::StopEndpoint { endpoint }, Some(slot)) => {
                match self.begin_stop(cx, budget, slot, endpoint) {
                    Ok(()) => {
                        let deadline = cx.now + self.config.stop_deadline;
                        return Answer::Later(Waiting { slot, endpoint, command: at, deadline });
                    }
                    Err(code) => code,
                }
            }
        };
        Answer::Done(code, number)
    }

    fn answer(&mut self, cx: &mut Cx<'_, Output>, pointer: u64, code: CompletionCode, slot: u8) {
        self.events.post(cx.dma, 0, Event::Command { pointer, code, slot });
    }

    /// Answers a Stop Endpoint command if the remote has answered, or if it has taken too long, or if it must be.
    fn finish_waiting(&mut self, cx: &mut Cx<'_, Output>, budget: &mut Budget) {
        let Some(waiting) = self.commands.waiting else { return };
        let Waiting { slot, endpoint, command, deadline } = waiting;
        let settled = self.slots.get(slot).and_then(|slot| slot.endpoint(endpoint));
        let settled = settled.is_none_or(|endpoint| endpoint.stop_is_settled());
        if !settled && cx.now < deadline {
            return;
        }
        let stopped =
            self.with_endpoint(cx, budget, slot, endpoint, |endpoint, hands| endpoint.finish_stop(hands));
        let code = match stopped {
            Some(None) => return,
            Some(Some(true)) => CompletionCode::Success,
            Some(Some(false)) => CompletionCode::ContextStateError,
            None => CompletionCode::EndpointNotEnabledError,
        };
        self.commands.waiting = None;
        self.answer(cx, command, code, slot.number());
        if self.commands.stop {
            self.end_commands(cx);
        }
    }

    fn stop_commands(&mut self, cx: &mut Cx<'_, Output>) {
        if self.commands.waiting.is_some() {
            self.commands.stop = true;
        } else {
            self.end_commands(cx);
        }
    }

    /// The controller stops running: the command that waits is answered before that, or not at all.
    pub(crate) fn end_waiting(&mut self, cx: &mut Cx<'_, Output>) {
        let Some(waiting) = &mut self.commands.waiting else { return };
        waiting.deadline = cx.now;
        self.finish_waiting(cx, &mut Budget::new());
        self.commands.stop = false;
        if let Some(Waiting { slot, endpoint, .. }) = self.commands.waiting.take() {
            self.abandon_stop(slot, endpoint);
        }
    }

    fn abandon_stop(&mut self, slot: SlotId, endpoint: u8) {
        if let Some(endpoint) = self.slots.get_mut(slot).and_then(|slot| slot.endpoint_mut(endpoint)) {
            endpoint.abandon_stop();
        }
        self.work.insert((slot, endpoint));
    }

    /// Command Abort. A stop that waits has not happened: the endpoint runs on.
    fn abort_command(&mut self, cx: &mut Cx<'_, Output>) {
        if let Some(Waiting { slot, endpoint, command, .. }) = self.commands.waiting.take() {
            self.abandon_stop(slot, endpoint);
            self.answer(cx, command, CompletionCode::CommandAborted, slot.number());
        }
        self.end_commands(cx);
    }

    fn end_commands(&mut self, cx: &mut Cx<'_, Output>) {
        self.commands.halt();
        self.commands.stop = false;
        let pointer = self.commands.pointer.at;
        self.answer(cx, pointer, CompletionCode::CommandRingStopped, 0);
    }
}
