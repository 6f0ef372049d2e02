//! The requests that every device answers. USB 2.0 §9.4, USB 3.2 §9.4.

use wire::usb::{Endpoint, Setup};

use super::{Answer, Class, Device};
use crate::descriptors::kind;

const GET_STATUS: u8 = 0;
const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const SET_ADDRESS: u8 = 5;
const GET_DESCRIPTOR: u8 = 6;
const GET_CONFIGURATION: u8 = 8;
const SET_CONFIGURATION: u8 = 9;
const GET_INTERFACE: u8 = 10;
const SET_INTERFACE: u8 = 11;
const SET_SEL: u8 = 48;
const SET_ISOCH_DELAY: u8 = 49;

/// The feature of an endpoint that is halted.
const ENDPOINT_HALT: u16 = 0;

/// Whom a request is for. USB 2.0 §9.3.
enum Recipient {
    Device,
    /// The only interface.
    Interface,
    Endpoint,
}

impl<C: Class> Device<C> {
    /// Answers a control request of any kind.
    pub(super) fn answer(&mut self, setup: Setup, data: &[u8]) -> Answer {
        let recipient = match (setup.request_type & 0x1f, setup.index.to_le_bytes()) {
            (0, _) => Recipient::Device,
            (1, [0, _]) => Recipient::Interface,
            (2, _) => Recipient::Endpoint,
            _ => return Answer::Stall,
        };
        let standard = setup.request_type & 0x60 == 0;
        match recipient {
            Recipient::Device if standard => self.device_request(setup),
            Recipient::Endpoint if standard => self.endpoint_request(setup),
            Recipient::Interface if standard && setup.request != GET_DESCRIPTOR => {
                self.interface_request(setup)
            }
            // Before it is configured it has no interface, and no class. USB 2.0 §9.4.
            Recipient::Device | Recipient::Interface if self.configured => self.class.control(setup, data),
            _ => Answer::Stall,
        }
    }

    fn device_request(&mut self, setup: Setup) -> Answer {
        match setup.request {
            GET_DESCRIPTOR => self.descriptor(setup),
            SET_CONFIGURATION => self.configure(setup.value),
            GET_CONFIGURATION => Answer::Data(vec![u8::from(self.configured)]),
            // The remote's own host owns the link's address and power: nothing is suspended, nothing wakes.
            SET_ADDRESS | SET_SEL | SET_ISOCH_DELAY | SET_FEATURE | CLEAR_FEATURE => Answer::Ack,
            GET_STATUS => Answer::Data(vec![0, 0]),
            _ => Answer::Stall,
        }
    }

    fn interface_request(&mut self, setup: Setup) -> Answer {
        match setup.request {
            _ if !self.configured => Answer::Stall,
            GET_INTERFACE => Answer::Data(vec![self.setting]),
            SET_INTERFACE => self.set(setup.value),
            SET_FEATURE | CLEAR_FEATURE => Answer::Ack,
            GET_STATUS => Answer::Data(vec![0, 0]),
            _ => Answer::Stall,
        }
    }

    fn descriptor(&self, setup: Setup) -> Answer {
        let description = self.class.description();
        let [index, kind] = setup.value.to_le_bytes();
        let found = match kind {
            kind::DEVICE => Some(description.device()),
            kind::CONFIGURATION if index == 0 => Some(description.configuration()),
            kind::STRING => description.string(index),
            kind::QUALIFIER => description.qualifier(),
            kind::OTHER_SPEED if index == 0 => description.other_speed(),
            kind::BOS => description.bos(),
            _ => None,
        };
        found.map_or(Answer::Stall, Answer::Data)
    }

    fn configure(&mut self, configuration: u16) -> Answer {
        if configuration > 1 {
            return Answer::Stall;
        }
        self.configured = configuration == 1;
        self.start_over(0)
    }

    /// USB 2.0 §9.4.10: choosing the present setting again starts the interface over, too.
    fn set(&mut self, setting: u16) -> Answer {
        match u8::try_from(setting) {
            Ok(setting) if usize::from(setting) < self.class.description().settings.len() => {
                self.start_over(setting)
            }
            _ => Answer::Stall,
        }
    }

    /// Endpoints start over with their setting: not halted, and what still waits there will never be answered.
    fn start_over(&mut self, setting: u8) -> Answer {
        self.setting = setting;
        self.cancel_all();
        self.class.reset();
        self.pipes.values_mut().for_each(|pipe| pipe.halted = false);
        Answer::Ack
    }

    /// USB 2.0 §9.4.1, §9.4.5, §9.4.9 with recipient endpoint.
    fn endpoint_request(&mut self, setup: Setup) -> Answer {
        let endpoint = u8::try_from(setup.index).ok().and_then(Endpoint::from_address);
        let endpoint = endpoint.filter(|e| *e == Endpoint::CONTROL || self.spec(*e).is_some());
        let Some((endpoint, pipe)) = endpoint.and_then(|e| self.pipes.get_mut(&e).map(|pipe| (e, pipe)))
        else {
            return Answer::Stall;
        };
        match (setup.request, setup.value) {
            (GET_STATUS, _) => Answer::Data(vec![u8::from(pipe.halted), 0]),
            (CLEAR_FEATURE, ENDPOINT_HALT) => {
                pipe.halted &= !self.class.may_clear_halt(endpoint);
                Answer::Ack
            }
            // The control endpoint has no halt to set.
            (SET_FEATURE, ENDPOINT_HALT) => {
                if endpoint != Endpoint::CONTROL {
                    self.halt(endpoint);
                }
                Answer::Ack
            }
            _ => Answer::Stall,
        }
    }
}
