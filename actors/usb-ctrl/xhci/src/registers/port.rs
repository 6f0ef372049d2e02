//! Port register sets. xHCI 1.2 §5.4.8 to §5.4.11.
#![expect(unreachable_pub, reason = "what bitfield writes is pub inside crate-private types")]

use arbitrary_int::{u2, u4};
use bitbybit::{bitenum, bitfield};

use super::Row;

/// The four registers of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortRegister {
    /// Port Status and Control. xHCI 1.2 §5.4.8.
    StatusControl,
    /// Port Power Management Status and Control: storage. xHCI 1.2 §5.4.9.
    PowerManagement,
    /// Port Link Info: no errors, no lanes. xHCI 1.2 §5.4.10.
    LinkInfo,
    /// Port Hardware LPM Control: storage. xHCI 1.2 §5.4.11.
    HardwareLpm,
}

impl PortRegister {
    /// The register at this offset into a port's set.
    pub(crate) fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x0 => Self::StatusControl,
            0x4 => Self::PowerManagement,
            0x8 => Self::LinkInfo,
            0xc => Self::HardwareLpm,
            _ => return None,
        })
    }

    /// What a guest may do to its bits; PED, PR, WPR, PP and PLS act and are not in the row.
    pub(crate) fn row(self) -> Row {
        match self {
            Self::StatusControl => {
                Row { reset: PortSc::DEFAULT.raw_value(), rw: PortSc::STORED, rw1c: PortSc::CHANGES }
            }
            Self::PowerManagement | Self::HardwareLpm => Row { reset: 0, rw: !0, rw1c: 0 },
            Self::LinkInfo => Row { reset: 0, rw: 0, rw1c: 0 },
        }
    }
}

/// Port Status and Control (PORTSC). xHCI 1.2 §5.4.8.
#[doc(alias = "PORTSC")]
#[bitfield(u32, default = 0x0000_02a0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct PortSc {
    /// Current Connect Status (CCS).
    #[bit(0, rw)]
    connected: bool,
    /// Port Enabled/Disabled (PED); writing 1 disables.
    #[bit(1, rw)]
    enabled: bool,
    /// Over-current Active (OCA): never.
    #[bit(3, rw)]
    over_current: bool,
    /// Port Reset (PR).
    #[bit(4, rw)]
    reset: bool,
    /// Port Link State (PLS).
    #[bits(5..=8, rw)]
    link: u4,
    /// Port Power (PP).
    #[bit(9, rw)]
    power: bool,
    /// Port Speed: a default protocol speed id.
    #[bits(10..=13, rw)]
    speed: u4,
    /// Port Indicator Control (PIC): storage, there are no lamps.
    #[bits(14..=15, rw)]
    indicator: u2,
    /// Port Link State Write Strobe (LWS); reads 0.
    #[bit(16, rw)]
    link_strobe: bool,
    /// Connect Status Change (CSC).
    #[bit(17, rw)]
    connect_change: bool,
    /// Port Enabled/Disabled Change (PEC).
    #[bit(18, rw)]
    enable_change: bool,
    /// Warm Port Reset Change (WRC).
    #[bit(19, rw)]
    warm_reset_change: bool,
    /// Over-current Change (OCC): never.
    #[bit(20, rw)]
    over_current_change: bool,
    /// Port Reset Change (PRC).
    #[bit(21, rw)]
    reset_change: bool,
    /// Port Link State Change (PLC).
    #[bit(22, rw)]
    link_change: bool,
    /// Port Config Error Change (CEC): never.
    #[bit(23, rw)]
    config_error_change: bool,
    /// Wake on Connect Enable (WCE): storage.
    #[bit(25, rw)]
    wake_on_connect: bool,
    /// Wake on Disconnect Enable (WDE): storage.
    #[bit(26, rw)]
    wake_on_disconnect: bool,
    /// Wake on Over-current Enable (WOE): storage.
    #[bit(27, rw)]
    wake_on_over_current: bool,
    /// Warm Port Reset (WPR); reads 0.
    #[bit(31, rw)]
    warm_reset: bool,
}

impl PortSc {
    /// The change bits.
    pub(crate) const CHANGES: u32 = Self::ZERO
        .with_connect_change(true)
        .with_enable_change(true)
        .with_warm_reset_change(true)
        .with_over_current_change(true)
        .with_reset_change(true)
        .with_link_change(true)
        .with_config_error_change(true)
        .raw_value();

    const STORED: u32 = Self::ZERO
        .with_indicator(u2::new(3))
        .with_wake_on_connect(true)
        .with_wake_on_disconnect(true)
        .with_wake_on_over_current(true)
        .raw_value();

    /// Whether any change is shown.
    pub(crate) fn changed(self) -> bool {
        self.raw_value() & Self::CHANGES != 0
    }

    /// The link state, if it has a name.
    pub(crate) fn link_state(self) -> Option<LinkState> {
        LinkState::new_with_raw_value(self.link()).ok()
    }

    /// The same with another link state.
    pub(crate) fn with_link_state(self, state: LinkState) -> Self {
        self.with_link(state.raw_value())
    }
}

/// Port link states. xHCI 1.2 §5.4.8, table 5-27.
#[bitenum(u4, exhaustive = false)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Working.
    U0 = 0,
    /// Light sleep.
    U1 = 1,
    /// Deeper sleep; USB 2: L1.
    U2 = 2,
    /// Suspended.
    U3 = 3,
    /// Switched off.
    Disabled = 4,
    /// Looking for a partner.
    RxDetect = 5,
    /// USB 3: failed; needs a warm reset.
    Inactive = 6,
    /// USB 2: connected, not yet reset.
    Polling = 7,
    /// Being woken.
    Resume = 15,
}
