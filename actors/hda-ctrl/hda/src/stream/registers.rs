//! The registers of one stream descriptor. HDA 1.0a §3.3.35 to §3.3.42.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::{u2, u4};
use bitbybit::bitfield;

use crate::registers::Row;

/// A register of a stream descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamRegister {
    /// SDnCTL.
    Control,
    /// SDnSTS.
    Status,
    /// SDnLPIB.
    Position,
    /// SDnCBL.
    CyclicLength,
    /// SDnLVI.
    LastValidIndex,
    /// SDnFIFOW.
    FifoWatermark,
    /// SDnFIFOS.
    FifoSize,
    /// SDnFMT.
    Format,
    /// SDnBDPL.
    ListLow,
    /// SDnBDPU.
    ListHigh,
}

/// The registers of one stream, from its first byte on.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row<StreamRegister>] = &[
    //        register                          offset bytes  reset   writable      write 1 to clear
    Row::new(StreamRegister::Control,           0x00, 3,      0,      0x00f7_001f,  0),
    Row::new(StreamRegister::Status,            0x03, 1,      0x20,   0,            0x1c),
    Row::new(StreamRegister::Position,          0x04, 4,      0,      0,            0),
    Row::new(StreamRegister::CyclicLength,      0x08, 4,      0,      0xffff_ffff,  0),
    Row::new(StreamRegister::LastValidIndex,    0x0c, 2,      0,      0x00ff,       0),
    Row::new(StreamRegister::FifoWatermark,     0x0e, 2,      0x0004, 0,            0),
    Row::new(StreamRegister::FifoSize,          0x10, 2,      0x00bf, 0,            0),
    Row::new(StreamRegister::Format,            0x12, 2,      0,      0xff7f,       0),
    Row::new(StreamRegister::ListLow,           0x18, 4,      0,      0xffff_ff80,  0),
    Row::new(StreamRegister::ListHigh,          0x1c, 4,      0,      0xffff_ffff,  0),
];

/// What reading a register of the table gives that never changes.
pub(crate) fn fixed(register: StreamRegister) -> u32 {
    TABLE.iter().find(|row| row.register == register).map_or(0, |row| row.reset)
}

/// Stream Descriptor Control (SDnCTL), 24 bits. HDA 1.0a §3.3.35.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct StreamControl {
    /// Stream Reset (SRST): stays until software clears it.
    #[bit(0, rw)]
    reset: bool,
    /// Stream Run (RUN).
    #[bit(1, rw)]
    run: bool,
    /// Interrupt on Completion Enable (IOCE).
    #[bit(2, rw)]
    completion_interrupt: bool,
    /// FIFO Error Interrupt Enable (FEIE).
    #[bit(3, rw)]
    fifo_interrupt: bool,
    /// Descriptor Error Interrupt Enable (DEIE).
    #[bit(4, rw)]
    descriptor_interrupt: bool,
    /// Stripe Control (STRIPE); kept, but there is one data line only.
    #[bits(16..=17, rw)]
    stripe: u2,
    /// Traffic Priority (TP); kept, of no effect.
    #[bit(18, rw)]
    traffic_priority: bool,
    /// Stream Number (STRM): the tag on the link, 0 for none.
    #[bits(20..=23, rw)]
    tag: u4,
}

/// Stream Descriptor Status (SDnSTS). HDA 1.0a §3.3.36.
#[bitfield(u8, default = 0x20, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct StreamStatus {
    /// Buffer Completion Interrupt Status (BCIS).
    #[bit(2, rw)]
    completed: bool,
    /// FIFO Error (FIFOE).
    #[bit(3, rw)]
    fifo_error: bool,
    /// Descriptor Error (DESE).
    #[bit(4, rw)]
    descriptor_error: bool,
    /// FIFO Ready (FIFORDY): always, the FIFO is guest memory itself.
    #[bit(5, rw)]
    fifo_ready: bool,
}
