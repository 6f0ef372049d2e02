//! Commands to a codec, decoded once. HDA 1.0a §7.3.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::{u4, u7};
use bitbybit::bitfield;

/// A command as it travels on the link. HDA 1.0a §7.3.1.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Command {
    /// Codec address (CAd).
    #[bits(28..=31, rw)]
    codec: u4,
    /// Node ID (NID).
    #[bits(20..=27, rw)]
    node: u8,
    /// Verb and payload.
    #[bits(0..=19, rw)]
    verb: arbitrary_int::u20,
}

/// What is asked of a node. Replies to `Set` verbs are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// §7.3.3.1, §7.3.4: one of the read-only parameters.
    GetParameter(u8),
    /// §7.3.3.2.
    GetConnectionSelect,
    /// §7.3.3.2.
    SetConnectionSelect(u8),
    /// §7.3.3.3: up to four entries from this one on.
    GetConnectionList(u8),
    /// §7.3.3.7.
    GetAmplifier(GetAmplifier),
    /// §7.3.3.7.
    SetAmplifier(SetAmplifier),
    /// §7.3.3.8.
    GetFormat,
    /// §7.3.3.8.
    SetFormat(u16),
    /// §7.3.3.10.
    GetPower,
    /// §7.3.3.10.
    SetPower(u8),
    /// §7.3.3.11.
    GetStream,
    /// §7.3.3.11.
    SetStream(u8),
    /// §7.3.3.13.
    GetPinControl,
    /// §7.3.3.13.
    SetPinControl(u8),
    /// §7.3.3.14.
    GetUnsolicited,
    /// §7.3.3.14.
    SetUnsolicited(u8),
    /// §7.3.3.15.
    GetPinSense,
    /// §7.3.3.15.
    ExecutePinSense,
    /// §7.3.3.16.
    GetAmplifierPower,
    /// §7.3.3.16.
    SetAmplifierPower(u8),
    /// §7.3.3.30.
    GetSubsystem,
    /// §7.3.3.30: byte 0 to 3.
    SetSubsystem(u8, u8),
    /// §7.3.3.31.
    GetConfiguration,
    /// §7.3.3.31: byte 0 to 3.
    SetConfiguration(u8, u8),
    /// §7.3.3.33.
    Reset,
    /// Read as 0 by every codec that has nothing of the kind: digital converters, processing, GPIO, beep, stripes.
    Absent,
    /// Not in the specification.
    Unknown,
}

/// The payload of Get Amplifier Gain/Mute. HDA 1.0a §7.3.3.7.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct GetAmplifier {
    /// The output amplifier, not an input's.
    #[bit(15, rw)]
    output: bool,
    /// The left side.
    #[bit(13, rw)]
    left: bool,
    /// Which input.
    #[bits(0..=3, rw)]
    index: u4,
}

/// The payload of Set Amplifier Gain/Mute. HDA 1.0a §7.3.3.7.
#[bitfield(u16, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct SetAmplifier {
    /// The output amplifier is set.
    #[bit(15, rw)]
    output: bool,
    /// An input amplifier is set.
    #[bit(14, rw)]
    input: bool,
    /// The left side is set.
    #[bit(13, rw)]
    left: bool,
    /// The right side is set.
    #[bit(12, rw)]
    right: bool,
    /// Which input.
    #[bits(8..=11, rw)]
    index: u4,
    /// Mute.
    #[bit(7, rw)]
    mute: bool,
    /// Steps.
    #[bits(0..=6, rw)]
    gain: u7,
}

impl Verb {
    /// Decodes the 20 bits of verb and payload: 4 + 16, or 12 + 8 where the upper four are 7h or Fh.
    pub(crate) fn decode(raw: u32) -> Self {
        let (wide, narrow) = (raw as u16, raw as u8);
        match raw >> 16 & 0xf {
            0x2 => return Self::SetFormat(wide),
            0x3 => return Self::SetAmplifier(SetAmplifier::new_with_raw_value(wide)),
            0x4 | 0x5 | 0xc | 0xd => return Self::Absent,
            0xa => return Self::GetFormat,
            0xb => return Self::GetAmplifier(GetAmplifier::new_with_raw_value(wide)),
            0x7 | 0xf => {}
            _ => return Self::Unknown,
        }
        match raw >> 8 & 0xfff {
            0xf00 => Self::GetParameter(narrow),
            0xf01 => Self::GetConnectionSelect,
            0x701 => Self::SetConnectionSelect(narrow),
            0xf02 => Self::GetConnectionList(narrow),
            0xf05 => Self::GetPower,
            0x705 => Self::SetPower(narrow),
            0xf06 => Self::GetStream,
            0x706 => Self::SetStream(narrow),
            0xf07 => Self::GetPinControl,
            0x707 => Self::SetPinControl(narrow),
            0xf08 => Self::GetUnsolicited,
            0x708 => Self::SetUnsolicited(narrow),
            0xf09 => Self::GetPinSense,
            0x709 => Self::ExecutePinSense,
            0xf0c => Self::GetAmplifierPower,
            0x70c => Self::SetAmplifierPower(narrow),
            0xf1c => Self::GetConfiguration,
            0x71c..=0x71f => Self::SetConfiguration((raw >> 8) as u8 & 3, narrow),
            0xf20 => Self::GetSubsystem,
            0x720..=0x723 => Self::SetSubsystem((raw >> 8) as u8 & 3, narrow),
            0x7ff => Self::Reset,
            // Processing state, SDI select, beep, digital converter, volume knob, GPIO, stripe control, and the
            // channel count of digital converters.
            0xf03
            | 0x703
            | 0xf04
            | 0x704
            | 0xf0a
            | 0x70a
            | 0xf0d
            | 0x70d
            | 0x70e
            | 0x73e
            | 0x73f
            | 0xf0f
            | 0x70f
            | 0xf10..=0xf1b
            | 0x710..=0x71b
            | 0xf24
            | 0x724
            | 0xf2d
            | 0x72d => Self::Absent,
            _ => Self::Unknown,
        }
    }
}

/// A read-only parameter. HDA 1.0a §7.3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// §7.3.4.1.
    VendorAndDevice,
    /// §7.3.4.2.
    Revision,
    /// §7.3.4.3.
    SubordinateNodes,
    /// §7.3.4.4.
    FunctionGroupType,
    /// §7.3.4.5.
    FunctionCapabilities,
    /// §7.3.4.6.
    WidgetCapabilities,
    /// §7.3.4.7.
    PcmSupport,
    /// §7.3.4.8.
    StreamFormats,
    /// §7.3.4.9.
    PinCapabilities,
    /// §7.3.4.10: of the input amplifiers.
    InputAmplifier,
    /// §7.3.4.10: of the output amplifier.
    OutputAmplifier,
    /// §7.3.4.11.
    ConnectionListLength,
    /// §7.3.4.12.
    PowerStates,
}

impl Parameter {
    /// `None` for those that nothing here has (processing, GPIO, volume knob) and for unknown ones: they read 0.
    pub(crate) fn decode(raw: u8) -> Option<Self> {
        Some(match raw {
            0x00 => Self::VendorAndDevice,
            0x02 => Self::Revision,
            0x04 => Self::SubordinateNodes,
            0x05 => Self::FunctionGroupType,
            0x08 => Self::FunctionCapabilities,
            0x09 => Self::WidgetCapabilities,
            0x0a => Self::PcmSupport,
            0x0b => Self::StreamFormats,
            0x0c => Self::PinCapabilities,
            0x0d => Self::InputAmplifier,
            0x0e => Self::ConnectionListLength,
            0x0f => Self::PowerStates,
            0x12 => Self::OutputAmplifier,
            _ => return None,
        })
    }
}
