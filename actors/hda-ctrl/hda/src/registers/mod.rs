//! The controller's registers: one table, and the bits of those that have any. HDA 1.0a §3.3.

mod bits;
mod row;

pub(crate) use bits::{
    CorbControl, CorbReadPointer, CorbStatus, GlobalControl, GlobalStatus, ImmediateStatus, InterruptControl,
    PositionBase, RirbControl, RirbStatus, RirbWritePointer,
};
pub(crate) use row::{Piece, Row, pieces};

use crate::stream::{self, StreamRegister};

/// A register. The names are the specification's abbreviations spelled out, or nearly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// GCAP.
    Capabilities,
    /// VMIN.
    VersionMinor,
    /// VMAJ.
    VersionMajor,
    /// OUTPAY.
    OutputPayload,
    /// INPAY.
    InputPayload,
    /// GCTL.
    GlobalControl,
    /// WAKEEN.
    WakeEnable,
    /// STATESTS.
    StateChange,
    /// GSTS.
    GlobalStatus,
    /// OUTSTRMPAY.
    OutputStreamPayload,
    /// INSTRMPAY.
    InputStreamPayload,
    /// INTCTL.
    InterruptControl,
    /// INTSTS.
    InterruptStatus,
    /// WALCLK.
    WallClock,
    /// SSYNC, at the specification's offset and at the one of the ICH family.
    StreamSync,
    /// CORBLBASE.
    CorbBaseLow,
    /// CORBUBASE.
    CorbBaseHigh,
    /// CORBWP.
    CorbWritePointer,
    /// CORBRP.
    CorbReadPointer,
    /// CORBCTL.
    CorbControl,
    /// CORBSTS.
    CorbStatus,
    /// CORBSIZE.
    CorbSize,
    /// RIRBLBASE.
    RirbBaseLow,
    /// RIRBUBASE.
    RirbBaseHigh,
    /// RIRBWP.
    RirbWritePointer,
    /// RINTCNT.
    ResponseCount,
    /// RIRBCTL.
    RirbControl,
    /// RIRBSTS.
    RirbStatus,
    /// RIRBSIZE.
    RirbSize,
    /// ICOI, also called ICW.
    ImmediateCommand,
    /// ICII, also called IRR.
    ImmediateResponse,
    /// ICIS, also called ICS.
    ImmediateStatus,
    /// DPLBASE.
    PositionBaseLow,
    /// DPUBASE.
    PositionBaseHigh,
    /// A register of the stream with this number.
    Stream(u8, StreamRegister),
}

/// The first byte of the first stream's registers.
pub(crate) const STREAMS: u16 = 0x80;
/// The bytes of one stream's registers.
pub(crate) const STREAM_BYTES: u16 = 0x20;
/// Where the aliases of WALCLK and of each LPIB begin.
pub(crate) const ALIASES: u16 = 0x2000;

/// The words of payload for one stream: 8 channels, 192 kHz, 32 bits take 64.
const STREAM_PAYLOAD: u32 = 0x40;
/// The words of payload for the link: four such streams, as far as the register goes.
const LINK_PAYLOAD: u32 = 0xff;
/// 256 entries and nothing else: capability in the upper half, what is chosen in the lower.
const RING_SIZE: u32 = 0x42;
/// Ring addresses have 7 zero bits: all rings are 128-byte aligned.
const RING_ADDRESS: u32 = 0xffff_ff80;

/// Every register of the controller itself. The Capabilities row lacks the numbers of streams, which are configured.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row<Register>] = &[
    //        register                       offset bytes  reset            writable      write 1 to clear
    Row::new(Register::Capabilities,         0x00, 2,      0x0001,          0,            0),
    Row::new(Register::VersionMinor,         0x02, 1,      0x00,            0,            0),
    Row::new(Register::VersionMajor,         0x03, 1,      0x01,            0,            0),
    Row::new(Register::OutputPayload,        0x04, 2,      LINK_PAYLOAD,    0,            0),
    Row::new(Register::InputPayload,         0x06, 2,      LINK_PAYLOAD,    0,            0),
    Row::new(Register::GlobalControl,        0x08, 4,      0,               0x0000_0103,  0),
    Row::new(Register::WakeEnable,           0x0c, 2,      0,               0x7fff,       0),
    Row::new(Register::StateChange,          0x0e, 2,      0,               0,            0x7fff),
    Row::new(Register::GlobalStatus,         0x10, 2,      0,               0,            0x0002),
    Row::new(Register::OutputStreamPayload,  0x18, 2,      STREAM_PAYLOAD,  0,            0),
    Row::new(Register::InputStreamPayload,   0x1a, 2,      STREAM_PAYLOAD,  0,            0),
    Row::new(Register::InterruptControl,     0x20, 4,      0,               0xffff_ffff,  0),
    Row::new(Register::InterruptStatus,      0x24, 4,      0,               0,            0),
    Row::new(Register::WallClock,            0x30, 4,      0,               0,            0),
    Row::new(Register::StreamSync,           0x34, 4,      0,               0x3fff_ffff,  0),
    Row::new(Register::StreamSync,           0x38, 4,      0,               0x3fff_ffff,  0),
    Row::new(Register::CorbBaseLow,          0x40, 4,      0,               RING_ADDRESS, 0),
    Row::new(Register::CorbBaseHigh,         0x44, 4,      0,               0xffff_ffff,  0),
    Row::new(Register::CorbWritePointer,     0x48, 2,      0,               0x00ff,       0),
    Row::new(Register::CorbReadPointer,      0x4a, 2,      0,               0x8000,       0),
    Row::new(Register::CorbControl,          0x4c, 1,      0,               0x03,         0),
    Row::new(Register::CorbStatus,           0x4d, 1,      0,               0,            0x01),
    Row::new(Register::CorbSize,             0x4e, 1,      RING_SIZE,       0,            0),
    Row::new(Register::RirbBaseLow,          0x50, 4,      0,               RING_ADDRESS, 0),
    Row::new(Register::RirbBaseHigh,         0x54, 4,      0,               0xffff_ffff,  0),
    Row::new(Register::RirbWritePointer,     0x58, 2,      0,               0x8000,       0),
    Row::new(Register::ResponseCount,        0x5a, 2,      0,               0x00ff,       0),
    Row::new(Register::RirbControl,          0x5c, 1,      0,               0x07,         0),
    Row::new(Register::RirbStatus,           0x5d, 1,      0,               0,            0x05),
    Row::new(Register::RirbSize,             0x5e, 1,      RING_SIZE,       0,            0),
    Row::new(Register::ImmediateCommand,     0x60, 4,      0,               0xffff_ffff,  0),
    Row::new(Register::ImmediateResponse,    0x64, 4,      0,               0,            0),
    Row::new(Register::ImmediateStatus,      0x68, 2,      0,               0x0001,       0x0002),
    Row::new(Register::PositionBaseLow,      0x70, 4,      0,               0xffff_ff81,  0),
    Row::new(Register::PositionBaseHigh,     0x74, 4,      0,               0xffff_ffff,  0),
];

impl Register {
    /// The register that this byte belongs to, and its rules.
    pub(crate) fn at(offset: u64) -> Option<Row<Self>> {
        let offset = u16::try_from(offset).ok()?;
        if offset >= ALIASES {
            let original = Self::at(u64::from(offset - ALIASES))?;
            let aliased =
                matches!(original.register, Self::WallClock | Self::Stream(_, StreamRegister::Position));
            return aliased.then_some(original.moved(ALIASES));
        }
        let Some(inside) = offset.checked_sub(STREAMS) else {
            return TABLE.iter().find(|row| row.covers(offset)).copied();
        };
        let (stream, inside) = (inside / STREAM_BYTES, inside % STREAM_BYTES);
        let row = stream::TABLE.iter().find(|row| row.covers(inside))?;
        let number = u8::try_from(stream).ok().filter(|number| *number < 30)?;
        Some(row.map(|register| Self::Stream(number, register)).moved(STREAMS + stream * STREAM_BYTES))
    }

    /// Whether this register exists for writing while the controller is in reset. HDA 1.0a §3.3.7.
    pub(crate) fn lives_in_reset(self) -> bool {
        matches!(self, Self::GlobalControl | Self::WakeEnable | Self::StateChange)
    }

    /// Whether what it reads depends on how far the streams have got.
    pub(crate) fn moves_with_time(self) -> bool {
        matches!(self, Self::WallClock | Self::Stream(..))
    }
}

#[cfg(test)]
mod tests;
