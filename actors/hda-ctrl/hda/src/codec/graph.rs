//! What the codec is built of: converters, pins, and what connects them.
//!
//! ```text
//!   stream tag ──► 02 DAC ──► 14 speaker, fixed, always there        channel 0
//!   stream tag ──► 06 DAC ──► 15 headphone jack                      channel 0
//!   stream tag ◄── 08 ADC ◄── 18 microphone jack                     channel 0
//!
//!   7.1 only:  03 DAC ──► 16 centre and bass, 04 DAC ──► 17 rear, 05 DAC ──► 19 side
//! ```
//!
//! Amplifiers are the converters': behind a DAC, before an ADC. Node IDs between these are vendor-defined widgets,
//! which drivers pass over: the nodes of a function group have to be without gaps (HDA 1.0a §7.3.4.3). Each pin has a
//! converter of its own, so that Windows keeps one endpoint per pin. All speakers are one association, so that
//! together they are one endpoint; its sequence is the order of channels.

use wire::audio::Jack;

use super::pin::{AmplifierPower, Pin, PinCapabilities, PinControl, Unsolicited};
use super::widget::{Converter, Part, Power, Widget, WidgetCapabilities, WidgetType};
use crate::Speakers;

/// The first node behind the function group.
pub(crate) const FIRST: u8 = DAC_FRONT;

const DAC_FRONT: u8 = 0x02;
const DAC_CENTRE: u8 = 0x03;
const DAC_REAR: u8 = 0x04;
const DAC_SIDE: u8 = 0x05;
const DAC_HEADPHONE: u8 = 0x06;
const ADC: u8 = 0x08;
const SPEAKER_FRONT: u8 = 0x14;
const HEADPHONE: u8 = 0x15;
const SPEAKER_CENTRE: u8 = 0x16;
const SPEAKER_REAR: u8 = 0x17;
const MICROPHONE: u8 = 0x18;
const SPEAKER_SIDE: u8 = 0x19;

/// Configuration Default: fixed, internal, a speaker of unknown colour, no presence detection, association 1; plus
/// its sequence. HDA 1.0a §7.3.3.31.
const SPEAKER_CONFIGURATION: u32 = 0x9010_0110;
/// A jack at the front, headphones, 1/8 inch, green, association 2.
const HEADPHONE_CONFIGURATION: u32 = 0x0221_4020;
/// A jack at the front, a microphone, 1/8 inch, pink, association 3.
const MICROPHONE_CONFIGURATION: u32 = 0x02a1_9030;
/// A microphone may get no voltage at all (Hi-Z), 50 % or 80 %. HDA 1.0a §7.3.4.9.
const REFERENCES: u8 = 0b0001_0011;

/// What an unused node ID in the middle says that it is.
pub(crate) const GAP: WidgetCapabilities = WidgetCapabilities::DEFAULT.with_kind(WidgetType::Vendor);

/// The widgets as they are after power-on, in the order of their nodes.
pub(crate) fn build(speakers: Speakers) -> Vec<Widget> {
    let mut widgets = vec![
        dac(DAC_FRONT),
        speaker(SPEAKER_FRONT, &[DAC_FRONT], 0),
        dac(DAC_HEADPHONE),
        headphone(),
        adc(),
        microphone(),
    ];
    if speakers == Speakers::Surround71 {
        widgets.extend([
            dac(DAC_CENTRE),
            speaker(SPEAKER_CENTRE, &[DAC_CENTRE], 1),
            dac(DAC_REAR),
            speaker(SPEAKER_REAR, &[DAC_REAR], 2),
            dac(DAC_SIDE),
            speaker(SPEAKER_SIDE, &[DAC_SIDE], 3),
        ]);
    }
    widgets.sort_by_key(|widget| widget.node);
    widgets.iter_mut().for_each(Widget::reset);
    widgets
}

/// What all widgets have.
const STEREO: WidgetCapabilities = WidgetCapabilities::DEFAULT.with_stereo(true).with_power(true);

fn converter(node: u8, capabilities: WidgetCapabilities, connections: &'static [u8]) -> Widget {
    let capabilities = capabilities
        .with_amplifier_override(true)
        .with_format_override(true)
        .with_connection_list(!connections.is_empty());
    let part = Part::Converter(Converter::default());
    Widget { node, capabilities, connections, select: 0, power: Power::ON, part }
}

fn dac(node: u8) -> Widget {
    converter(node, STEREO.with_kind(WidgetType::Output).with_output_amplifier(true), &[])
}

fn adc() -> Widget {
    converter(ADC, STEREO.with_kind(WidgetType::Input).with_input_amplifier(true), &[MICROPHONE])
}

fn pin(node: u8, connections: &'static [u8], pin: Pin) -> Widget {
    let capabilities = STEREO
        .with_kind(WidgetType::Pin)
        .with_connection_list(!connections.is_empty())
        .with_unsolicited(pin.jack.is_some());
    Widget { node, capabilities, connections, select: 0, power: Power::ON, part: Part::Pin(pin) }
}

fn speaker(node: u8, connections: &'static [u8], sequence: u32) -> Widget {
    let speaker = Pin {
        capabilities: PinCapabilities::DEFAULT.with_output(true).with_external_amplifier(true),
        control: PinControl::DEFAULT,
        amplifier_power: AmplifierPower::DEFAULT,
        unsolicited: Unsolicited::DEFAULT,
        configuration: SPEAKER_CONFIGURATION | sequence,
        jack: None,
        plugged: true,
    };
    pin(node, connections, speaker)
}

fn headphone() -> Widget {
    let capabilities =
        PinCapabilities::DEFAULT.with_output(true).with_headphone(true).with_presence_detect(true);
    pin(HEADPHONE, &[DAC_HEADPHONE], jack(Jack::Headphone, capabilities, HEADPHONE_CONFIGURATION))
}

fn microphone() -> Widget {
    let capabilities =
        PinCapabilities::DEFAULT.with_input(true).with_presence_detect(true).with_references(REFERENCES);
    pin(MICROPHONE, &[], jack(Jack::Microphone, capabilities, MICROPHONE_CONFIGURATION))
}

fn jack(jack: Jack, capabilities: PinCapabilities, configuration: u32) -> Pin {
    Pin {
        capabilities,
        control: PinControl::DEFAULT,
        amplifier_power: AmplifierPower::DEFAULT,
        unsolicited: Unsolicited::DEFAULT,
        configuration,
        jack: Some(jack),
        plugged: false,
    }
}
