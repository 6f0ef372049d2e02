//! A boot keyboard. HID 1.11, appendices B and F.

mod layout;

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use wire::usb::{Endpoint, Moved, Payload, Request, Setup, Speed};

pub use layout::NoKey;

use crate::{
    descriptors::{Description, EndpointSpec, Identity, kind},
    device::{Answer, Class, Device, Done, as_function},
};

/// Reports that wait for the host: more than anybody types ahead, less than memory notices.
const QUEUE: usize = 1024;
/// The boot report: modifiers, a reserved byte, six keys. HID 1.11 §B.1.
const REPORT_LEN: usize = 8;
/// Interrupt IN 1.
const IN_ADDRESS: u8 = 0x81;
/// The type of the HID descriptor. HID 1.11 §7.1.
const HID: u8 = 0x21;

/// HID 1.11 §B.1, E.6: modifiers, reserved, five LEDs, six keys.
const REPORT_DESCRIPTOR: [u8; 63] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // Generic Desktop, Keyboard, Application
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, // key codes, modifiers, 0 or 1
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, // eight bits, input
    0x95, 0x01, 0x75, 0x08, 0x81, 0x01, // a constant byte
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // five LEDs, output
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01, // three constant bits
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81,
    0x00, // six keys
    0xc0,
];

/// A key that is pressed and released, with the modifiers held meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stroke {
    /// Bits of the report's first byte: left Control, Shift, Alt, GUI, then the right ones.
    pub modifiers: u8,
    /// The key's usage on page 7; 0 if only modifiers are pressed.
    pub usage: u8,
}

/// There is no room for more keys until the host has read some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keyboard's queue is full")]
pub struct Full;

/// Why a text was not typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotType {
    /// A character has no key.
    #[error(transparent)]
    NoKey(#[from] NoKey),
    /// There is no room for all of it.
    #[error(transparent)]
    Full(#[from] Full),
}

/// The keyboard.
#[derive(Debug)]
pub struct Keyboard(Device<Keys>);

#[derive(Debug)]
struct Keys {
    description: Description,
    /// Reports that the host has not read yet, in order.
    reports: VecDeque<Report>,
    /// The last report that the host has read, and when.
    last: Report,
    read_at: Duration,
    /// Presses that the host has read.
    presses_read: u64,
    /// 0 boot, 1 report; the reports look the same.
    protocol: u8,
    /// How long the host does without a report although nothing changes; none means for ever.
    idle: Option<Duration>,
    leds: u8,
}

/// The state of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Report {
    bytes: [u8; REPORT_LEN],
    /// Whether a key is pressed by it.
    press: bool,
}

impl Keyboard {
    /// A high-speed keyboard on which nothing is pressed.
    #[must_use]
    pub fn new() -> Self {
        // 2^(4-1) microframes: a millisecond.
        Self::of_speed(Speed::High, 4)
    }

    /// The same at full speed, as most keyboards are.
    #[must_use]
    pub fn full_speed() -> Self {
        Self::of_speed(Speed::Full, 1)
    }

    fn of_speed(speed: Speed, interval: u8) -> Self {
        let [length, high] = (REPORT_DESCRIPTOR.len() as u16).to_le_bytes();
        let identity =
            Identity { vendor: 0x1209, product: 0xfa01, name: "Farbus Keyboard", serial: "0001".into() };
        let description = Description {
            identity,
            speed,
            class: [3, 1, 1],
            extra: vec![9, HID, 0x11, 0x01, 0, 1, kind::REPORT, length, high],
            settings: vec![vec![EndpointSpec {
                address: IN_ADDRESS,
                attributes: 3,
                max_packet: 8,
                interval,
            }]],
        };
        Self(Device::new(Keys {
            description,
            reports: VecDeque::new(),
            last: Report::default(),
            read_at: Duration::ZERO,
            presses_read: 0,
            protocol: 1,
            idle: None,
            leds: 0,
        }))
    }

    /// Presses and releases a key: two reports, so that a tap is never merged away.
    ///
    /// # Errors
    /// [`Full`]: neither was queued; try again when the host has read some.
    pub fn press(&mut self, stroke: Stroke) -> Result<(), Full> {
        let reports = &mut self.0.class.reports;
        if reports.len() + 2 > QUEUE {
            return Err(Full);
        }
        let bytes = [stroke.modifiers, 0, stroke.usage, 0, 0, 0, 0, 0];
        reports.extend([Report { bytes, press: true }, Report::default()]);
        Ok(())
    }

    /// Types a text on a US layout: all of it, or nothing.
    ///
    /// # Errors
    /// A character has no key, or there is no room for so many; an empty keyboard has room for 512 characters.
    pub fn type_text(&mut self, text: &str) -> Result<(), CannotType> {
        let strokes = text.chars().map(Stroke::typing).collect::<Result<Vec<_>, _>>()?;
        if self.waiting() + 2 * strokes.len() > QUEUE {
            return Err(Full.into());
        }
        Ok(strokes.into_iter().try_for_each(|stroke| self.press(stroke))?)
    }

    /// The LEDs as the host has set them: Num Lock, Caps Lock, Scroll Lock, Compose, Kana.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.0.class.leds
    }

    /// Reports that the host has not read yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.class.reports.len()
    }

    /// Presses that the host has read since the keyboard was made.
    #[must_use]
    pub fn presses_read(&self) -> u64 {
        self.0.class.presses_read
    }
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

impl Class for Keys {
    fn description(&self) -> &Description {
        &self.description
    }

    /// HID 1.11 §7.1, §7.2.
    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer {
        let [low, high] = setup.value.to_le_bytes();
        match (setup.request_type, setup.request) {
            (0x81, 6) if high == kind::REPORT => Answer::Data(REPORT_DESCRIPTOR.to_vec()),
            (0x81, 6) if high == HID => Answer::Data(self.description.extra.clone()),
            // GET_REPORT: input, or the LEDs.
            (0xa1, 1) if high == 1 => Answer::Data(self.last.bytes.to_vec()),
            (0xa1, 1) if high == 2 => Answer::Data(vec![self.leds]),
            (0xa1, 2) => Answer::Data(vec![self.idle.map_or(0, |idle| (idle.as_millis() / 4) as u8)]),
            (0xa1, 3) => Answer::Data(vec![self.protocol]),
            (0x21, 9) => match (high, data.first()) {
                (2, Some(leds)) => {
                    self.leds = *leds;
                    Answer::Ack
                }
                _ => Answer::Stall,
            },
            // SET_IDLE counts in 4 ms; there is one report, with id 0.
            (0x21, 10) if low == 0 => {
                self.idle = (high > 0).then(|| Duration::from_millis(4 * u64::from(high)));
                Answer::Ack
            }
            (0x21, 11) if low <= 1 => {
                self.protocol = low;
                Answer::Ack
            }
            _ => Answer::Stall,
        }
    }

    fn transfer(&mut self, now: Duration, request: &Request) -> Option<Done> {
        let Payload::In { max } = &request.payload else { return None };
        let idle = self.deadline(request).is_some_and(|at| at <= now);
        let report = self.reports.pop_front().or_else(|| idle.then_some(self.last))?;
        (self.last, self.read_at) = (Report { press: false, ..report }, now);
        self.presses_read += u64::from(report.press);
        let length = (*max as usize).min(REPORT_LEN);
        let data = report.bytes.get(..length).unwrap_or_default();
        Some(Done::Moved(Moved::In(Bytes::copy_from_slice(data))))
    }

    fn report_descriptor(&self) -> Option<&'static [u8]> {
        Some(&REPORT_DESCRIPTOR)
    }

    /// Reports are states and changes of a person's fingers: none may be lost, each may be read early.
    fn read_ahead(&self) -> Vec<Endpoint> {
        Endpoint::from_address(IN_ADDRESS).into_iter().collect()
    }

    /// HID 1.11 §7.2.4: the report is said again when it has not changed for so long.
    fn deadline(&self, _: &Request) -> Option<Duration> {
        self.idle.map(|idle| self.read_at + idle)
    }

    /// What was typed stays typed: the next host reads it.
    fn reset(&mut self) {
        self.protocol = 1;
        self.idle = None;
    }
}

as_function!([] Keyboard);
