//! Operational registers. xHCI 1.2 §5.4.
#![expect(unreachable_pub, reason = "what bitfield writes is pub inside crate-private types")]

use bitbybit::bitfield;

use super::Row;

/// The operational registers before the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operational {
    /// USB Command. xHCI 1.2 §5.4.1.
    UsbCmd,
    /// USB Status. xHCI 1.2 §5.4.2.
    UsbSts,
    /// Page Size: 4 KiB only. xHCI 1.2 §5.4.3.
    PageSize,
    /// Device Notification Control. xHCI 1.2 §5.4.4.
    DnCtrl,
    /// Command Ring Control, lower half. xHCI 1.2 §5.4.5.
    CrcrLow,
    /// Command Ring Control, upper half.
    CrcrHigh,
    /// Device Context Base Address Array Pointer, lower half. xHCI 1.2 §5.4.6.
    DcbaapLow,
    /// Device Context Base Address Array Pointer, upper half.
    DcbaapHigh,
    /// Configure. xHCI 1.2 §5.4.7.
    Config,
}

impl Operational {
    /// The register at this offset from the operational base.
    pub(crate) fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x00 => Self::UsbCmd,
            0x04 => Self::UsbSts,
            0x08 => Self::PageSize,
            0x14 => Self::DnCtrl,
            0x18 => Self::CrcrLow,
            0x1c => Self::CrcrHigh,
            0x30 => Self::DcbaapLow,
            0x34 => Self::DcbaapHigh,
            0x38 => Self::Config,
            _ => return None,
        })
    }

    /// What a guest may do to its bits. Bits that act (RS, HCRST, CSS, CRS, CS, CA) are not stored through a row.
    pub(crate) fn row(self) -> Row {
        match self {
            Self::UsbCmd => Row { reset: 0, rw: UsbCmd::STORED, rw1c: 0 },
            Self::UsbSts => Row { reset: UsbSts::DEFAULT.raw_value(), rw: 0, rw1c: UsbSts::CLEARABLE },
            Self::PageSize => Row { reset: 1, rw: 0, rw1c: 0 },
            Self::DnCtrl => Row { reset: 0, rw: 0xffff, rw1c: 0 },
            Self::CrcrLow => Row { reset: 0, rw: !0x3f | 1, rw1c: 0 },
            Self::DcbaapLow => Row { reset: 0, rw: !0x3f, rw1c: 0 },
            Self::CrcrHigh | Self::DcbaapHigh => Row { reset: 0, rw: !0, rw1c: 0 },
            Self::Config => Row { reset: 0, rw: 0xff, rw1c: 0 },
        }
    }
}

/// USB Command (USBCMD). xHCI 1.2 §5.4.1.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct UsbCmd {
    /// Run/Stop (RS).
    #[bit(0, rw)]
    run: bool,
    /// Host Controller Reset (HCRST); reads 0: a reset is done before the write returns.
    #[bit(1, rw)]
    reset: bool,
    /// Interrupter Enable (INTE).
    #[bit(2, rw)]
    interrupter_enable: bool,
    /// Host System Error Enable (HSEE).
    #[bit(3, rw)]
    system_error_enable: bool,
    /// Controller Save State (CSS); reads 0.
    #[bit(8, rw)]
    save_state: bool,
    /// Controller Restore State (CRS); reads 0.
    #[bit(9, rw)]
    restore_state: bool,
    /// Enable Wrap Event (EWE).
    #[bit(10, rw)]
    enable_wrap_event: bool,
}

impl UsbCmd {
    const STORED: u32 = Self::DEFAULT
        .with_run(true)
        .with_interrupter_enable(true)
        .with_system_error_enable(true)
        .with_enable_wrap_event(true)
        .raw_value();
}

/// USB Status (USBSTS). xHCI 1.2 §5.4.2.
#[bitfield(u32, default = 1, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct UsbSts {
    /// HCHalted (HCH).
    #[bit(0, rw)]
    halted: bool,
    /// Host System Error (HSE): guest memory could not be accessed.
    #[bit(2, rw)]
    system_error: bool,
    /// Event Interrupt (EINT).
    #[bit(3, rw)]
    event_interrupt: bool,
    /// Port Change Detect (PCD).
    #[bit(4, rw)]
    port_change: bool,
    /// Save/Restore Error (SRE).
    #[bit(10, rw)]
    save_restore_error: bool,
    /// Controller Not Ready (CNR): never.
    #[bit(11, rw)]
    not_ready: bool,
    /// Host Controller Error (HCE).
    #[bit(12, rw)]
    controller_error: bool,
}

impl UsbSts {
    const CLEARABLE: u32 = Self::ZERO
        .with_system_error(true)
        .with_event_interrupt(true)
        .with_port_change(true)
        .with_save_restore_error(true)
        .raw_value();
}

/// Command Ring Control (CRCR), lower half. xHCI 1.2 §5.4.5.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Crcr {
    /// Ring Cycle State (RCS); reads 0.
    #[bit(0, rw)]
    cycle: bool,
    /// Command Stop (CS); reads 0.
    #[bit(1, rw)]
    stop: bool,
    /// Command Abort (CA); reads 0.
    #[bit(2, rw)]
    abort: bool,
    /// Command Ring Running (CRR).
    #[bit(3, rw)]
    running: bool,
}
