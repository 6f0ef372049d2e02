//! The codec: the root, one audio function group, and widgets. HDA 1.0a §7.
//!
//! It has a vendor ID of its own, because drivers treat the codecs of known vendors specially. Every verb that sets
//! something can be read back exactly; unknown verbs and nodes read 0 and are counted.

mod amplifier;
mod fader;
mod graph;
mod pin;
mod verb;
mod widget;

pub(crate) use amplifier::Levels;
pub(crate) use fader::Fader;

use amplifier::Level;
use verb::{Command, Parameter, Verb};
use widget::{PCM, POWER_STATES, Part, Power, STREAM_FORMATS, Widget, WidgetType, set_byte};
use wire::audio::Jack;

use crate::Speakers;

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

/// What lies between a stream and the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path {
    /// No converter listens to the stream, or feeds it.
    None,
    /// Sound passes at these levels; silent where a pin, an amplifier or a power state says so.
    Open(Levels),
}

impl Path {
    /// Whether anything can be heard of a stream's channels.
    pub(crate) fn audible(&self, channels: u8) -> bool {
        matches!(self, Self::Open(levels) if levels.audible(channels))
    }
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
    /// As after power-on, with nothing in its jacks.
    pub(crate) fn new(speakers: Speakers) -> Self {
        let widgets = graph::build(speakers);
        Self { power: Power::ON, subsystem: VENDOR_AND_DEVICE, widgets, unknown: 0 }
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

    /// The way of a playback stream's sound to what can be heard.
    pub(crate) fn outlet(&self, tag: u8) -> Path {
        self.path(tag, WidgetType::Output)
    }

    /// The way from a microphone to a capture stream.
    pub(crate) fn inlet(&self, tag: u8) -> Path {
        self.path(tag, WidgetType::Input)
    }

    /// What the converters of a kind do with a stream. If several do something with the same channel, the loudest
    /// is heard: they have the same samples.
    fn path(&self, tag: u8, kind: WidgetType) -> Path {
        let mut levels = [Level::SILENT; 16];
        let mut connected = false;
        for widget in self.widgets.iter().filter(|widget| widget.capabilities.kind() == Ok(kind)) {
            let Part::Converter(converter) = &widget.part else { continue };
            if tag == 0 || converter.stream.tag().value() != tag {
                continue;
            }
            connected = true;
            let on = self.power == Power::ON && widget.power == Power::ON && self.leads_outside(widget);
            let channels = levels.iter_mut().skip(converter.stream.channel().value().into());
            for (level, left) in channels.zip([true, false]).filter(|_| on) {
                *level = (*level).max(match kind {
                    WidgetType::Input => converter.amplifier.sensitivity(left),
                    _ => converter.amplifier.level(left),
                });
            }
        }
        if connected { Path::Open(Levels(levels)) } else { Path::None }
    }

    /// Something was plugged into a jack or pulled out. Answers what the codec says of its own accord, if it may.
    pub(crate) fn plug(&mut self, jack: Jack, present: bool) -> Option<u32> {
        let mut pins = self.widgets.iter_mut().filter_map(|widget| match &mut widget.part {
            Part::Pin(pin) => Some(pin),
            Part::Converter(_) => None,
        });
        pins.find(|pin| pin.jack == Some(jack))?.plug(present)
    }

    /// Whether the function group sleeps.
    pub(crate) fn asleep(&self) -> bool {
        self.power != Power::ON
    }

    /// The link was reset: all but what firmware has written.
    pub(crate) fn reset(&mut self) {
        let Self { power, subsystem: _, widgets, unknown: _ } = self;
        *power = Power::ON;
        widgets.iter_mut().for_each(Widget::reset);
    }

    /// Whether a pin makes this converter's sound audible, or gives it something to hear.
    fn leads_outside(&self, converter: &Widget) -> bool {
        let selected = |widget: &Widget| widget.connections.get(usize::from(widget.select)).copied();
        self.widgets.iter().filter(|widget| widget.power == Power::ON).any(|widget| match &widget.part {
            Part::Pin(pin) if selected(widget) == Some(converter.node) => pin.audible(),
            Part::Pin(pin) if selected(converter) == Some(widget.node) => pin.hears(),
            _ => false,
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
                Some(Parameter::SubordinateNodes) => nodes(graph::FIRST, self.last()),
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

    fn last(&self) -> u8 {
        self.widgets.last().map_or(graph::FIRST, |widget| widget.node)
    }

    fn widget(&mut self, node: u8, verb: Verb) -> Option<u32> {
        if let Some(widget) = self.widgets.iter_mut().find(|widget| widget.node == node) {
            return widget.respond(verb, self.power);
        }
        let gap = (graph::FIRST..=self.last()).contains(&node);
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
