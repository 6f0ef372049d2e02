//! The model without a bus: registers, memory and time in one value.

use core::time::Duration;

use pci::{Cx, Dma, Model, Ram, Width};

use super::Host;
use crate::{Config, Hda, Output, Packet};

/// The model with memory of its own, and time that passes when it is told to.
#[derive(Debug)]
pub struct Bare<D = Ram> {
    /// The model.
    pub hda: Hda,
    /// Its memory.
    pub ram: D,
    /// Now.
    pub now: Duration,
    /// What the model asked for, in order, until somebody takes it.
    pub out: Vec<Output>,
}

impl Bare {
    /// A controller after power-on, and memory from 0 on.
    #[must_use]
    pub fn new(config: Config, memory_bytes: usize) -> Self {
        Self::with_memory(config, Ram::new(0, memory_bytes))
    }
}

impl<D: Dma> Bare<D> {
    /// A controller after power-on, and memory of any kind.
    #[must_use]
    pub fn with_memory(config: Config, memory: D) -> Self {
        Self { hda: Hda::new(config), ram: memory, now: Duration::ZERO, out: Vec::new() }
    }

    /// Lets time pass as an owner does who is never late: a tick at each deadline.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        while let Some(due) = self.hda.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = end;
    }

    /// One tick now, due or not.
    pub fn tick(&mut self) {
        let mut cx = Cx { now: self.now, dma: &self.ram, out: &mut self.out };
        self.hda.tick(&mut cx);
    }

    /// Takes the packets that were to be played so far; pauses and interrupts are dropped.
    pub fn take_played(&mut self) -> Vec<Packet> {
        let packet = |output| match output {
            Output::Play(packet) => Some(packet),
            Output::Audio(_) | Output::Interrupt(_) => None,
        };
        self.out.drain(..).filter_map(packet).collect()
    }
}

impl<D: Dma> Host for Bare<D> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut cx = Cx { now: self.now, dma: &self.ram, out: &mut self.out };
        self.hda.read(&mut cx, offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let mut cx = Cx { now: self.now, dma: &self.ram, out: &mut self.out };
        self.hda.write(&mut cx, offset, width, value);
    }

    fn memory(&self) -> &dyn Dma {
        &self.ram
    }
}
