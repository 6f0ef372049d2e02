//! The bits of the controller's registers. HDA 1.0a §3.3.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use bitbybit::bitfield;

/// Global Control (GCTL). HDA 1.0a §3.3.7.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct GlobalControl {
    /// Controller Reset (CRST): 0 while in reset.
    #[bit(0, rw)]
    running: bool,
    /// Flush Control (FCNTRL).
    #[bit(1, rw)]
    flush: bool,
    /// Accept Unsolicited Response Enable (UNSOL).
    #[bit(8, rw)]
    accept_unsolicited: bool,
}

/// Global Status (GSTS). HDA 1.0a §3.3.10.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct GlobalStatus {
    /// Flush Status (FSTS): the flush that was asked for is complete.
    #[bit(1, rw)]
    flushed: bool,
}

/// Interrupt Control (INTCTL). HDA 1.0a §3.3.14.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct InterruptControl {
    /// Stream and Controller Interrupt Enable (SIE, CIE).
    #[bits(0..=30, rw)]
    sources: arbitrary_int::u31,
    /// Global Interrupt Enable (GIE).
    #[bit(31, rw)]
    global: bool,
}

/// CORB Read Pointer (CORBRP). HDA 1.0a §3.3.21.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct CorbReadPointer {
    /// The last command fetched.
    #[bits(0..=7, rw)]
    index: u8,
    /// Read Pointer Reset (CORBRPRST): stays until software clears it.
    #[bit(15, rw)]
    reset: bool,
}

/// CORB Control (CORBCTL). HDA 1.0a §3.3.22.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct CorbControl {
    /// CORB Memory Error Interrupt Enable (CMEIE).
    #[bit(0, rw)]
    error_interrupt: bool,
    /// Enable CORB DMA Engine (CORBRUN).
    #[bit(1, rw)]
    run: bool,
}

/// CORB Status (CORBSTS). HDA 1.0a §3.3.23.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct CorbStatus {
    /// CORB Memory Error Indication (CMEI).
    #[bit(0, rw)]
    memory_error: bool,
}

/// RIRB Write Pointer (RIRBWP). HDA 1.0a §3.3.27.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct RirbWritePointer {
    /// The last response written.
    #[bits(0..=7, rw)]
    index: u8,
    /// Write Pointer Reset (RIRBWPRST): never read as set.
    #[bit(15, rw)]
    reset: bool,
}

/// RIRB Control (RIRBCTL). HDA 1.0a §3.3.29.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct RirbControl {
    /// Response Interrupt Control (RINTCTL).
    #[bit(0, rw)]
    response_interrupt: bool,
    /// RIRB DMA Enable (RIRBDMAEN).
    #[bit(1, rw)]
    run: bool,
    /// Response Overrun Interrupt Control (RIRBOIC).
    #[bit(2, rw)]
    overrun_interrupt: bool,
}

/// RIRB Status (RIRBSTS). HDA 1.0a §3.3.30.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct RirbStatus {
    /// Response Interrupt (RINTFL).
    #[bit(0, rw)]
    response: bool,
    /// Response Overrun Interrupt Status (RIRBOIS).
    #[bit(2, rw)]
    overrun: bool,
}

/// Immediate Command Status (ICIS). HDA 1.0a §3.4.3.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct ImmediateStatus {
    /// Immediate Command Busy (ICB): writing 1 sends the command.
    #[bit(0, rw)]
    busy: bool,
    /// Immediate Result Valid (IRV).
    #[bit(1, rw)]
    valid: bool,
}

/// DMA Position Lower Base Address (DPLBASE). HDA 1.0a §3.3.32.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct PositionBase {
    /// DMA Position Buffer Enable.
    #[bit(0, rw)]
    enable: bool,
}
