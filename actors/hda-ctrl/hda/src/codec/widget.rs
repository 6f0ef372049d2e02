//! Widgets: what the codec is made of, and their state. HDA 1.0a §7.1.2, §7.2.3.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::u4;
use bitbybit::{bitenum, bitfield};

use super::amplifier::{self, Amplifier};
use super::pin::Pin;
use super::verb::{GetAmplifier, Parameter, SetAmplifier, Verb};

/// Audio Widget Capabilities. HDA 1.0a §7.3.4.6.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct WidgetCapabilities {
    /// Two channels.
    #[bit(0, rw)]
    stereo: bool,
    /// Has input amplifiers.
    #[bit(1, rw)]
    input_amplifier: bool,
    /// Has an output amplifier.
    #[bit(2, rw)]
    output_amplifier: bool,
    /// Has amplifier parameters of its own.
    #[bit(3, rw)]
    amplifier_override: bool,
    /// Has format parameters of its own.
    #[bit(4, rw)]
    format_override: bool,
    /// Can send unsolicited responses.
    #[bit(7, rw)]
    unsolicited: bool,
    /// Has a connection list.
    #[bit(8, rw)]
    connection_list: bool,
    /// Has power states.
    #[bit(10, rw)]
    power: bool,
    /// What it is.
    #[bits(20..=23, rw)]
    kind: Option<WidgetType>,
}

/// The kinds of widgets. HDA 1.0a §7.3.4.6.
#[bitenum(u4, exhaustive = false)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WidgetType {
    /// Audio output: a DAC.
    Output = 0x0,
    /// Audio input: an ADC.
    Input = 0x1,
    /// A pin complex.
    Pin = 0x4,
    /// Vendor defined: drivers leave it alone. What stands at the node IDs between the others.
    Vendor = 0xf,
}

/// Converter stream and channel. HDA 1.0a §7.3.3.11.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct StreamChannel {
    /// The lowest channel that is used.
    #[bits(0..=3, rw)]
    channel: u4,
    /// The stream's tag, 0 for none.
    #[bits(4..=7, rw)]
    tag: u4,
}

/// A power state: what was asked for; D0 is fully on. HDA 1.0a §7.3.3.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Power(u8);

impl Power {
    /// D0.
    pub(crate) const ON: Self = Self(0);

    pub(crate) fn from_payload(payload: u8) -> Self {
        Self(payload & 3)
    }

    /// The reply: the state asked for, and the one reached, which is not above that of the function group.
    pub(crate) fn reply(self, group: Self) -> u32 {
        let reached = self.max(group);
        u32::from(reached.0) << 4 | u32::from(self.0)
    }
}

/// A node behind the function group.
#[derive(Debug, Clone)]
pub(crate) struct Widget {
    pub(crate) node: u8,
    pub(crate) capabilities: WidgetCapabilities,
    /// The nodes that it can take sound from.
    pub(crate) connections: &'static [u8],
    pub(crate) select: u8,
    pub(crate) power: Power,
    pub(crate) part: Part,
}

/// What only some widgets have.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// A DAC or an ADC.
    Converter(Converter),
    /// A pin complex.
    Pin(Pin),
}

/// A DAC or an ADC, with its one amplifier: behind a DAC, before an ADC.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Converter {
    format: u16,
    pub(crate) stream: StreamChannel,
    pub(crate) amplifier: Amplifier,
}

/// 8 to 192 kHz; 16, 20, 24 and 32 bits. HDA 1.0a §7.3.4.7.
pub(crate) const PCM: u32 = 0x001e_07ff;
/// PCM and nothing else. HDA 1.0a §7.3.4.8.
pub(crate) const STREAM_FORMATS: u32 = 1;
/// D0 to D3. HDA 1.0a §7.3.4.12.
pub(crate) const POWER_STATES: u32 = 0xf;

impl Widget {
    /// Answers a verb; `None` if this widget does not know it. `group` is the function group's power state.
    pub(crate) fn respond(&mut self, verb: Verb, group: Power) -> Option<u32> {
        match (verb, &mut self.part) {
            (Verb::GetParameter(parameter), _) => Some(self.parameter(parameter)),
            (Verb::GetConnectionSelect, _) if !self.connections.is_empty() => Some(self.select.into()),
            (Verb::SetConnectionSelect(index), _) if !self.connections.is_empty() => {
                if usize::from(index) < self.connections.len() {
                    self.select = index;
                }
                Some(0)
            }
            (Verb::GetConnectionList(from), _) if !self.connections.is_empty() => {
                let entries = self.connections.iter().skip(usize::from(from & !3)).take(4);
                Some(entries.rev().fold(0, |reply, node| reply << 8 | u32::from(*node)))
            }
            (Verb::GetPower, _) => Some(self.power.reply(group)),
            (Verb::SetPower(state), _) => set(&mut self.power, Power::from_payload(state)),
            (verb, Part::Converter(converter)) => converter.respond(verb, self.capabilities),
            (verb, Part::Pin(pin)) => pin.respond(verb, self.capabilities),
        }
    }

    fn parameter(&self, raw: u8) -> u32 {
        let pin = match &self.part {
            Part::Pin(pin) => Some(pin),
            Part::Converter(_) => None,
        };
        match Parameter::decode(raw) {
            Some(Parameter::WidgetCapabilities) => self.capabilities.raw_value(),
            Some(Parameter::PcmSupport) if self.capabilities.format_override() => PCM,
            Some(Parameter::StreamFormats) if self.capabilities.format_override() => STREAM_FORMATS,
            Some(Parameter::PinCapabilities) => pin.map_or(0, |pin| pin.capabilities.raw_value()),
            Some(Parameter::OutputAmplifier) if self.capabilities.output_amplifier() => {
                amplifier::CAPABILITIES
            }
            Some(Parameter::InputAmplifier) if self.capabilities.input_amplifier() => amplifier::CAPABILITIES,
            Some(Parameter::ConnectionListLength) => self.connections.len() as u32,
            Some(Parameter::PowerStates) if self.capabilities.power() => POWER_STATES,
            _ => 0,
        }
    }

    /// A reset of the function group or of the link: everything but what firmware has written.
    pub(crate) fn reset(&mut self) {
        let Self { node: _, capabilities: _, connections: _, select, power, part } = self;
        (*select, *power) = (0, Power::ON);
        match part {
            Part::Converter(converter) => *converter = Converter::default(),
            Part::Pin(pin) => pin.reset(),
        }
    }
}

impl Converter {
    fn respond(&mut self, verb: Verb, widget: WidgetCapabilities) -> Option<u32> {
        match verb {
            Verb::GetAmplifier(which) if has(widget, which) => Some(self.amplifier.read(which.left()).into()),
            Verb::GetAmplifier(_) => Some(0),
            Verb::SetAmplifier(setting) => {
                if sets(widget, setting) {
                    self.amplifier.write(setting);
                }
                Some(0)
            }
            Verb::GetFormat => Some(self.format.into()),
            Verb::SetFormat(value) => set(&mut self.format, value),
            Verb::GetStream => Some(self.stream.raw_value().into()),
            Verb::SetStream(value) => set(&mut self.stream, StreamChannel::new_with_raw_value(value)),
            _ => None,
        }
    }
}

/// Whether the widget has the amplifier that is asked for. An ADC has one input, with index 0.
fn has(widget: WidgetCapabilities, which: GetAmplifier) -> bool {
    if which.output() {
        widget.output_amplifier()
    } else {
        widget.input_amplifier() && which.index().value() == 0
    }
}

/// Whether the widget has an amplifier that is to be set.
fn sets(widget: WidgetCapabilities, setting: SetAmplifier) -> bool {
    let input = setting.input() && widget.input_amplifier() && setting.index().value() == 0;
    (setting.output() && widget.output_amplifier()) || input
}

/// Replaces one byte, 0 to 3.
pub(crate) fn set_byte(field: &mut u32, byte: u8, value: u8) {
    let shift = 8 * u32::from(byte & 3);
    *field = *field & !(0xff << shift) | u32::from(value) << shift;
}

pub(super) fn set<T>(field: &mut T, value: T) -> Option<u32> {
    *field = value;
    Some(0)
}
