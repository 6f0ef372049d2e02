//! The codec: the root, one audio function group, and widgets. HDA 1.0a §7.
//!
//! It has a vendor ID of its own, because drivers treat the codecs of known vendors specially. Every verb that sets
//! something can be read back exactly; unknown verbs and nodes read 0 and are counted.

mod amplifier;
mod graph;
mod verb;
mod widget;

use amplifier::{Level, Levels};
use verb::{Command, Parameter, Verb};
use widget::{PCM, POWER_STATES, Part, Power, STREAM_FORMATS, Widget, set_byte};

/// Where on the link the codec is: its bit in STATESTS and WAKEEN.
pub(crate) const ADDRESS: u8 = 0;

const ROOT: u8 = 0;
const FUNCTION_GROUP: u8 = 1;

/// Vendor and device ID: nobody's.
const VENDOR_AND_DEVICE: u32 = 0xfa2b_0001;
/// HDA 1.0, revision 1.
const REVISION: u32 = 0x0010_0100;
/// An audio function group.
const AUDIO_FUNCTION: u32 = 0x01;

/// What becomes of a playback stream's sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlet {
    /// No converter listens to the stream.
    Nobody,
    /// It is to be played, at these levels; silent where a pin, an amplifier or a power state says so.
    Sound(Levels),
}

/// The codec.
#[derive(Debug)]
pub(crate) struct Codec {
    power: Power,
    /// Board and assembly, which firmware may change. HDA 1.0a §7.3.3.30.
    subsystem: u32,
    widgets: Vec<Widget>,
    unknown: u64,
}

impl Codec {
    /// As after power-on.
    pub(crate) fn new() -> Self {
        Self { power: Power::ON, subsystem: VENDOR_AND_DEVICE, widgets: graph::build(), unknown: 0 }
    }

    /// Carries a command out and answers; `None`: nobody has this address.
    pub(crate) fn respond(&mut self, command: u32) -> Option<u32> {
        let command = Command::new_with_raw_value(command);
        if command.codec().value() != ADDRESS {
            return None;
        }
        let verb = Verb::decode(command.verb().value());
        let answer = match command.node() {
            ROOT => Self::root(verb),
            FUNCTION_GROUP => self.function_group(verb),
            node => self.widget(node, verb),
        };
        if answer.is_none() && verb != Verb::Absent {
            self.unknown += 1;
            tracing::debug!(node = command.node(), ?verb, "a codec verb without a meaning");
        }
        Some(answer.unwrap_or(0))
    }

    /// Verbs that meant nothing, so far.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// What the widgets do with a stream.
    pub(crate) fn outlet(&self, tag: u8) -> Outlet {
        let mut levels = [Level::SILENT; 16];
        let mut listened = false;
        for widget in &self.widgets {
            let Part::Converter { stream, amplifier, .. } = &widget.part else { continue };
            if tag == 0 || stream.tag().value() != tag {
                continue;
            }
            listened = true;
            let on = self.power == Power::ON && widget.power == Power::ON && self.heard(widget.node);
            for (level, left) in levels.iter_mut().skip(stream.channel().value().into()).zip([true, false]) {
                *level = if on { amplifier.level(left) } else { Level::SILENT };
            }
        }
        if listened { Outlet::Sound(Levels(levels)) } else { Outlet::Nobody }
    }

    /// The link was reset: all but what firmware has written.
    pub(crate) fn reset(&mut self) {
        let Self { power, subsystem: _, widgets, unknown: _ } = self;
        *power = Power::ON;
        widgets.iter_mut().for_each(Widget::reset);
    }

    /// Whether a pin makes this converter's sound audible.
    fn heard(&self, converter: u8) -> bool {
        self.widgets.iter().any(|widget| match &widget.part {
            Part::Pin(pin) => {
                let source = widget.connections.get(usize::from(widget.select));
                source == Some(&converter) && widget.power == Power::ON && pin.audible()
            }
            Part::Converter { .. } => false,
        })
    }

    fn root(verb: Verb) -> Option<u32> {
        let Verb::GetParameter(parameter) = verb else { return None };
        Some(match Parameter::decode(parameter) {
            Some(Parameter::VendorAndDevice) => VENDOR_AND_DEVICE,
            Some(Parameter::Revision) => REVISION,
            Some(Parameter::SubordinateNodes) => nodes(FUNCTION_GROUP, FUNCTION_GROUP),
            _ => 0,
        })
    }

    fn function_group(&mut self, verb: Verb) -> Option<u32> {
        match verb {
            Verb::GetParameter(parameter) => Some(match Parameter::decode(parameter) {
                Some(Parameter::SubordinateNodes) => nodes(graph::FIRST, graph::LAST),
                Some(Parameter::FunctionGroupType) => AUDIO_FUNCTION,
                Some(Parameter::PcmSupport) => PCM,
                Some(Parameter::StreamFormats) => STREAM_FORMATS,
                Some(Parameter::PowerStates) => POWER_STATES,
                _ => 0,
            }),
            Verb::GetPower => Some(self.power.reply(Power::ON)),
            Verb::SetPower(state) => {
                self.power = Power::from_payload(state);
                Some(0)
            }
            Verb::GetSubsystem => Some(self.subsystem),
            Verb::SetSubsystem(byte, value) => {
                set_byte(&mut self.subsystem, byte, value);
                Some(0)
            }
            Verb::Reset => {
                self.reset();
                Some(0)
            }
            _ => None,
        }
    }

    fn widget(&mut self, node: u8, verb: Verb) -> Option<u32> {
        if let Some(widget) = self.widgets.iter_mut().find(|widget| widget.node == node) {
            return widget.respond(verb, self.power);
        }
        let gap = (graph::FIRST..=graph::LAST).contains(&node);
        match verb {
            Verb::GetParameter(parameter) if gap => {
                let asked = Parameter::decode(parameter) == Some(Parameter::WidgetCapabilities);
                Some(if asked { graph::GAP.raw_value() } else { 0 })
            }
            _ => None,
        }
    }
}

/// Subordinate Node Count. HDA 1.0a §7.3.4.3.
fn nodes(first: u8, last: u8) -> u32 {
    u32::from(first) << 16 | u32::from(last - first + 1)
}

#[cfg(test)]
mod tests;
