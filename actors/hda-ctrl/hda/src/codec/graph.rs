//! What the codec is built of: converters, pins, and what connects them.
//!
//! ```text
//!   stream tag ──► 02 DAC ──(amplifier)──► 14 speaker, fixed, always there
//! ```
//!
//! Node IDs between these are vendor-defined widgets, which drivers pass over: the nodes of a function group have to
//! be without gaps (HDA 1.0a §7.3.4.3). Each pin has a converter of its own, so that Windows keeps one endpoint per
//! pin.
//!
//! Not done: headphone jack and microphone.

use super::amplifier::Amplifier;
use super::widget::{
    AmplifierPower, Part, Pin, PinCapabilities, PinControl, Power, StreamChannel, Unsolicited, Widget,
    WidgetCapabilities, WidgetType,
};

/// The first node behind the function group.
pub(crate) const FIRST: u8 = DAC_SPEAKER;
/// The last one.
pub(crate) const LAST: u8 = SPEAKER;

const DAC_SPEAKER: u8 = 0x02;
const SPEAKER: u8 = 0x14;

/// Configuration Default: fixed, internal, a speaker of unknown colour, no presence detection, association 1,
/// sequence 0. HDA 1.0a §7.3.3.31.
const SPEAKER_CONFIGURATION: u32 = 0x9010_0110;

/// What an unused node ID in the middle says that it is.
pub(crate) const GAP: WidgetCapabilities = WidgetCapabilities::DEFAULT.with_kind(WidgetType::Vendor);

/// The widgets as they are after power-on.
pub(crate) fn build() -> Vec<Widget> {
    let mut widgets = vec![dac(DAC_SPEAKER), speaker(SPEAKER, &[DAC_SPEAKER])];
    widgets.iter_mut().for_each(Widget::reset);
    widgets
}

fn dac(node: u8) -> Widget {
    let capabilities = WidgetCapabilities::DEFAULT
        .with_kind(WidgetType::Output)
        .with_stereo(true)
        .with_output_amplifier(true)
        .with_amplifier_override(true)
        .with_format_override(true)
        .with_power(true);
    let part = Part::Converter { format: 0, stream: StreamChannel::DEFAULT, amplifier: Amplifier::default() };
    Widget { node, capabilities, connections: &[], select: 0, power: Power::ON, part }
}

fn speaker(node: u8, connections: &'static [u8]) -> Widget {
    let capabilities = WidgetCapabilities::DEFAULT
        .with_kind(WidgetType::Pin)
        .with_stereo(true)
        .with_connection_list(true)
        .with_power(true);
    let pin = Pin {
        capabilities: PinCapabilities::DEFAULT.with_output(true).with_external_amplifier(true),
        control: PinControl::DEFAULT,
        amplifier_power: AmplifierPower::DEFAULT,
        unsolicited: Unsolicited::DEFAULT,
        configuration: SPEAKER_CONFIGURATION,
        plugged: true,
    };
    Widget { node, capabilities, connections, select: 0, power: Power::ON, part: Part::Pin(pin) }
}
