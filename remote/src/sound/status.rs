//! How sound is, for people and programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use wire::audio;

use crate::events::Counts;

/// Everything there is to tell of sound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What the VM plays, or has paused.
    pub(crate) playing: Vec<Playing>,
    pub(crate) microphone: Microphone,
    /// The VM is told that headphones are plugged in.
    pub(crate) headphones: bool,
}

/// A stream that the VM plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Playing {
    pub(crate) stream: u8,
    #[serde(flatten)]
    pub(crate) format: Format,
    /// Frames that wait for the sound card.
    pub(crate) queued: u64,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// The microphone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Microphone {
    /// The VM may hear it, if it is there.
    pub(crate) granted: bool,
    pub(crate) present: bool,
    pub(crate) muted: bool,
    /// As the device has it, while it is open.
    pub(crate) device: Option<Format>,
    pub(crate) recordings: Vec<Recording>,
    /// Times that the device was not looked after in time.
    pub(crate) xruns: u64,
}

/// A stream that the VM records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recording {
    pub(crate) stream: u8,
    #[serde(flatten)]
    pub(crate) format: Format,
    /// Frames sent.
    pub(crate) frames: u64,
    /// Frames that were too late to be sent.
    pub(crate) lost: u64,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) rate: u32,
    pub(crate) bits: u8,
    pub(crate) channels: u8,
}

impl From<audio::Format> for Format {
    fn from(audio::Format { rate, encoding, channels }: audio::Format) -> Self {
        Self { rate, bits: encoding.significant_bits(), channels }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, bits, channels } = self;
        write!(f, "{rate} Hz, {bits} bit, {channels} channels")
    }
}

/// Lines for people.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { playing, microphone, headphones } = self;
        for Playing { stream, format, queued, counts } in playing {
            writeln!(f, "the VM plays (stream {stream}): {format}; {queued} frames wait; {counts}")?;
        }
        if *headphones {
            writeln!(f, "headphones: plugged in")?;
        }
        let Microphone { granted, present, muted, device, recordings, xruns } = microphone;
        if !granted {
            return Ok(());
        }
        let state = match (present, muted) {
            (false, _) => "not there",
            (true, true) => "muted",
            (true, false) if recordings.is_empty() => "the VM does not listen",
            (true, false) => "the VM listens",
        };
        write!(f, "microphone: {state}")?;
        if let Some(device) = device {
            write!(f, " ({device}; {xruns} overruns)")?;
        }
        writeln!(f)?;
        for Recording { stream, format, frames, lost } in recordings {
            writeln!(f, "the VM records (stream {stream}): {format}; {frames} frames sent, {lost} lost")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_whether_the_vm_listens() {
        let format = Format { rate: 48_000, bits: 16, channels: 2 };
        let recording = Recording { stream: 0, format, frames: 480, lost: 1 };
        let microphone = Microphone { granted: true, present: true, ..Microphone::default() };
        let status = |microphone| Status { microphone, ..Status::default() }.to_string();
        assert_eq!(status(Microphone::default()), "");
        assert_eq!(status(microphone.clone()), "microphone: the VM does not listen\n");
        let listens = Microphone { recordings: vec![recording], device: Some(format), ..microphone };
        for part in ["the VM listens (48000 Hz, 16 bit, 2 channels; 0 overruns)", "480 frames sent, 1 lost"] {
            assert!(status(listens.clone()).contains(part), "{part}");
        }
        assert!(status(Microphone { muted: true, ..listens }).contains("muted"));
    }
}
