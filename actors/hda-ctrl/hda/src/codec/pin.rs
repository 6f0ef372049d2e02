//! Pin complexes: where sound leaves the codec and comes into it. HDA 1.0a §7.2.3.4.
#![expect(unreachable_pub, reason = "what bitbybit generates is pub")]

use bitbybit::bitfield;
use wire::audio::Jack;

use super::verb::Verb;
use super::widget::{WidgetCapabilities, set, set_byte};

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
    /// The voltages that a microphone can get: one bit for each.
    #[bits(8..=15, rw)]
    references: u8,
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

/// A pin complex.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) capabilities: PinCapabilities,
    pub(crate) control: PinControl,
    pub(crate) amplifier_power: AmplifierPower,
    pub(crate) unsolicited: Unsolicited,
    /// The Configuration Default, which firmware may change. HDA 1.0a §7.3.3.31.
    pub(crate) configuration: u32,
    /// The jack that it is; `None`: it is fixed.
    pub(crate) jack: Option<Jack>,
    /// Something is plugged in.
    pub(crate) plugged: bool,
}

impl Pin {
    pub(super) fn respond(&mut self, verb: Verb, widget: WidgetCapabilities) -> Option<u32> {
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
            Verb::GetAmplifierPower | Verb::SetAmplifierPower(_)
                if !self.capabilities.external_amplifier() =>
            {
                Some(0)
            }
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
        let amplified = self.amplifier_power.on() || !self.capabilities.external_amplifier();
        self.plugged && self.control.output() && amplified
    }

    /// Whether the pin hears anything.
    pub(crate) fn hears(&self) -> bool {
        self.plugged && self.control.input()
    }

    /// A reset of the function group or of the link: everything but what firmware has written.
    pub(crate) fn reset(&mut self) {
        let Self {
            capabilities,
            control,
            amplifier_power,
            unsolicited,
            configuration: _,
            jack: _,
            plugged: _,
        } = self;
        *control = PinControl::DEFAULT.with_output(capabilities.output()).with_input(capabilities.input());
        *amplifier_power = AmplifierPower::DEFAULT;
        *unsolicited = Unsolicited::DEFAULT;
    }

    /// Something was plugged in or pulled out. Answers what the pin says of its own accord, if it may.
    pub(crate) fn plug(&mut self, present: bool) -> Option<u32> {
        self.plugged = present;
        self.unsolicited.enable().then(|| u32::from(self.unsolicited.tag().value()) << 26)
    }
}
