//! Control requests that are not simply the device's business. xHCI 1.2 §4.5.4, USB 2.0 §9.4, USB 3.2 §9.4.

use bytes::Bytes;
use wire::{
    control::Profile,
    usb::{Direction, Endpoint, Setup},
};

use super::SlotEffect;

const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const SET_ADDRESS: u8 = 5;
const GET_DESCRIPTOR: u8 = 6;
const SET_CONFIGURATION: u8 = 9;
const SET_INTERFACE: u8 = 11;
const SET_SEL: u8 = 48;
const SET_ISOCH_DELAY: u8 = 49;

const TO_DEVICE: u8 = 0x00;
const TO_INTERFACE: u8 = 0x01;
const TO_ENDPOINT: u8 = 0x02;
const FROM_DEVICE: u8 = 0x80;

/// Bulk-Only Mass Storage Reset. Bulk-Only Transport 1.0 §3.1.
const CLASS_TO_INTERFACE: u8 = 0x21;
const BULK_ONLY_RESET: u8 = 0xff;

const ENDPOINT_HALT: u16 = 0;
const FUNCTION_SUSPEND: u16 = 0;
const DEVICE_REMOTE_WAKEUP: u16 = 1;
const U1_ENABLE: u16 = 48;
const LTM_ENABLE: u16 = 50;

const CONFIGURATION: u8 = 2;
const REMOTE_WAKEUP_ATTRIBUTE: u8 = 0x20;

/// What to do with a control request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The remote carries it out.
    Forward,
    /// The same, and it voids late data of endpoints.
    ForwardWith(SlotEffect),
    /// Success at once, and the remote never hears of it.
    Answer,
    /// Success at once; the remote carries it out, and the endpoint with this device context index waits for it.
    Acknowledge(u8),
}

/// What to do with this request, given the endpoints that are enabled (bit n for device context index n).
///
/// The remote computer owns the device's address, its link (U1, U2, latencies) and its power: what a guest asks of
/// them is answered here. CLEAR_FEATURE(ENDPOINT_HALT) is acknowledged early, because firmware waits 10 ms for it.
pub(crate) fn plan(setup: Setup, enabled: u32) -> Plan {
    match (setup.request_type, setup.request, setup.value) {
        (TO_DEVICE, SET_ADDRESS | SET_SEL | SET_ISOCH_DELAY, _) => Plan::Answer,
        (TO_DEVICE, CLEAR_FEATURE | SET_FEATURE, DEVICE_REMOTE_WAKEUP | U1_ENABLE..=LTM_ENABLE) => {
            Plan::Answer
        }
        (TO_INTERFACE, CLEAR_FEATURE | SET_FEATURE, FUNCTION_SUSPEND) => Plan::Answer,
        (CLASS_TO_INTERFACE, BULK_ONLY_RESET, _) => Plan::ForwardWith(SlotEffect::ResetTransport),
        (TO_DEVICE, SET_CONFIGURATION, _) => Plan::ForwardWith(SlotEffect::Flush),
        (TO_INTERFACE, SET_INTERFACE, _) => Plan::ForwardWith(SlotEffect::FlushInterface),
        (TO_ENDPOINT, CLEAR_FEATURE, ENDPOINT_HALT) => match context_index(setup.index) {
            Some(index) if index > 1 && enabled & 1 << index != 0 => Plan::Acknowledge(index),
            _ => Plan::Forward,
        },
        _ => Plan::Forward,
    }
}

/// CLEAR_FEATURE(ENDPOINT_HALT) for this endpoint. USB 2.0 §9.4.1.
pub(crate) fn clear_halt(endpoint: Endpoint) -> Setup {
    Setup {
        request_type: TO_ENDPOINT,
        request: CLEAR_FEATURE,
        value: ENDPOINT_HALT,
        index: endpoint.address().into(),
        length: 0,
    }
}

/// The device context index of an endpoint address in wIndex. xHCI 1.2 §4.5.1.
fn context_index(index: u16) -> Option<u8> {
    let endpoint = Endpoint::from_address(u8::try_from(index).ok()?)?;
    Some(crate::endpoint::context_index(endpoint))
}

/// The answer to a GET_DESCRIPTOR request that is known beforehand, as much of it as is asked for: that saves a round
/// trip each. USB 2.0 §9.4.3. A device whose descriptors have changed comes back as another one, with another profile.
pub(crate) fn known(profile: Option<&Profile>, setup: Setup) -> Option<Bytes> {
    if setup.request != GET_DESCRIPTOR || setup.direction() != Direction::In {
        return None;
    }
    let asked = (setup.request_type, setup.value, setup.index);
    let mut descriptors = profile?.descriptors.iter();
    let found = descriptors.find(|known| (known.request_type, known.value, known.index) == asked)?;
    Some(found.data.slice(..found.data.len().min(setup.length.into())))
}

/// What the guest sees of a control request's data: no device claims to wake it, because nobody would hear that.
pub(crate) fn disguise(setup: Setup, data: Bytes) -> Bytes {
    let is_configuration = (setup.request_type, setup.request) == (FROM_DEVICE, GET_DESCRIPTOR)
        && setup.value >> 8 == u16::from(CONFIGURATION)
        && data.get(1) == Some(&CONFIGURATION);
    match data.get(7) {
        Some(attributes) if is_configuration && attributes & REMOTE_WAKEUP_ATTRIBUTE != 0 => {
            let mut data = data.to_vec();
            data.iter_mut().skip(7).take(1).for_each(|attributes| *attributes &= !REMOTE_WAKEUP_ATTRIBUTE);
            data.into()
        }
        _ => data,
    }
}
