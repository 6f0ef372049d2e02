//! One turn of a device: the bus's view of it, and everybody else's.

use core::time::Duration;

use super::split::pieces;
use super::{Device, State};
use crate::{Cx, Dma, DmaError, Function, Model, Region, Width};

/// A device together with time, memory and a place for effects, for the length of one turn.
///
/// - Accesses to BAR 0 are cut into naturally aligned ones of 1, 2, 4 or 8 bytes. What lies beyond the BAR's size or
///   in another BAR reads 0. The MSI-X table and its pending bits belong to the bus (a VMM keeps them): here they
///   read 0 and ignore writes.
/// - Command.Memory Space is not looked at: decoding addresses is the bus's, what arrives here has been decoded.
/// - While Command.BME is 0 every access of the model to memory fails with [`DmaError::BusMasterDisabled`].
pub struct Turn<'a, M: Model> {
    pub(super) device: &'a mut Device<M>,
    pub(super) now: Duration,
    pub(super) dma: &'a dyn Dma,
    pub(super) out: &'a mut Vec<M::Output>,
}

impl<M: Model> Turn<'_, M> {
    /// Calls the model for anything that is not a register access. `None`: there is no working model, or this call
    /// has broken it.
    pub fn with<R>(&mut self, call: impl FnOnce(&mut M, &mut Cx<'_, M::Output>) -> R) -> Option<R> {
        let gate = Gate { dma: self.dma, open: self.device.config.bus_master() };
        let mut cx = Cx { now: self.now, dma: &gate, out: self.out };
        self.device.enter(&mut cx, call)
    }

    /// How many of `length` bytes from `offset` on lie in this BAR, and it is the model's.
    fn decoded(&self, bar: u8, offset: u64, length: usize) -> usize {
        let size = if bar == 0 { self.device.config.layout().bars[0] } else { 0 };
        size.saturating_sub(offset).min(length as u64) as usize
    }

    fn is_msix(&self, bar: u8, offset: u64) -> bool {
        self.device.config.msix_place().is_some_and(|place| place.covers(bar, offset))
    }

    fn read_register(&mut self, offset: u64, width: Width) -> u64 {
        let answer = self.with(|model, cx| model.read(cx, offset, width));
        answer.unwrap_or_else(|| {
            std::panic::catch_unwind(|| M::read_failed(offset, width)).unwrap_or(u64::MAX) & width.mask()
        })
    }
}

impl<M: Model> Function for Turn<'_, M> {
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        let Region::Bar(bar) = region else {
            // Status has a bit for it.
            let _ = self.device.interrupt_line();
            return self.device.config.read(offset, data);
        };
        data.fill(0);
        let decoded = self.decoded(bar, offset, data.len());
        let mut rest = data;
        for (at, width) in pieces(offset, decoded) {
            let Some((piece, tail)) = rest.split_at_mut_checked(width.bytes()) else { return };
            if !self.is_msix(bar, at) {
                let value = self.read_register(at, width).to_le_bytes();
                piece.iter_mut().zip(value).for_each(|(to, from)| *to = from);
            }
            rest = tail;
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        let Region::Bar(bar) = region else { return self.device.config.write(offset, data) };
        let decoded = self.decoded(bar, offset, data.len());
        let mut rest = data;
        for (at, width) in pieces(offset, decoded) {
            let Some((piece, tail)) = rest.split_at_checked(width.bytes()) else { return };
            if !self.is_msix(bar, at) {
                let mut value = [0; 8];
                value.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
                let _ = self.with(|model, cx| model.write(cx, at, width, u64::from_le_bytes(value)));
            }
            rest = tail;
        }
    }

    /// Resets configuration space and model. A failed model is rebuilt, if the limit leaves room for it.
    fn reset(&mut self) {
        self.device.config.reset();
        match self.device.state {
            State::Working { .. } => {
                let _ = self.with(|model, cx| model.reset(cx));
            }
            State::Failed { .. } if self.device.restarts.permitted(self.now) => self.device.rebuild(self.now),
            State::Failed { .. } => {}
        }
    }

    fn interrupt_line(&mut self) -> bool {
        self.device.interrupt_line()
    }
}

/// Memory behind Command.BME. PCI 3.0 §6.2.2.
struct Gate<'a> {
    dma: &'a dyn Dma,
    open: bool,
}

impl Gate<'_> {
    fn pass(&self) -> Result<&dyn Dma, DmaError> {
        if self.open { Ok(self.dma) } else { Err(DmaError::BusMasterDisabled) }
    }
}

impl Dma for Gate<'_> {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.pass()?.read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.pass()?.write(address, data)
    }

    fn observe(&self, address: u64) -> Result<u32, DmaError> {
        self.pass()?.observe(address)
    }

    fn publish(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.pass()?.publish(address, value)
    }
}
