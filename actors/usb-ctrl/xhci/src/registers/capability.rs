//! Capability registers and extended capabilities: what the controller says of itself. xHCI 1.2 §5.3, §7.

use crate::endpoint::streams::MAX_PRIMARY_ARRAY;

use super::{DOORBELLS, EXTENDED, OPERATIONAL, RUNTIME};

/// Interface version 1.1.0 in BCD (HCIVERSION). 1.2 would promise the features of HCCPARAMS2.
pub(crate) const VERSION: u32 = 0x0110;
/// `"USB "`, the name of every supported protocol. xHCI 1.2 §7.2.
const PROTOCOL_NAME: u32 = u32::from_le_bytes(*b"USB ");
/// No Secondary SID Support.
const NO_SECONDARY: u32 = 1 << 7;
/// ERST Max: event ring segment tables of up to 2^4 segments.
const ERST_MAX: u32 = 4;
/// Isochronous Scheduling Threshold: bit 3 = counted in frames, 7 of them.
const ISOCHRONOUS_THRESHOLD: u32 = 0xf;

/// The most segments of an event ring. xHCI 1.2 §5.3.4.
pub(crate) const MAX_EVENT_SEGMENTS: u16 = 1 << ERST_MAX;

/// What the controller has how many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Device slots.
    pub(crate) slots: u8,
    /// Interrupters.
    pub(crate) interrupters: u8,
    /// USB 2 ports: the first of the root hub.
    pub(crate) usb2_ports: u8,
    /// USB 3 ports: those behind them.
    pub(crate) usb3_ports: u8,
    /// 64-byte contexts.
    pub(crate) long_contexts: bool,
}

impl Shape {
    /// All ports.
    pub(crate) fn ports(&self) -> u8 {
        self.usb2_ports + self.usb3_ports
    }

    /// The capability register at this offset. xHCI 1.2 §5.3.
    pub(crate) fn capability(&self, offset: u64) -> Option<u32> {
        Some(match offset {
            0x00 => VERSION << 16 | OPERATIONAL as u32,
            // HCSPARAMS1
            0x04 => u32::from(self.ports()) << 24 | u32::from(self.interrupters) << 8 | u32::from(self.slots),
            // HCSPARAMS2: no scratchpad buffers
            0x08 => ERST_MAX << 4 | ISOCHRONOUS_THRESHOLD,
            // HCSPARAMS3: no exit latencies, so no guest tries link power management
            0x0c => 0,
            // HCCPARAMS1: AC64, CSZ, NSS, MaxPSASize, xECP; no secondary stream arrays, no port power switches, no
            // indicators
            0x10 => {
                ((EXTENDED / 4) as u32) << 16
                    | u32::from(MAX_PRIMARY_ARRAY) << 12
                    | NO_SECONDARY
                    | u32::from(self.long_contexts) << 2
                    | 1
            }
            0x14 => DOORBELLS as u32,
            0x18 => RUNTIME as u32,
            // HCCPARAMS2
            0x1c => 0,
            _ => return None,
        })
    }

    /// The dword at this offset into the extended capabilities: Supported Protocol 2.0 and 3.0. xHCI 1.2 §7.2.
    pub(crate) fn extended(&self, offset: u64) -> Option<u32> {
        const DWORDS: u32 = 4;
        let (usb2, usb3) = (u32::from(self.usb2_ports), u32::from(self.usb3_ports));
        let protocols = [
            [0x0200_0002 | DWORDS << 8, PROTOCOL_NAME, usb2 << 8 | 1, 0],
            [0x0300_0002, PROTOCOL_NAME, usb3 << 8 | (usb2 + 1), 0],
        ];
        protocols.as_flattened().get(usize::try_from(offset / 4).ok()?).copied()
    }
}
