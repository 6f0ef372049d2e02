//! The register space: where each register's value lives, and what writing it sets off.

use pci::Cx;

use super::Hda;
use crate::Output;
use crate::interrupt::Interrupts;
use crate::registers::{
    CorbControl, CorbReadPointer, CorbStatus, GlobalControl, GlobalStatus, ImmediateStatus, InterruptControl,
    Piece, PositionBase, Register, RirbControl, RirbStatus, RirbWritePointer, TABLE,
};
use crate::stream::{Direction, Scene, Stream, StreamRegister};

impl Hda {
    pub(super) fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::Capabilities => self.capabilities(),
            Register::VersionMinor
            | Register::VersionMajor
            | Register::OutputPayload
            | Register::InputPayload
            | Register::OutputStreamPayload
            | Register::InputStreamPayload
            | Register::CorbSize
            | Register::RirbSize => fixed(register),
            Register::GlobalControl => self.control.raw_value(),
            Register::WakeEnable => self.wake_enable.into(),
            Register::StateChange => self.state_change.into(),
            Register::GlobalStatus => self.status.raw_value().into(),
            Register::InterruptControl => self.interrupts.control.raw_value(),
            Register::InterruptStatus => Interrupts::status(self.sources()),
            Register::WallClock => self.clock.wall(self.advanced),
            Register::StreamSync => self.sync,
            Register::CorbBaseLow => self.corb.base as u32,
            Register::CorbBaseHigh => (self.corb.base >> 32) as u32,
            Register::CorbWritePointer => self.corb.write.into(),
            Register::CorbReadPointer => self.corb.read.raw_value().into(),
            Register::CorbControl => self.corb.control.raw_value().into(),
            Register::CorbStatus => self.corb.status.raw_value().into(),
            Register::RirbBaseLow => self.rirb.base as u32,
            Register::RirbBaseHigh => (self.rirb.base >> 32) as u32,
            Register::RirbWritePointer => self.rirb.write.into(),
            Register::ResponseCount => self.rirb.interrupt_every.into(),
            Register::RirbControl => self.rirb.control.raw_value().into(),
            Register::RirbStatus => self.rirb.status.raw_value().into(),
            Register::ImmediateCommand => self.immediate.command,
            Register::ImmediateResponse => self.immediate.response,
            Register::ImmediateStatus => self.immediate.status.raw_value().into(),
            Register::PositionBaseLow => self.position_low.raw_value(),
            Register::PositionBaseHigh => self.position_high,
            Register::Stream(number, register) => {
                self.streams.get(usize::from(number)).map_or(0, |stream| stream.read(register))
            }
        }
    }

    /// Carries a write out. In reset only the registers that live there can be written.
    pub(super) fn write_register(&mut self, cx: &mut Cx<'_, Output>, piece: Piece<Register>, value: u64) {
        let (row, value) = (piece.row, piece.taken(value));
        let read_only = row.writable | row.clears == 0;
        if read_only || !(self.control.running() || row.register.lives_in_reset()) {
            return;
        }
        // The verbs of a command change what streams sound like: from now on, not before.
        if !matches!(row.register, Register::Stream(_, StreamRegister::Status)) {
            self.advance(cx);
        }
        let new = row.written(self.read_register(row.register), value, piece.lanes);
        self.set(cx, row.register, new);
        if row.clears != 0 || row.register == Register::InterruptControl {
            self.interrupts.acknowledge();
        }
    }

    fn set(&mut self, cx: &mut Cx<'_, Output>, register: Register, value: u32) {
        match register {
            Register::GlobalControl => self.set_control(cx, GlobalControl::new_with_raw_value(value)),
            Register::WakeEnable => self.wake_enable = value as u16,
            Register::StateChange => self.state_change = value as u16,
            Register::GlobalStatus => self.status = GlobalStatus::new_with_raw_value(value as u16),
            Register::InterruptControl => {
                let known = self.stream_bits() | 3 << 30;
                self.interrupts.control = InterruptControl::new_with_raw_value(value & known);
            }
            Register::StreamSync => self.set_sync(cx, value),
            Register::CorbBaseLow => set_low(&mut self.corb.base, value),
            Register::CorbBaseHigh => set_high(&mut self.corb.base, value),
            Register::CorbWritePointer => {
                self.corb.write = value as u8;
                self.run_commands(cx.dma);
            }
            Register::CorbReadPointer => {
                self.corb.set_read(CorbReadPointer::new_with_raw_value(value as u16));
                self.run_commands(cx.dma);
            }
            Register::CorbControl => {
                self.corb.control = CorbControl::new_with_raw_value(value as u8);
                self.run_commands(cx.dma);
            }
            Register::CorbStatus => {
                self.corb.status = CorbStatus::new_with_raw_value(value as u8);
                self.run_commands(cx.dma);
            }
            Register::RirbBaseLow => set_low(&mut self.rirb.base, value),
            Register::RirbBaseHigh => set_high(&mut self.rirb.base, value),
            Register::RirbWritePointer => {
                self.rirb.set_write(RirbWritePointer::new_with_raw_value(value as u16));
            }
            Register::ResponseCount => self.rirb.interrupt_every = value as u8,
            Register::RirbControl => self.rirb.control = RirbControl::new_with_raw_value(value as u8),
            Register::RirbStatus => self.rirb.status = RirbStatus::new_with_raw_value(value as u8),
            Register::ImmediateCommand => self.immediate.command = value,
            Register::ImmediateStatus => {
                self.immediate.status = ImmediateStatus::new_with_raw_value(value as u16);
                if self.immediate.status.busy() {
                    self.run_immediate();
                }
            }
            Register::PositionBaseLow => self.position_low = PositionBase::new_with_raw_value(value),
            Register::PositionBaseHigh => self.position_high = value,
            Register::Stream(number, register) => {
                self.with_stream(cx, number, |stream, scene| stream.write(register, value, scene));
            }
            Register::Capabilities
            | Register::VersionMinor
            | Register::VersionMajor
            | Register::OutputPayload
            | Register::InputPayload
            | Register::OutputStreamPayload
            | Register::InputStreamPayload
            | Register::InterruptStatus
            | Register::WallClock
            | Register::CorbSize
            | Register::RirbSize
            | Register::ImmediateResponse => {}
        }
    }

    fn set_control(&mut self, cx: &mut Cx<'_, Output>, control: GlobalControl) {
        match (self.control.running(), control.running()) {
            (true, false) => self.enter_reset(cx.out),
            (false, true) => {
                self.control = control.with_flush(false);
                self.leave_reset();
            }
            (true, true) => {
                // There is nothing to flush: the flush is complete as soon as it is asked for.
                self.status = self.status.with_flushed(self.status.flushed() || control.flush());
                self.control = control.with_flush(false);
            }
            (false, false) => {}
        }
    }

    fn set_sync(&mut self, cx: &mut Cx<'_, Output>, value: u32) {
        let changed = self.sync ^ value & self.stream_bits();
        self.sync ^= changed;
        for number in (0..30).filter(|number| changed >> number & 1 == 1) {
            self.with_stream(cx, number, Stream::hold);
        }
    }

    fn with_stream(
        &mut self,
        cx: &mut Cx<'_, Output>,
        number: u8,
        step: impl FnOnce(&mut Stream, &mut Scene<'_>),
    ) {
        let position_entry = self.position_entry(number.into());
        let held = self.sync >> number & 1 == 1;
        let Some(stream) = self.streams.get_mut(usize::from(number)) else { return };
        let moved = stream.moving();
        step(stream, &mut Scene { now: self.advanced, dma: cx.dma, out: cx.out, held, position_entry });
        if stream.moving() && !moved {
            self.note_shared_tag(number);
        }
    }

    /// Counts playback streams that began to move under a tag that is in use: only one of them is heard.
    fn note_shared_tag(&mut self, number: u8) {
        let playing = |stream: &&Stream| stream.moving() && stream.direction() == Direction::Output;
        let Some(started) = self.streams.get(usize::from(number)).filter(playing) else { return };
        let same = |stream: &&Stream| playing(stream) && stream.tag() == started.tag();
        if started.tag() != 0 && self.streams.iter().filter(same).count() > 1 {
            self.shared_tags += 1;
            tracing::debug!(number, tag = started.tag(), "two playback streams have one tag");
        }
    }

    /// Global Capabilities (GCAP): the numbers of streams, beside what the table says. HDA 1.0a §3.3.2.
    fn capabilities(&self) -> u32 {
        let (all, inputs) = (self.streams.len() as u32, u32::from(self.config.inputs.value()));
        fixed(Register::Capabilities) | inputs << 8 | (all - inputs) << 12
    }

    /// A bit for each stream.
    fn stream_bits(&self) -> u32 {
        (1u32 << self.streams.len()) - 1
    }
}

/// The value of a register that never changes.
fn fixed(register: Register) -> u32 {
    TABLE.iter().find(|row| row.register == register).map_or(0, |row| row.reset)
}

fn set_low(address: &mut u64, low: u32) {
    *address = *address >> 32 << 32 | u64::from(low);
}

fn set_high(address: &mut u64, high: u32) {
    *address = u64::from(high) << 32 | u64::from(*address as u32);
}
