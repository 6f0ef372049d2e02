//! The registers of configuration space that have bits with names.

use arbitrary_int::{u3, u11};
use bitbybit::{bitenum, bitfield};

/// Command register. PCI 3.0 §6.2.2.
#[bitfield(u16, default = 0x0000, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// IO Space: answers IO accesses.
    #[bit(0, rw)]
    io_space: bool,
    /// Memory Space: answers memory accesses.
    #[bit(1, rw)]
    memory_space: bool,
    /// Bus Master: may access memory and send message-signalled interrupts (BME).
    #[bit(2, rw)]
    bus_master: bool,
    /// Parity Error Response.
    #[bit(6, rw)]
    parity_error_response: bool,
    /// SERR# Enable.
    #[bit(8, rw)]
    serr_enable: bool,
    /// Interrupt Disable: INTx may not be asserted.
    #[bit(10, rw)]
    interrupt_disable: bool,
}

impl Command {
    /// Its place in configuration space.
    pub const OFFSET: u8 = 0x04;
}

/// Status register. PCI 3.0 §6.2.3.
#[bitfield(u16, default = 0x0000, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// Interrupt Status: INTx is pending.
    #[bit(3, rw)]
    interrupt_status: bool,
    /// Capabilities List: the pointer at 0x34 is valid.
    #[bit(4, rw)]
    capabilities_list: bool,
    /// Master Data Parity Error; write 1 to clear.
    #[bit(8, rw)]
    master_data_parity_error: bool,
    /// Signaled Target Abort; write 1 to clear.
    #[bit(11, rw)]
    signaled_target_abort: bool,
    /// Received Target Abort; write 1 to clear.
    #[bit(12, rw)]
    received_target_abort: bool,
    /// Received Master Abort; write 1 to clear.
    #[bit(13, rw)]
    received_master_abort: bool,
    /// Signaled System Error; write 1 to clear.
    #[bit(14, rw)]
    signaled_system_error: bool,
    /// Detected Parity Error; write 1 to clear.
    #[bit(15, rw)]
    detected_parity_error: bool,
}

impl Status {
    /// Its place in configuration space.
    pub const OFFSET: u8 = 0x06;
}

/// Message Control of the MSI capability. PCI 3.0 §6.8.1.3.
#[bitfield(u16, default = 0x0000, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub struct MsiControl {
    /// MSI Enable.
    #[bit(0, rw)]
    enable: bool,
    /// Multiple Message Capable: the power of two of the vectors asked for.
    #[bits(1..=3, rw)]
    multiple_message_capable: u3,
    /// Multiple Message Enable: the power of two of the vectors granted.
    #[bits(4..=6, rw)]
    multiple_message_enable: u3,
    /// 64-bit Address Capable.
    #[bit(7, rw)]
    address_64: bool,
    /// Per-Vector Masking Capable.
    #[bit(8, rw)]
    per_vector_masking: bool,
}

/// Message Control of the MSI-X capability. PCI 3.0 §6.8.2.3.
#[bitfield(u16, default = 0x0000, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub struct MsixControl {
    /// Table Size: vectors less one.
    #[bits(0..=10, rw)]
    table_size: u11,
    /// Function Mask: all vectors are masked.
    #[bit(14, rw)]
    function_mask: bool,
    /// MSI-X Enable.
    #[bit(15, rw)]
    enable: bool,
}

/// Power Management Control and Status (PMCSR). PCI Power Management 1.2 §3.2.4.
#[bitfield(u16, default = 0x0000, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub struct PowerControl {
    /// Power State.
    #[bits(0..=1, rw)]
    state: PowerState,
    /// No Soft Reset: leaving D3hot keeps the registers.
    #[bit(3, rw)]
    no_soft_reset: bool,
}

/// The power states. PCI Power Management 1.2 §3.2.4.
#[bitenum(u2, exhaustive = true)]
#[derive(Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Fully on.
    D0 = 0,
    /// Not supported.
    D1 = 1,
    /// Not supported.
    D2 = 2,
    /// Off, as far as software can tell.
    D3Hot = 3,
}
