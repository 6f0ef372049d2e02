//! Control messages: one kind byte and a map with named fields.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::DecodeError;
use crate::{
    Lane, Message,
    control::{Answer, Hello, MAX_DESCRIPTORS, MAX_TEXT},
};

/// The longest control message, bytes: an attachment with all its descriptors.
const MAX_CONTROL: usize = MAX_DESCRIPTORS + (16 << 10);
/// The longest greeting or answer, bytes: it is read before anything is known of the peer.
const MAX_GREETING: usize = 4096;

impl Hello {
    /// Writes the greeting for a handshake message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_map(self)
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// It is malformed, too long, or has a text over [`MAX_TEXT`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: Self = from_map(bytes, MAX_GREETING)?;
        check_text("vm", hello.vm.as_deref().unwrap_or(""))?;
        check_text("name", &hello.name)?;
        Ok(hello)
    }
}

impl Answer {
    /// Writes the answer for a handshake message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_map(self)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// It is malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let answer: Self = from_map(bytes, MAX_GREETING)?;
        match &answer {
            Self::Welcome { vm } => check_text("vm", vm)?,
            Self::Refused { text, .. } => check_text("text", text)?,
        }
        Ok(answer)
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), DecodeError> {
    if text.len() > MAX_TEXT { Err(DecodeError::Field { field, value: text.len() as u64 }) } else { Ok(()) }
}

fn to_map(value: &impl Serialize) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "plain structs of integers and strings always serialise to memory"
    )]
    rmp_serde::to_vec_named(value).expect("control nouns serialise")
}

fn from_map<T: DeserializeOwned>(bytes: &[u8], longest: usize) -> Result<T, DecodeError> {
    if bytes.len() > longest {
        return Err(DecodeError::Long { len: bytes.len() });
    }
    rmp_serde::from_slice(bytes).map_err(|error| DecodeError::Control(error.to_string()))
}

pub(super) fn encode(value: &impl Serialize) -> Message {
    Message {
        lane: Lane::Ctl,
        head: Bytes::from_static(&[super::kind::CONTROL]),
        body: Bytes::from(to_map(value)),
    }
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    from_map(body, MAX_CONTROL)
}
