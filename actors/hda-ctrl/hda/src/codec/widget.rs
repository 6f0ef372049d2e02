//! Widgets: what the codec is made of, and their state. HDA 1.0a §7.1.2, §7.2.3.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use arbitrary_int::u4;
use bitbybit::{bitenum, bitfield};

use super::amplifier::{self, Amplifier};
use super::verb::{Parameter, Verb};

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

/// Pin Capabilities. HDA 1.0a §7.3.4.9.
#[bitfield(u32, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct PinCapabilities {
    /// Can tell whether something is plugged in.
    #[bit(2, rw)]
    presence_detect: bool,
    /// Can drive headphones.
    #[bit(3, rw)]
    headphone: bool,
    /// Is an output.
    #[bit(4, rw)]
    output: bool,
    /// Is an input.
    #[bit(5, rw)]
    input: bool,
    /// Has an external amplifier that can be switched off.
    #[bit(16, rw)]
    external_amplifier: bool,
}

/// Pin Widget Control. HDA 1.0a §7.3.3.13.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct PinControl {
    /// The voltage at a microphone.
    #[bits(0..=2, rw)]
    reference: arbitrary_int::u3,
    /// The input is on.
    #[bit(5, rw)]
    input: bool,
    /// The output is on.
    #[bit(6, rw)]
    output: bool,
    /// The headphone amplifier is on.
    #[bit(7, rw)]
    headphone: bool,
}

/// External amplifier power-down (EAPD) and its neighbours. HDA 1.0a §7.3.3.16.
#[bitfield(u8, default = 0x02, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct AmplifierPower {
    /// Balanced output.
    #[bit(0, rw)]
    balanced: bool,
    /// The external amplifier is on.
    #[bit(1, rw)]
    on: bool,
    /// Left and right are swapped; kept, of no effect.
    #[bit(2, rw)]
    swapped: bool,
}

/// Unsolicited Response control. HDA 1.0a §7.3.3.14.
#[bitfield(u8, default = 0, forbid_overlaps, debug)]
#[derive(PartialEq, Eq)]
pub(crate) struct Unsolicited {
    /// What the response is marked with.
    #[bits(0..=5, rw)]
    tag: arbitrary_int::u6,
    /// May be sent.
    #[bit(7, rw)]
    enable: bool,
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
    /// A DAC or an ADC, with its amplifier.
    Converter { format: u16, stream: StreamChannel, amplifier: Amplifier },
    /// A pin complex.
    Pin(Pin),
}

/// A pin complex.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) capabilities: PinCapabilities,
    pub(crate) control: PinControl,
    pub(crate) amplifier_power: AmplifierPower,
    pub(crate) unsolicited: Unsolicited,
    /// The Configuration Default, which firmware may change. HDA 1.0a §7.3.3.31.
    pub(crate) configuration: u32,
    /// Something is plugged in.
    pub(crate) plugged: bool,
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
            (Verb::GetAmplifier(which), Part::Converter { amplifier, .. }) => {
                Some(if which.output() { amplifier.read(which.left()).into() } else { 0 })
            }
            (Verb::SetAmplifier(setting), Part::Converter { amplifier, .. }) => {
                if setting.output() {
                    amplifier.write(setting);
                }
                Some(0)
            }
            (Verb::GetFormat, Part::Converter { format, .. }) => Some((*format).into()),
            (Verb::SetFormat(value), Part::Converter { format, .. }) => set(format, value),
            (Verb::GetStream, Part::Converter { stream, .. }) => Some(stream.raw_value().into()),
            (Verb::SetStream(value), Part::Converter { stream, .. }) => {
                set(stream, StreamChannel::new_with_raw_value(value))
            }
            (verb, Part::Pin(pin)) => pin.respond(verb, self.capabilities),
            (_, Part::Converter { .. }) => None,
        }
    }

    fn parameter(&self, raw: u8) -> u32 {
        let pin = match &self.part {
            Part::Pin(pin) => Some(pin),
            Part::Converter { .. } => None,
        };
        match Parameter::decode(raw) {
            Some(Parameter::WidgetCapabilities) => self.capabilities.raw_value(),
            Some(Parameter::PcmSupport) if self.capabilities.format_override() => PCM,
            Some(Parameter::StreamFormats) if self.capabilities.format_override() => STREAM_FORMATS,
            Some(Parameter::PinCapabilities) => pin.map_or(0, |pin| pin.capabilities.raw_value()),
            Some(Parameter::OutputAmplifier) if self.capabilities.output_amplifier() => {
                amplifier::CAPABILITIES
            }
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
            Part::Converter { format, stream, amplifier } => {
                (*format, *stream) = (0, StreamChannel::DEFAULT);
                *amplifier = Amplifier::default();
            }
            Part::Pin(Pin {
                capabilities,
                control,
                amplifier_power,
                unsolicited,
                configuration: _,
                plugged: _,
            }) => {
                *control = PinControl::DEFAULT.with_output(capabilities.output());
                *amplifier_power = AmplifierPower::DEFAULT;
                *unsolicited = Unsolicited::DEFAULT;
            }
        }
    }
}

impl Pin {
    fn respond(&mut self, verb: Verb, widget: WidgetCapabilities) -> Option<u32> {
        match verb {
            Verb::GetPinControl => Some(self.control.raw_value().into()),
            Verb::SetPinControl(value) => {
                set(&mut self.control, PinControl::new_with_raw_value(value & 0xe7))
            }
            Verb::GetUnsolicited if widget.unsolicited() => Some(self.unsolicited.raw_value().into()),
            Verb::SetUnsolicited(value) if widget.unsolicited() => {
                set(&mut self.unsolicited, Unsolicited::new_with_raw_value(value & 0xbf))
            }
            Verb::GetPinSense => Some(u32::from(self.capabilities.presence_detect() && self.plugged) << 31),
            Verb::ExecutePinSense => Some(0),
            Verb::GetAmplifierPower => Some(self.amplifier_power.raw_value().into()),
            Verb::SetAmplifierPower(value) => {
                set(&mut self.amplifier_power, AmplifierPower::new_with_raw_value(value & 0x07))
            }
            Verb::GetConfiguration => Some(self.configuration),
            Verb::SetConfiguration(byte, value) => {
                set_byte(&mut self.configuration, byte, value);
                Some(0)
            }
            _ => None,
        }
    }

    /// Whether sound that reaches the pin can be heard.
    pub(crate) fn audible(&self) -> bool {
        self.control.output() && (self.amplifier_power.on() || !self.capabilities.external_amplifier())
    }
}

/// Replaces one byte, 0 to 3.
pub(crate) fn set_byte(field: &mut u32, byte: u8, value: u8) {
    let shift = 8 * u32::from(byte & 3);
    *field = *field & !(0xff << shift) | u32::from(value) << shift;
}

fn set<T>(field: &mut T, value: T) -> Option<u32> {
    *field = value;
    Some(0)
}
