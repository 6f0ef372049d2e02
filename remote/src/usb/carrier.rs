//! What a queue asks of whoever carries its transfers: libusb, or a test.

use std::time::Instant;

use wire::usb::{Endpoint, Failure, PacketEnd, Transfer};

/// A transfer to carry.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) endpoint: Endpoint,
    pub(super) transfer: Transfer,
    /// For a control transfer the eight setup bytes and the data; for others the data, or room for it.
    pub(super) buffer: Vec<u8>,
}

/// Why a transfer was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubmitError {
    /// The kernel has no memory for it now; it may have some when others have ended.
    #[error("no memory for another transfer")]
    NoMemory,
    /// The device is gone.
    #[error("the device is gone")]
    Gone,
    /// libusb does not take it, with this code.
    #[error("libusb error {0}")]
    Other(i32),
}

/// The end of a transfer.
#[derive(Debug)]
pub(super) struct Finished {
    /// The number under which it was taken.
    pub(super) number: u64,
    pub(super) endpoint: Endpoint,
    pub(super) result: Result<(), Failure>,
    /// Bytes that moved; the setup bytes of a control transfer do not count.
    pub(super) actual: usize,
    /// The buffer it was ordered with.
    pub(super) buffer: Vec<u8>,
    /// Of an isochronous transfer.
    pub(super) packets: Vec<PacketEnd>,
}

/// Who carries transfers out.
pub(super) trait Carrier {
    /// Takes a transfer, under a number that no other one has ever had.
    ///
    /// # Errors
    /// It was not taken.
    fn submit(&mut self, order: Order) -> Result<u64, SubmitError>;

    /// Asks for the end of a transfer, which comes like any other; nothing happens if it has ended.
    fn cancel(&self, number: u64);

    /// The next transfer that has ended, in the order in which they did.
    fn next_finished(&mut self) -> Option<Finished>;

    /// Waits for a transfer to end; false when it is later than that.
    fn wait(&self, until: Instant) -> bool;
}
