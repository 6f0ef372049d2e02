//! The seam between a bus and the functions on it.

use core::pin::Pin;
use std::rc::Rc;

use futures_core::Stream;

use crate::Dma;

/// A place on a function that a bus can address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// A base address register's range, 0 to 5.
    Bar(u8),
    /// Configuration space, 4096 bytes (256 used by a conventional function, the rest reads 0).
    Config,
}

/// The parts of a function that a bus must know before anybody talks to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The sizes of the six BARs in bytes, 0 for absent ones and for the upper half of a 64-bit one.
    pub bars: [u64; 6],
    /// MSI vectors, 0 for none.
    pub msi: u16,
    /// MSI-X vectors, 0 for none.
    pub msix: u16,
    /// Whether it has an interrupt pin, INTA#.
    pub intx: bool,
}

/// What a bus sees of a PCI function.
pub trait Function {
    /// Reads bytes of any length at any offset; what does not exist reads 0.
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]);

    /// Writes bytes of any length at any offset; what does not exist is ignored.
    fn write(&mut self, region: Region, offset: u64, data: &[u8]);

    /// Resets the function: the client asked for it, or a new client has come.
    fn reset(&mut self);

    /// Whether the function drives its interrupt pin at the moment; it may have none.
    fn interrupt_line(&mut self) -> bool {
        false
    }
}

/// One request of a bus, to be carried out by the function's owner on its own thread, in order.
pub trait Transaction {
    /// Carries the request out and answers whoever waits for it.
    fn perform(self: Box<Self>, function: &mut dyn Function);
}

/// The interrupts of one function, as they are wired at the moment.
pub trait Interrupts {
    /// Sends the message-signalled interrupt of this vector; lost if the guest has not enabled it, as on hardware.
    fn raise(&self, vector: u16);

    /// The function drives its interrupt pin from now on, or does not. Told again and again does no harm.
    fn drive(&self, _: bool) {}
}

/// A bus as the owner of one function holds it. Everything stays on the owner's thread.
pub struct Bus {
    /// The requests, in order. Ends when the bus is gone for good, not when a client leaves.
    pub transactions: Pin<Box<dyn Stream<Item = Box<dyn Transaction>>>>,
    /// Guest memory as it is mapped at the moment; not aware of Command.BME.
    pub dma: Rc<dyn Dma>,
    /// The interrupts.
    pub interrupts: Rc<dyn Interrupts>,
}
